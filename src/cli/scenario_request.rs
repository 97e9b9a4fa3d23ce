//! The run request of `wellspring scenario run`: flags, the environment, and the world itself.
//!
//! What is not said is read from the world: fingerprint, parameter hash and seed from its run
//! receipt, the scenario from its pack or its folders.

use wellspring_domain::run_paths::PlatformRunId;
use wellspring_domain::scenario::request::{RequestWindow, RunRequest, ScenarioBinding, Strategy};
use wellspring_domain::world::world_key::RunReceipt;

use super::Failure;
use crate::object_store::ObjectStores;
use crate::settings::Settings;
use crate::world_files::pack_files::{read_pack_manifest, read_run_receipt};
use crate::world_files::world_root::{ScenarioDiscovery, discover_scenario, resolve_engine_root};

/// Flags of a run request.
#[derive(Debug, clap::Args)]
pub struct RequestArgs {
    /// Idempotency key [default: one per platform run, world and scenario].
    #[arg(long, value_name = "KEY", env = "SR_RUN_EQUIVALENCE_KEY")]
    run_equivalence_key: Option<String>,
    /// Sealed world identity [default: the world's run receipt].
    #[arg(long, value_name = "HEX64", env = "SR_MANIFEST_FINGERPRINT")]
    manifest_fingerprint: Option<String>,
    /// Parameter bundle [default: the world's run receipt].
    #[arg(long, value_name = "HEX64", env = "SR_PARAMETER_HASH")]
    parameter_hash: Option<String>,
    /// World seed [default: the world's run receipt].
    #[arg(long, value_name = "N", env = "SR_SEED")]
    seed: Option<u64>,
    /// Scenario [default: the profile's, else the world's].
    #[arg(
        long,
        value_name = "ID",
        env = "SR_SCENARIO_ID",
        conflicts_with = "scenario_set"
    )]
    scenario_id: Option<String>,
    /// Several scenarios instead of one.
    #[arg(long, value_name = "ID", num_args = 1..)]
    scenario_set: Vec<String>,
    /// First instant of the window, with a zone.
    #[arg(
        long,
        value_name = "TIME",
        env = "SR_WINDOW_START",
        default_value = "2026-01-01T00:00:00Z"
    )]
    window_start: String,
    /// First instant after the window, with a zone.
    #[arg(
        long,
        value_name = "TIME",
        env = "SR_WINDOW_END",
        default_value = "2026-01-02T00:00:00Z"
    )]
    window_end: String,
    /// The world's engine run root [default: the profile's oracle_engine_run_root].
    #[arg(long, value_name = "ROOT")]
    engine_run_root: Option<String>,
    /// Outputs to prove (repeatable) [default: the policy's traffic and context].
    #[arg(long, value_name = "ID")]
    output_id: Vec<String>,
    /// AUTO and FORCE_REUSE prove what lies there, FORCE_INVOKE runs the engine first.
    #[arg(long, value_name = "STRATEGY", env = "SR_STRATEGY", value_parser = strategy)]
    strategy: Option<Strategy>,
    /// Who asks; kept in the record.
    #[arg(long, value_name = "NAME", env = "SR_INVOKER")]
    invoker: Option<String>,
    /// The caller's id of this request.
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

fn strategy(text: &str) -> Result<Strategy, String> {
    let all = [Strategy::Auto, Strategy::ForceInvoke, Strategy::ForceReuse];
    let found = all.into_iter().find(|strategy| strategy.as_str() == text);
    found.ok_or_else(|| "expected AUTO, FORCE_INVOKE or FORCE_REUSE".to_owned())
}

/// The request of these flags; opens the world only when something is left to it.
pub fn request_from(
    args: &RequestArgs,
    settings: &Settings,
    run_id: &PlatformRunId,
) -> anyhow::Result<RunRequest> {
    let root = engine_root(args, settings);
    let world = WorldView {
        root: root.as_deref(),
        stores: settings.object_stores(),
    };
    let scenario = scenario(args, settings, &world)?;
    let key = args
        .run_equivalence_key
        .clone()
        .filter(|key| !key.is_empty());
    let identity = identity(args, &world)?;
    Ok(RunRequest {
        run_equivalence_key: key.unwrap_or_else(|| default_key(run_id, &scenario, &identity)),
        manifest_fingerprint: identity.manifest_fingerprint,
        parameter_hash: identity.parameter_hash,
        seed: identity.seed,
        scenario,
        window: RequestWindow {
            window_start_utc: args.window_start.clone(),
            window_end_utc: args.window_end.clone(),
            window_tz: "UTC".to_owned(),
        },
        requested_strategy: args.strategy,
        output_ids: Some(args.output_id.clone()).filter(|ids| !ids.is_empty()),
        engine_run_root: root,
        notes: None,
        invoker: args.invoker.clone(),
        request_id: args.request_id.clone(),
    })
}

/// One run per platform run, world and scenario: giving the command again goes on with it.
fn default_key(run_id: &PlatformRunId, scenario: &ScenarioBinding, world: &Identity) -> String {
    let set = scenario
        .scenario_set
        .as_deref()
        .unwrap_or_default()
        .join("+");
    let scenario = scenario.scenario_id.as_deref().unwrap_or(&set);
    let fingerprint: String = world.manifest_fingerprint.chars().take(12).collect();
    format!("{run_id}:{fingerprint}:{}:{scenario}", world.seed)
}

fn engine_root(args: &RequestArgs, settings: &Settings) -> Option<String> {
    let wiring = &settings.wiring;
    let given = args
        .engine_run_root
        .clone()
        .or_else(|| wiring.oracle_engine_run_root.clone());
    let given = given.filter(|root| !root.is_empty())?;
    Some(resolve_engine_root(&given, Some(&wiring.oracle_root)))
}

struct Identity {
    manifest_fingerprint: String,
    parameter_hash: String,
    seed: u64,
}

/// The world's identity: as said, and the rest from its receipt.
fn identity(args: &RequestArgs, world: &WorldView<'_>) -> Result<Identity, Failure> {
    let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (fingerprint, parameters) = (said(&args.manifest_fingerprint), said(&args.parameter_hash));
    if let (Some(manifest_fingerprint), Some(parameter_hash), Some(seed)) =
        (fingerprint.clone(), parameters.clone(), args.seed)
    {
        return Ok(Identity {
            manifest_fingerprint,
            parameter_hash,
            seed,
        });
    }
    let receipt = world.receipt()?;
    Ok(Identity {
        manifest_fingerprint: fingerprint.unwrap_or(receipt.manifest_fingerprint),
        parameter_hash: parameters.unwrap_or(receipt.parameter_hash),
        seed: args.seed.unwrap_or(receipt.seed),
    })
}

fn scenario(
    args: &RequestArgs,
    settings: &Settings,
    world: &WorldView<'_>,
) -> Result<ScenarioBinding, Failure> {
    if !args.scenario_set.is_empty() {
        let scenario_set = Some(args.scenario_set.clone());
        return Ok(ScenarioBinding {
            scenario_id: None,
            scenario_set,
        });
    }
    let said = args
        .scenario_id
        .clone()
        .or_else(|| settings.wiring.oracle_scenario_id.clone());
    let scenario_id = match said.filter(|id| !id.is_empty()) {
        Some(id) => id,
        None => world.scenario()?,
    };
    Ok(ScenarioBinding {
        scenario_id: Some(scenario_id),
        scenario_set: None,
    })
}

/// The world, opened when it is asked.
struct WorldView<'a> {
    root: Option<&'a str>,
    stores: ObjectStores,
}

impl WorldView<'_> {
    fn open(&self) -> Result<std::sync::Arc<dyn wellspring_domain::ports::ObjectStore>, Failure> {
        let root = self.root.ok_or_else(|| {
            Failure::new("ENGINE_ROOT_MISSING", "no engine run root was given")
                .hint("pass --engine-run-root, or set ORACLE_ENGINE_RUN_ROOT")
        })?;
        self.stores
            .open_existing(root)
            .map_err(|error| Failure::of("ENGINE_ROOT_MISSING", error))
    }

    fn receipt(&self) -> Result<RunReceipt, Failure> {
        let receipt = read_run_receipt(self.open()?.as_ref());
        receipt.map_err(|error| {
            Failure::of(error.code(), error)
                .hint("pass --manifest-fingerprint, --parameter-hash and --seed")
        })
    }

    fn scenario(&self) -> Result<String, Failure> {
        let world = self.open()?;
        if let Ok(Some(manifest)) = read_pack_manifest(world.as_ref()) {
            return Ok(manifest.world_key.scenario_id);
        }
        let found =
            discover_scenario(world.as_ref()).map_err(|error| Failure::of(error.code(), error))?;
        match found {
            ScenarioDiscovery::One(id) => Ok(id),
            ScenarioDiscovery::Missing => Err(Failure::new(
                "SCENARIO_ID_MISSING",
                "the world names no scenario",
            )
            .hint("pass --scenario-id")),
            ScenarioDiscovery::Ambiguous(ids) => Err(Failure::new(
                "SCENARIO_ID_AMBIGUOUS",
                format!("the world has several scenarios: {}", ids.join(", ")),
            )
            .hint("pass --scenario-id")),
        }
    }
}
