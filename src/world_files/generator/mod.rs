//! Generates a sealed engine world: every output, its truth and all gate evidence (contract 3.1-3.4).
//!
//! A world is a pure function of its options: the same options give the same bytes, whatever the number
//! of threads. It is built beside the target and appears by one rename, receipt last, so a killed
//! generator leaves no half world behind.

mod campaigns;
mod cases;
mod columns;
mod day_curve;
mod flow;
mod gate_bundles;
mod layout;
mod merchants;
mod options;
mod part;
mod random;
mod rows;
mod zones;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::Serialize;
use serde_json::json;
use wellspring_domain::canonical_json;
use wellspring_domain::ids;
use wellspring_domain::time_text::Micros;

use super::staging::{StagingDir, StagingError};
use columns::Pins;
use flow::FlowSource;
use layout::OUTPUTS;
use part::PartContext;
use rows::RowShapes;

pub use options::{GenerateError, GenerateOptions};

const GENERATOR_REVISION: &str = "wellspring_world/1";

/// Rows of one output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutputRows {
    /// The output id.
    pub output_id: &'static str,
    /// Rows over all parts.
    pub rows: u64,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WorldSummary {
    /// The engine run root.
    pub engine_run_root: PathBuf,
    /// `run_id` of the run receipt.
    pub run_id: String,
    /// Sealed world identity.
    pub manifest_fingerprint: String,
    /// Governed parameter bundle.
    pub parameter_hash: String,
    /// World seed.
    pub seed: u64,
    /// Scenario of all rows.
    pub scenario_id: String,
    /// Merchants that trade.
    pub merchants: u64,
    /// Rows per output.
    pub outputs: Vec<OutputRows>,
}

/// Generates a world. `on_events` is told how many traffic events are new, from any thread.
pub fn generate(
    options: &GenerateOptions,
    on_events: &(dyn Fn(u64) + Sync),
) -> Result<WorldSummary, GenerateError> {
    let start = options.check()?;
    refuse_filled(&options.out)?;
    let staging = StagingDir::claim(&staging_path(&options.out)).map_err(staging_error)?;
    let source = FlowSource::new(options, start.0);
    let shapes = RowShapes::new(pins(options), routing_universe_hash(options));
    create_dirs(staging.path(), &shapes.pins)?;
    let context = PartContext {
        root: staging.path(),
        source: &source,
        shapes: &shapes,
        on_events,
    };
    let rows = write_parts(options, &context)?;
    gate_bundles::write_all(staging.path(), &shapes.pins, &rows)?;
    let run_id = run_id(&shapes.pins);
    write_receipt(staging.path(), &shapes.pins, &run_id, start)?;
    staging
        .publish(&options.out)
        .map_err(|error| GenerateError::io(&options.out, &error))?;
    let pins = shapes.pins;
    Ok(WorldSummary {
        engine_run_root: options.out.clone(),
        run_id,
        manifest_fingerprint: pins.manifest_fingerprint,
        parameter_hash: pins.parameter_hash,
        seed: pins.seed,
        scenario_id: pins.scenario_id,
        merchants: source.merchant_count() as u64,
        outputs: rows
            .into_iter()
            .map(|(output_id, rows)| OutputRows { output_id, rows })
            .collect(),
    })
}

fn refuse_filled(out: &Path) -> Result<(), GenerateError> {
    match fs::read_dir(out) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(GenerateError::io(out, &error)),
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(GenerateError::NotEmpty {
                path: out.to_owned(),
            }),
        },
    }
}

/// Beside the target, so that the final rename stays on one file system.
fn staging_path(out: &Path) -> PathBuf {
    let name = out
        .file_name()
        .unwrap_or_else(|| std::ffi::OsStr::new("world"));
    let mut staging = std::ffi::OsString::from(".");
    staging.push(name);
    staging.push(".generating");
    out.with_file_name(staging)
}

fn staging_error(error: StagingError) -> GenerateError {
    match error {
        StagingError::Busy(path) => GenerateError::Busy { path },
        StagingError::Io { path, source } => GenerateError::io(path, &source),
    }
}

/// The world's identity covers everything its rows depend on.
fn pins(options: &GenerateOptions) -> Pins {
    let parameters = format!(
        "{GENERATOR_REVISION}|parameters|{}|{}|{}|{}",
        options.events, options.start_date, options.days, options.scenario_id
    );
    let parameter_hash = ids::h(&parameters);
    let manifest_fingerprint = ids::h(&format!(
        "{GENERATOR_REVISION}|world|{parameter_hash}|{}|{}",
        options.seed, options.parts
    ));
    Pins {
        seed: options.seed,
        manifest_fingerprint,
        parameter_hash,
        scenario_id: options.scenario_id.clone(),
    }
}

fn routing_universe_hash(options: &GenerateOptions) -> String {
    ids::h(&format!(
        "{GENERATOR_REVISION}|routing_universe|{}",
        options.seed
    ))
}

fn run_id(pins: &Pins) -> String {
    ids::h32(&format!(
        "{GENERATOR_REVISION}|run|{}",
        pins.manifest_fingerprint
    ))
}

fn create_dirs(root: &Path, pins: &Pins) -> Result<(), GenerateError> {
    for output in OUTPUTS {
        let dir = root.join(output.dir(pins));
        fs::create_dir_all(&dir).map_err(|error| GenerateError::io(&dir, &error))?;
    }
    Ok(())
}

/// Parts are handed to the threads one by one; each part is written by one thread.
fn write_parts(
    options: &GenerateOptions,
    context: &PartContext<'_>,
) -> Result<Vec<(&'static str, u64)>, GenerateError> {
    let next_part = AtomicU32::new(0);
    let totals = Mutex::new(vec![0u64; OUTPUTS.len()]);
    let work = || -> Result<(), GenerateError> {
        loop {
            let part = next_part.fetch_add(1, Ordering::Relaxed);
            if part >= options.parts {
                return Ok(());
            }
            let rows = part::write_part(context, part, flow_range(options, part))?;
            let mut totals = totals
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            totals
                .iter_mut()
                .zip(rows)
                .for_each(|(total, rows)| *total += rows);
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..thread_count(options))
            .map(|_| scope.spawn(work))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
    })?;
    let totals = totals
        .into_inner()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    Ok(OUTPUTS
        .iter()
        .map(|output| output.id())
        .zip(totals)
        .collect())
}

fn thread_count(options: &GenerateOptions) -> usize {
    let wanted = match options.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    wanted.min(options.parts as usize)
}

fn flow_range(options: &GenerateOptions, part: u32) -> std::ops::Range<u64> {
    let boundary = |part: u32| {
        let flows = u128::from(options.flows()) * u128::from(part) / u128::from(options.parts);
        flows as u64
    };
    boundary(part)..boundary(part + 1)
}

/// Written last: a folder without it is no engine run root (contract 3.1).
fn write_receipt(
    root: &Path,
    pins: &Pins,
    run_id: &str,
    start: Micros,
) -> Result<(), GenerateError> {
    let receipt = json!({
        "run_id": run_id,
        "manifest_fingerprint": pins.manifest_fingerprint,
        "parameter_hash": pins.parameter_hash,
        "seed": pins.seed,
        "created_utc": start.format_env(),
        "contracts_layout": "model_spec",
        "contracts_root": ".",
        "runs_root": "runs",
        "external_roots": [],
        "generator": GENERATOR_REVISION,
    });
    let mut bytes = Vec::new();
    canonical_json::push_cj(&mut bytes, &receipt);
    bytes.push(b'\n');
    let path = root.join("run_receipt.json");
    let written = fs::write(&path, bytes).and_then(|()| fs::File::open(&path)?.sync_all());
    written.map_err(|error| GenerateError::io(&path, &error))
}

#[cfg(test)]
mod tests;
