//! Operations: lookups, health, the live tree, control of runs (contract 7.1), and probes.

use super::answer::{Refusal, json_response};
use super::state::{HttpState, LookupKey, RunOrder};
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::collections::HashMap;
use wellspring_domain::admission::health::HealthState;

/// `GET /v1/ops/lookup?event_id=|receipt_id=|dedupe_key=`: the first that is there counts.
pub async fn lookup(
    State(state): State<HttpState>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Response, Refusal> {
    state.authenticate(&headers)?;
    let Some(key) = lookup_key(&query) else {
        return Ok(json_response(400, &json!({"error": "MISSING_QUERY"})));
    };
    let found = tokio::task::spawn_blocking(move || state.lookups.look_up(&key)).await;
    match found {
        Ok(Ok(found)) => Ok(json_response(200, &found)),
        Ok(Err(error)) => Err(Refusal::new(503, error.code())
            .detail(error.to_string())
            .retry_after_ms(1_000)),
        Err(_panic) => Err(Refusal::new(500, "INTERNAL_ERROR")),
    }
}

fn lookup_key(query: &HashMap<String, String>) -> Option<LookupKey> {
    let value = |name: &str| query.get(name).filter(|value| !value.is_empty()).cloned();
    value("event_id")
        .map(LookupKey::EventId)
        .or_else(|| value("receipt_id").map(LookupKey::ReceiptId))
        .or_else(|| value("dedupe_key").map(LookupKey::DedupeKey))
}

/// `GET /v1/ops/health`: state, reasons and which build answers (T7).
pub async fn health(
    State(state): State<HttpState>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    state.authenticate(&headers)?;
    let health = state.gate.health();
    let body = json!({"state": health.state, "reasons": health.reasons, "build": crate::BUILD});
    Ok(json_response(200, &body))
}

/// `GET /v1/ops/tree`: the live supervision tree.
pub async fn tree(State(state): State<HttpState>, headers: HeaderMap) -> Result<Response, Refusal> {
    state.authenticate(&headers)?;
    let snapshot = state.tree.answer();
    let body = serde_json::to_value(snapshot)
        .map_err(|error| Refusal::new(500, "INTERNAL_ERROR").detail(error.to_string()))?;
    Ok(json_response(200, &body))
}

/// `POST /v1/ops/runs/<platform_run_id>/<order>`.
pub async fn order_run(
    State(state): State<HttpState>,
    headers: HeaderMap,
    Path((run, order)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    state.authenticate(&headers)?;
    let order = match order.as_str() {
        "cancel" => RunOrder::Cancel,
        "pause" => RunOrder::Pause,
        "resume" => RunOrder::Resume,
        _ => {
            return Err(
                Refusal::new(404, "NOT_FOUND").detail("orders are cancel, pause and resume")
            );
        }
    };
    match &state.runs {
        Some(runs) if runs.order(&run, order) => Ok(json_response(
            200,
            &json!({"platform_run_id": run, "order": format!("{order:?}").to_uppercase()}),
        )),
        _ => Err(Refusal::new(404, "RUN_NOT_STREAMING")
            .detail(format!("{run} is not being streamed by this process"))),
    }
}

/// `GET /metrics`: Prometheus text.
pub async fn metrics(State(state): State<HttpState>) -> Response {
    let text = state
        .metrics
        .as_ref()
        .map(|metrics| metrics.render())
        .unwrap_or_default();
    let mut response = Response::new(Body::from(text));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// `GET /healthz`: the process serves.
pub async fn healthz() -> Response {
    json_response(200, &json!({"status": "ok"}))
}

/// `GET /readyz`: the gate takes work.
pub async fn readyz(State(state): State<HttpState>) -> Response {
    let health = state.gate.health();
    let status = if health.state == HealthState::Red {
        503
    } else {
        200
    };
    json_response(
        status,
        &json!({"state": health.state, "reasons": health.reasons}),
    )
}

/// Anything else.
pub async fn not_found() -> Response {
    Refusal::new(404, "NOT_FOUND")
        .detail("no such route")
        .into_response()
}
