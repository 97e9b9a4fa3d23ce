//! References to the receipts of one batch, written one after the other.

use super::receipt_view::decision_of;
use wellspring_actors::ingestion_gate::messages::{Answer, Verdict};
use wellspring_domain::admission::decision::RowRef;
use wellspring_domain::admission::intake::{JudgedBatch, JudgedItem};
use wellspring_domain::admission::receipt::{ReceiptsLayout, receipt_object, segment_object};
use wellspring_domain::canonical_json::{push_escaped, push_string, push_u64};
use wellspring_domain::ids::receipt_id;
use wellspring_domain::run_paths::RunPaths;

/// Bytes of a usual outcome, so that an answer is not moved while it grows.
pub const OUTCOME_BYTES: usize = 192;

/// What the references of a batch share: all but a row number, or an id.
pub struct References {
    layout: ReceiptsLayout,
    /// By run of the batch.
    paths: Vec<RunPaths>,
    /// By run, shard and segment: a handful in one batch.
    segments: Vec<((u16, RowRef), Vec<u8>)>,
}

impl References {
    /// Of the receipts of a batch below this runs root.
    pub fn new(runs_root: &str, layout: ReceiptsLayout, judged: &JudgedBatch) -> Self {
        let runs = judged.runs.iter();
        References {
            layout,
            paths: runs.map(|run| RunPaths::new(runs_root, run)).collect(),
            segments: Vec::new(),
        }
    }

    /// Where a run of the batch lies.
    pub fn paths(&self, run: u16) -> &RunPaths {
        &self.paths[usize::from(run)]
    }

    /// Appends `{"decision", "reason_code", "receipt_ref"}` of a decided item in canonical form; only a quarantine has
    /// a reason code (contract 7.3).
    pub fn push_outcome(
        &mut self,
        body: &mut Vec<u8>,
        judged: &JudgedBatch,
        item: &JudgedItem,
        answer: &Answer,
    ) {
        body.extend_from_slice(b"{\"decision\":");
        push_string(body, decision_of(answer).as_str());
        if let Verdict::Quarantined { code } = answer.verdict {
            body.extend_from_slice(b",\"reason_code\":");
            push_string(body, code);
        }
        body.extend_from_slice(b",\"receipt_ref\":");
        self.push(body, item.run, answer.row, || {
            let event_id = String::from_utf8_lossy(judged.text(&item.event_id));
            receipt_id(decision_of(answer).as_str(), &event_id)
        });
        body.push(b'}');
    }

    /// Appends a reference as JSON text. The id is a digest and asked for only where it is needed.
    pub fn push(
        &mut self,
        body: &mut Vec<u8>,
        run: u16,
        row: RowRef,
        receipt_id: impl FnOnce() -> String,
    ) {
        body.push(b'"');
        match self.layout {
            ReceiptsLayout::Segments => {
                body.extend_from_slice(self.segment(run, row));
                push_u64(body, u64::from(row.row));
            }
            ReceiptsLayout::Objects => {
                push_escaped(body, &receipt_object(self.paths(run), &receipt_id()));
            }
        }
        body.push(b'"');
    }

    /// The reference up to its row number.
    fn segment(&mut self, run: u16, row: RowRef) -> &[u8] {
        let key = (run, RowRef { row: 0, ..row });
        let known = self.segments.iter().position(|(known, _)| *known == key);
        let at = known.unwrap_or_else(|| {
            let root = self.paths(run).run_root();
            let mut text = Vec::new();
            push_escaped(&mut text, &segment_object(&root, row));
            text.push(b'#');
            self.segments.push((key, text));
            self.segments.len() - 1
        });
        &self.segments[at].1
    }
}
