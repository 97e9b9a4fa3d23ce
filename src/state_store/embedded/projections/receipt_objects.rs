//! Receipts as one write-once object each (policy `receipts_layout: objects`, contract 7.7).

use super::{ProjectionTarget, RowWriter};
use crate::failpoints::{Artefact, Operation, Step, around};
use wellspring_domain::admission::decision::Decision;
use wellspring_domain::admission::journal_row::{JournalOutcome, JournalRow};
use wellspring_domain::admission::receipt::{RECEIPT_BYTES, ReceiptPlaces, ReceiptsLayout};
use wellspring_domain::admission::receipt_writer::push_receipt;
use wellspring_domain::ports::StoreError;

/// Writes `ig/receipts/<receipt_id>.json` per row; the first receipt of an id stays.
pub struct ReceiptObjects;

impl RowWriter for ReceiptObjects {
    fn name(&self) -> &'static str {
        "receipt_objects"
    }

    fn decisions(&self) -> &'static [Decision] {
        &[Decision::Admit, Decision::Duplicate, Decision::Quarantine]
    }

    fn write(&self, target: &ProjectionTarget<'_>, row: &JournalRow) -> Result<(), StoreError> {
        let original = match row.outcome {
            JournalOutcome::Duplicate { original } => target.journal.row(original)?,
            _ => None,
        };
        let places = ReceiptPlaces {
            paths: target.paths,
            layout: ReceiptsLayout::Objects,
        };
        let key = format!(
            "{}/ig/receipts/{}.json",
            target.paths.store_prefix(),
            row.receipt_id()
        );
        let mut bytes = Vec::with_capacity(RECEIPT_BYTES);
        push_receipt(&mut bytes, row, original.as_ref(), &places).map_err(|error| {
            StoreError::Damaged {
                key: key.clone(),
                offset: 0,
                cause: error.to_string(),
            }
        })?;
        bytes.push(b'\n');
        let step = Step(Artefact::ReceiptObject, Operation::Put);
        around(step, || target.store.put_if_absent(&key, &bytes))?;
        Ok(())
    }
}
