//! The lives of the simulated process: each has a runtime of its own and begins from what is durable.

use crate::chaos::{Outside, scheduled_death, strike};
use crate::desk::SimDesk;
use crate::faults::{Counts, Death, Lie};
use crate::gate_store::{NoProofs, SimGateStore, SimProjection};
use crate::judge::producer_name;
use crate::plan::{Plan, RUNS};
use crate::senders::{Producer, Remote, Watched};
use crate::sim::{Sim, SimClock, SimThreads};
use crate::stores::SimBus;
use ractor::{Actor, ActorRef, ActorStatus, RactorErr};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use wellspring_actors::ingestion_gate::gate_supervisor::GateArgs;
use wellspring_actors::ingestion_gate::handle::{GateHandle, GateParts};
use wellspring_actors::ingestion_gate::running_gate::{Gate, start_gate};
use wellspring_actors::ingestion_gate::summary::Reporting;
use wellspring_actors::runtime::blocking::simulate;
use wellspring_actors::runtime::{CreditLimits, Credits, StageFailure, TreeHandle};
use wellspring_actors::world_stream::control_bus_reader::{
    ControlBusReader, ControlBusReaderArgs, ControlBusReaderMsg,
};
use wellspring_actors::world_stream::ready_run::ReadyPorts;
use wellspring_actors::world_stream::run_orders::RunOrders;
use wellspring_actors::world_stream::runs_supervisor::{
    RunsSupervisor, RunsSupervisorArgs, RunsSupervisorMsg,
};
use wellspring_domain::admission::bus_failures::BusFailures;
use wellspring_domain::admission::health::Health;
use wellspring_domain::admission::intake::VerifyGates;
use wellspring_domain::admission::policy::{AdmissionPolicy, PolicyFiles};
use wellspring_domain::admission::quarantine_spike::SpikeRule;
use wellspring_domain::ports::{GateClient, RunLayout};
use wellspring_domain::run_paths::PlatformRunId;

/// How long the calm may take to bring everything to its end.
const CALM_MICROS_MAX: u64 = 3_600_000_000;
/// How long each part of an orderly stop may take.
const STOP_DEADLINE: Duration = Duration::from_secs(120);

/// What became of a seed.
pub struct Outcome {
    pub violations: Vec<String>,
    pub counts: Counts,
    pub events: u64,
    pub lives: u32,
    pub virtual_ms: u64,
    pub trace: String,
}

/// Runs a seed to its end, over honest stores or over one that lies.
pub fn run_seed(seed: u64, lie: Option<Lie>) -> Outcome {
    let sim = Sim::new(Plan::of(seed), lie);
    sim.note(format!("{:?}", sim.plan));
    let numbers = 0..sim.plan.producers.len();
    let producers: Vec<_> = numbers.map(|n| Arc::new(Producer::new(&sim, n))).collect();
    let mut outside = Outside::new(&sim);
    let mut lives = 0;
    loop {
        lives += 1;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without I/O can be built");
        let threads = simulate(Rc::new(SimThreads(sim.clone())));
        let end = runtime.block_on(async {
            sim.begin_life();
            let end = live(&sim, lives, &producers, &mut outside).await;
            sim.die(end.unwrap_or(Death::Stopped));
            sim.end_life();
            end
        });
        drop(runtime);
        drop(threads);
        let Some(death) = end else { break };
        bury(&sim, death);
        if sim.micros() > sim.plan.calm_after_ms * 1_000 + CALM_MICROS_MAX {
            sim.broken(format!("the run does not end: {}", left(&sim, &producers)));
            break;
        }
    }
    let disk = sim.disk();
    sim.judge().conclude(&disk.runs, &sim.plan);
    drop(disk);
    let violations = sim.judge().violations().to_vec();
    Outcome {
        violations,
        counts: sim.counts(),
        events: sim.plan.events(),
        lives,
        virtual_ms: sim.micros() / 1_000,
        trace: sim.trace(),
    }
}

/// What a death does to the disk.
fn bury(sim: &Sim, death: Death) {
    sim.note(format!("death: {}", death.name()));
    sim.count(&format!("death: {}", death.name()));
    let writers: Vec<_> = sim.disk().writers.iter().cloned().collect();
    if !writers.is_empty() {
        sim.broken(format!("writers outlive the process: {writers:?}"));
        sim.disk().writers.clear();
    }
    if death == Death::PowerLost {
        let lost = sim.disk().lose_power(&mut |bound| sim.below(bound));
        for what in lost.seen {
            sim.note(what);
            sim.count(what);
        }
    }
}

fn left(sim: &Arc<Sim>, producers: &[Arc<Producer>]) -> String {
    let open = producers
        .iter()
        .filter(|producer| !producer.is_done())
        .count();
    let settled = SimBus(sim.clone()).is_settled();
    format!("{open} producers are not done, READY settled: {settled}")
}

/// The parts of a living process.
struct Parts {
    gate: Gate,
    reader: ActorRef<ControlBusReaderMsg>,
    runs: ActorRef<RunsSupervisorMsg>,
    orders: RunOrders,
    ends: [JoinHandle<()>; 2],
}

/// One life; nothing when everything is done and the process was stopped for good.
async fn live(
    sim: &Arc<Sim>,
    life: u32,
    producers: &[Arc<Producer>],
    outside: &mut Outside,
) -> Option<Death> {
    let scheduled = scheduled_death(sim, life);
    sim.note(format!("life {life} {scheduled:?}"));
    let (health, health_reader) = watch::channel(Health::default());
    let mut parts = match start(sim, health_reader).await {
        Ok(parts) => parts,
        Err(failure) => {
            sim.note(format!("not started: {failure}"));
            return Some(Death::Exited);
        }
    };
    let mut others = Vec::new();
    for (number, producer) in producers.iter().enumerate() {
        let remote = remote(sim, &parts.gate.handle, producer_name(number));
        let producer = producer.clone();
        others.push(tokio::spawn(async move { producer.push_all(remote).await }));
    }
    let roots = vec![
        parts.gate.supervisor.get_cell(),
        parts.reader.get_cell(),
        parts.runs.get_cell(),
    ];
    others.push(tokio::spawn(strike(sim.clone(), roots, health)));
    let death = until_it_ends(sim, &mut parts, scheduled, producers, outside).await;
    if !matches!(death, None | Some(Death::Stopped)) {
        return death;
    }
    // The listener closes its connections, and nobody ends actors in a process that is being stopped.
    others.iter().for_each(JoinHandle::abort);
    match stop(sim, parts).await {
        Ended::InOrder => death,
        Ended::ByItself => Some(Death::Exited),
    }
}

/// How an orderly stop went.
enum Ended {
    InOrder,
    /// A part gave up meanwhile; the next start recovers.
    ByItself,
}

/// Waits for whatever ends a life.
async fn until_it_ends(
    sim: &Arc<Sim>,
    parts: &mut Parts,
    scheduled: Option<(Duration, Death)>,
    producers: &[Arc<Producer>],
    outside: &mut Outside,
) -> Option<Death> {
    let bus = SimBus(sim.clone());
    let scheduled = async {
        match scheduled {
            Some((after, death)) => {
                tokio::time::sleep(after).await;
                death
            }
            None => std::future::pending().await,
        }
    };
    let all_done = async {
        loop {
            let published = outside.publish();
            let pushed = producers.iter().all(|producer| producer.is_done());
            if published && pushed && sim.is_calm() && bus.is_settled() {
                return None;
            }
            if sim.micros() > sim.plan.calm_after_ms * 1_000 + CALM_MICROS_MAX {
                return Some(Death::Killed);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let [reader_end, runs_end] = &mut parts.ends;
    // What the daemon does when a part of it ended: it ends, too.
    tokio::select! {
        biased;
        death = sim.death() => Some(death),
        _ = parts.gate.supervisor.wait(None) => Some(Death::Exited),
        _ = reader_end => Some(Death::Exited),
        _ = runs_end => Some(Death::Exited),
        death = scheduled => Some(death),
        done = all_done => done,
    }
}

/// Stops source first, as the daemon does, and looks whether everything came back.
async fn stop(sim: &Arc<Sim>, parts: Parts) -> Ended {
    sim.note("stop");
    let _ = parts.reader.stop_and_wait(None, Some(STOP_DEADLINE)).await;
    parts.orders.stop_all();
    let _ = parts.runs.stop_and_wait(None, Some(STOP_DEADLINE)).await;
    let gate = &parts.gate.supervisor;
    if gate.get_status() == ActorStatus::Stopped {
        return Ended::ByItself;
    }
    match gate.stop_and_wait(None, Some(STOP_DEADLINE)).await {
        Ok(()) => {}
        Err(RactorErr::Timeout) => sim.broken("the gate does not stop"),
        Err(_ended_meanwhile) => return Ended::ByItself,
    }
    // Requests that arrive twice may still be on their way.
    tokio::time::sleep(Duration::from_secs(10)).await;
    if sim.is_dead() {
        return Ended::ByItself;
    }
    let gauges = parts.gate.handle.credits().gauges();
    if (gauges.events_in_use, gauges.bytes_in_use) != (0, 0) {
        sim.broken(format!("credits did not come back: {gauges:?}"));
    }
    Ended::InOrder
}

fn remote(sim: &Arc<Sim>, gate: &GateHandle, name: String) -> Remote {
    Remote {
        name,
        sim: sim.clone(),
        gate: gate.clone(),
    }
}

async fn start(sim: &Arc<Sim>, health: watch::Receiver<Health>) -> Result<Parts, StageFailure> {
    let tree = TreeHandle::new(Arc::new(|| 0));
    let gate = start_gate(|started| gate_args(sim, health, &tree, started), None).await?;
    let own = PlatformRunId::parse(RUNS[0]).expect("the run is well formed");
    let opened = gate.handle.open_run(&own).await;
    opened.map_err(|cause| StageFailure::terminal("RUN_NOT_OPENED", cause))?;
    let client: Arc<dyn GateClient> = match sim.plan.window {
        1 => Arc::new(remote(sim, &gate.handle, "stream".to_owned())),
        _ => Arc::new(Watched::new(sim, &gate.handle)),
    };
    let orders = RunOrders::default();
    let args = RunsSupervisorArgs {
        ports: ReadyPorts {
            desk: Arc::new(SimDesk(sim.clone())),
            gate: client,
            clock: Arc::new(SimClock(sim.clone())),
            orders: orders.clone(),
        },
        node: tree.node("runs", "supervisor"),
        runs_max: sim.plan.runs_max,
        stop_deadline: STOP_DEADLINE / 2,
    };
    let (runs, runs_end) = Actor::spawn(None, RunsSupervisor, args).await?;
    let (told, mut outcomes) = mpsc::channel(8);
    tokio::spawn(async move { while outcomes.recv().await.is_some() {} });
    let args = ControlBusReaderArgs {
        bus: Arc::new(SimBus(sim.clone())),
        topic: "fp.bus.control.v1".to_owned(),
        poll_interval: sim.plan.poll_interval,
        runs: runs.clone(),
        outcomes: Some(told),
        node: tree.node("control bus reader", "reader"),
    };
    let (reader, reader_end) = Actor::spawn(None, ControlBusReader, args).await?;
    Ok(Parts {
        gate,
        reader,
        runs,
        orders,
        ends: [reader_end, runs_end],
    })
}

fn gate_args(
    sim: &Arc<Sim>,
    health: watch::Receiver<Health>,
    tree: &TreeHandle,
    started: oneshot::Sender<GateHandle>,
) -> GateArgs {
    let plan = &sim.plan;
    let policy = policy(plan);
    GateArgs {
        parts: GateParts {
            partitions: vec![plan.partitions; policy.topics().len()],
            policy,
            provenance: json!({}),
            verify_gates: VerifyGates::Off,
            proofs: Arc::new(NoProofs),
            credits: Credits::new(CreditLimits {
                events_max: plan.credit_events,
                bytes_max: plan.credit_bytes,
            }),
            health,
            deny_on_amber: plan.deny_on_amber,
            amber_sleep: Duration::from_millis(20),
            reporting: Reporting {
                flush_every: Duration::from_secs(10),
                spike: SpikeRule {
                    threshold: 25,
                    window_seconds: 60,
                },
                bus_failures: BusFailures::default(),
            },
        },
        store: Arc::new(SimGateStore(sim.clone())),
        layout: RunLayout {
            admission_shards: plan.admission_shards,
            index_shards: plan.index_shards,
        },
        flush_bytes_max: plan.flush_bytes_max,
        open_runs_max: plan.open_runs_max,
        own_run: PlatformRunId::parse(RUNS[0]).ok(),
        projections: vec![("p".to_owned(), Arc::new(SimProjection(sim.clone())))],
        projection_interval: Duration::from_millis(250),
        policy: plan.shard_restart.clone(),
        jitter_seed: plan.seed,
        clock: Arc::new(SimClock(sim.clone())),
        node: tree.node("gate", "gate_supervisor"),
        started,
    }
}

/// Every output and every producer's type has a class and a topic; some share a topic.
fn policy(plan: &Plan) -> AdmissionPolicy {
    let mut types: Vec<String> = plan.outputs.iter().map(|o| o.output_id.clone()).collect();
    types.push("pushed".to_owned());
    let profile =
        |topic: &str| json!({"stream": topic, "key_precedence": ["payload.k", "event_id"]});
    let topic = |number: usize| format!("t.{}", number % 2);
    let class =
        |number: usize| json!({"required_pins": [], "partitioning_profile_id": topic(number)});
    let numbered = || types.iter().enumerate();
    let mut classes: BTreeMap<String, Value> = numbered()
        .map(|(n, name)| (name.clone(), class(n)))
        .collect();
    classes.insert("traffic".to_owned(), json!({"required_pins": []}));
    let event_types: BTreeMap<&String, &String> = types.iter().map(|name| (name, name)).collect();
    let policies: Vec<Value> = types
        .iter()
        .map(|name| json!({"event_type": name}))
        .collect();
    let profiles = json!({"t.0": profile("t.0"), "t.1": profile("t.1"), "rest": profile("t.rest")});
    let files = PolicyFiles {
        revision: "v".into(),
        class_map: (
            "c".into(),
            json!({"classes": classes, "event_types": event_types}),
        ),
        partitioning: ("p".into(), json!({"profiles": profiles})),
        schema_policy: ("s".into(), json!({"policies": policies})),
        payload_schemas: BTreeMap::new(),
        default_profile_id: "rest".into(),
        required_gates: BTreeMap::new(),
    };
    AdmissionPolicy::compile(&files).expect("the policy of the simulation is sound")
}
