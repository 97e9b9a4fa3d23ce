//! The live tree is the documented one: every kind of node, below the parents it may have.

use std::collections::BTreeSet;

use serde_json::Value;
use wellspring_actors::supervision_tree::NODE_KINDS;

use crate::support::Site;
use crate::support::daemon::Daemon;
use crate::support::gate_client::GateClient;

/// Kinds of a daemon's live tree; a kind or a place that is not documented fails.
fn documented_kinds(daemon: &Daemon) -> BTreeSet<String> {
    let tree = GateClient::new(&daemon.url).get("/v1/ops/tree").body;
    let nodes = tree["nodes"].as_array().expect("the tree has nodes");
    let text = |node: &Value, name: &str| node[name].as_str().unwrap().to_owned();
    let kind_at = |path: &str| {
        let node = nodes.iter().find(|node| text(node, "path") == path);
        node.map(|node| text(node, "kind"))
    };
    for node in nodes {
        let (path, kind) = (text(node, "path"), text(node, "kind"));
        let documented = NODE_KINDS.iter().find(|(name, _)| *name == kind);
        let (_, parents) = documented.unwrap_or_else(|| panic!("{path} is of kind {kind}"));
        match path.rsplit_once('/') {
            None => assert!(parents.is_empty(), "{path} has no parent"),
            Some((parent, _)) => {
                let parent = kind_at(parent).expect("a parent is in the tree");
                assert!(parents.contains(&parent.as_str()), "{path} below {parent}");
            }
        }
    }
    nodes.iter().map(|node| text(node, "kind")).collect()
}

#[test]
fn the_live_tree_of_gate_and_daemon_is_the_documented_one() {
    let site = Site::new();
    let alone = documented_kinds(&Daemon::gate(&site));
    site.new_run();
    let whole = documented_kinds(&Daemon::start(&site, &["up", "--port", "0"]));
    let gate = [
        "gate_supervisor",
        "admission_shard",
        "stage",
        "index_shard",
        "projector",
        "gate_reporter",
    ];
    for kind in gate.iter().chain(&["http_listener", "telemetry_exporter"]) {
        assert!(alone.contains(*kind) && whole.contains(*kind), "{kind}");
    }
    assert!(whole.contains("scenario_runner") && !alone.contains("scenario_runner"));
}
