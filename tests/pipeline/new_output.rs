//! A new output by configuration alone: catalogue, class map, routing, schema policy, output list.

use std::fs;

use crate::support::Site;
use crate::support::bus::records;
use crate::support::run::outcomes;
use crate::support::site::copy_folder;
use crate::support::world::{World, repository};

/// An output no shipped file knows.
const OUTPUT: &str = "live_cases_7C";

/// Its catalogue entry: it reads the rows the case timeline has.
const CATALOGUE_ENTRY: &str = "
  - output_id: live_cases_7C
    class: stream
    exposure: traffic
    scope: scope_seed_manifest_fingerprint_parameter_hash_scenario_id
    owner_segment: 6B
    path_template: |
      data/layer3/6B/s4_case_timeline_6B/seed={seed}/parameter_hash={parameter_hash}/manifest_fingerprint={manifest_fingerprint}/scenario_id={scenario_id}/part-*.parquet
    partitions: [seed, manifest_fingerprint, parameter_hash, scenario_id]
    primary_key: [seed, manifest_fingerprint, scenario_id, case_id, case_event_seq]
    join_keys: [seed, manifest_fingerprint, scenario_id, flow_id]
    read_requires_gates: [gate.layer3.6B.validation]
    immutability: write_once
";

fn append(site: &Site, name: &str, text: &str) {
    let path = site.path().join("config/platform").join(name);
    let before = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{before}{text}")).unwrap();
}

/// A copy of the shipped configuration in which the case timeline is a stream of its own.
fn configure(site: &Site) {
    copy_folder(&repository().join("config"), &site.path().join("config"));
    let pins = "platform_run_id, scenario_run_id, manifest_fingerprint, parameter_hash, seed, scenario_id, run_id";
    let class_map = site.path().join("config/platform/ig/class_map_v0.yaml");
    let text = fs::read_to_string(&class_map).unwrap();
    let text = text.replace(
        "classes:\n",
        &format!(
            "classes:\n  case_timeline:\n    required_pins: [{pins}]\n    \
         partitioning_profile_id: ig.partitioning.v0.case_timeline\n"
        ),
    );
    fs::write(&class_map, format!("{text}  {OUTPUT}: case_timeline\n")).unwrap();
    append(site, "oracle/outputs_catalogue_v0.yaml", CATALOGUE_ENTRY);
    append(
        site,
        "ig/schema_policy_v0.yaml",
        &format!(
            "  - event_type: {OUTPUT}\n    class: case_timeline\n    schema_version_required: false\n"
        ),
    );
    append(
        site,
        "ig/partitioning_profiles_v0.yaml",
        "  ig.partitioning.v0.case_timeline:\n    description: Case timeline, in order per case.\n    \
         stream: fp.bus.case.timeline.v1\n    key_precedence: [payload.case_id, event_id]\n    hash_algo: sha256\n",
    );
    fs::write(
        site.path().join("case_outputs.yaml"),
        format!("version: v0\noutput_ids: [{OUTPUT}]\n"),
    )
    .unwrap();
}

#[test]
fn an_output_nobody_streamed_before_is_streamed_by_configuration_alone() {
    let world = World::generate(20_000, 3, 2);
    let site = Site::new();
    configure(&site);
    let shipped =
        fs::read_to_string(repository().join("config/platform/profiles/local.yaml")).unwrap();
    let profile = shipped
        .replace(
            "traffic_output_ids_ref: config/platform/wsp/traffic_outputs_v0.yaml",
            "traffic_output_ids_ref: case_outputs.yaml",
        )
        .replace(
            "context_output_ids_ref: config/platform/wsp/context_fraud_outputs_v0.yaml",
            "context_output_ids: []",
        )
        .replace("verify_gates: warn", "verify_gates: enforce");
    let site = site.profile(&profile);
    site.new_run();
    let named = world.args();
    let named: Vec<&str> = named.iter().map(String::as_str).collect();
    for verb in [
        &["oracle", "pack"][..],
        &["oracle", "sort", "--output-id", OUTPUT],
        &["scenario", "run", "--output-id", OUTPUT],
    ] {
        site.run(&[verb, &named[..]].concat()).ok();
    }
    let finished = site
        .run(&["up", "--once", "--port", "0", "--speedup", "0"])
        .ok();
    assert_eq!(
        outcomes(&finished)[0]["status"],
        "STREAMED",
        "{}",
        finished.everything()
    );
    let run = site.run(&["run", "show", "--format", "json"]).ok().json();
    let run = run["platform_run_id"].as_str().unwrap().to_owned();
    let records = records(&site.run_root(&run));
    assert!(!records.is_empty());
    assert!(
        records
            .iter()
            .all(|record| record.topic == "fp.bus.case.timeline.v1")
    );
    assert!(
        records
            .iter()
            .all(|record| record.envelope["event_type"] == OUTPUT)
    );
    let times: Vec<&str> = records.iter().map(|record| record.ts_utc()).collect();
    assert!(
        times.is_sorted(),
        "one stream, one partition, in time order"
    );
    site.run(&["bus", "verify"]).ok();
    site.run(&["receipts", "verify"]).ok();
}
