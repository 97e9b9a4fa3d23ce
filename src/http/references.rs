//! References to the receipts of one batch, written one after the other.

use wellspring_domain::admission::decision::RowRef;
use wellspring_domain::admission::intake::JudgedBatch;
use wellspring_domain::admission::receipt::{ReceiptsLayout, receipt_object, segment_object};
use wellspring_domain::canonical_json::{push_escaped, push_u64};
use wellspring_domain::run_paths::RunPaths;

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
