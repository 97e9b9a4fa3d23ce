//! Finding a world: its root and the one scenario in it (contract 3.1, 4.1).

use std::collections::BTreeSet;
use std::path::Path;

use wellspring_domain::ports::{ObjectStore, StoreError};
use wellspring_domain::world::locator::resolve_root;

/// The engine run root a reference stands for on this machine (contract 3.1).
pub fn resolve_engine_root(root: &str, oracle_root: Option<&str>) -> String {
    resolve_root(root, oracle_root, Path::new(root).exists())
}

/// The scenarios a world's files speak of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScenarioDiscovery {
    /// Exactly one.
    One(String),
    /// None: a scenario must be given.
    Missing,
    /// Several, sorted: one of them must be given.
    Ambiguous(Vec<String>),
}

/// Looks for `scenario_id=*` folders below data, reports and config (contract 4.1).
pub fn discover_scenario(world: &dyn ObjectStore) -> Result<ScenarioDiscovery, StoreError> {
    let mut found = BTreeSet::new();
    for folder in ["data", "reports", "config"] {
        for file in world.list(folder)? {
            let folders = file.key.rsplit_once('/').map_or("", |(folders, _)| folders);
            let ids = folders
                .split('/')
                .filter_map(|part| part.strip_prefix("scenario_id="));
            found.extend(ids.map(str::to_owned));
        }
    }
    let mut found: Vec<String> = found.into_iter().collect();
    Ok(match (found.pop(), found.is_empty()) {
        (None, _) => ScenarioDiscovery::Missing,
        (Some(only), true) => ScenarioDiscovery::One(only),
        (Some(last), false) => {
            found.push(last);
            ScenarioDiscovery::Ambiguous(found)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object_store::LocalFiles;

    #[test]
    fn a_scenario_is_found_when_all_folders_name_the_same_one() {
        let folder = tempfile::tempdir().unwrap();
        let world = LocalFiles::new(folder.path());
        let discover = || discover_scenario(&world).unwrap();
        world.put("logs/scenario_id=ignored/x", b"").unwrap();
        assert_eq!(discover(), ScenarioDiscovery::Missing);
        world.put("data/a/scenario_id=one/part", b"").unwrap();
        world.put("reports/scenario_id=one/r", b"").unwrap();
        world.put("data/scenario_id=file_name", b"").unwrap();
        assert_eq!(discover(), ScenarioDiscovery::One("one".to_owned()));
        world.put("config/scenario_id=two/c", b"").unwrap();
        let both = vec!["one".to_owned(), "two".to_owned()];
        assert_eq!(discover(), ScenarioDiscovery::Ambiguous(both));
    }
}
