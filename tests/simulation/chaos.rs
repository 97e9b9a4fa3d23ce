//! What happens to the process from outside and inside at any moment: actors that end, clocks that jump,
//! health that turns, READY that is published again.

use crate::desk::ready;
use crate::faults::{Death, Fault};
use crate::plan::RUNS;
use crate::sim::Sim;
use crate::stores::SimBus;
use ractor::{ActorCell, Message};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use wellspring_actors::ingestion_gate::admission_shard::AdmissionShardMsg;
use wellspring_actors::ingestion_gate::gate_supervisor::GateSupervisorMsg;
use wellspring_actors::ingestion_gate::index_shard::IndexShardMsg;
use wellspring_actors::ingestion_gate::projector::ProjectorMsg;
use wellspring_actors::ingestion_gate::summary::SummaryMsg;
use wellspring_actors::world_stream::control_bus_reader::ControlBusReaderMsg;
use wellspring_actors::world_stream::output_stream::OutputStreamMsg;
use wellspring_actors::world_stream::ready_run::ReadyRunMsg;
use wellspring_actors::world_stream::runs_supervisor::RunsSupervisorMsg;
use wellspring_domain::admission::health::{Health, HealthReason};

/// When READY messages come: milliseconds, message, platform run, attempt.
const MESSAGES: [(u64, &str, usize, &str); 6] = [
    (0, "garbage-1", 0, ""),
    (0, "ready-1", 0, "pack-1"),
    (200, "stale-1", 1, "pack-9"),
    (4_000, "ready-2", 0, "pack-1"),
    (9_000, "ready-3", 0, "pack-2"),
    (11_000, "stale-2", 2, "pack-1"),
];

/// Publishes READY messages when their time has come.
pub struct Outside {
    sim: Arc<Sim>,
    published: usize,
}

impl Outside {
    pub fn new(sim: &Arc<Sim>) -> Outside {
        Outside {
            sim: sim.clone(),
            published: 0,
        }
    }

    /// Publishes what is due; says whether nothing more will come.
    pub fn publish(&mut self) -> bool {
        let due = |(at, ..): &&(u64, &str, usize, &str)| at * 1_000 <= self.sim.micros();
        let left = MESSAGES.iter().skip(self.published);
        let messages: Vec<_> = left.take_while(due).copied().collect();
        let bus = SimBus(self.sim.clone());
        for (_, id, run, attempt) in messages {
            bus.put(id, &envelope(id, run, attempt));
            self.published += 1;
        }
        self.published == MESSAGES.len()
    }
}

fn envelope(message_id: &str, run: usize, attempt: &str) -> Vec<u8> {
    match message_id.starts_with("garbage") {
        true => b"{".to_vec(),
        false => ready(message_id, RUNS[run], attempt),
    }
}

/// Strikes until the calm, or until it is dropped with the process.
pub async fn strike(sim: Arc<Sim>, roots: Vec<ActorCell>, health: watch::Sender<Health>) {
    while !sim.is_calm() {
        sim.pause(sim.plan.blow_ms_max).await;
        if sim.is_calm() {
            break;
        }
        match sim.below(3) {
            0 => end_an_actor(&sim, &roots),
            1 => jump(&sim),
            _ => turn_health(&sim, &health).await,
        }
        if sim.strikes(Fault::PublishedAgain) {
            let (_, id, run, attempt) = MESSAGES[sim.below(4) as usize];
            SimBus(sim.clone()).put(id, &envelope(id, run, attempt));
        }
    }
    health.send_replace(Health::default());
}

fn jump(sim: &Sim) {
    if sim.strikes(Fault::ClockJumps) {
        let seconds = sim.below(7_200) as i64 - 3_600;
        sim.note(format!("clock jumps {seconds} s"));
        sim.jump_clock(seconds * 1_000_000);
    }
}

async fn turn_health(sim: &Sim, health: &watch::Sender<Health>) {
    let reason = if sim.strikes(Fault::HealthRed) {
        HealthReason::DiskSpaceLow
    } else if sim.strikes(Fault::HealthAmber) {
        HealthReason::BusHealthUnknown
    } else {
        return;
    };
    health.send_replace(Health::from_reasons(vec![reason]));
    sim.pause(3_000).await;
    health.send_replace(Health::default());
}

/// Actors whose end the process survives: they are ended more often.
const SURVIVABLE: [&str; 4] = [
    "decide stage",
    "output stream",
    "output pipeline",
    "ready run",
];

/// Ends one actor, whatever it is doing: killed at its await, or stopped unasked.
fn end_an_actor(sim: &Sim, roots: &[ActorCell]) {
    let mut found: Vec<(&'static str, ActorCell)> = Vec::new();
    for root in roots {
        list(root, &mut found);
    }
    let mut kinds: Vec<&str> = found.iter().map(|(kind, _)| *kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    if kinds.iter().any(|kind| SURVIVABLE.contains(kind)) && sim.chance(0.7) {
        kinds.retain(|kind| SURVIVABLE.contains(kind));
    }
    if kinds.is_empty() {
        return;
    }
    let kind = kinds[sim.below(kinds.len() as u64) as usize];
    let of_kind: Vec<_> = found.iter().filter(|(of, _)| *of == kind).collect();
    let (_, cell) = of_kind[sim.below(of_kind.len() as u64) as usize];
    let how = sim.below(2);
    sim.count(&format!("ended: {kind}"));
    sim.note(format!("end {kind} {}", ["kill", "stop"][how as usize]));
    match how {
        0 => cell.kill(),
        _ => cell.stop(None),
    }
}

fn list(cell: &ActorCell, found: &mut Vec<(&'static str, ActorCell)>) {
    let mut children = cell.get_children();
    children.sort_by_key(|child| child.get_id().pid());
    let kind = kind_of(cell).unwrap_or_else(|| {
        let holds_shard = children.iter().any(is::<AdmissionShardMsg>);
        match holds_shard {
            true => "shard pipeline",
            false => "output pipeline",
        }
    });
    found.push((kind, cell.clone()));
    for child in &children {
        list(child, found);
    }
}

fn is<M: Message>(cell: &ActorCell) -> bool {
    cell.is_message_type_of::<M>() == Some(true)
}

fn kind_of(cell: &ActorCell) -> Option<&'static str> {
    type Kind = (fn(&ActorCell) -> bool, &'static str);
    let kinds: [Kind; 9] = [
        (is::<AdmissionShardMsg>, "decide stage"),
        (is::<IndexShardMsg>, "index shard"),
        (is::<GateSupervisorMsg>, "gate supervisor"),
        (is::<ProjectorMsg>, "projector"),
        (is::<SummaryMsg>, "gate reporter"),
        (is::<ControlBusReaderMsg>, "control bus reader"),
        (is::<RunsSupervisorMsg>, "runs supervisor"),
        (is::<ReadyRunMsg>, "ready run"),
        (is::<OutputStreamMsg>, "output stream"),
    ];
    let found = kinds.into_iter().find(|(is_it, _)| is_it(cell));
    found.map(|(_, kind)| kind)
}

/// The death a life is scheduled for, and when; none once there were enough.
pub fn scheduled_death(sim: &Sim, life: u32) -> Option<(Duration, Death)> {
    if life > sim.plan.short_lives || sim.is_calm() {
        return None;
    }
    let after = Duration::from_millis(sim.below(sim.plan.life_ms_max) + 1);
    let death = [Death::Killed, Death::PowerLost, Death::Stopped];
    Some((after, death[sim.below(3) as usize]))
}
