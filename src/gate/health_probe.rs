//! Probes the gate's health in the background; pushes read the last answer (contract 7.10).

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use wellspring_domain::admission::health::{Health, HealthReason};
use wellspring_domain::ports::{Clock, GateStore, ObjectStore};

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
}

impl HealthProbe {
    /// Looks once. Blocks.
    pub fn look(&self) -> Health {
        let mut reasons = Vec::new();
        let content = format!("{{\"ts\":\"{}\"}}\n", self.clock.now().format_off());
        if let Err(error) = self.objects.put(&self.probe_key, content.as_bytes()) {
            tracing::warn!(code = error.code(), %error, "health probe cannot write");
            reasons.push(HealthReason::ObjectStoreUnhealthy);
        }
        match self.gate_store.free_bytes() {
            Ok(free) if free < self.min_free_bytes => reasons.push(HealthReason::DiskSpaceLow),
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(code = error.code(), %error, "free space cannot be read");
                reasons.push(HealthReason::StoreReadUnhealthy);
            }
        }
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
        let pause = interval.min(Duration::from_secs(1));
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
