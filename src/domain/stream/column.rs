//! Rows as framing sees them: columns of plain slices, whatever library decoded them (contract 2.2).
//!
//! The slices are those of a decoded column batch, borrowed; nothing is copied to get here. Types that
//! JSON cannot carry are represented, so that framing refuses them with the column's name.

use serde_json::Value;

/// Which rows of a column hold a value: one bit a row, least significant first, from `offset` bits on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Validity<'a> {
    bits: Option<(&'a [u8], usize)>,
}

impl<'a> Validity<'a> {
    /// Every row holds a value.
    pub const ALL: Validity<'static> = Validity { bits: None };

    /// Rows whose bit is 1 hold a value.
    pub fn from_bits(bytes: &'a [u8], offset: usize) -> Self {
        Self {
            bits: Some((bytes, offset)),
        }
    }

    /// Whether it is known that every row holds a value.
    fn is_all(&self) -> bool {
        self.bits.is_none()
    }

    /// Whether the row is null.
    #[inline]
    pub fn is_null(&self, row: usize) -> bool {
        match self.bits {
            None => false,
            Some((bytes, offset)) => !bit(bytes, offset + row),
        }
    }
}

#[inline]
fn bit(bytes: &[u8], at: usize) -> bool {
    bytes[at / 8] >> (at % 8) & 1 == 1
}

/// One column of a block of rows.
#[derive(Clone, Copy)]
pub enum Column<'a> {
    /// Signed integers.
    Int64 {
        /// One value a row; anything where the row is null.
        values: &'a [i64],
        /// Which rows hold a value.
        validity: Validity<'a>,
    },
    /// Unsigned integers.
    UInt64 {
        /// One value a row; anything where the row is null.
        values: &'a [u64],
        /// Which rows hold a value.
        validity: Validity<'a>,
    },
    /// Floats; also decimals, which become floats (contract 2.2).
    Float64 {
        /// One value a row; anything where the row is null.
        values: &'a [f64],
        /// Which rows hold a value.
        validity: Validity<'a>,
    },
    /// Booleans, one bit a row from `offset` bits on.
    Bool {
        /// The bits.
        bits: &'a [u8],
        /// Bit of row 0.
        offset: usize,
        /// Which rows hold a value.
        validity: Validity<'a>,
    },
    /// UTF-8 texts: row `i` is `bytes[offsets[i]..offsets[i + 1]]`.
    Text {
        /// One more than rows.
        offsets: &'a [i32],
        /// All texts.
        bytes: &'a [u8],
        /// Which rows hold a value.
        validity: Validity<'a>,
    },
    /// Instants in microseconds: usable as `ts_utc`, never as a payload value.
    Instant {
        /// One value a row; anything where the row is null.
        micros: &'a [i64],
        /// Which rows hold a value.
        validity: Validity<'a>,
    },
    /// Lists and structs, turned into JSON value by value.
    Nested(&'a dyn NestedValues),
    /// A column of nulls.
    Null,
    /// A type JSON cannot carry, by name.
    Unsupported(&'a str),
}

/// Lists and structs of a column, row by row.
pub trait NestedValues {
    /// The value of one row, or why JSON cannot carry it.
    fn value(&self, row: usize) -> Result<Value, String>;
}

impl<'a> Column<'a> {
    /// Whether the row is null. A nested column answers through its value.
    #[inline]
    pub fn is_null(&self, row: usize) -> bool {
        match self {
            Column::Int64 { validity, .. }
            | Column::UInt64 { validity, .. }
            | Column::Float64 { validity, .. }
            | Column::Bool { validity, .. }
            | Column::Text { validity, .. }
            | Column::Instant { validity, .. } => validity.is_null(row),
            Column::Null => true,
            Column::Nested(_) | Column::Unsupported(_) => false,
        }
    }

    /// How many rows a time column has; `None` for columns of other kinds.
    pub fn rows(&self) -> Option<usize> {
        match self {
            Column::Instant { micros, .. } => Some(micros.len()),
            Column::Text { offsets, .. } => offsets.len().checked_sub(1),
            _ => None,
        }
    }

    /// Whether every row of a column of whole numbers or texts holds the same value. A column that cannot be told
    /// about at little cost is not constant.
    pub fn is_constant(&self) -> bool {
        match *self {
            Column::Int64 { values, validity } => validity.is_all() && all_same(values),
            Column::UInt64 { values, validity } => validity.is_all() && all_same(values),
            Column::Text {
                offsets,
                bytes,
                validity,
            } => validity.is_all() && same_texts(offsets, bytes),
            _ => false,
        }
    }

    /// The text of a row of a text column; `None` when it is null or the column is no text.
    #[inline]
    pub fn text(&self, row: usize) -> Option<&'a [u8]> {
        match *self {
            Column::Text {
                offsets,
                bytes,
                validity,
            } if !validity.is_null(row) => {
                Some(&bytes[offsets[row] as usize..offsets[row + 1] as usize])
            }
            _ => None,
        }
    }

    /// The boolean of a row; anything where the row is null.
    #[inline]
    pub fn flag(bits: &[u8], offset: usize, row: usize) -> bool {
        bit(bits, offset + row)
    }

    /// The column's type in words.
    pub fn type_name(&self) -> &str {
        match self {
            Column::Int64 { .. } => "int64",
            Column::UInt64 { .. } => "uint64",
            Column::Float64 { .. } => "float64",
            Column::Bool { .. } => "bool",
            Column::Text { .. } => "text",
            Column::Instant { .. } => "timestamp",
            Column::Nested(_) => "nested",
            Column::Null => "null",
            Column::Unsupported(name) => name,
        }
    }
}

fn all_same<T: PartialEq>(values: &[T]) -> bool {
    values.windows(2).all(|pair| pair[0] == pair[1])
}

/// Texts of one length that are all the same: moved by one text, they are still what they were.
fn same_texts(offsets: &[i32], bytes: &[u8]) -> bool {
    let [first, second, ..] = *offsets else {
        return false;
    };
    let (length, end) = ((second - first) as usize, offsets[offsets.len() - 1]);
    let texts = &bytes[first as usize..end as usize];
    let even = offsets
        .windows(2)
        .all(|pair| (pair[1] - pair[0]) as usize == length);
    even && texts[..texts.len() - length] == texts[length..]
}

/// A column and its name.
#[derive(Clone, Copy)]
pub struct NamedColumn<'a> {
    /// The column's name; becomes the payload key.
    pub name: &'a str,
    /// Its values.
    pub column: Column<'a>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validity_bits_are_read_least_significant_first_from_the_offset() {
        let validity = Validity::from_bits(&[0b0000_0110, 0b0000_0001], 1);
        let nulls: Vec<bool> = (0..8).map(|row| validity.is_null(row)).collect();
        assert_eq!(nulls, [false, false, true, true, true, true, true, false]);
        assert!(!Validity::ALL.is_null(1_000_000));
    }

    #[test]
    fn a_column_is_constant_when_all_its_rows_are_the_same() {
        let text = |offsets: &'static [i32], bytes: &'static [u8], validity| Column::Text {
            offsets,
            bytes,
            validity,
        };
        let nulls = Validity::from_bits(&[0b111], 0);
        for (column, constant) in [
            (text(&[2, 4, 6, 8], b"xxababab", Validity::ALL), true),
            (text(&[0, 2, 4, 6], b"ababac", Validity::ALL), false),
            (text(&[0, 1, 2, 4], b"aaaa", Validity::ALL), false),
            (text(&[0, 0, 0], b"", Validity::ALL), true),
            (text(&[0, 2], b"ab", Validity::ALL), true),
            (text(&[0], b"", Validity::ALL), false),
            (text(&[0, 1, 2, 3], b"aaa", nulls), false),
        ] {
            assert_eq!(column.is_constant(), constant);
        }
        let (same, other): (&[i64], &[i64]) = (&[7, 7, 7], &[7, 7, 8]);
        for (values, constant) in [(same, true), (other, false)] {
            let validity = Validity::ALL;
            assert_eq!(Column::Int64 { values, validity }.is_constant(), constant);
        }
        let values: &[f64] = &[1.0, 1.0];
        let validity = Validity::ALL;
        assert!(!Column::Float64 { values, validity }.is_constant());
    }

    #[test]
    fn a_text_row_is_the_slice_between_its_offsets_and_null_is_no_text() {
        let validity = Validity::from_bits(&[0b101], 0);
        let column = Column::Text {
            offsets: &[0, 2, 2, 5],
            bytes: b"abcde",
            validity,
        };
        assert_eq!(column.text(0), Some(&b"ab"[..]));
        assert_eq!(column.text(1), None);
        assert_eq!(column.text(2), Some(&b"cde"[..]));
        assert_eq!(Column::Null.text(0), None);
    }
}
