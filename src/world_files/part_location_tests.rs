//! Parts of a bucket give the rows of the same parts in a folder, and fetch no more than they must.

use super::*;
use crate::world_files::parquet_reader::{PartReader, row_count};
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::file::properties::WriterProperties;
use std::sync::atomic::{AtomicBool, Ordering};
use wellspring_domain::ports::{ObjectMeta, ObjectWriter, PutOutcome, WriteMode};

const ROWS: i64 = 25_000;

/// A folder that says it is none, and remembers the ranges it was asked for.
struct Remote {
    files: LocalFiles,
    asked: Mutex<Vec<(u64, u64)>>,
    gone: AtomicBool,
}

impl Remote {
    fn at(folder: &Path) -> Arc<Remote> {
        Arc::new(Remote {
            files: LocalFiles::new(folder),
            asked: Mutex::default(),
            gone: AtomicBool::new(false),
        })
    }

    fn asked(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

impl ObjectStore for Remote {
    fn put_if_absent(&self, key: &str, bytes: &[u8]) -> Result<PutOutcome, StoreError> {
        self.files.put_if_absent(key, bytes)
    }
    fn put(&self, key: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.files.put(key, bytes)
    }
    fn append_line(&self, key: &str, line: &[u8]) -> Result<(), StoreError> {
        self.files.append_line(key, line)
    }
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.files.get(key)
    }
    fn get_range(&self, key: &str, start: u64, length: u64) -> Result<Vec<u8>, StoreError> {
        if self.gone.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable {
                operation: "get_range",
                key: key.to_owned(),
                cause: "gone".to_owned(),
            });
        }
        self.asked.lock().unwrap().push((start, length));
        self.files.get_range(key, start, length)
    }
    fn open_writer(&self, key: &str, mode: WriteMode) -> Result<Box<dyn ObjectWriter>, StoreError> {
        self.files.open_writer(key, mode)
    }
    fn open_reader(&self, key: &str) -> Result<Box<dyn Read + Send>, StoreError> {
        self.files.open_reader(key)
    }
    fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        self.files.head(key)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        self.files.list(prefix)
    }
    fn absolute(&self, key: &str) -> String {
        format!("s3://bucket/{key}")
    }
}

/// Three row groups: numbers, and texts that fill most of the part.
fn part(folder: &Path, offset_index: bool) -> (Arc<Remote>, PartLocation) {
    let texts = (0..ROWS).map(|n| format!("{:x}", u128::from(n as u64).pow(3) * 0x9E37_79B9));
    let columns: [(&str, ArrayRef); 2] = [
        ("n", Arc::new(Int64Array::from_iter_values(0..ROWS))),
        ("text", Arc::new(StringArray::from_iter_values(texts))),
    ];
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(10_000))
        .set_data_page_row_count_limit(500)
        .set_write_batch_size(500)
        .set_dictionary_enabled(false)
        .set_offset_index_disabled(!offset_index)
        .build();
    let file = File::create(folder.join("part.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties)).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    let remote = Remote::at(folder);
    (remote.clone(), PartLocation::new(remote, "part.parquet"))
}

fn numbers(part: &PartLocation, start: u64) -> Vec<i64> {
    let batches = PartReader::open(part, 777, start).unwrap();
    let rows = batches.flat_map(|batch| {
        let batch = batch.unwrap();
        let numbers = batch.rows.column(0).as_primitive::<Int64Type>();
        assert_eq!(numbers.value(0) as u64, batch.first_row);
        numbers.values().to_vec()
    });
    rows.collect()
}

#[test]
fn reading_starts_at_any_row_as_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    for offset_index in [true, false] {
        let (_remote, part) = part(folder.path(), offset_index);
        assert!(part.is_remote());
        assert_eq!(row_count(&part).unwrap(), 25_000);
        for start in [0, 1, 777, 9_999, 10_000, 10_001, 24_999] {
            let expected: Vec<i64> = (start..ROWS).collect();
            assert_eq!(numbers(&part, start as u64), expected, "from {start}");
        }
        assert!(numbers(&part, 25_000).is_empty());
    }
}

#[test]
fn a_part_is_one_request_for_its_end_and_one_per_row_group_from_the_start_on() {
    let folder = tempfile::tempdir().unwrap();
    let (remote, part) = part(folder.path(), false);
    // Small enough to come with its footer, so the whole part is one request.
    let small = remote.files.head("part.parquet").unwrap().unwrap().size <= TAIL_BYTES;
    assert!(!small, "the part is bigger than the end that is fetched");
    remote.asked();
    numbers(&part, 10_500);
    let asked = remote.asked();
    assert!(asked.len() <= 3, "the end and two row groups: {asked:?}");
}

fn metadata(bytes: &PartBytes) -> ArrowReaderMetadata {
    ArrowReaderMetadata::load(bytes, ArrowReaderOptions::new()).unwrap()
}

#[test]
fn only_the_chunks_of_wanted_columns_are_fetched() {
    let folder = tempfile::tempdir().unwrap();
    let (remote, part) = part(folder.path(), false);
    let bytes = part.open().unwrap();
    let metadata = metadata(&bytes);
    remote.asked();
    let mask = ProjectionMask::columns(metadata.parquet_schema(), ["n"]);
    bytes
        .with_group(metadata.metadata(), 0, &mask, u64::MAX)
        .unwrap();
    let chunk = metadata.metadata().row_group(0).column(0).byte_range();
    assert_eq!(remote.asked(), [chunk]);
}

#[test]
fn a_row_group_beyond_the_bound_is_read_through_a_window() {
    let folder = tempfile::tempdir().unwrap();
    let (remote, part) = part(folder.path(), false);
    let bytes = part.open().unwrap();
    let metadata = metadata(&bytes);
    remote.asked();
    let bytes = bytes
        .with_group(metadata.metadata(), 0, &ProjectionMask::all(), 1_000)
        .unwrap();
    assert_eq!(remote.asked(), [], "nothing is fetched ahead");
    let rows = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, metadata)
        .with_row_groups(vec![0])
        .build()
        .unwrap();
    let rows: usize = rows.map(|batch| batch.unwrap().num_rows()).sum();
    assert_eq!(rows, 10_000);
    let asked = remote.asked();
    assert!(asked.iter().all(|(_, length)| *length <= BLOCK_BYTES));
}

#[test]
fn a_store_that_is_gone_makes_no_broken_part() {
    let folder = tempfile::tempdir().unwrap();
    let (remote, part) = part(folder.path(), false);
    let mut reader = PartReader::open(&part, 500, 0).unwrap();
    remote.gone.store(true, Ordering::Relaxed);
    let error = reader.find_map(Result::err).unwrap();
    assert_eq!(error.code(), "PART_UNREADABLE", "{error}");
    let absent = PartLocation::new(remote, "absent.parquet");
    assert_eq!(absent.open().err().unwrap().code(), "PART_UNREADABLE");
}

#[test]
fn threads_that_share_an_opened_file_do_not_move_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("numbers");
    let word = |at: u64| (at / 8).to_le_bytes()[(at % 8) as usize];
    let whole: Vec<u8> = (0..1 << 20).map(word).collect();
    std::fs::write(&path, &whole).unwrap();
    let opened = PartLocation::of_file(&path).open().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8usize {
            let (opened, whole) = (opened.clone(), &whole);
            scope.spawn(move || {
                for step in 0..400usize {
                    let start = (thread * 131_071 + step * 4_099) % (whole.len() - 600);
                    let wanted = &whole[start..start + 500];
                    let bytes = opened.get_bytes(start as u64, 500).unwrap();
                    assert_eq!(&bytes[..], wanted, "at {start}");
                    let mut read = vec![0; 500];
                    let mut reader = opened.get_read(start as u64).unwrap();
                    reader.read_exact(&mut read).unwrap();
                    assert_eq!(read, wanted, "read at {start}");
                }
            });
        }
    });
    assert!(opened.get_bytes(whole.len() as u64 - 10, 11).is_err());
}
