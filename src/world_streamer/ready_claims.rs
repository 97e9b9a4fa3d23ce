//! Who streams a READY: a process on this machine, or a node among others (contract 6.2, W12).

use super::claims::{self, ClaimOutcome};
use super::run_lease::RunLease;
use std::sync::Arc;
use std::time::Duration;
use wellspring_domain::ports::{Leases, ObjectStore, StoreError};

/// What asking for a message came to.
pub enum ReadyClaim {
    /// This process has it; under a lease when nodes share backends.
    Ours(Option<Arc<RunLease>>),
    /// Another has it: who, in words.
    Held(String),
}

/// How a message is claimed.
#[derive(Clone)]
pub enum ReadyClaims {
    /// By claim files beside its record; holds while the process lives.
    Files,
    /// By a lease that other nodes see.
    Leases {
        /// Leases all nodes share.
        leases: Arc<dyn Leases>,
        /// This node.
        node: String,
        /// How long a lease lasts without a sign of life.
        lease: Duration,
    },
}

impl ReadyClaims {
    /// Asks for a message. `stem` is the key of its ready record without the ending.
    pub fn claim(
        &self,
        store: &dyn ObjectStore,
        message_id: &str,
        stem: &str,
        now_off: &str,
    ) -> Result<ReadyClaim, StoreError> {
        match self {
            ReadyClaims::Files => Ok(match claims::claim(store, stem, now_off)? {
                ClaimOutcome::Ours => ReadyClaim::Ours(None),
                ClaimOutcome::Held(holder) => {
                    ReadyClaim::Held(format!("process {} is streaming it", holder.pid))
                }
            }),
            ReadyClaims::Leases {
                leases,
                node,
                lease,
            } => {
                let key = format!("ready:{message_id}");
                let held = RunLease::acquire(leases.clone(), &key, node, *lease)?;
                Ok(match held {
                    Some(held) => ReadyClaim::Ours(Some(Arc::new(held))),
                    None => ReadyClaim::Held("another node is streaming it".to_owned()),
                })
            }
        }
    }
}
