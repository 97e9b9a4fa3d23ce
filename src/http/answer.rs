//! JSON answers: results, and refusals with their reason code (contract 7.1).

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use wellspring_domain::canonical_json::push_cj;

/// A refused request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    status: u16,
    code: String,
    detail: Option<String>,
    retry_after_ms: Option<u64>,
}

impl Refusal {
    /// A refusal with an HTTP status and a reason code.
    pub fn new(status: u16, code: impl Into<String>) -> Refusal {
        Refusal {
            status,
            code: code.into(),
            detail: None,
            retry_after_ms: None,
        }
    }

    /// Adds a sentence for people.
    pub fn detail(mut self, detail: impl Into<String>) -> Refusal {
        self.detail = Some(detail.into());
        self
    }

    /// Says when to try again; also sets `Retry-After`, in whole seconds.
    pub fn retry_after_ms(mut self, millis: u64) -> Refusal {
        self.retry_after_ms = Some(millis);
        self
    }

    /// `{"error", "detail"}` and what belongs to it.
    pub fn body(&self) -> Value {
        let mut body = json!({"error": self.code, "detail": self.detail});
        if let Some(millis) = self.retry_after_ms {
            body["retry_after_ms"] = json!(millis);
        }
        body
    }

    /// The body as one item of a batch answer, with its status.
    pub fn item(&self) -> Value {
        let mut body = self.body();
        body["status"] = json!(self.status);
        body
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = json_response(self.status, &self.body());
        if let Some(millis) = self.retry_after_ms {
            let seconds = HeaderValue::from(millis.div_ceil(1_000));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        if self.status == 401 {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("ApiKey"));
        }
        response
    }
}

/// A JSON answer in canonical form.
pub fn json_response(status: u16, body: &Value) -> Response {
    let mut bytes = Vec::with_capacity(512);
    push_cj(&mut bytes, body);
    json_bytes(status, bytes)
}

/// A JSON answer that is written already.
pub fn json_bytes(status: u16, bytes: Vec<u8>) -> Response {
    json_head(status, Body::from(bytes))
}

/// A head that says JSON before a body that is.
pub fn json_head<B>(status: u16, body: B) -> Response<B> {
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}
