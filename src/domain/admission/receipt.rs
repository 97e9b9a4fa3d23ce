//! Receipts: rendered from journal rows to the contract's document, and the references to them
//! (contract 7.7).

use super::decision::RowRef;
use super::journal_row::JournalRow;
use super::receipt_writer::push_receipt;
use crate::canonical_json::push_cj;
use crate::ids::{Hash32, receipt_id};
use crate::run_paths::RunPaths;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Room for a usual receipt.
pub const RECEIPT_BYTES: usize = 3072;

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
    /// The absolute reference of a row's receipt. The id is a digest and asked for only where it is needed.
    pub fn receipt_ref(&self, row: RowRef, receipt_id: impl FnOnce() -> String) -> String {
        match self.layout {
            ReceiptsLayout::Segments => segment_receipt_ref(self.paths, row),
            ReceiptsLayout::Objects => receipt_object(self.paths, &receipt_id()),
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

/// The receipt of a row (contract 7.7) as a JSON value. A DUPLICATE needs its ADMIT row.
pub fn render_receipt(
    row: &JournalRow,
    original: Option<&JournalRow>,
    places: &ReceiptPlaces<'_>,
) -> Result<Value, ReceiptError> {
    let mut bytes = Vec::with_capacity(RECEIPT_BYTES);
    push_receipt(&mut bytes, row, original, places)?;
    Ok(serde_json::from_slice(&bytes).expect("what was just written is JSON"))
}

/// The bytes of a receipt as an object holds them: CJ and a line end (contract 3.8).
pub fn receipt_bytes(receipt: &Value) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(RECEIPT_BYTES);
    push_cj(&mut bytes, receipt);
    bytes.push(b'\n');
    bytes
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

#[cfg(test)]
#[path = "receipt_tests.rs"]
mod tests;
