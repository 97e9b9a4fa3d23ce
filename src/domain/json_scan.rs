//! One pass over JSON text that answers two questions without building a tree: is it well formed, and
//! are its bytes already the canonical bytes?
//!
//! Text that is already *normal* (the insertion-order form IJ of contract 0.1: no spaces, canonical
//! escapes and numbers) and whose objects are *sorted* (key bytes strictly ascending, so no key occurs
//! twice) can be hashed and published in place. Everything else is valid input too, but takes the slow
//! road through [`crate::json_tree`], which also finds duplicate keys.

use crate::canonical_json::{all_plain, is_plain};
use std::ops::Range;

/// Deepest nesting of arrays and objects accepted.
pub const DEPTH_MAX: u32 = 64;

/// Why a text is not JSON this system accepts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid JSON at byte {at}: {cause}")]
pub struct JsonError {
    /// Byte the problem was found at.
    pub at: usize,
    /// What is wrong.
    pub cause: &'static str,
}

/// The kind of a JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// A string.
    String,
    /// A number without fraction and exponent.
    Integer,
    /// A number with a fraction or an exponent.
    Float,
    /// `true` or `false`.
    Bool,
    /// `null`.
    Null,
    /// An object.
    Object,
    /// An array.
    Array,
}

impl ValueKind {
    /// Every kind.
    pub const ALL: [ValueKind; 7] = [
        ValueKind::String,
        ValueKind::Integer,
        ValueKind::Float,
        ValueKind::Bool,
        ValueKind::Null,
        ValueKind::Object,
        ValueKind::Array,
    ];
}

/// One member of an object: where its key and its value lie in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The key's bytes, without quotes.
    pub key: Range<u32>,
    /// The value's bytes; a string keeps its quotes.
    pub value: Range<u32>,
    /// What the value is.
    pub kind: ValueKind,
}

impl Member {
    /// The key as written.
    pub fn key_of<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        &text[self.key.start as usize..self.key.end as usize]
    }

    /// The value as written.
    pub fn value_of<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        &text[self.value.start as usize..self.value.end as usize]
    }
}

/// A cursor over JSON text. The flags tell what the text read so far is.
pub struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    /// True while everything read is in the insertion-order canonical form.
    pub normal: bool,
    /// True while every object read had its keys in strictly ascending order.
    pub sorted: bool,
    /// True once an escape was met: without one, every string stands for itself.
    pub escapes: bool,
}

impl<'a> Scanner<'a> {
    /// Starts at the first byte of `text`. Positions are kept as `u32`: callers limit bodies far below.
    pub fn new(text: &'a [u8]) -> Scanner<'a> {
        Scanner {
            text,
            at: 0,
            normal: true,
            sorted: true,
            escapes: false,
        }
    }

    /// Where the scanner stands.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Goes on at `position`, which must be where a token starts.
    pub fn jump(&mut self, position: usize) {
        self.at = position;
    }

    /// Ends the text: only white space may follow.
    pub fn end(&mut self) -> Result<(), JsonError> {
        self.skip_space();
        if self.at == self.text.len() {
            Ok(())
        } else {
            self.fail("text goes on after the value")
        }
    }

    /// Reads one object and reports each member. The sorted flag is not touched by this object's own
    /// key order, only by objects inside its values: the caller decides what order it needs.
    pub fn members(
        &mut self,
        depth: u32,
        mut each: impl FnMut(&mut Self, Member) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        let mut more = self.enter_object(depth)?;
        while more {
            let key = self.next_key()?;
            let start = self.at as u32;
            let kind = self.value(depth + 1)?;
            let value = start..self.at as u32;
            each(self, Member { key, value, kind })?;
            more = self.after_value()?;
        }
        Ok(())
    }

    /// Steps into an object at `depth`; false when it is empty and has been read.
    pub fn enter_object(&mut self, depth: u32) -> Result<bool, JsonError> {
        self.open(b'{', depth)?;
        self.skip_space();
        Ok(!self.take(b'}'))
    }

    /// Reads the next key and stands before its value.
    pub fn next_key(&mut self) -> Result<Range<u32>, JsonError> {
        self.skip_space();
        let key = self.key()?;
        self.skip_space();
        Ok(key)
    }

    /// Reads what follows a member's value; false when the object has ended.
    pub fn after_value(&mut self) -> Result<bool, JsonError> {
        self.skip_space();
        if self.take(b'}') {
            return Ok(false);
        }
        if self.take(b',') {
            Ok(true)
        } else {
            self.fail("expected , or } in an object")
        }
    }

    /// Reads any value.
    pub fn value(&mut self, depth: u32) -> Result<ValueKind, JsonError> {
        match self.peek() {
            Some(b'"') => self.string().map(|_| ValueKind::String),
            Some(b'{') => self.object(depth).map(|()| ValueKind::Object),
            Some(b'[') => self.array(depth).map(|()| ValueKind::Array),
            Some(b't') => self.literal(b"true").map(|()| ValueKind::Bool),
            Some(b'f') => self.literal(b"false").map(|()| ValueKind::Bool),
            Some(b'n') => self.literal(b"null").map(|()| ValueKind::Null),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) => self.fail("expected a value"),
            None => self.fail("text ends inside a value"),
        }
    }

    /// White space before the next token; its presence means the text is not normal.
    pub fn skip_space(&mut self) {
        while self.peek().is_some_and(is_space) {
            self.normal = false;
            self.at += 1;
        }
    }

    /// White space and one comma between two items of an array that was scanned before.
    pub fn skip_separator(&mut self) {
        self.skip_space();
        self.take(b',');
    }

    /// The next byte.
    pub fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn object(&mut self, depth: u32) -> Result<(), JsonError> {
        let text = self.text;
        let mut previous: Option<Range<u32>> = None;
        self.members(depth, |scanner, member| {
            if let Some(previous) = &previous {
                scanner.note_order(
                    &text[previous.start as usize..previous.end as usize],
                    member.key_of(text),
                );
            }
            previous = Some(member.key);
            Ok(())
        })
    }

    /// Clears the sorted flag unless `next` comes strictly after `previous`. Keys with escapes are left
    /// to the slow road: their code points are not their bytes.
    pub fn note_order(&mut self, previous: &[u8], next: &[u8]) {
        let escaped = self.escapes && (next.contains(&b'\\') || previous.contains(&b'\\'));
        if previous >= next || escaped {
            self.sorted = false;
        }
    }

    fn array(&mut self, depth: u32) -> Result<(), JsonError> {
        self.open(b'[', depth)?;
        self.skip_space();
        if self.take(b']') {
            return Ok(());
        }
        loop {
            self.skip_space();
            self.value(depth + 1)?;
            self.skip_space();
            if self.take(b']') {
                return Ok(());
            }
            if !self.take(b',') {
                return self.fail("expected , or ] in an array");
            }
        }
    }

    fn open(&mut self, bracket: u8, depth: u32) -> Result<(), JsonError> {
        if depth >= DEPTH_MAX {
            return self.fail("nested too deeply");
        }
        if self.take(bracket) {
            Ok(())
        } else {
            self.fail("expected an object")
        }
    }

    fn key(&mut self) -> Result<Range<u32>, JsonError> {
        if self.peek() != Some(b'"') {
            return self.fail("expected a key in quotes");
        }
        let key = self.string()?;
        self.skip_space();
        if self.take(b':') {
            Ok(key)
        } else {
            self.fail("expected : after a key")
        }
    }

    /// Reads a string and returns the range inside its quotes.
    fn string(&mut self) -> Result<Range<u32>, JsonError> {
        self.at += 1;
        let start = self.at;
        loop {
            self.at += plain_prefix(&self.text[self.at..]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(start as u32..(self.at - 1) as u32);
                }
                Some(b'\\') => self.escape()?,
                Some(0x7F..) => {
                    self.normal = false;
                    self.at += 1;
                }
                Some(_) => return self.fail("control character inside a string"),
                None => return self.fail("text ends inside a string"),
            }
        }
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        self.escapes = true;
        match self.text.get(self.at + 1) {
            Some(b'"' | b'\\' | b'n' | b'r' | b't' | b'b' | b'f') => self.at += 2,
            Some(b'/') => {
                self.normal = false;
                self.at += 2;
            }
            Some(b'u') => self.unicode_escape()?,
            _ => return self.fail("unknown escape"),
        }
        Ok(())
    }

    fn unicode_escape(&mut self) -> Result<(), JsonError> {
        let unit = self.code_unit(self.at)?;
        self.at += 6;
        match unit {
            0xDC00..=0xDFFF => return self.fail("lone surrogate"),
            0xD800..=0xDBFF => {
                let second = if self.text.get(self.at) == Some(&b'\\') {
                    self.code_unit(self.at)?
                } else {
                    0
                };
                if !(0xDC00..=0xDFFF).contains(&second) {
                    return self.fail("lone surrogate");
                }
                self.at += 6;
            }
            // These have a short escape or stand for themselves in the canonical form.
            0x08 | 0x09 | 0x0A | 0x0C | 0x0D | 0x20..=0x7E => self.normal = false,
            _ => {}
        }
        Ok(())
    }

    /// The code unit of the `\u` escape with four hex digits at `at`; upper-case hex clears the normal flag.
    fn code_unit(&mut self, at: usize) -> Result<u32, JsonError> {
        let Some([b'\\', b'u', digits @ ..]) = self.text.get(at..at + 6) else {
            return self.fail("expected a \\u escape");
        };
        let mut unit = 0;
        for digit in digits {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                b'A'..=b'F' => {
                    self.normal = false;
                    digit - b'A' + 10
                }
                _ => return self.fail("bad hex digit in a \\u escape"),
            };
            unit = unit << 4 | u32::from(value);
        }
        Ok(unit)
    }

    fn number(&mut self) -> Result<ValueKind, JsonError> {
        let start = self.at;
        let negative = self.take(b'-');
        let whole = self.digits()?;
        let leading_zero = self.text[self.at - whole] == b'0';
        if leading_zero && whole > 1 {
            return self.fail("a number may not start with 0");
        }
        let fraction = if self.take(b'.') {
            Some(self.digits()?)
        } else {
            None
        };
        let exponent = matches!(self.peek(), Some(b'e' | b'E'));
        if exponent {
            self.at += 1;
            if !self.take(b'+') {
                self.take(b'-');
            }
            self.digits()?;
        }
        if fraction.is_none() && !exponent {
            // Python reads -0 as the integer 0.
            self.normal &= !(negative && leading_zero);
            return Ok(ValueKind::Integer);
        }
        self.float(start, whole, leading_zero, fraction.filter(|_| !exponent))?;
        Ok(ValueKind::Float)
    }

    /// Decides whether the float that ends here is written canonically. A decimal of at most 15
    /// significant digits without trailing zeros is its own shortest form, so the common case needs no
    /// conversion.
    fn float(
        &mut self,
        start: usize,
        whole: usize,
        leading_zero: bool,
        fraction: Option<usize>,
    ) -> Result<(), JsonError> {
        let text = &self.text[start..self.at];
        if let Some(fraction) = fraction
            && whole + fraction <= 15
        {
            let digits = &text[text.len() - fraction..];
            let trailing_zero = fraction > 1 && digits[fraction - 1] == b'0';
            let tiny = leading_zero && digits.starts_with(b"0000") && fraction > 4;
            self.normal &= !trailing_zero && !tiny;
            return Ok(());
        }
        let text = std::str::from_utf8(text).expect("a number is ASCII");
        let value: f64 = text.parse().map_err(|_| JsonError {
            at: start,
            cause: "bad number",
        })?;
        if !value.is_finite() {
            return Err(JsonError {
                at: start,
                cause: "number is too big for a float",
            });
        }
        let mut canonical = Vec::with_capacity(24);
        crate::canonical_json::push_f64(&mut canonical, value);
        self.normal &= canonical == text.as_bytes();
        Ok(())
    }

    fn digits(&mut self) -> Result<usize, JsonError> {
        let count = self.text[self.at..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if count == 0 {
            return self.fail("expected a digit");
        }
        self.at += count;
        Ok(count)
    }

    fn literal(&mut self, word: &'static [u8]) -> Result<(), JsonError> {
        if self.text[self.at..].starts_with(word) {
            self.at += word.len();
            Ok(())
        } else {
            self.fail("expected true, false or null")
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn fail<T>(&self, cause: &'static str) -> Result<T, JsonError> {
        Err(JsonError { at: self.at, cause })
    }
}

/// How many bytes from the start stand for themselves in a canonical string.
#[inline]
fn plain_prefix(text: &[u8]) -> usize {
    let mut at = 0;
    // Many bytes at a time, without a branch for each.
    while text.get(at..at + 32).is_some_and(all_plain) {
        at += 32;
    }
    // Eight bytes at a time: a set high bit marks a byte that needs a closer look.
    while let Some(chunk) = text.get(at..at + 8) {
        let word = u64::from_le_bytes(chunk.try_into().expect("eight bytes"));
        let special = special_bytes(word);
        if special != 0 {
            return at + (special.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    at + text[at..]
        .iter()
        .take_while(|byte| is_plain(**byte))
        .count()
}

/// Marks bytes below 0x20, above 0x7E, `"` and `\`. The lowest mark is exact; marks above it may be
/// false because of borrows, which is why only the lowest is used.
#[inline]
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let zero = |value: u64| value.wrapping_sub(ONES) & !value;
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    let quote = zero(word ^ (ONES * u64::from(b'"')));
    let backslash = zero(word ^ (ONES * u64::from(b'\\')));
    let delete = zero(word ^ (ONES * 0x7F));
    (control | quote | backslash | delete | word) & HIGH
}

/// White space of JSON.
pub fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical_json::to_ij;
    use proptest::prelude::*;
    use serde_json::Value;

    fn scan(text: &str) -> Result<(bool, bool), JsonError> {
        let mut scanner = Scanner::new(text.as_bytes());
        scanner.skip_space();
        scanner.value(0)?;
        scanner.end()?;
        Ok((scanner.normal, scanner.sorted))
    }

    #[test]
    fn canonical_text_is_normal_and_sorted() {
        for text in [
            r#"{"a":1,"b":[true,null,-5,0.5,25.99,100.0,1e-05,1e+16,"x\n\u00e9\ud83d\ude00"]}"#,
            "\"\"",
            "0",
            "-1",
            "0.0",
            "0.0001",
            "123456789012345678901234567890",
        ] {
            assert_eq!(scan(text), Ok((true, true)), "{text}");
        }
    }

    #[test]
    fn other_spellings_are_valid_but_not_normal() {
        for text in [
            " 1",
            "[1, 2]",
            "{\"a\" :1}",
            "\"\\/\"",
            "\"\\u0041\"",
            "\"\\u000a\"",
            "\"\\u00E9\"",
            "\"é\"",
            "\"\u{7f}\"",
            "-0",
            "1.50",
            "1e5",
            "1E+16",
            "0.00001",
            "1e-5",
            "1.0e0",
            "10000000000000000.0",
            "1.00",
        ] {
            assert_eq!(scan(text).map(|flags| flags.0), Ok(false), "{text}");
        }
    }

    #[test]
    fn key_order_and_repeats_are_noticed_at_every_level() {
        assert_eq!(scan(r#"{"b":1,"a":2}"#), Ok((true, false)));
        assert_eq!(scan(r#"[{"a":1,"a":2}]"#), Ok((true, false)));
        assert_eq!(scan(r#"{"a":{"c":1,"b":2},"b":3}"#), Ok((true, false)));
    }

    #[test]
    fn garbage_is_refused() {
        for text in [
            "",
            "{",
            "[1,]",
            "{\"a\":}",
            "{a:1}",
            "NaN",
            "Infinity",
            "-",
            "01",
            "1.",
            ".5",
            "1e",
            "1e400",
            "-1e999",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\\ud800\\u0041\"",
            "\"\\udc00\"",
            "\"\n\"",
            "tru",
            "1 2",
            "\"a",
            "\"\\u12\"",
        ] {
            assert!(scan(text).is_err(), "{text:?}");
        }
        assert!(scan(&"[".repeat(100_000)).is_err());
        let deepest = "[".repeat(DEPTH_MAX as usize) + &"]".repeat(DEPTH_MAX as usize);
        assert!(scan(&deepest).is_ok());
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            (-1e6..1e6f64).prop_map(|v| Value::from((v * 100.0).round() / 100.0)),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_the_canonical_writer_writes_is_normal(value in any_json()) {
            let text = to_ij(&value).unwrap();
            prop_assert_eq!(scan(&text).map(|flags| flags.0), Ok(true));
        }

        #[test]
        fn normal_text_is_a_fixed_point_of_the_canonical_writer(value in any_json(), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&value).unwrap() } else { serde_json::to_string(&value).unwrap() };
            let (normal, _) = scan(&text).unwrap();
            let parsed: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(normal, to_ij(&parsed).unwrap() == text);
        }

        #[test]
        fn no_text_makes_the_scanner_panic(bytes: Vec<u8>) {
            let mut scanner = Scanner::new(&bytes);
            let _ = scanner.value(0).and_then(|_| scanner.end());
        }

        #[test]
        fn the_wide_prefix_agrees_with_the_narrow_one(bytes: Vec<u8>) {
            let narrow = bytes.iter().take_while(|byte| crate::canonical_json::is_plain(**byte)).count();
            prop_assert_eq!(plain_prefix(&bytes), narrow);
        }
    }
}
