//! Receipts: rendered from journal rows to the contract's document, and the references to them
//! (contract 7.7).

use super::bus_offset::BusOffset;
use super::decision::RowRef;
use super::journal_row::{JournalOutcome, JournalRow};
use crate::canonical_json::push_cj;
use crate::ids::{Hash32, receipt_id};
use crate::run_paths::RunPaths;
use crate::time_text::Micros;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Where receipts are kept (policy): as journal rows rendered on read, or as one object each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReceiptsLayout {
    /// `receipt_ref` is `<journal segment>#<row>`.
    #[default]
    Segments,
    /// `receipt_ref` is the absolute form of `ig/receipts/<receipt_id>.json`.
    Objects,
}

/// The run a receipt is filed under and the layout in force: all a reference needs.
#[derive(Clone, Copy, Debug)]
pub struct ReceiptPlaces<'a> {
    /// Paths of the run.
    pub paths: &'a RunPaths,
    /// Layout in force.
    pub layout: ReceiptsLayout,
}

impl ReceiptPlaces<'_> {
    /// The absolute reference of a row's receipt.
    pub fn receipt_ref(&self, row: RowRef, receipt_id: &str) -> String {
        match self.layout {
            ReceiptsLayout::Segments => segment_receipt_ref(self.paths, row),
            ReceiptsLayout::Objects => receipt_object(self.paths, receipt_id),
        }
    }
}

/// `<absolute path of the journal segment>#<row>`.
pub fn segment_receipt_ref(paths: &RunPaths, row: RowRef) -> String {
    format!("{}#{}", segment_object(&paths.run_root(), row), row.row)
}

/// The journal segment a row lies in, below a run's root or store prefix.
pub fn segment_object(run_root: &str, row: RowRef) -> String {
    format!(
        "{run_root}/ig/journal/shard-{:03}/segment-{:08}.wsj",
        row.shard, row.segment
    )
}

/// The row a segment reference names; `None` when the text is not one.
pub fn parse_segment_receipt_ref(text: &str) -> Option<RowRef> {
    let (path, row) = text.rsplit_once('#')?;
    let mut parts = path.rsplit('/');
    let segment = parts.next()?;
    let segment = segment.strip_prefix("segment-")?.strip_suffix(".wsj")?;
    let shard = parts.next()?.strip_prefix("shard-")?;
    (segment.len() >= 8 && shard.len() >= 3).then_some(())?;
    Some(RowRef {
        shard: shard.parse().ok()?,
        segment: segment.parse().ok()?,
        row: row.parse().ok()?,
    })
}

/// Absolute path of a receipt object.
pub fn receipt_object(paths: &RunPaths, receipt_id: &str) -> String {
    format!("{}/receipts/{receipt_id}.json", paths.ig())
}

/// Absolute path of a quarantine record (contract 7.8).
pub fn quarantine_object(paths: &RunPaths, quarantine_id: &str) -> String {
    format!("{}/quarantine/{quarantine_id}.json", paths.ig())
}

/// The place of a record on the bus (contract 8).
pub fn eb_ref(topic: &str, partition: u32, offset: BusOffset, published_at: Micros) -> Value {
    json!({
        "topic": topic,
        "partition": partition,
        "offset": offset.to_string(),
        "offset_kind": offset.kind(),
        "published_at_utc": published_at.format_off(),
    })
}

/// Why a row has no receipt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// A DUPLICATE row whose ADMIT row was not given.
    #[error("the admitted row {0:?} of a duplicate is missing")]
    OriginalMissing(RowRef),
    /// What was given as the ADMIT row of a duplicate is none, or of another event.
    #[error("row {0:?} is not the admitted row of this duplicate")]
    OriginalDiffers(RowRef),
}

impl ReceiptError {
    /// The stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            ReceiptError::OriginalMissing(_) => "RECEIPT_ORIGINAL_MISSING",
            ReceiptError::OriginalDiffers(_) => "RECEIPT_ORIGINAL_DIFFERS",
        }
    }
}

/// The receipt of a row (contract 7.7). A DUPLICATE needs its ADMIT row.
pub fn render_receipt(
    row: &JournalRow,
    original: Option<&JournalRow>,
    places: &ReceiptPlaces<'_>,
) -> Result<Value, ReceiptError> {
    let mut receipt = common_fields(row);
    match &row.outcome {
        JournalOutcome::Admit { .. } => {
            admitted_fields(&mut receipt, row)?;
            let profile = &row.context.partitioning_profile_id;
            put(&mut receipt, "partitioning_profile_id", profile.as_str());
            put(&mut receipt, "partition_key", row.partition_key.to_string());
        }
        JournalOutcome::Duplicate { original: at } => {
            let original = original.ok_or(ReceiptError::OriginalMissing(*at))?;
            if original.row_ref != *at || original.dedupe_key != row.dedupe_key {
                return Err(ReceiptError::OriginalDiffers(*at));
            }
            admitted_fields(&mut receipt, original)?;
            put(&mut receipt, "reason_codes", json!(["DUPLICATE"]));
            let evidence = places.receipt_ref(*at, &original.receipt_id());
            let refs = json!([{"kind": "receipt_ref", "ref": evidence}]);
            put(&mut receipt, "evidence_refs", refs);
        }
        JournalOutcome::Quarantine { code, .. } => {
            put(&mut receipt, "reason_codes", json!([&**code]));
            let record = quarantine_object(places.paths, &row.receipt_id());
            let refs = json!([{"kind": "quarantine_record", "ref": record}]);
            put(&mut receipt, "evidence_refs", refs);
        }
    }
    Ok(Value::Object(receipt))
}

/// The receipt's bytes as an object holds them: CJ and a line end (contract 3.8).
pub fn receipt_bytes(receipt: &Value) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2048);
    push_cj(&mut bytes, receipt);
    bytes.push(b'\n');
    bytes
}

fn common_fields(row: &JournalRow) -> Map<String, Value> {
    let context = &*row.context;
    let mut receipt = Map::new();
    put(&mut receipt, "receipt_id", row.receipt_id());
    put(&mut receipt, "decision", row.decision().as_str());
    put(&mut receipt, "event_id", row.event_id.as_str());
    put(&mut receipt, "event_type", context.event_type.as_str());
    put(&mut receipt, "event_class", context.event_class.as_str());
    put(&mut receipt, "ts_utc", row.ts_utc.as_str());
    let world = context.manifest_fingerprint.as_str();
    put(&mut receipt, "manifest_fingerprint", world);
    let run = context.platform_run_id.as_str();
    put(&mut receipt, "platform_run_id", run);
    let policy = &context.policy_rev;
    let digest = policy.content_digest.as_str();
    put(&mut receipt, "run_config_digest", digest);
    let revision = json!({
        "policy_id": policy.policy_id,
        "revision": policy.revision,
        "content_digest": policy.content_digest,
    });
    put(&mut receipt, "policy_rev", revision);
    put(&mut receipt, "dedupe_key", dedupe_text(&row.dedupe_key));
    put(&mut receipt, "pins", without_nulls(&context.pins));
    let optional = [
        ("scenario_run_id", &context.scenario_run_id),
        ("schema_version", &context.schema_version),
        ("producer", &context.producer),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            put(&mut receipt, name, value.as_str());
        }
    }
    provenance_fields(&mut receipt, row);
    receipt
}

fn provenance_fields(receipt: &mut Map<String, Value>, row: &JournalRow) {
    let actor = &row.context.actor;
    let who = json!({
        "actor_id": actor.actor_id,
        "source_type": actor.source_type,
        "auth_mode": actor.auth_mode,
        "principal": actor.principal,
    });
    put(receipt, "actor", who);
    for name in ["service_release_id", "environment"] {
        if let Some(value) = row.context.provenance.get(name) {
            put(receipt, name, value.clone());
        }
    }
    put(receipt, "provenance", row.context.provenance.clone());
}

/// What ADMIT has of its own row and DUPLICATE of the original's.
fn admitted_fields(receipt: &mut Map<String, Value>, row: &JournalRow) -> Result<(), ReceiptError> {
    let JournalOutcome::Admit {
        topic,
        partition,
        offset,
    } = &row.outcome
    else {
        return Err(ReceiptError::OriginalDiffers(row.row_ref));
    };
    let hash = json!({"algo": "sha256", "hex": row.payload_hash.to_string()});
    put(receipt, "payload_hash", hash);
    put(receipt, "admitted_at_utc", row.decided_at.format_off());
    let place = eb_ref(topic, *partition, *offset, row.decided_at);
    put(receipt, "eb_ref", place);
    Ok(())
}

/// The dedupe key as text; empty when it could not be computed (V11).
pub fn dedupe_text(key: &Hash32) -> String {
    match *key == Hash32::default() {
        true => String::new(),
        false => key.to_string(),
    }
}

/// The row's receipt id for each decision an event may have met: where to look for an event.
pub fn receipt_ids_of_event(event_id: &str) -> [String; 3] {
    ["ADMIT", "DUPLICATE", "QUARANTINE"].map(|decision| receipt_id(decision, event_id))
}

/// Pins without null members.
pub fn without_nulls(pins: &Value) -> Value {
    match pins {
        Value::Object(pins) => pins
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect::<Map<String, Value>>()
            .into(),
        other => other.clone(),
    }
}

fn put(receipt: &mut Map<String, Value>, name: &str, value: impl Into<Value>) {
    receipt.insert(name.to_owned(), value.into());
}

#[cfg(test)]
#[path = "receipt_tests.rs"]
mod tests;
