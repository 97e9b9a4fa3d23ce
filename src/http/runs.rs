//! `POST /runs` and `POST /runs/{id}/reemit` (contract 5.1): HTTP <-> the Scenario Runner's handle.
//!
//! Bodies are JSON and small; `X-SR-Actor` names the caller when the body does not. Errors are
//! `{"error": CODE, "detail": sentence}`.

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::Serialize;
use serde_json::{Value, json};
use wellspring_actors::scenario_runner::ScenarioRunnerHandle;
use wellspring_domain::scenario::control::{self, ReemitVerdict, RefusalClass, RunVerdict};
use wellspring_domain::scenario::document::Document;
use wellspring_domain::scenario::reemit::ReemitRequest;
use wellspring_domain::scenario::request::RunRequest;

use super::answer::{Refusal, json_response};

/// Bytes of a request body; a request that names everything is far smaller.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// The header that names the caller.
const ACTOR_HEADER: &str = "X-SR-Actor";
/// How long a caller is asked to wait when the runner is not ready for it.
const RETRY_AFTER_MS: u64 = 2_000;

/// The Scenario Runner's routes.
pub fn router(handle: ScenarioRunnerHandle) -> Router {
    Router::new()
        .route("/runs", post(submit))
        .route("/runs/{run_id}/reemit", post(reemit))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(handle)
}

fn malformed(code: &str, detail: impl Into<String>) -> Refusal {
    Refusal::new(400, code).detail(detail)
}

/// The body as it came, when it is not too large and came whole.
fn whole(body: Result<Bytes, BytesRejection>) -> Result<Bytes, Refusal> {
    body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::new(413, "BODY_TOO_LARGE")
            .detail(format!("at most {BODY_BYTES_MAX} bytes are accepted")),
        _ => malformed("BODY_INCOMPLETE", "the body ended early"),
    })
}

fn parse_object(body: &[u8], code: &str) -> Result<Value, Refusal> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| malformed("INVALID_JSON", error.to_string()))?;
    match value.is_object() {
        true => Ok(value),
        false => Err(malformed(code, "the body must be a JSON object")),
    }
}

/// Fills a member from the actor header when the body leaves it open.
fn fill_actor(request: &mut Value, member: &str, headers: &HeaderMap) {
    let named = headers
        .get(ACTOR_HEADER)
        .and_then(|actor| actor.to_str().ok());
    let Some(actor) = named.map(str::trim).filter(|actor| !actor.is_empty()) else {
        return;
    };
    if request.get(member).is_none_or(Value::is_null) {
        request[member] = actor.into();
    }
}

async fn submit(
    State(handle): State<ScenarioRunnerHandle>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let request = match whole(body).and_then(|body| run_request(&headers, &body)) {
        Ok(request) => request,
        Err(refusal) => return refusal.into_response(),
    };
    match handle.submit(request).await {
        Ok(response) => {
            let status = match response.verdict {
                RunVerdict::Ready | RunVerdict::Failed | RunVerdict::Quarantined => 200,
                RunVerdict::Waiting | RunVerdict::ReadyUnpublished => 202,
                RunVerdict::LeaseBusy => 409,
                RunVerdict::Unauthorized => 403,
            };
            answer(status, &response)
        }
        Err(refusal) => refused(&refusal),
    }
}

fn run_request(headers: &HeaderMap, body: &[u8]) -> Result<RunRequest, Refusal> {
    const INVALID: &str = "RUN_REQUEST_INVALID";
    let mut value = parse_object(body, INVALID)?;
    fill_actor(&mut value, "invoker", headers);
    serde_json::from_value(value).map_err(|error| malformed(INVALID, error.to_string()))
}

async fn reemit(
    State(handle): State<ScenarioRunnerHandle>,
    Path(run_id): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let request = match whole(body).and_then(|body| reemit_request(&run_id, &headers, &body)) {
        Ok(request) => request,
        Err(refusal) => return refusal.into_response(),
    };
    match handle.reemit(request).await {
        Ok(response) => {
            let status = match response.verdict {
                ReemitVerdict::Published | ReemitVerdict::DryRun => 200,
                ReemitVerdict::Unauthorized => 403,
                ReemitVerdict::NotFound => 404,
                ReemitVerdict::Busy | ReemitVerdict::Refused => 409,
                ReemitVerdict::PublishFailed => 503,
            };
            answer(status, &response)
        }
        Err(refusal) => refused(&refusal),
    }
}

/// The request of a path, headers and body; an empty body asks for the defaults.
fn reemit_request(
    run_id: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<ReemitRequest, Refusal> {
    const INVALID: &str = "REEMIT_REQUEST_INVALID";
    let mut value = match body.iter().all(u8::is_ascii_whitespace) {
        true => json!({}),
        false => parse_object(body, INVALID)?,
    };
    match value.get("run_id") {
        None | Some(Value::Null) => value["run_id"] = run_id.into(),
        Some(named) if named == run_id => {}
        Some(_other) => return Err(malformed(INVALID, "run_id differs from the path's")),
    }
    fill_actor(&mut value, "requested_by", headers);
    ReemitRequest::from_value(value).map_err(|error| malformed(INVALID, error.to_string()))
}

/// A refusal of the Scenario Runner in the words of HTTP.
fn refused(refusal: &control::Refusal) -> Response {
    let status = match refusal.class {
        RefusalClass::Invalid => 400,
        RefusalClass::Conflict => 409,
        RefusalClass::Unavailable => 503,
        RefusalClass::Busy => 429,
    };
    let answer = Refusal::new(status, &refusal.code).detail(&refusal.message);
    match status {
        503 | 429 => answer.retry_after_ms(RETRY_AFTER_MS).into_response(),
        _ => answer.into_response(),
    }
}

fn answer(status: u16, body: &impl Serialize) -> Response {
    match serde_json::to_value(body) {
        Ok(body) => json_response(status, &body),
        Err(error) => Refusal::new(500, "INTERNAL_ERROR")
            .detail(error.to_string())
            .into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use std::sync::Arc;
    use tower::ServiceExt;
    use wellspring_actors::runtime::TreeHandle;
    use wellspring_actors::scenario_runner::{
        ScenarioRunnerLimits, ScenarioRunnerSpec, spawn_scenario_runner,
    };
    use wellspring_domain::scenario::control::{
        ReemitResponse, Refusal, RunResponse, ScenarioControl,
    };
    use wellspring_domain::scenario::state_machine::RunState;

    /// Answers by what the request says, so that every status can be asked for.
    struct Scripted;

    impl ScenarioControl for Scripted {
        fn submit(&self, request: &RunRequest) -> Result<RunResponse, Refusal> {
            let refusal = |code: &str, class| Refusal {
                code: code.to_owned(),
                message: "said so".to_owned(),
                class,
            };
            let verdict = match request.run_equivalence_key.as_str() {
                "waiting" => RunVerdict::Waiting,
                "denied" => RunVerdict::Unauthorized,
                "busy" => RunVerdict::LeaseBusy,
                "collision" => return Err(refusal("EQUIV_KEY_COLLISION", RefusalClass::Conflict)),
                "store" => return Err(refusal("STORE_UNAVAILABLE", RefusalClass::Unavailable)),
                _ => RunVerdict::Ready,
            };
            Ok(RunResponse {
                run_id: "1".repeat(32),
                state: RunState::Ready,
                status_ref: None,
                record_ref: None,
                facts_view_ref: None,
                message: request.invoker.clone().unwrap_or_default(),
                verdict,
                reason_code: None,
            })
        }

        fn reemit(&self, request: &ReemitRequest) -> Result<ReemitResponse, Refusal> {
            Ok(ReemitResponse {
                run_id: request.run_id.clone(),
                status_state: Some(RunState::Ready),
                published: vec![request.reemit_kind.as_str().to_owned()],
                message: request.requested_by.clone().unwrap_or_default(),
                verdict: ReemitVerdict::Published,
                reason_code: None,
            })
        }
    }

    async fn ask(path: &str, body: String, actor: Option<&str>) -> (StatusCode, Value) {
        let tree = TreeHandle::new(Arc::new(|| 0));
        let spec = ScenarioRunnerSpec {
            control: Arc::new(Scripted),
            limits: ScenarioRunnerLimits::default(),
            node: tree.node("scenario runner", "actor"),
        };
        let (handle, _join) = spawn_scenario_runner(spec, None).await.unwrap();
        let mut request = Request::post(path);
        if let Some(actor) = actor {
            request = request.header("x-sr-actor", actor);
        }
        let request = request.body(Body::from(body)).unwrap();
        let response = router(handle).oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (
            status,
            serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        )
    }

    fn request(key: &str) -> Value {
        json!({
            "run_equivalence_key": key, "manifest_fingerprint": "a", "parameter_hash": "b",
            "seed": 1, "scenario": {"scenario_id": "s"},
            "window": {"window_start_utc": "x", "window_end_utc": "y"}
        })
    }

    #[tokio::test]
    async fn an_answer_has_exactly_the_contracts_members_and_the_header_names_the_caller() {
        let (status, body) = ask("/runs", request("ready").to_string(), Some("ops")).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(
            body,
            json!({"run_id": "1".repeat(32), "state": "READY", "status_ref": null,
                   "record_ref": null, "facts_view_ref": null, "message": "ops"})
        );
        let mut named = request("ready");
        named["invoker"] = "me".into();
        let (_, body) = ask("/runs", named.to_string(), Some("ops")).await;
        assert_eq!(body["message"], "me", "the body wins");
    }

    #[tokio::test]
    async fn every_outcome_has_its_status() {
        for (key, status, code) in [
            ("waiting", 202, Value::Null),
            ("denied", 403, Value::Null),
            ("busy", 409, Value::Null),
            ("collision", 409, json!("EQUIV_KEY_COLLISION")),
            ("store", 503, json!("STORE_UNAVAILABLE")),
        ] {
            let (answered, body) = ask("/runs", request(key).to_string(), None).await;
            assert_eq!(
                (answered.as_u16(), &body["error"]),
                (status, &code),
                "{key}"
            );
        }
    }

    #[tokio::test]
    async fn what_is_no_request_is_refused_with_a_code_and_a_sentence() {
        let mut extra = request("ready");
        extra["surprise"] = 1.into();
        for (body, code) in [
            ("{".to_owned(), "INVALID_JSON"),
            (String::new(), "INVALID_JSON"),
            ("[]".to_owned(), "RUN_REQUEST_INVALID"),
            (extra.to_string(), "RUN_REQUEST_INVALID"),
        ] {
            let (status, answer) = ask("/runs", body, None).await;
            assert_eq!(
                (status.as_u16(), answer["error"].as_str()),
                (400, Some(code))
            );
            assert!(!answer["detail"].as_str().unwrap().is_empty());
        }
        let (status, answer) = ask("/runs", " ".repeat(BODY_BYTES_MAX + 1), None).await;
        assert_eq!(
            (status.as_u16(), &answer["error"]),
            (413, &json!("BODY_TOO_LARGE"))
        );
    }

    #[tokio::test]
    async fn a_reemit_takes_its_run_from_the_path_and_its_defaults_from_an_empty_body() {
        let path = format!("/runs/{}/reemit", "a".repeat(32));
        let (status, body) = ask(&path, String::new(), Some("ops")).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(
            body,
            json!({"run_id": "a".repeat(32), "status_state": "READY", "published": ["BOTH"],
                   "message": "ops"})
        );
        for bad in [
            json!({"run_id": "b".repeat(32)}),
            json!({"reemit_kind": "ready"}),
            json!({"emit_platform_run_id": "x"}),
        ] {
            let (status, answer) = ask(&path, bad.to_string(), None).await;
            assert_eq!(status, StatusCode::BAD_REQUEST);
            assert_eq!(answer["error"], "REEMIT_REQUEST_INVALID");
        }
        let (status, answer) = ask("/runs/short/reemit", String::new(), None).await;
        assert_eq!(
            (status.as_u16(), &answer["error"]),
            (400, &json!("REEMIT_REQUEST_INVALID"))
        );
    }
}
