//! The projections every gate keeps up to date: quarantine records always, receipt objects by policy.

use crate::state_store::embedded::projections::{
    JournalProjection, QuarantineRecords, ReceiptObjects,
};
use std::sync::Arc;
use wellspring_actors::ingestion_gate::projector::NamedProjections;
use wellspring_domain::admission::receipt::ReceiptsLayout;
use wellspring_domain::ports::ObjectStore;

/// Projections by name, for the runs below `runs_root`, where `store` is rooted.
pub fn standard(
    store: Arc<dyn ObjectStore>,
    runs_root: &str,
    layout: ReceiptsLayout,
) -> NamedProjections {
    let records = JournalProjection::new(store.clone(), runs_root, QuarantineRecords { layout });
    let mut projections: NamedProjections =
        vec![("quarantine records".to_owned(), Arc::new(records))];
    if layout == ReceiptsLayout::Objects {
        let objects = JournalProjection::new(store, runs_root, ReceiptObjects);
        projections.push(("receipt objects".to_owned(), Arc::new(objects)));
    }
    projections
}
