//! What the processors did: this process, a gate beside it, and everybody else.

use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::time::Instant;

/// Ticks of `/proc` in a second, on every Linux there is.
const TICKS_PER_SECOND: f64 = 100.0;

/// One look at the processors. All are seconds of processor time since some origin.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// When.
    pub at: Instant,
    /// This process.
    pub process: f64,
    /// Its part in user mode.
    pub user: f64,
    /// Its part in the kernel.
    pub system: f64,
    /// The gate of another process, when one is watched.
    pub gate: Option<f64>,
    /// All processors, whoever used them; `None` where that is not told.
    pub busy: Option<f64>,
    /// What the host of this machine gave to others.
    pub stolen: f64,
}

/// What happened between two looks.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Use {
    /// Wall clock.
    pub wall_seconds: f64,
    /// Processor time of this process.
    pub process_seconds: f64,
    /// Its part in user mode.
    pub user_seconds: f64,
    /// Its part in the kernel.
    pub system_seconds: f64,
    /// Processor time of the watched gate.
    pub gate_seconds: Option<f64>,
    /// Share of all processor time that other processes took.
    pub others_share: Option<f64>,
    /// Share of all processor time that the machine's host gave to others.
    pub stolen_share: f64,
    /// Processors of the machine.
    pub processors: usize,
}

impl Reading {
    /// Looks now. `gate_process` is the id of a gate's process on this machine.
    pub fn now(gate_process: Option<u32>) -> Reading {
        let own = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let (user, system) = process_times(&own).unwrap_or_default();
        let machine = fs::read_to_string("/proc/stat").unwrap_or_default();
        let machine = machine_times(&machine);
        let gate = gate_process.and_then(|id| {
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
            let (user, system) = process_times(&stat)?;
            Some(user + system)
        });
        Reading {
            at: Instant::now(),
            process: process_seconds(),
            user,
            system,
            gate,
            busy: machine.map(|(busy, _)| busy),
            stolen: machine.map_or(0.0, |(_, stolen)| stolen),
        }
    }

    /// What happened since an earlier look.
    pub fn since(&self, earlier: &Reading) -> Use {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let wall_seconds = (self.at - earlier.at).as_secs_f64();
        let process_seconds = self.process - earlier.process;
        let gate_seconds = match (self.gate, earlier.gate) {
            (Some(now), Some(then)) => Some(now - then),
            _ => None,
        };
        let capacity = (wall_seconds * processors as f64).max(1e-9);
        let share = |seconds: f64| (seconds / capacity).clamp(0.0, 1.0);
        let ours = process_seconds + gate_seconds.unwrap_or(0.0);
        let busy = self.busy.zip(earlier.busy).map(|(now, then)| now - then);
        Use {
            wall_seconds,
            process_seconds,
            user_seconds: self.user - earlier.user,
            system_seconds: self.system - earlier.system,
            gate_seconds,
            others_share: busy.map(|busy| share(busy - ours)),
            stolen_share: share(self.stolen - earlier.stolen),
            processors,
        }
    }
}

/// Processor time of this thread: two looks around a piece of work tell what it cost.
pub fn thread_nanos() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Most memory this process has had, in bytes.
pub fn peak_resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// Processor seconds of this process so far, all its threads.
pub fn process_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// User and system seconds in the text of `/proc/<id>/stat`. The name in it may hold anything, also spaces.
fn process_times(stat: &str) -> Option<(f64, f64)> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    let user: f64 = times.next()?.parse().ok()?;
    let system: f64 = times.next()?.parse().ok()?;
    Some((user / TICKS_PER_SECOND, system / TICKS_PER_SECOND))
}

/// Busy and stolen seconds of all processors in the text of `/proc/stat`.
fn machine_times(stat: &str) -> Option<(f64, f64)> {
    let line = stat.lines().find(|line| line.starts_with("cpu "))?;
    let ticks: Vec<f64> = line
        .split_whitespace()
        .skip(1)
        .map_while(|tick| tick.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal; guests are counted in user already.
    let &[user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = &ticks[..] else {
        return None;
    };
    let busy = user + nice + system + irq + softirq;
    Some((busy / TICKS_PER_SECOND, steal / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_read_past_a_name_with_spaces_and_brackets() {
        let stat = "12 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0";
        assert_eq!(process_times(stat), Some((2.5, 0.5)));
        assert_eq!(process_times("nothing"), None);
    }

    #[test]
    fn idle_time_is_not_busy_and_stolen_time_is_apart() {
        let stat = "cpu  100 100 100 9000 900 50 50 30 0 0\ncpu0 1 1 1 1\n";
        assert_eq!(machine_times(stat), Some((4.0, 0.3)));
        assert_eq!(machine_times("cpu 1 2"), None);
    }

    #[test]
    fn others_are_what_is_busy_without_us() {
        let at = Instant::now();
        let reading = |seconds: u64, process, gate, busy| Reading {
            at: at + Duration::from_secs(seconds),
            process,
            user: process,
            system: 0.0,
            gate: Some(gate),
            busy: Some(busy),
            stolen: 0.0,
        };
        let used = reading(10, 3.0, 2.0, 9.0).since(&reading(0, 1.0, 1.0, 1.0));
        let capacity = 10.0 * used.processors as f64;
        assert_eq!(used.others_share, Some(5.0 / capacity));
        assert_eq!((used.process_seconds, used.gate_seconds), (2.0, Some(1.0)));
    }

    #[test]
    fn this_process_has_used_something() {
        let before = Reading::now(None);
        let mut sum = 0u64;
        let began = thread_nanos();
        while thread_nanos() - began < 30_000_000 {
            sum = sum.wrapping_add(thread_nanos());
        }
        let used = Reading::now(None).since(&before);
        assert!(used.process_seconds >= 0.03, "{used:?} {sum}");
        assert!(peak_resident_bytes().is_some_and(|bytes| bytes > 1024 * 1024));
    }
}
