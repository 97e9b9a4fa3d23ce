//! Floor of decoding: a Parquet file into Arrow batches, the columns as typed slices.

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::datatypes::{Float64Type, Int64Type};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;

/// Rows decoded at once: larger batches cost less per row, up to here.
pub const DECODE_ROWS: usize = 8192;

/// Batches of all parts, one part after the other.
pub struct Decoder {
    parts: VecDeque<PathBuf>,
    open: Option<ParquetRecordBatchReader>,
}

impl Decoder {
    /// Stands before the first row of the first part.
    pub fn new(parts: &[PathBuf]) -> Decoder {
        Decoder {
            parts: parts.to_vec().into(),
            open: None,
        }
    }
}

impl Iterator for Decoder {
    type Item = RecordBatch;

    fn next(&mut self) -> Option<RecordBatch> {
        loop {
            if let Some(batch) = self.open.as_mut().and_then(Iterator::next) {
                return Some(batch.expect("a part that decodes"));
            }
            let part = File::open(self.parts.pop_front()?).expect("a part that opens");
            let builder = ParquetRecordBatchReaderBuilder::try_new(part).expect("a Parquet file");
            let reader = builder.with_batch_size(DECODE_ROWS).build();
            self.open = Some(reader.expect("a reader"));
        }
    }
}

/// The columns of one batch.
pub struct Columns<'a> {
    pub rows: usize,
    pub flow_id: &'a [i64],
    pub event_seq: &'a [i64],
    pub seed: &'a [i64],
    pub amount: &'a [f64],
    pub event_type: &'a StringArray,
    pub ts_utc: &'a StringArray,
    pub manifest_fingerprint: &'a StringArray,
    pub parameter_hash: &'a StringArray,
    pub scenario_id: &'a StringArray,
    pub campaign_id: &'a StringArray,
    pub fraud_flag: &'a BooleanArray,
}

impl<'a> Columns<'a> {
    /// The batch's columns by name. Only `campaign_id` may hold nulls (the payload schema).
    pub fn of(batch: &'a RecordBatch) -> Columns<'a> {
        assert_eq!(batch.num_columns(), 11, "the columns of the payload schema");
        let column = |name: &str| {
            let column = batch.column_by_name(name).expect("a column of the output");
            assert!(
                name == "campaign_id" || column.null_count() == 0,
                "{name} has nulls"
            );
            column
        };
        let whole = |name| &**column(name).as_primitive::<Int64Type>().values();
        Columns {
            rows: batch.num_rows(),
            flow_id: whole("flow_id"),
            event_seq: whole("event_seq"),
            seed: whole("seed"),
            amount: column("amount").as_primitive::<Float64Type>().values(),
            event_type: column("event_type").as_string(),
            ts_utc: column("ts_utc").as_string(),
            manifest_fingerprint: column("manifest_fingerprint").as_string(),
            parameter_hash: column("parameter_hash").as_string(),
            scenario_id: column("scenario_id").as_string(),
            campaign_id: column("campaign_id").as_string(),
            fraud_flag: column("fraud_flag").as_boolean(),
        }
    }
}

/// Decodes everything and touches one value of every batch; gives the rows.
pub fn decode_all(parts: &[PathBuf]) -> u64 {
    let mut rows = 0;
    for batch in Decoder::new(parts) {
        let columns = Columns::of(&batch);
        std::hint::black_box(columns.flow_id[columns.rows - 1]);
        rows += columns.rows as u64;
    }
    rows
}
