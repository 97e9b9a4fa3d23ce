//! What reading a profile collects: the values in force, with their origins, and every problem.

use super::layers::{EffectiveValue, Layers, Origin};
use super::problem::Problem;
use super::section::Section;
use serde_json::Value;
use std::cell::RefCell;

/// What reading collects: values in force and problems.
pub struct Findings<'a> {
    pub(super) layers: &'a Layers,
    inner: RefCell<Collected>,
}

/// The result of reading a whole profile.
#[derive(Default)]
pub struct Collected {
    /// Values in force, in the order they were read.
    pub effective: Vec<EffectiveValue>,
    /// Everything that is wrong.
    pub problems: Vec<Problem>,
}

impl<'a> Findings<'a> {
    /// Nothing read yet.
    pub fn new(layers: &'a Layers) -> Self {
        Findings {
            layers,
            inner: RefCell::default(),
        }
    }

    /// A section at the root of the profile.
    pub fn root_section<'f>(&'f self, name: &str, value: Option<Value>) -> Section<'f, 'a> {
        Section::new(self, name.to_string(), value)
    }

    /// What has been collected; flags for keys that do not exist are problems.
    pub fn finish(self) -> Collected {
        let mut collected = self.inner.into_inner();
        for key in self.layers.flag_keys() {
            if !collected.effective.iter().any(|value| value.key == key) {
                let sentence = "--set names a key that does not exist";
                collected
                    .problems
                    .push(Problem::new("CONFIG_KEY_UNKNOWN", key, sentence));
            }
        }
        collected
    }

    /// Adds a problem.
    pub fn problem(&self, code: &str, key: &str, sentence: impl Into<String>) {
        self.inner
            .borrow_mut()
            .problems
            .push(Problem::new(code, key, sentence));
    }

    pub(super) fn has_problem(&self, key: &str) -> bool {
        self.inner
            .borrow()
            .problems
            .iter()
            .any(|problem| problem.key == key)
    }

    pub(super) fn overrule(&self, key: &str, value: Value, origin: Origin) {
        let mut inner = self.inner.borrow_mut();
        inner.effective.retain(|known| known.key != key);
        inner.effective.push(EffectiveValue {
            key: key.to_owned(),
            value,
            origin,
        });
    }

    pub(super) fn in_force(&self, key: String, value: Value, origin: Origin) {
        self.inner
            .borrow_mut()
            .effective
            .push(EffectiveValue { key, value, origin });
    }
}
