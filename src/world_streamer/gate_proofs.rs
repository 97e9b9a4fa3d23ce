//! Gates proven by content, once per world and flag (contract 6.4 step 9, W17).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use wellspring_domain::ports::{ObjectStore, StoreError};
use wellspring_domain::world::catalogue::WorldTokens;
use wellspring_domain::world::gates::{Gate, GateMap};

use crate::world_files::gate_verification::verify_gates;

/// Most proofs kept; a process meets few worlds.
const PROOFS_MAX: usize = 10_000;

/// Gates that have passed. Only passes are kept: what failed is looked at again.
#[derive(Debug, Default)]
pub struct GateProofs {
    passed: Mutex<BTreeMap<ProofKey, String>>,
}

/// World and gate.
type ProofKey = (String, String);

impl GateProofs {
    /// Why one of these gates has not passed; `None` when all have.
    pub fn first_unproven(
        &self,
        world: &dyn ObjectStore,
        engine_run_root: &str,
        gate_map: &GateMap,
        gate_ids: &[String],
        tokens: &WorldTokens,
    ) -> Option<String> {
        let mut open: Vec<(&Gate, String)> = Vec::new();
        for gate_id in gate_ids {
            let gate = match gate_map.gate(gate_id) {
                Ok(gate) => gate,
                Err(error) => return Some(format!("{gate_id}: {error}")),
            };
            match flag_version(world, gate, tokens) {
                Ok(version) if self.knows(engine_run_root, gate_id, &version) => {}
                Ok(version) => open.push((gate, version)),
                Err(error) => return Some(format!("{gate_id}: {error}")),
            }
        }
        let gates: Vec<&Gate> = open.iter().map(|(gate, _)| *gate).collect();
        let outcomes = verify_gates(world, engine_run_root, &gates, tokens);
        for ((gate, version), outcome) in open.into_iter().zip(outcomes) {
            match outcome.map(|outcome| outcome.reason()) {
                Ok(None) => self.remember(engine_run_root, &gate.gate_id, version),
                Ok(Some(why)) => return Some(format!("{}: {why}", gate.gate_id)),
                Err(error) => return Some(format!("{}: {error}", gate.gate_id)),
            }
        }
        None
    }

    fn knows(&self, root: &str, gate_id: &str, version: &str) -> bool {
        let key = (root.to_owned(), gate_id.to_owned());
        !version.is_empty()
            && self
                .passed()
                .get(&key)
                .is_some_and(|known| known == version)
    }

    fn remember(&self, root: &str, gate_id: &str, version: String) {
        let mut passed = self.passed();
        if passed.len() >= PROOFS_MAX {
            passed.clear();
        }
        passed.insert((root.to_owned(), gate_id.to_owned()), version);
    }

    fn passed(&self) -> MutexGuard<'_, BTreeMap<ProofKey, String>> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What changes when the flag does; empty when it is absent or the store cannot say.
fn flag_version(
    world: &dyn ObjectStore,
    gate: &Gate,
    tokens: &WorldTokens,
) -> Result<String, StoreError> {
    let Ok(paths) = gate.paths(tokens) else {
        return Ok(String::new());
    };
    let version = |meta: wellspring_domain::ports::ObjectMeta| {
        meta.version
            .map(|version| format!("{version}:{}", meta.size))
    };
    Ok(world
        .head(&paths.passed_flag)?
        .and_then(version)
        .unwrap_or_default())
}
