//! Stream views: what a time-sorted copy of one output says about itself, and when it may be trusted.
//!
//! A stream view is a folder `<base>/output_id=<id>/` with sorted parts, a manifest and a receipt. The
//! receipt is the commit: without it the folder is an unfinished attempt. Contract 3.7 names the files
//! and members, contract 6.6 step 1 what a reader must check before the first row.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::world_key::WorldKey;
use crate::canonical_json;
use crate::ids;

/// File name of the manifest inside a stream view (contract 3.7).
pub const MANIFEST_FILE: &str = "_stream_view_manifest.json";
/// File name of the receipt inside a stream view; its presence commits the view (contract 3.7).
pub const RECEIPT_FILE: &str = "_stream_sort_receipt.json";
/// The only layout a view has: one flat folder per output (contract 3.7).
pub const GRANULARITY_FLAT: &str = "flat";
/// The tie-breakers every sort ends with: full source path, then row number in that file.
pub const TIE_BREAKERS: [&str; 2] = ["filename", "file_row_number"];
/// The time column of the event streams.
pub const TIME_COLUMN: &str = "ts_utc";

/// Outputs that are not sorted by `ts_utc`, with their leading keys (contract 3.7).
const SORT_KEY_OVERRIDES: [(&str, &[&str]); 4] = [
    ("s1_session_index_6B", &["session_start_utc"]),
    ("s4_event_labels_6B", &["flow_id", "event_seq"]),
    ("s4_flow_truth_labels_6B", &["flow_id"]),
    ("s4_flow_bank_view_6B", &["flow_id"]),
];

/// Row statistics of one side of a sort (contract 3.7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SortStats {
    /// Rows counted.
    pub row_count: u64,
    /// Sum of the 64-bit row hashes, decimal.
    pub hash_sum: String,
    /// Sum of (row hash mod 1000000007), decimal.
    pub hash_sum2: String,
    /// Earliest time, T-naive, or null without a time key or rows.
    pub min_ts_utc: Option<String>,
    /// Latest time, T-naive, or null without a time key or rows.
    pub max_ts_utc: Option<String>,
}

/// `_stream_view_manifest.json` (contract 3.7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamViewManifest {
    /// Identity of the view (contract 1.2).
    pub stream_view_id: String,
    /// Engine run root, exactly as resolved.
    pub engine_run_root: String,
    /// Folder of this view.
    pub stream_view_root: String,
    /// `run_id` of the engine's run receipt.
    pub engine_run_id: String,
    /// Scenario of the rows.
    pub scenario_id: String,
    /// The sorted output.
    pub output_id: String,
    /// Identity of the world.
    pub world_key: WorldKey,
    /// Always exactly `[output_id]`.
    pub output_ids: Vec<String>,
    /// Keys of the sort, tie-breakers included.
    pub sort_keys: Vec<String>,
    /// Always `flat`.
    pub partition_granularity: String,
    /// When the view was made, T-off.
    pub created_utc: String,
}

/// `_stream_sort_receipt.json`: the commit of a view (contract 3.7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SortReceipt {
    /// Identity of the view (contract 1.2).
    pub stream_view_id: String,
    /// Engine run root, exactly as resolved.
    pub engine_run_root: String,
    /// Folder of this view.
    pub stream_view_root: String,
    /// The sorted output.
    pub output_id: String,
    /// Always exactly `[output_id]`.
    pub output_ids: Vec<String>,
    /// Keys of the sort, tie-breakers included.
    pub sort_keys: Vec<String>,
    /// Always `flat`.
    pub partition_granularity: String,
    /// Digest over the source part paths (contract 1.2).
    pub source_locator_digest: String,
    /// Statistics taken while reading the source.
    pub raw_stats: SortStats,
    /// Statistics taken by reading the written parts again.
    pub sorted_stats: SortStats,
    /// When the view was made, T-off.
    pub created_utc: String,
    /// `OK`.
    pub status: String,
}

/// Why a stream view may not be used or built, with the contract's code (contract 3.7, 6.6).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamViewRefusal {
    /// Manifest or receipt is not there (reader).
    #[error("stream view of {output_id} has no {missing}: sort it with `wellspring oracle sort`")]
    Missing {
        /// The output asked for.
        output_id: String,
        /// Which file is absent.
        missing: &'static str,
    },
    /// The receipt does not say OK.
    #[error("stream view receipt of {output_id} has status {status}, not OK")]
    ReceiptBad {
        /// The output asked for.
        output_id: String,
        /// The status found.
        status: String,
    },
    /// The view was made from another root, scenario or key list.
    #[error("stream view of {output_id} has id {found}, expected {expected}")]
    IdMismatch {
        /// The output asked for.
        output_id: String,
        /// Identity computed from the wiring.
        expected: String,
        /// Identity in the manifest.
        found: String,
    },
    /// The folder holds another output's view.
    #[error("stream view folder of {output_id} holds the view of {found}")]
    OutputMismatch {
        /// The output asked for.
        output_id: String,
        /// Output named by the manifest.
        found: String,
    },
    /// A manifest without a receipt: an unfinished attempt (sorter).
    #[error(
        "stream view of {output_id} has a manifest and no receipt: delete the folder or use a new base"
    )]
    SortReceiptMissing {
        /// The output being sorted.
        output_id: String,
    },
    /// A receipt of something else: other sources, keys or root (sorter).
    #[error(
        "stream view of {output_id} was built differently: {member} is {found}, expected {expected}"
    )]
    SortReceiptMismatch {
        /// The output being sorted.
        output_id: String,
        /// First member that differs.
        member: &'static str,
        /// Value this sort would write.
        expected: String,
        /// Value in the receipt.
        found: String,
    },
    /// Parts without a receipt: an unfinished attempt (sorter).
    #[error(
        "stream view of {output_id} has parts and no receipt: delete the folder or use a new base"
    )]
    PartialExists {
        /// The output being sorted.
        output_id: String,
    },
}

impl StreamViewRefusal {
    /// The contract's reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "STREAM_VIEW_MISSING",
            Self::ReceiptBad { .. } => "STREAM_VIEW_RECEIPT_BAD",
            Self::IdMismatch { .. } => "STREAM_VIEW_ID_MISMATCH",
            Self::OutputMismatch { .. } => "STREAM_VIEW_OUTPUT_MISMATCH",
            Self::SortReceiptMissing { .. } => "STREAM_RECEIPT_MISSING",
            Self::SortReceiptMismatch { .. } => "STREAM_RECEIPT_MISMATCH",
            Self::PartialExists { .. } => "STREAM_VIEW_PARTIAL_EXISTS",
        }
    }
}

/// Replacements for the sort keys that an operator may set (contract 3.7, `STREAM_SORT_KEYS`,
/// `STREAM_SORT_TIME_COLUMN`). They override the per-output table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SortKeyOverrides {
    /// Replaces the whole key list; missing tie-breakers are added.
    pub keys: Option<Vec<String>>,
    /// Replaces the leading time column.
    pub time_column: Option<String>,
}

/// Sort keys of one output, tie-breakers included (contract 3.7).
pub fn sort_keys(output_id: &str, overrides: &SortKeyOverrides) -> Vec<String> {
    let leading = match (&overrides.keys, &overrides.time_column) {
        (Some(keys), _) => keys.clone(),
        (None, Some(column)) => vec![column.clone()],
        (None, None) => default_leading_keys(output_id),
    };
    with_tie_breakers(leading)
}

/// True when the contract gives this output keys other than `ts_utc` (contract 3.7).
pub fn has_override_key(output_id: &str) -> bool {
    SORT_KEY_OVERRIDES.iter().any(|(id, _)| *id == output_id)
}

/// True when this key is compared as an instant, not as text (contract 3.7: `CAST(ts_utc AS TIMESTAMP)`).
pub fn is_time_key(key: &str) -> bool {
    key.ends_with("_utc")
}

/// Identity of a view (contract 1.2). `engine_run_root` is the string exactly as the root was resolved
/// (contract 3.1): for a local folder the path as it was given, with no slash added, removed or made
/// absolute. Sorter and reader must therefore be wired with the same string.
pub fn stream_view_id(
    engine_run_root: &str,
    scenario_id: &str,
    output_id: &str,
    sort_keys: &[String],
    partition_granularity: &str,
) -> String {
    let identity = json!({
        "engine_run_root": engine_run_root,
        "scenario_id": scenario_id,
        "output_id": output_id,
        "sort_keys": sort_keys,
        "partition_granularity": partition_granularity,
    });
    let mut bytes = Vec::new();
    canonical_json::push_cj(&mut bytes, &identity);
    ids::Hash32::of(&bytes).to_string()
}

/// The identity a reader expects: sorted by `ts_utc`, flat (contract 6.6 step 1).
pub fn expected_stream_view_id(
    engine_run_root: &str,
    scenario_id: &str,
    output_id: &str,
) -> String {
    let keys = with_tie_breakers(vec![TIME_COLUMN.to_owned()]);
    stream_view_id(
        engine_run_root,
        scenario_id,
        output_id,
        &keys,
        GRANULARITY_FLAT,
    )
}

/// Folder of one output's view under a base (contract 3.7).
pub fn view_dir(stream_view_base: &str, output_id: &str) -> String {
    format!(
        "{}/output_id={output_id}",
        stream_view_base.trim_end_matches('/')
    )
}

/// Base folder of all views when the wiring names none (contract 3.7).
pub fn default_base(engine_run_root: &str) -> String {
    format!(
        "{}/stream_view/ts_utc",
        engine_run_root.trim_end_matches('/')
    )
}

/// The checks a reader makes before the first row (contract 6.6 step 1). Both files are taken as
/// parsed JSON because views written by other programs may leave members out.
pub fn verify_for_streaming(
    expected_id: &str,
    output_id: &str,
    manifest: Option<&Value>,
    receipt: Option<&Value>,
) -> Result<(), StreamViewRefusal> {
    let missing = |missing| StreamViewRefusal::Missing {
        output_id: output_id.to_owned(),
        missing,
    };
    let manifest = manifest.ok_or_else(|| missing(MANIFEST_FILE))?;
    let receipt = receipt.ok_or_else(|| missing(RECEIPT_FILE))?;
    check_status(output_id, receipt)?;
    if let Some(found) = text_member(manifest, "stream_view_id").filter(|id| id != expected_id) {
        let (output_id, expected) = (output_id.to_owned(), expected_id.to_owned());
        return Err(StreamViewRefusal::IdMismatch {
            output_id,
            expected,
            found,
        });
    }
    match text_member(manifest, "output_id").filter(|id| id != output_id) {
        Some(found) => Err(StreamViewRefusal::OutputMismatch {
            output_id: output_id.to_owned(),
            found,
        }),
        None => Ok(()),
    }
}

/// What lies in the folder of a view before a sort starts.
#[derive(Debug, Clone, Default)]
pub struct ExistingView {
    /// The manifest file is there.
    pub has_manifest: bool,
    /// The receipt, as parsed JSON (`Value::Null` when it is there and cannot be parsed).
    pub receipt: Option<Value>,
    /// At least one `*.parquet` is there.
    pub has_parts: bool,
}

/// What a sort has to do with the folder it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortDecision {
    /// Nothing is there: build the view.
    Build,
    /// The same view is committed: write nothing.
    Skip,
}

/// The identity a finished sort would have; compared with what is already there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortIdentity {
    /// The output to sort.
    pub output_id: String,
    /// Identity of the view (contract 1.2).
    pub stream_view_id: String,
    /// Digest over the source part paths (contract 1.2).
    pub source_locator_digest: String,
    /// Always `flat`.
    pub partition_granularity: String,
}

/// Idempotency of a sort (contract 3.7): the same view is skipped, anything unfinished or different
/// is refused and left as it is.
pub fn decide_sort(
    existing: &ExistingView,
    identity: &SortIdentity,
) -> Result<SortDecision, StreamViewRefusal> {
    let output_id = identity.output_id.clone();
    let Some(receipt) = &existing.receipt else {
        return match (existing.has_manifest, existing.has_parts) {
            (true, _) => Err(StreamViewRefusal::SortReceiptMissing { output_id }),
            (false, true) => Err(StreamViewRefusal::PartialExists { output_id }),
            (false, false) => Ok(SortDecision::Build),
        };
    };
    let members = [
        ("status", "OK"),
        (
            "source_locator_digest",
            identity.source_locator_digest.as_str(),
        ),
        ("output_id", identity.output_id.as_str()),
        ("stream_view_id", identity.stream_view_id.as_str()),
        (
            "partition_granularity",
            identity.partition_granularity.as_str(),
        ),
    ];
    for (member, expected) in members {
        let found = text_member(receipt, member).unwrap_or_else(|| "absent".to_owned());
        if found != expected {
            let expected = expected.to_owned();
            return Err(StreamViewRefusal::SortReceiptMismatch {
                output_id,
                member,
                expected,
                found,
            });
        }
    }
    Ok(SortDecision::Skip)
}

fn default_leading_keys(output_id: &str) -> Vec<String> {
    let found = SORT_KEY_OVERRIDES.iter().find(|(id, _)| *id == output_id);
    let keys = found.map_or(&[TIME_COLUMN][..], |(_, keys)| keys);
    keys.iter().map(|key| (*key).to_owned()).collect()
}

fn with_tie_breakers(mut keys: Vec<String>) -> Vec<String> {
    for tie_breaker in TIE_BREAKERS {
        if !keys.iter().any(|key| key == tie_breaker) {
            keys.push(tie_breaker.to_owned());
        }
    }
    keys
}

fn check_status(output_id: &str, receipt: &Value) -> Result<(), StreamViewRefusal> {
    let status = match receipt.get("status") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::String(status)) => status.clone(),
        Some(other) => other.to_string(),
    };
    if status.is_empty() || status == "OK" {
        return Ok(());
    }
    Err(StreamViewRefusal::ReceiptBad {
        output_id: output_id.to_owned(),
        status,
    })
}

/// A member as text; a present member of another type counts as its JSON text, null as absent.
fn text_member(object: &Value, member: &str) -> Option<String> {
    match object.get(member)? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
#[path = "stream_view_tests.rs"]
mod tests;
