//! Tells the other nodes that this one lives.

use crate::settings::Settings;
use crate::state_store::postgres::nodes::{NodeIdentity, NodeRegistry};
use crate::state_store::postgres::{Database, DatabaseSettings};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use wellspring_domain::ports::StoreError;

/// Nodes that were silent for so many leases are forgotten.
const FORGOTTEN_AFTER_LEASES: u32 = 360;

/// Signs of life until it is dropped; then the node leaves.
pub struct NodeBeat {
    running: Option<(Sender<()>, JoinHandle<()>)>,
}

impl NodeBeat {
    /// Starts telling, when the backends are shared. `url` is where this node's operations API is.
    pub fn start(settings: &Settings, url: String) -> Result<Option<NodeBeat>, StoreError> {
        let Some(dsn) = settings.coordination_dsn() else {
            return Ok(None);
        };
        let registry = NodeRegistry::new(Database::open(dsn, DatabaseSettings::default())?);
        let cluster = &settings.wiring.cluster;
        let lease = cluster.lease();
        let identity = NodeIdentity {
            node: cluster.node(),
            host: crate::settings::managed::host_name(),
            pid: std::process::id(),
            url: Some(url),
            build: env!("CARGO_PKG_VERSION").to_owned(),
        };
        registry.beat(&identity)?;
        registry.forget(lease * FORGOTTEN_AFTER_LEASES)?;
        let (ends, ended) = channel::<()>();
        let pause = (lease / 3).max(Duration::from_millis(100));
        let thread = std::thread::Builder::new()
            .name("node-beat".to_owned())
            .spawn(move || {
                while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                    if let Err(error) = registry.beat(&identity) {
                        tracing::warn!(%error, "other nodes were not told that this one lives");
                    }
                }
                // A node that cannot say goodbye is forgotten later.
                let _ = registry.leave(&identity.node);
            })
            .map_err(|error| StoreError::Unavailable {
                operation: "beat_node",
                key: "node".to_owned(),
                cause: error.to_string(),
            })?;
        Ok(Some(NodeBeat {
            running: Some((ends, thread)),
        }))
    }
}

impl Drop for NodeBeat {
    fn drop(&mut self) {
        if let Some((ends, thread)) = self.running.take() {
            drop(ends);
            let _ = thread.join();
        }
    }
}
