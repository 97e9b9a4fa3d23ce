//! The World Streamer refuses before it streams (contract 6.4, 6.6), and what a push can fail with (6.8).

use std::fs;

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::run::ReadyRun;
use crate::support::scenario::replace_in;
use crate::support::site::{assert_contains, read_json};
use crate::support::world::{TRAFFIC, World, repository, small};
use crate::support::{Finished, Site};

/// A damage or a setting, and the reason the stream must give.
struct Case {
    reason: &'static str,
    damage: fn(&World),
    settings: &'static [&'static str],
}

const fn damaged(reason: &'static str, damage: fn(&World)) -> Case {
    Case {
        reason,
        damage,
        settings: &[],
    }
}

const fn set(reason: &'static str, settings: &'static [&'static str]) -> Case {
    Case {
        reason,
        damage: |_| {},
        settings,
    }
}

fn write(world: &World, name: &str, text: &str) {
    fs::write(world.root.join(name), text).unwrap();
}

fn rewrite_view(world: &World, name: &str, change: fn(&mut Value)) {
    let path = world.view(TRAFFIC).join(name);
    let mut document = read_json(&path);
    change(&mut document);
    fs::write(path, document.to_string()).unwrap();
}

const CASES: &[Case] = &[
    damaged("RUN_RECEIPT_UNREADABLE", |world| {
        fs::remove_file(world.root.join("run_receipt.json")).unwrap()
    }),
    damaged("WORLD_KEY_MISSING", |world| {
        write(world, "run_receipt.json", "{\"run_id\":\"x\"}")
    }),
    damaged("PACK_MANIFEST_INVALID", |world| {
        write(world, "_oracle_pack_manifest.json", "{}")
    }),
    damaged("WORLD_KEY_MISMATCH", |world| {
        replace_in(
            &world.root.join("_oracle_pack_manifest.json"),
            "\"seed\":11",
            "\"seed\":12",
        );
    }),
    damaged("PACK_SEALED_FAILED", |world| {
        replace_in(
            &world.root.join("_SEALED.json"),
            "SEALED_OK",
            "SEALED_FAILED",
        );
    }),
    damaged("GATE_PASS_MISSING", |world| {
        fs::remove_file(world.passed_flag("layer3", "6B")).unwrap()
    }),
    set(
        "NO_TRAFFIC_OUTPUTS",
        &["policy.traffic_output_ids=no_such_output"],
    ),
    set(
        "CONTEXT_OUTPUT_UNKNOWN",
        &["policy.context_output_ids=no_such_output"],
    ),
    set("PRODUCER_ID_MISSING", &["wiring.wsp_producer.producer_id="]),
    set(
        "PRODUCER_ALLOWLIST_MISSING",
        &["wiring.wsp_producer.allowlist_ref="],
    ),
    set(
        "PRODUCER_ALLOWLIST_UNREADABLE",
        &["wiring.wsp_producer.allowlist_ref=/no/such/file"],
    ),
    set(
        "PRODUCER_ALLOWLIST_UNSUPPORTED",
        &["wiring.wsp_producer.allowlist_ref=s3://bucket/list"],
    ),
    set(
        "PRODUCER_ALLOWLIST_EMPTY",
        &["wiring.wsp_producer.allowlist_ref=nobody.txt"],
    ),
    set(
        "PRODUCER_NOT_ALLOWED",
        &["wiring.wsp_producer.producer_id=svc:invalid"],
    ),
    set(
        "CHECKPOINT_DSN_MISSING",
        &["wiring.wsp_checkpoint.backend=postgres"],
    ),
    set(
        "CONTROL_BUS_STREAM_MISSING",
        &["wiring.control_bus.kind=kinesis"],
    ),
    set(
        "CONTROL_BUS_KIND_UNSUPPORTED",
        &["wiring.control_bus.kind=carrier_pigeon"],
    ),
    damaged("STREAM_VIEW_MISSING", |world| {
        fs::remove_dir_all(world.view(TRAFFIC)).unwrap()
    }),
    damaged("STREAM_VIEW_MISSING", |world| {
        fs::remove_file(world.view(TRAFFIC).join("_stream_sort_receipt.json")).unwrap();
    }),
    damaged("STREAM_VIEW_RECEIPT_BAD", |world| {
        rewrite_view(world, "_stream_sort_receipt.json", |receipt| {
            receipt["status"] = json!("BAD")
        });
    }),
    damaged("STREAM_VIEW_OUTPUT_MISMATCH", |world| {
        rewrite_view(world, "_stream_view_manifest.json", |manifest| {
            manifest["output_id"] = json!("other")
        });
    }),
    damaged("STREAM_VIEW_EMPTY", |world| {
        fs::remove_file(world.view(TRAFFIC).join("part-000000.parquet")).unwrap();
    }),
];

/// The world's views belong to the root they were sorted for.
fn sorted_copy() -> World {
    let world = small().to_damage();
    fs::remove_dir_all(world.root.join("stream_view")).unwrap();
    world.sort();
    world
}

fn stream(site: &Site, world: &World, more: &[&str]) -> Finished {
    let mut args = vec!["stream", "run", "--speedup", "0"];
    let named = world.args();
    args.extend(named.iter().map(String::as_str));
    args.extend(more);
    site.run(&args)
}

#[track_caller]
fn assert_refused(finished: &Finished, reason: &str) {
    assert_ne!(
        finished.code,
        Some(0),
        "{reason}: {}",
        finished.everything()
    );
    let story = format!("{reason}: {}", finished.everything());
    assert_contains(&finished.everything(), reason, &story);
    if let Ok(result) = serde_json::from_str::<Value>(&finished.stdout) {
        assert_eq!(result["status"], "FAILED", "{story}");
        assert_eq!(result["emitted"], 0, "{story}");
        let output = result["outputs"]
            .as_array()
            .unwrap()
            .iter()
            .find(|output| output["reason"] == reason);
        assert!(result["reason"] == reason || output.is_some(), "{story}");
        let detail = output.unwrap_or(&result)["detail"].as_str().unwrap_or("");
        assert!(detail.contains(' '), "no sentence: {story}");
    } else {
        finished.refused(1, reason);
    }
}

#[test]
fn a_stream_that_may_not_start_says_why() {
    for case in CASES {
        let world = sorted_copy();
        (case.damage)(&world);
        let nobody = [
            "wiring.ig_ingest_url=http://127.0.0.1:9",
            "wiring.wsp_retry.max_attempts=1",
        ];
        let site = nobody
            .iter()
            .chain(case.settings)
            .fold(Site::new(), |site, setting| site.set(*setting));
        fs::write(site.path().join("nobody.txt"), "# nobody\n\n").unwrap();
        // A refused stream asks nobody: were it to push, the reason would be another.
        assert_refused(
            &stream(&site, &world, &["--output-ids", TRAFFIC]),
            case.reason,
        );
    }
}

#[test]
fn views_of_another_root_are_not_taken_for_the_worlds() {
    let world = small().to_damage();
    let site = Site::new().set("wiring.ig_ingest_url=http://127.0.0.1:9");
    assert_refused(
        &stream(&site, &world, &["--output-ids", TRAFFIC]),
        "STREAM_VIEW_ID_MISMATCH",
    );
}

#[test]
fn a_stream_without_a_world_or_with_several_scenarios_is_refused() {
    let site = Site::new();
    assert_refused(&site.run(&["stream", "run"]), "ENGINE_ROOT_MISSING");
    let world = small().to_damage();
    let second = world.root.join("data/x/scenario_id=second");
    fs::create_dir_all(&second).unwrap();
    fs::write(second.join("part-0.parquet"), "").unwrap();
    let root = world.root_text();
    assert_refused(
        &site.run(&["stream", "run", "--engine-run-root", &root]),
        "SCENARIO_ID_MISSING",
    );
}

#[test]
fn a_lane_that_does_not_exist_is_refused() {
    let site = Site::new();
    let env = [("WSP_LANE_COUNT", "2"), ("WSP_LANE_INDEX", "5")];
    let root = small().root_text();
    let finished = site.run_with(&["stream", "run", "--engine-run-root", &root], &env);
    assert_refused(&finished, "WSP_LANE_CONFIG_INVALID");
}

#[test]
fn a_row_without_a_key_and_a_broken_part_end_their_output() {
    let world = sorted_copy();
    let gate_site = Site::new();
    let gate = Daemon::gate(&gate_site);
    let site = Site::new().set(format!("wiring.ig_ingest_url={}", gate.url));
    let name = "config/platform/oracle/outputs_catalogue_v0.yaml";
    let catalogue = fs::read_to_string(repository().join(name)).unwrap();
    let at = catalogue.find(&format!("output_id: {TRAFFIC}")).unwrap();
    let (head, entry) = catalogue.split_at(at);
    let entry = entry.replacen("flow_id, event_seq]", "flow_id, event_seq, campaign_id]", 1);
    fs::write(site.path().join("catalogue.yaml"), format!("{head}{entry}")).unwrap();
    let own = [
        "--set",
        "wiring.engine_catalogue_path=catalogue.yaml",
        "--output-ids",
        TRAFFIC,
    ];
    assert_refused(&stream(&site, &world, &own), "PRIMARY_KEY_MISSING");
    let part = world.view(TRAFFIC).join("part-000000.parquet");
    let whole = fs::read(&part).unwrap();
    fs::write(&part, &whole[..whole.len() / 2]).unwrap();
    assert_refused(
        &stream(&site, &world, &["--output-ids", TRAFFIC]),
        "STREAM_FAILED",
    );
}

#[test]
fn strict_profiles_need_a_pack_and_a_seal() {
    let shipped =
        fs::read_to_string(repository().join("config/platform/profiles/local.yaml")).unwrap();
    let strict = shipped.replace("profile_id: local", "profile_id: dev");
    for (name, reason) in [
        ("_oracle_pack_manifest.json", "PACK_MANIFEST_MISSING"),
        ("_SEALED.json", "PACK_NOT_SEALED"),
    ] {
        let world = sorted_copy();
        fs::remove_file(world.root.join(name)).unwrap();
        let site = Site::new().profile(&strict);
        let finished = stream(&site, &world, &[]);
        // A strict profile on local backends is refused even earlier, by name.
        let managed = finished.stderr.contains("error: ") && finished.stdout.is_empty();
        if managed {
            assert_contains(&finished.stderr, "BACKEND", &finished.everything());
        } else {
            assert_refused(&finished, reason);
        }
    }
}

#[test]
fn a_gate_that_is_not_there_ends_the_stream_after_its_retries() {
    let world = sorted_copy();
    let site = Site::new()
        .set("wiring.ig_ingest_url=http://127.0.0.1:9")
        .set("wiring.wsp_retry.max_attempts=2")
        .set("wiring.wsp_retry.base_delay_ms=1");
    assert_refused(
        &stream(&site, &world, &["--output-ids", TRAFFIC]),
        "IG_PUSH_RETRY_EXHAUSTED",
    );
}

#[test]
fn a_gate_that_refuses_ends_the_stream_at_once() {
    let world = sorted_copy();
    let site = Site::new();
    let keyed = Site::new()
        .set("wiring.security.auth_mode=api_key")
        .set("wiring.security.auth_allowlist=somebody");
    let gate = Daemon::gate(&keyed);
    let site = site.set(format!("wiring.ig_ingest_url={}", gate.url));
    let finished = stream(&site, &world, &["--output-ids", TRAFFIC]);
    assert_refused(&finished, "IG_PUSH_REJECTED");
    assert_contains(
        &finished.everything(),
        "UNAUTHORIZED",
        &finished.everything(),
    );
}

#[test]
fn one_output_that_fails_leaves_the_others_streaming() {
    let world = sorted_copy();
    let run = ReadyRun::new(&world);
    fs::remove_dir_all(world.view("s1_arrival_entities_6B")).unwrap();
    let finished = run.over_http(&[]);
    assert_eq!(finished.code, Some(1), "{}", finished.everything());
    let outcome = &finished.json()[0];
    assert_eq!(outcome["status"], "FAILED");
    let outputs = outcome["outputs"].as_array().unwrap();
    let of = |id: &str| {
        outputs
            .iter()
            .find(|output| output["output_id"] == id)
            .unwrap()
    };
    assert_eq!(
        of("s1_arrival_entities_6B")["reason"],
        "STREAM_VIEW_MISSING"
    );
    assert_eq!(of(TRAFFIC)["status"], "STREAMED");
    assert_eq!(of(TRAFFIC)["admitted"], 400);
    // What was missing comes; the failed READY is tried again and only the rest is streamed.
    world.sort();
    let again = run.over_http(&[]).ok();
    assert_eq!(
        again.json()[0]["status"],
        "STREAMED",
        "{}",
        again.everything()
    );
    run.verify();
    run.recompute(&[]);
}
