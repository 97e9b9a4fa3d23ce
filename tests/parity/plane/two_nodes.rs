//! Two nodes on the same backends: one streams a READY, and when it dies or freezes the other goes on.

use super::Site;
use super::daemon::Daemon;
use super::progress::{assert_no_checkpoint_is_ahead, wait_for_admitted, wait_for_all};
use super::site::LEASE;
use super::truth::assert_run_is_whole;
use crate::support::wait_until;
use rustix::process::Signal;
use std::time::{Duration, Instant};

const RUN_SECONDS: f64 = 12.0;

/// Two daemons by name, and the run they are to stream.
struct Cluster {
    site: Site,
    run: String,
    nodes: Vec<(String, Daemon)>,
}

impl Cluster {
    fn start() -> Cluster {
        let mut site = Site::new();
        let run = site.ready_run();
        let speedup = site.world.speedup(RUN_SECONDS);
        let mut nodes = Vec::new();
        for name in ["node-a", "node-b"] {
            site.set("WELLSPRING_NODE_ID", name);
            let args = ["up", "--port", "0", "--speedup", &speedup];
            nodes.push((name.to_owned(), Daemon::start(&site, &args)));
        }
        site.set("WELLSPRING_NODE_ID", "onlooker");
        Cluster { site, run, nodes }
    }

    /// Who streams the READY, as `ps --cluster` tells.
    fn holder(&self) -> Option<String> {
        let cluster = self.site.run(&["ps", "--cluster"]).ok().json();
        let mut holders = Vec::new();
        for node in cluster["nodes"].as_array().unwrap() {
            let leases = node["holds"].as_array().unwrap().iter();
            let ready = leases.filter(|lease| lease["key"].as_str().unwrap().starts_with("ready:"));
            if ready.count() > 0 {
                holders.push(node["node"].as_str().unwrap().to_owned());
            }
        }
        assert!(holders.len() <= 1, "two nodes hold one READY: {cluster}");
        holders.pop()
    }

    /// Waits until the run is so far, then takes the node that streams it out of the cluster.
    fn take_holder(&mut self, share: f64) -> (String, Daemon) {
        let wanted = (share * self.site.world.events() as f64) as u64;
        wait_for_admitted(&self.site, &self.run, wanted, &mut self.nodes[0].1);
        let holder = self.holder().expect("somebody streams it");
        let index = self.nodes.iter().position(|(name, _)| *name == holder);
        self.nodes.remove(index.unwrap())
    }

    /// How long it takes until another node streams the READY.
    fn wait_for_other(&self, gone: &str) -> Duration {
        let began = Instant::now();
        wait_until("another node streams it", LEASE * 4, || {
            self.holder().is_some_and(|holder| holder != gone)
        });
        began.elapsed()
    }

    fn end(mut self) {
        let mut daemons: Vec<&mut Daemon> = self.nodes.iter_mut().map(|(_, one)| one).collect();
        wait_for_all(&self.site, &self.run, &mut daemons);
        wait_until("nobody streams it any more", LEASE * 10, || {
            self.holder().is_none()
        });
        for (_, daemon) in self.nodes {
            assert_eq!(daemon.terminate().code, Some(0));
        }
        let truth = assert_run_is_whole(&self.site, &self.run);
        println!("{truth:?}");
        assert_no_checkpoint_is_ahead(&self.site, &self.run);
        self.site.verify();
    }
}

#[test]
fn a_killed_node_s_ready_moves_to_the_other_within_two_leases() {
    let mut cluster = Cluster::start();
    let (name, daemon) = cluster.take_holder(0.25);
    assert_eq!(daemon.kill().signal, Some(9));
    let took = cluster.wait_for_other(&name);
    println!("{name} was killed; the other streams after {took:?}");
    assert!(took <= LEASE * 2, "{took:?}");
    cluster.end();
}

#[test]
fn a_node_frozen_past_its_lease_writes_nothing_afterwards() {
    let mut cluster = Cluster::start();
    let (name, frozen) = cluster.take_holder(0.25);
    frozen.signal(Signal::STOP);
    let took = cluster.wait_for_other(&name);
    println!("{name} was frozen; the other streams after {took:?}");
    let wanted = cluster.site.world.events() / 2;
    wait_for_admitted(&cluster.site, &cluster.run, wanted, &mut cluster.nodes[0].1);
    frozen.signal(Signal::CONT);
    // Its rows by the ledger's fence; its checkpoint and the objects of its run by the lease of the run.
    for code in ["WRITER_FENCED", "LEASE_LOST"] {
        let what = format!("the thawed node is refused with {code}");
        wait_until(&what, Duration::from_secs(60), || {
            frozen.stderr().contains(code)
        });
    }
    cluster.nodes.push((name, frozen));
    cluster.end();
}
