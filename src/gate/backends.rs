//! Opens what the gate's state lies on: folders of this machine, or backends that nodes share.

use super::assembly::{GateStartError, receipts_layout};
use super::managed;
use super::managed::assembly::{ManagedParts, ManagedProbe};
use super::managed::store::ManagedGateStore;
use super::managed::substrate::Substrate;
use super::projections;
use crate::event_bus::embedded_log::{EmbeddedGateStore, LogOptions, PartitionCounts};
use crate::settings::{GateBackend, Settings};
use crate::state_store::embedded::index::IndexMemoryCap;
use std::sync::Arc;
use wellspring_actors::ingestion_gate::projector::NamedProjections;
use wellspring_actors::runtime::StageFailure;
use wellspring_domain::admission::policy::AdmissionPolicy;
use wellspring_domain::ports::{Clock, GateStore, ObjectStore};

/// What the gate's state lies on, opened.
pub(super) struct GateBackends {
    /// Opens runs.
    pub(super) store: Arc<dyn GateStore>,
    /// Projections the gate keeps up to date.
    pub(super) projections: NamedProjections,
    /// Shared backends, when there are any.
    pub(super) substrate: Option<Substrate>,
    /// Asks them whether they are there.
    pub(super) probe: Option<ManagedProbe>,
}

impl GateBackends {
    pub(super) fn open(
        settings: &Settings,
        policy: &AdmissionPolicy,
        objects: &Arc<dyn ObjectStore>,
        clock: &Arc<dyn Clock>,
    ) -> Result<GateBackends, GateStartError> {
        let layout = receipts_layout(settings);
        let GateBackend::Managed { dsn } = settings.gate_backend()? else {
            let projections = projections::standard(objects.clone(), settings.runs_root(), layout);
            return Ok(GateBackends {
                store: Arc::new(embedded_store(settings, policy)),
                projections,
                substrate: None,
                probe: None,
            });
        };
        let substrate = managed::assembly::connect(ManagedParts {
            settings,
            dsn,
            objects: objects.clone(),
            layout,
            topics: policy.topics().iter().map(ToString::to_string).collect(),
            clock,
        })?;
        let client = managed::assembly::kinesis_client(settings)?;
        let threads =
            |cause: std::io::Error| StageFailure::terminal("THREAD_NOT_STARTED", cause.to_string());
        substrate.spawn_reconciliation().map_err(threads)?;
        let store = ManagedGateStore::start(substrate.clone(), clock.clone()).map_err(threads)?;
        Ok(GateBackends {
            store: Arc::new(store),
            // Objects are written by the commit itself.
            projections: Vec::new(),
            probe: Some(ManagedProbe::new(&substrate, client)),
            substrate: Some(substrate),
        })
    }
}

fn embedded_store(settings: &Settings, policy: &AdmissionPolicy) -> EmbeddedGateStore {
    let (bus, gate) = (&settings.wiring.event_bus, &settings.wiring.gate);
    let by_topic = policy
        .topics()
        .iter()
        .map(|topic| (topic.to_string(), bus.partitions_of(topic)))
        .collect();
    let options = LogOptions {
        partitions: PartitionCounts {
            by_topic,
            default: bus.partitions_default,
        },
        cached_bytes: bus.cached_bytes,
        index_memory: IndexMemoryCap {
            bytes: gate.index_memory_bytes_max as usize,
            shards_max: gate.open_index_shards_max(),
        },
        ..LogOptions::default()
    };
    EmbeddedGateStore::in_folder(settings.local_root(), options)
}
