//! Where the outputs of a world lie and what their rows look like (contract 3.2, 3.3).

use std::path::{Path, PathBuf};

use arrow::datatypes::SchemaRef;

use super::columns::{self, Pins};

/// One output of a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Output {
    Arrivals,
    Entities,
    Sessions,
    AnchorsBaseline,
    AnchorsWithFraud,
    EventsBaseline,
    EventsWithFraud,
    EventLabels,
    TruthLabels,
    BankView,
    CaseTimeline,
}

/// Every output, in the order of the enum.
pub(super) const OUTPUTS: [Output; 11] = [
    Output::Arrivals,
    Output::Entities,
    Output::Sessions,
    Output::AnchorsBaseline,
    Output::AnchorsWithFraud,
    Output::EventsBaseline,
    Output::EventsWithFraud,
    Output::EventLabels,
    Output::TruthLabels,
    Output::BankView,
    Output::CaseTimeline,
];

impl Output {
    /// The output id (contract 3.2).
    pub(super) fn id(self) -> &'static str {
        match self {
            Self::Arrivals => "arrival_events_5B",
            Self::Entities => "s1_arrival_entities_6B",
            Self::Sessions => "s1_session_index_6B",
            Self::AnchorsBaseline => "s2_flow_anchor_baseline_6B",
            Self::AnchorsWithFraud => "s3_flow_anchor_with_fraud_6B",
            Self::EventsBaseline => "s2_event_stream_baseline_6B",
            Self::EventsWithFraud => "s3_event_stream_with_fraud_6B",
            Self::EventLabels => "s4_event_labels_6B",
            Self::TruthLabels => "s4_flow_truth_labels_6B",
            Self::BankView => "s4_flow_bank_view_6B",
            Self::CaseTimeline => "s4_case_timeline_6B",
        }
    }

    /// Columns of the output (contract 3.3).
    pub(super) fn schema(self) -> SchemaRef {
        match self {
            Self::Arrivals => columns::schema(&[columns::ARRIVALS]),
            Self::Entities => columns::schema(&[columns::ENTITIES]),
            Self::Sessions => columns::schema(&[columns::SESSIONS]),
            Self::AnchorsBaseline => columns::schema_with_tail(&[columns::ANCHORS]),
            Self::AnchorsWithFraud => with_fraud(columns::ANCHORS),
            Self::EventsBaseline => columns::schema_with_tail(&[columns::EVENTS]),
            Self::EventsWithFraud => with_fraud(columns::EVENTS),
            Self::EventLabels => columns::schema_with_tail(&[columns::EVENT_LABELS]),
            Self::TruthLabels => columns::schema_with_tail(&[columns::TRUTH]),
            Self::BankView => columns::schema_with_tail(&[columns::BANK]),
            Self::CaseTimeline => columns::schema_with_tail(&[columns::CASES]),
        }
    }

    /// Folder of the output's parts, relative to the engine run root (contract 3.2).
    pub(super) fn dir(self, pins: &Pins) -> PathBuf {
        let (seed, mf) = (pins.seed, &pins.manifest_fingerprint);
        let (ph, scenario) = (&pins.parameter_hash, &pins.scenario_id);
        PathBuf::from(match self {
            Self::Arrivals => format!(
                "data/layer2/5B/arrival_events/seed={seed}/manifest_fingerprint={mf}/scenario_id={scenario}"
            ),
            _ => format!(
                "data/layer3/6B/{}/seed={seed}/parameter_hash={ph}/manifest_fingerprint={mf}/scenario_id={scenario}",
                self.id()
            ),
        })
    }

    /// Path of one part under `root`. Arrivals number their parts with six digits, the rest with five.
    pub(super) fn part_path(self, root: &Path, pins: &Pins, part: u32) -> PathBuf {
        let name = match self {
            Self::Arrivals => format!("part-{part:06}.parquet"),
            _ => format!("part-{part:05}.parquet"),
        };
        root.join(self.dir(pins)).join(name)
    }
}

/// The with-fraud variants end with the flag and the campaign, after the tail.
fn with_fraud(table: columns::ColumnTable) -> SchemaRef {
    let mut fields = columns::schema_with_tail(&[table]).fields().to_vec();
    fields.extend(columns::schema(&[columns::FRAUD]).fields().iter().cloned());
    std::sync::Arc::new(arrow::datatypes::Schema::new(fields))
}
