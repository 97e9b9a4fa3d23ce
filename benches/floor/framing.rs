//! Floor of framing: a row into the canonical envelope, for one known set of columns.
//!
//! Constant members are rendered ahead and joined into as few spans as there are changing values between them.
//! The row's own copies of the pins are compared with the constants instead of being escaped again. A row that
//! breaks the payload schema ends the run: generated worlds have none.

use super::columns::Columns;
use arrow::array::Array;
use std::ops::Range;
use wellspring_domain::canonical_json::{is_plain, push_f64, push_string};
use wellspring_domain::ids::Hash32;
use wellspring_domain::stream::framing::FrameContext;

/// Everything of an envelope that is the same for all rows.
pub struct Template {
    manifest_fingerprint: String,
    parameter_hash: String,
    scenario_id: String,
    seed: i64,
    pub(super) before_time: Vec<u8>,
    pub(super) before_amount: Vec<u8>,
    pub(super) pins_before_payload_time: Vec<u8>,
    pub(super) tail: Vec<u8>,
    id_head: Vec<u8>,
    id_tail: Vec<u8>,
    /// What stands before the payload in the text of the payload hash.
    pub payload_hash_head: Vec<u8>,
    /// What stands before the event id in the text of the dedupe key.
    pub dedupe_head: Vec<u8>,
}

/// What stands behind the payload in the text of the payload hash.
pub const PAYLOAD_HASH_TAIL: &[u8] = b",\"schema_version\":\"v1\"}";

/// Where the payload lies in the buffer a row was framed into.
pub type PayloadAt = Range<usize>;

impl Template {
    /// The template of one output of one run.
    pub fn new(context: &FrameContext, event_class: &str) -> Template {
        let pins = &context.pins;
        let output = &context.output_id;
        let (world, bundle) = (&pins.manifest_fingerprint, &pins.parameter_hash);
        let (seed, scenario) = (pins.seed, &pins.scenario_id);
        let span = context.span_id.as_ref();
        let span = span.map_or(String::new(), |span| format!(",\"span_id\":\"{span}\""));
        let before_amount = format!(
            "\",\"manifest_fingerprint\":\"{world}\",\"parameter_hash\":\"{bundle}\",\"seed\":{seed},\
             \"scenario_id\":\"{scenario}\",\"run_id\":\"{}\",\"platform_run_id\":\"{}\",\
             \"scenario_run_id\":\"{}\",\"producer\":\"{}\",\"payload\":{{\"amount\":",
            pins.run_id, pins.platform_run_id, pins.scenario_run_id, context.producer
        );
        let pins_before_payload_time = format!(
            ",\"manifest_fingerprint\":\"{world}\",\"parameter_hash\":\"{bundle}\",\
             \"scenario_id\":\"{scenario}\",\"seed\":{seed},\"ts_utc\":\""
        );
        let before_time =
            format!("\",\"event_type\":\"{output}\",\"schema_version\":\"v1\",\"ts_utc\":\"");
        Template {
            before_time: before_time.into_bytes(),
            before_amount: before_amount.into_bytes(),
            pins_before_payload_time: pins_before_payload_time.into_bytes(),
            tail: format!(",\"trace_id\":\"{}\"{span}}}", context.trace_id).into_bytes(),
            id_head: format!("{output}|{seed}|{world}|{scenario}|").into_bytes(),
            id_tail: format!("|{world}|{bundle}|{seed}|{scenario}").into_bytes(),
            payload_hash_head: format!("{{\"event_type\":\"{output}\",\"payload\":").into_bytes(),
            dedupe_head: format!("{}:{event_class}:", pins.platform_run_id).into_bytes(),
            manifest_fingerprint: world.clone(),
            parameter_hash: bundle.clone(),
            scenario_id: scenario.clone(),
            seed: seed as i64,
        }
    }

    /// Appends the text whose digest is the event id (V10).
    pub fn push_id_text(&self, columns: &Columns<'_>, row: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id_head);
        push_i64(out, columns.flow_id[row]);
        out.push(b'|');
        push_i64(out, columns.event_seq[row]);
        out.extend_from_slice(&self.id_tail);
    }

    /// The same for values that are text already.
    pub fn id_text(&self, flow_id: &[u8], event_seq: &[u8]) -> Vec<u8> {
        [&self.id_head[..], flow_id, b"|", event_seq, &self.id_tail].concat()
    }

    /// Asserts what the gate asks of this row: the payload schema, the pins and the time's form.
    pub fn check(&self, columns: &Columns<'_>, row: usize) {
        let valid = columns.seed[row] == self.seed
            && columns.manifest_fingerprint.value(row) == self.manifest_fingerprint
            && columns.parameter_hash.value(row) == self.parameter_hash
            && columns.scenario_id.value(row) == self.scenario_id
            && columns.amount[row].is_finite()
            && is_time(columns.ts_utc.value(row).as_bytes());
        assert!(valid, "row {row} is no valid event of this output");
    }

    /// Appends the envelope of a row that was checked; gives where its payload lies.
    pub fn frame(
        &self,
        columns: &Columns<'_>,
        row: usize,
        event_id: &[u8; 64],
        out: &mut Vec<u8>,
    ) -> PayloadAt {
        let time = columns.ts_utc.value(row).as_bytes();
        out.extend_from_slice(b"{\"event_id\":\"");
        out.extend_from_slice(event_id);
        out.extend_from_slice(&self.before_time);
        out.extend_from_slice(time);
        out.extend_from_slice(&self.before_amount);
        let payload = out.len() - b"{\"amount\":".len();
        push_amount(out, columns.amount[row]);
        if columns.campaign_id.is_null(row) {
            out.extend_from_slice(b",\"campaign_id\":null,\"event_seq\":");
        } else {
            out.extend_from_slice(b",\"campaign_id\":");
            push_text(out, columns.campaign_id.value(row));
            out.extend_from_slice(b",\"event_seq\":");
        }
        push_i64(out, columns.event_seq[row]);
        out.extend_from_slice(b",\"event_type\":");
        push_text(out, columns.event_type.value(row));
        out.extend_from_slice(b",\"flow_id\":");
        push_i64(out, columns.flow_id[row]);
        let flag: &[u8] = match columns.fraud_flag.value(row) {
            true => b",\"fraud_flag\":true",
            false => b",\"fraud_flag\":false",
        };
        out.extend_from_slice(flag);
        out.extend_from_slice(&self.pins_before_payload_time);
        out.extend_from_slice(time);
        out.extend_from_slice(b"\"}");
        let payload = payload..out.len();
        out.extend_from_slice(&self.tail);
        payload
    }
}

/// Most texts stand for themselves in JSON. They are found without a branch per byte.
fn push_text(out: &mut Vec<u8>, text: &str) {
    if !text.bytes().fold(true, |all, byte| all & is_plain(byte)) {
        return push_string(out, text);
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// `2026-01-01T00:00:01.250000Z`.
pub fn is_time(text: &[u8]) -> bool {
    const SHAPE: &[u8; 27] = b"0000-00-00T00:00:00.000000Z";
    text.len() == 27
        && text.iter().zip(SHAPE).fold(true, |all, (byte, shape)| {
            all & match shape {
                b'0' => byte.is_ascii_digit(),
                mark => byte == mark,
            }
        })
}

const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
};

const HEX_PAIRS: [[u8; 2]; 256] = {
    let digits = *b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    pairs
};

/// The 64 hex characters of a digest, a byte at a time.
pub fn hex(digest: &Hash32) -> [u8; 64] {
    let mut out = [0; 64];
    for (pair, byte) in out.chunks_exact_mut(2).zip(digest.0) {
        pair.copy_from_slice(&HEX_PAIRS[usize::from(byte)]);
    }
    out
}

/// Two digits at a time.
pub fn push_i64(out: &mut Vec<u8>, value: i64) {
    let mut buffer = [b'-'; 20];
    let mut at = buffer.len();
    let mut rest = value.unsigned_abs();
    while rest >= 100 {
        at -= 2;
        buffer[at..at + 2].copy_from_slice(&PAIRS[(rest % 100) as usize]);
        rest /= 100;
    }
    at -= 2;
    buffer[at..at + 2].copy_from_slice(&PAIRS[rest as usize]);
    at += usize::from(rest < 10);
    at -= usize::from(value < 0);
    if value < 0 {
        buffer[at] = b'-';
    }
    out.extend_from_slice(&buffer[at..]);
}

/// Amounts are whole cents: `c / 100` is the nearest number to the decimal of at most 15 digits, so those digits
/// are its shortest text. Anything else takes the general road.
fn push_amount(out: &mut Vec<u8>, value: f64) {
    let cents = (value * 100.0).round();
    if !(0.0..1e15).contains(&cents) || cents / 100.0 != value || value.is_sign_negative() {
        return push_f64(out, value);
    }
    let cents = cents as i64;
    push_i64(out, cents / 100);
    out.push(b'.');
    let [tens, ones] = PAIRS[(cents % 100) as usize];
    out.push(tens);
    if ones != b'0' {
        out.push(ones);
    }
}
