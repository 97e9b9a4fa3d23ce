//! The proxy itself.

use super::limits::Limits;
use axum::body::{Body, to_bytes};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, TRANSFER_ENCODING};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

const BODY_BYTES_MAX: usize = 32 << 20;
const TARGET: &str = "x-amz-target";
const JSON: &str = "application/x-amz-json-1.1";
const EXCEEDED: &str = "ProvisionedThroughputExceededException";

/// Which faults, how often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plan {
    /// Same seed, same choices for the same row of calls.
    pub seed: u64,
    /// Share of data calls refused as a whole.
    pub throttle: f64,
    /// Share of records refused inside a `PutRecords`.
    pub partial: f64,
    /// Share of data calls whose answer is lost.
    pub lose: f64,
    /// Share of reads whose iterator is said to have expired.
    pub expire: f64,
    /// Longest delay of a data call.
    pub delay_ms: u64,
    /// Whether shards have the service's limits.
    pub limits: bool,
}

/// What the proxy did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    pub calls: u64,
    pub records_forwarded: u64,
    pub throttled: u64,
    pub partial: u64,
    pub lost: u64,
    pub expired: u64,
    pub limited_writes: u64,
    pub limited_reads: u64,
}

struct Faults {
    plan: Plan,
    random: SmallRng,
    stats: Stats,
    limits: Limits,
}

struct Shared {
    upstream: String,
    client: reqwest::Client,
    faults: Mutex<Faults>,
}

/// A running proxy; it ends when it is dropped.
pub struct FaultProxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    runtime: Option<Runtime>,
}

/// The answer is lost: hyper cuts the connection.
#[derive(Debug, thiserror::Error)]
#[error("the answer is lost")]
struct Lost;

/// A call on its way through.
struct Call {
    target: String,
    headers: HeaderMap,
    path: String,
    body: Bytes,
}

impl Call {
    fn operation(&self) -> &str {
        self.target.rsplit('.').next().unwrap_or_default()
    }

    fn json(&self) -> Option<Value> {
        let text = self.headers.get(CONTENT_TYPE)?.to_str().ok()?;
        text.contains("json")
            .then(|| serde_json::from_slice(&self.body).ok())?
    }
}

impl FaultProxy {
    /// A proxy on a free port of its own before `upstream` (`http://host:port`).
    pub fn start(upstream: &str, plan: Plan) -> FaultProxy {
        FaultProxy::start_at("127.0.0.1:0", upstream, plan)
    }

    /// A proxy at an address.
    pub fn start_at(address: &str, upstream: &str, plan: Plan) -> FaultProxy {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let shared = Arc::new(Shared {
            upstream: upstream.trim_end_matches('/').to_owned(),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            faults: Mutex::new(Faults {
                plan,
                random: SmallRng::seed_from_u64(plan.seed),
                stats: Stats::default(),
                limits: Limits::default(),
            }),
        });
        let listener = runtime.block_on(TcpListener::bind(address)).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(accept(listener, shared.clone()));
        FaultProxy {
            shared,
            address,
            runtime: Some(runtime),
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn stats(&self) -> Stats {
        self.shared.faults().stats
    }

    /// Changes the faults from now on.
    pub fn set_plan(&self, plan: Plan) {
        self.shared.faults().set_plan(plan);
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let _ = stream.set_nodelay(true);
        let shared = shared.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| shared.clone().serve(request));
            let connection = hyper::server::conn::http1::Builder::new();
            // An error is a connection that ended, by us or by the client.
            let _ = connection
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

impl Faults {
    fn set_plan(&mut self, plan: Plan) {
        if plan.seed != self.plan.seed {
            self.random = SmallRng::seed_from_u64(plan.seed);
        }
        self.plan = plan;
    }

    fn happens(&mut self, share: f64) -> bool {
        share > 0.0 && self.random.random::<f64>() < share
    }
}

impl Shared {
    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Lost> {
        let path = request.uri().path().to_owned();
        let (head, body) = request.into_parts();
        let Ok(body) = to_bytes(Body::new(body), BODY_BYTES_MAX).await else {
            return Ok(answer(413, Value::Null));
        };
        match &*path {
            "/__stats" => return Ok(answer(200, json!(self.faults().stats))),
            "/__plan" => return Ok(self.plan(&body)),
            _ => {}
        }
        let target = head
            .headers
            .get(TARGET)
            .and_then(|value| value.to_str().ok());
        let call = Call {
            target: target.unwrap_or_default().to_owned(),
            headers: head.headers,
            path,
            body,
        };
        self.call(call).await
    }

    fn plan(&self, body: &[u8]) -> Response<Body> {
        if !body.is_empty() {
            match serde_json::from_slice(body) {
                Ok(plan) => self.faults().set_plan(plan),
                Err(error) => return answer(400, json!({"error": error.to_string()})),
            }
        }
        answer(200, json!(self.faults().plan))
    }

    async fn call(&self, call: Call) -> Result<Response<Body>, Lost> {
        let operation = call.operation();
        if matches!(
            operation,
            "SplitShard" | "MergeShards" | "UpdateShardCount" | "DeleteStream"
        ) {
            self.faults().limits.forget();
        }
        if !matches!(operation, "PutRecord" | "PutRecords" | "GetRecords") {
            return Ok(self.forward_and_note(&call).await);
        }
        let (delay, throttled) = {
            let mut faults = self.faults();
            faults.stats.calls += 1;
            let (throttle, delay_ms) = (faults.plan.throttle, faults.plan.delay_ms);
            let throttled = faults.happens(throttle);
            faults.stats.throttled += u64::from(throttled);
            let delay = faults.random.random_range(0..=delay_ms);
            (Duration::from_millis(delay), throttled)
        };
        tokio::time::sleep(delay).await;
        if throttled || self.reads_too_often(&call) {
            return Ok(exceeded());
        }
        if self.expires(operation) {
            let text = "Iterator expired (injected)";
            return Ok(answer(
                400,
                json!({"__type": "ExpiredIteratorException", "message": text}),
            ));
        }
        let response = match (operation, call.json()) {
            ("PutRecords", Some(request)) => self.put_records(&call, request).await,
            ("PutRecord", Some(request)) => self.put_record(&call, &request).await,
            _ => self.forward_and_note(&call).await,
        };
        let mut faults = self.faults();
        let lose = faults.plan.lose;
        if faults.happens(lose) {
            faults.stats.lost += 1;
            return Err(Lost);
        }
        Ok(response)
    }

    fn reads_too_often(&self, call: &Call) -> bool {
        let mut faults = self.faults();
        if call.operation() != "GetRecords" || !faults.plan.limits {
            return false;
        }
        let Some(request) = call.json() else {
            return false;
        };
        let iterator = request["ShardIterator"].as_str().unwrap_or_default();
        let refused = !faults.limits.answers(iterator);
        faults.stats.limited_reads += u64::from(refused);
        refused
    }

    fn expires(&self, operation: &str) -> bool {
        let mut faults = self.faults();
        let expire = faults.plan.expire;
        let expired = operation == "GetRecords" && faults.happens(expire);
        faults.stats.expired += u64::from(expired);
        expired
    }

    async fn put_record(&self, call: &Call, request: &Value) -> Response<Body> {
        self.learn_shards(call, request).await;
        let refused = self.refuses(request, request);
        match refused {
            true => exceeded(),
            false => {
                self.faults().stats.records_forwarded += 1;
                self.forward_and_note(call).await
            }
        }
    }

    /// Forwards the records that are not refused, and puts the refused ones back into the answer.
    async fn put_records(&self, call: &Call, mut request: Value) -> Response<Body> {
        self.learn_shards(call, &request).await;
        let records = match request["Records"].take() {
            Value::Array(records) => records,
            _ => Vec::new(),
        };
        let refused: Vec<bool> = records
            .iter()
            .map(|record| self.refuses(&request, record))
            .collect();
        let kept = records.into_iter().zip(&refused);
        let kept: Vec<Value> = kept
            .filter(|(_, refused)| !**refused)
            .map(|(record, _)| record)
            .collect();
        let mut results = Vec::new().into_iter();
        if !kept.is_empty() {
            let count = kept.len() as u64;
            request["Records"] = Value::Array(kept);
            let body = serde_json::to_vec(&request).unwrap().into();
            let (status, headers, body) = self.forward(call, body).await;
            let parsed: Option<Value> = serde_json::from_slice(&body).ok();
            let Some(Value::Array(placed)) = parsed.map(|mut parsed| parsed["Records"].take())
            else {
                return passed_on(status, &headers, body);
            };
            self.faults().stats.records_forwarded += count;
            results = placed.into_iter();
        }
        let failed =
            json!({"ErrorCode": EXCEEDED, "ErrorMessage": "Rate exceeded for shard (injected)"});
        let results: Vec<Value> = refused
            .iter()
            .map(|refused| match refused {
                true => failed.clone(),
                false => results.next().unwrap_or_else(|| failed.clone()),
            })
            .collect();
        let count = results
            .iter()
            .filter(|result| !result["ErrorCode"].is_null())
            .count();
        answer(200, json!({"FailedRecordCount": count, "Records": results}))
    }

    fn refuses(&self, request: &Value, record: &Value) -> bool {
        let mut faults = self.faults();
        let partial = faults.plan.partial;
        if faults.happens(partial) {
            faults.stats.partial += 1;
            return true;
        }
        let stream = request["StreamName"].as_str().unwrap_or_default();
        let refused = faults.plan.limits && !faults.limits.takes(stream, record);
        faults.stats.limited_writes += u64::from(refused);
        refused
    }

    async fn learn_shards(&self, call: &Call, request: &Value) {
        let stream = request["StreamName"].as_str().unwrap_or_default();
        {
            let faults = self.faults();
            if !faults.plan.limits || faults.limits.knows(stream) {
                return;
            }
        }
        let listing = Call {
            target: "Kinesis_20131202.ListShards".to_owned(),
            headers: call.headers.clone(),
            path: "/".to_owned(),
            body: Bytes::new(),
        };
        let body = json!({"StreamName": stream}).to_string().into();
        let (_, _, body) = self.forward(&listing, body).await;
        if let Ok(listing) = serde_json::from_slice::<Value>(&body) {
            self.faults().limits.learn(stream, &listing);
        }
    }

    /// Forwards a call as it is, and notes whose iterators are in the answer.
    async fn forward_and_note(&self, call: &Call) -> Response<Body> {
        let (status, headers, body) = self.forward(call, call.body.clone()).await;
        let noted = matches!(call.operation(), "GetShardIterator" | "GetRecords");
        let limited = noted && self.faults().plan.limits;
        let parsed = limited
            .then(|| serde_json::from_slice::<Value>(&body).ok())
            .flatten();
        if let (Some(request), Some(answer)) = (call.json(), parsed) {
            let text = |name: &str| request[name].as_str().unwrap_or_default().to_owned();
            let limits = &mut self.faults().limits;
            match call.operation() {
                "GetRecords" => {
                    limits.next_iterator(&text("ShardIterator"), &answer["NextShardIterator"]);
                }
                _ => {
                    let shard = format!("{}/{}", text("StreamName"), text("ShardId"));
                    limits.iterator_of(&answer["ShardIterator"], shard);
                }
            }
        }
        passed_on(status, &headers, body)
    }

    async fn forward(&self, call: &Call, body: Bytes) -> (StatusCode, HeaderMap, Bytes) {
        let mut headers = call.headers.clone();
        for own in [HOST, CONTENT_LENGTH, TRANSFER_ENCODING] {
            headers.remove(own);
        }
        let target = call.target.parse().expect("it came as a header");
        headers.insert(HeaderName::from_static(TARGET), target);
        let url = format!("{}{}", self.upstream, call.path);
        let sent = self
            .client
            .post(url)
            .headers(headers)
            .body(body)
            .send()
            .await;
        let failed = |error: reqwest::Error| {
            let text = error.to_string().into();
            (StatusCode::BAD_GATEWAY, HeaderMap::new(), text)
        };
        match sent {
            Ok(response) => {
                let (status, headers) = (response.status(), response.headers().clone());
                match response.bytes().await {
                    Ok(body) => (status, headers, body),
                    Err(error) => failed(error),
                }
            }
            Err(error) => failed(error),
        }
    }
}

fn answer(status: u16, body: Value) -> Response<Body> {
    let response = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, JSON);
    response.body(Body::from(body.to_string())).unwrap()
}

fn exceeded() -> Response<Body> {
    let text = "Rate exceeded (injected)";
    answer(400, json!({"__type": EXCEEDED, "message": text}))
}

fn passed_on(status: StatusCode, headers: &HeaderMap, body: Bytes) -> Response<Body> {
    let mut response = Response::builder().status(status);
    let hops = [CONTENT_LENGTH, TRANSFER_ENCODING, hyper::header::CONNECTION];
    for (name, value) in headers.iter().filter(|(name, _)| !hops.contains(name)) {
        response = response.header(name, value);
    }
    response.body(Body::from(body)).unwrap()
}
