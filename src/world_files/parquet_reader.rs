//! One Parquet part as Arrow record batches, from any row on.
//!
//! Types are taken from the Parquet schema alone (text is always `Utf8`, never a dictionary or a
//! view), so a part reads the same whichever program wrote it. Starting at row `k` skips whole row
//! groups by the footer and whole pages by the offset index when the part has one. Of a part in a bucket
//! the next row group is fetched by a thread of its own while one is decoded, within a byte bound.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use parquet::file::metadata::PageIndexPolicy;

use wellspring_domain::ports::StoreError;

use super::part_location::{PartBytes, PartLocation};

/// Bytes of row groups at hand while a part is read: one being decoded and one fetched ahead.
const AHEAD_BYTES_MAX: u64 = 64 << 20;

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
    /// `None` once a part was found to be broken.
    batches: Option<Batches>,
}

/// Where the next batch comes from.
enum Batches {
    /// A file: one decoder over all row groups.
    File(ParquetRecordBatchReader),
    /// An object: a decoder per row group, made when its bytes are here.
    Object {
        fetched: Receiver<Result<FetchedGroup, PartError>>,
        plan: GroupPlan,
        current: Option<ParquetRecordBatchReader>,
    },
}

/// A row group whose bytes are here.
struct FetchedGroup {
    group: usize,
    bytes: PartBytes,
}

/// How row groups are decoded.
struct GroupPlan {
    path: PathBuf,
    metadata: ArrowReaderMetadata,
    batch_size: usize,
    /// Rows to leave out of the first row group.
    offset: usize,
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
    pub fn open(part: &PartLocation, batch_size: usize, start_row: u64) -> Result<Self, PartError> {
        let path = part.shown();
        guarded(&path, || {
            PartReader::open_plain(part, batch_size, start_row)
        })
    }

    fn open_plain(
        part: &PartLocation,
        batch_size: usize,
        start_row: u64,
    ) -> Result<Self, PartError> {
        let path = part.shown();
        let bytes = part.open()?;
        let metadata = load_metadata(&path, &bytes, start_row)?;
        let (first_group, rows_before) = group_at(&metadata, start_row);
        let plan = GroupPlan {
            path: path.clone(),
            metadata,
            batch_size: batch_size.max(1),
            offset: usize::try_from(start_row - rows_before).unwrap_or(usize::MAX),
        };
        let schema = plan.metadata.schema().clone();
        let groups = first_group..plan.metadata.metadata().num_row_groups();
        let batches = match part.is_remote() {
            false => Batches::File(plan.decoder(bytes, groups.collect())?),
            true => Batches::Object {
                fetched: fetch_ahead(bytes, plan.metadata.clone(), groups.collect()),
                plan,
                current: None,
            },
        };
        Ok(Self {
            path,
            schema,
            next_row: start_row,
            batches: Some(batches),
        })
    }

    /// Columns and types of the part.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }
}

impl GroupPlan {
    fn decoder(
        &self,
        bytes: PartBytes,
        groups: Vec<usize>,
    ) -> Result<ParquetRecordBatchReader, PartError> {
        ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, self.metadata.clone())
            .with_row_groups(groups)
            .with_offset(self.offset)
            .with_batch_size(self.batch_size)
            .build()
            .map_err(|error| decode_error(&self.path, &error))
    }
}

/// Fetches row groups in order, one ahead of the one that is decoded. Ends when nobody listens.
fn fetch_ahead(
    bytes: PartBytes,
    metadata: ArrowReaderMetadata,
    groups: Vec<usize>,
) -> Receiver<Result<FetchedGroup, PartError>> {
    // Without room in the channel: one group is decoded, one waits in the hand of the fetcher.
    let (sender, fetched) = sync_channel(0);
    std::thread::spawn(move || {
        for group in groups {
            let metadata = metadata.metadata();
            let all = ProjectionMask::all();
            let with = bytes.with_group(metadata, group, &all, AHEAD_BYTES_MAX / 2);
            let failed = with.is_err();
            let with = with.map(|bytes| FetchedGroup { group, bytes });
            if sender.send(with).is_err() || failed {
                return;
            }
        }
    });
    fetched
}

impl Batches {
    fn next(&mut self, path: &Path) -> Option<Result<RecordBatch, PartError>> {
        let decoded =
            |rows: Result<RecordBatch, _>| rows.map_err(|error| decode_error(path, &error));
        let (fetched, plan, current) = match self {
            Batches::File(batches) => return batches.next().map(decoded),
            Batches::Object {
                fetched,
                plan,
                current,
            } => (fetched, plan, current),
        };
        loop {
            if let Some(rows) = current.as_mut().and_then(Iterator::next) {
                return Some(decoded(rows));
            }
            let decoder = match fetched.recv() {
                Err(_) => return None,
                Ok(group) => group.and_then(|group| plan.decoder(group.bytes, vec![group.group])),
            };
            plan.offset = 0;
            match decoder {
                Ok(decoder) => *current = Some(decoder),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Iterator for PartReader {
    type Item = Result<PartBatch, PartError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batches = self.batches.as_mut()?;
        let decoded = guarded(&self.path, || batches.next(&self.path).transpose());
        let rows = match decoded.transpose()? {
            Ok(rows) => rows,
            Err(error) => {
                self.batches = None;
                return Some(Err(error));
            }
        };
        let first_row = self.next_row;
        self.next_row += rows.num_rows() as u64;
        Some(Ok(PartBatch { first_row, rows }))
    }
}

/// The decoder asserts what a damaged part may not hold: that, too, means the part is damaged.
fn guarded<T>(path: &Path, decode: impl FnOnce() -> Result<T, PartError>) -> Result<T, PartError> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_panic| {
        Err(PartError::Decode {
            path: path.to_owned(),
            reason: "the decoder cannot make sense of it".to_owned(),
        })
    })
}

/// Number of rows of a part, from its footer.
pub fn row_count(part: &PartLocation) -> Result<u64, PartError> {
    let path = part.shown();
    guarded(&path, || {
        let metadata = load_metadata(&path, &part.open()?, 0)?;
        Ok(total_rows(&metadata))
    })
}

/// The page index is only worth its bytes when the reader does not start at row 0.
fn load_metadata(
    path: &Path,
    bytes: &PartBytes,
    start_row: u64,
) -> Result<ArrowReaderMetadata, PartError> {
    let offset_index = match start_row {
        0 => PageIndexPolicy::Skip,
        _ => PageIndexPolicy::Optional,
    };
    let options = ArrowReaderOptions::new()
        .with_skip_arrow_metadata(true)
        .with_offset_index_policy(offset_index);
    ArrowReaderMetadata::load(bytes, options).map_err(|error| decode_error(path, &error))
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

/// A store that could not be reached is no broken part.
pub(crate) fn decode_error(path: &Path, error: &(dyn Error + 'static)) -> PartError {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(StoreError::Unavailable { .. }) = cause.downcast_ref::<StoreError>() {
            return PartError::Open {
                path: path.to_owned(),
                source: std::io::Error::other(cause.to_string()),
            };
        }
        next = cause.source();
    }
    PartError::Decode {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
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
        let batches = PartReader::open(&PartLocation::of_file(path), 300, start_row).unwrap();
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
        let part = PartLocation::of_file(&dir.path().join("part.parquet"));
        assert_eq!(row_count(&part).unwrap(), 2_500);
    }

    #[test]
    fn text_is_always_plain_utf8_whatever_the_writer_used() {
        let dir = tempfile::tempdir().unwrap();
        let part = PartLocation::of_file(&part(dir.path(), true));
        let part = PartReader::open(&part, 10, 0).unwrap();
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
            PartReader::open(&PartLocation::of_file(&path), 10, 0)
                .map(|_| ())
                .map_err(|error| error.code())
        };
        assert_eq!(code(), Err("PART_UNREADABLE"));
        std::fs::write(&path, b"PAR1 but not really PAR1").unwrap();
        assert_eq!(code(), Err("PART_INVALID"));
    }
}
