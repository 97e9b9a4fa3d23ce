//! What is armed: read from the environment once, counted while steps are passed.

use super::ARMED;
use super::steps::{Moment, Step, all_steps, point_name};
use rustix::process::{Signal, getpid, kill_process};
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use wellspring_domain::ports::StoreError;

/// The variable that arms failpoints.
pub const VARIABLE: &str = "WELLSPRING_FAILPOINTS";
/// Longest delay, so that a typing mistake does not hang a process for good.
const DELAY_MS_MAX: u64 = 60_000;
/// The name that stands for every point.
const EVERY: &str = "all";

static PLAN: OnceLock<Plan> = OnceLock::new();

/// Why the variable arms nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No `=`, no such action, or a hit that is no number.
    #[error("{0:?} is not <point>=kill|eio|enospc|short|delay:<ms>|trace[@<hit>[+]]")]
    Form(String),
    /// There is no such point.
    #[error("there is no failpoint {0:?}")]
    Unknown(String),
    /// Only a step that writes can be cut short.
    #[error("{0:?} writes nothing that could be cut short")]
    NotAWrite(String),
}

impl PlanError {
    /// The stable reason code.
    pub fn code(&self) -> &'static str {
        "FAILPOINTS_INVALID"
    }
}

/// A step that was made to fail.
#[derive(Debug)]
pub struct Fault {
    step: Step,
    point: String,
    kind: io::ErrorKind,
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> io::Error {
        io::Error::new(fault.kind, format!("failpoint {}", fault.point))
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> StoreError {
        StoreError::Unavailable {
            operation: fault.step.operation(),
            key: fault.point.clone(),
            cause: io::Error::from(fault).to_string(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Kill,
    Eio,
    Enospc,
    Short,
    Delay(Duration),
    Trace,
}

#[derive(Debug)]
struct Point {
    step: Step,
    moment: Moment,
    action: Action,
    hit: u64,
    onward: bool,
    passed: AtomicU64,
}

#[derive(Debug, Default)]
struct Plan(Vec<Point>);

/// Arms what the environment names; called once, before anything durable is done.
pub fn arm_from_environment() -> Result<(), PlanError> {
    let Ok(text) = std::env::var(VARIABLE) else {
        return Ok(());
    };
    let plan = Plan::parse(&text)?;
    if !plan.0.is_empty() && PLAN.set(plan).is_ok() {
        ARMED.store(true, Ordering::SeqCst);
    }
    Ok(())
}

/// True when a plan is in force.
pub fn is_armed() -> bool {
    ARMED.load(Ordering::SeqCst)
}

/// Passes a point.
pub(super) fn reach(step: Step, moment: Moment) -> Result<(), Fault> {
    match PLAN.get().and_then(|plan| plan.pass(step, moment)) {
        Some(action) => act(action, step, moment),
        None => Ok(()),
    }
}

/// Passes the point before a write. The fault to give after half of the bytes, when it is cut short.
pub(super) fn reach_write(step: Step) -> Result<Option<Fault>, Fault> {
    match PLAN.get().and_then(|plan| plan.pass(step, Moment::Before)) {
        Some(Action::Short) => Ok(Some(fault(
            step,
            Moment::Before,
            io::ErrorKind::StorageFull,
        ))),
        Some(action) => act(action, step, Moment::Before).map(|()| None),
        None => Ok(None),
    }
}

fn act(action: Action, step: Step, moment: Moment) -> Result<(), Fault> {
    match action {
        Action::Kill => die(),
        Action::Eio => Err(fault(step, moment, io::ErrorKind::Other)),
        Action::Enospc | Action::Short => Err(fault(step, moment, io::ErrorKind::StorageFull)),
        Action::Delay(time) => {
            std::thread::sleep(time);
            Ok(())
        }
        Action::Trace => Ok(()),
    }
}

fn fault(step: Step, moment: Moment, kind: io::ErrorKind) -> Fault {
    Fault {
        step,
        point: point_name(step, moment),
        kind,
    }
}

/// Ends the process as a crash would: nothing is flushed, dropped or answered any more.
fn die() -> ! {
    loop {
        // A signal to oneself cannot be refused; until it arrives this thread does nothing else.
        let _ = kill_process(getpid(), Signal::KILL);
        std::thread::park();
    }
}

impl Plan {
    fn parse(text: &str) -> Result<Plan, PlanError> {
        let mut points = Vec::new();
        for item in text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
        {
            let form = || PlanError::Form(item.to_owned());
            let (name, action) = item.split_once('=').ok_or_else(form)?;
            let (action, hit) = action.split_once('@').unwrap_or((action, "1"));
            let (hit, onward) = match hit.strip_suffix('+') {
                Some(hit) => (hit, true),
                None => (hit, false),
            };
            let hit = hit.parse().ok().filter(|hit| *hit > 0).ok_or_else(form)?;
            let action = Action::parse(action).ok_or_else(form)?;
            let known = points.len();
            for (step, moment) in places(name) {
                if action == Action::Short && !(step.writes() && moment == Moment::Before) {
                    return Err(PlanError::NotAWrite(name.to_owned()));
                }
                points.push(Point {
                    step,
                    moment,
                    action,
                    hit,
                    onward: onward || action == Action::Trace,
                    passed: AtomicU64::new(0),
                });
            }
            if points.len() == known {
                return Err(PlanError::Unknown(name.to_owned()));
            }
        }
        Ok(Plan(points))
    }

    /// Counts a pass; the action of the first point it triggers, told on stderr.
    fn pass(&self, step: Step, moment: Moment) -> Option<Action> {
        let mut triggered = None;
        let here = self.0.iter();
        for point in here.filter(|point| point.step == step && point.moment == moment) {
            let pass = point.passed.fetch_add(1, Ordering::SeqCst) + 1;
            let due = pass == point.hit || (point.onward && pass > point.hit);
            if due && triggered.is_none() {
                let name = point_name(step, moment);
                eprintln!(
                    "wellspring failpoint {name} {:?} at pass {pass}",
                    point.action
                );
                triggered = Some(point.action);
            }
        }
        triggered
    }
}

/// The points a name stands for.
fn places(name: &str) -> impl Iterator<Item = (Step, Moment)> {
    let both = all_steps().flat_map(|step| [Moment::Before, Moment::After].map(|at| (step, at)));
    both.filter(move |(step, moment)| name == EVERY || point_name(*step, *moment) == name)
}

impl Action {
    fn parse(text: &str) -> Option<Action> {
        Some(match text {
            "kill" => Action::Kill,
            "eio" => Action::Eio,
            "enospc" => Action::Enospc,
            "short" => Action::Short,
            "trace" => Action::Trace,
            delay => {
                let ms: u64 = delay.strip_prefix("delay:")?.parse().ok()?;
                Action::Delay(Duration::from_millis(ms.min(DELAY_MS_MAX)))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failpoints::steps::{Artefact, Operation};

    const FRAME: Step = Step(Artefact::JournalFrame, Operation::Write);

    #[test]
    fn a_point_triggers_on_its_pass_and_then_no_more() {
        let plan = Plan::parse("journal_frame.write.before=eio@3").unwrap();
        let passes = (0..5).map(|_| plan.pass(FRAME, Moment::Before).is_some());
        assert_eq!(
            passes.collect::<Vec<_>>(),
            [false, false, true, false, false]
        );
        assert_eq!(plan.pass(FRAME, Moment::After), None, "another point");
    }

    #[test]
    fn a_point_may_trigger_on_every_pass_from_one_on() {
        let plan = Plan::parse("journal_frame.write.before=enospc@2+").unwrap();
        let passes = (0..4).map(|_| plan.pass(FRAME, Moment::Before).is_some());
        assert_eq!(passes.collect::<Vec<_>>(), [false, true, true, true]);
    }

    #[test]
    fn what_cannot_be_armed_is_refused() {
        for text in [
            "x",
            "x=kill",
            "head.write.before=boom",
            "head.write.before=kill@0",
        ] {
            assert_eq!(Plan::parse(text).unwrap_err().code(), "FAILPOINTS_INVALID");
        }
        let short = Plan::parse("head.rename.before=short").unwrap_err();
        assert_eq!(short, PlanError::NotAWrite("head.rename.before".to_owned()));
        assert!(Plan::parse("head.write.after=short").is_err());
        assert_eq!(Plan::parse(" , ").unwrap().0.len(), 0);
        let all = Plan::parse("all=trace").unwrap().0.len();
        assert_eq!(all, super::super::point_names().count());
    }

    #[test]
    fn names_of_points_are_distinct_and_a_sync_that_fails_is_an_fsync() {
        let mut names: Vec<String> = super::super::point_names().collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
        let sync = fault(
            Step(Artefact::BusLines, Operation::Sync),
            Moment::Before,
            io::ErrorKind::Other,
        );
        let StoreError::Unavailable { operation, .. } = StoreError::from(sync) else {
            panic!("an injected fault means the store is away");
        };
        assert_eq!(operation, "fsync");
    }
}
