//! One request to the system API of another process of ours.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use axum::body::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::time::timeout;

use crate::config::Secret;

/// The status of a hundred thousand sessions takes a while.
const DEADLINE: Duration = Duration::from_secs(10);
const ANSWER_LIMIT: usize = 256 << 20;

/// Sends a request without a body and returns what came.
pub async fn exchange(
    address: SocketAddr,
    method: Method,
    path: &str,
    token: Option<&Secret>,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let url = format!("http://{address}{path}");
    let mut request = Request::builder().method(method).uri(&url);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.expose()));
    }
    let request = request.body(Full::<Bytes>::default()).context("the request cannot be formed")?;
    let exchange = async {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let response = client.request(request).await.with_context(|| format!("failed to reach {url}"))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_LIMIT)
            .collect()
            .await
            .map_err(|error| anyhow::anyhow!("the answer of {url} was cut: {error}"))?;
        anyhow::Ok((head.status, body.to_bytes()))
    };
    timeout(DEADLINE, exchange).await.with_context(|| format!("{url} did not answer in {DEADLINE:?}"))?
}
