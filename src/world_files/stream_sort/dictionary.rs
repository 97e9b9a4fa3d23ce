//! One dictionary per coded column, shared by all threads, and constant columns.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, Int32Array, Int64Array, StringArray, UInt64Array,
};
use arrow::datatypes::{Int32Type, Int64Type, UInt64Type};
use arrow::error::ArrowError;

use super::roles::Constant;
use super::row_hash::hash_bytes;

/// All texts a coded column has, numbered as they came.
#[derive(Debug, Default)]
pub(super) struct SharedDictionary {
    texts: Mutex<Texts>,
}

#[derive(Debug, Default)]
struct Texts {
    codes: HashMap<Arc<str>, i32>,
    in_order: Vec<Arc<str>>,
}

impl Texts {
    fn code(&mut self, text: &str) -> i32 {
        if let Some(code) = self.codes.get(text) {
            return *code;
        }
        let code = self.in_order.len() as i32;
        let text: Arc<str> = text.into();
        self.in_order.push(text.clone());
        self.codes.insert(text, code);
        code
    }
}

impl SharedDictionary {
    /// The texts so far, by code.
    pub(super) fn values(&self) -> ArrayRef {
        Arc::new(StringArray::from_iter_values(self.lock().in_order.iter()))
    }

    /// A dictionary column out of codes and texts.
    pub(super) fn decode(codes: &ArrayRef, values: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        let codes = codes.as_primitive::<Int32Type>().clone();
        Ok(Arc::new(DictionaryArray::try_new(codes, values.clone())?))
    }

    fn lock(&self) -> MutexGuard<'_, Texts> {
        // The numbering is complete after each insert, so a poisoned lock holds good texts.
        self.texts
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Translates the dictionaries of one row group into shared codes. The translation of the last
/// dictionary is kept, because all batches of a row group usually share one.
#[derive(Debug, Default)]
pub(super) struct Coder {
    last: Option<ArrayRef>,
    codes: Vec<i32>,
    /// Hash per shared code, as far as this coder has met it.
    hashes: Vec<u64>,
}

impl Coder {
    /// The shared codes of a dictionary column.
    pub(super) fn encode(&mut self, dictionary: &SharedDictionary, column: &ArrayRef) -> ArrayRef {
        let column = column.as_dictionary::<Int32Type>();
        if !self.is_last(column.values()) {
            self.translate(dictionary, column.values());
        }
        let codes: Int32Array = match (self.codes.len(), column.keys().null_count()) {
            (0, _) => column.keys().clone(),
            (_, 0) => column
                .keys()
                .values()
                .iter()
                .map(|key| self.codes[*key as usize])
                .collect::<Vec<_>>()
                .into(),
            _ => column
                .keys()
                .iter()
                .map(|key| key.map(|key| self.codes[key as usize]))
                .collect(),
        };
        Arc::new(codes)
    }

    /// Hash per shared code; valid for every code that `encode` has given.
    pub(super) fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    /// The same buffer is the same dictionary: `last` keeps it alive, so its address is not reused.
    fn is_last(&self, values: &ArrayRef) -> bool {
        self.last.as_ref().is_some_and(|last| {
            let (last, values) = (last.as_string::<i32>(), values.as_string::<i32>());
            last.len() == values.len()
                && last.values().as_ptr() == values.values().as_ptr()
                && last.offsets().as_ptr() == values.offsets().as_ptr()
        })
    }

    fn translate(&mut self, dictionary: &SharedDictionary, values: &ArrayRef) {
        let texts = values.as_string::<i32>();
        let mut shared = dictionary.lock();
        self.codes.clear();
        for row in 0..texts.len() {
            let text = if texts.is_null(row) {
                ""
            } else {
                texts.value(row)
            };
            let code = shared.code(text);
            if self.hashes.len() <= code as usize {
                self.hashes.resize(code as usize + 1, 0);
            }
            self.hashes[code as usize] = hash_bytes(text.as_bytes());
            self.codes.push(code);
        }
        self.last = Some(values.clone());
    }
}

impl Constant {
    /// Hash of the value, as the row hash takes it.
    pub(super) fn hash(&self) -> u64 {
        match self {
            Self::Text(text) => hash_bytes(text.as_bytes()),
            Self::Int(value) => super::row_hash::hash_word(value.cast_unsigned()),
            Self::Uint(value) => super::row_hash::hash_word(*value),
        }
    }

    /// True when every row of the column, as it was read, is this value.
    pub(super) fn is_all_of(&self, column: &ArrayRef) -> bool {
        if column.null_count() > 0 {
            return false;
        }
        match self {
            Self::Text(text) => {
                let column = column.as_dictionary::<Int32Type>();
                let values = column.values().as_string::<i32>();
                let equal: Vec<bool> = values.iter().map(|value| value == Some(text)).collect();
                column
                    .keys()
                    .values()
                    .iter()
                    .all(|key| equal[*key as usize])
            }
            Self::Int(value) => column
                .as_primitive::<Int64Type>()
                .values()
                .iter()
                .all(|found| found == value),
            Self::Uint(value) => column
                .as_primitive::<UInt64Type>()
                .values()
                .iter()
                .all(|found| found == value),
        }
    }

    /// A column of `rows` such values.
    pub(super) fn column(&self, rows: usize) -> ArrayRef {
        match self {
            Self::Text(text) => {
                let values = Arc::new(StringArray::from_iter_values([text]));
                let keys = Int32Array::from(vec![0; rows]);
                Arc::new(DictionaryArray::new(keys, values))
            }
            Self::Int(value) => Arc::new(Int64Array::from(vec![*value; rows])),
            Self::Uint(value) => Arc::new(UInt64Array::from(vec![*value; rows])),
        }
    }
}
