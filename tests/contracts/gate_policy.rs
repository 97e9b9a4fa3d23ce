//! What the gate decides by configuration: gate proofs (D5), routing, amber health.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::Site;
use crate::support::daemon::Daemon;
use crate::support::gate_client::{GateClient, RUN, traffic};
use crate::support::scenario::replace_in;
use crate::support::site::copy_folder;
use crate::support::world::repository;

#[test]
fn gate_proofs_are_enforced_warned_about_or_not_looked_at() {
    for (mode, decision, code) in [
        ("enforce", "QUARANTINE", "GATE_PASS_MISSING"),
        ("warn", "ADMIT", ""),
        ("off", "ADMIT", ""),
    ] {
        let site = Site::new().set(format!("policy.verify_gates={mode}"));
        let daemon = Daemon::gate(&site);
        let answer = GateClient::new(&daemon.url).push(&traffic("unproven", 1));
        assert_eq!(
            (answer.decision(), answer.code()),
            (decision, code),
            "{mode}: {answer:?}"
        );
    }
}

/// The shipped configuration with one text replaced in the routing profiles.
fn routed(from: &str, to: &str) -> Site {
    let site = Site::new();
    copy_folder(&repository().join("config"), &site.path().join("config"));
    replace_in(
        &site
            .path()
            .join("config/platform/ig/partitioning_profiles_v0.yaml"),
        from,
        to,
    );
    let profile =
        fs::read_to_string(repository().join("config/platform/profiles/local.yaml")).unwrap();
    site.profile(&profile)
}

#[test]
fn an_event_without_any_of_its_keys_is_quarantined() {
    let keys = "      - payload.flow_id\n      - payload.merchant_id\n      - payload.account_id\n      - payload.party_id\n      - event_id\n";
    let site = routed(keys, "      - payload.campaign_id\n");
    let daemon = Daemon::gate(&site);
    let client = GateClient::new(&daemon.url);
    let answer = client.push(&traffic("keyless", 1));
    assert_eq!(
        (answer.decision(), answer.code()),
        ("QUARANTINE", "PARTITION_KEY_MISSING"),
        "{answer:?}"
    );
    let mut keyed = traffic("keyed", 1);
    keyed["payload"]["campaign_id"] = json!("T_1");
    assert_eq!(client.push(&keyed).decision(), "ADMIT");
}

#[test]
fn a_hash_nobody_implements_is_refused_at_the_start_or_per_event() {
    let site = routed("hash_algo: sha256", "hash_algo: md5");
    let finished = site.run(&["config", "check"]);
    if finished.code == Some(0) {
        let daemon = Daemon::gate(&site);
        let answer = GateClient::new(&daemon.url).push(&traffic("hashed", 1));
        assert_eq!(answer.code(), "UNSUPPORTED_HASH_ALGO", "{answer:?}");
    } else {
        let told = finished.everything();
        assert!(told.contains("UNSUPPORTED_HASH_ALGO"), "{told}");
    }
}

#[test]
fn a_store_that_takes_nothing_turns_the_gate_red_until_it_takes_again() {
    let site = Site::new();
    let run = site.new_run();
    let daemon = Daemon::gate(&site);
    let client = GateClient::new(&daemon.url);
    assert_eq!(client.push(&traffic("healthy", 1)).decision(), "ADMIT");
    // A folder where the probe object must be written.
    let probe = site.run_root(&run).join("ig/health/last_probe.json");
    let _ = fs::remove_file(&probe);
    fs::create_dir_all(probe.join("in the way")).unwrap();
    let state = |wanted: &str| {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let health = client.get("/v1/ops/health").body;
            if health["state"] == wanted {
                return health;
            }
            assert!(Instant::now() < end, "never {wanted}: {health}");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    assert_eq!(state("RED")["reasons"], json!(["OBJECT_STORE_UNHEALTHY"]));
    let refused = client.push(&traffic("sick", 2));
    assert_eq!(
        (refused.status, refused.code()),
        (503, "IG_UNHEALTHY"),
        "{refused:?}"
    );
    assert!(
        refused.body["detail"]
            .to_string()
            .contains("OBJECT_STORE_UNHEALTHY")
    );
    assert_eq!(client.get("/readyz").status, 503);
    assert_eq!(client.get("/healthz").status, 200);
    fs::remove_dir_all(&probe).unwrap();
    state("GREEN");
    assert_eq!(client.push(&traffic("sick", 2)).decision(), "ADMIT");
}

#[test]
fn three_kinds_of_events_of_the_decision_loop_stand_or_fall_together() {
    let site = Site::new();
    copy_folder(&repository().join("config"), &site.path().join("config"));
    let policy = site.path().join("config/platform/ig/schema_policy_v0.yaml");
    replace_in(
        &policy,
        "  - event_type: action_outcome\n    class: rtdl_action_outcome",
        "  - event_type: action_result\n    class: rtdl_action_outcome",
    );
    let profile =
        fs::read_to_string(repository().join("config/platform/profiles/local.yaml")).unwrap();
    let site = site.profile(&profile);
    let finished = site.run(&["gate", "serve", "--port", "0"]);
    assert_eq!(finished.code, Some(1), "{}", finished.everything());
    let told = "error: IG_RTLD_POLICY_ALIGNMENT_FAILED: action_outcome:";
    assert!(finished.stderr.contains(told), "{}", finished.everything());
    assert!(!site.run_root(RUN).exists());
}
