//! Manifest and receipt files of a stream view, as bytes on disk.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use wellspring_domain::canonical_json;
use wellspring_domain::world::stream_view::{ExistingView, MANIFEST_FILE, RECEIPT_FILE};

use super::error::SortError;

/// What lies in the folder of a view; an absent folder is an empty one.
pub(super) fn look_at(dir: &Path) -> io::Result<ExistingView> {
    let mut existing = ExistingView::default();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(existing),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let name = entry?.file_name();
        match name.to_string_lossy().as_ref() {
            MANIFEST_FILE => existing.has_manifest = true,
            RECEIPT_FILE => {
                let bytes = fs::read(dir.join(RECEIPT_FILE))?;
                existing.receipt = Some(serde_json::from_slice(&bytes).unwrap_or(Value::Null));
            }
            other => existing.has_parts |= other.ends_with(".parquet"),
        }
    }
    Ok(existing)
}

/// Writes a document as CJ and a newline, durably; gives it as JSON.
pub(super) fn write(path: &Path, document: &impl Serialize) -> Result<Value, SortError> {
    let value = serde_json::to_value(document).map_err(|error| SortError::source(path, error))?;
    let mut bytes = Vec::new();
    canonical_json::push_cj(&mut bytes, &value);
    bytes.push(b'\n');
    let written = File::create_new(path).and_then(|mut file| {
        file.write_all(&bytes)?;
        file.sync_all()
    });
    written.map_err(|error| SortError::io(path, &error))?;
    Ok(value)
}
