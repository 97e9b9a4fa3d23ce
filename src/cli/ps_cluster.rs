//! `wellspring ps --cluster`: the nodes that share the backends, and what each of them holds.

use super::failure::Failure;
use super::output::{Align, TableView, print_result};
use super::{CliContext, Outcome};
use crate::state_store::postgres::leases::{LeaseInfo, PostgresLeases};
use crate::state_store::postgres::nodes::{NodeInfo, NodeRegistry};
use crate::state_store::postgres::{Database, DatabaseSettings};
use serde::Serialize;
use wellspring_domain::ports::StoreError;

/// A node as it is shown.
#[derive(Serialize)]
struct NodeView {
    node: String,
    host: String,
    pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    build: String,
    started_at_utc: String,
    /// Seconds since its last sign of life.
    silent_seconds: f64,
    /// Leases it holds now.
    holds: Vec<LeaseView>,
}

/// A lease as it is shown.
#[derive(Serialize)]
struct LeaseView {
    key: String,
    epoch: u64,
    expires_at_utc: String,
}

#[derive(Serialize)]
struct Cluster {
    nodes: Vec<NodeView>,
    /// Leases whose owner is no node any more; they end by themselves.
    orphaned: Vec<LeaseView>,
}

/// Prints who owns what.
pub fn run(ctx: &CliContext) -> anyhow::Result<Outcome> {
    let settings = ctx.settings()?;
    let Some(dsn) = settings.coordination_dsn() else {
        let sentence = "this profile's backends are this machine's own: there is one node";
        let failure = Failure::new("CLUSTER_NOT_SHARED", sentence);
        return Err(failure.hint("wellspring ps shows it").into());
    };
    let database = Database::open(dsn, DatabaseSettings::default()).map_err(store_failure)?;
    let nodes = NodeRegistry::new(database.clone()).list();
    let leases = PostgresLeases::new(database).list("");
    let cluster = gather(
        nodes.map_err(store_failure)?,
        leases.map_err(store_failure)?,
    );
    print_result(ctx.format, &cluster, || table_of(&cluster))?;
    Ok(Outcome::Ok)
}

fn gather(nodes: Vec<NodeInfo>, leases: Vec<LeaseInfo>) -> Cluster {
    let mut held: Vec<LeaseInfo> = leases.into_iter().filter(|lease| lease.held).collect();
    let mut view = |info: NodeInfo| {
        let (own, others) = std::mem::take(&mut held)
            .into_iter()
            .partition(|lease: &LeaseInfo| lease.owner == info.identity.node);
        held = others;
        NodeView {
            node: info.identity.node,
            host: info.identity.host,
            pid: info.identity.pid,
            url: info.identity.url,
            build: info.identity.build,
            started_at_utc: info.started_at.format_off(),
            silent_seconds: info.silent_for.as_secs_f64(),
            holds: own.iter().map(lease_view).collect(),
        }
    };
    let nodes = nodes.into_iter().map(&mut view).collect();
    Cluster {
        nodes,
        orphaned: held.iter().map(lease_view).collect(),
    }
}

fn lease_view(lease: &LeaseInfo) -> LeaseView {
    LeaseView {
        key: lease.key.clone(),
        epoch: lease.epoch,
        expires_at_utc: lease.expires_at.format_off(),
    }
}

fn table_of(cluster: &Cluster) -> TableView {
    let mut table = TableView::new([
        ("NODE", Align::Left),
        ("PID", Align::Right),
        ("URL", Align::Left),
        ("SILENT", Align::Right),
        ("HOLDS", Align::Left),
    ]);
    let keys = |leases: &[LeaseView]| {
        let keys: Vec<&str> = leases.iter().map(|lease| lease.key.as_str()).collect();
        keys.join(" ")
    };
    for node in &cluster.nodes {
        table.row([
            node.node.clone(),
            node.pid.to_string(),
            node.url.clone().unwrap_or_default(),
            format!("{:.1} s", node.silent_seconds),
            keys(&node.holds),
        ]);
    }
    if !cluster.orphaned.is_empty() {
        let (none, holds) = (String::new(), keys(&cluster.orphaned));
        table.row(["(gone)".to_owned(), none.clone(), none.clone(), none, holds]);
    }
    table
}

fn store_failure(error: StoreError) -> anyhow::Error {
    Failure::of(error.code(), error).into()
}
