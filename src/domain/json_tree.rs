//! The slow road: JSON as a tree that keeps every digit, for texts that are valid but not canonical.
//!
//! Numbers stay text (integers of any length, floats in canonical layout), members keep their source
//! order, and a key that occurs twice in one object is refused: two readers would see two events.

use crate::canonical_json::{push_f64, push_string};
use crate::json_scan::{JsonError, Scanner, ValueKind};

/// A JSON value with its numbers in canonical text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// Canonical digits of an integer or a float.
    Number(String),
    /// Decoded text.
    String(String),
    /// Items in order.
    Array(Vec<Json>),
    /// Members in source order, keys unique.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads one value that fills the whole text.
    pub fn parse(text: &[u8]) -> Result<Json, JsonError> {
        if let Err(error) = std::str::from_utf8(text) {
            return Err(JsonError {
                at: error.valid_up_to(),
                cause: "not valid UTF-8",
            });
        }
        let mut scanner = Scanner::new(text);
        scanner.skip_space();
        let start = scanner.position();
        let kind = scanner.value(0)?;
        let end = scanner.position();
        scanner.end()?;
        build(&text[start..end], kind, start, 0)
    }

    /// Appends the insertion-order form (IJ, contract 0.1).
    pub fn push_ij(&self, out: &mut Vec<u8>) {
        self.push(out, false);
    }

    /// Appends the sorted compact form (CJ, contract 0.1).
    pub fn push_cj(&self, out: &mut Vec<u8>) {
        self.push(out, true);
    }

    /// The member `key` of an object.
    pub fn get(&self, key: &str) -> Option<&Json> {
        match self {
            Json::Object(members) => members
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, value)| value),
            _ => None,
        }
    }

    fn push(&self, out: &mut Vec<u8>, sorted: bool) {
        match self {
            Json::Null => out.extend_from_slice(b"null"),
            Json::Bool(true) => out.extend_from_slice(b"true"),
            Json::Bool(false) => out.extend_from_slice(b"false"),
            Json::Number(text) => out.extend_from_slice(text.as_bytes()),
            Json::String(text) => push_string(out, text),
            Json::Array(items) => {
                out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    item.push(out, sorted);
                }
                out.push(b']');
            }
            Json::Object(members) => push_members(out, members, sorted),
        }
    }
}

fn push_members(out: &mut Vec<u8>, members: &[(String, Json)], sorted: bool) {
    let mut ordered: Vec<&(String, Json)> = members.iter().collect();
    if sorted {
        ordered.sort_by(|a, b| a.0.cmp(&b.0));
    }
    out.push(b'{');
    for (index, (key, value)) in ordered.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push_string(out, key);
        out.push(b':');
        value.push(out, sorted);
    }
    out.push(b'}');
}

/// Builds the tree of a value the scanner has already accepted; `base` is its position in the body.
fn build(text: &[u8], kind: ValueKind, base: usize, depth: u32) -> Result<Json, JsonError> {
    Ok(match kind {
        ValueKind::Null => Json::Null,
        ValueKind::Bool => Json::Bool(text[0] == b't'),
        ValueKind::Integer => Json::Number(integer_text(text)),
        ValueKind::Float => Json::Number(float_text(text, base)?),
        ValueKind::String => Json::String(decode_string(&text[1..text.len() - 1])),
        ValueKind::Array => Json::Array(build_array(text, base, depth)?),
        ValueKind::Object => Json::Object(build_object(text, base, depth)?),
    })
}

fn build_array(text: &[u8], base: usize, depth: u32) -> Result<Vec<Json>, JsonError> {
    let mut items = Vec::new();
    let mut at = 1;
    loop {
        let mut scanner = Scanner::new(&text[at..]);
        scanner.skip_space();
        if scanner.peek() == Some(b']') {
            return Ok(items);
        }
        let start = scanner.position();
        let kind = scanner.value(depth + 1)?;
        let end = scanner.position();
        items.push(build(
            &text[at + start..at + end],
            kind,
            base + at + start,
            depth + 1,
        )?);
        scanner.skip_space();
        if scanner.peek() == Some(b']') {
            return Ok(items);
        }
        at += scanner.position() + 1;
    }
}

fn build_object(text: &[u8], base: usize, depth: u32) -> Result<Vec<(String, Json)>, JsonError> {
    let mut found = Vec::new();
    Scanner::new(text).members(depth, |_, member| {
        found.push(member);
        Ok(())
    })?;
    let mut members = Vec::with_capacity(found.len());
    for member in found {
        let key = decode_string(member.key_of(text));
        let start = base + member.value.start as usize;
        members.push((
            key,
            build(member.value_of(text), member.kind, start, depth + 1)?,
        ));
    }
    let mut keys: Vec<&str> = members.iter().map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    if keys.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(JsonError {
            at: base,
            cause: "a key occurs twice in one object",
        });
    }
    Ok(members)
}

fn integer_text(text: &[u8]) -> String {
    let text = std::str::from_utf8(text).expect("a number is ASCII");
    if text == "-0" {
        "0".to_owned()
    } else {
        text.to_owned()
    }
}

fn float_text(text: &[u8], base: usize) -> Result<String, JsonError> {
    let text = std::str::from_utf8(text).expect("a number is ASCII");
    let value: f64 = text.parse().map_err(|_| JsonError {
        at: base,
        cause: "bad number",
    })?;
    let mut out = Vec::with_capacity(24);
    push_f64(&mut out, value);
    Ok(String::from_utf8(out).expect("a number is ASCII"))
}

/// Decodes the inside of a string the scanner has accepted.
pub fn decode_string(raw: &[u8]) -> String {
    let mut out = Vec::with_capacity(raw.len());
    let mut at = 0;
    while at < raw.len() {
        if raw[at] != b'\\' {
            out.push(raw[at]);
            at += 1;
            continue;
        }
        let (character, length) = decode_escape(&raw[at..]);
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        at += length;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn decode_escape(raw: &[u8]) -> (char, usize) {
    match raw[1] {
        b'n' => ('\n', 2),
        b'r' => ('\r', 2),
        b't' => ('\t', 2),
        b'b' => ('\u{8}', 2),
        b'f' => ('\u{c}', 2),
        b'u' => {
            let high = hex_unit(&raw[2..6]);
            if (0xD800..0xDC00).contains(&high) {
                let low = hex_unit(&raw[8..12]);
                let code = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
                (
                    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER),
                    12,
                )
            } else {
                (
                    char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER),
                    6,
                )
            }
        }
        literal => (char::from(literal), 2),
    }
}

fn hex_unit(digits: &[u8]) -> u32 {
    digits.iter().fold(0, |unit, digit| {
        unit << 4 | char::from(*digit).to_digit(16).unwrap_or(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical_json::{to_cj, to_ij};
    use proptest::prelude::*;

    fn forms(text: &str) -> (String, String) {
        let tree = Json::parse(text.as_bytes()).unwrap();
        let (mut ij, mut cj) = (Vec::new(), Vec::new());
        tree.push_ij(&mut ij);
        tree.push_cj(&mut cj);
        (
            String::from_utf8(ij).unwrap(),
            String::from_utf8(cj).unwrap(),
        )
    }

    #[test]
    fn spelling_is_normalised_and_digits_are_kept() {
        let (ij, cj) = forms(
            " { \"b\" : 1e5 , \"a\" : [ -0, 1.50, 123456789012345678901234567890, \"\\u0041\\/é\" ] } ",
        );
        assert_eq!(
            ij,
            "{\"b\":100000.0,\"a\":[0,1.5,123456789012345678901234567890,\"A/\\u00e9\"]}"
        );
        assert_eq!(
            cj,
            "{\"a\":[0,1.5,123456789012345678901234567890,\"A/\\u00e9\"],\"b\":100000.0}"
        );
    }

    #[test]
    fn a_key_that_occurs_twice_is_refused_even_when_spelled_differently() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"x":[{"a":1,"\u0061":2}]}"#] {
            assert_eq!(
                Json::parse(text.as_bytes()).unwrap_err().cause,
                "a key occurs twice in one object"
            );
        }
        assert_eq!(
            Json::parse(b"\"\xff\"").unwrap_err().cause,
            "not valid UTF-8"
        );
    }

    proptest! {
        #[test]
        fn the_tree_writes_what_the_value_writer_writes(members in prop::collection::btree_map(any::<String>(), any::<f64>(), 0..8), text: String) {
            let value = serde_json::json!({"m": members, "t": [text, null, true]});
            let source = serde_json::to_string_pretty(&value).unwrap();
            let value: serde_json::Value = serde_json::from_str(&source).unwrap();
            let (ij, cj) = forms(&source);
            prop_assert_eq!(ij, to_ij(&value).unwrap());
            prop_assert_eq!(cj, to_cj(&value).unwrap());
        }

        #[test]
        fn no_text_makes_the_parser_panic(bytes: Vec<u8>) {
            let _ = Json::parse(&bytes);
        }
    }
}
