//! Compiles a payload schema document into rules (contract 7.6). A keyword that is not understood is an
//! error: a rule must not be skipped silently.

use crate::admission::payload_schema::{
    Node, ObjectRules, Pattern, Property, SchemaCompileError, TypeSet,
};
use regex::Regex;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

pub(super) struct Compiler<'a> {
    pub(super) document: &'a Value,
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
    pub(super) fn node(
        &self,
        schema: &Value,
        path: &str,
        depth: u32,
    ) -> Result<Node, SchemaCompileError> {
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
            let property = Property::new(key, node, listed.is_some());
            rules.properties.push(property);
            if let Some(listed) = listed {
                required.swap_remove(listed);
            }
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
