//! A server of the stack is killed and comes back while a run streams: the run goes on, or stops with a code and
//! the next start ends it. Nothing is lost, doubled or reordered.

use super::Site;
use super::daemon::Daemon;
use super::progress::{admitted, wait_for_admitted};
use super::truth::assert_run_is_whole;
use crate::support::{Faults, Server};
use std::time::{Duration, Instant};

const RUN_SECONDS: f64 = 8.0;

/// Whether the run ended although its server was away for a while.
#[derive(Debug)]
enum Ended {
    InOneRun,
    AfterAStop(String),
}

/// Streams, ends the server in the middle, starts it again after a while.
fn survive(server: Server, away: Duration) {
    let faults = Faults::begin();
    let site = Site::new();
    let run = site.ready_run();
    let total = site.world.events();
    let speedup = site.world.speedup(RUN_SECONDS);
    let mut daemon = Daemon::start(&site, &["up", "--port", "0", "--speedup", &speedup]);
    let seen = wait_for_admitted(&site, &run, total / 4, &mut daemon);
    faults.kill(server);
    println!("{server:?} was killed with {seen} of {total} events admitted");
    std::thread::sleep(away);
    faults.restart(server);
    let ended = wait_for_the_end(&site, &run, &mut daemon);
    println!("{server:?}: {ended:?}");
    if let Ended::AfterAStop(code) = &ended {
        println!("stopped with {code}");
    }
    daemon.terminate();
    println!("then: {}", site.up_after_a_crash());
    let truth = assert_run_is_whole(&site, &run);
    println!("{truth:?}");
    site.verify();
}

fn wait_for_the_end(site: &Site, run: &str, daemon: &mut Daemon) -> Ended {
    let end = Instant::now() + Duration::from_secs(90);
    while Instant::now() < end {
        if admitted(site, run) == Some(site.world.events()) {
            return Ended::InOneRun;
        }
        if !daemon.is_running() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let said = daemon.stderr();
    let code = said.lines().rev().find(|line| line.contains("error: "));
    Ended::AfterAStop(code.unwrap_or(&said).to_owned())
}

mod faults {
    use super::*;

    #[test]
    fn a_run_survives_the_death_of_postgresql() {
        survive(Server::Postgres, Duration::from_secs(1));
    }

    #[test]
    fn a_run_survives_the_death_of_kinesis() {
        survive(Server::Kinesis, Duration::from_secs(1));
    }

    #[test]
    fn a_run_survives_the_death_of_s3() {
        survive(Server::S3, Duration::from_secs(1));
    }
}
