//! `POST /v1/ingest/push` and `POST /v1/ingest/push_batch` (contract 7.1, 7.3).
//!
//! Order of checks: authentication, rate, health, room, body. Nothing is parsed for a caller that has not
//! said who it is.

use super::answer::{Refusal, json_bytes, json_head, json_response};
use super::answer_form::{APPLIED, AnswerForm};
use super::batch_answer::batch_answer;
use super::body::{Wanted, read_body, split_batch, take_room};
use super::state::HttpState;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::sync::Arc;
use wellspring_actors::ingestion_gate::handle::{RETRY_AFTER_MS, Ticket};
use wellspring_domain::admission::decision::Actor;
use wellspring_domain::admission::intake::Immediate;
use wellspring_domain::ports::EnvelopeBatch;

/// Pushes one envelope.
pub async fn push(State(state): State<HttpState>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    match push_one(&state, &head.headers, body).await {
        Ok(answer) => answer.map(Body::from),
        Err(refusal) => refusal.into_response(),
    }
}

/// Pushes many envelopes; each gets its own outcome, in order.
pub async fn push_batch(
    State(state): State<HttpState>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match push_many(&state, &headers, body).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    }
}

/// Pushes the envelope in a body; gives the answer in the form the caller prefers.
pub(super) async fn push_one(
    state: &HttpState,
    headers: &HeaderMap,
    body: impl HttpBody<Data = Bytes> + Unpin,
) -> Result<Response<Bytes>, Refusal> {
    let actor = admit_caller(state, headers).await?;
    let limits = &state.limits;
    let wanted = Wanted {
        events: 1,
        bytes_max: limits.body_bytes_max,
        deadline: limits.request_timeout,
    };
    let body = read_body(headers, body, wanted, state.gate.credits()).await?;
    let form = AnswerForm::of(headers);
    let answer = state.single_pushes.push(body, actor, form).await;
    let unknown = |_| Refusal::new(503, "PUBLISH_AMBIGUOUS_RETRY").retry_after_ms(RETRY_AFTER_MS);
    let mut response = json_head(200, answer.await.map_err(unknown)??);
    if form == AnswerForm::Reference {
        let (name, value) = APPLIED;
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

async fn push_many(
    state: &HttpState,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let actor = admit_caller(state, headers).await?;
    let limits = &state.limits;
    // How many events there are is known when they have been split.
    let wanted = Wanted {
        events: 0,
        bytes_max: limits.batch_body_bytes_max,
        deadline: limits.request_timeout,
    };
    let body = read_body(headers, body, wanted, state.gate.credits()).await?;
    let ranges = split_batch(&body.bytes)?;
    if ranges.len() > limits.batch_events_max {
        let detail = format!(
            "at most {} events are accepted in one batch",
            limits.batch_events_max
        );
        return Err(Refusal::new(413, "BATCH_TOO_LARGE").detail(detail));
    }
    // An event is as large as a single push may be, however it comes.
    let event_bytes_max = limits.body_bytes_max;
    if let Some(index) = ranges
        .iter()
        .position(|range| range.len() > event_bytes_max)
    {
        let detail = format!(
            "event {index} is larger than {event_bytes_max} bytes; nothing of this batch was taken"
        );
        return Err(Refusal::new(413, "BODY_TOO_LARGE").detail(detail));
    }
    if ranges.is_empty() {
        return Ok(json_response(200, &json!({"results": []})));
    }
    let ticket = hand_over(state, ranges, body.bytes.into(), body.credit, &actor).await?;
    let answered = in_time(state, ticket.answered()).await?;
    Ok(json_bytes(200, batch_answer(state, &answered)))
}

async fn admit_caller(state: &HttpState, headers: &HeaderMap) -> Result<Arc<Actor>, Refusal> {
    let actor = state.authenticate(headers)?;
    state.check_rate()?;
    state.check_health()?;
    state.gate.amber_pause().await;
    Ok(actor)
}

async fn hand_over(
    state: &HttpState,
    ranges: Vec<std::ops::Range<u32>>,
    bytes: Vec<u8>,
    mut credit: wellspring_actors::runtime::credit::Credit,
    actor: &Actor,
) -> Result<Ticket, Refusal> {
    credit.merge(take_room(state.gate.credits(), ranges.len(), 0).await?);
    let batch = EnvelopeBatch {
        bytes: Arc::new(bytes),
        ranges,
    };
    Ok(state.gate.accept(batch, actor, credit).await)
}

/// The decision goes on when the caller's patience ends; the same bytes may be sent again at any time.
async fn in_time<T>(state: &HttpState, answer: impl Future<Output = T>) -> Result<T, Refusal> {
    let late = |_| Refusal::new(503, "PUBLISH_IN_FLIGHT_RETRY").retry_after_ms(RETRY_AFTER_MS);
    tokio::time::timeout(state.limits.request_timeout, answer)
        .await
        .map_err(late)
}

/// The answer to an item that was never judged.
pub(super) fn refusal_of(immediate: &Immediate) -> Refusal {
    match immediate {
        Immediate::Refused {
            status,
            code,
            detail,
        } => Refusal::new(*status, *code).detail(detail),
        Immediate::Retry { code, detail } => Refusal::new(503, *code)
            .detail(detail)
            .retry_after_ms(RETRY_AFTER_MS),
    }
}
