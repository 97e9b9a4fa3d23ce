//! Packing and sealing (contract 3.6): every code, and that a seal is never rewritten.

use std::fs;

use serde_json::{Value, json};

use crate::support::site::read_json;
use crate::support::world::{World, fixture_folder, small};

/// A generated world nobody packed.
fn unpacked() -> World {
    World::generate(40, 5, 1)
}

/// Everything directly in the engine root, with its bytes.
fn files(world: &World) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(&world.root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| (path.display().to_string(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn packing_prints_the_pack_and_writes_manifest_and_seal_of_one_id() {
    let world = unpacked();
    let printed = world
        .oracle("pack", &["--engine-release", "local"])
        .ok()
        .json();
    let manifest = read_json(world.root.join("_oracle_pack_manifest.json"));
    let seal = read_json(world.root.join("_SEALED.json"));
    assert_eq!(printed["oracle_pack_id"], manifest["oracle_pack_id"]);
    assert_eq!(printed["engine_run_root"], json!(world.root_text()));
    assert_eq!(seal["oracle_pack_id"], manifest["oracle_pack_id"]);
    assert_eq!(seal["seal_status"], "SEALED_OK");
    let text = fs::read_to_string(world.root.join("_SEALED.json")).unwrap();
    assert!(
        text.ends_with("}\n") && !text.contains(": "),
        "compact canonical JSON: {text}"
    );
}

#[test]
fn the_same_pack_again_succeeds_without_a_write() {
    let world = unpacked();
    world.pack();
    let before = files(&world);
    let again = world.oracle("pack", &["--engine-release", "local"]).ok();
    assert!(
        again.stderr.contains("nothing was written"),
        "{}",
        again.everything()
    );
    assert_eq!(files(&world), before);
}

#[test]
fn another_identity_over_a_seal_is_refused_and_changes_nothing() {
    let world = unpacked();
    world.pack();
    let before = files(&world);
    world
        .oracle("pack", &["--engine-release", "other"])
        .refused(1, "MANIFEST_MISMATCH");
    let failed = [
        "--engine-release",
        "local",
        "--seal-status",
        "SEALED_FAILED",
    ];
    world.oracle("pack", &failed).refused(1, "SEAL_MISMATCH");
    assert_eq!(files(&world), before);
}

#[test]
fn what_cannot_be_packed_is_refused_by_name() {
    let world = unpacked();
    let site = crate::support::Site::new();
    let root = world.root_text();
    site.run(&["oracle", "pack", "--engine-run-root", &root])
        .refused(1, "SCENARIO_ID_MISSING");
    world
        .oracle("pack", &["--pack-root", "/nowhere/at/all"])
        .refused(1, "PACK_ROOT_NOT_FOUND");
    site.run(&["oracle", "pack"])
        .refused(1, "ENGINE_ROOT_MISSING");
    assert!(
        !world.root.join("_SEALED.json").exists(),
        "a refusal leaves no seal"
    );
}

#[test]
fn a_receipt_without_a_world_key_cannot_be_packed() {
    let receipts: [Value; 2] = [json!({}), json!({"run_id": "x", "seed": "7"})];
    for receipt in receipts {
        let world = unpacked();
        fs::write(world.root.join("run_receipt.json"), receipt.to_string()).unwrap();
        world.oracle("pack", &[]).refused(1, "WORLD_KEY_MISSING");
        assert!(!world.root.join("_oracle_pack_manifest.json").exists());
    }
}

#[test]
fn a_pack_id_depends_on_the_release_alone_when_the_world_is_the_same() {
    let (one, two, other) = (unpacked(), unpacked(), unpacked());
    let id = |world: &World, release: &str| {
        let printed = world
            .oracle("pack", &["--engine-release", release])
            .ok()
            .json();
        printed["oracle_pack_id"].as_str().unwrap().to_owned()
    };
    let (one, two, other) = (id(&one, "local"), id(&two, "local"), id(&other, "r2"));
    assert_eq!(one, two);
    assert_ne!(one, other);
    assert!(fixture_folder().join("run_receipt.json").is_file());
    assert!(small().root.join("_SEALED.json").is_file());
}
