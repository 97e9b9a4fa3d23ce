//! One value of one row as JSON, or as part of an event id's preimage (contract 0.1, 2.2).

use super::column::Column;
use crate::canonical_json::{is_plain, push_cj, push_f64, push_i64, push_string, push_u64};

/// Why JSON cannot carry a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueProblem(pub String);

fn problem(text: &str) -> ValueProblem {
    ValueProblem(text.to_owned())
}

/// Appends the JSON of one row's value; null stays null (contract 2.2).
#[inline]
pub fn push_value(out: &mut Vec<u8>, column: &Column<'_>, row: usize) -> Result<(), ValueProblem> {
    if column.is_null(row) {
        out.extend_from_slice(b"null");
        return Ok(());
    }
    match *column {
        Column::Int64 { values, .. } => push_i64(out, values[row]),
        Column::UInt64 { values, .. } => push_u64(out, values[row]),
        Column::Float64 { values, .. } => push_f64(out, finite(values[row])?),
        Column::Bool { bits, offset, .. } => {
            let text: &[u8] = if Column::flag(bits, offset, row) {
                b"true"
            } else {
                b"false"
            };
            out.extend_from_slice(text);
        }
        Column::Text { .. } => push_text(out, column.text(row).unwrap_or_default())?,
        Column::Nested(values) => push_cj(out, &values.value(row).map_err(ValueProblem)?),
        Column::Null => out.extend_from_slice(b"null"),
        Column::Instant { .. } | Column::Unsupported(_) => {
            return Err(ValueProblem(format!("type {}", column.type_name())));
        }
    }
    Ok(())
}

/// Appends the text form of a primary-key value that is not null (contract 0.1, last row).
pub fn push_key_text(
    out: &mut Vec<u8>,
    column: &Column<'_>,
    row: usize,
) -> Result<(), ValueProblem> {
    match *column {
        Column::Int64 { values, .. } => push_i64(out, values[row]),
        Column::UInt64 { values, .. } => push_u64(out, values[row]),
        Column::Float64 { values, .. } => push_f64(out, finite(values[row])?),
        Column::Bool { bits, offset, .. } => {
            let text: &[u8] = if Column::flag(bits, offset, row) {
                b"True"
            } else {
                b"False"
            };
            out.extend_from_slice(text);
        }
        Column::Text { .. } => out.extend_from_slice(column.text(row).unwrap_or_default()),
        Column::Instant { .. } | Column::Nested(_) | Column::Null | Column::Unsupported(_) => {
            return Err(ValueProblem(format!(
                "type {} in a primary key",
                column.type_name()
            )));
        }
    }
    Ok(())
}

/// Appends the canonical form of a `payload_json` text (contract 2.2).
pub fn push_payload_json(
    out: &mut Vec<u8>,
    column: &Column<'_>,
    row: usize,
) -> Result<(), ValueProblem> {
    let text = column.text(row).ok_or_else(|| problem("no text"))?;
    let value: serde_json::Value =
        serde_json::from_slice(text).map_err(|error| ValueProblem(format!("not JSON: {error}")))?;
    push_cj(out, &value);
    Ok(())
}

#[inline]
fn finite(value: f64) -> Result<f64, ValueProblem> {
    if value.is_finite() {
        Ok(value)
    } else {
        Err(problem("NaN or infinity"))
    }
}

/// A JSON string. Most texts need no escape; they are found without a branch per byte and copied.
#[inline]
fn push_text(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), ValueProblem> {
    if bytes
        .iter()
        .fold(true, |plain, &byte| plain & is_plain(byte))
    {
        out.push(b'"');
        out.extend_from_slice(bytes);
        out.push(b'"');
        return Ok(());
    }
    push_string(
        out,
        std::str::from_utf8(bytes).map_err(|_| problem("text is not UTF-8"))?,
    );
    Ok(())
}
