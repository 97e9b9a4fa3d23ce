//! Wall time, CPU seconds of this process, and what other processes took meanwhile.

use wellspring::machine::Reading;

/// Kernel ticks of CPU time a second.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a piece of work cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Seconds on the wall.
    pub wall: f64,
    /// CPU seconds of the work.
    pub cpu: f64,
    /// CPU seconds of processes that have nothing to do with it.
    pub other: f64,
}

impl Cost {
    /// The share of the machine that others took, 0 to 1.
    pub fn other_share(&self) -> f64 {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        self.other / (self.wall * processors as f64).max(1e-9)
    }
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, more: Cost) {
        self.wall += more.wall;
        self.cpu += more.cpu;
        self.other += more.other;
    }
}

/// Adds up the parts of a contender's work that count. Setting up and tearing down do not.
#[derive(Default)]
pub struct Watch {
    total: Cost,
    begun: Option<Reading>,
    latency_ms: Option<(f64, f64)>,
}

impl Watch {
    /// Measures a piece of work.
    pub fn measure<T>(&mut self, work: impl FnOnce() -> T) -> T {
        self.begin();
        let result = work();
        self.end();
        result
    }

    /// Starts to measure.
    pub fn begin(&mut self) {
        self.begun = Some(Reading::now(None));
    }

    /// Stops, and gives what was measured since the beginning.
    pub fn end(&mut self) -> Cost {
        let begun = self.begun.take().expect("a measurement that was begun");
        let used = Reading::now(None).since(&begun);
        let capacity = used.wall_seconds * used.processors as f64;
        let cost = Cost {
            wall: used.wall_seconds,
            cpu: used.process_seconds,
            other: used.others_share.unwrap_or(0.0) * capacity,
        };
        self.total += cost;
        cost
    }

    /// Adds what another process measured of itself.
    pub fn add(&mut self, cost: Cost) {
        self.total += cost;
    }

    /// Keeps the latency of the work, p50 and p99 in milliseconds.
    pub fn note_latency(&mut self, p50: f64, p99: f64) {
        self.latency_ms = Some((p50, p99));
    }

    /// The latency, when one was noted.
    pub fn latency_ms(&self) -> Option<(f64, f64)> {
        self.latency_ms
    }

    /// Everything measured.
    pub fn total(&self) -> Cost {
        self.total
    }
}

/// CPU seconds of the children that have ended.
pub fn children_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = behind_name.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok());
    (ticks(13).unwrap_or_default() + ticks(14).unwrap_or_default()) / TICKS_PER_SECOND
}
