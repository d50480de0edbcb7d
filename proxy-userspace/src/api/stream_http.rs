//! `PROXY_HTTP_SERVER`: the port players fetch streams from.

use axum::{Router, response::Response, routing::any};

use super::{ApiError, json_answer, srs_members};

/// Its routes.
pub fn router() -> Router {
    Router::new().route("/api/v1/versions", any(versions)).fallback(nothing_here)
}

async fn versions() -> Response {
    json_answer(&srs_members())
}

async fn nothing_here() -> ApiError {
    ApiError::NotFound("this server has no HTTP streams; publish and play by WHIP and WHEP on the API port")
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::api::testing::{get, text};

    #[tokio::test]
    async fn versions_have_the_shape_of_srs() {
        let (status, body) = text(get(router(), "/api/v1/versions").await).await;
        let json: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &json["code"]), (StatusCode::OK, &0.into()));
        assert!(json["data"]["major"].is_number() && json["data"]["version"].is_string());
    }

    #[tokio::test]
    async fn a_stream_is_refused_with_words() {
        let (status, body) = text(get(router(), "/live/livestream.flv").await).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(body.contains("WHIP"), "{body}");
    }
}
