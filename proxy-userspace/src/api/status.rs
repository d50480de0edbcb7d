//! What the proxy is doing, for operators and tools: `/api/v1/proxy/status` (sessions) and `/api/v1/proxy/connections` (TCP
//! streams) on the system API, and the switch that
//! keeps media out of the kernel: `/api/v1/proxy/offload/off`, or takes the programs off too: `/api/v1/proxy/detach`.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    response::Response,
    routing::{get, post},
};
use http::HeaderMap;
use serde_json::json;

use super::{ApiError, bearer::authorize, json_answer, signalling::OfferError};
use crate::{config::Secret, connections::Connections, control::Control};

#[derive(Clone)]
struct Status {
    control: Control,
    connections: Arc<Connections>,
    token: Option<Secret>,
}

/// Its routes; `token` is the bearer token they demand, if any.
pub fn router(control: Control, connections: Arc<Connections>, token: Option<Secret>) -> Router {
    Router::new()
        .route("/api/v1/proxy/status", get(status))
        .route("/api/v1/proxy/connections", get(connections_now))
        .route("/api/v1/proxy/offload/on", post(offload_on))
        .route("/api/v1/proxy/offload/off", post(offload_off))
        .route("/api/v1/proxy/detach", post(detach))
        .with_state(Status { control, connections, token })
}

async fn status(State(status): State<Status>, headers: HeaderMap) -> Result<Response, ApiError> {
    authorize(&headers, status.token.as_ref())?;
    let snapshot = status.control.snapshot().await.ok_or(OfferError::Stopping)?;
    Ok(json_answer(&snapshot))
}

async fn connections_now(State(status): State<Status>, headers: HeaderMap) -> Result<Response, ApiError> {
    authorize(&headers, status.token.as_ref())?;
    Ok(json_answer(&json!({ "connections": status.connections.list() })))
}

async fn offload_on(state: State<Status>, headers: HeaderMap) -> Result<Response, ApiError> {
    switch_offload(state, headers, true).await
}

async fn offload_off(state: State<Status>, headers: HeaderMap) -> Result<Response, ApiError> {
    switch_offload(state, headers, false).await
}

/// Answers with the names of the interfaces that had programs.
async fn detach(State(status): State<Status>, headers: HeaderMap) -> Result<Response, ApiError> {
    authorize(&headers, status.token.as_ref())?;
    let interfaces = status.control.detach().await;
    Ok(json_answer(&json!({ "code": 0, "interfaces": interfaces })))
}

async fn switch_offload(
    State(status): State<Status>,
    headers: HeaderMap,
    on: bool,
) -> Result<Response, ApiError> {
    authorize(&headers, status.token.as_ref())?;
    status.control.switch_offload(on).await;
    Ok(json_answer(&json!({ "code": 0 })))
}
