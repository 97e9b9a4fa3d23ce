//! How each column travels through the sort, decided from the footers alone.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::statistics::Statistics;

use super::dictionary::SharedDictionary;

/// A column is coded when its dictionaries, over all row groups, are at most this big.
const DICTIONARY_BYTES_MAX: i64 = 2 << 20;

/// How a column travels through the sort.
#[derive(Debug, Clone)]
pub(super) enum Role {
    /// As it is, at this position of the compact rows.
    Plain(usize),
    /// As codes, at this position of the compact rows.
    Coded(usize, Arc<SharedDictionary>),
    /// Not at all: every row has this value.
    Constant(Constant),
}

/// The value of a constant column.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Constant {
    Text(String),
    Int(i64),
    Uint(u64),
}

pub(super) fn assign_roles(
    schema: &Schema,
    parts: &[ArrowReaderMetadata],
    keys: &[String],
) -> Vec<Role> {
    let is_flat = parts
        .iter()
        .all(|part| part.parquet_schema().num_columns() == schema.fields().len());
    let mut next = 0;
    let mut place = || {
        next += 1;
        next - 1
    };
    let role = |(column, field): (usize, &Arc<Field>)| {
        if !is_flat || keys.contains(field.name()) {
            return Role::Plain(place());
        }
        let chunks: Vec<&ColumnChunkMetaData> = parts
            .iter()
            .flat_map(|part| part.metadata().row_groups())
            .map(|group| group.column(column))
            .collect();
        match constant_of(field, &chunks) {
            Some(value) => Role::Constant(value),
            None if has_small_dictionaries(field, &chunks) => {
                Role::Coded(place(), Arc::new(SharedDictionary::default()))
            }
            None => Role::Plain(place()),
        }
    };
    schema.fields().iter().enumerate().map(role).collect()
}

/// The one value of the column, when every footer gives exactly that and no null.
fn constant_of(field: &Field, chunks: &[&ColumnChunkMetaData]) -> Option<Constant> {
    let mut values = chunks
        .iter()
        .map(|chunk| constant_of_chunk(field, chunk.statistics()?));
    let first = values.next()??;
    values
        .all(|value| value.as_ref() == Some(&first))
        .then_some(first)
}

fn constant_of_chunk(field: &Field, statistics: &Statistics) -> Option<Constant> {
    let is_exact = statistics.min_is_exact() && statistics.max_is_exact();
    if statistics.null_count_opt() != Some(0) || !is_exact {
        return None;
    }
    let (min, max) = (statistics.min_bytes_opt()?, statistics.max_bytes_opt()?);
    match field.data_type() {
        _ if min != max => None,
        DataType::Utf8 => Some(Constant::Text(std::str::from_utf8(min).ok()?.to_owned())),
        DataType::Int64 => Some(Constant::Int(i64::from_le_bytes(min.try_into().ok()?))),
        DataType::UInt64 => Some(Constant::Uint(u64::from_le_bytes(min.try_into().ok()?))),
        _ => None,
    }
}

fn has_small_dictionaries(field: &Field, chunks: &[&ColumnChunkMetaData]) -> bool {
    let all_have_one = chunks
        .iter()
        .all(|chunk| chunk.dictionary_page_offset().is_some());
    let bytes: i64 = chunks.iter().map(|chunk| dictionary_bytes(chunk)).sum();
    let is_text = field.data_type() == &DataType::Utf8;
    is_text && all_have_one && !chunks.is_empty() && bytes <= DICTIONARY_BYTES_MAX
}

/// Stored size of a chunk's dictionary page.
pub(super) fn dictionary_bytes(chunk: &ColumnChunkMetaData) -> i64 {
    let start = chunk
        .dictionary_page_offset()
        .unwrap_or(chunk.data_page_offset());
    (chunk.data_page_offset() - start).max(0)
}

pub(super) fn with_dictionaries(schema: &SchemaRef, roles: &[Role]) -> SchemaRef {
    let dictionary = || DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let fields =
        schema
            .fields()
            .iter()
            .zip(roles)
            .map(|(field, role)| match (role, field.data_type()) {
                (Role::Coded(..), _) | (Role::Constant(_), DataType::Utf8) => {
                    Field::new(field.name(), dictionary(), field.is_nullable())
                }
                _ => field.as_ref().clone(),
            });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

pub(super) fn compact_schema(schema: &Schema, roles: &[Role]) -> SchemaRef {
    let fields = schema
        .fields()
        .iter()
        .zip(roles)
        .filter_map(|(field, role)| match role {
            Role::Plain(_) => Some(field.as_ref().clone()),
            Role::Coded(..) => Some(Field::new(
                field.name(),
                DataType::Int32,
                field.is_nullable(),
            )),
            Role::Constant(_) => None,
        });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
