//! Payload schemas compiled for checking scanned JSON bytes, without building a tree (contract 7.6).
//!
//! Understands the part of JSON Schema 2020-12 that payload schemas are written in: `type`, `properties`,
//! `required`, `additionalProperties`, `items`, `enum`, `const`, `pattern`, `minimum`, `maximum`,
//! `minLength`, `maxLength`, `anyOf`, local `$ref`, and `nullable` beside either. `format` is an annotation
//! and never asserted. A keyword that is not understood stops the start: a rule must not be skipped
//! silently.

use crate::json_scan::{Member, Scanner, ValueKind};
use crate::json_tree::decode_string;
use regex::Regex;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

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
struct Node {
    types: Option<TypeSet>,
    object: Option<ObjectRules>,
    items: Option<Box<Node>>,
    allowed: Option<Vec<Value>>,
    pattern: Option<Pattern>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    length_min: Option<u64>,
    length_max: Option<u64>,
    any_of: Vec<Node>,
}

#[derive(Debug, Clone, Default)]
struct ObjectRules {
    /// Sorted by key.
    properties: Vec<(Vec<u8>, Node)>,
    /// Per property: must it be there?
    required: Vec<bool>,
    required_unlisted: Vec<Vec<u8>>,
    closed: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct TypeSet {
    string: bool,
    integer: bool,
    number: bool,
    boolean: bool,
    null: bool,
    object: bool,
    array: bool,
}

#[derive(Debug, Clone)]
enum Pattern {
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
        let shallow = self.root.any_of.is_empty() && self.root.allowed.is_none();
        match &self.root.object {
            Some(rules) if shallow && self.root.types.is_none_or(|types| types.object) => {
                rules.check(text, members, "payload")
            }
            _ => {
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
                self.root.check(&rebuilt, ValueKind::Object, "payload")
            }
        }
    }
}

struct Compiler<'a> {
    document: &'a Value,
}

/// Keywords that carry no rule.
const ANNOTATIONS: [&str; 11] = [
    "$schema",
    "$id",
    "$defs",
    "$comment",
    "title",
    "description",
    "format",
    "examples",
    "default",
    "nullable",
    "deprecated",
];

impl Compiler<'_> {
    fn node(&self, schema: &Value, path: &str, depth: u32) -> Result<Node, SchemaCompileError> {
        if depth > 32 {
            return fail(path, "nested or recursive too deeply");
        }
        let members = match schema {
            Value::Bool(true) => return Ok(Node::default()),
            Value::Object(members) => members,
            _ => return fail(path, "a schema is an object or true"),
        };
        if let Some(reference) = members.get("$ref") {
            let node = self.reference(reference, path, depth)?;
            return Ok(if is_nullable(members) {
                or_null(node)
            } else {
                node
            });
        }
        let mut node = Node::default();
        for (keyword, value) in members {
            self.keyword(&mut node, keyword, value, path, depth)?;
        }
        if ["properties", "required", "additionalProperties"]
            .iter()
            .any(|keyword| members.contains_key(*keyword))
        {
            node.object = Some(self.object(members, path, depth)?);
        }
        if is_nullable(members)
            && let Some(types) = &mut node.types
        {
            types.null = true;
        }
        Ok(node)
    }

    fn keyword(
        &self,
        node: &mut Node,
        keyword: &str,
        value: &Value,
        path: &str,
        depth: u32,
    ) -> Result<(), SchemaCompileError> {
        match keyword {
            "type" => node.types = Some(type_set(value, path)?),
            "enum" => node.allowed = Some(value.as_array().cloned().unwrap_or_default()),
            "const" => node.allowed = Some(vec![value.clone()]),
            "pattern" => node.pattern = Some(compile_pattern(value, path)?),
            "minimum" => node.minimum = value.as_f64(),
            "maximum" => node.maximum = value.as_f64(),
            "minLength" => node.length_min = value.as_u64(),
            "maxLength" => node.length_max = value.as_u64(),
            "items" => {
                node.items = Some(Box::new(self.node(
                    value,
                    &format!("{path}/items"),
                    depth + 1,
                )?))
            }
            "anyOf" => {
                for (index, option) in value.as_array().into_iter().flatten().enumerate() {
                    node.any_of.push(self.node(
                        option,
                        &format!("{path}/anyOf/{index}"),
                        depth + 1,
                    )?);
                }
            }
            "properties" | "required" | "additionalProperties" => {}
            annotation if ANNOTATIONS.contains(&annotation) => {}
            unknown => return fail(path, &format!("keyword {unknown} is not supported")),
        }
        Ok(())
    }

    fn reference(
        &self,
        reference: &Value,
        path: &str,
        depth: u32,
    ) -> Result<Node, SchemaCompileError> {
        let target = reference.as_str().and_then(|text| text.strip_prefix('#'));
        match target.and_then(|pointer| self.document.pointer(pointer)) {
            Some(schema) => self.node(schema, path, depth + 1),
            None => fail(path, "$ref must point inside this document"),
        }
    }

    fn object(
        &self,
        members: &Map<String, Value>,
        path: &str,
        depth: u32,
    ) -> Result<ObjectRules, SchemaCompileError> {
        let mut required: Vec<&str> = members
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let mut properties = BTreeMap::new();
        for (key, schema) in members
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            properties.insert(
                key.as_bytes().to_vec(),
                self.node(schema, &format!("{path}/properties/{key}"), depth + 1)?,
            );
        }
        let mut rules = ObjectRules {
            closed: members.get("additionalProperties") == Some(&Value::Bool(false)),
            ..Default::default()
        };
        for (key, node) in properties {
            let listed = required.iter().position(|name| name.as_bytes() == key);
            rules.required.push(listed.is_some());
            if let Some(listed) = listed {
                required.swap_remove(listed);
            }
            rules.properties.push((key, node));
        }
        rules.required_unlisted = required
            .into_iter()
            .map(|key| key.as_bytes().to_vec())
            .collect();
        if !matches!(
            members.get("additionalProperties"),
            None | Some(Value::Bool(_))
        ) {
            return fail(path, "additionalProperties must be true or false");
        }
        Ok(rules)
    }
}

fn fail<T>(path: &str, cause: &str) -> Result<T, SchemaCompileError> {
    Err(SchemaCompileError {
        path: path.to_owned(),
        cause: cause.to_owned(),
    })
}

fn is_nullable(members: &Map<String, Value>) -> bool {
    members.get("nullable") == Some(&Value::Bool(true))
}

fn or_null(node: Node) -> Node {
    let null = Node {
        types: Some(TypeSet {
            null: true,
            ..TypeSet::default()
        }),
        ..Node::default()
    };
    Node {
        any_of: vec![node, null],
        ..Node::default()
    }
}

fn type_set(value: &Value, path: &str) -> Result<TypeSet, SchemaCompileError> {
    let names: Vec<&str> = match value {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let mut types = TypeSet::default();
    for name in &names {
        match *name {
            "string" => types.string = true,
            "integer" => types.integer = true,
            "number" => types.number = true,
            "boolean" => types.boolean = true,
            "null" => types.null = true,
            "object" => types.object = true,
            "array" => types.array = true,
            _ => return fail(path, "unknown type"),
        }
    }
    if names.is_empty() {
        fail(path, "type names no type")
    } else {
        Ok(types)
    }
}

fn compile_pattern(value: &Value, path: &str) -> Result<Pattern, SchemaCompileError> {
    let text = value.as_str().unwrap_or_default();
    let hex_length = text
        .strip_prefix("^[a-f0-9]{")
        .and_then(|rest| rest.strip_suffix("}$"));
    if let Some(length) = hex_length.and_then(|digits| digits.parse().ok()) {
        return Ok(Pattern::Hex(length));
    }
    Regex::new(text)
        .map(Pattern::Regex)
        .or_else(|_| fail(path, "pattern is not a regular expression"))
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
    fn check(&self, text: &[u8], kind: ValueKind, path: &str) -> Result<(), SchemaViolation> {
        if self.types.is_some_and(|types| !types.admits(kind, text)) {
            return broken(path, format!("has the wrong type ({kind:?})"));
        }
        if let Some(allowed) = &self.allowed
            && !allowed.iter().any(|value| equals(value, text, kind))
        {
            return broken(path, "is not one of the allowed values".to_owned());
        }
        if !self.any_of.is_empty()
            && !self
                .any_of
                .iter()
                .any(|option| option.check(text, kind, path).is_ok())
        {
            return broken(path, "fits none of the alternatives".to_owned());
        }
        match kind {
            ValueKind::String => self.check_string(text, path),
            ValueKind::Integer | ValueKind::Float => self.check_number(text, path),
            ValueKind::Object => self.check_object(text, path),
            ValueKind::Array => self.check_array(text, path),
            ValueKind::Bool | ValueKind::Null => Ok(()),
        }
    }

    fn check_string(&self, text: &[u8], path: &str) -> Result<(), SchemaViolation> {
        if self.pattern.is_none() && self.length_min.is_none() && self.length_max.is_none() {
            return Ok(());
        }
        let raw = &text[1..text.len() - 1];
        let decoded;
        let value = if raw.contains(&b'\\') {
            decoded = decode_string(raw);
            decoded.as_str()
        } else {
            std::str::from_utf8(raw).unwrap_or_default()
        };
        let characters = if value.is_ascii() {
            value.len()
        } else {
            value.chars().count()
        } as u64;
        if self.length_min.is_some_and(|min| characters < min)
            || self.length_max.is_some_and(|max| characters > max)
        {
            return broken(path, format!("has {characters} characters"));
        }
        let matches = match &self.pattern {
            None => true,
            Some(Pattern::Hex(length)) => crate::ids::is_hex(value, *length),
            Some(Pattern::Regex(regex)) => regex.is_match(value),
        };
        if matches {
            Ok(())
        } else {
            broken(path, "does not match its pattern".to_owned())
        }
    }

    fn check_number(&self, text: &[u8], path: &str) -> Result<(), SchemaViolation> {
        if self.minimum.is_none() && self.maximum.is_none() {
            return Ok(());
        }
        let value = as_f64(text);
        if self.minimum.is_some_and(|min| value < min)
            || self.maximum.is_some_and(|max| value > max)
        {
            return broken(path, "is out of range".to_owned());
        }
        Ok(())
    }

    fn check_object(&self, text: &[u8], path: &str) -> Result<(), SchemaViolation> {
        let Some(rules) = &self.object else {
            return Ok(());
        };
        rules.check(text, &scan_members(text), path)
    }

    fn check_array(&self, text: &[u8], path: &str) -> Result<(), SchemaViolation> {
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
            items.check(
                &text[1 + start..1 + scanner.position()],
                kind,
                &format!("{path}[{index}]"),
            )?;
            scanner.skip_separator();
        }
        Ok(())
    }
}

impl ObjectRules {
    fn check(&self, text: &[u8], members: &[Member], path: &str) -> Result<(), SchemaViolation> {
        let mut missing = self.required.iter().filter(|required| **required).count();
        for member in members {
            let raw = member.key_of(text);
            let decoded;
            let key = if raw.contains(&b'\\') {
                decoded = decode_string(raw);
                decoded.as_bytes()
            } else {
                raw
            };
            match self
                .properties
                .binary_search_by(|(name, _)| name.as_slice().cmp(key))
            {
                Ok(index) => {
                    missing -= usize::from(self.required[index]);
                    let (name, node) = &self.properties[index];
                    let value = member.value_of(text);
                    if node.is_trivial(member.kind, value) {
                        continue;
                    }
                    node.check(
                        value,
                        member.kind,
                        &format!("{path}.{}", String::from_utf8_lossy(name)),
                    )?;
                }
                Err(_) if self.closed => {
                    return broken(
                        &format!("{path}.{}", String::from_utf8_lossy(key)),
                        "is not a known field".to_owned(),
                    );
                }
                Err(_) => {}
            }
        }
        if missing > 0 || !self.required_unlisted.is_empty() {
            return self.name_missing(text, members, path);
        }
        Ok(())
    }

    fn name_missing(
        &self,
        text: &[u8],
        members: &[Member],
        path: &str,
    ) -> Result<(), SchemaViolation> {
        let has = |key: &[u8]| {
            members
                .iter()
                .any(|member| decode_string(member.key_of(text)).as_bytes() == key)
        };
        let listed = self
            .properties
            .iter()
            .zip(&self.required)
            .filter(|(_, required)| **required)
            .map(|((key, _), _)| key);
        for key in listed.chain(&self.required_unlisted) {
            if !has(key) {
                return broken(
                    &format!("{path}.{}", String::from_utf8_lossy(key)),
                    "is required".to_owned(),
                );
            }
        }
        Ok(())
    }
}

impl Node {
    /// True when the type is all there is to check and it fits: the common case, without a path text.
    fn is_trivial(&self, kind: ValueKind, value: &[u8]) -> bool {
        let plain = match kind {
            ValueKind::String => {
                self.pattern.is_none() && self.length_min.is_none() && self.length_max.is_none()
            }
            ValueKind::Integer | ValueKind::Float => {
                self.minimum.is_none() && self.maximum.is_none()
            }
            ValueKind::Object => self.object.is_none(),
            ValueKind::Array => self.items.is_none(),
            ValueKind::Bool | ValueKind::Null => true,
        };
        plain
            && self.any_of.is_empty()
            && self.allowed.is_none()
            && self.types.is_none_or(|types| types.admits(kind, value))
    }
}

fn broken(path: &str, rule: String) -> Result<(), SchemaViolation> {
    Err(SchemaViolation {
        path: path.to_owned(),
        rule,
    })
}

fn as_f64(text: &[u8]) -> f64 {
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
mod tests {
    use super::*;
    use serde_json::json;

    fn check(schema: Value, payload: Value) -> Result<(), SchemaViolation> {
        let schema = PayloadSchema::compile(&schema).unwrap();
        let text = crate::canonical_json::to_cj(&payload).unwrap();
        schema.check_members(text.as_bytes(), &scan_members(text.as_bytes()))
    }

    fn row() -> Value {
        json!({"type": "object", "additionalProperties": false, "required": ["id", "name"], "properties": {
            "id": {"type": "integer", "minimum": 1, "maximum": 18446744073709551615u64},
            "name": {"type": "string", "pattern": "^[a-f0-9]{4}$"},
            "note": {"type": ["string", "null"], "maxLength": 3},
            "state": {"enum": ["PASS", "FAIL"]},
            "inner": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]},
            "list": {"type": "array", "items": {"type": "boolean"}},
            "link": {"$ref": "#/$defs/id", "nullable": true}},
            "$defs": {"id": {"type": "string", "minLength": 1}}})
    }

    #[test]
    fn a_fitting_payload_passes() {
        let full = json!({"id": 7.0, "name": "00ff", "note": null, "state": "PASS", "inner": {"x": 1, "y": 2},
            "list": [true, false], "link": null});
        assert_eq!(check(row(), full), Ok(()));
        assert_eq!(
            check(
                row(),
                json!({"id": u64::MAX, "name": "00ff", "note": "äöü", "link": "a"})
            ),
            Ok(())
        );
    }

    #[test]
    fn each_broken_rule_is_named_with_its_path() {
        for (payload, path) in [
            (json!({"name": "00ff"}), "payload.id"),
            (json!({"id": 0, "name": "00ff"}), "payload.id"),
            (json!({"id": 1.5, "name": "00ff"}), "payload.id"),
            (json!({"id": true, "name": "00ff"}), "payload.id"),
            (json!({"id": "1", "name": "00ff"}), "payload.id"),
            (json!({"id": 1, "name": "00FF"}), "payload.name"),
            (
                json!({"id": 1, "name": "00ff", "note": "long"}),
                "payload.note",
            ),
            (
                json!({"id": 1, "name": "00ff", "state": "MAYBE"}),
                "payload.state",
            ),
            (
                json!({"id": 1, "name": "00ff", "inner": {}}),
                "payload.inner.x",
            ),
            (
                json!({"id": 1, "name": "00ff", "list": [true, 1]}),
                "payload.list[1]",
            ),
            (json!({"id": 1, "name": "00ff", "link": ""}), "payload.link"),
            (
                json!({"id": 1, "name": "00ff", "extra": 1}),
                "payload.extra",
            ),
        ] {
            assert_eq!(
                check(row(), payload.clone()).unwrap_err().path,
                path,
                "{payload}"
            );
        }
    }

    #[test]
    fn a_keyword_that_is_not_understood_stops_the_start() {
        let error = PayloadSchema::compile(
            &json!({"type": "object", "properties": {"a": {"multipleOf": 2}}}),
        )
        .unwrap_err();
        assert_eq!(error.path, "#/properties/a");
        assert!(PayloadSchema::compile(&json!({"$ref": "other.json"})).is_err());
        assert!(
            PayloadSchema::compile(
                &json!({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"})
            )
            .is_err()
        );
    }
}
