//! A plain client of the gate, and envelopes it accepts.

use std::time::Duration;

use reqwest::blocking::{Client, RequestBuilder};
use serde_json::{Value, json};

/// The platform run of hand-made envelopes.
pub const RUN: &str = "platform_20260101T000000Z";

/// What the gate answered.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// JSON body; `Null` when it is none.
    pub body: Value,
    /// The `Retry-After` header.
    pub retry_after: Option<String>,
    /// The `Preference-Applied` header.
    pub preference_applied: Option<String>,
}

impl Answer {
    /// The decision of a push.
    pub fn decision(&self) -> &str {
        self.body["decision"].as_str().unwrap_or("")
    }

    /// The error code, else the reason code of the receipt, or of an answer without one.
    pub fn code(&self) -> &str {
        let codes = [
            &self.body["error"],
            &self.body["receipt"]["reason_codes"][0],
            &self.body["reason_code"],
        ];
        codes.iter().find_map(|code| code.as_str()).unwrap_or("")
    }
}

/// Talks to one gate.
pub struct GateClient {
    client: Client,
    url: String,
}

impl GateClient {
    /// A client of the gate at this address.
    pub fn new(url: &str) -> Self {
        let client = Client::builder()
            .timeout(Duration::from_secs(60))
            .build()
            .unwrap();
        GateClient {
            client,
            url: url.to_owned(),
        }
    }

    /// Pushes one envelope.
    #[track_caller]
    pub fn push(&self, envelope: &Value) -> Answer {
        self.try_push(envelope)
            .unwrap_or_else(|error| panic!("no answer: {error:?}"))
    }

    /// Pushes one envelope; an error when no whole answer comes.
    pub fn try_push(&self, envelope: &Value) -> Result<Answer, reqwest::Error> {
        let post = self.client.post(format!("{}/v1/ingest/push", self.url));
        self.try_send(post.body(envelope.to_string()))
    }

    /// Pushes any body.
    pub fn push_bytes(&self, body: impl Into<reqwest::blocking::Body>) -> Answer {
        self.send(
            self.client
                .post(format!("{}/v1/ingest/push", self.url))
                .body(body),
        )
    }

    /// Pushes any body with a header.
    pub fn push_as(&self, header: (&str, &str), envelope: &Value) -> Answer {
        let post = self.client.post(format!("{}/v1/ingest/push", self.url));
        self.send(post.header(header.0, header.1).body(envelope.to_string()))
    }

    /// Pushes a batch body.
    pub fn push_batch(&self, body: impl Into<reqwest::blocking::Body>) -> Answer {
        self.send(
            self.client
                .post(format!("{}/v1/ingest/push_batch", self.url))
                .body(body),
        )
    }

    /// GET of a path.
    pub fn get(&self, path: &str) -> Answer {
        self.send(self.client.get(format!("{}{path}", self.url)))
    }

    /// POST of a JSON body.
    pub fn post_json(&self, path: &str, body: &Value) -> Answer {
        let post = self.client.post(format!("{}{path}", self.url));
        self.send(
            post.header("content-type", "application/json")
                .body(body.to_string()),
        )
    }

    /// POST without a body.
    pub fn post(&self, path: &str) -> Answer {
        self.send(self.client.post(format!("{}{path}", self.url)))
    }

    /// The text of a path.
    pub fn text(&self, path: &str) -> String {
        let response = self
            .client
            .get(format!("{}{path}", self.url))
            .send()
            .unwrap();
        response.text().unwrap()
    }

    #[track_caller]
    fn send(&self, request: RequestBuilder) -> Answer {
        self.try_send(request)
            .unwrap_or_else(|error| panic!("no answer: {error:?}"))
    }

    fn try_send(&self, request: RequestBuilder) -> Result<Answer, reqwest::Error> {
        let response = request.send()?;
        let status = response.status().as_u16();
        let header = |name| {
            let value = response.headers().get(name);
            value.map(|value| value.to_str().unwrap().to_owned())
        };
        let (retry_after, preference_applied) =
            (header("retry-after"), header("preference-applied"));
        let body = serde_json::from_str(&response.text()?).unwrap_or(Value::Null);
        Ok(Answer {
            status,
            body,
            retry_after,
            preference_applied,
        })
    }
}

/// A traffic event the gate admits; `name` makes its identity.
pub fn traffic(name: &str, flow_id: u64) -> Value {
    let (mf, ph) = ("a".repeat(64), "b".repeat(64));
    json!({
        "event_id": name, "event_type": "s3_event_stream_with_fraud_6B", "schema_version": "v1",
        "ts_utc": "2026-01-01T00:00:01.250000Z", "manifest_fingerprint": mf, "parameter_hash": ph,
        "seed": 42, "scenario_id": "baseline_v1", "run_id": "c".repeat(32),
        "platform_run_id": RUN, "scenario_run_id": "d".repeat(32),
        "producer": "svc:world_stream_producer",
        "payload": {
            "flow_id": flow_id, "event_seq": 1, "event_type": "AUTH_REQUEST",
            "ts_utc": "2026-01-01T00:00:01.250000Z", "amount": 25.99, "seed": 42,
            "manifest_fingerprint": mf, "parameter_hash": ph, "scenario_id": "baseline_v1",
            "fraud_flag": false, "campaign_id": null
        }
    })
}
