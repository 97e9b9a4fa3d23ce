//! Payload schemas compiled for checking scanned JSON bytes, without building a tree (contract 7.6).
//!
//! Understands the part of JSON Schema 2020-12 that payload schemas are written in: `type`, `properties`,
//! `required`, `additionalProperties`, `items`, `enum`, `const`, `pattern`, `minimum`, `maximum`,
//! `minLength`, `maxLength`, `anyOf`, local `$ref`, and `nullable` beside either. `format` is an annotation
//! and never asserted. A keyword that is not understood stops the start: a rule must not be skipped
//! silently.

use crate::admission::payload_schema_compiler::Compiler;
use crate::ids::is_hex_bytes;
use crate::json_scan::{Member, Scanner, ValueKind};
use crate::json_tree::decode_string;
use regex::Regex;
use serde_json::Value;
use std::borrow::Cow;

/// Why a schema cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("payload schema at {path}: {cause}")]
pub struct SchemaCompileError {
    /// JSON pointer into the schema.
    pub path: String,
    /// What is wrong.
    pub cause: String,
}

/// The first rule a payload breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaViolation {
    /// Dotted path of the value, `payload` at the top.
    pub path: String,
    /// The rule, in words.
    pub rule: String,
}

/// A compiled payload schema.
#[derive(Debug, Clone)]
pub struct PayloadSchema {
    root: Node,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Node {
    pub(super) types: Option<TypeSet>,
    pub(super) object: Option<ObjectRules>,
    pub(super) items: Option<Box<Node>>,
    pub(super) allowed: Option<Vec<Value>>,
    pub(super) pattern: Option<Pattern>,
    pub(super) minimum: Option<f64>,
    pub(super) maximum: Option<f64>,
    pub(super) length_min: Option<u64>,
    pub(super) length_max: Option<u64>,
    pub(super) any_of: Vec<Node>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct ObjectRules {
    /// Sorted by name.
    pub(super) properties: Vec<Property>,
    pub(super) required_unlisted: Vec<Vec<u8>>,
    pub(super) closed: bool,
}

/// A member that has a rule.
#[derive(Debug, Clone)]
pub(super) struct Property {
    name: Vec<u8>,
    node: Node,
    required: bool,
    /// Whether a text that writes the name as it is means this name: not when it holds a backslash.
    reads_plainly: bool,
    /// A bit for each kind of value that fits whatever the value is.
    fitting_kinds: u8,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TypeSet {
    pub(super) string: bool,
    pub(super) integer: bool,
    pub(super) number: bool,
    pub(super) boolean: bool,
    pub(super) null: bool,
    pub(super) object: bool,
    pub(super) array: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Pattern {
    /// `^[a-f0-9]{n}$`, checked by hand because it is on every event.
    Hex(usize),
    Regex(Regex),
}

impl PayloadSchema {
    /// Compiles a schema document.
    pub fn compile(document: &Value) -> Result<PayloadSchema, SchemaCompileError> {
        let root = Compiler { document }.node(document, "#", 0)?;
        Ok(PayloadSchema { root })
    }

    /// Checks an object whose members have been scanned.
    pub fn check_members(&self, text: &[u8], members: &[Member]) -> Result<(), SchemaViolation> {
        match self.member_rules() {
            Some(rules) => rules.check(text, members).map_err(below("payload")),
            None => {
                let mut rebuilt = vec![b'{'];
                for (index, member) in members.iter().enumerate() {
                    if index > 0 {
                        rebuilt.push(b',');
                    }
                    rebuilt.push(b'"');
                    rebuilt.extend_from_slice(member.key_of(text));
                    rebuilt.extend_from_slice(b"\":");
                    rebuilt.extend_from_slice(member.value_of(text));
                }
                rebuilt.push(b'}');
                let checked = self.root.check(&rebuilt, ValueKind::Object);
                checked.map_err(below("payload"))
            }
        }
    }

    /// The same for an object of the same keys as one that passed, whose values were the same but for these
    /// members; a bit for each from the first on.
    pub fn check_values(
        &self,
        text: &[u8],
        members: &[Member],
        changed: u64,
    ) -> Result<(), SchemaViolation> {
        let Some(rules) = self.member_rules() else {
            return self.check_members(text, members);
        };
        let mut left = changed;
        while left != 0 {
            let place = left.trailing_zeros() as usize;
            left &= left - 1;
            rules
                .check_value(text, &members[place], place)
                .map_err(below("payload"))?;
        }
        Ok(())
    }

    /// The rules, when they are about members only.
    fn member_rules(&self) -> Option<&ObjectRules> {
        let shallow = self.root.any_of.is_empty() && self.root.allowed.is_none();
        let objects = self.root.types.is_none_or(|types| types.object);
        self.root.object.as_ref().filter(|_| shallow && objects)
    }
}

impl TypeSet {
    fn admits(self, kind: ValueKind, text: &[u8]) -> bool {
        match kind {
            ValueKind::String => self.string,
            ValueKind::Integer => self.integer || self.number,
            // An integer-valued float satisfies `integer` (contract 0.2, schema note).
            ValueKind::Float => self.number || (self.integer && as_f64(text).fract() == 0.0),
            ValueKind::Bool => self.boolean,
            ValueKind::Null => self.null,
            ValueKind::Object => self.object,
            ValueKind::Array => self.array,
        }
    }
}

impl Node {
    /// Paths of violations are relative to this value.
    fn check(&self, text: &[u8], kind: ValueKind) -> Result<(), SchemaViolation> {
        if self.types.is_some_and(|types| !types.admits(kind, text)) {
            return broken(format!("has the wrong type ({kind:?})"));
        }
        if let Some(allowed) = &self.allowed
            && !allowed.iter().any(|value| equals(value, text, kind))
        {
            return broken("is not one of the allowed values");
        }
        let fits = |option: &Node| option.check(text, kind).is_ok();
        if !self.any_of.is_empty() && !self.any_of.iter().any(fits) {
            return broken("fits none of the alternatives");
        }
        match kind {
            ValueKind::String => self.check_string(text),
            ValueKind::Integer | ValueKind::Float => self.check_number(text),
            ValueKind::Object => self.check_object(text),
            ValueKind::Array => self.check_array(text),
            ValueKind::Bool | ValueKind::Null => Ok(()),
        }
    }

    fn check_string(&self, text: &[u8]) -> Result<(), SchemaViolation> {
        let raw = &text[1..text.len() - 1];
        if self.length_min.is_some() || self.length_max.is_some() {
            self.check_length(&decoded(raw))?;
        }
        let matches = match &self.pattern {
            None => true,
            // Hex digits stand for themselves in canonical text.
            Some(Pattern::Hex(length)) => is_hex_bytes(raw, *length),
            Some(Pattern::Regex(regex)) => regex.is_match(&decoded(raw)),
        };
        match matches {
            true => Ok(()),
            false => broken("does not match its pattern"),
        }
    }

    fn check_length(&self, value: &str) -> Result<(), SchemaViolation> {
        let characters = value.chars().count() as u64;
        if self.length_min.is_some_and(|min| characters < min)
            || self.length_max.is_some_and(|max| characters > max)
        {
            return broken(format!("has {characters} characters"));
        }
        Ok(())
    }

    fn check_number(&self, text: &[u8]) -> Result<(), SchemaViolation> {
        if self.minimum.is_none() && self.maximum.is_none() {
            return Ok(());
        }
        let value = as_f64(text);
        if self.minimum.is_some_and(|min| value < min)
            || self.maximum.is_some_and(|max| value > max)
        {
            return broken("is out of range");
        }
        Ok(())
    }

    fn check_object(&self, text: &[u8]) -> Result<(), SchemaViolation> {
        match &self.object {
            Some(rules) => rules.check(text, &scan_members(text)),
            None => Ok(()),
        }
    }

    fn check_array(&self, text: &[u8]) -> Result<(), SchemaViolation> {
        let Some(items) = &self.items else {
            return Ok(());
        };
        let mut scanner = Scanner::new(&text[1..]);
        for index in 0.. {
            scanner.skip_space();
            if scanner.peek() == Some(b']') {
                break;
            }
            let start = scanner.position();
            let Ok(kind) = scanner.value(1) else {
                break;
            };
            let item = &text[1 + start..1 + scanner.position()];
            items
                .check(item, kind)
                .map_err(|violation| violation.below(&format!("[{index}]")))?;
            scanner.skip_separator();
        }
        Ok(())
    }
}

impl ObjectRules {
    fn check(&self, text: &[u8], members: &[Member]) -> Result<(), SchemaViolation> {
        let required = self.properties.iter().filter(|property| property.required);
        let mut missing = required.count();
        // Members and rules are both sorted, so the rule is nearly always the next one.
        let mut next = 0;
        for member in members {
            match self.property(member.key_of(text), next) {
                Some(index) => {
                    next = index + 1;
                    missing -= usize::from(self.properties[index].required);
                    self.properties[index].check(text, member)?;
                }
                None if self.closed => {
                    return broken("is not a known field").map_err(below_key(member.key_of(text)));
                }
                None => {}
            }
        }
        if missing > 0 || !self.required_unlisted.is_empty() {
            return self.name_missing(text, members);
        }
        Ok(())
    }

    /// One member whose key was allowed before; its rule is likely the one at `guess`.
    fn check_value(
        &self,
        text: &[u8],
        member: &Member,
        guess: usize,
    ) -> Result<(), SchemaViolation> {
        match self.property(member.key_of(text), guess) {
            Some(index) => self.properties[index].check(text, member),
            None => Ok(()),
        }
    }

    /// Where the rule for a key is, which may hold escapes; `guess` is looked at first.
    fn property(&self, raw: &[u8], guess: usize) -> Option<usize> {
        match self.properties.get(guess) {
            Some(property) if property.reads_plainly && property.name == raw => Some(guess),
            _ => {
                let key = decode_string(raw);
                let by_name = |property: &Property| property.name.as_slice().cmp(key.as_bytes());
                self.properties.binary_search_by(by_name).ok()
            }
        }
    }

    fn name_missing(&self, text: &[u8], members: &[Member]) -> Result<(), SchemaViolation> {
        let has = |key: &[u8]| {
            members
                .iter()
                .any(|member| decode_string(member.key_of(text)).as_bytes() == key)
        };
        let listed = self
            .properties
            .iter()
            .filter(|property| property.required)
            .map(|property| &property.name);
        for key in listed.chain(&self.required_unlisted) {
            if !has(key) {
                return broken("is required")
                    .map_err(below(&format!(".{}", String::from_utf8_lossy(key))));
            }
        }
        Ok(())
    }
}

impl Property {
    pub(super) fn new(name: Vec<u8>, node: Node, required: bool) -> Property {
        let fitting = ValueKind::ALL.iter().filter(|kind| node.fits_any(**kind));
        Property {
            reads_plainly: !name.contains(&b'\\'),
            fitting_kinds: fitting.fold(0, |bits, kind| bits | bit(*kind)),
            name,
            node,
            required,
        }
    }

    fn check(&self, text: &[u8], member: &Member) -> Result<(), SchemaViolation> {
        if self.fitting_kinds & bit(member.kind) != 0 {
            return Ok(());
        }
        let checked = self.node.check(member.value_of(text), member.kind);
        checked.map_err(below_key(member.key_of(text)))
    }
}

fn bit(kind: ValueKind) -> u8 {
    1 << kind as u8
}

impl Node {
    /// True when every value of this kind keeps the rule.
    fn fits_any(&self, kind: ValueKind) -> bool {
        let plain = match kind {
            ValueKind::String => {
                self.pattern.is_none() && self.length_min.is_none() && self.length_max.is_none()
            }
            ValueKind::Integer => self.minimum.is_none() && self.maximum.is_none(),
            // Whether one counts as an integer is for its value to say.
            ValueKind::Float => {
                let number = self.types.is_none_or(|types| types.number);
                number && self.minimum.is_none() && self.maximum.is_none()
            }
            ValueKind::Object => self.object.is_none(),
            ValueKind::Array => self.items.is_none(),
            ValueKind::Bool | ValueKind::Null => true,
        };
        plain
            && self.any_of.is_empty()
            && self.allowed.is_none()
            && self.types.is_none_or(|types| types.admits(kind, b""))
    }
}

fn broken(rule: impl Into<String>) -> Result<(), SchemaViolation> {
    Err(SchemaViolation {
        path: String::new(),
        rule: rule.into(),
    })
}

impl SchemaViolation {
    /// The violation as seen from the value that `step` leads from.
    fn below(mut self, step: &str) -> SchemaViolation {
        self.path.insert_str(0, step);
        self
    }
}

fn below(step: &str) -> impl FnOnce(SchemaViolation) -> SchemaViolation {
    move |violation| violation.below(step)
}

fn below_key(raw: &[u8]) -> impl FnOnce(SchemaViolation) -> SchemaViolation {
    move |violation| violation.below(&format!(".{}", decode_string(raw)))
}

/// The text of a string that was accepted, without its quotes.
fn decoded(raw: &[u8]) -> Cow<'_, str> {
    match raw.contains(&b'\\') {
        true => Cow::Owned(decode_string(raw)),
        false => Cow::Borrowed(std::str::from_utf8(raw).unwrap_or_default()),
    }
}

fn as_f64(text: &[u8]) -> f64 {
    // Up to 15 digits are exact, and most numbers of events are that short.
    if text.len() <= 15 && text.iter().all(u8::is_ascii_digit) {
        let digits = text.iter().map(|digit| u64::from(digit - b'0'));
        return digits.fold(0, |number, digit| number * 10 + digit) as f64;
    }
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(f64::NAN)
}

fn equals(value: &Value, text: &[u8], kind: ValueKind) -> bool {
    match (value, kind) {
        (Value::String(want), ValueKind::String) => {
            decode_string(&text[1..text.len() - 1]) == *want
        }
        (Value::Number(want), ValueKind::Integer | ValueKind::Float) => {
            want.as_f64() == Some(as_f64(text))
        }
        (Value::Bool(want), ValueKind::Bool) => (text[0] == b't') == *want,
        (Value::Null, ValueKind::Null) => true,
        _ => false,
    }
}

/// The members of an object that has been scanned before.
pub fn scan_members(text: &[u8]) -> Vec<Member> {
    let mut members = Vec::new();
    // The text was accepted as a whole, so its parts cannot fail.
    let _ = Scanner::new(text).members(0, |_, member| {
        members.push(member);
        Ok(())
    });
    members
}

#[cfg(test)]
#[path = "payload_schema_tests.rs"]
mod tests;
