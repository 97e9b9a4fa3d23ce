//! Reading one section of a profile: each key once, with its default, its limits and its origin.
//!
//! Every problem is collected instead of stopping at the first one. A key nobody asked for is a
//! problem too, so a typing mistake never passes as a default.

use super::findings::Findings;
use super::layers::{Origin, variable_of_key};
use super::placeholders::{PlaceholderError, Resolved, resolve};
use super::secret::{Secret, masked_url};
use serde_json::{Map, Value, json};
use std::ops::RangeInclusive;
use std::time::Duration;

/// How one key is looked up.
#[derive(Clone, Copy)]
pub struct Key {
    name: &'static str,
    variable: Option<&'static str>,
    fallback_variable: Option<&'static str>,
    missing_code: &'static str,
}

/// A key by its name in the section.
pub const fn key(name: &'static str) -> Key {
    Key {
        name,
        variable: None,
        fallback_variable: None,
        missing_code: "ENV_VAR_MISSING",
    }
}

impl Key {
    /// A variable that overrides the profile (contract 9.5).
    pub const fn env(mut self, variable: &'static str) -> Self {
        self.variable = Some(variable);
        self
    }

    /// A variable that counts only when the profile says nothing: endpoints and regions in the
    /// profile beat the environment (T6).
    pub const fn env_fallback(mut self, variable: &'static str) -> Self {
        self.fallback_variable = Some(variable);
        self
    }

    /// The code when its placeholder does not resolve (T9).
    pub const fn missing_code(mut self, code: &'static str) -> Self {
        self.missing_code = code;
        self
    }
}

/// One section being read.
pub struct Section<'f, 'a> {
    findings: &'f Findings<'a>,
    path: String,
    values: Map<String, Value>,
}

impl<'f, 'a> Section<'f, 'a> {
    pub(super) fn new(findings: &'f Findings<'a>, path: String, value: Option<Value>) -> Self {
        let values = match value {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(values)) => values,
            Some(_) => {
                findings.problem("CONFIG_VALUE_INVALID", &path, "must be a section of keys");
                Map::new()
            }
        };
        Section {
            findings,
            path,
            values,
        }
    }

    /// A section inside this one.
    pub fn section(&mut self, name: &str) -> Section<'f, 'a> {
        let value = self.values.remove(name);
        Section::new(self.findings, self.path_of(name), value)
    }

    /// The key path of a name in this section.
    pub fn path_of(&self, name: &str) -> String {
        format!("{}.{name}", self.path)
    }

    /// Adds a problem with a key of this section.
    pub fn problem(&self, code: &str, name: &str, sentence: impl Into<String>) {
        self.findings.problem(code, &self.path_of(name), sentence);
    }

    /// Whether the key has a problem already, so that it is not reported twice.
    pub fn has_problem(&self, name: &str) -> bool {
        self.findings.has_problem(&self.path_of(name))
    }

    /// Whether the file says anything about the key.
    pub fn says(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(|value| !value.is_null())
    }

    /// A text, or `None` when there is none (blank counts as none).
    pub fn optional_text(&mut self, key: Key) -> Option<String> {
        let (value, origin) = self.read_text(key);
        self.in_force(key, json!(value), origin);
        value
    }

    /// A text, or `None`, and where it comes from.
    pub fn optional_text_from(&mut self, key: Key) -> (Option<String>, Origin) {
        let (value, origin) = self.read_text(key);
        self.in_force(key, json!(value), origin.clone());
        (value, origin)
    }

    /// A text with a default.
    pub fn text(&mut self, key: Key, default: &str) -> String {
        let (value, origin) = self.read_text(key);
        let value = value.unwrap_or_else(|| default.to_string());
        self.in_force(key, json!(value), origin);
        value
    }

    /// A secret; shown as `***`.
    pub fn secret(&mut self, key: Key) -> Option<Secret> {
        let (value, origin) = self.read_text(key);
        self.in_force(
            key,
            value.as_ref().map_or(Value::Null, |_| json!("***")),
            origin,
        );
        value.map(Secret::new)
    }

    /// A connection text; shown without its credentials.
    pub fn secret_url(&mut self, key: Key) -> Option<Secret> {
        let (value, origin) = self.read_text(key);
        let shown = value
            .as_deref()
            .map_or(Value::Null, |url| json!(masked_url(url)));
        self.in_force(key, shown, origin);
        value.map(Secret::new)
    }

    /// A whole number within limits.
    pub fn whole(&mut self, key: Key, default: u64, limits: RangeInclusive<u64>) -> u64 {
        let (value, origin) = self.raw(key);
        let number = match &value {
            None => Some(default),
            Some(Value::String(text)) => text.replace('_', "").parse().ok(),
            Some(value) => value.as_u64(),
        };
        let number = match number {
            Some(number) if limits.contains(&number) => number,
            _ => {
                let (low, high) = limits.into_inner();
                self.invalid(key, format!("must be a whole number from {low} to {high}"));
                default
            }
        };
        self.in_force(key, json!(number), origin);
        number
    }

    /// A whole number, or `None` when there is none.
    pub fn optional_whole(&mut self, key: Key, limits: RangeInclusive<u64>) -> Option<u64> {
        if self.peek(key) {
            let default = *limits.start();
            return Some(self.whole(key, default, limits));
        }
        let (_, origin) = self.raw(key);
        self.in_force(key, Value::Null, origin);
        None
    }

    /// A number.
    pub fn number(&mut self, key: Key, default: f64) -> f64 {
        let (value, origin) = self.raw(key);
        let number = match &value {
            None => Some(default),
            Some(Value::String(text)) => text.parse().ok(),
            Some(value) => value.as_f64(),
        };
        let number = match number.filter(|number| number.is_finite()) {
            Some(number) => number,
            None => {
                self.invalid(key, "must be a number");
                default
            }
        };
        self.in_force(key, json!(number), origin);
        number
    }

    /// A switch; `true 1 yes on` and `false 0 no off` are understood.
    pub fn switch(&mut self, key: Key, default: bool) -> bool {
        let (value, origin) = self.raw(key);
        let switch = match value.as_ref().map(text_of) {
            None => Some(default),
            Some(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Some(true),
                "false" | "0" | "no" | "off" => Some(false),
                _ => None,
            },
        };
        let switch = switch.unwrap_or_else(|| {
            self.invalid(key, "must be true or false");
            default
        });
        self.in_force(key, json!(switch), origin);
        switch
    }

    /// A switch, or `None` when nobody says anything.
    pub fn optional_switch(&mut self, key: Key) -> Option<bool> {
        if self.peek(key) {
            return Some(self.switch(key, false));
        }
        let (_, origin) = self.raw(key);
        self.in_force(key, Value::Null, origin);
        None
    }

    /// Seconds, a positive number, as a duration.
    pub fn seconds(&mut self, key: Key, default: f64) -> Duration {
        let seconds = self.number(key, default);
        match (0.001..=86_400.0).contains(&seconds) {
            true => Duration::from_secs_f64(seconds),
            false => {
                self.invalid(key, "must be a number of seconds from 0.001 to 86400");
                Duration::from_secs_f64(default)
            }
        }
    }

    /// Another value than the one read is in force, because a flag of its own says so.
    pub fn overruled_by_flag(&self, name: &'static str, value: &str) {
        self.findings
            .overrule(&self.path_of(name), json!(value), Origin::Flag);
    }

    /// One of a few words; any other is a problem with `code`.
    pub fn choice<T: Copy>(
        &mut self,
        key: Key,
        default: &str,
        choices: &[(&str, T)],
        code: &str,
    ) -> T {
        let (value, origin) = self.read_text(key);
        let word = value.unwrap_or_else(|| default.to_string());
        self.in_force(key, json!(word), origin);
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == word) {
            return *choice;
        }
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        self.problem(
            code,
            key.name,
            format!("{word:?} is none of {}", names.join(", ")),
        );
        let fallback = choices.iter().find(|(name, _)| *name == default);
        fallback.map_or(choices[0].1, |(_, choice)| *choice)
    }

    /// A list of texts: a YAML list, or one text with commas.
    pub fn texts(&mut self, key: Key) -> (Vec<String>, Origin) {
        let (texts, origin) = self.read_texts(key);
        self.in_force(key, json!(texts), origin.clone());
        (texts, origin)
    }

    /// A list of secrets; only their number is shown.
    pub fn secrets(&mut self, key: Key) -> Vec<Secret> {
        let (texts, origin) = self.read_texts(key);
        self.in_force(key, json!(vec!["***"; texts.len()]), origin);
        texts.into_iter().map(Secret::new).collect()
    }

    /// The rest of the keys as they stand, for sections with free names.
    pub fn take_rest(&mut self) -> Map<String, Value> {
        std::mem::take(&mut self.values)
    }

    /// A value as it stands, for keys of more than one shape.
    pub fn value(&mut self, key: Key) -> Option<Value> {
        let (value, origin) = self.raw(key);
        self.in_force(key, value.clone().unwrap_or(Value::Null), origin);
        value
    }

    /// Takes the keys out that `unused` says are not ours.
    pub fn skip(&mut self, unused: impl Fn(&str) -> bool) {
        self.values.retain(|name, _| !unused(name));
    }

    /// The names nobody has asked for yet.
    pub fn names(&self) -> Vec<String> {
        self.values.keys().cloned().collect()
    }

    /// Ends the section: what is left over is unknown.
    pub fn finish(self) {
        for name in self.values.keys() {
            let sentence = "this key does not exist here";
            self.findings
                .problem("CONFIG_KEY_UNKNOWN", &self.path_of(name), sentence);
        }
    }

    fn invalid(&self, key: Key, sentence: impl Into<String>) {
        self.problem("CONFIG_VALUE_INVALID", key.name, sentence);
    }

    fn in_force(&self, key: Key, value: Value, origin: Origin) {
        self.findings
            .in_force(self.path_of(key.name), value, origin);
    }

    fn read_text(&mut self, key: Key) -> (Option<String>, Origin) {
        let (value, origin) = self.raw(key);
        match value {
            Some(Value::Array(_) | Value::Object(_)) => {
                self.invalid(key, "must be a text");
                (None, origin)
            }
            Some(value) => (
                Some(text_of(&value)).filter(|text| !text.is_empty()),
                origin,
            ),
            None => (None, origin),
        }
    }

    fn read_texts(&mut self, key: Key) -> (Vec<String>, Origin) {
        let (value, origin) = self.raw(key);
        let texts = match value {
            None => Vec::new(),
            Some(Value::Array(items)) => items.iter().map(text_of).collect(),
            Some(Value::Object(_)) => {
                self.invalid(key, "must be a list of texts");
                Vec::new()
            }
            Some(value) => text_of(&value)
                .split(',')
                .map(|item| item.trim().to_string())
                .collect(),
        };
        (
            texts.into_iter().filter(|text| !text.is_empty()).collect(),
            origin,
        )
    }

    /// Whether any layer says anything about the key.
    fn peek(&self, key: Key) -> bool {
        self.override_of(key).is_some() || self.says(key.name) || self.fallback_of(key).is_some()
    }

    fn override_of(&self, key: Key) -> Option<(Value, Origin)> {
        let path = self.path_of(key.name);
        let layers = self.findings.layers;
        if let Some(text) = layers.flag(&path) {
            return Some((json!(text), Origin::Flag));
        }
        let own = variable_of_key(&path);
        let variables = [Some(own.as_str()), key.variable];
        variables.into_iter().flatten().find_map(|variable| {
            let text = layers.variable(variable)?;
            Some((json!(text), Origin::Environment(variable.to_string())))
        })
    }

    fn fallback_of(&self, key: Key) -> Option<(Value, Origin)> {
        let variable = key.fallback_variable?;
        let text = self.findings.layers.variable(variable)?;
        Some((json!(text), Origin::Environment(variable.to_string())))
    }

    /// The value in force and its origin; takes the key out of the section.
    fn raw(&mut self, key: Key) -> (Option<Value>, Origin) {
        let in_file = self
            .values
            .remove(key.name)
            .filter(|value| !value.is_null());
        if let Some((value, origin)) = self.override_of(key) {
            return (Some(value), origin);
        }
        if let Some(value) = in_file {
            let mut variables = Vec::new();
            let value = self.resolve_value(key, value, &mut variables);
            return (value, Origin::Profile(variables));
        }
        match self.fallback_of(key) {
            Some((value, origin)) => (Some(value), origin),
            None => (None, Origin::Default),
        }
    }

    fn resolve_value(&self, key: Key, value: Value, variables: &mut Vec<String>) -> Option<Value> {
        match value {
            Value::String(text) => match self.resolve_text(key, &text) {
                Some(mut resolved) => {
                    variables.append(&mut resolved.variables);
                    Some(json!(resolved.text))
                }
                None => None,
            },
            Value::Array(items) => Some(Value::Array(
                items
                    .into_iter()
                    .filter_map(|item| self.resolve_value(key, item, variables))
                    .collect(),
            )),
            other => Some(other),
        }
    }

    fn resolve_text(&self, key: Key, text: &str) -> Option<Resolved> {
        match self
            .findings
            .layers
            .with_lookup(|lookup| resolve(text, lookup))
        {
            Ok(resolved) => Some(resolved),
            Err(error) => {
                let code = match error {
                    PlaceholderError::Missing { .. } => key.missing_code,
                    PlaceholderError::Malformed { .. } => "CONFIG_VALUE_INVALID",
                };
                self.problem(code, key.name, error.to_string());
                None
            }
        }
    }
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.trim().to_string(),
        other => other.to_string(),
    }
}
