//! HTTP listener: keeps a server running as part of the tree.
//!
//! Durable: nothing. The server is given as a future; when it ends although nobody asked it to, the listener
//! fails and the gate with it, because a gate that cannot be reached must not look alive.

use crate::runtime::BoxFuture;
use crate::runtime::failure::StageFailure;
use crate::runtime::tree::{NodeState, TreeNode};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Makes the server; it runs until the receiver turns true and its open requests have finished.
pub type Serve = Box<dyn FnOnce(watch::Receiver<bool>) -> BoxFuture<'static, ()> + Send>;

/// Messages of the listener, sent by itself only.
pub enum HttpListenerMsg {
    /// The server has ended.
    Ended,
}

/// What the listener is started with.
pub struct HttpListenerArgs {
    /// The server.
    pub serve: Serve,
    /// Its place in the live tree.
    pub node: TreeNode,
}

/// State of the listener.
pub struct HttpListenerState {
    stop: watch::Sender<bool>,
    server: Option<JoinHandle<()>>,
    node: TreeNode,
}

/// The actor.
pub struct HttpListener;

impl Actor for HttpListener {
    type Msg = HttpListenerMsg;
    type State = HttpListenerState;
    type Arguments = HttpListenerArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        args: HttpListenerArgs,
    ) -> Result<Self::State, ActorProcessingErr> {
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn((args.serve)(stopped));
        let server = tokio::spawn(async move {
            // A panic is an end, too.
            let _ = serving.await;
            let _ = myself.cast(HttpListenerMsg::Ended);
        });
        args.node.set_state(NodeState::Running);
        Ok(HttpListenerState {
            stop,
            server: Some(server),
            node: args.node,
        })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            HttpListenerMsg::Ended if *state.stop.borrow() => Ok(()),
            HttpListenerMsg::Ended => {
                Err(StageFailure::terminal("HTTP_LISTENER_ENDED", "the HTTP server ended").into())
            }
        }
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<Self::Msg>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        state.stop.send_replace(true);
        if let Some(server) = state.server.take() {
            let _ = server.await;
        }
        state.node.set_state(NodeState::Stopped);
        Ok(())
    }
}
