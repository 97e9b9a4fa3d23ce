//! What a generation is made of: its stages, and how a factory hands them over.

use super::credit::Credits;
use super::heartbeat::Heartbeat;
use super::tree::TreeNode;
use ractor::ActorCell;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// What a factory gets to start one generation.
pub struct GenerationStart {
    /// Spawn every stage linked to this.
    pub supervisor: ActorCell,
    /// Counted from 1.
    pub number: u64,
    /// The pipeline's place in the live tree.
    pub node: TreeNode,
}

/// One running generation.
pub struct Generation<E> {
    /// What callers use; published in the slot.
    pub entry: E,
    /// The stages, source first: the order of an orderly stop.
    pub stages: Vec<Stage>,
}

/// One stage as its supervisor sees it.
pub struct Stage {
    pub(super) name: String,
    pub(super) cell: ActorCell,
    pub(super) heartbeat: Option<Heartbeat>,
    pub(super) credits: Option<Credits>,
    pub(super) queue_depth: Option<Arc<AtomicU64>>,
}

impl Stage {
    /// A stage under its name in the live tree.
    pub fn new(name: impl Into<String>, cell: ActorCell) -> Self {
        Stage {
            name: name.into(),
            cell,
            heartbeat: None,
            credits: None,
            queue_depth: None,
        }
    }

    /// Supervises its heartbeat.
    pub fn with_heartbeat(mut self, heartbeat: Heartbeat) -> Self {
        self.heartbeat = Some(heartbeat);
        self
    }

    /// Shows the room in front of it in the live tree.
    pub fn with_credits(mut self, credits: Credits) -> Self {
        self.credits = Some(credits);
        self
    }

    /// Shows how many messages wait in the live tree.
    pub fn with_queue_depth(mut self, depth: Arc<AtomicU64>) -> Self {
        self.queue_depth = Some(depth);
        self
    }
}
