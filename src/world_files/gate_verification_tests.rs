//! Every gate of the fixture world, whole and damaged.

use super::*;
use crate::world_files::test_world::TestWorld;
use std::fs;

impl TestWorld {
    fn gate(&self, segment: &str) -> &Gate {
        let ends = format!(".{segment}.validation");
        let mut gates = self.contract.gate_map.gates().iter();
        gates.find(|gate| gate.gate_id.ends_with(&ends)).unwrap()
    }

    fn verify(&self, segment: &str) -> GateOutcome {
        verify_gate(&self.store, "/world", self.gate(segment), &self.tokens()).unwrap()
    }

    fn paths(&self, segment: &str) -> GatePaths {
        self.gate(segment).paths(&self.tokens()).unwrap()
    }

    fn flip(&self, key: &str) {
        let mut bytes = self.store.get(key).unwrap().unwrap();
        bytes[0] ^= 1;
        self.write(key, &bytes);
    }

    fn remove(&self, key: &str) {
        fs::remove_file(self.root.join(key)).unwrap();
    }
}

const SEGMENTS: [&str; 10] = ["1A", "1B", "2A", "2B", "3A", "3B", "5A", "5B", "6A", "6B"];

#[test]
fn every_gate_of_an_untouched_world_passes_with_a_receipt_that_names_its_files() {
    let world = TestWorld::copy();
    let gates: Vec<&Gate> = world.contract.gate_map.gates().iter().collect();
    assert_eq!(gates.len(), SEGMENTS.len());
    for outcome in verify_gates(&world.store, "/world", &gates, &world.tokens()) {
        let outcome = outcome.unwrap();
        assert!(outcome.is_pass(), "{outcome:?}");
        let receipt = outcome.receipt().unwrap();
        let artifacts = receipt.artifacts.as_ref().unwrap();
        assert!(artifacts.passed_flag_path.starts_with("/world/data/layer"));
        assert!(artifacts.passed_flag_path.ends_with("/_passed.flag"));
        assert_eq!(
            receipt.scope.manifest_fingerprint,
            world.tokens().manifest_fingerprint
        );
        assert_eq!(
            receipt.scope.seed, None,
            "a fingerprint gate carries no other pin"
        );
    }
}

#[test]
fn one_flipped_byte_in_a_hashed_file_is_a_conflict_with_a_failing_receipt() {
    for segment in SEGMENTS.into_iter().filter(|segment| *segment != "3A") {
        let world = TestWorld::copy();
        world.flip(&format!(
            "{}validation_report.json",
            world.paths(segment).bundle_root
        ));
        let outcome = world.verify(segment);
        assert!(
            matches!(outcome, GateOutcome::Fail { .. }),
            "{segment}: {outcome:?}"
        );
        assert_eq!(outcome.receipt().unwrap().status, ProofStatus::Fail);
    }
}

#[test]
fn another_digest_in_the_index_of_a_member_gate_is_a_conflict() {
    let world = TestWorld::copy();
    let index = world.paths("3A").index.unwrap();
    let text = String::from_utf8(world.store.get(&index).unwrap().unwrap()).unwrap();
    world.write(&index, text.replacen("6d2e558b", "7d2e558b", 1).as_bytes());
    assert!(world.verify("3A").is_conflict());
}

#[test]
fn a_file_the_index_names_and_the_bundle_lacks_is_missing() {
    for segment in ["2A", "2B", "3B", "5A", "5B", "6A", "6B"] {
        let world = TestWorld::copy();
        let file = format!(
            "{}checks/check_summary.json",
            world.paths(segment).bundle_root
        );
        world.remove(&file);
        let outcome = world.verify(segment);
        assert_eq!(
            outcome,
            GateOutcome::Missing {
                path: format!("/world/{file}")
            }
        );
        assert!(!outcome.is_conflict());
    }
}

#[test]
fn a_file_lost_from_a_bundle_without_index_is_a_conflict_because_the_bytes_differ() {
    let world = TestWorld::copy();
    world.remove(&format!("{}MANIFEST.json", world.paths("1A").bundle_root));
    assert!(world.verify("1A").is_conflict());
}

#[test]
fn no_index_or_no_flag_or_no_bundle_is_missing() {
    for segment in ["2A", "3A", "5A", "6A"] {
        let world = TestWorld::copy();
        let index = world.paths(segment).index.unwrap();
        world.remove(&index);
        assert_eq!(
            world.verify(segment),
            GateOutcome::Missing {
                path: format!("/world/{index}")
            }
        );
    }
    for segment in SEGMENTS {
        let world = TestWorld::copy();
        let flag = world.paths(segment).passed_flag;
        world.remove(&flag);
        assert_eq!(
            world.verify(segment),
            GateOutcome::Missing {
                path: format!("/world/{flag}")
            }
        );
    }
    let world = TestWorld::copy();
    let paths = world.paths("1A");
    fs::remove_dir_all(world.root.join(&paths.bundle_root)).unwrap();
    fs::create_dir_all(world.root.join(&paths.bundle_root)).unwrap();
    world.write(&paths.passed_flag, b"sha256_hex = x");
    let root = format!("/world/{}", paths.bundle_root);
    assert_eq!(world.verify("1A"), GateOutcome::Missing { path: root });
}

#[test]
fn a_flag_that_does_not_say_its_digest_is_a_conflict_without_a_receipt() {
    for content in [
        "",
        "FAIL",
        "sha256_hex = FAIL",
        "bundle_digest_sha256 = 00",
        "{\"status\": \"FAIL\"}",
    ] {
        for segment in SEGMENTS {
            let world = TestWorld::copy();
            world.write(&world.paths(segment).passed_flag, content.as_bytes());
            let outcome = world.verify(segment);
            assert!(
                matches!(outcome, GateOutcome::Conflict(_)),
                "{segment} {content}"
            );
            assert_eq!(outcome.receipt(), None);
        }
    }
}

#[test]
fn another_worlds_fingerprint_finds_nothing() {
    let world = TestWorld::copy();
    let gate = world.gate("6B");
    let mut tokens = world.tokens();
    tokens.manifest_fingerprint = Some("0".repeat(64));
    let other = verify_gate(&world.store, "/world", gate, &tokens).unwrap();
    assert!(matches!(other, GateOutcome::Missing { .. }));
    tokens.manifest_fingerprint = None;
    let unfilled = verify_gate(&world.store, "/world", gate, &tokens).unwrap();
    let GateOutcome::Missing { path } = unfilled else {
        panic!("an unfilled token cannot be found");
    };
    assert!(path.contains("{manifest_fingerprint}"));
}

#[test]
fn an_index_that_points_out_of_the_world_is_a_conflict() {
    let world = TestWorld::copy();
    let index = world.paths("2A").index.unwrap();
    world.write(&index, br#"[{"path": "../../../../../../etc/passwd"}]"#);
    assert!(matches!(world.verify("2A"), GateOutcome::Conflict(_)));
}
