//! Floor of a stream sort: everything in memory, keys sorted, rows gathered, one file written.
//!
//! Same order (time, then part and row of the source) and the same encoding choices; no memory limit, no
//! documents, no reading back, one thread but for decoding.

use super::columns::Decoder;
use arrow::array::{AsArray, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::Int64Type;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use std::fs::File;
use std::path::{Path, PathBuf};
use wellspring_domain::ids::Hash32;
use wellspring_domain::time_text::Micros;

/// Rows gathered at once.
const GATHER_ROWS: usize = 65_536;

/// Sorts the parts, given in their order, into one file; gives the rows.
pub fn sort_parts(parts: &[PathBuf], target: &Path) -> u64 {
    let batches = decode(parts);
    let mut keys = Vec::new();
    for (number, batch) in batches.iter().enumerate() {
        let times = batch.column_by_name("ts_utc").expect("a time column");
        for (row, time) in times.as_string::<i32>().iter().enumerate() {
            let time = Micros::parse_env(time.expect("a time").as_bytes()).expect("a time");
            keys.push((time.0, number as u32, row as u32));
        }
    }
    keys.sort_unstable();
    let sources: Vec<&RecordBatch> = batches.iter().collect();
    let file = File::create(target).expect("a new file");
    let mut writer =
        ArrowWriter::try_new(file, batches[0].schema(), Some(properties())).expect("a writer");
    let mut places = Vec::new();
    for chunk in keys.chunks(GATHER_ROWS) {
        places.clear();
        places.extend(
            chunk
                .iter()
                .map(|(_, batch, row)| (*batch as usize, *row as usize)),
        );
        let gathered = interleave_record_batch(&sources, &places).expect("rows of one schema");
        writer.write(&gathered).expect("room on the disk");
    }
    writer.close().expect("a footer");
    keys.len() as u64
}

/// Two halves of the parts, decoded beside each other.
fn decode(parts: &[PathBuf]) -> Vec<RecordBatch> {
    let (first, second) = parts.split_at(parts.len() / 2);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| Decoder::new(second).collect::<Vec<_>>());
        let mut batches: Vec<RecordBatch> = Decoder::new(first).collect();
        batches.extend(other.join().expect("a thread that ends well"));
        batches
    })
}

/// Values that hardly repeat are written plainly.
fn properties() -> WriterProperties {
    let level = ZstdLevel::try_new(1).expect("level 1 is a zstd level");
    let builder = WriterProperties::builder().set_compression(Compression::ZSTD(level));
    let plain = ["flow_id", "ts_utc", "amount"];
    plain
        .into_iter()
        .fold(builder, |builder, name| {
            builder.set_column_dictionary_enabled(ColumnPath::from(name), false)
        })
        .build()
}

/// A digest over which row stands where, to compare two sorted files.
pub fn order_of(parts: &[PathBuf]) -> Hash32 {
    let mut text = Vec::new();
    for batch in Decoder::new(parts) {
        for name in ["flow_id", "event_seq"] {
            let column = batch.column_by_name(name).expect("a column");
            let values = column.as_primitive::<Int64Type>().values();
            text.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        let before = Hash32::of(&text);
        text.clear();
        text.extend_from_slice(&before.0);
    }
    Hash32::of(&text)
}
