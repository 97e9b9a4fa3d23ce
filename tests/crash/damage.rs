//! Files that were damaged, cut, lost or added to between two runs: refused and left alone, made again,
//! or named by verification. Never served as if nothing were wrong, never silently passed over.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::crash::points::{UP, finish_and_judge, ready_run, up_with};
use crate::support::daemon::Daemon;
use crate::support::gate_client::{GateClient, RUN, traffic};
use crate::support::site::copy_folder;
use crate::support::{Finished, Site};

/// What happens to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// One bit at this share of its length.
    Flip(f64),
    /// Cut to this share of its length.
    Cut(f64),
    /// Lines nobody wrote behind its end.
    Grow,
    /// Its bytes are no longer what it was.
    Garbage,
    /// Its folder does not list it any more.
    Remove,
}

/// What must come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The gate does not take the run up, says so, and leaves every byte as it was.
    Refused,
    /// The gate answers as before, and everything verifies.
    MadeAgain,
    /// The gate goes on, because the start trusts what was proven before; verification names it.
    Found,
    /// `bus verify --rebuild` names it.
    FoundByRebuild,
}

/// Which of several files of a kind.
#[derive(Clone, Copy, Debug)]
enum Which {
    First,
    Last,
}

use Damage as D;
use Fate as F;
use Which as W;

/// Kind of file (a part of its path), which one, what happens to it, and what must come of it.
const CASES: &[(&str, Which, Damage, Fate)] = &[
    ("/partition=0.jsonl", W::First, D::Flip(0.5), F::Found),
    ("/partition=0.jsonl", W::First, D::Cut(0.9), F::Refused),
    ("/partition=0.jsonl", W::First, D::Remove, F::Refused),
    ("/partition=0.jsonl", W::First, D::Grow, F::MadeAgain),
    ("/_topic.json", W::First, D::Garbage, F::Refused),
    ("/head.json", W::First, D::Garbage, F::MadeAgain),
    ("/head.json", W::First, D::Remove, F::MadeAgain),
    (
        "shard-000/segment-00000000.wsj",
        W::First,
        D::Flip(0.0),
        F::Refused,
    ),
    (
        "shard-000/segment-00000000.wsj",
        W::First,
        D::Flip(0.5),
        F::Found,
    ),
    (
        "shard-000/segment-00000000.wsj",
        W::First,
        D::Cut(0.5),
        F::Refused,
    ),
    (
        "shard-000/segment-00000000.wsj",
        W::First,
        D::Grow,
        F::Refused,
    ),
    (
        "shard-000/segment-00000000.wsj",
        W::First,
        D::Remove,
        F::Refused,
    ),
    (
        "journal/shard-000/segment-",
        W::Last,
        D::Flip(0.0),
        F::Refused,
    ),
    (
        "journal/shard-000/segment-",
        W::Last,
        D::Cut(0.9),
        F::Refused,
    ),
    ("journal/shard-000/segment-", W::Last, D::Remove, F::Refused),
    ("shard-000/synced.json", W::First, D::Garbage, F::MadeAgain),
    ("shard-000/synced.json", W::First, D::Remove, F::MadeAgain),
    ("/MANIFEST.json", W::First, D::Garbage, F::MadeAgain),
    ("/MANIFEST.json", W::First, D::Remove, F::MadeAgain),
    (".wsx", W::First, D::Flip(0.0), F::MadeAgain),
    (".wsx", W::First, D::Flip(0.4), F::MadeAgain),
    (".wsx", W::First, D::Flip(0.99), F::MadeAgain),
    (".wsx", W::First, D::Cut(0.5), F::MadeAgain),
    (".wsx", W::First, D::Remove, F::MadeAgain),
    (".wsl", W::First, D::Flip(0.0), F::MadeAgain),
    (".wsl", W::First, D::Flip(0.6), F::MadeAgain),
    (".wsl", W::First, D::Cut(0.5), F::MadeAgain),
    (
        "/projections/receipt_objects.json",
        W::First,
        D::Garbage,
        F::MadeAgain,
    ),
    (
        "/projections/quarantine_records.json",
        W::First,
        D::Remove,
        F::MadeAgain,
    ),
    ("/quarantine/", W::First, D::Flip(0.5), F::FoundByRebuild),
    ("/ig/receipts/", W::First, D::Flip(0.5), F::FoundByRebuild),
    ("/ig/receipts/", W::Last, D::Remove, F::FoundByRebuild),
];

/// A site whose gate keeps every kind of file, made once: 240 events, some quarantined, two starts.
fn base() -> &'static Site {
    static BASE: OnceLock<Site> = OnceLock::new();
    BASE.get_or_init(|| {
        let site = with_settings(Site::of_the_process());
        for start in 0..2 {
            let daemon = Daemon::gate(&site);
            let client = GateClient::new(&daemon.url);
            for batch in 0..3 {
                let lines: Vec<String> = (0..40)
                    .map(|n| line(start * 400 + batch * 40 + n))
                    .collect();
                assert_eq!(client.push_batch(lines.join("\n")).status, 200);
            }
            assert_eq!(daemon.terminate().code, Some(0));
        }
        lookup(&site).ok();
        site
    })
}

fn with_settings(site: Site) -> Site {
    [
        "wiring.gate.admission_shards=1",
        "wiring.gate.index_shards=1",
        "policy.receipts_layout=objects",
    ]
    .into_iter()
    .chain([
        "wiring.gate.index_memory_bytes_max=65536",
        "wiring.gate.open_runs_max=64",
    ])
    .fold(site, |site, setting| site.set(setting))
}

fn line(number: u64) -> String {
    let mut event = traffic(&format!("d-{number}"), number % 7);
    if number % 50 == 49 {
        event["payload"]["more"] = serde_json::json!(1);
    }
    event.to_string()
}

/// Looks up an event of the first, sealed segment.
fn lookup(site: &Site) -> Finished {
    site.run(&[
        "--format",
        "json",
        "receipts",
        "lookup",
        "--event-id",
        "d-0",
        "--run",
        RUN,
    ])
}

fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => {
                let bytes = fs::read(&path).unwrap();
                found.insert(path, bytes);
            }
        }
    }
    found
}

/// The truth of a run: bus and journals.
fn truth(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut truth = files(&root.join("eb"));
    truth.extend(files(&root.join("ig/journal")));
    truth
}

fn do_damage(path: &Path, damage: Damage) {
    let mut bytes = fs::read(path).unwrap();
    let at = |share: f64| (((bytes.len() - 1) as f64) * share) as usize;
    match damage {
        Damage::Flip(share) => {
            let place = at(share);
            bytes[place] ^= 1;
        }
        Damage::Cut(share) => bytes.truncate(at(share)),
        Damage::Grow => bytes.extend_from_slice(b"{\"nobody\":\"wrote this\"}\n"),
        Damage::Garbage => bytes = b"{\"version\": 1, \"what".to_vec(),
        Damage::Remove => return fs::remove_file(path).unwrap(),
    }
    fs::write(path, bytes).unwrap();
}

/// Starts the gate and sends an event it has: the decision, or why there was none.
fn ask(site: &Site) -> Result<String, String> {
    let mut daemon = match Daemon::gate_with(site, &[]) {
        Ok(daemon) => daemon,
        Err((_ended, said)) => return Err(said),
    };
    let event = serde_json::from_str(&line(0)).unwrap();
    let answer = GateClient::new(&daemon.url).try_push(&event);
    let answer = answer.map(|answer| (answer.status, answer.decision().to_owned()));
    let running = daemon.is_running();
    let said = match running {
        true => daemon.terminate_and_tell(),
        false => daemon.stderr(),
    };
    assert!(!said.contains("panicked"), "{said}");
    match answer {
        Ok((200, decision)) => Ok(decision),
        other => Err(format!("{other:?}: {said}")),
    }
}

fn verify(site: &Site, more: &[&str]) -> Finished {
    let args = ["--format", "json", "bus", "verify", "--run", RUN];
    site.run(&[&args[..], more].concat())
}

fn verified(site: &Site) -> bool {
    let receipts = site.run(&["--format", "json", "receipts", "verify", "--run", RUN]);
    verify(site, &[]).code == Some(0) && receipts.code == Some(0)
}

#[test]
fn every_damaged_file_is_refused_made_again_or_named() {
    for case @ (kind, which, damage, fate) in CASES {
        let site = with_settings(Site::new());
        copy_folder(&base().path().join("runs"), &site.path().join("runs"));
        let root = site.run_root(RUN);
        let mut of_kind = files(&root).into_keys().filter(|path| {
            let name = path.display().to_string();
            name.contains(kind) && !name.ends_with(".tmp")
        });
        let file = match which {
            Which::First => of_kind.next(),
            Which::Last => of_kind.next_back(),
        };
        let file = file.unwrap_or_else(|| panic!("no file {kind}"));
        do_damage(&file, *damage);
        let story = format!("{case:?} {}", file.display());
        judge(&site, *fate, &story);
        println!("DAMAGE {kind} {damage:?} {fate:?}");
    }
}

fn judge(site: &Site, fate: Fate, story: &str) {
    let root = site.run_root(RUN);
    match fate {
        Fate::Refused => {
            let before = truth(&root);
            let said = ask(site).expect_err(story);
            let coded = said.contains("STORE_DAMAGED") || said.contains("damaged");
            assert!(coded, "{story}: {said}");
            assert_eq!(truth(&root), before, "{story}: files were changed");
            assert!(!verified(site), "{story}: verification says nothing");
        }
        Fate::MadeAgain => {
            // A damaged block of an index run is only met when it is read: that ends the gate, and the
            // next start makes the shard again.
            let first = ask(site);
            let answer = first.or_else(|_| ask(site));
            assert_eq!(answer.as_deref(), Ok("DUPLICATE"), "{story}");
            assert!(verified(site), "{story}");
            assert!(lookup(site).ok().stdout.contains("d-0"), "{story}");
            // A block of an index run that nothing has read yet is found now, and made again.
            let first = verify(site, &["--rebuild"]);
            assert!(
                matches!(first.code, Some(0 | 4)),
                "{story}: {}",
                first.everything()
            );
            verify(site, &["--rebuild"]).ok();
        }
        Fate::Found => {
            let _ = ask(site);
            assert!(!verified(site), "{story}: verification says nothing");
        }
        Fate::FoundByRebuild => {
            assert_eq!(ask(site).as_deref(), Ok("DUPLICATE"), "{story}");
            let rebuilt = verify(site, &["--rebuild"]);
            assert_eq!(rebuilt.code, Some(4), "{story}: {}", rebuilt.everything());
        }
    }
}

/// A stream that was killed half way, and its checkpoint files.
#[test]
fn a_damaged_checkpoint_is_refused_and_a_lost_one_only_repeats() {
    for damage in [
        D::Flip(0.4),
        D::Flip(0.9),
        D::Cut(0.5),
        D::Garbage,
        D::Cut(0.0),
        D::Remove,
    ] {
        let run = ready_run();
        let killed = up_with(&run, "checkpoint.rename.after=kill@5");
        assert_eq!(killed.code, None, "{}", killed.everything());
        let mut cursors = files(&run.root().join("wsp/checkpoints")).into_keys();
        let cursor = cursors.find(|path| path.ends_with("cursor.json")).unwrap();
        do_damage(&cursor, damage);
        let story = format!("{damage:?}");
        if !matches!(damage, Damage::Remove) {
            let refused = run.site.run(&UP);
            let told = refused.everything();
            assert!(told.contains("CHECKPOINT_UNREADABLE"), "{story}: {told}");
            assert_ne!(refused.code, Some(0), "{story}: {told}");
            fs::remove_file(&cursor).unwrap();
        }
        finish_and_judge(&run, &story);
    }
}

#[test]
fn a_damaged_claim_keeps_its_ready_closed_and_a_damaged_record_only_repeats() {
    let run = ready_run();
    run.up_once(&[]).ok();
    let ready = run.root().join("wsp/ready_runs");
    let of = |ending: &str| {
        let mut names = files(&ready).into_keys();
        names
            .find(|path| path.display().to_string().ends_with(ending))
            .unwrap()
    };
    do_damage(&of(".jsonl"), Damage::Cut(0.5));
    finish_and_judge(&run, "half a ready record");
    do_damage(&of(".jsonl"), Damage::Garbage);
    do_damage(&of(".claim-1.json"), Damage::Garbage);
    let refused = run.site.run(&UP);
    let told = refused.everything();
    assert!(told.contains("STORE_DAMAGED"), "{told}");
    run.verify();
}
