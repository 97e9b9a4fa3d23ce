//! The live tree: what every actor is doing, for `GET /v1/ops/tree` and `wellspring ps`.
//!
//! No process-global state: the daemon makes one [`TreeHandle`] and hands nodes down. Paths are
//! `/`-separated, so a snapshot sorted by path is the tree in order.

use super::credit::{CreditGauges, Credits};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Reads the wall clock in microseconds since the epoch.
pub type NowMicros = Arc<dyn Fn() -> i64 + Send + Sync>;

/// What an actor is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// A generation is being started (recovery included).
    Starting,
    /// At work, or waiting for work.
    Running,
    /// Held by an operator.
    Paused,
    /// Failed; the next generation starts after a delay.
    BackingOff,
    /// Working off what it holds before it stops.
    Draining,
    /// Did all its work.
    Completed,
    /// Stopped in order.
    Stopped,
    /// Gave up.
    Failed,
}

impl NodeState {
    /// The state as shown to people.
    pub fn as_str(self) -> &'static str {
        match self {
            NodeState::Starting => "starting",
            NodeState::Running => "running",
            NodeState::Paused => "paused",
            NodeState::BackingOff => "backing_off",
            NodeState::Draining => "draining",
            NodeState::Completed => "completed",
            NodeState::Stopped => "stopped",
            NodeState::Failed => "failed",
        }
    }
}

/// One actor in a snapshot of the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// Where it is, from the root: `gate/shard 0/journal`.
    pub path: String,
    /// What it is: `supervisor`, `pipeline`, `stage`, ...
    pub kind: String,
    /// What it is doing.
    pub state: NodeState,
    /// Which generation is running, counted from 1; 0 before the first.
    pub generation: u64,
    /// How often it was started again after a failure.
    pub restarts: u64,
    /// Messages waiting, where the actor counts them.
    pub queue_depth: Option<u64>,
    /// Room in front of it, where it has any.
    pub credits: Option<CreditGauges>,
    /// The last failure, `CODE: sentence`.
    pub last_error: Option<String>,
    /// When the state was entered, microseconds since the epoch.
    pub since_micros: i64,
}

/// The whole tree as `GET /v1/ops/tree` answers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeSnapshot {
    /// When it was taken, microseconds since the epoch.
    pub taken_at_micros: i64,
    /// Every actor, in path order.
    pub nodes: Vec<NodeView>,
}

/// The live tree. Clones share it.
#[derive(Clone)]
pub struct TreeHandle {
    tree: Arc<Tree>,
}

struct Tree {
    now: NowMicros,
    nodes: Mutex<BTreeMap<String, Entry>>,
}

struct Entry {
    view: NodeView,
    credits: Option<Credits>,
    queue_depth: Option<Arc<AtomicU64>>,
}

/// One actor's place in the tree. Clones are the same place.
#[derive(Clone)]
pub struct TreeNode {
    tree: TreeHandle,
    path: Arc<str>,
}

impl TreeHandle {
    /// An empty tree.
    pub fn new(now: NowMicros) -> Self {
        let tree = Tree {
            now,
            nodes: Mutex::new(BTreeMap::new()),
        };
        TreeHandle {
            tree: Arc::new(tree),
        }
    }

    /// A place directly under the root. A place that exists is taken over as it is.
    pub fn node(&self, name: &str, kind: &str) -> TreeNode {
        self.at(name.to_string(), kind)
    }

    /// Every actor, in path order.
    pub fn snapshot(&self) -> Vec<NodeView> {
        self.nodes().values().map(Entry::view_now).collect()
    }

    /// Every actor and when it was looked at.
    pub fn answer(&self) -> TreeSnapshot {
        TreeSnapshot {
            taken_at_micros: (self.tree.now)(),
            nodes: self.snapshot(),
        }
    }

    fn at(&self, path: String, kind: &str) -> TreeNode {
        let since_micros = (self.tree.now)();
        self.nodes().entry(path.clone()).or_insert_with(|| Entry {
            view: NodeView {
                path: path.clone(),
                kind: kind.to_string(),
                state: NodeState::Starting,
                generation: 0,
                restarts: 0,
                queue_depth: None,
                credits: None,
                last_error: None,
                since_micros,
            },
            credits: None,
            queue_depth: None,
        });
        TreeNode {
            tree: self.clone(),
            path: path.into(),
        }
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        // Every update is one assignment, so a panic elsewhere cannot leave it half done.
        self.tree
            .nodes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl TreeNode {
    /// A place under this one.
    pub fn child(&self, name: &str, kind: &str) -> TreeNode {
        self.tree.at(format!("{}/{name}", self.path), kind)
    }

    /// Where it is, from the root.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Enters a state.
    pub fn set_state(&self, state: NodeState) {
        let now = (self.tree.tree.now)();
        self.update(|entry| {
            if entry.view.state != state {
                entry.view.state = state;
                entry.view.since_micros = now;
            }
        });
    }

    /// A generation started; all but the first are restarts.
    pub fn set_generation(&self, generation: u64) {
        self.update(|entry| {
            entry.view.generation = generation;
            entry.view.restarts = generation.saturating_sub(1);
        });
    }

    /// Remembers the last failure, `CODE: sentence`.
    pub fn set_last_error(&self, error: impl Into<String>) {
        let error = error.into();
        self.update(|entry| entry.view.last_error = Some(error));
    }

    /// Shows the room in front of the actor from now on.
    pub fn show_credits(&self, credits: Credits) {
        self.update(|entry| entry.credits = Some(credits));
    }

    /// Shows how many messages wait, counted by the actor itself.
    pub fn show_queue_depth(&self, depth: Arc<AtomicU64>) {
        self.update(|entry| entry.queue_depth = Some(depth));
    }

    /// Takes this place and everything under it out of the tree.
    pub fn remove(&self) {
        let below = format!("{}/", self.path);
        self.tree
            .nodes()
            .retain(|path, _| **path != *self.path && !path.starts_with(&below));
    }

    fn update(&self, change: impl FnOnce(&mut Entry)) {
        // A place that was removed stays removed.
        if let Some(entry) = self.tree.nodes().get_mut(&*self.path) {
            change(entry);
        }
    }
}

impl Entry {
    fn view_now(&self) -> NodeView {
        let mut view = self.view.clone();
        view.credits = self.credits.as_ref().map(Credits::gauges);
        view.queue_depth = self
            .queue_depth
            .as_ref()
            .map(|depth| depth.load(Ordering::Relaxed));
        view
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::CreditLimits;

    fn tree_at(now: &Arc<AtomicU64>) -> TreeHandle {
        let now = now.clone();
        TreeHandle::new(Arc::new(move || now.load(Ordering::Relaxed) as i64))
    }

    #[test]
    fn a_snapshot_is_the_tree_in_order_with_live_gauges() {
        let now = Arc::new(AtomicU64::new(5));
        let tree = tree_at(&now);
        let gate = tree.node("gate", "supervisor");
        let shard = gate.child("shard 0", "pipeline");
        let credits = Credits::new(CreditLimits {
            events_max: 10,
            bytes_max: 100,
        });
        shard.show_credits(credits.clone());
        let _held = credits.try_take(3, 30).unwrap();
        now.store(9, Ordering::Relaxed);
        shard.set_state(NodeState::Running);
        let views = tree.snapshot();
        let paths: Vec<_> = views.iter().map(|view| view.path.as_str()).collect();
        assert_eq!(paths, ["gate", "gate/shard 0"]);
        assert_eq!(views[1].credits.unwrap().events_in_use, 3);
        assert_eq!((views[0].since_micros, views[1].since_micros), (5, 9));
    }

    #[test]
    fn removing_a_place_removes_everything_under_it_and_nothing_beside_it() {
        let tree = tree_at(&Arc::new(AtomicU64::new(0)));
        let run = tree.node("run", "supervisor");
        let output = run.child("output", "pipeline");
        tree.node("run 2", "supervisor");
        run.remove();
        output.set_state(NodeState::Failed);
        let paths: Vec<_> = tree.snapshot().into_iter().map(|view| view.path).collect();
        assert_eq!(paths, ["run 2"]);
    }

    #[test]
    fn a_view_reads_back_from_its_json() {
        let tree = tree_at(&Arc::new(AtomicU64::new(7)));
        let node = tree.node("gate", "supervisor");
        node.set_generation(3);
        node.set_last_error("STAGE_FAILED: boom");
        let text = serde_json::to_string(&tree.snapshot()).unwrap();
        let read: Vec<NodeView> = serde_json::from_str(&text).unwrap();
        assert_eq!(read, tree.snapshot());
        assert_eq!((read[0].generation, read[0].restarts), (3, 2));
    }
}
