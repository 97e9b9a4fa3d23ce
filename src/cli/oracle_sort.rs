//! `wellspring oracle sort`: the time-sorted views of outputs (contract 3.7).

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;
use wellspring_domain::stream::output_plan;
use wellspring_domain::world::catalogue::{Catalogue, CatalogueError, OutputEntry};
use wellspring_domain::world::stream_view::{SortKeyOverrides, TIME_COLUMN, has_override_key};
use wellspring_domain::world::world_key::RunReceipt;

use super::oracle::{self, WorldArgs};
use super::output::{self, Align, TableView};
use super::progress::{self, Progress};
use super::{CliContext, Failure, Outcome};
use crate::clock::SystemClock;
use crate::settings::Settings;
use crate::world_files::pack_files::read_run_receipt;
use crate::world_files::stream_sort::{self, SortError, SortOutcome, SortRequest};
use crate::world_files::world_root::{ScenarioDiscovery, discover_scenario};

/// Arguments of `wellspring oracle sort`.
#[derive(Debug, clap::Args)]
pub struct SortArgs {
    #[command(flatten)]
    world: WorldArgs,
    /// Output to sort; repeatable [default: the profile's traffic outputs].
    #[arg(long, value_name = "ID")]
    output_id: Vec<String>,
    /// YAML list of outputs to sort.
    #[arg(long, value_name = "YAML", conflicts_with = "output_id")]
    output_ids_ref: Option<String>,
    /// Sort every output of the catalogue that has a time or a key of its own.
    #[arg(long, conflicts_with_all = ["output_id", "output_ids_ref"])]
    all: bool,
    /// Base folder of all views [default: the profile's, else <root>/stream_view/ts_utc].
    #[arg(long, value_name = "BASE")]
    stream_view_root: Option<String>,
    /// Layout of a view; only flat exists.
    #[arg(long, value_name = "LAYOUT", default_value = "flat")]
    partition_granularity: String,
    /// Bound for the rows held in memory, like 512MiB or 2GiB.
    #[arg(
        long,
        value_name = "SIZE",
        env = "STREAM_SORT_MEMORY_LIMIT",
        default_value = "1GiB"
    )]
    #[arg(value_parser = parse_size)]
    memory_limit: u64,
    #[command(flatten)]
    tuning: Tuning,
}

#[derive(Debug, clap::Args)]
struct Tuning {
    /// Days per part; 0 writes a single part.
    #[arg(
        long,
        value_name = "DAYS",
        env = "STREAM_SORT_CHUNK_DAYS",
        default_value_t = 0
    )]
    chunk_days: u32,
    /// Reading threads; 0 means one per processor.
    #[arg(
        long,
        value_name = "N",
        env = "STREAM_SORT_THREADS",
        default_value_t = 0
    )]
    threads: usize,
    /// Folder for spill files [default: beside the view].
    #[arg(long, value_name = "DIR", env = "STREAM_SORT_TEMP_DIR")]
    temp_dir: Option<PathBuf>,
    /// Comma separated sort keys that replace those of every output.
    #[arg(
        long,
        value_name = "KEYS",
        env = "STREAM_SORT_KEYS",
        value_delimiter = ','
    )]
    sort_keys: Vec<String>,
    /// Time column that replaces ts_utc.
    #[arg(long, value_name = "COLUMN", env = "STREAM_SORT_TIME_COLUMN")]
    time_column: Option<String>,
    /// How often the written parts are read back before giving up.
    #[arg(
        long,
        value_name = "N",
        env = "STREAM_SORT_STATS_RETRIES",
        default_value_t = 3
    )]
    stats_retries: u32,
    /// Seconds before the second attempt; twice as many before the third.
    #[arg(
        long,
        value_name = "S",
        env = "STREAM_SORT_STATS_RETRY_DELAY",
        default_value_t = 2.0
    )]
    stats_retry_delay: f64,
}

/// Runs the command.
pub fn run(args: SortArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    let settings = ctx.settings()?;
    let root = oracle::engine_run_root(&args.world, settings)?;
    let receipt = read_run_receipt(oracle::open(settings, &root)?.as_ref())
        .map_err(|error| Failure::of(error.code(), error))?;
    let scenario_id = scenario_id(&args, settings, &root)?;
    let catalogue = oracle::contract_files(settings)?.catalogue;
    let world = World {
        root,
        receipt,
        scenario_id,
    };
    let mut outcomes = Vec::new();
    for request in requests(&args, settings, &catalogue, &world)? {
        outcomes.push((sort(&request)?, request));
    }
    let receipts: Vec<&Value> = outcomes
        .iter()
        .map(|(outcome, _)| &outcome.receipt)
        .collect();
    output::print_result(ctx.contract_format(), &receipts, || table(&outcomes))?;
    Ok(Outcome::Ok)
}

/// The world being sorted.
struct World {
    root: String,
    receipt: RunReceipt,
    scenario_id: String,
}

fn scenario_id(args: &SortArgs, settings: &Settings, root: &str) -> anyhow::Result<String> {
    if let Some(scenario_id) = oracle::scenario_id(&args.world, settings) {
        return Ok(scenario_id);
    }
    let missing =
        |sentence: String| Failure::new("SCENARIO_ID_MISSING", sentence).hint("pass --scenario-id");
    match discover_scenario(oracle::open(settings, root)?.as_ref())
        .map_err(|error| Failure::of(error.code(), error))?
    {
        ScenarioDiscovery::One(scenario_id) => Ok(scenario_id),
        ScenarioDiscovery::Missing => Err(missing("the world names no scenario".into()).into()),
        ScenarioDiscovery::Ambiguous(found) => Err(missing(format!(
            "the world has several scenarios: {}",
            found.join(", ")
        ))
        .into()),
    }
}

fn requests(
    args: &SortArgs,
    settings: &Settings,
    catalogue: &Catalogue,
    world: &World,
) -> anyhow::Result<Vec<SortRequest>> {
    if args.all {
        return all_sortable(args, settings, catalogue, world);
    }
    let output_ids = output_ids(args, settings)?;
    let request = |output_id: &String| {
        let entry = catalogue.output(output_id).map_err(template_missing)?;
        request(args, settings, world, entry)
    };
    output_ids.iter().map(request).collect()
}

/// The outputs asked for; an empty list is an error, never "nothing to do".
fn output_ids(args: &SortArgs, settings: &Settings) -> anyhow::Result<Vec<String>> {
    let policy = &settings.policy;
    let reference = args
        .output_ids_ref
        .as_ref()
        .or(policy.traffic_output_ids_ref.as_ref());
    let ids = match (
        &args.output_id,
        &args.output_ids_ref,
        &policy.traffic_output_ids,
    ) {
        (given, _, _) if !given.is_empty() => given.clone(),
        (_, None, policy_ids) if !policy_ids.is_empty() => policy_ids.clone(),
        _ => match reference {
            None => Vec::new(),
            Some(reference) => {
                let list = settings
                    .load_ref_value(reference)
                    .map_err(|error| Failure::of(error.code().to_owned(), error))?;
                output_plan::parse_list(&list).map_err(|reason| {
                    Failure::new("OUTPUT_IDS_MISSING", format!("{reference}: {reason}"))
                })?
            }
        },
    };
    match ids.is_empty() {
        false => Ok(ids),
        true => Err(Failure::new("OUTPUT_IDS_MISSING", "no output to sort")
            .hint("pass --output-id, --output-ids-ref or --all")
            .into()),
    }
}

fn all_sortable(
    args: &SortArgs,
    settings: &Settings,
    catalogue: &Catalogue,
    world: &World,
) -> anyhow::Result<Vec<SortRequest>> {
    let mut requests = Vec::new();
    for entry in catalogue.outputs() {
        let request = request(args, settings, world, entry)?;
        if is_sortable(&request, entry)? {
            requests.push(request);
        } else {
            progress::say(&format!("{}: nothing to sort, skipped", entry.output_id));
        }
    }
    Ok(requests)
}

/// An absent output that is required stays in the list, so that the sort names it as missing.
fn is_sortable(request: &SortRequest, entry: &OutputEntry) -> anyhow::Result<bool> {
    match stream_sort::source_columns(request) {
        Ok(columns) => Ok(
            has_override_key(&entry.output_id) || columns.iter().any(|name| name == TIME_COLUMN)
        ),
        Err(SortError::OutputPathsEmpty { .. }) => Ok(!entry.is_optional()),
        Err(error) => Err(failure(error).into()),
    }
}

fn request(
    args: &SortArgs,
    settings: &Settings,
    world: &World,
    entry: &OutputEntry,
) -> anyhow::Result<SortRequest> {
    let tuning = &args.tuning;
    let base = args.stream_view_root.clone();
    let request = SortRequest::for_output(&world.root, &world.receipt, &world.scenario_id, entry)
        .map_err(template_missing)?;
    let delay = Duration::try_from_secs_f64(tuning.stats_retry_delay).unwrap_or_default();
    let request = SortRequest {
        stream_view_base: base.or_else(|| settings.wiring.oracle_stream_view_root.clone()),
        ..request
    };
    Ok(SortRequest {
        temp_dir: temp_dir(tuning, settings, &request)?,
        partition_granularity: args.partition_granularity.clone(),
        key_overrides: key_overrides(tuning),
        memory_limit: args.memory_limit,
        chunk_days: tuning.chunk_days,
        threads: tuning.threads,
        stores: settings.object_stores(),
        stats_attempts: tuning.stats_retries,
        stats_retry_delay: delay,
        ..request
    })
}

/// Where spill files lie: as asked for, beside a view in a folder, else below the local root.
fn temp_dir(
    tuning: &Tuning,
    settings: &Settings,
    request: &SortRequest,
) -> anyhow::Result<Option<PathBuf>> {
    if tuning.temp_dir.is_some() || !request.view_base().starts_with("s3://") {
        return Ok(tuning.temp_dir.clone());
    }
    let folder = PathBuf::from(settings.local_root()).join(".sorting");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(Some(folder))
}

/// An empty variable is an unset one.
fn key_overrides(tuning: &Tuning) -> SortKeyOverrides {
    let keys = tuning.sort_keys.iter().map(|key| key.trim().to_owned());
    let keys: Vec<String> = keys.filter(|key| !key.is_empty()).collect();
    let time_column = tuning.time_column.clone();
    SortKeyOverrides {
        keys: Some(keys).filter(|keys| !keys.is_empty()),
        time_column: time_column.filter(|column| !column.is_empty()),
    }
}

/// An output without a catalogue entry has no template either (contract 3.7).
fn template_missing(error: CatalogueError) -> Failure {
    match &error {
        CatalogueError::UnknownOutput { output_id } => Failure::new(
            format!("OUTPUT_TEMPLATE_MISSING:{output_id}"),
            error.to_string(),
        ),
        _ => Failure::of(error.coded(), error),
    }
}

fn sort(request: &SortRequest) -> anyhow::Result<SortOutcome> {
    let progress = Progress::start(format!("sort {}", request.output_id), None);
    let clock = SystemClock::new();
    let outcome =
        stream_sort::sort_output(request, &clock, &|rows| progress.add(rows)).map_err(failure)?;
    progress.finish(match outcome.built {
        true => "sorted, read back and equal",
        false => "the same view is there already; nothing was written",
    });
    Ok(outcome)
}

fn failure(error: SortError) -> Failure {
    let code = error.code();
    let failure = Failure::of(error.coded(), error);
    match code {
        "STREAM_RECEIPT_MISSING" | "STREAM_RECEIPT_MISMATCH" | "STREAM_VIEW_PARTIAL_EXISTS" => {
            failure.hint("delete that folder, or pass another --stream-view-root")
        }
        "OUTPUT_PATHS_EMPTY" => failure.hint("check --engine-run-root and --scenario-id"),
        _ => failure,
    }
}

fn table(outcomes: &[(SortOutcome, SortRequest)]) -> TableView {
    let mut table = TableView::new([
        ("output_id", Align::Left),
        ("rows", Align::Right),
        ("from", Align::Left),
        ("to", Align::Left),
        ("", Align::Left),
        ("stream_view_root", Align::Left),
    ]);
    for (outcome, request) in outcomes {
        let stats = &outcome.receipt["sorted_stats"];
        let text = |member: &str| stats[member].as_str().unwrap_or("-").to_owned();
        table.row([
            request.output_id.clone(),
            output::grouped(stats["row_count"].as_u64().unwrap_or_default()),
            text("min_ts_utc"),
            text("max_ts_utc"),
            if outcome.built { "built" } else { "unchanged" }.to_owned(),
            request.view_dir(),
        ]);
    }
    table
}

/// A size in bytes, or with KiB, MiB, GiB, TiB (KB, MB, GB, TB mean the same).
fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let shift = match text[split..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "kib" | "kb" | "k" => 10,
        "mib" | "mb" | "m" => 20,
        "gib" | "gb" | "g" => 30,
        "tib" | "tb" | "t" => 40,
        unit => return Err(format!("{unit:?} is no unit; use KiB, MiB, GiB or TiB")),
    };
    let number: u64 = text[..split]
        .parse()
        .map_err(|_| "a size starts with a whole number".to_owned())?;
    let bytes = number.checked_mul(1 << shift).ok_or("too large")?;
    match bytes >= MEMORY_LIMIT_MIN {
        true => Ok(bytes),
        false => Err("must be at least 16MiB".to_owned()),
    }
}

/// Below this a sort would only shuffle tiny buckets.
const MEMORY_LIMIT_MIN: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_binary_units_and_have_a_lower_bound() {
        assert_eq!(parse_size("512MiB"), Ok(512 << 20));
        assert_eq!(parse_size("2 gb"), Ok(2 << 30));
        assert_eq!(parse_size("33554432"), Ok(32 << 20));
        for bad in ["1KiB", "", "MiB", "1.5GiB", "1XB", "99999999999999TiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
