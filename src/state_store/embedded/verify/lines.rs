//! Lines of partition files as files: how many there are, and what the head says.

use crate::event_bus::embedded_log::{disk::failed, layout};
use serde_json::Value;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::PathBuf;
use wellspring_domain::ports::StoreError;
use wellspring_domain::run_paths::RunPaths;

/// Lines of a partition: those up to the committed end, and those behind it. When no journal knows
/// the partition every line counts as a record, because nothing will ever cut it.
pub fn count(
    paths: &RunPaths,
    (topic, partition): &(String, u32),
    committed: u64,
    committed_bytes: u64,
) -> Result<(u64, u64), StoreError> {
    let path = PathBuf::from(layout::partition_path(paths, topic, *partition));
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok((0, 0)),
        Err(error) => return Err(failed("open", &path)(error)),
    };
    let size = file.metadata().map_err(failed("stat", &path))?.len();
    // A file that is shorter than the journal says is counted as it is.
    let known = committed > 0 && size >= committed_bytes;
    let start = if known { committed_bytes } else { 0 };
    file.seek(SeekFrom::Start(start))
        .map_err(failed("seek", &path))?;
    let (mut lines, mut piece, mut torn) = (0u64, vec![0u8; 256 << 10], false);
    loop {
        let length = file.read(&mut piece).map_err(failed("read", &path))?;
        if length == 0 {
            break;
        }
        let bytes = &piece[..length];
        lines += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        torn = bytes.last() != Some(&b'\n');
    }
    lines += u64::from(torn);
    Ok(match known {
        true => (committed, lines),
        false => (lines, 0),
    })
}

/// `next_offset` of a partition's head file; `None` without one.
pub fn published_head(
    paths: &RunPaths,
    (topic, partition): &(String, u32),
) -> Result<Option<u64>, StoreError> {
    let path = PathBuf::from(layout::head_path(paths, topic, *partition));
    match std::fs::read(&path) {
        Ok(bytes) => {
            let head: Option<Value> = serde_json::from_slice(&bytes).ok();
            Ok(head.and_then(|head| head.get("next_offset")?.as_u64()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", &path)(error)),
    }
}
