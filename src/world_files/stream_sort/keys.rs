//! Sort keys of compact rows.
//!
//! The first key column gives each row a 64-bit leading key whose unsigned order is the column's order
//! (for text: of its first eight bytes). Rows are cut into buckets by the leading key alone. Inside a
//! bucket a single exact key is compared as it is; anything else is compared by arrow's row format over
//! all key columns. Rows with equal keys keep the source order, which is the order of the tie-breakers.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit, UInt64Type};
use arrow::row::{RowConverter, SortField};
use wellspring_domain::time_text::Micros;
use wellspring_domain::world::stream_view::{TIE_BREAKERS, TIME_COLUMN, is_time_key};

use super::error::SortError;
use super::source::Source;

const SIGN: u64 = 1 << 63;

/// The key columns of one sort.
pub(super) struct KeyPlan {
    output_id: String,
    columns: Vec<KeyColumn>,
}

struct KeyColumn {
    name: String,
    position: usize,
    kind: KeyKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyKind {
    /// An instant: text in any ISO form, or a timestamp column.
    Time,
    Signed,
    Unsigned,
    /// Ordered by its bytes; the leading key covers the first eight.
    Text,
    /// Ordered by arrow's row format only.
    Other,
}

/// Where a row stands: in which batch, at which row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) batch: u32,
    pub(super) row: u32,
}

/// The columns in front of the tie-breakers, which must end the list.
pub(super) fn leading_columns(sort_keys: &[String]) -> &[String] {
    match sort_keys.len().checked_sub(TIE_BREAKERS.len()) {
        Some(split) if sort_keys[split..] == TIE_BREAKERS => &sort_keys[..split],
        _ => sort_keys,
    }
}

impl KeyPlan {
    /// Finds the key columns; a missing one is refused by name.
    pub(super) fn new(
        output_id: &str,
        sort_keys: &[String],
        source: &Source,
    ) -> Result<Self, SortError> {
        let leading = leading_columns(sort_keys);
        let missing: Vec<&str> = leading
            .iter()
            .filter(|key| source.schema.column_with_name(key).is_none())
            .map(String::as_str)
            .collect();
        if !missing.is_empty() {
            return Err(unusable(output_id, &missing.join(","), "no such column"));
        }
        let columns = leading.iter().filter_map(|name| {
            let position = source.compact_position(name)?;
            let kind = kind_of(name, source.compact_schema.field(position).data_type());
            Some(KeyColumn {
                name: name.clone(),
                position,
                kind,
            })
        });
        Ok(Self {
            output_id: output_id.to_owned(),
            columns: columns.collect(),
        })
    }

    /// True when the first key is a time, so that rows have a time range.
    pub(super) fn has_time(&self) -> bool {
        self.columns
            .first()
            .is_some_and(|key| key.kind == KeyKind::Time)
    }

    /// The instant behind a leading key, when the first key is a time.
    pub(super) fn time_of(&self, leading: u64) -> Option<Micros> {
        self.has_time()
            .then_some(Micros((leading ^ SIGN).cast_signed()))
    }

    /// The leading key of a given instant.
    pub(super) fn leading_of(time: Micros) -> u64 {
        time.0.cast_unsigned() ^ SIGN
    }

    /// The leading key of every row. Without key columns all rows are equal.
    pub(super) fn leading(&self, rows: &RecordBatch) -> Result<Vec<u64>, SortError> {
        match self.columns.first() {
            Some(key) => self.leading_of_column(key, rows.column(key.position)),
            None => Ok(vec![0; rows.num_rows()]),
        }
    }

    /// Memory that sorting takes per row beside the row itself: the leading key, its place while and
    /// after sorting, and the encoded row when the leading key does not decide.
    pub(super) fn bytes_per_row(&self) -> usize {
        let places = size_of::<u64>() + size_of::<(u64, Place)>() + size_of::<Place>();
        match self.is_exact() {
            true => places,
            false => places + size_of::<usize>() + 24 * self.columns.len(),
        }
    }

    /// The first key column, by name; none when rows keep the source order.
    pub(super) fn first_column(&self) -> Option<&str> {
        self.columns.first().map(|key| key.name.as_str())
    }

    /// The leading keys of values of the first key column.
    pub(super) fn leading_of_first(&self, column: &ArrayRef) -> Result<Vec<u64>, SortError> {
        match self.columns.first() {
            Some(key) => self.leading_of_column(key, column),
            None => Ok(vec![0; column.len()]),
        }
    }

    /// All places of the rows in sorted order, given their leading keys.
    pub(super) fn order(
        &self,
        batches: &[RecordBatch],
        leading: &[Vec<u64>],
    ) -> Result<Vec<Place>, SortError> {
        let places = leading.iter().enumerate().flat_map(|(batch, keys)| {
            keys.iter().enumerate().map(move |(row, key)| {
                (
                    *key,
                    Place {
                        batch: batch as u32,
                        row: row as u32,
                    },
                )
            })
        });
        let mut places: Vec<(u64, Place)> = places.collect();
        if self.is_exact() {
            places.sort_unstable();
        } else {
            self.sort_by_rows(batches, &mut places)?;
        }
        Ok(places.into_iter().map(|(_, place)| place).collect())
    }

    fn is_exact(&self) -> bool {
        match self.columns.as_slice() {
            [] => true,
            [only] => !matches!(only.kind, KeyKind::Text | KeyKind::Other),
            _ => false,
        }
    }

    fn sort_by_rows(
        &self,
        batches: &[RecordBatch],
        places: &mut [(u64, Place)],
    ) -> Result<(), SortError> {
        let fields: Vec<SortField> = self
            .columns
            .iter()
            .map(|key| SortField::new(key.compared_type(batches)))
            .collect();
        let converter = RowConverter::new(fields).map_err(|error| SortError::rows(&error))?;
        let mut encoded = Vec::with_capacity(batches.len());
        for batch in batches {
            let columns = self
                .columns
                .iter()
                .map(|key| self.compared_column(key, batch));
            let columns = columns.collect::<Result<Vec<_>, _>>()?;
            let rows = converter
                .convert_columns(&columns)
                .map_err(|error| SortError::rows(&error))?;
            encoded.push(rows);
        }
        let row = |place: &Place| encoded[place.batch as usize].row(place.row as usize);
        places.sort_unstable_by(|(_, a), (_, b)| row(a).cmp(&row(b)).then(a.cmp(b)));
        Ok(())
    }

    fn compared_column(&self, key: &KeyColumn, batch: &RecordBatch) -> Result<ArrayRef, SortError> {
        let column = batch.column(key.position);
        match key.kind {
            KeyKind::Time => {
                let keys = self.leading_of_column(key, column)?;
                let times = keys.into_iter().map(|key| (key ^ SIGN).cast_signed());
                Ok(Arc::new(Int64Array::from_iter_values(times)))
            }
            _ => Ok(column.clone()),
        }
    }

    fn leading_of_column(&self, key: &KeyColumn, column: &ArrayRef) -> Result<Vec<u64>, SortError> {
        if column.null_count() > 0 {
            return Err(unusable(&self.output_id, &key.name, "a row has no value"));
        }
        let cast_to = |data_type: &DataType| {
            cast(column, data_type)
                .map_err(|error| unusable(&self.output_id, &key.name, &error.to_string()))
        };
        match (key.kind, column.data_type()) {
            (KeyKind::Time, DataType::Utf8) => self.parse_times(key, column),
            (KeyKind::Time, _) => {
                let times = cast_to(&DataType::Timestamp(TimeUnit::Microsecond, None))?;
                Ok(signed(
                    &cast(&times, &DataType::Int64).map_err(|error| SortError::rows(&error))?,
                ))
            }
            (KeyKind::Signed, _) => Ok(signed(&cast_to(&DataType::Int64)?)),
            (KeyKind::Unsigned, _) => Ok(cast_to(&DataType::UInt64)?
                .as_primitive::<UInt64Type>()
                .values()
                .to_vec()),
            (KeyKind::Text, _) => Ok(first_bytes(column)),
            (KeyKind::Other, _) => Ok(vec![0; column.len()]),
        }
    }

    fn parse_times(&self, key: &KeyColumn, column: &ArrayRef) -> Result<Vec<u64>, SortError> {
        let mut parser = TimeParser::default();
        let texts = column.as_string::<i32>();
        let keys = (0..texts.len()).map(|row| {
            let text = texts.value(row);
            match parser.parse(text) {
                Some(time) => Ok(Self::leading_of(time)),
                None => {
                    let shown: String = text.chars().take(64).collect();
                    Err(unusable(
                        &self.output_id,
                        &key.name,
                        &format!("{shown:?} is no time"),
                    ))
                }
            }
        });
        keys.collect()
    }
}

impl KeyColumn {
    fn compared_type(&self, batches: &[RecordBatch]) -> DataType {
        match (self.kind, batches.first()) {
            (KeyKind::Time, _) | (_, None) => DataType::Int64,
            (_, Some(batch)) => batch.column(self.position).data_type().clone(),
        }
    }
}

/// The time column has a code of its own.
fn unusable(output_id: &str, keys: &str, reason: &str) -> SortError {
    let output_id = output_id.to_owned();
    match keys {
        TIME_COLUMN => SortError::MissingTsUtc {
            output_id,
            reason: reason.to_owned(),
        },
        _ => SortError::MissingSortKey {
            output_id,
            keys: keys.to_owned(),
            reason: reason.to_owned(),
        },
    }
}

fn kind_of(name: &str, data_type: &DataType) -> KeyKind {
    use DataType::{Int8, Int16, Int32, Int64, Timestamp, UInt8, UInt16, UInt32, UInt64, Utf8};
    match data_type {
        Timestamp(_, _) => KeyKind::Time,
        Utf8 if is_time_key(name) => KeyKind::Time,
        Int8 | Int16 | Int32 | Int64 => KeyKind::Signed,
        UInt8 | UInt16 | UInt32 | UInt64 => KeyKind::Unsigned,
        Utf8 => KeyKind::Text,
        _ => KeyKind::Other,
    }
}

fn signed(column: &ArrayRef) -> Vec<u64> {
    let values = column.as_primitive::<Int64Type>().values().iter();
    values.map(|value| value.cast_unsigned() ^ SIGN).collect()
}

fn first_bytes(column: &ArrayRef) -> Vec<u64> {
    let texts = column.as_string::<i32>();
    let key = |row| {
        let bytes = texts.value(row).as_bytes();
        let mut first = [0u8; 8];
        let length = bytes.len().min(8);
        first[..length].copy_from_slice(&bytes[..length]);
        u64::from_be_bytes(first)
    };
    (0..texts.len()).map(key).collect()
}

/// Reads T-env fast by remembering the last day; every other form goes to the tolerant parser.
#[derive(Default)]
struct TimeParser {
    day_text: [u8; 11],
    day_start: i64,
}

impl TimeParser {
    fn parse(&mut self, text: &str) -> Option<Micros> {
        let Ok(env) = <&[u8; 27]>::try_from(text.as_bytes()) else {
            return Micros::parse_any(text).ok();
        };
        if env[..11] != self.day_text {
            let day = Micros::parse_any(&format!("{}00:00:00Z", text.get(..11)?)).ok()?;
            self.day_start = day.0;
            self.day_text.copy_from_slice(&env[..11]);
        }
        match time_of_day(env) {
            Some(micros) => Some(Micros(self.day_start + micros)),
            None => Micros::parse_any(text).ok(),
        }
    }
}

/// Microseconds since midnight of `....-..-..Thh:mm:ss.ffffffZ`; none for any other shape.
fn time_of_day(env: &[u8; 27]) -> Option<i64> {
    let is_shaped =
        env[13] == b':' && env[16] == b':' && env[19] == b'.' && env[26] == b'Z' && env[10] == b'T';
    let (hour, minute, second) = (pair(env, 11)?, pair(env, 14)?, pair(env, 17)?);
    let micros = (pair(env, 20)? * 100 + pair(env, 22)?) * 100 + pair(env, 24)?;
    let is_real = hour < 24 && minute < 60 && second < 60;
    (is_shaped && is_real).then_some(((hour * 60 + minute) * 60 + second) * 1_000_000 + micros)
}

fn pair(env: &[u8; 27], at: usize) -> Option<i64> {
    let (tens, ones) = (env[at].wrapping_sub(b'0'), env[at + 1].wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then_some(i64::from(tens * 10 + ones))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_one_instant_parses_to_the_same_time() {
        let expected = Micros::parse_any("2026-01-01T00:00:01.250000Z").unwrap();
        let mut parser = TimeParser::default();
        for text in [
            "2026-01-01T00:00:01.250000Z",
            "2026-01-01T00:00:01.25Z",
            "2026-01-01T00:00:01.250000+00:00",
            "2026-01-01T02:00:01.250000+02:00",
            "2026-01-01 00:00:01.250",
        ] {
            assert_eq!(parser.parse(text), Some(expected), "{text}");
        }
        assert_eq!(parser.parse("2026-01-01T25:00:01.250000Z"), None);
        assert_eq!(parser.parse("yesterday"), None);
    }

    #[test]
    fn a_remembered_day_is_not_used_for_another_day() {
        let mut parser = TimeParser::default();
        let first = parser.parse("2026-01-01T23:59:59.999999Z").unwrap();
        let next = parser.parse("2026-01-02T00:00:00.000000Z").unwrap();
        assert_eq!(next.0 - first.0, 1);
    }

    #[test]
    fn tie_breakers_are_not_columns_unless_they_are_out_of_place() {
        let keys = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            leading_columns(&keys("a,filename,file_row_number")),
            keys("a")
        );
        let odd = keys("filename,a,file_row_number");
        assert_eq!(leading_columns(&odd), odd);
    }
}
