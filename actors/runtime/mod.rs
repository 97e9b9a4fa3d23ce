//! Shared by all actors: credits, generations, slots, heartbeats, the live tree.

pub mod blocking;
pub mod credit;
#[cfg(test)]
mod credit_tests;
pub mod failure;
pub mod generation;
pub mod heartbeat;
pub mod pipeline;
pub mod restart_policy;
pub mod slot;
pub mod stage;
pub mod stage_metrics;
pub mod tree;

#[cfg(test)]
mod generation_tests;

pub use credit::{Credit, CreditGauges, CreditLimits, Credits};
pub use failure::{FailureKind, STAGE_COMPLETE, StageFailure};
pub use heartbeat::Heartbeat;
pub use pipeline::{PipelineEnd, PipelineHandle, PipelineSpec, spawn_pipeline};
pub use restart_policy::{Jitter, RestartPolicy, no_jitter, seeded_jitter};
pub use slot::{Slot, SlotReader};
pub use stage::{Generation, GenerationStart, Stage};
pub use stage_metrics::StageMetrics;
pub use tree::{NodeState, NodeView, TreeHandle, TreeNode, TreeSnapshot};

/// A boxed future, for factories and ports that are called through a pointer.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
