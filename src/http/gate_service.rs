//! What answers the requests of a connection.
//!
//! An event pushed alone is what comes most often and costs least, so its handler is called without looking for it,
//! and neither handler nor body nor answer is put into a box. Everything else goes through the router, which would find
//! that handler, too.

use super::activity::Activity;
use super::ingest::push_one;
use super::panicked;
use super::state::HttpState;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Method, Request, Response};
use axum::response::IntoResponse;
use futures::FutureExt;
use futures::future::Either;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::{Service, service_fn};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Where single events are pushed (contract 7.1).
pub const PUSH_ROUTE: &str = "/v1/ingest/push";

/// The services of the connections of a gate.
#[derive(Clone)]
pub struct GateService {
    state: HttpState,
    router: TowerToHyperService<Router>,
}

impl GateService {
    /// Services of these parts; `router` has every route.
    pub fn new(state: HttpState, router: Router) -> GateService {
        GateService {
            state,
            router: TowerToHyperService::new(router),
        }
    }

    /// The service of one connection, which is told of its requests. A push is handled in memory the connection has
    /// already.
    pub fn on_connection(
        &self,
        activity: Activity,
    ) -> impl Service<
        Request<Incoming>,
        Response = Response<AnswerBody>,
        Error = Infallible,
        Future: Send + 'static,
    > + use<> {
        let GateService { state, router } = self.clone();
        service_fn(move |request: Request<Incoming>| {
            let handling = activity.handle();
            let is_push = request.method() == Method::POST && request.uri().path() == PUSH_ROUTE;
            let answering = match is_push {
                true => Either::Left(push(state.clone(), request)),
                false => Either::Right(
                    router
                        .call(request)
                        .map(|Ok(answer)| routed(answer))
                        .boxed(),
                ),
            };
            async move {
                let answer = answering.await;
                drop(handling);
                Ok(answer)
            }
        })
    }
}

async fn push(state: HttpState, request: Request<Incoming>) -> Response<AnswerBody> {
    let answer = AssertUnwindSafe(answer_push(state, request));
    let answer = answer.catch_unwind().await;
    answer.unwrap_or_else(|panic| routed(panicked(panic)))
}

async fn answer_push(state: HttpState, request: Request<Incoming>) -> Response<AnswerBody> {
    let (head, body) = request.into_parts();
    match push_one(&state, &head.headers, body).await {
        Ok(answer) => answer.map(|body| AnswerBody::Whole(Some(body))),
        Err(refusal) => routed(refusal.into_response()),
    }
}

fn routed(response: Response<Body>) -> Response<AnswerBody> {
    response.map(AnswerBody::Routed)
}

/// The body of an answer.
pub enum AnswerBody {
    /// Bytes that are there; none when they were taken.
    Whole(Option<Bytes>),
    /// What a handler of the router made.
    Routed(Body),
}

impl hyper::body::Body for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.get_mut() {
            AnswerBody::Whole(bytes) => Poll::Ready(bytes.take().map(Frame::data).map(Ok)),
            AnswerBody::Routed(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            AnswerBody::Whole(bytes) => bytes.is_none(),
            AnswerBody::Routed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            AnswerBody::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            AnswerBody::Routed(body) => body.size_hint(),
        }
    }
}
