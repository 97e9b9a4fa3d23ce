//! `wellspring bus`: records by offset, also from folders other programs wrote (contract 8).

use super::{folder, json, program, run, stderr, stdout};
use std::fs;
use std::path::Path;

const RUN: &str = "platform_20260101T000000Z";
const TOPIC: &str = "fp.bus.traffic.fraud.v1";

fn write_bus(root: &Path, lines: &str) {
    let topic = root.join(format!("runs/fraud-platform/{RUN}/eb/{TOPIC}"));
    fs::create_dir_all(&topic).unwrap();
    fs::write(topic.join("partition=0.jsonl"), lines).unwrap();
    fs::write(topic.join("head.json"), "{\"next_offset\":3}").unwrap();
}

#[test]
fn records_are_printed_one_object_per_line_from_an_offset_on() {
    let folder = folder();
    write_bus(
        folder.path(),
        "{\"partition_key\":\"k\",\"payload\":{\"n\":1.0}}\n\n{\"partition_key\":\"k\",\"payload\":{\"n\":18446744073709551615}}\n",
    );
    for name in ["read", "tail"] {
        let all = run(
            folder.path(),
            &["bus", name, "--topic", TOPIC, "--run", RUN],
        );
        assert_eq!(all.status.code(), Some(0), "{}", stderr(&all));
        let expected = format!(
            "{{\"topic\":\"{TOPIC}\",\"partition\":0,\"offset\":0,\"record\":{{\"partition_key\":\"k\",\"payload\":{{\"n\":1.0}}}}}}\n\
             {{\"topic\":\"{TOPIC}\",\"partition\":0,\"offset\":2,\"record\":{{\"partition_key\":\"k\",\"payload\":{{\"n\":18446744073709551615}}}}}}\n"
        );
        assert_eq!(stdout(&all), expected);
    }
    let one = [
        "bus",
        "read",
        "--topic",
        TOPIC,
        "--from-offset",
        "1",
        "--max",
        "1",
        "--partition",
        "0",
    ];
    let one = program(folder.path())
        .args(one)
        .env("PLATFORM_RUN_ID", RUN)
        .output()
        .unwrap();
    assert_eq!(json(&one)["offset"], 2);
    let beyond = run(
        folder.path(),
        &[
            "bus",
            "read",
            "--topic",
            TOPIC,
            "--run",
            RUN,
            "--from-offset",
            "9",
        ],
    );
    assert_eq!(
        (beyond.status.code(), stdout(&beyond).as_str()),
        (Some(0), "")
    );
}

#[test]
fn heads_are_listed_by_topic_and_partition() {
    let folder = folder();
    write_bus(folder.path(), "{}\n{}\n{\"torn");
    let heads = run(folder.path(), &["bus", "head", "--run", RUN]);
    let wanted =
        serde_json::json!([{"topic": TOPIC, "partition": 0, "next_offset": 2, "bytes": 12}]);
    assert_eq!(json(&heads), wanted);
    let none = run(
        folder.path(),
        &["bus", "head", "--run", RUN, "--topic", "other"],
    );
    assert_eq!(json(&none), serde_json::json!([]));
}

#[test]
fn a_record_that_is_no_json_and_a_missing_run_are_named() {
    let folder = folder();
    write_bus(folder.path(), "{}\nnothing\n");
    let bad = run(
        folder.path(),
        &["bus", "read", "--topic", TOPIC, "--run", RUN],
    );
    assert_eq!(bad.status.code(), Some(1));
    assert!(stderr(&bad).contains("EB_RECORD_INVALID") && stderr(&bad).contains("record 1"));
    assert_eq!(stdout(&bad).lines().count(), 1);
    let no_run = run(folder.path(), &["bus", "head"]);
    assert_eq!(no_run.status.code(), Some(1));
    assert!(stderr(&no_run).contains("PLATFORM_RUN_ID_MISSING"));
}
