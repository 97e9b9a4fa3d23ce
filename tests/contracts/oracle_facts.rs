//! The checker on a facts view (contract 4.2): every code with its severity.

use std::fs;

use serde_json::{Value, json};

use crate::support::run::{KEY, ReadyRun};
use crate::support::scenario::run_id_of;
use crate::support::site::read_json;
use crate::support::world::{TRAFFIC, World, small};

/// A damage of facts or world, more arguments, and what the check must say.
struct Case {
    damage: fn(&World, &mut Value),
    args: &'static [&'static str],
    exit: i32,
    code: &'static str,
}

fn locator<'a>(facts: &'a mut Value, output_id: &str) -> &'a mut Value {
    let locators = facts["locators"].as_array_mut().unwrap();
    locators
        .iter_mut()
        .find(|locator| locator["output_id"] == output_id)
        .unwrap()
}

fn drop_digest(facts: &mut Value) {
    locator(facts, TRAFFIC)
        .as_object_mut()
        .unwrap()
        .shift_remove("content_digest");
}

const CASES: &[Case] = &[
    Case {
        damage: |_, _| {},
        args: &[],
        exit: 0,
        code: "",
    },
    Case {
        damage: |_, facts| *facts = json!({"run_id": 1}),
        args: &[],
        exit: 1,
        code: "RUN_FACTS_INVALID",
    },
    Case {
        damage: |_, facts| facts["gate_receipts"] = json!([]),
        args: &[],
        exit: 1,
        code: "GATE_PASS_MISSING",
    },
    Case {
        damage: |_, facts| drop_digest(facts),
        args: &[],
        exit: 1,
        code: "DIGEST_MISSING",
    },
    Case {
        damage: |_, facts| drop_digest(facts),
        args: &["--allow-missing-digest"],
        exit: 0,
        code: "DIGEST_MISSING",
    },
    Case {
        damage: |world, _| fs::remove_dir_all(world.raw_parts(TRAFFIC)).unwrap(),
        args: &[],
        exit: 1,
        code: "LOCATOR_MISSING",
    },
    Case {
        damage: |world, _| fs::remove_file(world.root.join("_SEALED.json")).unwrap(),
        args: &["--strict-seal"],
        exit: 1,
        code: "PACK_NOT_SEALED",
    },
    Case {
        damage: |world, _| fs::remove_file(world.root.join("_SEALED.json")).unwrap(),
        args: &["--allow-unsealed"],
        exit: 0,
        code: "PACK_NOT_SEALED",
    },
];

#[test]
fn every_code_of_the_facts_check_is_told() {
    for case in CASES {
        let world = small().to_damage();
        let run = ReadyRun::new(&world);
        let path = run
            .root()
            .join(format!("sr/run_facts_view/{}.json", run_id_of(KEY)));
        let mut facts = read_json(&path);
        (case.damage)(&world, &mut facts);
        fs::write(&path, facts.to_string()).unwrap();
        let reference = path.display().to_string();
        let args = ["oracle", "check", "--run-facts-ref", &reference];
        let finished = run.site.run(&[&args[..], case.args].concat());
        let told = format!("{}: {}", case.code, finished.everything());
        assert_eq!(finished.code, Some(case.exit), "{told}");
        let report = finished.json();
        let codes = report["reason_codes"].as_array().unwrap();
        let listed = codes.iter().any(|code| code == case.code);
        assert_eq!(listed, !case.code.is_empty(), "{told}");
    }
}

#[test]
fn facts_that_cannot_be_read_are_told_by_name() {
    let site = crate::support::Site::new();
    let finished = site.run(&["oracle", "check", "--run-facts-ref", "no/such/facts.json"]);
    assert_eq!(finished.code, Some(1), "{}", finished.everything());
    assert_eq!(
        finished.json()["reason_codes"],
        json!(["RUN_FACTS_UNREADABLE"])
    );
}
