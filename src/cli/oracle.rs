//! `wellspring oracle`: pack, check and sort sealed worlds (contract 3.6, 3.7, 4).
//!
//! Flags, exit codes and JSON are the contract's: `check` ends with 0 for OK and WARN and with 1 for FAIL.

use std::sync::Arc;

use clap::ValueEnum;
use serde_json::json;
use wellspring_domain::canonical_json::to_sj;
use wellspring_domain::ports::{Clock, ObjectStore, StoreError};
use wellspring_domain::world::checker::{CheckReport, CheckStatus, SealRule, Severity, remedy};
use wellspring_domain::world::seal::SealStatus;

use super::output::{self, OutputFormat, TableView};
use super::{CliContext, Failure, Outcome, progress};
use crate::clock::SystemClock;
use crate::object_store::OpenStoreError;
use crate::settings::Settings;
use crate::world_files::contract_files::ContractFiles;
use crate::world_files::facts_check::{FactsCheck, check_facts};
use crate::world_files::pack_files::{PackOutcome, PackRequest, pack_world};
use crate::world_files::world_check::{WorldCheck, check_world};
use crate::world_files::world_root::resolve_engine_root;

/// Arguments of `wellspring oracle`.
#[derive(Debug, clap::Args)]
pub struct OracleArgs {
    #[command(subcommand)]
    command: OracleCommand,
}

#[derive(Debug, clap::Subcommand)]
enum OracleCommand {
    /// Give a world its pack manifest and its seal. A sealed world is never written to again.
    Pack(PackArgs),
    /// Check a world, or the facts of a run, before anything reads it.
    Check(CheckArgs),
    /// Build the time-sorted view of outputs that a stream reads.
    Sort(super::oracle_sort::SortArgs),
    /// Copy a world between folders and buckets; digests are verified on both sides.
    Sync(super::oracle_sync::SyncArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct WorldArgs {
    /// The world's engine run root [default: the profile's oracle_engine_run_root].
    #[arg(long, value_name = "ROOT")]
    engine_run_root: Option<String>,
    /// The scenario [default: the profile's oracle_scenario_id].
    #[arg(long, value_name = "ID")]
    scenario_id: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SealStatusArg {
    #[value(name = "SEALED_OK")]
    Ok,
    #[value(name = "SEALED_FAILED")]
    Failed,
}

#[derive(Debug, clap::Args)]
struct PackArgs {
    #[command(flatten)]
    world: WorldArgs,
    /// Engine release that wrote the world; part of the pack's identity.
    #[arg(long, value_name = "RELEASE", default_value = "local")]
    engine_release: String,
    /// Folder for manifest and seal [default: the engine run root].
    #[arg(long, value_name = "DIR")]
    pack_root: Option<String>,
    /// What the seal says; a world sealed as SEALED_FAILED is never read.
    #[arg(long, value_enum, value_name = "STATUS", default_value = "SEALED_OK")]
    seal_status: SealStatusArg,
}

#[derive(Debug, clap::Args)]
struct CheckArgs {
    #[command(flatten)]
    world: WorldArgs,
    /// Outputs that must exist [default: look for all, warn about missing ones].
    #[arg(long, value_name = "ID,ID", value_delimiter = ',')]
    output_ids: Vec<String>,
    /// Check the facts of a run instead of a world: a file, or its key below the runs root.
    #[arg(long, value_name = "REF", conflicts_with_all = ["engine_run_root", "output_ids"])]
    run_facts_ref: Option<String>,
    /// A missing seal is an error [default for the profiles dev and prod].
    #[arg(long, conflicts_with = "allow_unsealed")]
    strict_seal: bool,
    /// A missing seal is a warning.
    #[arg(long)]
    allow_unsealed: bool,
    /// With --run-facts-ref: a locator without a digest is a warning, not an error.
    #[arg(long, requires = "run_facts_ref")]
    allow_missing_digest: bool,
}

/// Runs the command.
pub fn run(args: OracleArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    match args.command {
        OracleCommand::Pack(args) => pack(args, ctx),
        OracleCommand::Check(args) => check(args, ctx),
        OracleCommand::Sort(args) => super::oracle_sort::run(args, ctx),
        OracleCommand::Sync(args) => super::oracle_sync::run(args, ctx),
    }
}

fn pack(args: PackArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    let settings = ctx.settings()?;
    let engine_run_root = engine_run_root(&args.world, settings)?;
    let pack_root = args.pack_root.unwrap_or_else(|| engine_run_root.clone());
    let pack_store = open_pack_root(settings, &pack_root)?;
    let contract = contract_files(settings)?;
    let scenario_id = scenario_id(&args.world, settings).unwrap_or_default();
    let request = PackRequest {
        scenario_id: &scenario_id,
        engine_release: &args.engine_release,
        seal_status: match args.seal_status {
            SealStatusArg::Ok => SealStatus::Ok,
            SealStatusArg::Failed => SealStatus::Failed,
        },
        digests: &contract.digests,
    };
    let world = open(settings, &engine_run_root)?;
    let now = SystemClock::new().now();
    let packed = pack_world(world.as_ref(), pack_store.as_ref(), &request, now)
        .map_err(|error| Failure::of(error.code(), error))
        .map_err(with_hint)?;
    print_packed(&packed, &engine_run_root, &pack_root, ctx)?;
    Ok(Outcome::Ok)
}

/// A folder must be there; a place in a bucket needs no making.
fn open_pack_root(settings: &Settings, root: &str) -> Result<Arc<dyn ObjectStore>, Failure> {
    let stores = settings.object_stores();
    let opened = match root.contains("://") {
        true => stores.open(root),
        false => stores.open_existing(root),
    };
    opened.map_err(|error| Failure::of(pack_root_code(&error), error))
}

fn print_packed(
    packed: &PackOutcome,
    engine_run_root: &str,
    pack_root: &str,
    ctx: &CliContext,
) -> anyhow::Result<()> {
    progress::say(match packed.unchanged() {
        true => "already packed and sealed alike; nothing was written",
        false => "packed and sealed",
    });
    let pairs = [
        ("engine_run_root", engine_run_root),
        ("oracle_pack_id", packed.manifest.oracle_pack_id.as_str()),
        ("pack_root", pack_root),
    ];
    match ctx.contract_format() {
        OutputFormat::Json => {
            let object: serde_json::Map<_, _> = pairs
                .into_iter()
                .map(|(name, value)| (name.to_owned(), json!(value)))
                .collect();
            output::print_text(&format!("{}\n", to_sj(&object)?))?;
        }
        OutputFormat::Table => {
            let mut table = TableView::pairs();
            pairs.into_iter().for_each(|(name, value)| {
                table.row([name, value]);
            });
            output::print_table(&table)?;
        }
    }
    Ok(())
}

fn check(args: CheckArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    let settings = ctx.settings()?;
    let contract = contract_files(settings)?;
    let seal_rule = match (args.strict_seal, args.allow_unsealed) {
        (true, _) => SealRule::Strict,
        (_, true) => SealRule::Lenient,
        _ => SealRule::of_profile(&settings.profile_id),
    };
    let report = match &args.run_facts_ref {
        Some(reference) => check_run_facts(reference, &args, seal_rule, &contract, ctx)?,
        None => check_engine_root(&args, seal_rule, &contract, settings)?,
    };
    print_report(&report, ctx)?;
    Ok(match report.status() {
        CheckStatus::Ok | CheckStatus::Warn => Outcome::Ok,
        CheckStatus::Fail => Outcome::Failed,
    })
}

fn check_engine_root(
    args: &CheckArgs,
    seal_rule: SealRule,
    contract: &ContractFiles,
    settings: &Settings,
) -> anyhow::Result<CheckReport> {
    let engine_run_root = engine_run_root(&args.world, settings)?;
    let scenario_id = scenario_id(&args.world, settings);
    let check = WorldCheck {
        engine_run_root: &engine_run_root,
        scenario_id: scenario_id.as_deref(),
        output_ids: Some(args.output_ids.as_slice()).filter(|ids| !ids.is_empty()),
        seal_rule,
        require_gate_pass: settings.policy.require_gate_pass,
    };
    let world = open(settings, &engine_run_root)?;
    let report = check_world(world.as_ref(), contract, &check);
    Ok(report.map_err(|error| Failure::of(error.code(), error))?)
}

fn check_run_facts(
    reference: &str,
    args: &CheckArgs,
    seal_rule: SealRule,
    contract: &ContractFiles,
    ctx: &CliContext,
) -> anyhow::Result<CheckReport> {
    let check = FactsCheck {
        run_facts_ref: reference,
        oracle_root: &ctx.settings()?.wiring.oracle_root,
        seal_rule,
        missing_digest: match args.allow_missing_digest {
            true => Severity::Warn,
            false => Severity::Error,
        },
    };
    let facts = read_facts(reference, ctx)?;
    let stores = ctx.settings()?.object_stores();
    let report = check_facts(facts.as_deref(), contract, &check, &stores);
    Ok(report.map_err(|error| Failure::of(error.code(), error))?)
}

/// A file as given, an object of the runs by its full name, or the object under that key; what is not
/// there is reported by the check.
fn read_facts(reference: &str, ctx: &CliContext) -> anyhow::Result<Option<Vec<u8>>> {
    if let Ok(bytes) = std::fs::read(reference) {
        return Ok(Some(bytes));
    }
    let store = ctx.runs_store()?;
    let root = store.absolute("");
    let key = reference.strip_prefix(root.as_str()).unwrap_or(reference);
    match store.get(key) {
        Ok(bytes) => Ok(bytes),
        Err(StoreError::InvalidKey { .. }) => Ok(None),
        Err(error) => Err(Failure::of(error.code(), error).into()),
    }
}

fn print_report(report: &CheckReport, ctx: &CliContext) -> anyhow::Result<()> {
    if ctx.contract_format() == OutputFormat::Json {
        return Ok(output::print_text(&format!("{}\n", report.to_json()?))?);
    }
    let status = match report.status() {
        CheckStatus::Ok => "OK",
        CheckStatus::Warn => "WARN",
        CheckStatus::Fail => "FAIL",
    };
    let mut table = TableView::left(["severity", "code", "what", "way out"]);
    for issue in report.issues() {
        let severity = match issue.severity {
            Severity::Error => "error",
            Severity::Warn => "warning",
        };
        let detail = issue.detail.as_deref().unwrap_or("");
        table.row([severity, issue.code, detail, remedy(issue.code)]);
    }
    if !report.issues().is_empty() {
        output::print_table(&table)?;
    }
    Ok(output::print_text(&format!("status: {status}\n"))?)
}

/// The engine run root of the flag, else of the profile, as it lies on this machine.
pub(super) fn engine_run_root(args: &WorldArgs, settings: &Settings) -> Result<String, Failure> {
    let wiring = &settings.wiring;
    let given = args
        .engine_run_root
        .as_ref()
        .or(wiring.oracle_engine_run_root.as_ref());
    match given.filter(|root| !root.is_empty()) {
        Some(root) => Ok(resolve_engine_root(root, Some(&wiring.oracle_root))),
        None => Err(
            Failure::new("ENGINE_ROOT_MISSING", "no engine run root was given")
                .hint("pass --engine-run-root, or set ORACLE_ENGINE_RUN_ROOT"),
        ),
    }
}

pub(super) fn scenario_id(args: &WorldArgs, settings: &Settings) -> Option<String> {
    let given = args.scenario_id.clone();
    given.or_else(|| settings.wiring.oracle_scenario_id.clone())
}

pub(super) fn contract_files(settings: &Settings) -> Result<ContractFiles, Failure> {
    ContractFiles::load(settings).map_err(|error| Failure::of(error.code().to_owned(), error))
}

pub(super) fn open(settings: &Settings, root: &str) -> Result<Arc<dyn ObjectStore>, Failure> {
    let opened = settings.object_stores().open(root);
    opened.map_err(|error| Failure::of(error.code(), error))
}

fn pack_root_code(error: &OpenStoreError) -> &'static str {
    match error {
        OpenStoreError::NotFound { .. } => "PACK_ROOT_NOT_FOUND",
        OpenStoreError::Unsupported { .. } | OpenStoreError::Store(_) => error.code(),
    }
}

fn with_hint(failure: Failure) -> Failure {
    match failure.code() {
        "SCENARIO_ID_MISSING" => failure.hint("pass --scenario-id"),
        "MANIFEST_MISMATCH" | "SEAL_MISMATCH" => {
            failure.hint("a sealed world is never changed; make a new world under a new root")
        }
        _ => failure,
    }
}
