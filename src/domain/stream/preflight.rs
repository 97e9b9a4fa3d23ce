//! What must hold before a run may stream its first event, in the contract's order (contract 6.4).
//!
//! Every check fails closed with its code. The order is part of the contract: an operator who fixes
//! the reported code meets the next one, never an earlier one.

use super::output_plan::{OutputPlan, SelectionInputs, SelectionSources, plan_outputs};
use crate::ids::fallback_pack_key;
use crate::world::catalogue::{OutputEntry, WorldTokens};
use crate::world::pack::PackManifest;
use crate::world::seal::SealState;
use crate::world::world_key::{RunReceipt, RunReceiptError};

/// Where checkpoints are to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointChoice {
    /// In files.
    File,
    /// In PostgreSQL, with a connection given.
    Postgres,
    /// In PostgreSQL, and nobody said where.
    PostgresWithoutDsn,
}

/// Whether a world must be packed and sealed (D10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealStrictness {
    /// `dev` and `prod`.
    Strict,
    /// Everywhere else: a missing pack or seal passes, a bad one never does.
    Lenient,
}

/// Whether the gates of the selected outputs must be proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateProof {
    /// `require_gate_pass: true`.
    Required,
    /// `require_gate_pass: false`.
    NotRequired,
}

/// What a run wants.
#[derive(Clone, Debug)]
pub struct PreflightRequest {
    /// The world.
    pub engine_run_root: Option<String>,
    /// The platform run.
    pub platform_run_id: Option<String>,
    /// The scenario, from the caller or the wiring.
    pub scenario_id: Option<String>,
    /// Whether pack and seal must be there.
    pub seal: SealStrictness,
    /// Whether gates must be proven.
    pub gates: GateProof,
    /// Where the output lists come from.
    pub selection: SelectionSources,
    /// Producer id.
    pub producer_id: Option<String>,
    /// Allowlist of producers.
    pub allowlist_ref: Option<String>,
    /// Where checkpoints are kept.
    pub checkpoint: CheckpointChoice,
}

/// What the checks ask of the world and the configuration.
pub trait PreflightInputs: SelectionInputs {
    /// The run receipt of the engine root.
    fn run_receipt(&self) -> Result<RunReceipt, RunReceiptError>;
    /// The only scenario in the world's folders, if there is exactly one.
    fn only_scenario(&self) -> Option<String>;
    /// The pack manifest, `None` when absent, or why it is invalid.
    fn pack_manifest(&self) -> Result<Option<PackManifest>, String>;
    /// The seal, or why it cannot be read.
    fn seal(&self) -> Result<SealState, String>;
    /// The catalogue entry of a selected output.
    fn output(&self, output_id: &str) -> Option<OutputEntry>;
    /// Why one of these gates is not proven by its files; `None` when all are.
    fn unproven_gate(&self, gate_ids: &[String], tokens: &WorldTokens) -> Option<String>;
    /// The text of the producer allowlist, or why it cannot be read.
    fn allowlist(&self, reference: &str) -> Result<String, String>;
}

/// Why a run may not stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct PreflightRefusal {
    /// The contract's reason code.
    pub code: &'static str,
    /// What is wrong, for a person.
    pub detail: String,
}

fn refuse(code: &'static str, detail: impl Into<String>) -> PreflightRefusal {
    PreflightRefusal {
        code,
        detail: detail.into(),
    }
}

/// A run that may stream, and everything its envelopes need.
#[derive(Clone, Debug)]
pub struct Cleared {
    /// The world.
    pub engine_run_root: String,
    /// The platform run.
    pub platform_run_id: String,
    /// The engine run and its pins.
    pub receipt: RunReceipt,
    /// The scenario.
    pub scenario_id: String,
    /// `oracle_pack_id`, else the fallback pack key (V16).
    pub pack_key: String,
    /// The engine release, when the world is packed.
    pub engine_release: Option<String>,
    /// What is streamed.
    pub plan: OutputPlan,
    /// Catalogue entries in streaming order.
    pub outputs: Vec<OutputEntry>,
    /// The producer.
    pub producer_id: String,
}

/// Makes all checks of contract 6.4 in their order.
pub fn preflight(
    request: &PreflightRequest,
    inputs: &dyn PreflightInputs,
) -> Result<Cleared, PreflightRefusal> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let engine_run_root = given(&request.engine_run_root)
        .ok_or_else(|| refuse("ENGINE_ROOT_MISSING", "no engine run root is given"))?;
    let platform_run_id = given(&request.platform_run_id)
        .ok_or_else(|| refuse("PLATFORM_RUN_ID_MISSING", "no platform run is active"))?;
    let receipt = inputs.run_receipt();
    if let Err(error @ RunReceiptError::Unreadable { .. }) = &receipt {
        return Err(refuse("RUN_RECEIPT_UNREADABLE", error.to_string()));
    }
    let scenario_id = given(&request.scenario_id)
        .or_else(|| inputs.only_scenario())
        .ok_or_else(|| {
            refuse(
                "SCENARIO_ID_MISSING",
                "no scenario is given and none can be found",
            )
        })?;
    let receipt = receipt.map_err(|error| refuse("WORLD_KEY_MISSING", error.to_string()))?;
    let manifest = check_pack(request, inputs, &receipt, &scenario_id)?;
    check_seal(request, inputs)?;
    let plan = plan_outputs(&request.selection, inputs)
        .map_err(|error| refuse(error.code(), error.to_string()))?;
    let outputs = entries(&plan, inputs)?;
    check_gates(request, inputs, &outputs, &receipt.tokens(&scenario_id))?;
    let producer_id = check_producer(request, inputs)?;
    if request.checkpoint == CheckpointChoice::PostgresWithoutDsn {
        return Err(refuse(
            "CHECKPOINT_DSN_MISSING",
            "checkpoints need a PostgreSQL connection",
        ));
    }
    Ok(Cleared {
        pack_key: match &manifest {
            Some(manifest) => manifest.oracle_pack_id.clone(),
            None => fallback_pack_key(&engine_run_root),
        },
        engine_release: manifest.map(|manifest| manifest.engine_release),
        engine_run_root,
        platform_run_id,
        receipt,
        scenario_id,
        plan,
        outputs,
        producer_id,
    })
}

fn check_pack(
    request: &PreflightRequest,
    inputs: &dyn PreflightInputs,
    receipt: &RunReceipt,
    scenario_id: &str,
) -> Result<Option<PackManifest>, PreflightRefusal> {
    let manifest = inputs
        .pack_manifest()
        .map_err(|why| refuse("PACK_MANIFEST_INVALID", why))?;
    let Some(manifest) = manifest else {
        return match request.seal {
            SealStrictness::Strict => {
                Err(refuse("PACK_MANIFEST_MISSING", "the world is not packed"))
            }
            SealStrictness::Lenient => Ok(None),
        };
    };
    let (packed, found) = (&manifest.world_key, receipt.world_key(scenario_id));
    if *packed != found {
        let detail =
            format!("the pack is of {packed:?}, the run receipt and scenario say {found:?}");
        return Err(refuse("WORLD_KEY_MISMATCH", detail));
    }
    Ok(Some(manifest))
}

fn check_seal(
    request: &PreflightRequest,
    inputs: &dyn PreflightInputs,
) -> Result<(), PreflightRefusal> {
    let seal = inputs
        .seal()
        .map_err(|why| refuse("PACK_NOT_SEALED", why))?;
    match seal.refusal(request.seal == SealStrictness::Strict) {
        Some(refusal) => Err(refuse(refusal.code(), refusal.to_string())),
        None => Ok(()),
    }
}

fn entries(
    plan: &OutputPlan,
    inputs: &dyn PreflightInputs,
) -> Result<Vec<OutputEntry>, PreflightRefusal> {
    let unknown = |id: &String| {
        refuse(
            "NO_TRAFFIC_OUTPUTS",
            format!("{id} is not in the catalogue"),
        )
    };
    let entry = |id: &String| inputs.output(id).ok_or_else(|| unknown(id));
    plan.output_ids().iter().map(entry).collect()
}

fn check_gates(
    request: &PreflightRequest,
    inputs: &dyn PreflightInputs,
    outputs: &[OutputEntry],
    tokens: &WorldTokens,
) -> Result<(), PreflightRefusal> {
    if request.gates == GateProof::NotRequired {
        return Ok(());
    }
    let mut gate_ids: Vec<String> = Vec::new();
    for gate_id in outputs
        .iter()
        .flat_map(|output| &output.read_requires_gates)
    {
        if !gate_ids.contains(gate_id) {
            gate_ids.push(gate_id.clone());
        }
    }
    match inputs.unproven_gate(&gate_ids, tokens) {
        Some(why) => Err(refuse("GATE_PASS_MISSING", why)),
        None => Ok(()),
    }
}

fn check_producer(
    request: &PreflightRequest,
    inputs: &dyn PreflightInputs,
) -> Result<String, PreflightRefusal> {
    let given = |text: &Option<String>| {
        text.as_deref()
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    let producer_id = given(&request.producer_id)
        .ok_or_else(|| refuse("PRODUCER_ID_MISSING", "the wiring names no producer"))?;
    let reference = given(&request.allowlist_ref).ok_or_else(|| {
        refuse(
            "PRODUCER_ALLOWLIST_MISSING",
            "the wiring names no allowlist",
        )
    })?;
    if reference.starts_with("s3://") {
        let detail = format!("{reference}: an allowlist must be a file");
        return Err(refuse("PRODUCER_ALLOWLIST_UNSUPPORTED", detail));
    }
    let text = inputs.allowlist(&reference).map_err(|why| {
        refuse(
            "PRODUCER_ALLOWLIST_UNREADABLE",
            format!("{reference}: {why}"),
        )
    })?;
    let allowed = allowlist_entries(&text);
    if allowed.is_empty() {
        let detail = format!("{reference} allows nobody");
        return Err(refuse("PRODUCER_ALLOWLIST_EMPTY", detail));
    }
    if !allowed.contains(&producer_id.as_str()) {
        let detail = format!("{producer_id} is not in {reference}");
        return Err(refuse("PRODUCER_NOT_ALLOWED", detail));
    }
    Ok(producer_id)
}

/// One producer a line; blank lines and `#` lines say nothing.
fn allowlist_entries(text: &str) -> Vec<&str> {
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

#[cfg(test)]
#[path = "preflight_tests.rs"]
mod tests;
