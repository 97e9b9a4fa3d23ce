//! Failpoints: named places around every durable step, where a test can end the process or make the
//! step fail.
//!
//! `WELLSPRING_FAILPOINTS=<point>=<action>[@<hit>[+]],...` arms them once, at start; the profiles `dev`
//! and `prod` refuse to start with it. A point is `<artefact>.<operation>.before` or `.after`:
//!
//! | Action | Before the step | After the step |
//! |---|---|---|
//! | `kill` | SIGKILL to the own process | the same |
//! | `eio`, `enospc` | the step is not done, its caller gets the error | it is done and reported as failed |
//! | `short` | half of the bytes are written, then `enospc` (steps that write) | - |
//! | `delay:<ms>` | waits | waits |
//! | `trace` | nothing | nothing |
//!
//! `@<hit>` names the pass that triggers, 1 without it; `@<hit>+` is every pass from there on. Each
//! trigger is told on stderr, so that a test sees which points have fired. Not armed, a step costs one
//! relaxed load.

mod plan;
mod steps;

pub use plan::{Fault, PlanError, arm_from_environment, is_armed};
pub use steps::{Artefact, Moment, Operation, Step, all_steps, point_names};

use std::sync::atomic::{AtomicBool, Ordering};

/// True from the moment a plan is in force.
static ARMED: AtomicBool = AtomicBool::new(false);

/// Does one durable step, with its two points around it.
#[inline]
pub fn around<T, E: From<Fault>>(step: Step, run: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    if !ARMED.load(Ordering::Relaxed) {
        return run();
    }
    plan::reach(step, Moment::Before)?;
    let done = run()?;
    plan::reach(step, Moment::After)?;
    Ok(done)
}

/// Writes `bytes` as one durable step, which may be cut short.
#[inline]
pub fn writing<E: From<Fault>>(
    step: Step,
    bytes: &[u8],
    write: impl FnOnce(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    if !ARMED.load(Ordering::Relaxed) {
        return write(bytes);
    }
    if let Some(cut) = plan::reach_write(step)? {
        write(&bytes[..bytes.len() / 2])?;
        return Err(cut.into());
    }
    write(bytes)?;
    Ok(plan::reach(step, Moment::After)?)
}
