//! What answers the requests of a connection.
//!
//! An event pushed alone is what comes most often and costs least, so its handler is called without looking for it.
//! Everything else goes through the router, which would find that handler, too.

use super::ingest::push;
use super::panicked;
use super::state::HttpState;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Method, Request};
use axum::response::Response;
use futures::FutureExt;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use wellspring_actors::runtime::BoxFuture;

/// Where single events are pushed (contract 7.1).
pub const PUSH_ROUTE: &str = "/v1/ingest/push";

/// The service of all connections of a gate. Clones are cheap.
#[derive(Clone)]
pub struct GateService {
    state: HttpState,
    router: TowerToHyperService<Router>,
}

impl GateService {
    /// A service of these parts; `router` has every route.
    pub fn new(state: HttpState, router: Router) -> GateService {
        GateService {
            state,
            router: TowerToHyperService::new(router),
        }
    }
}

impl Service<Request<Incoming>> for GateService {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        if request.method() == Method::POST && request.uri().path() == PUSH_ROUTE {
            let request = request.map(Body::new);
            let answer = AssertUnwindSafe(push(State(self.state.clone()), request)).catch_unwind();
            return Box::pin(answer.map(|answer| Ok(answer.unwrap_or_else(panicked))));
        }
        Box::pin(self.router.call(request))
    }
}
