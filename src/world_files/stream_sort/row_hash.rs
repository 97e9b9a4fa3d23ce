//! The row hash behind `hash_sum` and `hash_sum2` (contract 3.7).
//!
//! A value is hashed to 64 bits: null is a constant; booleans, integers, dates and times are their
//! value as a 64-bit integer, floats the bits of their double, each through `fold(v ^ K1, K2)`; text
//! and bytes start from the length and fold in eight little-endian bytes at a time, the last ones
//! padded with zero. `fold(a, b)` is the low half of the 128-bit product xor its high half. A row starts
//! with `K0`; for each column, by name, `row = fold(row ^ value_hash, K3)`. Columns of other types are
//! hashed by the bytes of arrow's row format.
//!
//! The sums are over a multiset of rows, so they are equal before and after a sort. They are compared
//! within one sort only; no other program reads them.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, UInt64Type};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};

const K0: u64 = 0x243F_6A88_85A3_08D3;
const K1: u64 = 0x1319_8A2E_0370_7344;
const K2: u64 = 0xA409_3822_299F_31D1;
const K3: u64 = 0x9E37_79B9_7F4A_7C15;
const NULL_HASH: u64 = 0x082E_FA98_EC4E_6C89;
const SUM2_MODULUS: u64 = 1_000_000_007;

/// Hash of a row without columns; every row starts here.
pub(super) const EMPTY_ROW: u64 = K0;

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

pub(super) fn hash_word(word: u64) -> u64 {
    fold(word ^ K1, K2)
}

/// Hash of a text or byte value.
pub(super) fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hash = hash_word(bytes.len() as u64);
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let word = u64::from_le_bytes(chunk.try_into().expect("a chunk of eight has eight bytes"));
        hash = fold(hash ^ word, K2);
    }
    let rest = chunks.remainder();
    if rest.is_empty() {
        return hash;
    }
    let mut last = [0u8; 8];
    last[..rest.len()].copy_from_slice(rest);
    fold(hash ^ u64::from_le_bytes(last), K2)
}

/// Adds one column of one value for all rows.
pub(super) fn add_constant(rows: &mut [u64], value_hash: u64) {
    for row in rows {
        *row = fold(*row ^ value_hash, K3);
    }
}

/// Adds one column given by a code per row and the hash of each code.
pub(super) fn add_codes(rows: &mut [u64], codes: &dyn Array, hashes: &[u64]) {
    let codes = codes.as_primitive::<arrow::datatypes::Int32Type>();
    if codes.null_count() == 0 {
        for (row, code) in rows.iter_mut().zip(codes.values()) {
            *row = fold(*row ^ hashes[*code as usize], K3);
        }
        return;
    }
    for (row, code) in rows.iter_mut().zip(codes.iter()) {
        *row = fold(
            *row ^ code.map_or(NULL_HASH, |code| hashes[code as usize]),
            K3,
        );
    }
}

/// Adds one column of plain values.
pub(super) fn add_column(rows: &mut [u64], column: &ArrayRef) -> Result<(), ArrowError> {
    match column.data_type() {
        DataType::Utf8 => add_values(rows, column.as_string::<i32>().iter(), |text| {
            hash_bytes(text.as_bytes())
        }),
        DataType::Binary => add_values(rows, column.as_binary::<i32>().iter(), hash_bytes),
        DataType::Boolean => add_values(rows, column.as_boolean().iter(), |b| {
            hash_word(u64::from(b))
        }),
        DataType::Int64 => {
            let column = column.as_primitive::<Int64Type>();
            match column.null_count() {
                0 => add_values(rows, column.values().iter().map(|v| Some(*v)), |v| {
                    hash_word(v.cast_unsigned())
                }),
                _ => add_values(rows, column.iter(), |v| hash_word(v.cast_unsigned())),
            }
        }
        DataType::UInt64 => add_values(rows, column.as_primitive::<UInt64Type>().iter(), hash_word),
        DataType::Float64 => add_values(rows, column.as_primitive::<Float64Type>().iter(), |v| {
            hash_word(v.to_bits())
        }),
        other => return add_other(rows, column, &other.clone()),
    }
    Ok(())
}

fn add_values<T>(
    rows: &mut [u64],
    values: impl Iterator<Item = Option<T>>,
    hash: impl Fn(T) -> u64,
) {
    for (row, value) in rows.iter_mut().zip(values) {
        *row = fold(*row ^ value.map_or(NULL_HASH, &hash), K3);
    }
}

/// Narrow numbers and times are widened; whatever is left goes through arrow's row format.
fn add_other(rows: &mut [u64], column: &ArrayRef, data_type: &DataType) -> Result<(), ArrowError> {
    use DataType::{Date32, Date64, Float32, Int8, Int16, Int32, Timestamp, UInt8, UInt16, UInt32};
    match data_type {
        Int8 | Int16 | Int32 | UInt8 | UInt16 | UInt32 | Date64 | Timestamp(_, _) => {
            add_column(rows, &cast(column, &DataType::Int64)?)
        }
        Date32 => add_column(
            rows,
            &cast(&cast(column, &DataType::Int32)?, &DataType::Int64)?,
        ),
        Float32 => add_column(rows, &cast(column, &DataType::Float64)?),
        _ => {
            let converter = RowConverter::new(vec![SortField::new(data_type.clone())])?;
            let encoded = converter.convert_columns(std::slice::from_ref(column))?;
            for (row, value) in rows.iter_mut().zip(encoded.iter()) {
                *row = fold(*row ^ hash_bytes(value.data()), K3);
            }
            Ok(())
        }
    }
}

/// Sums over row hashes; the order of additions does not matter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct HashSums {
    pub(super) rows: u64,
    pub(super) sum: u128,
    pub(super) sum2: u128,
}

impl HashSums {
    pub(super) fn add_rows(&mut self, hashes: &[u64]) {
        self.rows += hashes.len() as u64;
        for hash in hashes {
            self.sum += u128::from(*hash);
            self.sum2 += u128::from(hash % SUM2_MODULUS);
        }
    }

    pub(super) fn add(&mut self, other: &HashSums) {
        self.rows += other.rows;
        self.sum += other.sum;
        self.sum2 += other.sum2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int32Array, Int64Array, StringArray};
    use std::sync::Arc;

    fn hashes(columns: &[ArrayRef]) -> Vec<u64> {
        let mut rows = vec![EMPTY_ROW; columns[0].len()];
        for column in columns {
            add_column(&mut rows, column).unwrap();
        }
        rows
    }

    #[test]
    fn a_changed_value_a_null_and_a_swap_of_columns_change_the_hash() {
        let a: ArrayRef = Arc::new(StringArray::from(vec![
            Some("x"),
            Some("x"),
            None,
            Some(""),
        ]));
        let b: ArrayRef = Arc::new(StringArray::from(vec!["y", "z", "y", "y"]));
        let ab = hashes(&[a.clone(), b.clone()]);
        assert_ne!(ab[0], ab[1]);
        assert_ne!(ab[2], ab[3]);
        assert_ne!(ab[0], hashes(&[b, a])[0]);
    }

    #[test]
    fn codes_hash_like_the_text_they_stand_for() {
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some("b"), None, Some("a")]));
        let codes = Int32Array::from(vec![Some(1), None, Some(0)]);
        let mut rows = vec![EMPTY_ROW; 3];
        add_codes(&mut rows, &codes, &[hash_bytes(b"a"), hash_bytes(b"b")]);
        assert_eq!(rows, hashes(&[text]));
    }

    #[test]
    fn narrow_integers_hash_like_wide_ones() {
        let narrow: ArrayRef = Arc::new(Int32Array::from(vec![-5, 7]));
        let wide: ArrayRef = Arc::new(Int64Array::from(vec![-5, 7]));
        assert_eq!(hashes(&[narrow]), hashes(&[wide]));
    }

    #[test]
    fn the_sums_do_not_depend_on_the_order_of_rows() {
        let (mut one, mut two) = (HashSums::default(), HashSums::default());
        one.add_rows(&[u64::MAX, 3, u64::MAX]);
        two.add_rows(&[3, u64::MAX, u64::MAX]);
        assert_eq!(one, two);
        assert_eq!(one.sum, 2 * u128::from(u64::MAX) + 3);
    }
}
