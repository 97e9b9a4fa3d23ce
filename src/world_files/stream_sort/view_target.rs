//! Where a view is built: a folder, or a prefix in a bucket.
//!
//! In a folder it is built in a staging folder beside its target and becomes visible by one rename. A
//! bucket renames nothing: there the parts are written first, each visible as a whole and written once,
//! then the manifest, and last the receipt, which commits the view. A view without its receipt is never
//! read, and a sort that finds one says so (contract 3.7).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use wellspring_domain::canonical_json;
use wellspring_domain::ports::{ObjectStore, ObjectWriter, PutOutcome, StoreError, WriteMode};
use wellspring_domain::world::stream_view::{ExistingView, MANIFEST_FILE, RECEIPT_FILE};

use super::error::SortError;
use super::request::SortRequest;
use crate::object_store::LocalFiles;
use crate::world_files::part_location::PartLocation;
use crate::world_files::staging::{StagingDir, StagingError};

/// Where a view will lie, and what lies there now.
pub(super) struct ViewPlace {
    store: Arc<dyn ObjectStore>,
    /// Folder of the view below the store's root.
    folder: String,
    shown: PathBuf,
    /// The folder, when it is one of this machine.
    local: Option<PathBuf>,
}

impl ViewPlace {
    pub(super) fn of(request: &SortRequest) -> Result<ViewPlace, SortError> {
        let shown = PathBuf::from(request.view_dir());
        let base = request.view_base();
        let store = request.stores.open(&base);
        let store = store.map_err(|error| SortError::store(error.into_store_error(&base)))?;
        let folder = format!("output_id={}", request.output_id);
        let local = store.local_file(&folder);
        Ok(ViewPlace {
            store,
            folder,
            shown,
            local,
        })
    }

    /// What lies there; an absent folder is an empty one.
    pub(super) fn look(&self) -> Result<ExistingView, SortError> {
        let mut existing = ExistingView::default();
        let objects = self.store.list(&self.folder).map_err(SortError::store)?;
        for object in objects {
            let name = object.key[self.folder.len()..].trim_start_matches('/');
            match name {
                MANIFEST_FILE => existing.has_manifest = true,
                RECEIPT_FILE => {
                    let bytes = self.store.get(&object.key).map_err(SortError::store)?;
                    let bytes = bytes.unwrap_or_default();
                    existing.receipt = Some(serde_json::from_slice(&bytes).unwrap_or(Value::Null));
                }
                other if other.contains('/') => {}
                other => existing.has_parts |= other.ends_with(".parquet"),
            }
        }
        Ok(existing)
    }

    /// Claims the place for one sort.
    pub(super) fn claim(&self) -> Result<ViewTarget, SortError> {
        let Some(target) = &self.local else {
            return Ok(ViewTarget {
                store: self.store.clone(),
                prefix: format!("{}/", self.folder),
                shown: self.shown.clone(),
                staging: None,
            });
        };
        let staging = StagingDir::claim(&staging_path(target)).map_err(staging_error)?;
        Ok(ViewTarget {
            store: Arc::new(LocalFiles::new(staging.path())),
            prefix: String::new(),
            shown: staging.path().to_owned(),
            staging: Some((staging, target.clone())),
        })
    }
}

/// Beside the target, under a name that no reader of views looks at.
pub(super) fn staging_path(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.sorting"))
}

fn staging_error(error: StagingError) -> SortError {
    match error {
        StagingError::Busy(path) => SortError::Busy { path },
        StagingError::Io { path, source } => SortError::io(&path, &source),
    }
}

/// A claimed place.
pub(super) struct ViewTarget {
    store: Arc<dyn ObjectStore>,
    prefix: String,
    shown: PathBuf,
    staging: Option<(StagingDir, PathBuf)>,
}

impl ViewTarget {
    /// Folder for people's eyes.
    pub(super) fn shown(&self) -> &Path {
        &self.shown
    }

    /// Where spill files lie unless the operator says otherwise: on this machine in any case.
    pub(super) fn spill_dir(&self) -> PathBuf {
        match &self.staging {
            Some((staging, _)) => staging.path().to_owned(),
            None => std::env::temp_dir(),
        }
    }

    /// A part of the view, by its name.
    pub(super) fn part(&self, name: &str) -> PartLocation {
        PartLocation::new(self.store.clone(), format!("{}{name}", self.prefix))
    }

    /// Begins to write a part; no part is ever written over.
    pub(super) fn create_part(&self, name: &str) -> Result<Box<dyn ObjectWriter>, SortError> {
        let key = format!("{}{name}", self.prefix);
        let writer = self.store.open_writer(&key, WriteMode::Once);
        writer.map_err(SortError::store)
    }

    /// Makes a written part visible to the next pass.
    pub(super) fn finish_part(&self, writer: Box<dyn ObjectWriter>) -> Result<(), SortError> {
        self.only_ours(writer.finish())
    }

    /// Writes a document as CJ and a newline, durably; gives it as JSON.
    pub(super) fn write(&self, name: &str, document: &impl Serialize) -> Result<Value, SortError> {
        let value = serde_json::to_value(document)
            .map_err(|error| SortError::source(&self.shown.join(name), error))?;
        let mut bytes = Vec::new();
        canonical_json::push_cj(&mut bytes, &value);
        bytes.push(b'\n');
        let key = format!("{}{name}", self.prefix);
        self.only_ours(self.store.put_if_absent(&key, &bytes))?;
        Ok(value)
    }

    fn only_ours(&self, written: Result<PutOutcome, StoreError>) -> Result<(), SortError> {
        match written.map_err(SortError::store)? {
            PutOutcome::Created => Ok(()),
            PutOutcome::AlreadyExists => Err(SortError::PartRenameCollision {
                path: self.shown.clone(),
                reason: "another sort writes there too".to_owned(),
            }),
        }
    }

    /// The last step: in a folder the view becomes visible now; in a bucket the receipt has done it.
    pub(super) fn publish(&self) -> Result<(), SortError> {
        let Some((staging, target)) = &self.staging else {
            return Ok(());
        };
        let published = staging.publish(target);
        published.map_err(|error| SortError::PartRenameCollision {
            path: target.clone(),
            reason: error.to_string(),
        })
    }
}
