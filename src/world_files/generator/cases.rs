//! What happens after a dispute: the case timeline of a flow.

use super::flow::Flow;
use super::random::{self, Draws, Purpose};

const MICROS_PER_HOUR: u64 = 3_600_000_000;

/// One row of the case timeline.
pub(super) struct CaseRow {
    pub(super) case_id: i64,
    pub(super) case_event_seq: i64,
    pub(super) flow_id: i64,
    pub(super) event_type: &'static str,
    pub(super) time_micros: i64,
}

/// The rows of a flow's case; none when nobody complained.
pub(super) fn case_rows(seed: u64, flow: &Flow) -> Vec<CaseRow> {
    if !flow.disputed {
        return Vec::new();
    }
    let mut draws = Draws::new(seed, Purpose::Outcome, !flow.number);
    let case_id = random::unique_id(seed, 0xCA5E, flow.number);
    let mut time_micros = flow.response_micros;
    steps(flow)
        .iter()
        .zip(0..)
        .map(|(event_type, case_event_seq)| {
            let hours_max = if case_event_seq == 0 { 30 } else { 72 };
            let wait = 60_000_000 + draws.below(hours_max * MICROS_PER_HOUR);
            time_micros += wait.cast_signed();
            CaseRow {
                case_id,
                case_event_seq,
                flow_id: flow.flow_id,
                event_type,
                time_micros,
            }
        })
        .collect()
}

fn steps(flow: &Flow) -> &'static [&'static str] {
    match (flow.fraud.is_some(), flow.bank_fraud) {
        (true, true) => &[
            "CASE_OPENED",
            "DETECTION_EVENT_ATTACHED",
            "CHARGEBACK_DECISION",
            "CASE_CLOSED",
        ],
        (true, false) => &["CASE_OPENED", "CUSTOMER_DISPUTE_FILED", "DISPUTE_REJECTED"],
        (false, true) => &[
            "CASE_OPENED",
            "DETECTION_EVENT_ATTACHED",
            "CASE_REVERSED",
            "CASE_CLOSED",
        ],
        (false, false) => &["CASE_OPENED", "CUSTOMER_DISPUTE_FILED", "CASE_CLOSED"],
    }
}
