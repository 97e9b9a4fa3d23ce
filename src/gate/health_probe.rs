//! Probes the gate's health in the background; pushes read the last answer (contract 7.10).

use super::managed::assembly::ManagedProbe;
use crate::settings::Settings;
use crate::settings::backends::BusKind;
use crate::settings::wiring::BusProbeMode;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use wellspring_domain::admission::bus_failures::BusFailures;
use wellspring_domain::admission::health::{Health, HealthReason};
use wellspring_domain::ports::{Clock, GateStore, ObjectStore, StoreError};
use wellspring_domain::run_paths::{PlatformRunId, platform_prefix};

/// Longest pause between looks at shared backends: each look is a request to every one of them.
const MANAGED_PAUSE_MAX: Duration = Duration::from_secs(5);

/// What is probed.
#[derive(Clone)]
pub struct HealthProbe {
    /// Objects: a small write shows that the store takes them.
    pub objects: Arc<dyn ObjectStore>,
    /// Durable state of the gate: free space.
    pub gate_store: Arc<dyn GateStore>,
    /// Key of the probe object.
    pub probe_key: String,
    /// Free bytes below which nothing is admitted.
    pub min_free_bytes: u64,
    /// Time for the probe's content.
    pub clock: Arc<dyn Clock>,
    /// The bus.
    pub bus: BusHealth,
    /// Reads that failed in a row.
    pub reads: ReadFailures,
    /// Shared backends, when the gate has them.
    pub managed: Option<ManagedProbe>,
}

/// How the bus is judged (contract 7.10).
#[derive(Clone)]
pub struct BusHealth {
    /// Commits that failed in a row, as the gate counts them.
    pub failures: BusFailures,
    /// So many are RED.
    pub failure_threshold: u64,
    /// Time without a failure after which publishing is tried again.
    pub retry_after: Duration,
    /// Whether, and how, the bus is asked.
    pub described: DescribedBus,
}

/// What `describe` looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DescribedBus {
    /// The mode is `none`: only failures count.
    NotAsked,
    /// A bus of files: its root must be there, or be creatable.
    Folder(PathBuf),
    /// Streams: each must be there.
    Streams,
    /// A kind of bus this probe cannot ask.
    Unknown,
}

/// Reads of the store that failed in a row. Clones share the count.
#[derive(Clone)]
pub struct ReadFailures {
    threshold: u64,
    in_a_row: Arc<AtomicU64>,
}

impl ReadFailures {
    /// Unhealthy from `threshold` failures on.
    pub fn new(threshold: u64) -> ReadFailures {
        ReadFailures {
            threshold,
            in_a_row: Arc::default(),
        }
    }

    fn succeeded(&self) {
        self.in_a_row.store(0, Ordering::Relaxed);
    }

    /// Counts a failure; true when there are too many.
    fn failed(&self) -> bool {
        self.in_a_row.fetch_add(1, Ordering::Relaxed) + 1 >= self.threshold
    }
}

impl BusHealth {
    /// What is wrong with the bus. Blocks.
    fn look(&self, clock: &dyn Clock) -> Option<HealthReason> {
        let retry = i64::try_from(self.retry_after.as_micros()).unwrap_or(i64::MAX);
        if self
            .failures
            .unhealthy(self.failure_threshold, clock.now(), retry)
        {
            return Some(HealthReason::BusUnhealthy);
        }
        match &self.described {
            DescribedBus::NotAsked | DescribedBus::Streams => None,
            DescribedBus::Unknown => Some(HealthReason::BusHealthUnknown),
            DescribedBus::Folder(root) => std::fs::create_dir_all(root).err().map(|error| {
                tracing::warn!(%error, "the root of the bus cannot be made");
                HealthReason::BusUnhealthy
            }),
        }
    }
}

fn described_bus(settings: &Settings, own_run: Option<&PlatformRunId>) -> DescribedBus {
    let local_root = settings.local_root();
    match (
        settings.wiring.health.bus_probe_mode,
        settings.wiring.event_bus.kind,
        own_run,
    ) {
        (BusProbeMode::None, _, _) => DescribedBus::NotAsked,
        (_, BusKind::File, Some(run)) => {
            DescribedBus::Folder(settings.local_paths(run).eb().into())
        }
        // A gate without a run of its own has one bus per run, all below this folder.
        (_, BusKind::File, None) => {
            DescribedBus::Folder(PathBuf::from(local_root).join(platform_prefix(local_root)))
        }
        (_, BusKind::Kinesis, _) => DescribedBus::Streams,
        (_, BusKind::Kafka, _) => DescribedBus::Unknown,
    }
}

impl HealthProbe {
    /// The probe the settings describe, for the run the gate is started for.
    pub fn of(
        settings: &Settings,
        own_run: Option<&PlatformRunId>,
        objects: Arc<dyn ObjectStore>,
        gate_store: Arc<dyn GateStore>,
        clock: Arc<dyn Clock>,
        failures: BusFailures,
    ) -> HealthProbe {
        let prefix = platform_prefix(settings.runs_root());
        let folder = match own_run {
            Some(run) => format!("{prefix}{run}"),
            None => prefix.trim_end_matches('/').to_owned(),
        };
        let health = &settings.wiring.health;
        HealthProbe {
            objects,
            gate_store,
            probe_key: format!("{folder}/ig/health/last_probe.json")
                .trim_start_matches('/')
                .to_owned(),
            min_free_bytes: settings.wiring.gate.min_free_bytes,
            clock,
            bus: BusHealth {
                failures,
                failure_threshold: health.bus_publish_failure_threshold,
                retry_after: Duration::from_secs(health.probe_interval_seconds.max(1)),
                described: described_bus(settings, own_run),
            },
            reads: ReadFailures::new(settings.wiring.security.store_read_failure_threshold),
            managed: None,
        }
    }

    /// The same probe, looking at shared backends too.
    pub fn with_managed(self, managed: Option<ManagedProbe>) -> HealthProbe {
        HealthProbe { managed, ..self }
    }

    fn look_at_managed(&self, managed: &ManagedProbe, reasons: &mut Vec<HealthReason>) {
        let mut unhealthy = |looked: Result<(), StoreError>, reason| {
            if let Err(error) = looked {
                tracing::warn!(code = error.code(), %error, "a shared backend does not answer");
                reasons.push(reason);
            }
        };
        unhealthy(managed.database(), HealthReason::OpsDbUnhealthy);
        if self.bus.described == DescribedBus::Streams {
            unhealthy(managed.bus(), HealthReason::BusUnhealthy);
        }
    }

    /// Looks once. Blocks.
    pub fn look(&self) -> Health {
        let mut reasons = Vec::new();
        let content = format!("{{\"ts\":\"{}\"}}\n", self.clock.now().format_off());
        if let Err(error) = self.objects.put(&self.probe_key, content.as_bytes()) {
            tracing::warn!(code = error.code(), %error, "health probe cannot write");
            reasons.push(HealthReason::ObjectStoreUnhealthy);
        }
        match self.gate_store.free_bytes() {
            Ok(free) => {
                self.reads.succeeded();
                if free < self.min_free_bytes {
                    reasons.push(HealthReason::DiskSpaceLow);
                }
            }
            Err(error) => {
                tracing::warn!(code = error.code(), %error, "free space cannot be read");
                if self.reads.failed() {
                    reasons.push(HealthReason::StoreReadUnhealthy);
                }
            }
        }
        if let Some(managed) = &self.managed {
            self.look_at_managed(managed, &mut reasons);
        }
        reasons.extend(self.bus.look(self.clock.as_ref()));
        Health::from_reasons(reasons)
    }

    /// Probes every `interval` until the receiver's last clone is gone. Free space is looked at at least
    /// every second: a disk fills faster than stores fail.
    pub fn spawn(
        self,
        interval: Duration,
        first: Health,
    ) -> (watch::Sender<Health>, watch::Receiver<Health>) {
        let (sender, receiver) = watch::channel(first);
        let updates = sender.clone();
        let most = match self.managed {
            Some(_) => MANAGED_PAUSE_MAX,
            None => Duration::from_secs(1),
        };
        let pause = interval.min(most);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(pause).await;
                let probe = self.clone();
                let Ok(health) = tokio::task::spawn_blocking(move || probe.look()).await else {
                    continue;
                };
                // One step: a drain that begins now must not be overwritten.
                let kept = updates.send_if_modified(|told| {
                    let draining = told.reasons.contains(&HealthReason::Draining);
                    if !draining {
                        *told = health;
                    }
                    !draining
                });
                if updates.is_closed() || !kept {
                    return;
                }
            }
        });
        (sender, receiver)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    fn bus(described: DescribedBus) -> BusHealth {
        BusHealth {
            failures: BusFailures::default(),
            failure_threshold: 2,
            retry_after: Duration::from_secs(3600),
            described,
        }
    }

    #[test]
    fn the_bus_is_unhealthy_after_failures_in_a_row_in_any_mode() {
        let clock = SystemClock::new();
        let bus = bus(DescribedBus::NotAsked);
        bus.failures.failed(clock.now());
        assert_eq!(bus.look(&clock), None);
        bus.failures.failed(clock.now());
        assert_eq!(bus.look(&clock), Some(HealthReason::BusUnhealthy));
        bus.failures.succeeded();
        assert_eq!(bus.look(&clock), None);
    }

    #[test]
    fn describing_a_bus_of_files_makes_its_root_or_is_red() {
        let clock = SystemClock::new();
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("run/eb");
        assert_eq!(bus(DescribedBus::Folder(root.clone())).look(&clock), None);
        assert!(root.is_dir());
        let file = folder.path().join("file");
        std::fs::write(&file, b"").unwrap();
        assert_eq!(
            bus(DescribedBus::Folder(file.join("eb"))).look(&clock),
            Some(HealthReason::BusUnhealthy)
        );
    }

    #[test]
    fn a_bus_nobody_can_ask_is_unknown() {
        assert_eq!(
            bus(DescribedBus::Unknown).look(&SystemClock::new()),
            Some(HealthReason::BusHealthUnknown)
        );
    }

    #[test]
    fn reads_count_in_a_row() {
        let reads = ReadFailures::new(2);
        assert!(!reads.failed());
        reads.succeeded();
        assert!(!reads.failed());
        assert!(reads.failed());
    }
}
