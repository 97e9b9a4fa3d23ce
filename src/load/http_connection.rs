//! One keep-alive connection to a gate: as little work per request as HTTP/1.1 allows.
//!
//! A load that spends more on its client than the gate spends on the answer measures itself. This client
//! knows what a gate sends: a status, a length, a JSON body. Anything else is an error of its own, never a
//! guess; after an error the connection is not used again.

use super::recorder::Outcome;
use crate::http::answer_form::{AnswerForm, PREFER, RETURN_MINIMAL};
use serde::Deserialize;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const HEAD_BYTES_MAX: usize = 64 * 1024;
const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;
const READ_AT_ONCE: usize = 16 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A gate behind HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpGateAddress {
    /// `host:port`.
    pub authority: String,
    /// Header and token, when the gate asks for one.
    pub auth: Option<(String, String)>,
}

/// Why an address cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address of a gate: write http://HOST:PORT")]
pub struct AddressError(String);

/// Why there is no answer. The event's outcome is unknown, unless the connection never was.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The connection failed.
    #[error("connection: {0}")]
    Io(#[from] std::io::Error),
    /// No answer in time.
    #[error("no answer within {ANSWER_TIMEOUT:?}")]
    Timeout,
    /// The answer is not what a gate sends.
    #[error("the answer is no gate's: {0}")]
    Protocol(&'static str),
}

impl HttpError {
    /// A short name to count it under.
    pub fn name(&self) -> &'static str {
        match self {
            HttpError::Io(_) => "connection",
            HttpError::Timeout => "timeout",
            HttpError::Protocol(_) => "protocol",
        }
    }
}

impl HttpGateAddress {
    /// Reads `http://host:port`, with or without a path behind it.
    pub fn parse(url: &str, auth: Option<(String, String)>) -> Result<Self, AddressError> {
        let bad = || AddressError(url.to_owned());
        let rest = url.strip_prefix("http://").ok_or_else(bad)?;
        let authority = rest.split('/').next().unwrap_or_default();
        let port = authority
            .rsplit_once(':')
            .filter(|(host, _)| !host.is_empty());
        let (_, port) = port.ok_or_else(bad)?;
        port.parse::<u16>().map_err(|_| bad())?;
        Ok(HttpGateAddress {
            authority: authority.to_owned(),
            auth,
        })
    }

    /// Everything of a request up to the value of its length. Only single pushes are answered in more than one form.
    pub fn head(&self, path: &str, content_type: &str, form: AnswerForm) -> Vec<u8> {
        let mut head = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: {content_type}\r\n",
            self.authority
        );
        if let Some((name, token)) = &self.auth {
            head.push_str(&format!("{name}: {token}\r\n"));
        }
        if form == AnswerForm::Reference {
            head.push_str(&format!("{PREFER}: {RETURN_MINIMAL}\r\n"));
        }
        head.push_str("content-length: ");
        head.into_bytes()
    }
}

/// The status line and what matters of the headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    body_bytes: usize,
    closes: bool,
    head_bytes: usize,
}

/// A connection.
pub struct HttpConnection {
    stream: TcpStream,
    received: Vec<u8>,
    body: std::ops::Range<usize>,
    request: Vec<u8>,
    /// The gate said that it will close it.
    pub closed: bool,
}

impl HttpConnection {
    /// Connects.
    pub async fn open(address: &HttpGateAddress) -> Result<HttpConnection, HttpError> {
        let connecting = TcpStream::connect(address.authority.as_str());
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| HttpError::Timeout)??;
        stream.set_nodelay(true)?;
        Ok(HttpConnection {
            stream,
            received: Vec::with_capacity(READ_AT_ONCE),
            body: 0..0,
            request: Vec::new(),
            closed: false,
        })
    }

    /// Sends one request and reads its answer; gives the status. The body is [`HttpConnection::body`].
    pub async fn post(&mut self, head: &[u8], body: &[u8]) -> Result<u16, HttpError> {
        let exchange = self.exchange(head, body);
        match tokio::time::timeout(ANSWER_TIMEOUT, exchange).await {
            Ok(status) => status,
            Err(_late) => Err(HttpError::Timeout),
        }
    }

    /// The body of the last answer.
    pub fn body(&self) -> &[u8] {
        &self.received[self.body.clone()]
    }

    async fn exchange(&mut self, head: &[u8], body: &[u8]) -> Result<u16, HttpError> {
        self.request.clear();
        self.request.extend_from_slice(head);
        self.request
            .extend_from_slice(body.len().to_string().as_bytes());
        self.request.extend_from_slice(b"\r\n\r\n");
        self.request.extend_from_slice(body);
        let written = self.stream.write_all(&self.request).await;
        // A gate that turns a body away answers before it has read all of it: its answer counts.
        match (self.read_answer().await, written) {
            (Ok(head), _) => {
                self.closed = head.closes;
                Ok(head.status)
            }
            (Err(_), Err(error)) => Err(error.into()),
            (Err(error), Ok(())) => Err(error),
        }
    }

    async fn read_answer(&mut self) -> Result<Head, HttpError> {
        self.received.clear();
        let head = loop {
            if let Some(head) = parse_head(&self.received)? {
                break head;
            }
            if self.received.len() > HEAD_BYTES_MAX {
                return Err(HttpError::Protocol("its head does not end"));
            }
            self.read_more().await?;
        };
        let end = head.head_bytes + head.body_bytes;
        while self.received.len() < end {
            self.read_more().await?;
        }
        self.body = head.head_bytes..end;
        Ok(head)
    }

    async fn read_more(&mut self) -> Result<(), HttpError> {
        self.received.reserve(READ_AT_ONCE);
        match self.stream.read_buf(&mut self.received).await? {
            0 => Err(HttpError::Protocol("it ended early")),
            _ => Ok(()),
        }
    }
}

/// The head, once all of it is there.
fn parse_head(received: &[u8]) -> Result<Option<Head>, HttpError> {
    let Some(end) = received.windows(4).position(|part| part == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&received[..end])
        .map_err(|_| HttpError::Protocol("its head is no text"))?;
    let mut lines = text.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .ok_or(HttpError::Protocol("it has no status"))?;
    let (mut body_bytes, mut closes) = (None, false);
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            body_bytes = value.parse().ok();
        } else if name.eq_ignore_ascii_case("connection") {
            closes = value.eq_ignore_ascii_case("close");
        }
    }
    let body_bytes = body_bytes.ok_or(HttpError::Protocol("it has no length"))?;
    if body_bytes > BODY_BYTES_MAX {
        return Err(HttpError::Protocol("its body is too large"));
    }
    Ok(Some(Head {
        status,
        body_bytes,
        closes,
        head_bytes: end + 4,
    }))
}

#[derive(Deserialize)]
struct BatchAnswer<'a> {
    #[serde(borrow)]
    results: Vec<ItemAnswer<'a>>,
}

#[derive(Clone, Copy, Deserialize)]
struct ItemAnswer<'a> {
    decision: Option<&'a str>,
    error: Option<&'a str>,
}

impl<'a> ItemAnswer<'a> {
    fn outcome(&self) -> Outcome<'a> {
        match self.decision {
            Some("ADMIT") => Outcome::Admitted,
            Some("DUPLICATE") => Outcome::Duplicate,
            Some("QUARANTINE") => Outcome::Quarantined,
            _ => Outcome::Refused(self.error.unwrap_or("protocol")),
        }
    }
}

/// The answer to every event of a request; one refusal may stand for all of them.
pub enum Answers<'a> {
    /// One for each event, in order.
    Each(Vec<Outcome<'a>>),
    /// The same for all: the whole request was turned away.
    All(Outcome<'a>),
}

/// What a single push was answered.
pub fn single_answer(status: u16, body: &[u8]) -> Answers<'_> {
    match serde_json::from_slice::<ItemAnswer<'_>>(body) {
        Ok(item) if status < 400 || item.error.is_some() => Answers::All(item.outcome()),
        _ => Answers::All(Outcome::Refused(status_name(status))),
    }
}

/// What a batch push of `events` events was answered.
pub fn batch_answer(status: u16, body: &[u8], events: usize) -> Answers<'_> {
    if status >= 400 {
        return single_answer(status, body);
    }
    match serde_json::from_slice::<BatchAnswer<'_>>(body) {
        Ok(answer) if answer.results.len() == events => {
            Answers::Each(answer.results.iter().map(ItemAnswer::outcome).collect())
        }
        _ => Answers::All(Outcome::Refused("protocol")),
    }
}

fn status_name(status: u16) -> &'static str {
    match status {
        401 | 403 => "http_401",
        408 => "http_408",
        413 => "http_413",
        429 => "http_429",
        400..=499 => "http_4xx",
        503 => "http_503",
        500..=599 => "http_5xx",
        _ => "protocol",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn address(authority: &str) -> HttpGateAddress {
        HttpGateAddress {
            authority: authority.to_owned(),
            auth: Some(("x-key".to_owned(), "t".to_owned())),
        }
    }

    #[test]
    fn only_plain_addresses_are_read() {
        let read = |url: &str| HttpGateAddress::parse(url, None).map(|read| read.authority);
        assert_eq!(read("http://127.0.0.1:8081").unwrap(), "127.0.0.1:8081");
        assert_eq!(read("http://gate:80/v1/x").unwrap(), "gate:80");
        for url in [
            "",
            "gate:80",
            "https://gate:80",
            "http://gate",
            "http://:80",
            "http://g:x",
        ] {
            assert!(read(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_head_is_read_when_it_is_whole_and_only_then() {
        let text = b"HTTP/1.1 429 Too Many\r\nContent-Length: 12\r\nConnection: close\r\n\r\n";
        for end in 0..text.len() {
            assert!(parse_head(&text[..end]).unwrap().is_none(), "{end}");
        }
        let head = parse_head(text).unwrap().unwrap();
        assert_eq!((head.status, head.body_bytes), (429, 12));
        assert!(head.closes && head.head_bytes == text.len());
        for text in [
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        ] {
            assert!(parse_head(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn answers_become_outcomes() {
        let body = br#"{"results":[{"decision":"ADMIT","receipt_ref":"r"},{"decision":"DUPLICATE"},
            {"decision":"QUARANTINE","reason_code":"SCHEMA_FAIL"},{"error":"IG_UNHEALTHY","status":503}]}"#;
        let Answers::Each(outcomes) = batch_answer(200, body, 4) else {
            panic!("each event has an answer");
        };
        let refused = Outcome::Refused("IG_UNHEALTHY");
        assert_eq!(
            outcomes,
            [
                Outcome::Admitted,
                Outcome::Duplicate,
                Outcome::Quarantined,
                refused
            ]
        );
        let all = |answers: Answers<'_>| match answers {
            Answers::All(Outcome::Refused(code)) => code.to_owned(),
            _ => panic!("the whole request was refused"),
        };
        assert_eq!(all(batch_answer(200, body, 5)), "protocol");
        assert_eq!(
            all(batch_answer(429, br#"{"error":"GATE_BUSY"}"#, 4)),
            "GATE_BUSY"
        );
        assert_eq!(all(single_answer(503, b"<html>")), "http_503");
        assert_eq!(all(single_answer(200, b"<html>")), "protocol");
        let admitted = single_answer(200, br#"{"decision":"ADMIT","receipt":{"decision":"x"}}"#);
        assert!(matches!(admitted, Answers::All(Outcome::Admitted)));
    }

    #[tokio::test]
    async fn one_connection_carries_many_requests_and_reads_answers_in_pieces() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let gate = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            for answer in ["{\"decision\":\"ADMIT\"}", "{}"] {
                while !seen.ends_with(b"body") {
                    stream.read_buf(&mut seen).await.unwrap();
                }
                let text = String::from_utf8(std::mem::take(&mut seen)).unwrap();
                assert!(
                    text.starts_with("POST /v1 HTTP/1.1\r\nhost: 127.0.0.1:"),
                    "{text}"
                );
                assert!(
                    text.contains("\r\nx-key: t\r\n") && text.contains("content-length: 4\r\n")
                );
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
                    answer.len()
                );
                for piece in [&head[..10], &head[10..], &answer[..1], &answer[1..]] {
                    stream.write_all(piece.as_bytes()).await.unwrap();
                    stream.flush().await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        });
        let address = address(&authority);
        let head = address.head("/v1", "application/json", AnswerForm::Receipt);
        let mut connection = HttpConnection::open(&address).await.unwrap();
        assert_eq!(connection.post(&head, b"body").await.unwrap(), 200);
        assert_eq!(connection.body(), b"{\"decision\":\"ADMIT\"}");
        assert_eq!(connection.post(&head, b"body").await.unwrap(), 200);
        assert_eq!(connection.body(), b"{}");
        gate.await.unwrap();
        let error = connection.post(&head, b"body").await.unwrap_err();
        assert!(
            ["protocol", "connection"].contains(&error.name()),
            "{error}"
        );
    }
}
