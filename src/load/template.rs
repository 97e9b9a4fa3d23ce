//! The bytes of an event: one envelope framed once, then only its digits change.
//!
//! The envelope is written by the very framing the World Streamer uses, so it is canonical and passes the
//! gate's fast road. Numbers have a fixed width, hence every event is as long as the next and a buffer is
//! filled by overwriting a few digits in each line.

use super::workload::{Event, Kind};
use wellspring_domain::stream::column::{Column, NamedColumn, Validity};
use wellspring_domain::stream::framing::{
    EnvelopePins, FrameContext, FrameError, FrameMemo, FramePlan,
};

/// The event type of synthetic loads: traffic, in order per flow.
pub const EVENT_TYPE: &str = "s3_event_stream_with_fraud_6B";

const DIGITS: usize = 12;
/// Larger by far than any load, and always of 13 digits.
const SEQ_BASE: i64 = 1_000_000_000_000;
const FLOW_BASE: i64 = 2_000_000_000_000;
const TIME: &str = "2026-01-01T00:00:00.000000Z";
/// A number where the schema wants one, and a text of the same length.
const VALID_AMOUNT: &[u8; 5] = b"25.99";
const INVALID_AMOUNT: &[u8; 5] = b"\"abc\"";

/// Why there is no such template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The payload cannot be so small.
    #[error("a payload has at least {least} bytes, {asked} were asked for")]
    PayloadTooSmall {
        /// The smallest payload.
        least: usize,
        /// What was asked for.
        asked: usize,
    },
    /// Framing refused the row.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The framed text is not what this module expects.
    #[error("the framed event has no {0}")]
    PlaceMissing(&'static str),
}

/// Identities every event of the load carries.
#[derive(Clone, Debug)]
pub struct LoadIdentity {
    /// The platform run.
    pub platform_run_id: String,
    /// Producer id.
    pub producer: String,
    /// 48 hexadecimal digits that no other load has.
    pub id_prefix: String,
    /// World seed.
    pub seed: u64,
}

/// A framed event and the places of what changes in it. The text ends with a line end.
#[derive(Clone, Debug)]
pub struct Template {
    line: Vec<u8>,
    payload_bytes: usize,
    id_digits: usize,
    seq_digits: usize,
    flow_digits: usize,
    amount: usize,
}

impl Template {
    /// An event whose payload has exactly `payload_bytes` bytes, or the smallest when that is `None`.
    pub fn new(
        identity: &LoadIdentity,
        payload_bytes: Option<usize>,
    ) -> Result<Template, TemplateError> {
        let natural = frame(identity, None)?;
        let least = payload_of(&natural)?.len();
        let Some(asked) = payload_bytes.filter(|asked| *asked != least) else {
            return Template::of(identity, natural, least);
        };
        // `null` makes room for a quoted text.
        if asked < least {
            return Err(TemplateError::PayloadTooSmall { least, asked });
        }
        let padding = asked - least + 2;
        let padded = frame(identity, Some(padding))?;
        Template::of(identity, padded, asked)
    }

    fn of(
        identity: &LoadIdentity,
        mut line: Vec<u8>,
        payload_bytes: usize,
    ) -> Result<Template, TemplateError> {
        let find = |what: &'static str, text: &str| {
            let found = line
                .windows(text.len())
                .position(|window| window == text.as_bytes());
            found
                .map(|at| at + text.len())
                .ok_or(TemplateError::PlaceMissing(what))
        };
        let id = find("event_id", "{\"event_id\":\"")?;
        // Behind the leading digit of the base.
        let seq_digits = find("event_seq", "\"event_seq\":")? + 1;
        let flow_digits = find("flow_id", "\"flow_id\":")? + 1;
        let amount = find("amount", "\"amount\":")?;
        line[id..id + identity.id_prefix.len()].copy_from_slice(identity.id_prefix.as_bytes());
        line[id + 48..id + 64].fill(b'0');
        line.push(b'\n');
        Ok(Template {
            line,
            payload_bytes,
            id_digits: id + 64 - DIGITS,
            seq_digits,
            flow_digits,
            amount,
        })
    }

    /// Bytes of a line, its end included.
    pub fn line_bytes(&self) -> usize {
        self.line.len()
    }

    /// Bytes of the payload.
    pub fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    /// A line as it is before any event is written over it.
    pub fn line(&self) -> &[u8] {
        &self.line
    }

    /// Makes `line`, which was copied from this template, the line of an event.
    pub fn write(&self, event: &Event, line: &mut [u8]) {
        let identity = digits(event.identity);
        line[self.id_digits..self.id_digits + DIGITS].copy_from_slice(&identity);
        line[self.seq_digits..self.seq_digits + DIGITS].copy_from_slice(&identity);
        line[self.flow_digits..self.flow_digits + DIGITS].copy_from_slice(&digits(event.key));
        let amount = match event.kind {
            Kind::Fresh | Kind::Copy => VALID_AMOUNT,
            Kind::Invalid => INVALID_AMOUNT,
        };
        line[self.amount..self.amount + amount.len()].copy_from_slice(amount);
    }

    /// The identity an envelope of this load has, if its length is right.
    pub fn identity_of(&self, envelope: &[u8]) -> Option<u64> {
        if envelope.len() + 1 != self.line.len() {
            return None;
        }
        let digits = &envelope[self.id_digits..self.id_digits + DIGITS];
        std::str::from_utf8(digits).ok()?.parse().ok()
    }
}

fn digits(mut number: u64) -> [u8; DIGITS] {
    let mut text = [b'0'; DIGITS];
    for place in text.iter_mut().rev() {
        *place = b'0' + (number % 10) as u8;
        number /= 10;
    }
    text
}

fn payload_of(line: &[u8]) -> Result<&[u8], TemplateError> {
    let missing = TemplateError::PlaceMissing("payload");
    let find = |text: &[u8]| line.windows(text.len()).position(|window| window == text);
    match (find(b"\"payload\":"), find(b",\"trace_id\":")) {
        (Some(start), Some(end)) if start + 10 < end => Ok(&line[start + 10..end]),
        _ => Err(missing),
    }
}

/// Frames one row with the bases of the changing numbers in it; `padding` is the length of a text in it.
fn frame(identity: &LoadIdentity, padding: Option<usize>) -> Result<Vec<u8>, TemplateError> {
    let pins = pins(identity);
    let context = FrameContext {
        output_id: EVENT_TYPE.to_owned(),
        primary_key: vec!["flow_id".to_owned(), "event_seq".to_owned()],
        pins: pins.clone(),
        producer: identity.producer.clone(),
        trace_id: identity.id_prefix[..32].to_owned(),
        span_id: None,
    };
    let texts: Vec<(&str, String)> = vec![
        ("event_type", "AUTH_REQUEST".to_owned()),
        ("manifest_fingerprint", pins.manifest_fingerprint.clone()),
        ("parameter_hash", pins.parameter_hash.clone()),
        ("scenario_id", pins.scenario_id.clone()),
        ("ts_utc", TIME.to_owned()),
        ("campaign_id", "x".repeat(padding.unwrap_or(0))),
    ];
    let offsets: Vec<[i32; 2]> = texts
        .iter()
        .map(|(_, text)| [0, text.len() as i32])
        .collect();
    let mut columns: Vec<NamedColumn<'_>> = Vec::new();
    for ((name, text), offsets) in texts.iter().zip(&offsets) {
        let column = match (*name, padding) {
            ("campaign_id", None) => Column::Null,
            _ => Column::Text {
                offsets,
                bytes: text.as_bytes(),
                validity: Validity::ALL,
            },
        };
        columns.push(NamedColumn { name, column });
    }
    let whole = [[SEQ_BASE], [FLOW_BASE], [identity.seed as i64]];
    for (name, values) in ["event_seq", "flow_id", "seed"].iter().zip(&whole) {
        let validity = Validity::ALL;
        let column = Column::Int64 { values, validity };
        columns.push(NamedColumn { name, column });
    }
    let bits = [0];
    let fraud = Column::Bool {
        bits: &bits,
        offset: 0,
        validity: Validity::ALL,
    };
    let amount = Column::Float64 {
        values: &[25.99],
        validity: Validity::ALL,
    };
    columns.push(NamedColumn {
        name: "fraud_flag",
        column: fraud,
    });
    columns.push(NamedColumn {
        name: "amount",
        column: amount,
    });
    let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
    let mut line = Vec::new();
    let mut memo = FrameMemo::default();
    let plan = FramePlan::new(&context, &names)?;
    plan.bind(&columns, &mut memo)?.frame(0, &mut line)?;
    Ok(line)
}

fn pins(identity: &LoadIdentity) -> EnvelopePins {
    EnvelopePins {
        manifest_fingerprint: "a".repeat(64),
        parameter_hash: "b".repeat(64),
        seed: identity.seed,
        scenario_id: "load".to_owned(),
        run_id: "c".repeat(32),
        platform_run_id: identity.platform_run_id.clone(),
        scenario_run_id: "d".repeat(32),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::Value;
    use wellspring_domain::admission::envelope::Envelope;

    pub fn identity() -> LoadIdentity {
        LoadIdentity {
            platform_run_id: "platform_20260101T000000Z".to_owned(),
            producer: "svc:world_stream_producer".to_owned(),
            id_prefix: "e".repeat(48),
            seed: 42,
        }
    }

    fn event(kind: Kind, identity: u64, key: u64) -> Event {
        Event {
            kind,
            identity,
            key,
        }
    }

    fn line_of(template: &Template, event: &Event) -> Vec<u8> {
        let mut line = template.line().to_vec();
        template.write(event, &mut line);
        line
    }

    #[test]
    fn an_event_is_canonical_and_says_what_it_is() {
        let template = Template::new(&identity(), None).unwrap();
        let line = line_of(&template, &event(Kind::Fresh, 123_456, 77));
        let envelope = Envelope::read(&line[..line.len() - 1]).unwrap().unwrap();
        assert!(envelope.is_unchanged(), "it takes the fast road");
        envelope.validate().unwrap();
        let value: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["payload"]["event_seq"], 1_000_000_123_456_u64);
        assert_eq!(value["payload"]["flow_id"], 2_000_000_000_077_u64);
        assert_eq!(value["payload"]["amount"], 25.99);
        let id = value["event_id"].as_str().unwrap();
        assert_eq!(id, format!("{}{:016}", "e".repeat(48), 123_456));
        assert_eq!(template.identity_of(&line[..line.len() - 1]), Some(123_456));
        assert_eq!(template.identity_of(&line), None);
    }

    #[test]
    fn an_invalid_event_differs_in_the_type_of_its_amount_only() {
        let template = Template::new(&identity(), None).unwrap();
        let mut line = line_of(&template, &event(Kind::Invalid, 5, 6));
        let value: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["payload"]["amount"], "abc");
        template.write(&event(Kind::Copy, 5, 6), &mut line);
        assert_eq!(line, line_of(&template, &event(Kind::Fresh, 5, 6)));
    }

    #[test]
    fn the_payload_is_as_long_as_asked_for() {
        let least = Template::new(&identity(), None).unwrap().payload_bytes();
        for asked in [least, least + 1, least + 100, 4096] {
            let template = Template::new(&identity(), Some(asked)).unwrap();
            let line = line_of(&template, &event(Kind::Fresh, 1, 1));
            let envelope = Envelope::read(&line[..line.len() - 1]).unwrap().unwrap();
            assert_eq!(envelope.payload_json().len(), asked);
            assert_eq!(template.payload_bytes(), asked);
        }
        for asked in [least - 1, 1] {
            let error = Template::new(&identity(), Some(asked)).unwrap_err();
            assert_eq!(error, TemplateError::PayloadTooSmall { least, asked });
        }
    }
}
