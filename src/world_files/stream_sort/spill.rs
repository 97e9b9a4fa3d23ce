//! Rows that do not fit into memory, by bucket, in one unlinked temporary file per reading thread.
//!
//! A segment is the rows of one bucket from one flush, in source order, as an Arrow IPC stream. The
//! file has no name, so a killed process leaves nothing.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;

use super::error::SortError;

/// The spill file of one thread.
pub(super) struct Spill {
    dir: PathBuf,
    file: File,
    /// Segments of each bucket, in the order they were written.
    segments: Vec<Vec<Segment>>,
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    offset: u64,
    bytes: usize,
}

impl Spill {
    /// A new file in `dir` for this many buckets.
    pub(super) fn new(dir: &Path, buckets: usize) -> Result<Self, SortError> {
        let file = tempfile::tempfile_in(dir).map_err(|error| SortError::io(dir, &error))?;
        Ok(Self {
            dir: dir.to_owned(),
            file,
            segments: vec![Vec::new(); buckets],
        })
    }

    /// Appends rows of one bucket.
    pub(super) fn append(&mut self, bucket: usize, rows: &RecordBatch) -> Result<(), SortError> {
        let encode = || -> Result<Vec<u8>, arrow::error::ArrowError> {
            let mut writer = StreamWriter::try_new(Vec::new(), rows.schema_ref())?;
            writer.write(rows)?;
            writer.into_inner()
        };
        let bytes = encode().map_err(|error| SortError::rows(&error))?;
        let failed = |error: std::io::Error| SortError::io(&self.dir, &error);
        let offset = self.file.stream_position().map_err(failed)?;
        self.file.write_all(&bytes).map_err(failed)?;
        self.segments[bucket].push(Segment {
            offset,
            bytes: bytes.len(),
        });
        Ok(())
    }

    /// The rows of one bucket, in the order they were appended.
    pub(super) fn read(&self, bucket: usize) -> Result<Vec<RecordBatch>, SortError> {
        let mut batches = Vec::new();
        for segment in &self.segments[bucket] {
            let mut bytes = vec![0; segment.bytes];
            let read = self.file.read_exact_at(&mut bytes, segment.offset);
            read.map_err(|error| SortError::io(&self.dir, &error))?;
            let mut buffer = Buffer::from_vec(bytes);
            let mut decoder = StreamDecoder::new();
            while !buffer.is_empty() {
                match decoder
                    .decode(&mut buffer)
                    .map_err(|error| SortError::rows(&error))?
                {
                    Some(batch) => batches.push(batch),
                    None => break,
                }
            }
        }
        Ok(batches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use std::sync::Arc;

    fn rows(numbers: &[i64]) -> RecordBatch {
        let texts: Vec<Option<String>> = numbers
            .iter()
            .map(|n| (*n != 2).then(|| format!("row {n}")))
            .collect();
        let columns: [(&str, ArrayRef); 2] = [
            ("n", Arc::new(Int64Array::from(numbers.to_vec()))),
            ("t", Arc::new(StringArray::from(texts))),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))
            .unwrap()
    }

    #[test]
    fn rows_come_back_by_bucket_in_the_order_they_went() {
        let dir = tempfile::tempdir().unwrap();
        let mut spill = Spill::new(dir.path(), 2).unwrap();
        spill.append(1, &rows(&[1, 2])).unwrap();
        spill.append(0, &rows(&[9])).unwrap();
        spill.append(1, &rows(&[3])).unwrap();
        assert_eq!(spill.read(1).unwrap(), [rows(&[1, 2]), rows(&[3])]);
        assert_eq!(spill.read(0).unwrap(), [rows(&[9])]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
