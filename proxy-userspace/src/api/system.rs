//! `PROXY_SYSTEM_API`: origins register here; operators ask how the proxy is.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{RawQuery, State},
    response::{IntoResponse as _, Response},
    routing::{any, get, post},
};
use http::{HeaderMap, Method, Request, StatusCode, header};
use proxy_protocol::query;
use serde_json::json;
use tracing::{debug, warn};

use super::{
    ApiError, BodyLimits, Connection, bearer::authorize, body::read_request, json_answer, resolve::Resolver,
    signature_members,
};
use crate::{
    config::Secret,
    origin::{Origin, OriginStatus, Registry, registration::Registration},
};

/// Writes all metrics, those of these origins among them, in the OpenMetrics text format.
pub type EncodeMetrics = Arc<dyn Fn(&[OriginStatus]) -> String + Send + Sync>;
/// Tells how the proxy takes traffic, or what keeps it from that.
pub type Readiness = Arc<dyn Fn() -> Result<String, String> + Send + Sync>;

/// What the system API works on.
#[derive(Clone)]
pub struct System {
    /// Where origins are kept.
    pub registry: Arc<dyn Registry>,
    /// Resolves origins that register by name.
    pub resolver: Arc<Resolver>,
    /// The bearer token that registering and listing origins demand.
    pub token: Option<Secret>,
    /// Limits of a heartbeat.
    pub limits: BodyLimits,
    /// For `/metrics`.
    pub metrics: EncodeMetrics,
    /// For `/readyz`.
    pub readiness: Readiness,
}

const WHICH: &str = "say which origin: ?origin= its id, server id, device id or address";

impl std::fmt::Debug for System {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("System")
            .field("token", &self.token)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Its routes; the two that the Go proxy has take any method, as there.
pub fn router(system: System) -> Router {
    Router::new()
        .route("/api/v1/srs/register", any(register))
        .route("/api/v1/versions", any(versions))
        .route("/api/v1/origins", get(origins))
        .route("/api/v1/origins/drain", post(drain).delete(drain))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .fallback(nothing_here)
        .with_state(system)
}

async fn register(State(system): State<System>, request: Request<Body>) -> Result<Response, ApiError> {
    authorize(request.headers(), system.token.as_ref())?;
    let peer = request.extensions().get::<Connection>().map(|ends| ends.peer);
    let body = read_request(request.into_body(), system.limits).await?;
    let recorded = record(&system, &body).await;
    if let Err(error) = &recorded {
        warn!(?peer, %error, "heartbeat of an origin is refused");
    }
    recorded?;
    Ok(json_answer(&json!({ "code": 0, "pid": std::process::id().to_string() })))
}

async fn record(system: &System, body: &[u8]) -> Result<(), ApiError> {
    let registration = Registration::parse(body)?;
    let terms = registration.terms;
    let origin = resolve(&system.resolver, registration).await?;
    debug!(id = %origin.id, device = %origin.device_id, "heartbeat");
    let recorded = system.registry.register(origin, terms).await;
    recorded.map_err(|error| ApiError::Register(error.to_string()))
}

/// The origin of a registration whose host may be a name.
pub async fn resolve(resolver: &Resolver, registration: Registration) -> Result<Origin, ApiError> {
    let ips = resolver.addresses(&registration.host).await;
    let ip = ips.iter().find(|ip| ip.is_ipv4()).or(ips.first());
    match ip {
        Some(ip) if !ip.is_unspecified() => Ok(registration.into_origin(*ip)),
        Some(_) | None => Err(ApiError::Register(format!(
            "`ip` of the heartbeat is {:?}, which is neither an address nor a name that resolves to one",
            registration.host
        ))),
    }
}

async fn versions() -> Response {
    json_answer(&signature_members())
}

async fn origins(State(system): State<System>, headers: HeaderMap) -> Result<Response, ApiError> {
    authorize(&headers, system.token.as_ref())?;
    Ok(json_answer(&json!({ "code": 0, "origins": system.registry.list().await })))
}

/// An origin that is about to stop asks for this, or the operator: `POST` has it get no new streams, `DELETE` takes that back.
async fn drain(
    State(system): State<System>,
    method: Method,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    authorize(&headers, system.token.as_ref())?;
    let name = query.as_deref().and_then(|query| query::value(query, "origin")).map(query::percent_decode);
    let name = name.ok_or_else(|| ApiError::BadRequest(WHICH.to_owned()))?;
    let drained = system.registry.drain(&name, method == Method::POST).await;
    match drained.map_err(|error| ApiError::Register(error.to_string()))? {
        none if none.is_empty() => Err(ApiError::NotFound("no origin is called so")),
        origins => Ok(json_answer(&json!({ "code": 0, "origins": origins }))),
    }
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(system): State<System>) -> Response {
    match (system.readiness)() {
        Ok(how) => format!("{how}\n").into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")).into_response(),
    }
}

async fn metrics(State(system): State<System>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let origins = system.registry.list().await;
    ([(header::CONTENT_TYPE, OPEN_METRICS)], (system.metrics)(&origins)).into_response()
}

async fn nothing_here() -> ApiError {
    ApiError::NotFound(
        "the system API serves /api/v1/srs/register, /api/v1/origins, /api/v1/origins/drain, /healthz, /readyz and /metrics",
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;

    use super::*;
    use crate::{
        api::testing::{get, send, text},
        config,
        origin::memory::MemoryRegistry,
    };

    fn system() -> System {
        let settings = config::Origins {
            ttl: Duration::from_secs(300),
            probe_interval: Duration::ZERO,
            probe_timeout: Duration::from_secs(1),
            probe_failures: 2,
            pick_ttl: Duration::from_secs(120),
        };
        let (registry, _events) = MemoryRegistry::new(settings, config::Balancing::default());
        System {
            registry,
            resolver: Arc::new(Resolver::new(Duration::from_secs(1))),
            token: None,
            limits: BodyLimits { size: 4096, time: Duration::from_secs(1) },
            metrics: Arc::new(|_| "# EOF\n".into()),
            readiness: Arc::new(|| Err("no origin is up".into())),
        }
    }

    fn heartbeat() -> Value {
        json!({"ip": "127.0.0.1", "server": "s", "service": "v", "pid": "1", "device_id": "origin1", "rtmp": ["1935"]})
    }

    fn post(body: impl Into<Body>) -> Request<Body> {
        Request::post("/api/v1/srs/register").body(body.into()).unwrap()
    }

    async fn register_with(system: System, request: Request<Body>) -> (StatusCode, String) {
        text(send(router(system), request).await).await
    }

    #[tokio::test]
    async fn a_heartbeat_registers_the_origin() {
        let system = system();
        let (status, body) = register_with(system.clone(), post(heartbeat().to_string())).await;
        assert_eq!(status, StatusCode::OK);
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer, json!({"code": 0, "pid": std::process::id().to_string()}));
        let (_, list) = text(get(router(system), "/api/v1/origins").await).await;
        let list: Value = serde_json::from_str(&list).unwrap();
        assert_eq!(
            (&list["origins"][0]["device_id"], &list["origins"][0]["state"]),
            (&"origin1".into(), &"up".into())
        );
    }

    #[tokio::test]
    async fn defect_30_an_error_answer_is_only_an_error() {
        let (status, body) = register_with(system(), post(r#"{"ip":"10.0.0.1"}"#)).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(body.starts_with("empty server: this SRS is too old") && !body.contains("code"), "{body}");
    }

    #[tokio::test]
    async fn an_address_that_is_none_is_refused() {
        let mut wildcard = heartbeat();
        wildcard["ip"] = "0.0.0.0".into();
        let (status, body) = register_with(system(), post(wildcard.to_string())).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(body.contains("0.0.0.0"), "{body}");
    }

    #[tokio::test]
    async fn a_heartbeat_beyond_the_limit_is_refused() {
        let (status, _) = register_with(system(), post(vec![b' '; 4097])).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn defect_05_a_token_must_be_given_when_one_is_set() {
        for (given, status) in [
            (None, StatusCode::UNAUTHORIZED),
            (Some("Basic s3cret"), StatusCode::UNAUTHORIZED),
            (Some("Bearer s3cre"), StatusCode::UNAUTHORIZED),
            (Some("Bearer s3crex"), StatusCode::UNAUTHORIZED),
            (Some("Bearer s3cret"), StatusCode::OK),
            (Some("bearer s3cret"), StatusCode::OK),
        ] {
            let mut request = post(heartbeat().to_string());
            if let Some(given) = given {
                request.headers_mut().insert(header::AUTHORIZATION, given.parse().unwrap());
            }
            let system = System { token: Some(Secret::new("s3cret")), ..system() };
            assert_eq!(register_with(system, request).await.0, status, "{given:?}");
        }
    }

    #[tokio::test]
    async fn origins_are_listed_only_to_who_may_register() {
        let system = System { token: Some(Secret::new("s3cret")), ..system() };
        assert_eq!(get(router(system), "/api/v1/origins").await.status(), StatusCode::UNAUTHORIZED);
    }

    #[tokio::test]
    async fn an_origin_drains_by_any_of_its_names_until_that_is_taken_back() {
        let system = system();
        register_with(system.clone(), post(heartbeat().to_string())).await;
        let ask = async |method: &str, query: &str| {
            let uri = format!("/api/v1/origins/drain{query}");
            let request = Request::builder().method(method).uri(uri).body(Body::empty()).unwrap();
            text(send(router(system.clone()), request).await).await
        };
        for name in ["s-v-1", "s", "origin%31", "127.0.0.1"] {
            let (status, body) = ask("POST", &format!("?origin={name}")).await;
            assert_eq!((status, body.contains("s-v-1")), (StatusCode::OK, true), "{name}");
            assert_eq!(system.registry.list().await[0].state, "draining");
            assert_eq!(ask("DELETE", &format!("?origin={name}")).await.0, StatusCode::OK);
            assert_eq!(system.registry.list().await[0].state, "up");
        }
        assert_eq!(ask("POST", "?origin=other").await.0, StatusCode::NOT_FOUND);
        assert_eq!(ask("POST", "").await.0, StatusCode::BAD_REQUEST);
        let guarded = System { token: Some(Secret::new("s3cret")), ..system.clone() };
        let request = Request::post("/api/v1/origins/drain?origin=s").body(Body::empty()).unwrap();
        assert_eq!(send(router(guarded), request).await.status(), StatusCode::UNAUTHORIZED);
    }

    #[tokio::test]
    async fn versions_have_the_shape_of_the_go_proxy() {
        let (_, body) = text(get(router(system()), "/api/v1/versions").await).await;
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (&answer["signature"], &answer["version"]),
            (&"SRSProxy".into(), &env!("CARGO_PKG_VERSION").into())
        );
    }

    #[tokio::test]
    async fn health_readiness_and_metrics_answer() {
        assert_eq!(text(get(router(system()), "/healthz").await).await, (StatusCode::OK, "ok\n".into()));
        let (status, body) = text(get(router(system()), "/readyz").await).await;
        assert_eq!(
            (status, body.as_str()),
            (StatusCode::SERVICE_UNAVAILABLE, "not ready: no origin is up\n")
        );
        assert_eq!(text(get(router(system()), "/metrics").await).await, (StatusCode::OK, "# EOF\n".into()));
    }
}
