//! The client against small gates of its own.

use super::*;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response as Answer};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Mutex;

/// Status, `Retry-After` and body.
type Scripted = (u16, Option<&'static str>, Value);

/// What a gate was sent, and what it still has to answer.
#[derive(Clone, Default)]
struct Seen {
    bodies: Arc<Mutex<Vec<String>>>,
    answers: Arc<Mutex<VecDeque<Scripted>>>,
}

async fn answer(State(seen): State<Seen>, headers: HeaderMap, body: Bytes) -> Answer {
    if headers
        .get("X-IG-Api-Key")
        .is_none_or(|key| key != "secret")
    {
        return (
            StatusCode::UNAUTHORIZED,
            Json(json!({"error": "UNAUTHORIZED"})),
        )
            .into_response();
    }
    assert_eq!(headers["prefer"], "return=minimal");
    seen.bodies
        .lock()
        .unwrap()
        .push(String::from_utf8(body.to_vec()).unwrap());
    let admitted = (200, None, json!({"decision": "ADMIT"}));
    let (status, retry_after, body) = seen.answers.lock().unwrap().pop_front().unwrap_or(admitted);
    let status = StatusCode::from_u16(status).unwrap();
    match retry_after {
        Some(seconds) => (status, [("Retry-After", seconds)], Json(body)).into_response(),
        None => (status, Json(body)).into_response(),
    }
}

/// Serves `route` and gives the gate's address.
async fn gate(route: &str, seen: &Seen) -> String {
    let app = Router::new()
        .route(route, post(answer))
        .with_state(seen.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

fn client(url: &str, token: &str) -> HttpGate {
    HttpGate::new(&HttpGateSettings {
        ingest_url: url.to_owned(),
        auth: Some(("X-IG-Api-Key".to_owned(), token.to_owned())),
        timeout: Duration::from_secs(10),
        pool_max: 4,
        push_concurrency: 1,
    })
    .unwrap()
}

fn batch(texts: &[&str]) -> EnvelopeBatch {
    let mut bytes = Vec::new();
    let mut ranges = Vec::new();
    for text in texts {
        let start = bytes.len() as u32;
        bytes.extend_from_slice(text.as_bytes());
        ranges.push(start..bytes.len() as u32);
    }
    EnvelopeBatch {
        bytes: Arc::new(bytes),
        ranges,
    }
}

async fn push(client: &HttpGate, texts: &[&str]) -> Result<Vec<ItemOutcome>, PushError> {
    client.submit(batch(texts)).await?.await
}

impl Seen {
    fn will_answer(&self, status: u16, retry_after: Option<&'static str>, body: Value) {
        self.answers
            .lock()
            .unwrap()
            .push_back((status, retry_after, body));
    }

    fn bodies(&self) -> Vec<String> {
        self.bodies.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn a_batch_goes_out_as_lines_and_every_event_gets_its_outcome() {
    let seen = Seen::default();
    let url = gate(BATCH_ROUTE, &seen).await;
    seen.will_answer(
        200,
        None,
        json!({"results": [{"decision": "ADMIT"}, {"decision": "DUPLICATE"}]}),
    );
    let outcomes = push(&client(&url, "secret"), &["{\"a\":1}", "{\"b\":2}"])
        .await
        .unwrap();
    assert_eq!(outcomes, [ItemOutcome::Admitted, ItemOutcome::Duplicate]);
    assert_eq!(seen.bodies(), ["{\"a\":1}\n{\"b\":2}\n"]);
}

#[tokio::test]
async fn a_gate_without_batches_gets_single_pushes_in_order_until_one_is_undecided() {
    let seen = Seen::default();
    let url = format!("{}/v1/ingest/push", gate(SINGLE_ROUTE, &seen).await);
    seen.will_answer(200, None, json!({"decision": "ADMIT"}));
    seen.will_answer(503, Some("2"), json!({"error": "IG_UNHEALTHY"}));
    let client = client(&url, "secret");
    let outcomes = push(&client, &["1", "2", "3"]).await.unwrap();
    let retry = |code: &str, retry_after_ms| ItemOutcome::Retry {
        code: code.to_owned(),
        retry_after_ms,
    };
    assert_eq!(
        outcomes,
        [
            ItemOutcome::Admitted,
            retry("IG_UNHEALTHY", 2_000),
            retry(PRECEDING_ITEM_RETRY, 0),
        ]
    );
    assert_eq!(
        push(&client, &["2", "3"]).await.unwrap(),
        vec![ItemOutcome::Admitted; 2]
    );
    assert_eq!(seen.bodies(), ["1", "2", "2", "3"]);
}

#[tokio::test]
async fn every_kind_of_refusal_of_a_batch_is_told_apart() {
    let seen = Seen::default();
    let url = gate(BATCH_ROUTE, &seen).await;
    let client = client(&url, "secret");
    let rejected = |status: u16, detail: &str| PushError::Rejected {
        status,
        detail: detail.to_owned(),
    };
    let transient = |detail: &str| PushError::Transient {
        detail: detail.to_owned(),
    };
    let backpressure = |code: &str, retry_after_ms| PushError::Backpressure {
        code: code.to_owned(),
        retry_after_ms,
    };
    let table = [
        (
            429,
            Some("0.5"),
            json!({"error": "RATE_LIMITED"}),
            backpressure("RATE_LIMITED", 500),
        ),
        (503, Some("1"), json!({}), backpressure("http_503", 1_000)),
        (503, None, json!({}), transient("http_503")),
        (500, None, json!({}), transient("http_500")),
        (408, None, json!({}), transient("http_408")),
        (
            400,
            None,
            json!({"error": "PUBLISH_IN_FLIGHT_RETRY"}),
            transient("http_400"),
        ),
        (
            400,
            None,
            json!({"error": "INVALID_JSON"}),
            rejected(400, "{\"error\":\"INVALID_JSON\"}"),
        ),
        (
            200,
            None,
            json!({"results": []}),
            transient("0 results for 1 events"),
        ),
    ];
    for (status, retry_after, body, expected) in table {
        seen.will_answer(status, retry_after, body);
        assert_eq!(push(&client, &["1"]).await.unwrap_err(), expected);
    }
}

#[tokio::test]
async fn a_wrong_token_is_a_rejection_and_a_gate_that_is_not_there_is_not() {
    let seen = Seen::default();
    let url = gate(BATCH_ROUTE, &seen).await;
    let error = push(&client(&url, "wrong"), &["1"]).await.unwrap_err();
    assert!(
        matches!(error, PushError::Rejected { status: 401, .. }),
        "{error}"
    );
    let nowhere = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let error = push(&client(&nowhere, "secret"), &["1"]).await.unwrap_err();
    assert!(matches!(error, PushError::Transient { .. }), "{error}");
}
