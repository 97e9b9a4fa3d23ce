//! `wellspring oracle sync`: copies a world between folders and buckets.

use serde::Serialize;
use wellspring_domain::world::checker::SealRule;

use super::output::{TableView, grouped, print_result};
use super::progress::Progress;
use super::{CliContext, Failure, Outcome};
use crate::settings::Settings;
use crate::world_files::world_root::resolve_engine_root;
use crate::world_files::world_sync::{SyncError, SyncOptions, SyncReport, sync_world};

const EXAMPLES: &str = "\
Examples:
  wellspring oracle sync --from worlds/run-5 --to s3://oracle-store/run-5    into a bucket
  wellspring oracle sync --from s3://oracle-store/run-5 --to worlds/run-5    and back

Stream views are not copied: sort them again at the target (`wellspring oracle sort`).";

/// Arguments of `wellspring oracle sync`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct SyncArgs {
    /// The world to copy.
    #[arg(long, value_name = "ROOT", env = "ORACLE_SYNC_SOURCE")]
    from: String,
    /// Where to [default: the profile's oracle_engine_run_root].
    #[arg(long, value_name = "ROOT")]
    to: Option<String>,
    /// Objects copied at once.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    parallel: u16,
    /// Only a sealed world is copied [default for the profiles dev and prod].
    #[arg(long, conflicts_with = "allow_unsealed")]
    strict_seal: bool,
    /// A world without a seal is copied too.
    #[arg(long)]
    allow_unsealed: bool,
}

#[derive(Serialize)]
struct SyncView<'a> {
    from: &'a str,
    to: &'a str,
    #[serde(flatten)]
    report: SyncReport,
}

/// Runs the command.
pub fn run(args: SyncArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    let settings = ctx.settings()?;
    let (from, to) = roots(&args, settings)?;
    let stores = settings.object_stores();
    let opened = stores.open_existing(&from);
    let source = opened.map_err(|error| Failure::of(error.code(), error))?;
    let target = super::oracle::open(settings, &to)?;
    let rule = match (args.strict_seal, args.allow_unsealed) {
        (true, _) => SealRule::Strict,
        (_, true) => SealRule::Lenient,
        _ => SealRule::of_profile(&settings.profile_id),
    };
    let options = SyncOptions {
        seal_rule: rule,
        parallel: usize::from(args.parallel),
    };
    let progress = Progress::start("sync, bytes", None);
    let report = sync_world(source.as_ref(), target.as_ref(), options, &|bytes| {
        progress.add(bytes);
    })
    .map_err(failure)?;
    progress.finish(match report.copied {
        0 => "the target holds the same world already; nothing was written",
        _ => "copied, read back and equal",
    });
    let view = SyncView {
        from: &from,
        to: &to,
        report,
    };
    print_result(ctx.contract_format(), &view, || table(&view))?;
    Ok(Outcome::Ok)
}

fn roots(args: &SyncArgs, settings: &Settings) -> Result<(String, String), Failure> {
    let wiring = &settings.wiring;
    let to = args.to.as_ref().or(wiring.oracle_engine_run_root.as_ref());
    let to = to.filter(|root| !root.is_empty()).ok_or_else(|| {
        Failure::new("ENGINE_ROOT_MISSING", "nothing says where to copy to")
            .hint("pass --to, or set ORACLE_ENGINE_RUN_ROOT")
    })?;
    let resolve = |root: &str| resolve_engine_root(root, Some(&wiring.oracle_root));
    // A target that is not there yet is taken as it stands.
    Ok((resolve(&args.from), to.clone()))
}

fn failure(error: SyncError) -> Failure {
    let code = error.code();
    let failure = Failure::of(code, error);
    match code {
        "SYNC_TARGET_DIFFERS" => {
            failure.hint("a world is never changed; copy to another root, or clear this one")
        }
        "PACK_NOT_SEALED" => failure.hint("pack it first, or pass --allow-unsealed"),
        _ => failure,
    }
}

fn table(view: &SyncView<'_>) -> TableView {
    let report = &view.report;
    let mut table = TableView::pairs();
    table
        .row(["from", view.from])
        .row(["to", view.to])
        .row(["objects copied", &grouped(report.copied)])
        .row(["objects there already", &grouped(report.unchanged)])
        .row(["bytes copied", &grouped(report.bytes_copied)])
        .row(["bytes of the world", &grouped(report.bytes_total)])
        .row(["content digest", &report.content_digest]);
    table
}
