//! From a plan to producers: who sends what, and how fast.

use super::producer::{Lane, Producer};
use super::recorder::Recording;
use super::schedule::{Pace, Schedule};
use super::source::EventSource;
use super::synthetic::SyntheticEvents;
use super::template::{EVENT_TYPE, LoadIdentity, Template, TemplateError};
use super::workload::{Mixture, Workload};
use super::world::{WorldFault, WorldRows};
use super::{KnobProblem, LoadPlan, Source, Target};
use crate::cli::Failure;
use crate::clock::SystemClock;
use crate::gate::policy_files::load_policy;
use crate::world_streamer::{StreamOptions, StreamTarget, WorldStreamer};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;
use wellspring_domain::ids::h;
use wellspring_domain::ports::Clock;
use wellspring_domain::run_paths::PlatformRunId;
use wellspring_domain::stream::framing::FrameContext;
use wellspring_domain::stream::source::WorldSource;

/// Most batches whose memory a producer has before the load begins: more than are under way while it keeps up.
const BATCHES_READY: u64 = 16;
/// The same for all producers together, if that is one for each.
const ALL_BATCHES_READY: u64 = 64;

/// What will be sent.
pub enum Events {
    /// Synthetic events.
    Synthetic {
        /// The bytes of an event.
        template: Arc<Template>,
        /// Which events.
        workload: Workload,
        /// Where they go.
        topic: String,
    },
    /// Outputs of a world.
    World {
        /// The world.
        source: Arc<dyn WorldSource>,
        /// Its outputs.
        outputs: Vec<WorldOutput>,
        /// What goes wrong with reading them.
        fault: WorldFault,
    },
}

/// One output of a world.
pub struct WorldOutput {
    /// What its envelopes have in common.
    pub context: Arc<FrameContext>,
    /// Where they go.
    pub topic: String,
    /// How many there are.
    pub rows: u64,
}

/// What all producers share.
pub struct Start {
    /// When the load begins.
    pub origin: Instant,
    /// Where they write to.
    pub recording: Arc<Recording>,
    /// Turns true when they shall stop.
    pub stop: watch::Receiver<bool>,
}

impl Start {
    /// The producers of these sources.
    pub fn producers(
        &self,
        plan: &LoadPlan,
        sources: Vec<(Schedule, EventSource)>,
    ) -> impl Iterator<Item = Producer> {
        let producers = sources.len() as u64;
        let producer = move |(number, (schedule, source))| {
            let lane = Lane {
                producer: number,
                producers,
                schedule,
                recording: self.recording.clone(),
                origin: self.origin,
                measured_from: plan.warmup.as_nanos() as u64,
            };
            Producer::new(lane, source, self.stop.clone())
        };
        (0..).zip(sources).map(producer)
    }
}

impl Events {
    /// Makes ready whatever the plan asks for.
    pub fn prepare(plan: &LoadPlan, run: &PlatformRunId) -> anyhow::Result<Events> {
        match &plan.source {
            Source::Synthetic => synthetic(plan, run),
            Source::World {
                root,
                scenario_id,
                outputs,
            } => world(plan, run, root, scenario_id.clone(), outputs),
        }
    }

    /// Number of producers.
    pub fn producers(&self, plan: &LoadPlan) -> u64 {
        match self {
            Events::Synthetic { .. } => plan.producers,
            Events::World { outputs, .. } => outputs.len() as u64,
        }
    }

    /// Events there are at most, where that is known.
    pub fn total(&self, plan: &LoadPlan) -> Option<u64> {
        let planned = match (plan.rate, plan.duration) {
            (Some(rate), Some(duration)) => Some((rate * duration.as_secs_f64()) as u64),
            _ => None,
        };
        let rows = match self {
            Events::Synthetic { .. } => None,
            Events::World { outputs, .. } => Some(outputs.iter().map(|output| output.rows).sum()),
        };
        [plan.events, planned, rows].into_iter().flatten().min()
    }

    /// What each producer sends, and when; made ready before the load begins.
    pub fn sources(
        &self,
        plan: &LoadPlan,
        recording: &Arc<Recording>,
    ) -> Vec<(Schedule, EventSource)> {
        let producers = self.producers(plan);
        let source = |number: u64| match self {
            Events::Synthetic {
                template, workload, ..
            } => {
                let schedule = Schedule {
                    pace: Pace::share(plan.rate, number, producers),
                    events: plan.events.map(|events| share(events, number, producers)),
                    end_nanos: end_nanos(plan),
                    batch: plan.batch,
                };
                let mut events = SyntheticEvents::new(template.clone(), *workload, number);
                let batches = (ALL_BATCHES_READY / producers).clamp(1, BATCHES_READY);
                events.make_ready(batches, plan.batch);
                (schedule, EventSource::Synthetic(events))
            }
            Events::World {
                source,
                outputs,
                fault,
            } => {
                let output = &outputs[number as usize];
                let rows = WorldRows::start(
                    source.clone(),
                    output.context.clone(),
                    recording.clone(),
                    number,
                    fault.clone(),
                );
                let schedule = world_schedule(plan, output, outputs);
                (schedule, EventSource::World(rows))
            }
        };
        (0..producers).map(source).collect()
    }

    /// Bytes of a payload and of an envelope, where all are alike.
    pub fn sizes(&self) -> Option<(u64, u64)> {
        match self {
            Events::Synthetic { template, .. } => Some((
                template.payload_bytes() as u64,
                template.line_bytes() as u64 - 1,
            )),
            Events::World { .. } => None,
        }
    }

    /// Where all of them go; `None` when there are several topics.
    pub fn topic(&self) -> Option<&str> {
        match self {
            Events::Synthetic { topic, .. } => Some(topic),
            Events::World { .. } => None,
        }
    }

    /// What went wrong with reading a world.
    pub fn fault(&self) -> Option<String> {
        match self {
            Events::Synthetic { .. } => None,
            Events::World { fault, .. } => fault.seen(),
        }
    }

    /// Whether some of them go to this topic.
    pub fn goes_to(&self, topic: &str) -> bool {
        match self {
            Events::Synthetic { topic: own, .. } => own == topic,
            Events::World { outputs, .. } => outputs.iter().any(|output| output.topic == topic),
        }
    }
}

fn synthetic(plan: &LoadPlan, run: &PlatformRunId) -> anyhow::Result<Events> {
    let producer = &plan.settings.wiring.wsp_producer.producer_id;
    let now = SystemClock::new().now().0;
    let identity = LoadIdentity {
        platform_run_id: run.to_string(),
        producer: producer
            .clone()
            .unwrap_or_else(|| "svc:world_stream_producer".to_owned()),
        // Two loads never share an event, also not into one run.
        id_prefix: h(&format!("load|{}|{run}|{now}", plan.seed))[..48].to_owned(),
        seed: plan.seed,
    };
    let template = Template::new(&identity, plan.payload_bytes).map_err(|error| match error {
        TemplateError::PayloadTooSmall { .. } => KnobProblem(error.to_string()).into(),
        other => anyhow::Error::from(other),
    })?;
    batch_fits(plan, template.line_bytes() as u64)?;
    let workload = Workload::new(Mixture {
        seed: plan.seed,
        keys: plan.keys,
        skew: plan.skew,
        duplicates: plan.duplicates,
        invalid: plan.invalid,
        producers: plan.producers,
    });
    let policy = load_policy(&plan.settings)?;
    Ok(Events::Synthetic {
        template: Arc::new(template),
        workload,
        topic: policy.rule(EVENT_TYPE).topic.to_string(),
    })
}

/// A batch larger than all room in front of the gate would wait for ever; a body larger than its limit is
/// never read.
fn batch_fits(plan: &LoadPlan, line_bytes: u64) -> Result<(), KnobProblem> {
    let gate = &plan.settings.wiring.gate;
    let (most, what) = match &plan.target {
        Target::InProcess => (gate.in_flight_bytes_max(), "the room in front of the gate"),
        Target::Http { .. } => (gate.batch_body_bytes_max, "the largest body of a gate"),
    };
    let bytes = plan.batch.saturating_mul(line_bytes);
    if bytes <= most {
        return Ok(());
    }
    let sentence = format!(
        "a batch of {} events has {bytes} bytes, {what} is {most}: give a smaller --batch or --payload-bytes",
        plan.batch
    );
    Err(KnobProblem(sentence))
}

fn world(
    plan: &LoadPlan,
    run: &PlatformRunId,
    root: &str,
    scenario_id: Option<String>,
    only: &[String],
) -> anyhow::Result<Events> {
    let settings = &plan.settings;
    let store = settings.object_stores().open(settings.runs_root())?;
    let clock = Arc::new(SystemClock::new());
    let streamer = WorldStreamer::new(Arc::new(settings.clone()), store, clock)?;
    let target = StreamTarget {
        engine_run_root: Some(root.to_owned()),
        scenario_id,
        platform_run_id: Some(run.clone()),
        ..StreamTarget::default()
    };
    let options = StreamOptions {
        only: only.to_vec(),
        ..StreamOptions::default()
    };
    let prepared = streamer
        .prepare(&target, &options)
        .map_err(|refusal| Failure::new(refusal.code, refusal.detail))?;
    let policy = load_policy(settings)?;
    let mut outputs = Vec::new();
    for context in prepared.request.outputs {
        let view = prepared.source.open(&context.output_id, None)?;
        outputs.push(WorldOutput {
            topic: policy.rule(&context.output_id).topic.to_string(),
            rows: view.rows_total.unwrap_or(0),
            context,
        });
    }
    Ok(Events::World {
        source: prepared.source,
        outputs,
        fault: WorldFault::default(),
    })
}

/// The part of a whole that belongs to one of many, so that the parts sum up.
fn share(whole: u64, number: u64, many: u64) -> u64 {
    whole / many + u64::from(number < whole % many)
}

/// Outputs share the rate and the events by their rows, so all end together.
fn world_schedule(plan: &LoadPlan, output: &WorldOutput, outputs: &[WorldOutput]) -> Schedule {
    let all: u64 = outputs.iter().map(|output| output.rows).sum();
    let part = output.rows.max(1) as f64 / all.max(1) as f64;
    let pace = match plan.rate {
        None => Pace::Closed,
        Some(rate) => Pace::Open {
            nanos_per_event: 1e9 / (rate * part),
            phase: 0.0,
        },
    };
    let events = plan.events.filter(|events| *events < all);
    Schedule {
        pace,
        events: events.map(|events| (events as f64 * part).round() as u64),
        end_nanos: end_nanos(plan),
        batch: plan.batch,
    }
}

fn end_nanos(plan: &LoadPlan) -> Option<u64> {
    plan.duration.map(|duration| duration.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_sum_up() {
        let shares: Vec<u64> = (0..4).map(|number| share(10, number, 4)).collect();
        assert_eq!(shares, [3, 3, 2, 2]);
    }
}
