//! Starting the children of the gate supervisor.

use super::admission_shard::AdmissionShardMsg;
use super::gate_supervisor::{GateArgs, GateSupervisorMsg};
use super::index_shard::{IndexShard, IndexShardMsg};
use super::messages::RunKey;
use super::projector::{Projector, ProjectorArgs, ProjectorMsg};
use super::shard_generation::{ShardParts, shard_generations};
use super::summary::{GateTally, spawn_reporter};
use crate::runtime::failure::StageFailure;
use crate::runtime::pipeline::{PipelineHandle, PipelineSpec, spawn_pipeline};
use crate::runtime::restart_policy::seeded_jitter;
use crate::runtime::tree::NodeState;
use ractor::{Actor, ActorRef};
use std::sync::Arc;
use tokio::sync::watch;

type ShardRef = ActorRef<AdmissionShardMsg>;

pub(super) async fn start_tally(
    myself: &ActorRef<GateSupervisorMsg>,
    args: &GateArgs,
) -> Result<Arc<GateTally>, StageFailure> {
    spawn_reporter(
        myself.get_cell(),
        args.parts.reporting.clone(),
        args.parts.policy.policy_rev.clone(),
        args.clock.clone(),
        &args.node,
    )
    .await
}

pub(super) async fn spawn_index(
    myself: &ActorRef<GateSupervisorMsg>,
    args: &GateArgs,
) -> Result<Vec<ActorRef<IndexShardMsg>>, StageFailure> {
    let mut index = Vec::new();
    for number in 0..args.layout.index_shards {
        let (shard, _join) =
            Actor::spawn_linked(None, IndexShard, number, myself.get_cell()).await?;
        args.node
            .child(&format!("index shard {number}"), "index_shard")
            .set_state(NodeState::Running);
        index.push(shard);
    }
    Ok(index)
}

pub(super) async fn spawn_shard(
    myself: &ActorRef<GateSupervisorMsg>,
    args: &GateArgs,
    parts: ShardParts,
) -> Result<PipelineHandle<ShardRef>, StageFailure> {
    let shard = parts.shard;
    let spec = PipelineSpec {
        node: args
            .node
            .child(&format!("admission shard {shard}"), "admission_shard"),
        policy: args.policy.clone(),
        jitter: seeded_jitter(args.jitter_seed.wrapping_add(u64::from(shard))),
        factory: shard_generations(parts),
    };
    let handle = spawn_pipeline(spec, Some(myself.get_cell())).await?;
    let (ended, supervisor) = (handle.clone(), myself.clone());
    tokio::spawn(async move {
        let end = ended.ended().await;
        let _ = supervisor.cast(GateSupervisorMsg::ShardEnded { shard, end });
    });
    Ok(handle)
}

pub(super) async fn spawn_projectors(
    myself: &ActorRef<GateSupervisorMsg>,
    args: &GateArgs,
    open_runs: watch::Receiver<Arc<Vec<RunKey>>>,
) -> Result<Vec<ActorRef<ProjectorMsg>>, StageFailure> {
    let mut projectors = Vec::new();
    for (name, projection) in &args.projections {
        let projector = ProjectorArgs {
            projection: projection.clone(),
            open_runs: open_runs.clone(),
            interval: args.projection_interval,
            node: args.node.child(&format!("projector {name}"), "projector"),
        };
        let (projector, _join) =
            Actor::spawn_linked(None, Projector, projector, myself.get_cell()).await?;
        projectors.push(projector);
    }
    Ok(projectors)
}
