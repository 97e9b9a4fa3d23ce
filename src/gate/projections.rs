//! The projections every gate keeps up to date: quarantine records always, receipt objects by policy.

use crate::object_store::{self, OpenStoreError};
use crate::state_store::embedded::projections::{
    JournalProjection, QuarantineRecords, ReceiptObjects,
};
use std::sync::Arc;
use wellspring_actors::ingestion_gate::projector::NamedProjections;
use wellspring_domain::admission::receipt::ReceiptsLayout;

/// Projections by name, for the runs below `runs_root`.
pub fn standard(
    runs_root: &str,
    layout: ReceiptsLayout,
) -> Result<NamedProjections, OpenStoreError> {
    let store = object_store::open(runs_root)?;
    let records = JournalProjection::new(store.clone(), runs_root, QuarantineRecords { layout });
    let mut projections: NamedProjections =
        vec![("quarantine records".to_owned(), Arc::new(records))];
    if layout == ReceiptsLayout::Objects {
        let objects = JournalProjection::new(store, runs_root, ReceiptObjects);
        projections.push(("receipt objects".to_owned(), Arc::new(objects)));
    }
    Ok(projections)
}
