//! One part of every output: a range of flows, streamed through eleven Parquet writers.
//!
//! Memory is one batch of rows plus one open row group per writer, whatever the size of the world.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;

use super::flow::{Flow, FlowSource};
use super::layout::{OUTPUTS, Output};
use super::options::GenerateError;
use super::rows::{self, RowShapes};

const FLOWS_PER_BATCH: u64 = 8_192;
const ROWS_PER_GROUP: usize = 131_072;
const CREATED_BY: &str = "wellspring world";

/// Columns whose values hardly repeat: a dictionary would only cost time.
const DISTINCT: [&str; 10] = [
    "flow_id",
    "session_id",
    "case_id",
    "ts_utc",
    "ts_local_primary",
    "session_start_utc",
    "session_end_utc",
    "ip_id",
    "device_id",
    "instrument_id",
];

/// What every part of a world needs.
pub(super) struct PartContext<'a> {
    pub(super) root: &'a Path,
    pub(super) source: &'a FlowSource,
    pub(super) shapes: &'a RowShapes,
    /// Told how many traffic events are new after each batch.
    pub(super) on_events: &'a (dyn Fn(u64) + Sync),
}

/// Writes part `number` of every output; gives the rows per output, in the order of [`OUTPUTS`].
pub(super) fn write_part(
    context: &PartContext<'_>,
    number: u32,
    flows: Range<u64>,
) -> Result<Vec<u64>, GenerateError> {
    let mut writers = OUTPUTS
        .iter()
        .map(|output| PartWriter::create(context, *output, number))
        .collect::<Result<Vec<_>, _>>()?;
    let mut next = flows.start;
    while next < flows.end {
        let end = flows.end.min(next + FLOWS_PER_BATCH);
        let batch: Vec<Flow> = (next..end).map(|flow| context.source.flow(flow)).collect();
        let batches = rows::batches(context.shapes, context.source, &batch)
            .map_err(|error| writers[0].encode_error(&error))?;
        for (writer, rows) in writers.iter_mut().zip(&batches) {
            writer.write(rows)?;
        }
        (context.on_events)((end - next) * 2);
        next = end;
    }
    writers.into_iter().map(PartWriter::finish).collect()
}

struct PartWriter {
    path: PathBuf,
    rows: u64,
    parquet: ArrowWriter<File>,
}

impl PartWriter {
    fn create(
        context: &PartContext<'_>,
        output: Output,
        number: u32,
    ) -> Result<Self, GenerateError> {
        let path = output.part_path(context.root, &context.shapes.pins, number);
        let file = File::create_new(&path).map_err(|error| GenerateError::io(&path, &error))?;
        let options = ArrowWriterOptions::new().with_properties(properties());
        let schema = context.shapes.schema(output).clone();
        match ArrowWriter::try_new_with_options(file, schema, options) {
            Ok(parquet) => Ok(Self {
                path,
                rows: 0,
                parquet,
            }),
            Err(error) => Err(GenerateError::Encode {
                path,
                reason: error.to_string(),
            }),
        }
    }

    fn write(&mut self, rows: &RecordBatch) -> Result<(), GenerateError> {
        self.rows += rows.num_rows() as u64;
        self.parquet
            .write(rows)
            .map_err(|error| self.encode_error(&error))
    }

    fn finish(self) -> Result<u64, GenerateError> {
        let Self {
            path,
            rows,
            parquet,
        } = self;
        let synced = parquet.into_inner().map(|file| file.sync_all());
        match synced {
            Ok(Ok(())) => Ok(rows),
            Ok(Err(error)) => Err(GenerateError::io(path, &error)),
            Err(error) => Err(GenerateError::Encode {
                path,
                reason: error.to_string(),
            }),
        }
    }

    fn encode_error(&self, error: &dyn std::fmt::Display) -> GenerateError {
        GenerateError::Encode {
            path: self.path.clone(),
            reason: error.to_string(),
        }
    }
}

fn properties() -> WriterProperties {
    let level = ZstdLevel::try_new(1).expect("level 1 is a zstd level");
    let builder = WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(ROWS_PER_GROUP));
    DISTINCT
        .iter()
        .fold(builder, |builder, column| {
            builder.set_column_dictionary_enabled(ColumnPath::from(*column), false)
        })
        .build()
}
