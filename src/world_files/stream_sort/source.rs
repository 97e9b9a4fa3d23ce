//! The parts to sort, read as compact rows.
//!
//! Most columns of a world repeat few texts, so rows travel through the sort in a compact form: a text
//! column whose dictionaries are small becomes 32-bit codes into one dictionary for the whole output,
//! and a column that the footers call constant is left out and put back when the view is written. Both
//! are decided from the footers alone, and the rows are checked against them while reading.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};

use super::dictionary::{Coder, SharedDictionary};
use super::error::SortError;
use super::roles::{Role, assign_roles, compact_schema, dictionary_bytes, with_dictionaries};
use super::row_hash;
use crate::world_files::part_location::{PartBytes, PartLocation};

/// Rows decoded at a time.
const BATCH_ROWS: usize = 8_192;

/// One part and its footer.
pub(super) struct Part {
    path: PathBuf,
    bytes: PartBytes,
    metadata: ArrowReaderMetadata,
}

/// One row group of one part: the unit that threads share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unit {
    pub(super) part: usize,
    pub(super) group: usize,
    pub(super) rows: u64,
}

/// All parts of one output, in the order of their path strings.
pub(super) struct Source {
    parts: Vec<Part>,
    /// Columns as the parts have them.
    pub(super) schema: SchemaRef,
    /// One role per column of `schema`.
    pub(super) roles: Vec<Role>,
    /// Columns of the compact rows.
    pub(super) compact_schema: SchemaRef,
    /// Positions in `schema`, by column name.
    by_name: Vec<usize>,
    /// Bytes of a row group that may be fetched at once.
    group_bytes_max: u64,
}

/// Compact rows and the hash of each original row.
pub(super) struct CompactRows {
    pub(super) rows: RecordBatch,
    pub(super) hashes: Vec<u64>,
}

impl Source {
    /// Opens all parts. Columns named in `keys` stay plain, so that they can be compared.
    pub(super) fn open(
        locations: &[PartLocation],
        keys: &[String],
        group_bytes_max: u64,
    ) -> Result<Self, SortError> {
        let paths: Vec<PathBuf> = locations.iter().map(PartLocation::shown).collect();
        let opened = locations
            .iter()
            .map(PartLocation::open)
            .collect::<Result<Vec<_>, _>>()?;
        let plain = paths
            .iter()
            .zip(&opened)
            .map(|(path, bytes)| load(path, bytes))
            .collect::<Result<Vec<_>, _>>()?;
        let schema = common_schema(&paths, &plain)?;
        let roles = assign_roles(&schema, &plain, keys);
        let hinted = with_dictionaries(&schema, &roles);
        let parts = paths.into_iter().zip(opened).zip(plain);
        let parts = parts
            .map(|((path, bytes), plain)| {
                Ok(Part {
                    metadata: with_schema(&path, &plain, &hinted)?,
                    path,
                    bytes,
                })
            })
            .collect::<Result<Vec<_>, SortError>>()?;
        let compact_schema = compact_schema(&schema, &roles);
        let mut by_name: Vec<usize> = (0..schema.fields().len()).collect();
        by_name.sort_by_key(|column| schema.field(*column).name().clone());
        Ok(Self {
            parts,
            schema,
            roles,
            compact_schema,
            by_name,
            group_bytes_max,
        })
    }

    /// The row groups in source order.
    pub(super) fn units(&self) -> Vec<Unit> {
        let of_part = |(part, opened): (usize, &Part)| {
            let groups = opened.metadata.metadata().row_groups().iter().enumerate();
            let units = groups.map(move |(group, footer)| Unit {
                part,
                group,
                rows: footer.num_rows().unsigned_abs(),
            });
            units.collect::<Vec<_>>()
        };
        self.parts.iter().enumerate().flat_map(of_part).collect()
    }

    /// Position of a column among the compact rows, when it is there.
    pub(super) fn compact_position(&self, column: &str) -> Option<usize> {
        self.compact_schema.index_of(column).ok()
    }

    /// True when the source keeps a dictionary for the column in its first row group.
    pub(super) fn repeats(&self, column: usize) -> bool {
        let groups = self
            .parts
            .iter()
            .flat_map(|part| part.metadata.metadata().row_groups());
        groups.take(1).all(|group| {
            group.columns().get(column).is_some_and(|chunk| {
                chunk.dictionary_page_offset().is_some()
                    && dictionary_bytes(chunk) * 3 < chunk.compressed_size()
            })
        })
    }

    /// Reads one row group as compact rows.
    pub(super) fn read(&self, unit: Unit) -> Result<UnitReader<'_>, SortError> {
        let part = &self.parts[unit.part];
        let bytes = self.group_bytes(unit, &ProjectionMask::all())?;
        let batches =
            ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, part.metadata.clone())
                .with_row_groups(vec![unit.group])
                .with_batch_size(BATCH_ROWS)
                .build()
                .map_err(|error| SortError::source(&part.path, error))?;
        let coders = self.roles.iter().map(|_| Coder::default()).collect();
        Ok(UnitReader {
            source: self,
            path: &part.path,
            batches,
            coders,
        })
    }

    /// The bytes of a row group's wanted columns, or a way to them.
    fn group_bytes(&self, unit: Unit, columns: &ProjectionMask) -> Result<PartBytes, SortError> {
        let part = &self.parts[unit.part];
        let (metadata, max) = (part.metadata.metadata(), self.group_bytes_max);
        Ok(part.bytes.with_group(metadata, unit.group, columns, max)?)
    }

    /// Reads one plain column of one row group.
    pub(super) fn read_column(
        &self,
        unit: Unit,
        column: &str,
    ) -> Result<impl Iterator<Item = Result<ArrayRef, SortError>>, SortError> {
        let part = &self.parts[unit.part];
        let mask = ProjectionMask::columns(part.metadata.parquet_schema(), [column]);
        let bytes = self.group_bytes(unit, &mask)?;
        let batches =
            ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, part.metadata.clone())
                .with_row_groups(vec![unit.group])
                .with_projection(mask)
                .build()
                .map_err(|error| SortError::source(&part.path, error))?;
        Ok(batches.map(|batch| match batch {
            Ok(batch) => Ok(batch.column(0).clone()),
            Err(error) => Err(SortError::source(&part.path, error)),
        }))
    }

    /// The original columns of compact rows; coded columns stay dictionary encoded.
    pub(super) fn expand(
        &self,
        schema: &SchemaRef,
        dictionaries: &[Option<ArrayRef>],
        rows: &RecordBatch,
    ) -> Result<RecordBatch, SortError> {
        let columns =
            self.roles
                .iter()
                .zip(dictionaries)
                .map(|(role, values)| match (role, values) {
                    (Role::Plain(at), _) => Ok(rows.column(*at).clone()),
                    (Role::Coded(at, _), Some(values)) => {
                        SharedDictionary::decode(rows.column(*at), values)
                    }
                    (Role::Coded(at, dictionary), None) => {
                        SharedDictionary::decode(rows.column(*at), &dictionary.values())
                    }
                    (Role::Constant(value), _) => Ok(value.column(rows.num_rows())),
                });
        let columns = columns
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| SortError::rows(&error))?;
        RecordBatch::try_new(schema.clone(), columns).map_err(|error| SortError::rows(&error))
    }

    /// The values of the coded columns, complete once every row has been read.
    pub(super) fn dictionaries(&self) -> Vec<Option<ArrayRef>> {
        let values = self.roles.iter().map(|role| match role {
            Role::Coded(_, dictionary) => Some(dictionary.values()),
            _ => None,
        });
        values.collect()
    }

    /// Schema of expanded rows.
    pub(super) fn expanded_schema(&self) -> SchemaRef {
        with_dictionaries(&self.schema, &self.roles)
    }
}

/// Reads one row group; every batch is checked against the roles and hashed.
pub(super) struct UnitReader<'a> {
    source: &'a Source,
    path: &'a Path,
    batches: ParquetRecordBatchReader,
    coders: Vec<Coder>,
}

impl UnitReader<'_> {
    /// The next rows, or none at the end of the row group.
    pub(super) fn next_rows(&mut self) -> Result<Option<CompactRows>, SortError> {
        match self.batches.next() {
            None => Ok(None),
            Some(Ok(batch)) => self.compact(&batch).map(Some),
            Some(Err(error)) => Err(SortError::source(self.path, error)),
        }
    }

    fn compact(&mut self, batch: &RecordBatch) -> Result<CompactRows, SortError> {
        let source = self.source;
        let mut compact: Vec<Option<ArrayRef>> = vec![None; source.compact_schema.fields().len()];
        let mut hashes = vec![row_hash::EMPTY_ROW; batch.num_rows()];
        for column in &source.by_name {
            let values = batch.column(*column);
            let field = source.schema.field(*column);
            match &source.roles[*column] {
                Role::Plain(at) => {
                    let hashed = row_hash::add_column(&mut hashes, values);
                    hashed.map_err(|error| SortError::source(self.path, error))?;
                    compact[*at] = Some(values.clone());
                }
                Role::Coded(at, dictionary) => {
                    let codes = self.coders[*column].encode(dictionary, values);
                    row_hash::add_codes(&mut hashes, &codes, self.coders[*column].hashes());
                    compact[*at] = Some(codes);
                }
                Role::Constant(constant) if constant.is_all_of(values) => {
                    row_hash::add_constant(&mut hashes, constant.hash());
                }
                Role::Constant(_) => {
                    let reason = format!("column {} has values its footer denies", field.name());
                    return Err(SortError::source(self.path, reason));
                }
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let columns = compact.into_iter().flatten().collect();
        let schema = source.compact_schema.clone();
        let rows = RecordBatch::try_new_with_options(schema, columns, &options)
            .map_err(|error| SortError::source(self.path, error))?;
        Ok(CompactRows { rows, hashes })
    }
}

fn load(path: &Path, bytes: &PartBytes) -> Result<ArrowReaderMetadata, SortError> {
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    ArrowReaderMetadata::load(bytes, options).map_err(|error| SortError::source(path, error))
}

/// The same footer, read as other types.
fn with_schema(
    path: &Path,
    plain: &ArrowReaderMetadata,
    schema: &SchemaRef,
) -> Result<ArrowReaderMetadata, SortError> {
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let options = options.with_schema(schema.clone());
    ArrowReaderMetadata::try_new(plain.metadata().clone(), options)
        .map_err(|error| SortError::source(path, error))
}

/// All parts must have the same columns in the same order; only the nullability may differ.
fn common_schema(paths: &[PathBuf], parts: &[ArrowReaderMetadata]) -> Result<SchemaRef, SortError> {
    let columns = |part: &ArrowReaderMetadata| -> Vec<(String, DataType)> {
        let fields = part.schema().fields().iter();
        fields
            .map(|field| (field.name().clone(), field.data_type().clone()))
            .collect()
    };
    let Some(first) = parts.first() else {
        return Ok(Arc::new(Schema::empty()));
    };
    let expected = columns(first);
    for (path, part) in paths.iter().zip(parts) {
        if columns(part) != expected {
            return Err(SortError::source(
                path,
                "columns differ from those of the first part",
            ));
        }
    }
    let is_nullable = |column: usize| {
        parts
            .iter()
            .any(|part| part.schema().field(column).is_nullable())
    };
    let fields = expected.into_iter().enumerate();
    let fields: Vec<Field> = fields
        .map(|(at, (name, data_type))| Field::new(name, data_type, is_nullable(at)))
        .collect();
    Ok(Arc::new(Schema::new(fields)))
}
