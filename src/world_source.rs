//! Stream views of a sealed world as the source of output streams (contract 6.6 steps 1 and 2).
//!
//! A view is opened only after its manifest and receipt have been checked, its parts are read in path
//! order, and a checkpoint must fit both. Decoded columns are handed to framing without a copy.

mod arrow_columns;
#[cfg(test)]
mod world_source_tests;

use crate::object_store::{ObjectStores, OpenStoreError};
use crate::world_files::parquet_reader::{PartBatch, PartError, PartReader, row_count};
use crate::world_files::part_location::PartLocation;
use arrow_columns::{PreparedColumn, prepare_columns};
use std::sync::Arc;
use wellspring_domain::ports::{Cursor, ObjectStore, StoreError};
use wellspring_domain::stream::column::NamedColumn;
use wellspring_domain::stream::cursor::{CursorError, ResumePoint, check_row, resume_point};
use wellspring_domain::stream::source::{
    BlockReader, OpenView, PartName, RowBlock, SourceError, SourceFault, WorldSource,
};
use wellspring_domain::world::stream_view::{
    MANIFEST_FILE, RECEIPT_FILE, StreamViewRefusal, default_base, expected_stream_view_id,
    verify_for_streaming,
};

/// The stream views of one world under one scenario.
#[derive(Clone, Debug)]
pub struct StreamViews {
    engine_run_root: String,
    scenario_id: String,
    base: String,
    batch_rows: usize,
    stores: ObjectStores,
}

impl StreamViews {
    /// Views of the world at `engine_run_root`, which must be the exact string the views were built
    /// with; `base` when they lie elsewhere than beside the world (contract 3.7).
    pub fn new(
        engine_run_root: &str,
        scenario_id: &str,
        base: Option<&str>,
        batch_rows: usize,
        stores: ObjectStores,
    ) -> Self {
        StreamViews {
            engine_run_root: engine_run_root.to_owned(),
            scenario_id: scenario_id.to_owned(),
            base: base.map_or_else(|| default_base(engine_run_root), str::to_owned),
            batch_rows,
            stores,
        }
    }

    /// Manifest, receipt and parts of a view.
    fn look(&self, store: &dyn ObjectStore, output_id: &str) -> Result<FoundView, StoreError> {
        let folder = format!("output_id={output_id}");
        let json = |name: &str| -> Result<Option<serde_json::Value>, StoreError> {
            let bytes = store.get(&format!("{folder}/{name}"))?;
            // Something that is no JSON says nothing: the same as not being there.
            Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
        };
        let part = |key: String| -> Option<PartName> {
            let name = key.strip_prefix(&folder)?.strip_prefix('/')?;
            let is_part = name.ends_with(".parquet") && !name.contains('/');
            let file = format!("{}/{key}", self.base.trim_end_matches('/'));
            is_part.then(|| PartName {
                file,
                name: name.to_owned(),
            })
        };
        let (manifest, receipt) = (json(MANIFEST_FILE)?, json(RECEIPT_FILE)?);
        let objects = store.list(&folder)?.into_iter();
        let mut parts: Vec<PartName> = objects.filter_map(|object| part(object.key)).collect();
        parts.sort();
        Ok(FoundView {
            manifest,
            receipt,
            parts,
        })
    }
}

struct FoundView {
    manifest: Option<serde_json::Value>,
    receipt: Option<serde_json::Value>,
    parts: Vec<PartName>,
}

impl WorldSource for StreamViews {
    fn open(&self, output_id: &str, after: Option<&Cursor>) -> Result<OpenView, SourceError> {
        let store = self.stores.open(&self.base).map_err(|error| match error {
            OpenStoreError::Store(error) => unreadable(&error),
            other => lasting("STREAM_VIEW_MISSING", other.to_string()),
        })?;
        let view = self
            .look(store.as_ref(), output_id)
            .map_err(|error| unreadable(&error))?;
        let id = expected_stream_view_id(&self.engine_run_root, &self.scenario_id, output_id);
        verify_for_streaming(
            &id,
            output_id,
            view.manifest.as_ref(),
            view.receipt.as_ref(),
        )
        .map_err(|refusal| refused(&refusal))?;
        if view.parts.is_empty() {
            let detail = format!("the stream view of {output_id} has no parts");
            return Err(lasting("STREAM_VIEW_EMPTY", detail));
        }
        let start = resume_point(&view.parts, &id, after).map_err(|error| misfit(&error))?;
        check_start(&store, output_id, &view.parts, &start)?;
        let rows_total = view
            .receipt
            .as_ref()
            .and_then(|receipt| receipt.get("sorted_stats")?.get("row_count")?.as_u64());
        let reader = ViewReader {
            store,
            output_id: output_id.to_owned(),
            parts: view.parts.into_iter().map(Arc::new).collect(),
            next: start.part,
            start_row: start.row,
            batch_rows: self.batch_rows,
            current: None,
        };
        Ok(OpenView {
            stream_view_id: id,
            rows_total,
            reader: Box::new(reader),
        })
    }
}

/// A checkpoint must not name a row its part does not have (W27).
fn check_start(
    store: &Arc<dyn ObjectStore>,
    output_id: &str,
    parts: &[PartName],
    start: &ResumePoint,
) -> Result<(), SourceError> {
    let Some(part) = parts.get(start.part).filter(|_| start.row > 0) else {
        return Ok(());
    };
    let rows = row_count(&location(store, output_id, part)).map_err(|error| part_error(&error))?;
    check_row(start, part, rows).map_err(|error| misfit(&error))
}

fn location(store: &Arc<dyn ObjectStore>, output_id: &str, part: &PartName) -> PartLocation {
    let key = format!("output_id={output_id}/{}", part.name);
    PartLocation::new(store.clone(), key)
}

/// Reads the parts of one view in order.
struct ViewReader {
    store: Arc<dyn ObjectStore>,
    output_id: String,
    parts: Vec<Arc<PartName>>,
    next: usize,
    start_row: u64,
    batch_rows: usize,
    current: Option<(Arc<PartName>, PartReader)>,
}

impl BlockReader for ViewReader {
    fn next_block(&mut self) -> Result<Option<Box<dyn RowBlock>>, SourceError> {
        loop {
            let (part, reader) = match &mut self.current {
                Some(current) => current,
                None => {
                    let Some(part) = self.parts.get(self.next).cloned() else {
                        return Ok(None);
                    };
                    let location = location(&self.store, &self.output_id, &part);
                    let reader = PartReader::open(&location, self.batch_rows, self.start_row)
                        .map_err(|error| part_error(&error))?;
                    self.next += 1;
                    self.start_row = 0;
                    self.current.insert((part, reader))
                }
            };
            match reader.next() {
                None => self.current = None,
                Some(Err(error)) => return Err(part_error(&error)),
                Some(Ok(batch)) if batch.rows.num_rows() == 0 => {}
                Some(Ok(batch)) => {
                    return Ok(Some(Box::new(ArrowBlock::new(part.clone(), batch)?)));
                }
            }
        }
    }
}

/// Decoded rows of one part.
struct ArrowBlock {
    part: Arc<PartName>,
    first_row: u64,
    rows: usize,
    columns: Vec<PreparedColumn>,
}

impl ArrowBlock {
    fn new(part: Arc<PartName>, batch: PartBatch) -> Result<Self, SourceError> {
        let columns = prepare_columns(&batch.rows)
            .map_err(|detail| lasting("STREAM_FAILED", format!("{}: {detail}", part.file)))?;
        Ok(ArrowBlock {
            part,
            first_row: batch.first_row,
            rows: batch.rows.num_rows(),
            columns,
        })
    }
}

impl RowBlock for ArrowBlock {
    fn part(&self) -> &Arc<PartName> {
        &self.part
    }

    fn first_row(&self) -> u64 {
        self.first_row
    }

    fn rows(&self) -> usize {
        self.rows
    }

    fn columns(&self) -> Vec<NamedColumn<'_>> {
        self.columns.iter().map(PreparedColumn::named).collect()
    }
}

fn lasting(code: &'static str, detail: String) -> SourceError {
    SourceError {
        code,
        detail,
        fault: SourceFault::Lasting,
    }
}

fn unreadable(error: &StoreError) -> SourceError {
    let fault = match error {
        StoreError::Unavailable { .. } | StoreError::Locked { .. } => SourceFault::Transient,
        _ => SourceFault::Lasting,
    };
    SourceError {
        code: "STREAM_FAILED",
        detail: error.to_string(),
        fault,
    }
}

fn refused(refusal: &StreamViewRefusal) -> SourceError {
    lasting(refusal.code(), refusal.to_string())
}

fn misfit(error: &CursorError) -> SourceError {
    lasting(error.code(), error.to_string())
}

fn part_error(error: &PartError) -> SourceError {
    let fault = match error {
        PartError::Open { .. } => SourceFault::Transient,
        PartError::Decode { .. } => SourceFault::Lasting,
    };
    SourceError {
        code: "STREAM_FAILED",
        detail: error.to_string(),
        fault,
    }
}
