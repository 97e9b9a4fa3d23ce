//! HTTP surfaces: HTTP <-> handles, no rules.

pub mod activity;
mod answer;
pub mod answer_form;
mod batch_answer;
pub mod body;
pub mod gate_service;
pub mod ingest;
pub mod ops;
pub mod push_gatherer;
pub mod receipt_view;
mod references;
pub mod runs;
pub mod server;
pub mod single_pushes;
pub mod state;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use state::HttpState;
use tower_http::catch_panic::CatchPanicLayer;

/// Every route of the gate (contract 7.1). Anything else is 404, the old pull route included.
pub fn gate_router(state: HttpState) -> Router {
    Router::new()
        .route(gate_service::PUSH_ROUTE, post(ingest::push))
        .route("/v1/ingest/push_batch", post(ingest::push_batch))
        .route("/v1/ops/lookup", get(ops::lookup))
        .route("/v1/ops/health", get(ops::health))
        .route("/v1/ops/tree", get(ops::tree))
        .route("/v1/ops/runs/{run}/{order}", post(ops::order_run))
        .route("/metrics", get(ops::metrics))
        .route("/healthz", get(ops::healthz))
        .route("/readyz", get(ops::readyz))
        .fallback(ops::not_found)
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(state)
}

/// Routes of another part of the daemon, let in by the gate's authentication.
pub fn behind_auth(routes: Router, state: HttpState) -> Router {
    routes.layer(axum::middleware::from_fn_with_state(state, require_caller))
}

async fn require_caller(State(state): State<HttpState>, request: Request, next: Next) -> Response {
    match state.authenticate(request.headers()) {
        Ok(_caller) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

fn panicked(_cause: Box<dyn std::any::Any + Send + 'static>) -> axum::response::Response {
    tracing::error!("a request handler panicked");
    answer::json_response(500, &serde_json::json!({"error": "INTERNAL_ERROR"}))
}
