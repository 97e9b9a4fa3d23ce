//! kill -9 before and after every durable step: the next start goes on, nothing is lost, doubled,
//! reordered or told twice.

use crate::crash::points::{
    Pusher, Scene, VARIABLE, finish_and_judge, fired, passes, point, points_of, ready_run,
    steps_of, tight_site, up_with,
};
use crate::support::Site;
use crate::support::daemon::Daemon;
use crate::support::run::ReadyRun;
use crate::support::world::{World, small};
use std::time::Duration;
use wellspring::failpoints::{Artefact, Moment, Operation, Step, point_names};

/// The strictest profile, on backends of this machine.
const PROD_ON_FOLDERS: &str = "
profile_id: prod
wiring:
  object_store: {kind: file}
  admission_db_path: admission.db
  event_bus_kind: file
  control_bus: {kind: file}
  wsp_checkpoint: {backend: file}
";

fn kill(point: &str, pass: u64) -> String {
    format!("{point}=kill@{pass}")
}

#[test]
fn failpoints_are_refused_when_they_name_nothing_and_by_profiles_of_others_data() {
    let site = Site::new();
    let status = ["run", "new"];
    for text in [
        "head.write.before",
        "nothing.write.before=kill",
        "head.rename.after=short",
    ] {
        let refused = site.run_with(&status, &[(VARIABLE, text)]);
        refused.refused(1, "FAILPOINTS_INVALID");
    }
    let strict = site.profile(PROD_ON_FOLDERS);
    let armed = strict.run_with(&status, &[(VARIABLE, "head.write.before=trace")]);
    let quiet = strict.run_with(&status, &[]);
    armed.refused(1, "FAILPOINTS_REFUSED");
    quiet.ok();
}

#[test]
fn every_failpoint_belongs_to_a_scene_that_reaches_it() {
    let scenes = [
        Scene::Prove,
        Scene::Stream,
        Scene::Push,
        Scene::Recover,
        Scene::Lookup,
        Scene::Prune,
        Scene::Sort,
        Scene::Shared,
    ];
    let covered: usize = scenes.iter().map(|scene| points_of(*scene).len()).sum();
    assert_eq!(covered, point_names().count());
}

#[test]
fn a_stream_killed_before_any_step_goes_on_and_the_bus_is_the_world() {
    kill_streams(Moment::Before);
}

#[test]
fn a_stream_killed_after_any_step_goes_on_and_the_bus_is_the_world() {
    kill_streams(Moment::After);
}

fn kill_streams(moment: Moment) {
    for step in steps_of(Scene::Stream) {
        let point = point(step, moment);
        let reached = passes()
            .into_iter()
            .take_while(|pass| killed(&point, *pass));
        // In CI the second pass of a step that is passed twice, else its only one.
        assert!(
            reached.count() > 0 || killed(&point, 1),
            "{point} was never passed"
        );
    }
}

/// Kills a stream at a pass of a point and judges; false when the stream ends before.
fn killed(point: &str, pass: u64) -> bool {
    let run = ready_run();
    let ended = up_with(&run, &kill(point, pass));
    let here = fired(&ended.stderr, point);
    let story = format!("{point}@{pass}: {}", ended.everything());
    assert_eq!(here, ended.code.is_none(), "{story}");
    if here {
        finish_and_judge(&run, &story);
    }
    here
}

#[test]
fn a_scenario_killed_at_any_step_becomes_ready_once() {
    let all = std::env::var("WELLSPRING_CAMPAIGN").is_ok();
    for point in points_of(Scene::Prove) {
        let mut reached = false;
        // Each pass is another document; steps differ little within one, so CI takes every ninth.
        for pass in (1..).step_by(if all { 1 } else { 9 }) {
            let site = tight_site();
            let id = site.new_run();
            let run = ReadyRun {
                site,
                world: small(),
                id,
            };
            let mut args = vec!["scenario", "run", "--run-equivalence-key", "black-box"];
            let world = run.world.args();
            args.extend(world.iter().map(String::as_str));
            let ended = run.site.run_with(&args, &[(VARIABLE, &kill(&point, pass))]);
            if !fired(&ended.stderr, &point) {
                ended.ok();
                break;
            }
            reached = true;
            assert_eq!(ended.code, None, "{}", ended.everything());
            run.submit().ok();
            finish_and_judge(&run, &format!("{point}@{pass}"));
        }
        assert!(reached, "{point} was never passed");
    }
}

#[test]
fn a_gate_killed_at_any_projection_keeps_its_word() {
    for point in points_of(Scene::Push) {
        for pass in pushed_passes() {
            let mut pusher = Pusher::new();
            let armed = kill(&point, pass);
            let mut daemon = Daemon::gate_with(&pusher.site, &[(VARIABLE, &armed)])
                .ok()
                .unwrap();
            pusher.until_the_end(&mut daemon, 40);
            let ended = daemon.wait_for_end(Duration::from_secs(10));
            assert_eq!(ended.signal, Some(9), "{armed}: {}", daemon.stderr());
            assert!(fired(&daemon.stderr(), &point));
            pusher.finish_and_judge(&armed);
        }
    }
}

/// Projections write an object each, so a few passes say it all.
fn pushed_passes() -> Vec<u64> {
    let all = passes();
    let step = all.len().div_ceil(4);
    all.into_iter().step_by(step).collect()
}

/// A crash that leaves something to recover, and what is armed in the start after it.
fn crashes_before(step: Step) -> &'static str {
    match (step.0, step.1) {
        (Artefact::BusLines, Operation::Cut) => "bus_lines.sync.after=kill@2",
        (Artefact::JournalSegment, Operation::Remove) => "journal_segment.folder_sync.after=kill",
        (_, Operation::Rewrite) => "journal_frame.sync.after=kill@2",
        _ => "journal_frame.write.before=short@2,journal_frame.cut.before=kill",
    }
}

#[test]
fn a_start_killed_while_it_recovers_recovers_at_the_next() {
    for step in steps_of(Scene::Recover) {
        for moment in [Moment::Before, Moment::After] {
            let point = point(step, moment);
            // One shard: its second frame is always behind its first.
            let site = tight_site().set("wiring.gate.admission_shards=1");
            let run = ReadyRun::on(site, small());
            let crashed = up_with(&run, crashes_before(step));
            assert_eq!(crashed.code, None, "{point}: {}", crashed.everything());
            let again = up_with(&run, &kill(&point, 1));
            assert!(
                fired(&again.stderr, &point),
                "{point}: {}",
                again.everything()
            );
            assert_eq!(again.code, None, "{point}: {}", again.everything());
            finish_and_judge(&run, &point);
        }
    }
}

#[test]
fn a_lookup_killed_while_it_makes_a_sidecar_answers_the_next_time() {
    let run = ready_run();
    run.up_once(&[]).ok();
    // A run that ended has only its newest segment; one more start seals it.
    let event_id = run.records()[0].event_id().to_owned();
    let mut daemon = Daemon::gate(&run.site);
    let again = crate::support::gate_client::GateClient::new(&daemon.url);
    let answer = again.push(&run.records()[0].envelope);
    assert_eq!(answer.decision(), "DUPLICATE", "{answer:?}");
    assert!(daemon.is_running());
    assert_eq!(daemon.terminate().code, Some(0));
    let lookup = ["receipts", "lookup", "--event-id", &event_id];
    for point in points_of(Scene::Lookup) {
        let _ = std::fs::remove_dir_all(run.root().join("ig/lookup"));
        let killed = run.site.run_with(&lookup, &[(VARIABLE, &kill(&point, 1))]);
        assert!(
            fired(&killed.stderr, &point),
            "{point}: {}",
            killed.everything()
        );
        assert_eq!(killed.code, None, "{point}");
        let found = run.site.run(&lookup).ok().json();
        assert_eq!(found["event_id"], event_id.as_str(), "{point}: {found}");
    }
}

#[test]
fn a_prune_killed_at_any_step_is_finished_by_the_next() {
    for point in points_of(Scene::Prune) {
        let run = ready_run();
        run.up_once(&[]).ok();
        let prune = ["run", "prune", &run.id];
        let killed = run.site.run_with(&prune, &[(VARIABLE, &kill(&point, 2))]);
        assert!(
            fired(&killed.stderr, &point),
            "{point}: {}",
            killed.everything()
        );
        assert_eq!(killed.code, None, "{point}");
        run.site.run(&prune).ok();
        run.verify();
        let left = walk(&run.root().join("eb"));
        assert!(
            !left.iter().any(|name| name.contains("partition=")),
            "{point}: {left:?}"
        );
    }
}

/// Names of all files below a folder.
fn walk(folder: &std::path::Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => names.extend(walk(&path)),
            false => names.push(path.display().to_string()),
        }
    }
    names
}

#[test]
fn a_sort_killed_at_any_step_is_done_by_the_next() {
    for point in points_of(Scene::Sort) {
        let world = World::generate(40, 3, 1);
        world.pack();
        let sort = |env: &[(&str, &str)]| {
            let mut args = vec!["oracle".to_owned(), "sort".to_owned()];
            args.extend(world.args());
            args.extend(["--output-id", "arrival_events_5B"].map(str::to_owned));
            Site::new().run_with(&args, env)
        };
        let killed = sort(&[(VARIABLE, &kill(&point, 1))]);
        assert!(
            fired(&killed.stderr, &point),
            "{point}: {}",
            killed.everything()
        );
        assert_eq!(killed.code, None, "{point}");
        sort(&[]).ok();
    }
}
