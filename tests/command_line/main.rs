//! The program as a person or a script meets it: exit codes, output, errors.

mod bus;
mod gate_answers;
mod prune;

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

/// The program in an empty folder with a clean environment.
fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wellspring"));
    command.current_dir(folder).env_clear();
    command
}

fn run(folder: &Path, args: &[&str]) -> Output {
    program(folder)
        .args(args)
        .output()
        .expect("the program runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json(output: &Output) -> Value {
    let text = stdout(output);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{}", stderr(output)))
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn help_teaches_and_usage_errors_exit_2() {
    let folder = folder();
    let help = run(folder.path(), &["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(stdout(&help).contains("Examples:") && stdout(&help).contains("Exit codes:"));
    for args in [&["nothing"][..], &["run"], &["--format", "xml", "ps"], &[]] {
        let output = run(folder.path(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(
            stdout(&output).is_empty() && !stderr(&output).is_empty(),
            "{args:?}"
        );
    }
}

#[test]
fn every_command_has_help_with_an_example_or_a_sentence() {
    let folder = folder();
    let help = stdout(&run(folder.path(), &["--help"]));
    let commands = help
        .split("Commands:")
        .nth(1)
        .unwrap()
        .split("Options:")
        .next()
        .unwrap();
    for line in commands
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
    {
        let command = line.split_whitespace().next().unwrap();
        if command == "help" {
            continue;
        }
        assert!(
            line.split_whitespace().count() > 2,
            "{command} does not say what it does"
        );
        let output = run(folder.path(), &[command, "--help"]);
        assert_eq!(output.status.code(), Some(0), "{command}");
    }
}

#[test]
fn a_new_run_is_json_in_a_pipe_and_is_shown_again() {
    let folder = folder();
    let first = json(&run(folder.path(), &["run", "new"]));
    let second = json(&run(folder.path(), &["run", "new"]));
    assert_ne!(first["platform_run_id"], second["platform_run_id"]);
    let shown = json(&run(folder.path(), &["--format", "json", "run", "show"]));
    assert_eq!(shown["platform_run_id"], second["platform_run_id"]);
    assert_eq!(shown["events"][0]["event_kind"], "run_created");
    let root = second["run_root"].as_str().unwrap();
    assert!(folder.path().join(root).join("session.jsonl").is_file());
}

#[test]
fn the_root_flag_moves_everything_of_a_run() {
    let folder = folder();
    let new = json(&run(folder.path(), &["run", "new", "--root", "elsewhere"]));
    let root = new["run_root"].as_str().unwrap();
    assert!(
        root.starts_with("elsewhere/fraud-platform/platform_"),
        "{root}"
    );
    assert!(
        folder
            .path()
            .join("elsewhere/fraud-platform/ACTIVE_RUN_ID")
            .is_file()
    );
    assert!(!folder.path().join("runs").exists());
}

#[test]
fn a_wrong_run_id_is_refused_wherever_it_comes_from() {
    let folder = folder();
    let given = run(folder.path(), &["run", "new", "--id", "../../etc"]);
    let variable = program(folder.path())
        .args(["run", "show"])
        .env("PLATFORM_RUN_ID", "platform_1")
        .output()
        .unwrap();
    let none = run(folder.path(), &["run", "show"]);
    for (output, start) in [
        (given, "error: PLATFORM_RUN_ID_INVALID: --id holds"),
        (
            variable,
            "error: PLATFORM_RUN_ID_INVALID: PLATFORM_RUN_ID holds",
        ),
        (
            none,
            "error: PLATFORM_RUN_ID_MISSING: no platform run is active",
        ),
    ] {
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).starts_with(start), "{}", stderr(&output));
        assert!(stderr(&output).contains("\nhint: "));
        assert!(stdout(&output).is_empty());
    }
    assert!(
        !folder.path().join("runs").exists(),
        "a refused id leaves nothing behind"
    );
}

#[test]
fn config_shows_value_and_origin_of_every_layer() {
    let folder = folder();
    let output = program(folder.path())
        .args([
            "--format",
            "json",
            "--set",
            "wiring.gate.batch_events_max=9",
        ])
        .args(["config", "show", "wiring"])
        .env("IG_INGEST_URL", "http://env:1")
        .output()
        .unwrap();
    let view = json(&output);
    let value = |key: &str| {
        let values = view["values"].as_array().unwrap();
        values
            .iter()
            .find(|value| value["key"] == key)
            .unwrap()
            .clone()
    };
    assert_eq!(
        value("wiring.gate.batch_events_max")["origin"]["from"],
        "flag"
    );
    assert_eq!(
        value("wiring.ig_ingest_url")["origin"]["name"],
        "IG_INGEST_URL"
    );
    assert_eq!(
        value("wiring.control_bus.kind")["origin"]["from"],
        "profile"
    );
    assert_eq!(value("wiring.gate.facts_absence_cache_ms")["value"], 2000);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn config_check_lists_every_problem_of_a_managed_profile_and_fails() {
    let folder = folder();
    let output = run(
        folder.path(),
        &["--profile", "prod", "--format", "json", "config", "check"],
    );
    assert_eq!(output.status.code(), Some(1));
    let view = json(&output);
    let codes: Vec<&str> = view["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["code"].as_str().unwrap())
        .collect();
    for code in [
        "CHECKPOINT_DSN_MISSING",
        "CONTROL_BUS_STREAM_MISSING",
        "IG_ADMISSION_DSN_MISSING",
    ] {
        assert!(codes.contains(&code), "{code}: {codes:?}");
    }
}

#[test]
fn a_managed_profile_that_resolves_says_which_credentials_are_missing() {
    let folder = folder();
    let mut command = program(folder.path());
    for variable in [
        "OBJECT_STORE_REGION",
        "ORACLE_ROOT",
        "ORACLE_ENGINE_RUN_ROOT",
        "ORACLE_SCENARIO_ID",
        "ORACLE_STREAM_VIEW_ROOT",
        "EVENT_BUS_STREAM",
        "EVENT_BUS_REGION",
        "CONTROL_BUS_STREAM",
        "CONTROL_BUS_REGION",
        "IG_SERVICE_TOKEN",
    ] {
        command.env(variable, "x");
    }
    command.env("IG_INGEST_URL", "http://gate:1");
    for variable in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        command.env_remove(variable);
    }
    for variable in ["IG_ADMISSION_DSN", "WSP_CHECKPOINT_DSN"] {
        command.env(variable, "postgresql://user:hidden@db/platform");
    }
    let output = command
        .args(["--profile", "dev", "run", "new"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(
        said.starts_with("error: S3_CREDENTIALS_MISSING: "),
        "{said}"
    );
    assert!(!said.contains("hidden"));
}

#[test]
fn doctor_is_well_in_an_empty_folder_and_shows_every_failed_check() {
    let folder = folder();
    let free_port = ["--set", "wiring.gate.bind_port=0"];
    let nobody = ["--set", "wiring.ig_ingest_url=http://127.0.0.1:9"];
    let flags = [free_port, nobody].concat();
    let well = run(
        folder.path(),
        &[&flags[..], &["doctor", "--format", "json"]].concat(),
    );
    assert_eq!(well.status.code(), Some(0), "{}", stdout(&well));
    assert_eq!(json(&well)["ok"], true);
    let sick = [
        &flags[..],
        &["--set", "wiring.gate.min_free_bytes=9000000000000000000"],
        &["--set", "policy.class_map_ref=none.yaml", "doctor"],
    ]
    .concat();
    let output = run(folder.path(), &sick);
    assert_eq!(output.status.code(), Some(1));
    let failed = stdout(&output)
        .lines()
        .filter(|line| line.contains("FAILED"))
        .count();
    assert_eq!(failed, 2, "{}", stdout(&output));
}

#[test]
fn a_reader_that_stops_reading_is_no_failure() {
    let folder = folder();
    let mut child = program(folder.path())
        .args(["config", "show"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).is_empty(), "{}", stderr(&output));
}
