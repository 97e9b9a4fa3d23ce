//! Builds the time-sorted view of one output (contract 3.7) within a memory limit.
//!
//! Pass 1 reads the source once, counts it, and holds it: in memory when it fits, else in spill files
//! cut into buckets of the key range. Pass 2 sorts bucket by bucket and writes the parts, pass 3 reads
//! the written parts again and compares. Parts are written first, then manifest, then receipt; in a folder
//! the view is built beside its target and becomes visible by one rename, in a bucket by its receipt. The
//! memory limit covers waiting rows, one bucket, decoding and one open row group.

mod buckets;
mod dictionary;
mod error;
mod keys;
mod merge;
mod parallel;
mod part_sink;
mod request;
mod roles;
mod row_hash;
mod scan;
mod source;
mod spill;
mod stats;
mod view_target;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod world_tests;

use serde_json::Value;
use wellspring_domain::ids;
use wellspring_domain::ports::Clock;
use wellspring_domain::world::locator::join_root;
use wellspring_domain::world::stream_view::{
    self, GRANULARITY_FLAT, SortDecision, SortIdentity, SortReceipt, SortStats, StreamViewManifest,
};

use super::evidence_digest::matched_files;
use super::parquet_reader::PartReader;
use super::part_location::PartLocation;
use keys::KeyPlan;
use part_sink::{PartSink, Windows};
use scan::{ScanContext, Scanned};
use source::Source;
use view_target::{ViewPlace, ViewTarget};

pub use error::SortError;
pub use request::{MEMORY_LIMIT_DEFAULT, SortRequest};

/// A committed view.
#[derive(Debug, Clone, PartialEq)]
pub struct SortOutcome {
    /// Its receipt, as it stands in the view.
    pub receipt: Value,
    /// False when the same view was there before and nothing was written.
    pub built: bool,
}

/// Names of the columns of an output's parts, from the footer of the first one.
pub fn source_columns(request: &SortRequest) -> Result<Vec<String>, SortError> {
    let found = source_parts(request)?;
    let part = PartReader::open(&found[0].1, 1, 0)?;
    Ok(part
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect())
}

/// Sorts one output, or finds that its view is there. `on_rows` is told how many source rows are new.
pub fn sort_output(
    request: &SortRequest,
    clock: &dyn Clock,
    on_rows: &(dyn Fn(u64) + Sync),
) -> Result<SortOutcome, SortError> {
    check_granularity(request)?;
    let found = source_parts(request)?;
    let (paths, parts): (Vec<String>, Vec<PartLocation>) = found.into_iter().unzip();
    let sort_keys = stream_view::sort_keys(&request.output_id, &request.key_overrides);
    let identity = identity(request, &paths, &sort_keys);
    let place = ViewPlace::of(request)?;
    if let Some(outcome) = existing_view(&place, &identity)? {
        return Ok(outcome);
    }
    let target = place.claim()?;
    // Between the first look and the claim another process may have built it.
    if let Some(outcome) = existing_view(&place, &identity)? {
        return Ok(outcome);
    }
    let built = build(request, &parts, &sort_keys, &target, on_rows)?;
    let receipt = write_documents(request, &identity, sort_keys, built, &target, clock)?;
    target.publish()?;
    Ok(SortOutcome {
        receipt,
        built: true,
    })
}

fn check_granularity(request: &SortRequest) -> Result<(), SortError> {
    match request.partition_granularity.as_str() {
        GRANULARITY_FLAT | "none" => Ok(()),
        other => Err(SortError::GranularityUnsupported {
            granularity: other.to_owned(),
        }),
    }
}

/// The parts with their paths as strings, in byte order of these: they are the `filename` of the
/// tie-breakers.
fn source_parts(request: &SortRequest) -> Result<Vec<(String, PartLocation)>, SortError> {
    let root = &request.engine_run_root;
    let store = request.stores.open(root);
    let store = store.map_err(|error| SortError::store(error.into_store_error(root)))?;
    let found = matched_files(store.as_ref(), request.source_pattern.trim());
    let mut parts: Vec<(String, PartLocation)> = found
        .map_err(SortError::store)?
        .into_iter()
        .map(|file| {
            let path = join_root(root, &file.key);
            (path, PartLocation::new(store.clone(), file.key))
        })
        .collect();
    parts.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    if parts.is_empty() {
        return Err(SortError::OutputPathsEmpty {
            output_id: request.output_id.clone(),
            pattern: join_root(&request.engine_run_root, &request.source_pattern),
        });
    }
    Ok(parts)
}

fn identity(request: &SortRequest, paths: &[String], sort_keys: &[String]) -> SortIdentity {
    let stream_view_id = stream_view::stream_view_id(
        &request.engine_run_root,
        &request.world_key.scenario_id,
        &request.output_id,
        sort_keys,
        GRANULARITY_FLAT,
    );
    SortIdentity {
        output_id: request.output_id.clone(),
        stream_view_id,
        source_locator_digest: ids::source_locator_digest(paths),
        partition_granularity: GRANULARITY_FLAT.to_owned(),
    }
}

fn existing_view(
    place: &ViewPlace,
    identity: &SortIdentity,
) -> Result<Option<SortOutcome>, SortError> {
    let existing = place.look()?;
    match stream_view::decide_sort(&existing, identity)? {
        SortDecision::Build => Ok(None),
        SortDecision::Skip => {
            let receipt = existing.receipt.unwrap_or_default();
            Ok(Some(SortOutcome {
                receipt,
                built: false,
            }))
        }
    }
}

/// Statistics of a finished set of parts.
struct Built {
    raw: SortStats,
    sorted: SortStats,
}

fn build(
    request: &SortRequest,
    parts: &[PartLocation],
    sort_keys: &[String],
    target: &ViewTarget,
    on_rows: &(dyn Fn(u64) + Sync),
) -> Result<Built, SortError> {
    let columns = keys::leading_columns(sort_keys);
    let source = Source::open(parts, columns, request.group_bytes_max())?;
    let keys = KeyPlan::new(&request.output_id, sort_keys, &source)?;
    let scanned = scan::scan(&ScanContext {
        source: &source,
        keys: &keys,
        memory_limit: request.memory_limit,
        threads: request.thread_count(),
        temp_dir: request.temp_dir.as_ref().unwrap_or(&target.spill_dir()),
        on_rows,
    })?;
    let windows = windows(request, &keys, &scanned)?;
    let sink = PartSink::new(&source, target, windows);
    let parts = merge::merge(scanned.held, &keys, sink)?;
    let raw = scanned.stats.to_receipt(&keys);
    let sorted = read_back(request, sort_keys, &parts, &raw)?;
    Ok(Built { raw, sorted })
}

fn windows(request: &SortRequest, keys: &KeyPlan, scanned: &Scanned) -> Result<Windows, SortError> {
    if request.chunk_days == 0 {
        return Ok(Windows::single());
    }
    let range = scanned
        .stats
        .range
        .and_then(|(low, high)| keys.time_of(low).zip(keys.time_of(high)));
    match range {
        Some((first, last)) => Ok(Windows::of_days(first, last, request.chunk_days)),
        None => Err(SortError::TsRangeMissing {
            output_id: request.output_id.clone(),
        }),
    }
}

/// Reads the written parts and compares them with the source.
fn read_back(
    request: &SortRequest,
    sort_keys: &[String],
    parts: &[PartLocation],
    raw: &SortStats,
) -> Result<SortStats, SortError> {
    let output_id = request.output_id.clone();
    if parts.is_empty() {
        return Err(SortError::OutputEmpty { output_id });
    }
    let (sorted, is_ordered) = stats_with_retries(request, sort_keys, parts)?;
    if sorted.row_count == 0 && raw.row_count > 0 {
        return Err(SortError::StatsEmpty {
            output_id,
            raw_rows: raw.row_count,
        });
    }
    if let Some(difference) = stats::difference(raw, &sorted) {
        return Err(SortError::ValidationFailed {
            output_id,
            difference,
        });
    }
    if !is_ordered {
        let difference = "rows are out of order".to_owned();
        return Err(SortError::ValidationFailed {
            output_id,
            difference,
        });
    }
    Ok(sorted)
}

fn stats_with_retries(
    request: &SortRequest,
    sort_keys: &[String],
    parts: &[PartLocation],
) -> Result<(SortStats, bool), SortError> {
    let attempts = request.stats_attempts.max(1);
    let mut reason = String::new();
    for attempt in 1..=attempts {
        match stats_of_parts(request, sort_keys, parts) {
            Ok(stats) => return Ok(stats),
            Err(error) => reason = error.to_string(),
        }
        if attempt < attempts {
            std::thread::sleep(request.stats_retry_delay * attempt);
        }
    }
    let output_id = request.output_id.clone();
    Err(SortError::StatsRetryFailed {
        output_id,
        attempts,
        reason,
    })
}

fn stats_of_parts(
    request: &SortRequest,
    sort_keys: &[String],
    parts: &[PartLocation],
) -> Result<(SortStats, bool), SortError> {
    let columns = keys::leading_columns(sort_keys);
    let written = Source::open(parts, columns, request.group_bytes_max())?;
    let keys = KeyPlan::new(&request.output_id, sort_keys, &written)?;
    let reread = stats::reread(&written, &keys, request.thread_count())?;
    Ok((reread.stats.to_receipt(&keys), reread.is_ordered))
}

/// Manifest first, receipt last (the receipt commits the view). Gives the receipt.
fn write_documents(
    request: &SortRequest,
    identity: &SortIdentity,
    sort_keys: Vec<String>,
    built: Built,
    target: &ViewTarget,
    clock: &dyn Clock,
) -> Result<Value, SortError> {
    let created_utc = clock.now().format_off();
    let manifest = StreamViewManifest {
        stream_view_id: identity.stream_view_id.clone(),
        engine_run_root: request.engine_run_root.clone(),
        stream_view_root: request.view_dir(),
        engine_run_id: request.engine_run_id.clone(),
        scenario_id: request.world_key.scenario_id.clone(),
        output_id: request.output_id.clone(),
        world_key: request.world_key.clone(),
        output_ids: vec![request.output_id.clone()],
        sort_keys: sort_keys.clone(),
        partition_granularity: identity.partition_granularity.clone(),
        created_utc: created_utc.clone(),
    };
    let receipt = SortReceipt {
        stream_view_id: identity.stream_view_id.clone(),
        engine_run_root: request.engine_run_root.clone(),
        stream_view_root: request.view_dir(),
        output_id: request.output_id.clone(),
        output_ids: vec![request.output_id.clone()],
        sort_keys,
        partition_granularity: identity.partition_granularity.clone(),
        source_locator_digest: identity.source_locator_digest.clone(),
        raw_stats: built.raw,
        sorted_stats: built.sorted,
        created_utc,
        status: "OK".to_owned(),
    };
    target.write(stream_view::MANIFEST_FILE, &manifest)?;
    target.write(stream_view::RECEIPT_FILE, &receipt)
}
