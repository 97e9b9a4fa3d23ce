//! The gate behind HTTP, as output streams see it (contract 6.8, 7.1).
//!
//! One submit is one attempt: retries, waits and their limits belong to the sender. Batches go to
//! `/v1/ingest/push_batch`; a gate that does not know that route gets the same bytes one event at a
//! time, in order, until the first event it does not decide.

mod answers;
#[cfg(test)]
mod http_client_tests;

use crate::http::answer_form::{PREFER, RETURN_MINIMAL};
use answers::{batch_outcomes, single_outcome};
use futures::StreamExt;
use futures::stream;
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use wellspring_domain::ports::{
    BoxFuture, EnvelopeBatch, GateClient, ItemOutcome, PendingOutcomes, PushError,
};
use wellspring_domain::stream::retry::{AnswerClass, classify};

const SINGLE_ROUTE: &str = "/v1/ingest/push";
const BATCH_ROUTE: &str = "/v1/ingest/push_batch";
/// Characters of a refusal that are kept (contract 6.8).
const DETAIL_CHARS_MAX: usize = 256;
/// What an event behind an undecided one is answered, here as in the gate.
const PRECEDING_ITEM_RETRY: &str = "PRECEDING_ITEM_RETRY";

/// How to reach a gate.
#[derive(Clone, Debug)]
pub struct HttpGateSettings {
    /// `ig_ingest_url`: the gate's root, or its single push route.
    pub ingest_url: String,
    /// Header and token, when the gate asks for one.
    pub auth: Option<(String, String)>,
    /// Longest time one push may take.
    pub timeout: Duration,
    /// Idle connections kept.
    pub pool_max: usize,
    /// Single pushes at once; above 1 the order per key is lost.
    pub push_concurrency: usize,
}

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
pub enum HttpGateError {
    /// The header or the token cannot stand in an HTTP request.
    #[error("the auth header cannot be sent: {0}")]
    AuthHeader(String),
    /// The HTTP library refused.
    #[error("no HTTP client: {0}")]
    Client(String),
}

impl HttpGateError {
    /// The stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            HttpGateError::AuthHeader(_) => "IG_AUTH_HEADER_INVALID",
            HttpGateError::Client(_) => "IG_CLIENT_FAILED",
        }
    }
}

/// A gate behind HTTP.
pub struct HttpGate {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    single_url: String,
    batch_url: String,
    auth: Option<(HeaderName, HeaderValue)>,
    push_concurrency: usize,
    /// The gate has said that it knows no batches.
    single_only: AtomicBool,
}

impl HttpGate {
    /// A client of the gate; nothing is sent yet.
    pub fn new(settings: &HttpGateSettings) -> Result<Self, HttpGateError> {
        let client = Client::builder()
            .timeout(settings.timeout)
            .pool_max_idle_per_host(settings.pool_max)
            .no_proxy()
            .build()
            .map_err(|error| HttpGateError::Client(error.to_string()))?;
        let root = settings
            .ingest_url
            .trim_end_matches('/')
            .trim_end_matches(SINGLE_ROUTE);
        let auth = settings.auth.as_ref().map(auth_header).transpose()?;
        Ok(HttpGate {
            inner: Arc::new(Inner {
                client,
                single_url: format!("{root}{SINGLE_ROUTE}"),
                batch_url: format!("{root}{BATCH_ROUTE}"),
                auth,
                push_concurrency: settings.push_concurrency.max(1),
                single_only: AtomicBool::new(false),
            }),
        })
    }
}

/// The error never repeats the token.
fn auth_header(
    (name, token): &(String, String),
) -> Result<(HeaderName, HeaderValue), HttpGateError> {
    let bad = |what: &str| HttpGateError::AuthHeader(format!("{what} is not allowed in HTTP"));
    let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad("the header name"))?;
    let mut value = HeaderValue::from_str(token).map_err(|_| bad("the token"))?;
    value.set_sensitive(true);
    Ok((header, value))
}

impl GateClient for HttpGate {
    fn submit(&self, batch: EnvelopeBatch) -> BoxFuture<'_, Result<PendingOutcomes, PushError>> {
        let inner = self.inner.clone();
        let pending: PendingOutcomes = Box::pin(async move { inner.push(batch).await });
        Box::pin(async move { Ok(pending) })
    }

    /// One: with more, a batch could overtake an undecided one on another connection.
    fn window(&self) -> usize {
        1
    }
}

impl Inner {
    async fn push(&self, batch: EnvelopeBatch) -> Result<Vec<ItemOutcome>, PushError> {
        if self.single_only.load(Ordering::Relaxed) {
            return self.push_singly(&batch).await;
        }
        let response = self
            .post(&self.batch_url, "application/x-ndjson", ndjson(&batch))
            .await?;
        match response.status().as_u16() {
            404 | 405 => {
                tracing::info!("the gate knows no batches; events are pushed one by one");
                self.single_only.store(true, Ordering::Relaxed);
                self.push_singly(&batch).await
            }
            413 => self.push_singly(&batch).await,
            status if status < 400 => {
                let body = response.bytes().await.map_err(transient)?;
                batch_outcomes(&body, batch.len()).map_err(|detail| PushError::Transient { detail })
            }
            _ => Err(refusal(response).await),
        }
    }

    /// One event after the other, until one is not decided.
    async fn push_singly(&self, batch: &EnvelopeBatch) -> Result<Vec<ItemOutcome>, PushError> {
        if self.push_concurrency > 1 {
            let pushes = (0..batch.len()).map(|at| self.push_one(batch, at));
            return Ok(stream::iter(pushes)
                .buffered(self.push_concurrency)
                .collect()
                .await);
        }
        let mut outcomes = Vec::with_capacity(batch.len());
        for at in 0..batch.len() {
            let outcome = self.push_one(batch, at).await;
            let undecided = matches!(outcome, ItemOutcome::Retry { .. });
            outcomes.push(outcome);
            if undecided {
                break;
            }
        }
        // The wait is the first one's; these only stay in line behind it.
        outcomes.resize_with(batch.len(), || ItemOutcome::Retry {
            code: PRECEDING_ITEM_RETRY.to_owned(),
            retry_after_ms: 0,
        });
        Ok(outcomes)
    }

    async fn push_one(&self, batch: &EnvelopeBatch, at: usize) -> ItemOutcome {
        let body = batch.envelope(at).to_vec();
        match self.try_one(body).await {
            Ok(outcome) => outcome,
            Err(PushError::Backpressure {
                code,
                retry_after_ms,
            }) => ItemOutcome::Retry {
                code,
                retry_after_ms: retry_after_ms.max(1),
            },
            Err(PushError::Transient { detail }) => ItemOutcome::Retry {
                code: detail,
                retry_after_ms: 0,
            },
            Err(PushError::Rejected { status, detail }) => ItemOutcome::Rejected {
                status,
                code: String::new(),
                detail,
            },
        }
    }

    async fn try_one(&self, body: Vec<u8>) -> Result<ItemOutcome, PushError> {
        let response = self
            .post(&self.single_url, "application/json", body)
            .await?;
        if response.status().as_u16() >= 400 {
            return Err(refusal(response).await);
        }
        let body = response.bytes().await.map_err(transient)?;
        Ok(single_outcome(&body))
    }

    async fn post(
        &self,
        url: &str,
        content_type: &'static str,
        body: Vec<u8>,
    ) -> Result<Response, PushError> {
        let mut request = self
            .client
            .post(url)
            .header(CONTENT_TYPE, content_type)
            // Decisions are all that is looked at.
            .header(PREFER, RETURN_MINIMAL)
            .body(body);
        if let Some((name, token)) = &self.auth {
            request = request.header(name, token);
        }
        request.send().await.map_err(transient)
    }
}

/// One envelope a line. Envelopes framed here already are; others are put into lines.
fn ndjson(batch: &EnvelopeBatch) -> Vec<u8> {
    let mut body = Vec::with_capacity(batch.bytes.len() + batch.len());
    for at in 0..batch.len() {
        body.extend_from_slice(batch.envelope(at));
        body.push(b'\n');
    }
    body
}

/// The gate may or may not have seen it: the same bytes again.
fn transient(error: reqwest::Error) -> PushError {
    let detail = match error.is_timeout() {
        true => "timeout".to_owned(),
        // Without the address: it may carry more than a place.
        false => innermost(&error.without_url()),
    };
    PushError::Transient { detail }
}

/// The first cause in words, such as "connection refused".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// What an answer of 400 and above means for everything that was sent.
async fn refusal(response: Response) -> PushError {
    let status = response.status().as_u16();
    let retry_after_ms = retry_after_ms(&response);
    let body = response.text().await.unwrap_or_default();
    let code = serde_json::from_str::<serde_json::Value>(&body)
        .ok()
        .and_then(|answer| Some(answer.get("error")?.as_str()?.to_owned()));
    match classify(status, retry_after_ms, code.as_deref()) {
        AnswerClass::Backpressure { wait_ms } => PushError::Backpressure {
            code: code.unwrap_or_else(|| format!("http_{status}")),
            retry_after_ms: wait_ms,
        },
        AnswerClass::Retry { reason } => PushError::Transient { detail: reason },
        // `classify` accepts nothing from 400 on.
        AnswerClass::Rejected | AnswerClass::Accepted => PushError::Rejected {
            status,
            detail: body.chars().take(DETAIL_CHARS_MAX).collect(),
        },
    }
}

/// `Retry-After` in seconds, fractions allowed; dates are not understood.
fn retry_after_ms(response: &Response) -> Option<u64> {
    let seconds: f64 = response
        .headers()
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    (seconds.is_finite() && seconds >= 0.0).then_some((seconds * 1_000.0) as u64)
}
