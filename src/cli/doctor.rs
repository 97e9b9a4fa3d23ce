//! `wellspring doctor`: what is wrong with this installation, all of it.
//!
//! Every check runs, whatever the others say. A failed check fails the command; a warning does not.

use super::config::ref_problems;
use super::ops_client::OpsClient;
use super::output::{TableView, bytes, print_result};
use super::{CliContext, Outcome};
use crate::active_run::RunIdOrigin;
use crate::event_bus::embedded_log::format::{
    SEGMENT_HEADER_BYTES, SEGMENT_VERSION, SegmentHeader,
};
use crate::object_store::OpenStoreError;
use crate::settings::Settings;
use serde::Serialize;
use std::fs;
use std::io::{self, Read};
use std::net::{TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  wellspring doctor                       check this installation with the local profile
  wellspring --profile prod doctor        check another profile
  wellspring --format json doctor         the same as JSON

Exit code 1 when any check failed.";

const OPEN_FILES_WANTED: u64 = 1024;

/// Arguments of `wellspring doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct DoctorArgs {}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    Warning,
    Failed,
}

/// One check and what it found.
#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    verdict: Verdict,
    finding: String,
}

#[derive(Serialize)]
struct Report {
    ok: bool,
    checks: Vec<Check>,
}

/// Runs the command.
pub fn run(_args: DoctorArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    let checks = all_checks(ctx);
    let ok = checks.iter().all(|check| check.verdict != Verdict::Failed);
    let report = Report { ok, checks };
    print_result(ctx.format, &report, || {
        let mut table = TableView::left(["CHECK", "VERDICT", "FINDING"]);
        for check in &report.checks {
            let verdict = match check.verdict {
                Verdict::Ok => "ok",
                Verdict::Warning => "warning",
                Verdict::Failed => "FAILED",
            };
            table.row([check.check, verdict, &check.finding]);
        }
        table
    })?;
    Ok(if ok { Outcome::Ok } else { Outcome::Failed })
}

fn all_checks(ctx: &CliContext) -> Vec<Check> {
    let mut checks = Vec::new();
    let read = ctx
        .profile()
        .and_then(|source| Settings::read(&source, &ctx.layers()));
    match read {
        Err(error) => {
            checks.extend(
                error
                    .problems()
                    .iter()
                    .map(|p| failed("profile", p.to_string())),
            );
        }
        Ok((settings, problems)) => {
            let shown = settings.profile_shown();
            match problems.is_empty() {
                true => checks.push(ok(
                    "profile",
                    format!("{} from {shown}", settings.profile_id),
                )),
                false => checks.extend(problems.iter().map(|p| failed("profile", p.to_string()))),
            }
            checks.extend(settings_checks(&settings));
        }
    }
    checks.push(open_files());
    checks
}

fn settings_checks(settings: &Settings) -> Vec<Check> {
    let mut checks = Vec::new();
    let refs = ref_problems(settings);
    match refs.is_empty() {
        true => checks.push(ok("referenced files", "all found and readable")),
        false => checks.extend(
            refs.iter()
                .map(|p| failed("referenced files", p.to_string())),
        ),
    }
    match settings.require_backends() {
        Ok(()) => {
            checks.extend(folder_checks(settings));
            checks.extend(bucket_check(settings));
        }
        Err(error) => {
            checks.extend(
                error
                    .problems()
                    .iter()
                    .map(|p| failed("backends", p.to_string())),
            );
        }
    }
    checks.push(gate(settings));
    checks
}

/// A bucket answers, and lets this key list what is below its root.
fn bucket_check(settings: &Settings) -> Option<Check> {
    let root = settings.runs_root();
    if !settings.wiring.objects.store.is_s3() {
        return None;
    }
    Some(match settings.object_stores().open_existing(root) {
        Ok(_) => ok("object store", format!("{root} answers")),
        Err(OpenStoreError::NotFound { .. }) => ok("object store", format!("{root} is empty")),
        Err(error) => failed("object store", format!("{}: {error}", error.code())),
    })
}

fn folder_checks(settings: &Settings) -> Vec<Check> {
    let root = Path::new(settings.local_root());
    let mut checks = vec![
        writable(root),
        free_space(root, settings.wiring.gate.min_free_bytes),
    ];
    let active = settings.active_run();
    match active.find() {
        Ok(Some((id, origin))) => {
            let by = match origin {
                RunIdOrigin::Environment => "PLATFORM_RUN_ID",
                RunIdOrigin::File | RunIdOrigin::Created => "ACTIVE_RUN_ID",
            };
            checks.push(ok("active run", format!("{id} ({by})")));
            let root = PathBuf::from(settings.local_paths(&id).run_root());
            checks.push(locks(&root));
            checks.push(journal(&root));
        }
        Ok(None) => checks.push(ok("active run", "none yet; the next start creates one")),
        Err(error) => checks.push(failed("active run", format!("{}: {error}", error.code()))),
    }
    checks
}

/// A file can be made and removed where the runs live.
fn writable(root: &Path) -> Check {
    let folder = existing_ancestor(root);
    match tempfile::NamedTempFile::new_in(&folder) {
        Ok(_) => ok("runs root", format!("{} is writable", root.display())),
        Err(error) => failed(
            "runs root",
            format!("cannot write in {}: {error}", folder.display()),
        ),
    }
}

fn free_space(root: &Path, wanted: u64) -> Check {
    match free_bytes(&existing_ancestor(root)) {
        Ok(free) => {
            let finding = format!("{} free, {} needed to admit", bytes(free), bytes(wanted));
            match free >= wanted {
                true => ok("disk space", finding),
                false => failed("disk space", format!("DISK_SPACE_LOW: {finding}")),
            }
        }
        Err(error) => failed("disk space", format!("cannot be read: {error}")),
    }
}

/// Space an ordinary user may still fill on the disk of a folder.
pub fn free_bytes(folder: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(folder)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Lock files of the run that a process holds: a running gate is fine, two would not start.
fn locks(root: &Path) -> Check {
    let mut held = Vec::new();
    let mut unreadable = Vec::new();
    for path in lock_files(root) {
        match is_held(&path) {
            Ok(true) => held.push(path.display().to_string()),
            Ok(false) => {}
            Err(error) => unreadable.push(format!("{}: {error}", path.display())),
        }
    }
    if !unreadable.is_empty() {
        return failed("locks", unreadable.join(", "));
    }
    match held.is_empty() {
        true => ok("locks", "no process holds the active run"),
        false => ok(
            "locks",
            format!("held by a running process: {}", held.join(", ")),
        ),
    }
}

/// Journal segments this program can read: known magic, known version, sound header.
fn journal(root: &Path) -> Check {
    let segments = files_below(&root.join("ig/journal"), |name| name.ends_with(".wsj"));
    let mut refused = Vec::new();
    for path in &segments {
        let mut head = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        let read = fs::File::open(path).and_then(|file| {
            file.take(SEGMENT_HEADER_BYTES as u64)
                .read_to_end(&mut head)
        });
        match read {
            Err(error) => refused.push(format!("{}: {error}", path.display())),
            // A segment whose first write was cut short; recovery takes it away.
            Ok(length) if length < SEGMENT_HEADER_BYTES => {}
            Ok(_) => {
                if let Err(error) = SegmentHeader::decode(path, &head) {
                    refused.push(format!("{}: {error}", error.code()));
                }
            }
        }
    }
    match (segments.len(), refused.is_empty()) {
        (0, _) => ok("journal", "nothing admitted yet"),
        (count, true) => ok(
            "journal",
            format!("{count} segments, format {SEGMENT_VERSION}"),
        ),
        (_, false) => failed("journal", refused.join(", ")),
    }
}

/// `*.lock` and `LOCK` files of a run.
fn lock_files(root: &Path) -> Vec<PathBuf> {
    files_below(root, |name| name.ends_with(".lock") || name == "LOCK")
}

/// Files of a run by name, a few folders deep, in order.
fn files_below(root: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    const DEPTH_MAX: usize = 4;
    let mut found = Vec::new();
    let mut folders = vec![(root.to_path_buf(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder && depth < DEPTH_MAX {
                folders.push((path, depth + 1));
            } else if wanted(&name) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn is_held(path: &Path) -> io::Result<bool> {
    let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Either a gate answers, or its port is free for one.
fn gate(settings: &Settings) -> Check {
    let health = OpsClient::new(settings).and_then(|client| client.get("/v1/ops/health"));
    if let Ok(health) = health {
        let state = health
            .get("state")
            .and_then(|state| state.as_str())
            .unwrap_or("unknown");
        let finding = format!("{} answers: {health}", settings.wiring.ig_ingest_url);
        return match state {
            "GREEN" => ok("gate", finding),
            "AMBER" => warning("gate", finding),
            _ => failed("gate", finding),
        };
    }
    let gate = &settings.wiring.gate;
    let address = format!("{}:{}", gate.bind_host, gate.bind_port);
    let bound = address
        .to_socket_addrs()
        .and_then(|mut all| match all.next() {
            Some(address) => TcpListener::bind(address),
            None => Err(io::Error::other("the name has no address")),
        });
    match bound {
        Ok(_) => ok("gate", format!("not running; {address} is free")),
        Err(error) => failed(
            "gate",
            format!("no gate answers, and {address} is taken: {error}"),
        ),
    }
}

fn open_files() -> Check {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    match limit {
        None => ok("open files", "no limit"),
        Some(limit) if limit >= OPEN_FILES_WANTED => ok("open files", format!("limit {limit}")),
        Some(limit) => warning(
            "open files",
            format!("limit {limit}, {OPEN_FILES_WANTED} are wanted"),
        ),
    }
}

fn existing_ancestor(path: &Path) -> PathBuf {
    let found = path.ancestors().find(|folder| folder.is_dir());
    match found {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

fn ok(check: &'static str, finding: impl Into<String>) -> Check {
    Check {
        check,
        verdict: Verdict::Ok,
        finding: finding.into(),
    }
}

fn warning(check: &'static str, finding: impl Into<String>) -> Check {
    Check {
        check,
        verdict: Verdict::Warning,
        finding: finding.into(),
    }
}

fn failed(check: &'static str, finding: impl Into<String>) -> Check {
    Check {
        check,
        verdict: Verdict::Failed,
        finding: finding.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::GlobalArgs;

    fn verdicts(args: GlobalArgs) -> Vec<(&'static str, Verdict)> {
        let checks = all_checks(&CliContext::new(args));
        checks
            .iter()
            .map(|check| (check.check, check.verdict))
            .collect()
    }

    #[test]
    fn every_failed_check_is_shown_not_only_the_first() {
        let set = |text: &str| {
            let (key, value) = text.split_once('=').unwrap();
            (key.to_string(), value.to_string())
        };
        let args = GlobalArgs {
            root: Some(PathBuf::from("/proc/none")),
            set: vec![
                set("policy.class_map_ref=nowhere.yaml"),
                set("wiring.gate.min_free_bytes=18446744073709551615"),
                set("wiring.gate.batch_events_max=0"),
            ],
            ..GlobalArgs::default()
        };
        let verdicts = verdicts(args);
        for check in ["profile", "referenced files", "runs root", "disk space"] {
            assert!(
                verdicts.contains(&(check, Verdict::Failed)),
                "{check}: {verdicts:?}"
            );
        }
    }

    #[test]
    fn a_journal_of_another_version_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(journal(folder.path()).verdict, Verdict::Ok);
        let shard = folder.path().join("ig/journal/shard-000");
        fs::create_dir_all(&shard).unwrap();
        let header = SegmentHeader {
            shard: 0,
            segment: 0,
            rows_before: 0,
            previous_bytes: 0,
            run_id: "platform_20260101T000000Z".to_string(),
        };
        let path = shard.join("segment-00000000.wsj");
        let mut bytes = header.encode();
        fs::write(&path, bytes).unwrap();
        assert_eq!(journal(folder.path()).finding, "1 segments, format 1");
        bytes[8] = 9;
        fs::write(&path, bytes).unwrap();
        let check = journal(folder.path());
        assert_eq!(check.verdict, Verdict::Failed);
        assert!(
            check.finding.starts_with("FORMAT_VERSION_UNKNOWN: "),
            "{}",
            check.finding
        );
    }

    #[test]
    fn a_held_lock_is_told_from_a_free_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("writer.lock");
        let holder = fs::File::create(&path).unwrap();
        assert_eq!(lock_files(folder.path()), std::slice::from_ref(&path));
        assert!(!is_held(&path).unwrap());
        rustix::fs::flock(
            &holder,
            rustix::fs::FlockOperation::NonBlockingLockExclusive,
        )
        .unwrap();
        assert!(is_held(&path).unwrap());
    }
}
