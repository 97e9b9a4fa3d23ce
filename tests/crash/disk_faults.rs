//! Disks that are full, lie or break, through the same failpoints: short writes, ENOSPC, EIO.
//!
//! Whatever the step, the process goes on or ends with a code; it never hangs, never dies of a signal,
//! and a start on a good disk finishes the run with a bus that is the world.

use crate::crash::points::{
    Pusher, Scene, VARIABLE, finish_and_judge, fired, point, ready_run, steps_of, up_with,
};
use crate::support::daemon::Daemon;
use crate::support::gate_client::{GateClient, traffic};
use std::time::{Duration, Instant};
use wellspring::failpoints::{Artefact, Moment, Operation, Step};

/// A fault at a point: what arms it.
struct Fault {
    point: String,
    armed: String,
}

/// The faults a step can have.
fn faults_of(step: Step) -> Vec<Fault> {
    let before = point(step, Moment::Before);
    let after = point(step, Moment::After);
    let mut faults = vec![(before.clone(), "eio@2")];
    if step.writes() {
        faults.push((before.clone(), "short@2"));
    }
    if std::env::var("WELLSPRING_CAMPAIGN").is_ok() {
        faults.push((after, "eio@2"));
        faults.push((before, "enospc@2"));
    }
    let fault = |(point, action): (String, &str)| Fault {
        armed: format!("{point}={action}"),
        point,
    };
    faults.into_iter().map(fault).collect()
}

/// Steps after which nothing on the disk can be trusted by the process that took them.
fn ends_the_process(step: Step) -> bool {
    let commits = [Artefact::BusLines, Artefact::JournalFrame];
    step.1 == Operation::Sync && commits.contains(&step.0)
}

#[test]
fn a_stream_survives_every_fault_of_its_disk() {
    for step in steps_of(Scene::Stream) {
        for fault in faults_of(step) {
            let run = ready_run();
            let ended = up_with(&run, &fault.armed);
            let story = format!("{}: {}", fault.armed, ended.everything());
            // What happens once in a run has no second pass.
            if !fired(&ended.stderr, &fault.point) {
                let once = fault.armed.replace("@2", "@1");
                let run = ready_run();
                let ended = up_with(&run, &once);
                assert!(
                    fired(&ended.stderr, &fault.point),
                    "{once}: {}",
                    ended.everything()
                );
                assert!(ended.code.is_some(), "{once}: {}", ended.everything());
                finish_and_judge(&run, &once);
                continue;
            }
            assert!(ended.code.is_some(), "{story}");
            if ends_the_process(step) {
                assert_eq!(ended.code, Some(1), "{story}");
                assert!(ended.stderr.contains("FSYNC_FAILED"), "{story}");
            }
            finish_and_judge(&run, &fault.armed);
        }
    }
}

/// Pushes until the gate refuses at once, or has given up and ended with a code: which of them comes first
/// depends on when its health was probed. Until then each event is told to come again.
fn refused_at_last(daemon: &mut Daemon) {
    let client = GateClient::new(&daemon.url);
    let end = Instant::now() + Duration::from_secs(90);
    while let Ok(refused) = client.try_push(&traffic("refused", 1)) {
        assert_eq!(refused.status, 503, "{refused:?}");
        assert!(refused.retry_after.is_some(), "{refused:?}");
        if refused.code() == "IG_UNHEALTHY" {
            assert!(daemon.is_running(), "{}", daemon.stderr());
            return;
        }
        assert!(Instant::now() < end, "neither refused nor ended");
    }
    let ended = daemon.wait_for_end(Duration::from_secs(60));
    assert_eq!(ended.signal, None, "{}", daemon.stderr());
    assert_ne!(ended.code, Some(0), "{}", daemon.stderr());
}

#[test]
fn a_disk_that_stays_full_refuses_and_loses_nothing() {
    for point in ["bus_lines.write.before", "journal_frame.write.before"] {
        let mut pusher = Pusher::new();
        let armed = format!("{point}=enospc@3+");
        let mut daemon = Daemon::gate_with(&pusher.site, &[(VARIABLE, &armed)])
            .ok()
            .unwrap();
        pusher.round(&daemon.url);
        refused_at_last(&mut daemon);
        // Two events had room.
        assert!(fired(&daemon.stderr(), point));
        let answered = pusher.answered();
        assert!((2..10).contains(&answered), "{armed}: {answered} answered");
        drop(daemon);
        pusher.finish_and_judge(&armed);
    }
}

#[test]
fn a_projection_that_fails_is_tried_again_and_holds_no_answer_back() {
    for step in steps_of(Scene::Push) {
        for fault in faults_of(step) {
            let mut pusher = Pusher::new();
            let env = [(VARIABLE, fault.armed.as_str())];
            let mut daemon = Daemon::gate_with(&pusher.site, &env).ok().unwrap();
            pusher.until_the_end(&mut daemon, 8);
            assert!(fired(&daemon.stderr(), &fault.point), "{}", fault.armed);
            assert!(daemon.is_running(), "{}: {}", fault.armed, daemon.stderr());
            assert_eq!(daemon.terminate().code, Some(0), "{}", fault.armed);
            pusher.finish_and_judge(&fault.armed);
        }
    }
}
