//! What a gate's flag and index say (contract 3.4).
//!
//! Pure: these rules parse the files and say which bytes to hash in which order. The hashing itself is done
//! by whoever holds the files.

use serde_json::Value;

use super::gates::{DigestOrder, Verification};
use crate::ids::is_hex;

/// Why a gate contradicts itself: the evidence exists and is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GateConflict {
    /// The flag is neither of the two known forms, or speaks of another digest.
    #[error("the flag does not carry a {digest_field} of 64 hex digits")]
    FlagUnreadable {
        /// The key the flag must have.
        digest_field: String,
    },
    /// The index is not JSON of a known shape.
    #[error("the index cannot be read: {reason}")]
    IndexUnreadable {
        /// What is wrong with it.
        reason: String,
    },
    /// The bytes are not those the flag was written for.
    #[error("the flag says {flag}, the bundle is {actual}")]
    DigestDiffers {
        /// The flag's digest.
        flag: String,
        /// The recomputed digest.
        actual: String,
    },
}

/// The digest a flag states: `digest_field = hex` as text, or a JSON object with that member.
pub fn parse_flag(bytes: &[u8], digest_field: &str) -> Result<String, GateConflict> {
    let unreadable = || GateConflict::FlagUnreadable {
        digest_field: digest_field.to_owned(),
    };
    let text = std::str::from_utf8(bytes).map_err(|_| unreadable())?.trim();
    let hex = if text.starts_with('{') {
        let value: Value = serde_json::from_str(text).map_err(|_| unreadable())?;
        value
            .get(digest_field)
            .and_then(Value::as_str)
            .map(str::to_owned)
    } else {
        text.split_once('=')
            .filter(|(key, _)| key.trim() == digest_field)
            .map(|(_, value)| value.trim().to_owned())
    };
    hex.filter(|hex| is_hex(hex, 64)).ok_or_else(unreadable)
}

/// The file paths an index names, in its order: a bare list, or the first of `items`, `members`,
/// `entries`, `files`. Excluded names are dropped; `ascii_lex` sorts.
pub fn index_paths(bytes: &[u8], rule: &Verification) -> Result<Vec<String>, GateConflict> {
    let value = index_value(bytes)?;
    let items = index_items(&value, &["items", "members", "entries", "files"])?;
    let mut paths: Vec<String> = items
        .iter()
        .filter_map(|item| item.get("path").and_then(Value::as_str))
        .filter(|path| !rule.excludes(path))
        .map(str::to_owned)
        .collect();
    if rule.order == DigestOrder::AsciiLex {
        paths.sort_unstable();
    }
    Ok(paths)
}

/// The digests an index states for its `members` (or `items`), in array order.
pub fn member_digests(bytes: &[u8], rule: &Verification) -> Result<Vec<String>, GateConflict> {
    let value = index_value(bytes)?;
    let items = index_items(&value, &["members", "items"])?;
    items
        .iter()
        .map(
            |item| match item.get(&rule.digest_field).and_then(Value::as_str) {
                Some(digest) => Ok(digest.to_owned()),
                None => Err(GateConflict::IndexUnreadable {
                    reason: format!("a member has no {}", rule.digest_field),
                }),
            },
        )
        .collect()
}

fn index_value(bytes: &[u8]) -> Result<Value, GateConflict> {
    serde_json::from_slice(bytes).map_err(|error| GateConflict::IndexUnreadable {
        reason: error.to_string(),
    })
}

fn index_items<'a>(value: &'a Value, names: &[&str]) -> Result<&'a [Value], GateConflict> {
    let list = match value {
        Value::Array(list) => Some(list),
        _ => names
            .iter()
            .find_map(|name| value.get(name))
            .and_then(Value::as_array),
    };
    list.map(Vec::as_slice)
        .ok_or_else(|| GateConflict::IndexUnreadable {
            reason: format!("no list under {}", names.join(", ")),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    fn rule(order: &str) -> Verification {
        Verification::deserialize(&json!({"kind": "sha256_index_json_ascii_lex_raw_bytes",
            "digest_field": "sha256_hex", "order": order, "path_base": "bundle",
            "exclude": ["_passed.flag", "index.json"]}))
        .unwrap()
    }

    #[test]
    fn both_flag_forms_give_their_digest_and_everything_else_is_a_conflict() {
        let hex = "0f".repeat(32);
        let text = format!("sha256_hex = {hex}\n");
        let object = format!(r#"{{"manifest_fingerprint": "x", "sha256_hex": "{hex}"}}"#);
        assert_eq!(parse_flag(text.as_bytes(), "sha256_hex").unwrap(), hex);
        assert_eq!(parse_flag(object.as_bytes(), "sha256_hex").unwrap(), hex);
        for bad in [
            "",
            "FAIL",
            "sha256_hex",
            "status = FAIL",
            "sha256_hex = FAIL",
            "{}",
            "{",
            "other = 00",
        ] {
            assert!(parse_flag(bad.as_bytes(), "sha256_hex").is_err(), "{bad}");
        }
        assert!(parse_flag(text.as_bytes(), "bundle_digest_sha256").is_err());
    }

    #[test]
    fn index_paths_drop_excluded_names_and_keep_or_sort_the_order() {
        let index = br#"{"items": [{"path": "z"}, {"path": "a/b"}, {"path": "deep/index.json"}, {"path": "_passed.flag"}]}"#;
        assert_eq!(
            index_paths(index, &rule("index_order")).unwrap(),
            ["z", "a/b"]
        );
        assert_eq!(
            index_paths(index, &rule("ascii_lex")).unwrap(),
            ["a/b", "z"]
        );
        let bare = br#"[{"path": "y"}]"#;
        assert_eq!(index_paths(bare, &rule("ascii_lex")).unwrap(), ["y"]);
        assert!(index_paths(b"{\"other\": []}", &rule("ascii_lex")).is_err());
        assert!(index_paths(b"not json", &rule("ascii_lex")).is_err());
    }

    #[test]
    fn member_digests_come_in_array_order_and_a_member_without_one_is_a_conflict() {
        let index = br#"{"members": [{"sha256_hex": "bb"}, {"sha256_hex": "aa"}]}"#;
        assert_eq!(
            member_digests(index, &rule("members_array_order")).unwrap(),
            ["bb", "aa"]
        );
        assert!(member_digests(br#"{"members": [{}]}"#, &rule("members_array_order")).is_err());
    }
}
