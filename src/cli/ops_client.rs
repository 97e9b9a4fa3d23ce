//! Talks to a running Wellspring: its operations API under the gate's URL (contract 7.1).

use super::failure::Failure;
use crate::settings::Settings;
use crate::settings::secret::Secret;
use reqwest::blocking::{Client, RequestBuilder};
use serde_json::Value;
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const DETAIL_CHARS_MAX: usize = 256;

/// A client of one running gate.
pub struct OpsClient {
    base: String,
    header: String,
    token: Option<Secret>,
    http: Client,
}

impl OpsClient {
    /// The gate the settings name.
    pub fn new(settings: &Settings) -> anyhow::Result<Self> {
        let wiring = &settings.wiring;
        let http = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .build()?;
        Ok(OpsClient {
            base: base_of(&wiring.ig_ingest_url).to_string(),
            header: wiring.security.api_key_header.clone(),
            token: wiring.security.wsp_auth_token.clone(),
            http,
        })
    }

    /// Where it asks.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Asks for a path and gives the JSON answer.
    pub fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.send(self.http.get(self.url(path)))
    }

    /// Posts to a path without a body and gives the JSON answer.
    pub fn post(&self, path: &str) -> anyhow::Result<Value> {
        self.send(self.http.post(self.url(path)))
    }

    /// Asks for a path with one query parameter.
    pub fn get_with(&self, path: &str, query: (&str, &str)) -> anyhow::Result<Value> {
        let url = reqwest::Url::parse_with_params(&self.url(path), [query])?;
        self.send(self.http.get(url))
    }

    /// Posts a body and gives the JSON answer.
    pub fn post_body(&self, path: &str, body: Vec<u8>) -> anyhow::Result<Value> {
        self.send(self.http.post(self.url(path)).body(body))
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn send(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        let request = match &self.token {
            Some(token) => request.header(&self.header, token.expose()),
            None => request,
        };
        let answer = request.send().map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        let text = answer.text().map_err(|error| self.unreachable(&error))?;
        let body: Option<Value> = serde_json::from_str(&text).ok();
        match (status.is_success(), body) {
            (true, Some(body)) => Ok(body),
            (_, body) => Err(refusal(status.as_u16(), &text, body).into()),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let why = if error.is_timeout() {
            "no answer in time"
        } else {
            "no connection"
        };
        Failure::new("GATE_UNREACHABLE", format!("{why} from {}", self.base))
            .hint("is `wellspring up` or `wellspring gate serve` running with this profile?")
    }
}

/// The answer of a gate that said no, as an error of its own code.
fn refusal(status: u16, text: &str, body: Option<Value>) -> Failure {
    let word = |name: &str| {
        body.as_ref()
            .and_then(|body| body.get(name))
            .and_then(Value::as_str)
            .map(str::to_string)
    };
    let code = word("error").unwrap_or_else(|| "GATE_ANSWER_UNEXPECTED".to_string());
    let detail = word("detail").unwrap_or_else(|| text.chars().take(DETAIL_CHARS_MAX).collect());
    let sentence = format!("the gate answered {status} {detail}")
        .trim_end()
        .to_string();
    Failure::new(code, sentence)
}

/// The gate's own address: the ingest URL may name the push route (contract 6.8).
fn base_of(ingest_url: &str) -> &str {
    let url = ingest_url.trim_end_matches('/');
    url.strip_suffix("/v1/ingest/push").unwrap_or(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_base_is_the_ingest_url_without_the_push_route() {
        for url in ["http://h:1", "http://h:1/", "http://h:1/v1/ingest/push"] {
            assert_eq!(base_of(url), "http://h:1");
        }
    }

    #[test]
    fn a_refusal_keeps_the_code_of_the_gate() {
        let body = json!({"error": "RUN_NOT_FOUND", "detail": "no run of that id"});
        let failure = refusal(404, "", Some(body));
        assert_eq!(
            failure.to_string(),
            "RUN_NOT_FOUND: the gate answered 404 no run of that id"
        );
        let failure = refusal(502, "<html>", None);
        assert_eq!(failure.code(), "GATE_ANSWER_UNEXPECTED");
    }
}
