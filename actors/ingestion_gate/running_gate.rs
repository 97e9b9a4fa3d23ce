//! Starting a gate, and what its starter holds.

use super::gate_supervisor::{GateArgs, GateSupervisor, GateSupervisorMsg};
use super::handle::GateHandle;
use super::http_listener::{HttpListener, HttpListenerArgs};
use crate::runtime::failure::StageFailure;
use ractor::{Actor, ActorRef};
use tokio::sync::oneshot;

/// A running gate.
pub struct Gate {
    /// What senders use.
    pub handle: GateHandle,
    /// The supervisor, to stop it and to await its end.
    pub supervisor: ActorRef<GateSupervisorMsg>,
}

impl Gate {
    /// Starts the HTTP listener as a child of the gate.
    pub async fn spawn_listener(&self, args: HttpListenerArgs) -> Result<(), StageFailure> {
        Actor::spawn_linked(None, HttpListener, args, self.supervisor.get_cell()).await?;
        Ok(())
    }
}

/// Starts a gate below `parent`, or on its own.
pub async fn start_gate(
    args: impl FnOnce(oneshot::Sender<GateHandle>) -> GateArgs,
    parent: Option<ractor::ActorCell>,
) -> Result<Gate, StageFailure> {
    let (started, handle) = oneshot::channel();
    let args = args(started);
    let spawned = match parent {
        Some(parent) => Actor::spawn_linked(None, GateSupervisor, args, parent).await,
        None => Actor::spawn(None, GateSupervisor, args).await,
    };
    let (supervisor, _join) = spawned?;
    let handle = handle
        .await
        .map_err(|_| StageFailure::terminal("GATE_FAILED", "the gate ended while it started"))?;
    Ok(Gate { handle, supervisor })
}
