//! JSON in the three byte forms that hashes and files of the contract cover (contract 0.1).
//!
//! | form | keys | separators | used by |
//! |---|---|---|---|
//! | CJ | sorted by code point | `,` `:` | store files, payload hash, ids |
//! | SJ | sorted by code point | `, ` `: ` | plan hash, record events, control bus, session ledger, cursors |
//! | IJ | source order | `,` `:` | event-bus records |
//!
//! All three write ASCII only, integers in plain decimal, and floats with the shortest digits that
//! round-trip in the layout `1e-05` / `1e+16` / `100.0`. The usual float output of JSON libraries
//! (`1e-5`, `1e16`) would change hashes and is never used.

use serde::Serialize;
use serde_json::{Map, Value};

/// Which of the three forms to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Compact,
    Spaced,
    Insertion,
}

impl Form {
    fn comma(self) -> &'static [u8] {
        if self == Form::Spaced { b", " } else { b"," }
    }

    fn colon(self) -> &'static [u8] {
        if self == Form::Spaced { b": " } else { b":" }
    }
}

/// Why a value has no canonical form.
#[derive(Debug, thiserror::Error)]
#[error("value has no canonical JSON form: {0}")]
pub struct CanonicalError(#[from] serde_json::Error);

/// CJ of any serialisable value (contract 0.1).
pub fn to_cj<T: Serialize + ?Sized>(value: &T) -> Result<String, CanonicalError> {
    to_text(value, Form::Compact)
}

/// SJ of any serialisable value (contract 0.1).
pub fn to_sj<T: Serialize + ?Sized>(value: &T) -> Result<String, CanonicalError> {
    to_text(value, Form::Spaced)
}

/// IJ of any serialisable value: fields in declaration or insertion order (contract 0.1).
pub fn to_ij<T: Serialize + ?Sized>(value: &T) -> Result<String, CanonicalError> {
    to_text(value, Form::Insertion)
}

/// CJ of a value, appended to `out`.
pub fn push_cj(out: &mut Vec<u8>, value: &Value) {
    push_value(out, value, Form::Compact);
}

/// SJ of a value, appended to `out`.
pub fn push_sj(out: &mut Vec<u8>, value: &Value) {
    push_value(out, value, Form::Spaced);
}

/// IJ of a value, appended to `out`.
pub fn push_ij(out: &mut Vec<u8>, value: &Value) {
    push_value(out, value, Form::Insertion);
}

fn to_text<T: Serialize + ?Sized>(value: &T, form: Form) -> Result<String, CanonicalError> {
    let value = serde_json::to_value(value)?;
    let mut out = Vec::with_capacity(256);
    push_value(&mut out, &value, form);
    Ok(String::from_utf8(out).expect("canonical JSON is ASCII"))
}

fn push_value(out: &mut Vec<u8>, value: &Value, form: Form) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => push_number(out, number),
        Value::String(text) => push_string(out, text),
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.extend_from_slice(form.comma());
                }
                push_value(out, item, form);
            }
            out.push(b']');
        }
        Value::Object(members) => push_object(out, members, form),
    }
}

fn push_object(out: &mut Vec<u8>, members: &Map<String, Value>, form: Form) {
    let mut ordered: Vec<(&String, &Value)> = members.iter().collect();
    if form != Form::Insertion {
        // UTF-8 byte order equals code point order.
        ordered.sort_by(|a, b| a.0.cmp(b.0));
    }
    out.push(b'{');
    for (index, (key, value)) in ordered.into_iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(form.comma());
        }
        push_string(out, key);
        out.extend_from_slice(form.colon());
        push_value(out, value, form);
    }
    out.push(b'}');
}

fn push_number(out: &mut Vec<u8>, number: &serde_json::Number) {
    if let Some(value) = number.as_u64() {
        push_u64(out, value);
    } else if let Some(value) = number.as_i64() {
        push_i64(out, value);
    } else if let Some(value) = number.as_f64() {
        push_f64(out, value);
    }
}

/// A JSON string with quotes and the contract's escapes, appended to `out`.
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    push_escaped(out, text);
    out.push(b'"');
}

/// The inside of a JSON string: everything outside `0x20..0x7E`, `"` and `\` escaped (contract 0.1).
pub fn push_escaped(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    if all_plain(bytes) {
        return out.extend_from_slice(bytes);
    }
    let mut clean_from = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if is_plain(byte) || (byte & 0xC0) == 0x80 {
            // A continuation byte was written with its leading byte; `clean_from` is already past it.
            continue;
        }
        if at < clean_from {
            continue;
        }
        out.extend_from_slice(&bytes[clean_from..at]);
        let character = text[at..]
            .chars()
            .next()
            .expect("a leading byte starts a character");
        push_escape(out, character);
        clean_from = at + character.len_utf8();
    }
    out.extend_from_slice(&bytes[clean_from..]);
}

/// True for bytes that stand for themselves inside a canonical JSON string.
#[inline]
pub fn is_plain(byte: u8) -> bool {
    (0x20..0x7F).contains(&byte) && byte != b'"' && byte != b'\\'
}

/// Whether all bytes stand for themselves. Whole blocks are folded, which the compiler makes vector code of.
#[inline]
pub(crate) fn all_plain(bytes: &[u8]) -> bool {
    bytes.chunks(32).all(|block| {
        block
            .iter()
            .fold(true, |plain, byte| plain & is_plain(*byte))
    })
}

fn push_escape(out: &mut Vec<u8>, character: char) {
    let short = match character {
        '"' => b'"',
        '\\' => b'\\',
        '\n' => b'n',
        '\r' => b'r',
        '\t' => b't',
        '\u{8}' => b'b',
        '\u{c}' => b'f',
        _ => {
            let mut units = [0u16; 2];
            for unit in character.encode_utf16(&mut units) {
                push_unit(out, *unit);
            }
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

fn push_unit(out: &mut Vec<u8>, unit: u16) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"\\u");
    for shift in [12, 8, 4, 0] {
        out.push(HEX[usize::from(unit >> shift & 0xF)]);
    }
}

/// The numbers from 00 to 99.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
};

/// An unsigned integer in plain decimal, two digits at a time.
#[inline]
pub fn push_u64(out: &mut Vec<u8>, value: u64) {
    let digits = value.checked_ilog10().map_or(1, |log| log as usize + 1);
    let start = out.len();
    // Room of a known size is a few instructions, and what is written where it stays need not be read again.
    out.extend_from_slice(&[b'0'; 20]);
    out.truncate(start + digits);
    let (mut rest, mut pairs) = (value, out[start..].rchunks_exact_mut(2));
    for pair in &mut pairs {
        pair.copy_from_slice(&PAIRS[(rest % 100) as usize]);
        rest /= 100;
    }
    if let [first] = pairs.into_remainder() {
        *first = b'0' + rest as u8;
    }
}

/// A signed integer in plain decimal.
#[inline]
pub fn push_i64(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    push_u64(out, value.unsigned_abs());
}

/// A finite float in the contract's layout: shortest digits, exponent form iff the exponent is
/// below -4 or at least 16, sign on a positive exponent, at least two exponent digits, and `.0` on
/// whole numbers. Callers refuse NaN and infinities before; they are written as `null` here.
pub fn push_f64(out: &mut Vec<u8>, value: f64) {
    if !value.is_finite() {
        out.extend_from_slice(b"null");
        return;
    }
    if value.is_sign_negative() {
        out.push(b'-');
    }
    if value == 0.0 {
        out.extend_from_slice(b"0.0");
        return;
    }
    if push_hundredths(out, value.abs()) {
        return;
    }
    push_shortest(out, value.abs());
}

/// Writes a positive number that is a whole count of hundredths, as amounts of money are; false for any other.
///
/// The count is exact and its hundredth the number nearest to it, so the number is what these at most fifteen
/// digits are read as. No other fifteen digits are read as the same number, so none are shorter.
fn push_hundredths(out: &mut Vec<u8>, value: f64) -> bool {
    let hundredths = (value * 100.0).round();
    if !(1.0..1e15).contains(&hundredths) || hundredths / 100.0 != value {
        return false;
    }
    let hundredths = hundredths as u64;
    push_u64(out, hundredths / 100);
    let [tens, ones] = PAIRS[(hundredths % 100) as usize];
    out.extend_from_slice(&[b'.', tens]);
    if ones != b'0' {
        out.push(ones);
    }
    true
}

/// Any positive finite number.
fn push_shortest(out: &mut Vec<u8>, value: f64) {
    let mut buffer = ryu::Buffer::new();
    let (digits, count, exponent) = shortest_digits(buffer.format_finite(value));
    push_layout(out, &digits[..count], exponent);
}

/// The significant digits of a positive shortest-round-trip text and the decimal exponent of the
/// first digit (`2599` and `1` for `25.99`).
fn shortest_digits(text: &str) -> ([u8; 24], usize, i32) {
    let (mantissa, exponent) = match text.split_once('e') {
        Some((mantissa, exponent)) => (
            mantissa,
            exponent
                .parse::<i32>()
                .expect("an exponent is a small integer"),
        ),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = [0u8; 24];
    let mut count = 0;
    let mut leading_zeros = 0;
    for byte in whole.bytes().chain(fraction.bytes()) {
        if count == 0 && byte == b'0' {
            leading_zeros += 1;
        } else {
            digits[count] = byte;
            count += 1;
        }
    }
    while count > 1 && digits[count - 1] == b'0' {
        count -= 1;
    }
    (
        digits,
        count,
        exponent + whole.len() as i32 - 1 - leading_zeros,
    )
}

fn push_layout(out: &mut Vec<u8>, digits: &[u8], exponent: i32) {
    if !(-4..16).contains(&exponent) {
        push_exponent_layout(out, digits, exponent);
    } else if exponent < 0 {
        out.extend_from_slice(b"0.");
        out.resize(out.len() + (-exponent - 1) as usize, b'0');
        out.extend_from_slice(digits);
    } else {
        let whole = exponent as usize + 1;
        if digits.len() > whole {
            out.extend_from_slice(&digits[..whole]);
            out.push(b'.');
            out.extend_from_slice(&digits[whole..]);
        } else {
            out.extend_from_slice(digits);
            out.resize(out.len() + whole - digits.len(), b'0');
            out.extend_from_slice(b".0");
        }
    }
}

fn push_exponent_layout(out: &mut Vec<u8>, digits: &[u8], exponent: i32) {
    out.push(digits[0]);
    if digits.len() > 1 {
        out.push(b'.');
        out.extend_from_slice(&digits[1..]);
    }
    out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
    let magnitude = exponent.unsigned_abs();
    if magnitude < 10 {
        out.push(b'0');
    }
    push_u64(out, u64::from(magnitude));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn float(value: f64) -> String {
        let mut out = Vec::new();
        push_f64(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn floats_have_the_contract_layout() {
        for (value, text) in [
            (25.99, "25.99"),
            (100.0, "100.0"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (5e-324, "5e-324"),
            (-0.0, "-0.0"),
            (0.0, "0.0"),
            (1.0, "1.0"),
            (-1.5, "-1.5"),
            (123456789012345680.0, "1.2345678901234568e+17"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
            (9999999999999998.0, "9999999999999998.0"),
            (0.1, "0.1"),
            (1.5e-7, "1.5e-07"),
        ] {
            assert_eq!(float(value), text);
        }
    }

    #[test]
    fn the_three_forms_differ_in_order_and_spaces_only() {
        let value = json!({"b": [1, 2.0], "a": {"z": null, "é": true}});
        assert_eq!(
            to_cj(&value).unwrap(),
            "{\"a\":{\"z\":null,\"\\u00e9\":true},\"b\":[1,2.0]}"
        );
        assert_eq!(
            to_sj(&value).unwrap(),
            "{\"a\": {\"z\": null, \"\\u00e9\": true}, \"b\": [1, 2.0]}"
        );
        assert_eq!(
            to_ij(&value).unwrap(),
            "{\"b\":[1,2.0],\"a\":{\"z\":null,\"\\u00e9\":true}}"
        );
    }

    #[test]
    fn escapes_are_lower_case_and_surrogate_pairs() {
        assert_eq!(
            to_cj("\"\\/\n\r\t\u{8}\u{c}\u{1f}\u{7f}é😀").unwrap(),
            "\"\\\"\\\\/\\n\\r\\t\\b\\f\\u001f\\u007f\\u00e9\\ud83d\\ude00\""
        );
    }

    #[test]
    fn integers_keep_all_digits() {
        assert_eq!(to_cj(&json!(u64::MAX)).unwrap(), "18446744073709551615");
        assert_eq!(to_cj(&json!(i64::MIN)).unwrap(), "-9223372036854775808");
    }

    proptest! {
        #[test]
        fn any_finite_float_reads_back_as_itself(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            prop_assert_eq!(float(value).parse::<f64>().unwrap().to_bits(), value.to_bits());
        }

        #[test]
        fn hundredths_are_written_as_the_general_way_writes_them(count in 0u64..1_000_000_000_000_000, nearby in -2i64..3) {
            for value in [count as f64 / 100.0, (count % 100_000) as f64 / 100.0, count as f64] {
                let value = f64::from_bits((value.to_bits() as i64).saturating_add(nearby).max(1) as u64);
                let (mut short, mut general) = (Vec::new(), Vec::new());
                push_shortest(&mut general, value);
                if push_hundredths(&mut short, value) {
                    prop_assert_eq!(String::from_utf8(short), String::from_utf8(general));
                }
            }
        }

        #[test]
        fn any_string_reads_back_as_itself(text: String) {
            let written = to_cj(&text).unwrap();
            prop_assert!(written.is_ascii());
            prop_assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
        }
    }
}
