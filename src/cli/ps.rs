//! `wellspring ps`: the live supervision tree of a running Wellspring.

use super::ops_client::OpsClient;
use super::output::{Align, TableView, grouped, print_result};
use super::{CliContext, Outcome};
use crate::clock::SystemClock;
use anyhow::Context;
use std::time::Duration;
use wellspring_actors::runtime::{NodeState, NodeView, TreeSnapshot};
use wellspring_domain::ports::Clock;

const EXAMPLES: &str = "\
Examples:
  wellspring ps                    every actor: state, restarts, room, last error
  wellspring ps --failing          only actors that are not well
  wellspring ps --cluster          all nodes on shared backends, and which runs each streams
  wellspring --format json ps      the same tree as JSON

Room is what is in flight towards an actor out of its limit, in events; an actor whose room is full
holds back everything before it.";

/// Arguments of `wellspring ps`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct PsArgs {
    /// Only actors that failed, are backing off, or were restarted.
    #[arg(long)]
    failing: bool,
    /// Instead of this node's actors: every node on the same backends, and the leases it holds.
    #[arg(long, conflicts_with = "failing")]
    cluster: bool,
}

/// Runs the command.
pub fn run(args: PsArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    if args.cluster {
        return super::ps_cluster::run(ctx);
    }
    let client = OpsClient::new(ctx.settings()?)?;
    let answer = client.get("/v1/ops/tree")?;
    let mut tree: TreeSnapshot = serde_json::from_value(answer)
        .with_context(|| format!("{} answered with another kind of tree", client.base()))?;
    if args.failing {
        tree.nodes.retain(is_failing);
    }
    print_result(ctx.format, &tree, || {
        table_of(&tree, SystemClock::new().now().0)
    })?;
    Ok(Outcome::Ok)
}

fn is_failing(node: &NodeView) -> bool {
    matches!(node.state, NodeState::Failed | NodeState::BackingOff) || node.restarts > 0
}

fn table_of(tree: &TreeSnapshot, now_micros: i64) -> TableView {
    let mut table = TableView::new([
        ("ACTOR", Align::Left),
        ("KIND", Align::Left),
        ("STATE", Align::Left),
        ("FOR", Align::Right),
        ("RESTARTS", Align::Right),
        ("QUEUE", Align::Right),
        ("ROOM", Align::Right),
        ("LAST ERROR", Align::Left),
    ]);
    for node in &tree.nodes {
        let room = node.credits.map_or(String::new(), |credits| {
            format!(
                "{}/{}",
                grouped(credits.events_in_use.into()),
                grouped(credits.events_limit.into())
            )
        });
        table.row([
            indented(&node.path),
            node.kind.clone(),
            node.state.as_str().to_string(),
            age(now_micros - node.since_micros),
            node.restarts.to_string(),
            node.queue_depth.map_or(String::new(), grouped),
            room,
            node.last_error.clone().unwrap_or_default(),
        ]);
    }
    table
}

/// The last part of the path, set in by its depth.
fn indented(path: &str) -> String {
    let depth = path.matches('/').count();
    let name = path.rsplit('/').next().unwrap_or(path);
    format!("{}{name}", "  ".repeat(depth))
}

fn age(micros: i64) -> String {
    let seconds = micros.max(0) as u64 / 1_000_000;
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(path: &str, state: NodeState, restarts: u64) -> NodeView {
        NodeView {
            path: path.to_string(),
            kind: "pipeline".to_string(),
            state,
            generation: restarts + 1,
            restarts,
            queue_depth: None,
            credits: None,
            last_error: None,
            since_micros: 0,
        }
    }

    #[test]
    fn the_table_shows_the_tree_set_in_by_depth() {
        let nodes = vec![
            node("gate", NodeState::Running, 0),
            node("gate/shard 0", NodeState::BackingOff, 2),
        ];
        let tree = TreeSnapshot {
            taken_at_micros: 0,
            nodes,
        };
        let text = table_of(&tree, 61_000_000).render();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("gate "), "{text}");
        assert!(lines[2].starts_with("  shard 0 "), "{text}");
        assert!(
            lines[2].contains("backing_off") && lines[2].contains("1m 1s"),
            "{text}"
        );
    }

    #[test]
    fn failing_actors_are_those_that_failed_back_off_or_were_restarted() {
        assert!(!is_failing(&node("a", NodeState::Running, 0)));
        assert!(is_failing(&node("a", NodeState::Running, 1)));
        assert!(is_failing(&node("a", NodeState::Failed, 0)));
        assert!(is_failing(&node("a", NodeState::BackingOff, 0)));
    }
}
