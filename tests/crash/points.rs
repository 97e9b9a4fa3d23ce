//! How each durable step is reached through the built program, and what must be true afterwards.
//!
//! `WELLSPRING_CAMPAIGN=1` takes every pass of a step instead of a few. Each trigger is printed as
//! `FIRED <point> <action>`, which the campaign counts.

use std::collections::HashMap;
use std::time::Duration;

use wellspring::failpoints::{Artefact, Moment, Operation, Step, all_steps};

use crate::support::bus::records;
use crate::support::daemon::Daemon;
use crate::support::gate_client::{GateClient, RUN, traffic};
use crate::support::run::ReadyRun;
use crate::support::world::small;
use crate::support::{Finished, Site};

/// The variable that arms failpoints.
pub const VARIABLE: &str = "WELLSPRING_FAILPOINTS";

/// Events of the small world: two of traffic and three of context a flow.
const SMALL_WORLD_EVENTS: u64 = 1000;

/// What must be done for a step to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// `scenario run` up to READY.
    Prove,
    /// `up --once` over a READY world.
    Stream,
    /// Single pushes and batches to a gate that keeps receipts as objects.
    Push,
    /// A start after a crash of a certain kind.
    Recover,
    /// A lookup in a sealed journal segment.
    Lookup,
    /// `run prune` of a finished run.
    Prune,
    /// The sort of a view.
    Sort,
    /// A flush on shared backends: `tests/parity/plane/failpoints.rs`.
    Shared,
}

/// The scene a step belongs to.
pub fn scene_of(step: Step) -> Scene {
    use Artefact as A;
    use Operation as O;
    match (step.0, step.1) {
        (_, O::Cut | O::Rewrite) | (A::JournalSegment, O::Remove) => Scene::Recover,
        (A::ReadyMessage | A::Object | A::ObjectLine, _) => Scene::Prove,
        (A::QuarantineRecord | A::ReceiptObject | A::ProjectionCursor, _) => Scene::Push,
        (A::LookupSidecar, _) => Scene::Lookup,
        (A::PruneStub | A::PrunedPartition, _) => Scene::Prune,
        (A::BigObject, _) => Scene::Sort,
        (
            A::LedgerClaim | A::StreamRecords | A::LedgerMark | A::FlushObjects | A::ReceiptSegment,
            _,
        ) => Scene::Shared,
        _ => Scene::Stream,
    }
}

/// The steps of a scene.
pub fn steps_of(scene: Scene) -> Vec<Step> {
    let steps: Vec<Step> = all_steps()
        .filter(|step| scene_of(*step) == scene)
        .collect();
    assert!(!steps.is_empty(), "{scene:?} has no step");
    steps
}

/// Both points of each step.
pub fn points_of(scene: Scene) -> Vec<String> {
    let both = |step: Step| [point(step, Moment::Before), point(step, Moment::After)];
    steps_of(scene).into_iter().flat_map(both).collect()
}

/// The name of a point.
pub fn point(step: Step, moment: Moment) -> String {
    let moment = match moment {
        Moment::Before => "before",
        Moment::After => "after",
    };
    format!("{step}.{moment}")
}

/// The passes at which a point is triggered: few in CI, all of them in a campaign.
pub fn passes() -> Vec<u64> {
    match std::env::var("WELLSPRING_CAMPAIGN").is_ok() {
        true => (1..=40).collect(),
        false => vec![2],
    }
}

/// True when the point was triggered, which is printed.
pub fn fired(stderr: &str, point: &str) -> bool {
    let told = stderr
        .lines()
        .filter_map(|line| line.strip_prefix("wellspring failpoint "));
    let mut own = told.filter(|line| line.split(' ').next() == Some(point));
    let action = own.next().and_then(|line| line.split(' ').nth(1));
    if let Some(action) = action {
        println!("FIRED {point} {action}");
    }
    action.is_some()
}

/// Settings under which a small world takes every step of the gate: small flushes, an index that is
/// written to files and merged, small batches.
pub fn tight_site() -> Site {
    Site::new()
        .set("wiring.gate.flush_bytes_max=16384")
        .set("wiring.gate.index_memory_bytes_max=65536")
        .set("wiring.gate.index_shards=8")
        .set("wiring.gate.open_runs_max=4")
        .set("wiring.stream.batch_events_max=16")
}

/// A READY run of the small world with tight settings.
pub fn ready_run() -> ReadyRun<'static> {
    ReadyRun::on(tight_site(), small())
}

/// The arguments of a stream that ends by itself.
pub const UP: [&str; 6] = ["up", "--once", "--port", "0", "--speedup", "0"];

/// Streams with failpoints armed.
pub fn up_with(run: &ReadyRun<'_>, armed: &str) -> Finished {
    run.site.run_with(&UP, &[(VARIABLE, armed)])
}

/// Goes on to the end without failpoints, then: bus and receipts agree, and the bus is the world.
#[track_caller]
pub fn finish_and_judge(run: &ReadyRun<'_>, story: &str) {
    let ended = run.up_once(&[]);
    assert_eq!(ended.code, Some(0), "{story}: {}", ended.everything());
    run.verify();
    let found = run.recompute(&[]);
    assert_eq!(found.summary["events"], SMALL_WORLD_EVENTS, "{story}");
    assert_eq!(found.receipts("ADMIT"), SMALL_WORLD_EVENTS, "{story}");
    assert_eq!(
        found.checked("order_per_key"),
        SMALL_WORLD_EVENTS,
        "{story}"
    );
}

/// Pushes to a gate that may die at any time, and remembers what it was told.
pub struct Pusher {
    /// Where the gate keeps its files.
    pub site: Site,
    answers: HashMap<String, String>,
    next: u64,
}

/// Events pushed per round.
const ROUND: u64 = 24;

impl Pusher {
    /// A gate that keeps receipts as objects.
    pub fn new() -> Pusher {
        Pusher {
            site: tight_site().set("policy.receipts_layout=objects"),
            answers: HashMap::new(),
            next: 0,
        }
    }

    /// One round of pushes: every fourth event breaks its schema. False when an answer did not come.
    pub fn round(&mut self, url: &str) -> bool {
        let numbers: Vec<u64> = (self.next..self.next + ROUND).collect();
        let whole = self.push_all(url, &numbers);
        if whole {
            self.next += ROUND;
        }
        whole
    }

    /// Events that have a decision.
    pub fn answered(&self) -> usize {
        self.answers.len()
    }

    fn push_all(&mut self, url: &str, numbers: &[u64]) -> bool {
        let client = GateClient::new(url);
        for number in numbers {
            let name = format!("p-{number}");
            let mut event = traffic(&name, number % 5);
            if number % 4 == 3 {
                event["payload"]["more"] = serde_json::json!(1);
            }
            let Ok(answer) = client.try_push(&event) else {
                return false;
            };
            let decision = answer.decision().to_owned();
            if answer.status == 200 {
                self.remember(name, decision);
            }
        }
        true
    }

    /// An answer never changes: an admitted event stays admitted, a quarantined one quarantined.
    fn remember(&mut self, name: String, decision: String) {
        let kept = match decision.as_str() {
            "DUPLICATE" => "ADMIT".to_owned(),
            _ => decision,
        };
        let before = self.answers.insert(name.clone(), kept.clone());
        assert!(
            before.is_none_or(|before| before == kept),
            "{name} is {kept} now"
        );
    }

    /// Pushes for a while until the gate's end, or until nothing is left to wait for.
    pub fn until_the_end(&mut self, daemon: &mut Daemon, rounds: usize) {
        for _ in 0..rounds {
            if !self.round(&daemon.url) || !daemon.is_running() {
                return;
            }
            // Projections follow the journal every quarter of a second.
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Starts the gate without failpoints, sends everything again and judges.
    #[track_caller]
    pub fn finish_and_judge(&mut self, story: &str) {
        let daemon = Daemon::gate(&self.site);
        let numbers: Vec<u64> = (0..self.next + ROUND).collect();
        assert!(self.push_all(&daemon.url, &numbers), "{story}");
        assert_eq!(
            self.answers.len(),
            numbers.len(),
            "{story}: each event has an answer"
        );
        assert_eq!(daemon.terminate().code, Some(0), "{story}");
        self.judge(story);
    }

    #[track_caller]
    fn judge(&self, story: &str) {
        let root = self.site.run_root(RUN);
        let on_bus = records(&root);
        let mut times: HashMap<&str, u32> = HashMap::new();
        on_bus
            .iter()
            .for_each(|record| *times.entry(record.event_id()).or_default() += 1);
        let mut quarantined = 0;
        for (name, decision) in &self.answers {
            let wanted = u32::from(decision == "ADMIT");
            let found = times.get(name.as_str()).copied().unwrap_or(0);
            assert_eq!(found, wanted, "{story}: {name} is {decision}");
            quarantined += u32::from(decision == "QUARANTINE");
        }
        let records = std::fs::read_dir(root.join("ig/quarantine")).unwrap();
        let records = records.filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            !name.to_string_lossy().starts_with('.')
        });
        assert_eq!(
            records.count(),
            quarantined as usize,
            "{story}: a record each"
        );
        for what in ["bus", "receipts"] {
            let args = ["--format", "json", what, "verify", "--run", RUN];
            let report = self.site.run(&args).ok().json();
            assert_eq!(report["verified"], true, "{story}: {report}");
        }
    }
}
