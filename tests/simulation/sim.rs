//! The simulation itself: dice, virtual time, the trace, and what all simulated parts share.

use crate::disk::Disk;
use crate::faults::{Counts, Death, Fault, Lie};
use crate::judge::Judge;
use crate::plan::Plan;
use crate::stores::Stores;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use wellspring_actors::runtime::BoxFuture;
use wellspring_actors::runtime::blocking::VirtualThreads;
use wellspring_domain::ports::{Clock, StoreError};
use wellspring_domain::time_text::Micros;

/// A simulated run. Everything happens on one thread; locks are there because ports ask for it.
pub struct Sim {
    pub plan: Plan,
    lie: Option<Lie>,
    core: Mutex<Core>,
    dying: Notify,
    disk: Mutex<Disk>,
    stores: Mutex<Stores>,
    judge: Mutex<Judge>,
}

struct Core {
    dice: SmallRng,
    trace: String,
    counts: Counts,
    /// Microseconds lived before this life.
    lived: u64,
    life_began: Option<Instant>,
    wall_offset: i64,
    death: Option<Death>,
    calm: bool,
}

/// Wall clock of the first moment.
const EPOCH: i64 = 1_767_225_600_000_000;

fn open<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sim {
    pub fn new(plan: Plan, lie: Option<Lie>) -> Arc<Sim> {
        let core = Core {
            dice: SmallRng::seed_from_u64(plan.seed),
            trace: String::new(),
            counts: Counts::new(),
            lived: 0,
            life_began: None,
            wall_offset: 0,
            death: None,
            calm: false,
        };
        Arc::new(Sim {
            judge: Mutex::new(Judge::new(&plan)),
            disk: Mutex::default(),
            stores: Mutex::default(),
            core: Mutex::new(core),
            dying: Notify::new(),
            lie,
            plan,
        })
    }

    pub fn disk(&self) -> MutexGuard<'_, Disk> {
        open(&self.disk)
    }

    pub fn stores(&self) -> MutexGuard<'_, Stores> {
        open(&self.stores)
    }

    pub fn judge(&self) -> MutexGuard<'_, Judge> {
        open(&self.judge)
    }

    /// Virtual microseconds since the first moment.
    pub fn micros(&self) -> u64 {
        let core = open(&self.core);
        core.micros()
    }

    /// Writes a line into the trace.
    pub fn note(&self, text: impl AsRef<str>) {
        let mut core = open(&self.core);
        let at = core.micros() / 1_000;
        let _ = writeln!(core.trace, "{at:>8} {}", text.as_ref());
    }

    /// Counts something the report tells.
    pub fn count(&self, what: &str) {
        let mut core = open(&self.core);
        *core.counts.entry(what.to_owned()).or_default() += 1;
    }

    /// A promise was broken.
    pub fn broken(&self, what: impl Into<String>) {
        let what = what.into();
        self.note(format!("BROKEN {what}"));
        self.judge().broken(what);
    }

    pub fn below(&self, bound: u64) -> u64 {
        open(&self.core).dice.random_range(0..bound.max(1))
    }

    pub fn chance(&self, probability: f64) -> bool {
        open(&self.core).dice.random_bool(probability)
    }

    /// Whether a fault strikes here and now.
    pub fn strikes(&self, fault: Fault) -> bool {
        let rate = self.plan.rate(fault);
        let mut core = open(&self.core);
        let strikes =
            !core.calm && core.death.is_none() && rate > 0.0 && core.dice.random_bool(rate);
        if strikes {
            *core.counts.entry(format!("{fault:?}")).or_default() += 1;
        }
        drop(core);
        if strikes {
            self.note(format!("fault {fault:?}"));
        }
        strikes
    }

    /// Whether a store lies here and now.
    pub fn lies(&self, lie: Lie) -> bool {
        self.lie == Some(lie) && self.chance(0.1)
    }

    /// The fault's error, when it strikes.
    pub fn fails(
        &self,
        fault: Fault,
        operation: &'static str,
        key: &str,
    ) -> Result<(), StoreError> {
        self.alive(operation, key)?;
        match self.strikes(fault) {
            true => Err(unavailable(operation, key, "simulated")),
            false => Ok(()),
        }
    }

    /// The process dies here, when the fault strikes: killed or by a power loss.
    pub fn dies(&self, fault: Fault, operation: &'static str, key: &str) -> Result<(), StoreError> {
        if self.strikes(fault) {
            let death = match self.chance(0.5) {
                true => Death::Killed,
                false => Death::PowerLost,
            };
            self.die(death);
        }
        self.alive(operation, key)
    }

    /// A dead process does nothing any more.
    pub fn alive(&self, operation: &'static str, key: &str) -> Result<(), StoreError> {
        match self.is_dead() {
            true => Err(unavailable(operation, key, "the process is dead")),
            false => Ok(()),
        }
    }

    pub fn is_dead(&self) -> bool {
        open(&self.core).death.is_some()
    }

    /// From now on nothing the process does has an effect.
    pub fn die(&self, death: Death) {
        let mut core = open(&self.core);
        if core.death.is_none() {
            core.death = Some(death);
            self.dying.notify_one();
        }
    }

    /// Resolves when the process is dead.
    pub async fn death(&self) -> Death {
        loop {
            if let Some(death) = open(&self.core).death {
                return death;
            }
            self.dying.notified().await;
        }
    }

    /// Whether faults are over.
    pub fn is_calm(&self) -> bool {
        let mut core = open(&self.core);
        core.calm |= core.micros() >= self.plan.calm_after_ms * 1_000;
        core.calm
    }

    pub fn begin_life(&self) {
        let mut core = open(&self.core);
        core.life_began = Some(Instant::now());
        core.death = None;
    }

    /// Called inside of the life's runtime, whose time ends with it.
    pub fn end_life(&self) {
        let mut core = open(&self.core);
        core.lived = core.micros();
        core.life_began = None;
    }

    pub fn jump_clock(&self, micros: i64) {
        open(&self.core).wall_offset += micros;
    }

    pub fn trace(&self) -> String {
        open(&self.core).trace.clone()
    }

    pub fn counts(&self) -> Counts {
        open(&self.core).counts.clone()
    }

    /// A pause of at most so many milliseconds.
    pub async fn pause(&self, ms_max: u64) {
        let ms = self.below(ms_max + 1);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

impl Core {
    fn micros(&self) -> u64 {
        let life = self
            .life_began
            .map(|began| began.elapsed().as_micros() as u64);
        self.lived + life.unwrap_or_default()
    }
}

pub fn unavailable(operation: &'static str, key: &str, cause: &str) -> StoreError {
    StoreError::Unavailable {
        operation,
        key: key.to_owned(),
        cause: cause.to_owned(),
    }
}

/// Blocking work takes virtual time and no thread.
pub struct SimThreads(pub Arc<Sim>);

impl VirtualThreads for SimThreads {
    fn turn(&self, name: &str) -> BoxFuture<'static, ()> {
        let sim = &self.0;
        let yields = sim.below(4);
        let ms = match sim.strikes(Fault::WorkIsSlow) {
            true => 200 + sim.below(20_000),
            false => sim.below(4) * sim.below(4),
        };
        sim.note(format!("turn {name} {yields} {ms}"));
        Box::pin(async move {
            for _ in 0..yields {
                tokio::task::yield_now().await;
            }
            if ms > 0 {
                tokio::time::sleep(Duration::from_millis(ms)).await;
            }
        })
    }
}

/// The process's clock: virtual, and sometimes set anew.
pub struct SimClock(pub Arc<Sim>);

impl Clock for SimClock {
    fn now(&self) -> Micros {
        let core = open(&self.0.core);
        Micros(EPOCH + core.micros() as i64 + core.wall_offset)
    }

    fn monotonic_micros(&self) -> u64 {
        self.0.micros()
    }
}
