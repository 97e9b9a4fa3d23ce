//! One Parquet part as Arrow record batches, from any row on.
//!
//! Types are taken from the Parquet schema alone (text is always `Utf8`, never a dictionary or a
//! view), so a part reads the same whichever program wrote it. Starting at row `k` skips whole row
//! groups by the footer and whole pages by the offset index when the part has one.

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use parquet::file::metadata::PageIndexPolicy;

/// Why a part cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// The file cannot be opened.
    #[error("cannot open {path}: {source}")]
    Open {
        /// The part.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not the Parquet it claims to be.
    #[error("cannot read {path} as parquet: {reason}")]
    Decode {
        /// The part.
        path: PathBuf,
        /// The decoder's words.
        reason: String,
    },
}

impl PartError {
    /// Reason code for run records and answers.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Open { .. } => "PART_UNREADABLE",
            Self::Decode { .. } => "PART_INVALID",
        }
    }
}

/// Iterates the record batches of one part, in row order.
pub struct PartReader {
    path: PathBuf,
    schema: SchemaRef,
    next_row: u64,
    batches: ParquetRecordBatchReader,
}

/// A record batch and the row number, within its part, of its first row.
#[derive(Debug, Clone)]
pub struct PartBatch {
    /// 0-based row number of the first row.
    pub first_row: u64,
    /// The rows.
    pub rows: RecordBatch,
}

impl PartReader {
    /// Opens a part and stands before row `start_row` (0-based). A start beyond the end gives no rows.
    pub fn open(path: &Path, batch_size: usize, start_row: u64) -> Result<Self, PartError> {
        let file = open_file(path)?;
        let metadata = load_metadata(path, &file, start_row)?;
        let (first_group, rows_before) = group_at(&metadata, start_row);
        let groups = (first_group..metadata.metadata().num_row_groups()).collect();
        let schema = metadata.schema().clone();
        let offset = usize::try_from(start_row - rows_before).unwrap_or(usize::MAX);
        let batches = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
            .with_row_groups(groups)
            .with_offset(offset)
            .with_batch_size(batch_size.max(1))
            .build()
            .map_err(|error| decode_error(path, &error))?;
        Ok(Self {
            path: path.to_owned(),
            schema,
            next_row: start_row,
            batches,
        })
    }

    /// Columns and types of the part.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }
}

impl Iterator for PartReader {
    type Item = Result<PartBatch, PartError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rows = match self.batches.next()? {
            Ok(rows) => rows,
            Err(error) => return Some(Err(decode_error(&self.path, &error))),
        };
        let first_row = self.next_row;
        self.next_row += rows.num_rows() as u64;
        Some(Ok(PartBatch { first_row, rows }))
    }
}

/// Number of rows of a part, from its footer.
pub fn row_count(path: &Path) -> Result<u64, PartError> {
    let file = open_file(path)?;
    let metadata = load_metadata(path, &file, 0)?;
    Ok(total_rows(&metadata))
}

fn open_file(path: &Path) -> Result<File, PartError> {
    File::open(path).map_err(|source| PartError::Open {
        path: path.to_owned(),
        source,
    })
}

/// The page index is only worth its bytes when the reader does not start at row 0.
fn load_metadata(
    path: &Path,
    file: &File,
    start_row: u64,
) -> Result<ArrowReaderMetadata, PartError> {
    let offset_index = match start_row {
        0 => PageIndexPolicy::Skip,
        _ => PageIndexPolicy::Optional,
    };
    let options = ArrowReaderOptions::new()
        .with_skip_arrow_metadata(true)
        .with_offset_index_policy(offset_index);
    ArrowReaderMetadata::load(file, options).map_err(|error| decode_error(path, &error))
}

/// The row group that holds `row`, and how many rows lie before that group.
fn group_at(metadata: &ArrowReaderMetadata, row: u64) -> (usize, u64) {
    let mut rows_before = 0;
    for (index, group) in metadata.metadata().row_groups().iter().enumerate() {
        let rows = group.num_rows().unsigned_abs();
        if row < rows_before + rows {
            return (index, rows_before);
        }
        rows_before += rows;
    }
    (metadata.metadata().num_row_groups(), rows_before)
}

fn total_rows(metadata: &ArrowReaderMetadata) -> u64 {
    metadata
        .metadata()
        .file_metadata()
        .num_rows()
        .unsigned_abs()
}

pub(crate) fn decode_error(path: &Path, error: &dyn std::fmt::Display) -> PartError {
    PartError::Decode {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use arrow::array::{ArrayRef, AsArray, DictionaryArray, Int64Array, StringViewArray};
    use arrow::datatypes::{DataType, Int32Type, Int64Type};
    use parquet::arrow::ArrowWriter;
    use parquet::file::properties::WriterProperties;

    const ROWS: i64 = 2_500;

    /// Three row groups of up to 1000 rows with pages of 100.
    fn part(dir: &Path, offset_index: bool) -> PathBuf {
        let path = dir.join("part.parquet");
        let words: DictionaryArray<Int32Type> = (0..ROWS).map(|_| "word").collect();
        let texts = StringViewArray::from_iter_values((0..ROWS).map(|n| format!("text {n}")));
        let columns: [(&str, ArrayRef); 3] = [
            ("n", Arc::new(Int64Array::from_iter_values(0..ROWS))),
            ("word", Arc::new(words)),
            ("text", Arc::new(texts)),
        ];
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(1_000))
            .set_data_page_row_count_limit(100)
            .set_write_batch_size(100)
            .set_offset_index_disabled(!offset_index)
            .build();
        let file = File::create(&path).unwrap();
        let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties)).unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();
        path
    }

    fn numbers_from(path: &Path, start_row: u64) -> Vec<i64> {
        let batches = PartReader::open(path, 300, start_row).unwrap();
        let numbers = batches.flat_map(|batch| {
            let batch = batch.unwrap();
            let numbers = batch
                .rows
                .column(0)
                .as_primitive::<Int64Type>()
                .values()
                .to_vec();
            assert_eq!(
                numbers.first().copied(),
                i64::try_from(batch.first_row).ok()
            );
            numbers
        });
        numbers.collect()
    }

    #[test]
    fn reading_starts_at_any_row_with_and_without_a_page_index() {
        let dir = tempfile::tempdir().unwrap();
        for offset_index in [true, false] {
            let path = part(dir.path(), offset_index);
            for start in [0, 1, 99, 100, 999, 1_000, 1_001, 2_345, 2_499] {
                let expected: Vec<i64> = (start..ROWS).collect();
                assert_eq!(
                    numbers_from(&path, start.unsigned_abs()),
                    expected,
                    "from {start}"
                );
            }
            assert!(numbers_from(&path, 2_500).is_empty());
            assert!(numbers_from(&path, 1 << 40).is_empty());
        }
        assert_eq!(row_count(&dir.path().join("part.parquet")).unwrap(), 2_500);
    }

    #[test]
    fn text_is_always_plain_utf8_whatever_the_writer_used() {
        let dir = tempfile::tempdir().unwrap();
        let part = PartReader::open(&part(dir.path(), true), 10, 0).unwrap();
        for column in ["word", "text"] {
            let field = part.schema().field_with_name(column).unwrap();
            assert_eq!(field.data_type(), &DataType::Utf8);
        }
    }

    #[test]
    fn an_absent_and_a_broken_part_have_their_own_codes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("part.parquet");
        let code = || {
            PartReader::open(&path, 10, 0)
                .map(|_| ())
                .map_err(|error| error.code())
        };
        assert_eq!(code(), Err("PART_UNREADABLE"));
        std::fs::write(&path, b"PAR1 but not really PAR1").unwrap();
        assert_eq!(code(), Err("PART_INVALID"));
    }
}
