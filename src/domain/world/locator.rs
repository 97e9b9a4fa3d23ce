//! Output locators: which files an output's rendered path stands for, and the reference that is written
//! about them (contract 3.5, 5.5).

use super::catalogue::{OutputEntry, WorldTokens};
use crate::scenario::proof::{Digest, EngineOutputLocator, ProofScope};

/// A rendered path with its glob, relative to a store's root. `*` and `?` match within one component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    components: Vec<String>,
}

impl PathPattern {
    /// Reads a relative path.
    pub fn new(path: &str) -> PathPattern {
        PathPattern {
            components: path
                .split('/')
                .filter(|part| !part.is_empty())
                .map(str::to_owned)
                .collect(),
        }
    }

    /// The path itself when it has no glob.
    pub fn literal(&self) -> Option<String> {
        let has_glob = self.components.iter().any(|part| is_glob(part));
        (!has_glob).then(|| self.components.join("/"))
    }

    /// The folder above the first glob: everything that can match lies below it.
    pub fn fixed_folder(&self) -> String {
        let fixed: Vec<&str> = self
            .components
            .iter()
            .map(String::as_str)
            .take_while(|part| !is_glob(part))
            .collect();
        fixed.join("/")
    }

    /// True when `path` has the pattern's components, one for one.
    pub fn matches(&self, path: &str) -> bool {
        let mut parts = path.split('/');
        self.components.iter().all(|wanted| {
            parts
                .next()
                .is_some_and(|part| component_matches(wanted, part))
        }) && parts.next().is_none()
    }
}

fn is_glob(part: &str) -> bool {
    part.contains(['*', '?'])
}

/// Iterative wildcard match: on a mismatch the last `*` swallows one more byte.
fn component_matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((star_at, taken)) = star else {
                    return false;
                };
                star = Some((star_at, taken + 1));
                p = star_at + 1;
                t = taken + 1;
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// An engine root joined with a path under it; neither loses its scheme or its glob.
pub fn join_root(engine_run_root: &str, path: &str) -> String {
    format!(
        "{}/{}",
        engine_run_root.trim_end_matches('/'),
        path.trim_start_matches('/')
    )
}

/// The root a reference stands for (contract 3.1): a URI, an absolute path or a path that exists is taken as
/// it is, anything else lies below the oracle root.
pub fn resolve_root(root: &str, oracle_root: Option<&str>, exists: bool) -> String {
    match oracle_root.filter(|oracle_root| !oracle_root.is_empty()) {
        Some(oracle_root) if !exists && !root.starts_with('/') && !root.contains("://") => {
            join_root(oracle_root, root)
        }
        _ => root.to_owned(),
    }
}

/// Folders that engine outputs lie in, directly below an engine run root (contract 4.2).
const ENGINE_FOLDERS: [&str; 3] = ["data", "config", "reports"];

/// The pack root of a local locator (contract 4.2): the oracle root itself when the locator goes straight
/// into an engine folder, else the folder below the oracle root. A locator outside of the oracle root belongs
/// to the root above its first engine folder.
pub fn pack_root_of(locator_path: &str, oracle_root: &str) -> Option<String> {
    let oracle_root = oracle_root.trim_end_matches('/');
    let below = locator_path
        .strip_prefix(oracle_root)
        .and_then(|rest| rest.strip_prefix('/'));
    if let Some((first, _)) = below.and_then(|rest| rest.split_once('/')) {
        return Some(match ENGINE_FOLDERS.contains(&first) {
            true => oracle_root.to_owned(),
            false => join_root(oracle_root, first),
        });
    }
    let marks = ENGINE_FOLDERS.iter();
    let first = marks
        .filter_map(|folder| locator_path.find(&format!("/{folder}/")))
        .min()?;
    Some(locator_path[..first].to_owned())
}

/// The pins an output's documents carry: its partitions, the fingerprint alone when it names none.
pub fn partition_scope(entry: &OutputEntry, tokens: &WorldTokens) -> ProofScope {
    let names = |pin: &str| entry.partitions.iter().any(|partition| partition == pin);
    let text = |pin: &str, value: &Option<String>| value.clone().filter(|_| names(pin));
    let fingerprint_only = entry.partitions.is_empty();
    ProofScope {
        manifest_fingerprint: tokens
            .manifest_fingerprint
            .clone()
            .filter(|_| fingerprint_only || names("manifest_fingerprint")),
        parameter_hash: text("parameter_hash", &tokens.parameter_hash),
        seed: tokens.seed.filter(|_| names("seed")),
        scenario_id: text("scenario_id", &tokens.scenario_id),
        run_id: text("run_id", &tokens.run_id),
        utc_day: text("utc_day", &tokens.utc_day),
    }
}

/// The locator of an output under an engine root; `rendered` is its filled path template.
pub fn engine_locator(
    engine_run_root: &str,
    entry: &OutputEntry,
    rendered: &str,
    tokens: &WorldTokens,
    content_digest: Option<Digest>,
) -> EngineOutputLocator {
    let scope = partition_scope(entry, tokens);
    EngineOutputLocator {
        output_id: entry.output_id.clone(),
        path: join_root(engine_run_root, rendered),
        manifest_fingerprint: scope.manifest_fingerprint,
        parameter_hash: scope.parameter_hash,
        run_id: scope.run_id,
        scenario_id: scope.scenario_id,
        seed: scope.seed,
        schema_ref: None,
        dictionary_ref: None,
        produced_at_utc: None,
        content_digest,
        notes: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[test]
    fn a_glob_matches_whole_components_and_never_crosses_a_slash() {
        let pattern = PathPattern::new("data/x/part-*.parquet");
        assert_eq!(pattern.fixed_folder(), "data/x");
        assert_eq!(pattern.literal(), None);
        assert!(pattern.matches("data/x/part-00000.parquet"));
        assert!(pattern.matches("data/x/part-.parquet"));
        assert!(!pattern.matches("data/x/part-0/1.parquet"));
        assert!(!pattern.matches("data/x/part-0.parquet.tmp"));
        assert!(!pattern.matches("data/y/part-0.parquet"));
        assert!(!pattern.matches("data/x"));
    }

    #[test]
    fn wildcards_backtrack() {
        assert!(component_matches("*a*b", "xaxxab"));
        assert!(!component_matches("*a*b", "xaxxa"));
        assert!(component_matches("??-*", "ab-"));
        assert!(!component_matches("?", ""));
        assert!(component_matches("*", ""));
    }

    #[test]
    fn a_path_without_a_glob_is_literal() {
        assert_eq!(
            PathPattern::new("data//x.parquet").literal(),
            Some("data/x.parquet".to_owned())
        );
    }

    #[test]
    fn only_a_relative_root_that_does_not_exist_lies_below_the_oracle_root() {
        assert_eq!(resolve_root("run1", Some("worlds"), false), "worlds/run1");
        assert_eq!(resolve_root("run1", Some("worlds"), true), "run1");
        assert_eq!(resolve_root("/run1", Some("worlds"), false), "/run1");
        assert_eq!(
            resolve_root("s3://w/run1", Some("worlds"), false),
            "s3://w/run1"
        );
        assert_eq!(resolve_root("run1", Some("s3://w"), false), "s3://w/run1");
        assert_eq!(resolve_root("run1", None, false), "run1");
    }

    #[test]
    fn the_pack_root_is_the_oracle_root_or_the_folder_below_it() {
        let root = |path: &str| pack_root_of(path, "runs/world/");
        assert_eq!(
            root("runs/world/data/x/part-*"),
            Some("runs/world".to_owned())
        );
        assert_eq!(
            root("runs/world/r1/data/x"),
            Some("runs/world/r1".to_owned())
        );
        assert_eq!(root("/else/w/data/x"), Some("/else/w".to_owned()));
        assert_eq!(root("runs/worlds/data/x"), Some("runs/worlds".to_owned()));
        assert_eq!(root("nothing"), None);
    }

    #[test]
    fn a_locator_carries_the_pins_of_its_partitions_and_keeps_the_glob() {
        let entry = OutputEntry::deserialize(&json!({"output_id": "o", "scope": "scope_seed",
            "path_template": "x", "primary_key": [], "partitions": ["seed", "manifest_fingerprint"]}))
        .unwrap();
        let tokens = WorldTokens {
            seed: Some(7),
            manifest_fingerprint: Some("a".repeat(64)),
            parameter_hash: Some("b".repeat(64)),
            ..WorldTokens::default()
        };
        let locator = engine_locator("s3://w/run/", &entry, "data/part-*.parquet", &tokens, None);
        assert_eq!(locator.path, "s3://w/run/data/part-*.parquet");
        assert_eq!((locator.seed, locator.parameter_hash), (Some(7), None));
        let bare = OutputEntry {
            partitions: Vec::new(),
            ..entry
        };
        let scope = partition_scope(&bare, &tokens);
        assert_eq!(scope.manifest_fingerprint, Some("a".repeat(64)));
        assert_eq!(scope.seed, None);
    }
}
