//! Writes sorted rows as the parts of a view: one part, or one per window of days (contract 3.7).

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use wellspring_domain::ports::ObjectWriter;
use wellspring_domain::time_text::Micros;

use super::error::SortError;
use super::keys::KeyPlan;
use super::roles::Role;
use super::source::Source;
use super::view_target::ViewTarget;
use crate::world_files::part_location::PartLocation;

const ROWS_PER_GROUP: usize = 131_072;
const CREATED_BY: &str = "wellspring stream sort";
const MICROS_PER_DAY: i64 = 86_400_000_000;

/// First leading key of every part but the first.
pub(super) struct Windows(Vec<u64>);

impl Windows {
    /// Everything in one part.
    pub(super) fn single() -> Self {
        Self(Vec::new())
    }

    /// Windows of `days` from the UTC midnight of the earliest time to the latest.
    pub(super) fn of_days(first: Micros, last: Micros, days: u32) -> Self {
        let midnight = first.0.div_euclid(MICROS_PER_DAY) * MICROS_PER_DAY;
        let length = i64::from(days) * MICROS_PER_DAY;
        let starts = (1..).map(|window| midnight + window * length);
        let inside = starts.take_while(|start| *start <= last.0);
        Self(
            inside
                .map(|start| KeyPlan::leading_of(Micros(start)))
                .collect(),
        )
    }
}

/// The parts being written.
pub(super) struct PartSink<'a> {
    source: &'a Source,
    dictionaries: Vec<Option<ArrayRef>>,
    schema: SchemaRef,
    target: &'a ViewTarget,
    windows: Windows,
    written: Vec<PartLocation>,
    open: Option<ArrowWriter<Box<dyn ObjectWriter>>>,
}

impl<'a> PartSink<'a> {
    /// Parts in `target`. The source must have been read to its end: its dictionaries are final now.
    pub(super) fn new(source: &'a Source, target: &'a ViewTarget, windows: Windows) -> Self {
        Self {
            source,
            dictionaries: source.dictionaries(),
            schema: source.expanded_schema(),
            target,
            windows,
            written: Vec::new(),
            open: None,
        }
    }

    /// Writes the next rows in order, with their leading keys.
    pub(super) fn write(&mut self, rows: &RecordBatch, leading: &[u64]) -> Result<(), SortError> {
        let rows = self.source.expand(&self.schema, &self.dictionaries, rows)?;
        let mut from = 0;
        while from < leading.len() {
            let window = self
                .windows
                .0
                .partition_point(|start| *start <= leading[from]);
            let to = match self.windows.0.get(window) {
                Some(next) => from + leading[from..].partition_point(|key| key < next),
                None => leading.len(),
            };
            self.open_window(window)?;
            self.append(&rows.slice(from, to - from))?;
            from = to;
        }
        Ok(())
    }

    /// Closes the last part; windows without rows get an empty one. Gives the parts in order.
    pub(super) fn finish(mut self) -> Result<Vec<PartLocation>, SortError> {
        self.open_window(self.windows.0.len())?;
        self.close()?;
        Ok(self.written)
    }

    /// Part `window` is open afterwards, and every part before it is written.
    fn open_window(&mut self, window: usize) -> Result<(), SortError> {
        while self.written.len() <= window {
            self.close()?;
            let name = format!("part-{:06}.parquet", self.written.len());
            let part = self.target.create_part(&name)?;
            let options = ArrowWriterOptions::new()
                .with_skip_arrow_metadata(true)
                .with_properties(self.properties());
            let writer = ArrowWriter::try_new_with_options(part, self.schema.clone(), options);
            self.open = Some(writer.map_err(|error| failed(self.target, error))?);
            self.written.push(self.target.part(&name));
        }
        Ok(())
    }

    fn append(&mut self, rows: &RecordBatch) -> Result<(), SortError> {
        match &mut self.open {
            Some(writer) => writer
                .write(rows)
                .map_err(|error| failed(self.target, error)),
            None => Ok(()),
        }
    }

    fn close(&mut self) -> Result<(), SortError> {
        let Some(writer) = self.open.take() else {
            return Ok(());
        };
        let part = writer
            .into_inner()
            .map_err(|error| failed(self.target, error))?;
        self.target.finish_part(part)
    }

    /// Values that hardly repeat are written plainly: building their dictionary would be in vain.
    fn properties(&self) -> WriterProperties {
        let level = ZstdLevel::try_new(1).expect("level 1 is a zstd level");
        let builder = WriterProperties::builder()
            .set_created_by(CREATED_BY.to_owned())
            .set_compression(Compression::ZSTD(level))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_max_row_group_row_count(Some(ROWS_PER_GROUP));
        let columns = self.source.roles.iter().enumerate();
        let plain = columns.filter(|(column, role)| {
            matches!(role, Role::Plain(_)) && !self.source.repeats(*column)
        });
        plain
            .fold(builder, |builder, (column, _)| {
                let name = self.source.schema.field(column).name().as_str();
                builder.set_column_dictionary_enabled(ColumnPath::from(name), false)
            })
            .build()
    }
}

/// A part that cannot be written: the store's own words when it is the store.
fn failed(target: &ViewTarget, error: ParquetError) -> SortError {
    SortError::source(target.shown(), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_start_at_midnight_of_the_first_day_and_cover_the_last_instant() {
        let time = |text| Micros::parse_any(text).unwrap();
        let first = time("2026-01-01T10:00:00Z");
        let starts = |last, days| Windows::of_days(first, time(last), days).0;
        assert!(starts("2026-01-01T23:59:59.999999Z", 1).is_empty());
        let midnight = KeyPlan::leading_of(time("2026-01-02T00:00:00Z"));
        assert_eq!(starts("2026-01-02T00:00:00Z", 1), [midnight]);
        assert_eq!(starts("2026-01-07T00:00:00Z", 2).len(), 3);
    }
}
