//! `wellspring bootstrap` on the real servers: what is missing is made, repeating it changes nothing, and one server
//! that says no does not hide what the others do.

use crate::support;
use serde_json::Value;
use std::process::Command;

struct Bootstrap {
    bucket: String,
    event_stream: String,
    control_stream: String,
}

impl Bootstrap {
    fn new() -> Self {
        Bootstrap {
            bucket: support::unique_name("runs"),
            event_stream: support::unique_name("events"),
            control_stream: support::unique_name("control"),
        }
    }

    /// Exit code, resources as `(kind, state)` by name, what was said.
    fn run(&self, more: &[(&str, &str)]) -> (Option<i32>, Vec<(String, String)>, String) {
        let root = format!("s3://{}", self.bucket);
        let output = Command::new(env!("CARGO_BIN_EXE_wellspring"))
            .args(["--profile", "local_parity", "--format", "json", "bootstrap"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("PLATFORM_STORE_ROOT", &root)
            .env("ORACLE_ROOT", &root)
            .env("ORACLE_ENGINE_RUN_ROOT", format!("{root}/world"))
            .env("ORACLE_STREAM_VIEW_ROOT", format!("{root}/views"))
            .env("EVENT_BUS_STREAM", &self.event_stream)
            .env("CONTROL_BUS_STREAM", &self.control_stream)
            .envs(more.iter().copied())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let report: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {said}"));
        let resources = report["resources"].as_array().unwrap();
        let text = |resource: &Value, field: &str| resource[field].as_str().unwrap().to_owned();
        let states = resources
            .iter()
            .map(|resource| (text(resource, "kind"), text(resource, "made")));
        (output.status.code(), states.collect(), said)
    }
}

fn states(kinds_and_states: &[(&str, &str)]) -> Vec<(String, String)> {
    let pairs = kinds_and_states.iter();
    pairs
        .map(|(kind, state)| (kind.to_string(), state.to_string()))
        .collect()
}

#[test]
fn what_is_missing_is_made_and_repeating_it_changes_nothing() {
    let bootstrap = Bootstrap::new();
    let (code, made, said) = bootstrap.run(&[]);
    assert_eq!(code, Some(0), "{said}");
    let expected = [
        ("bucket", "created"),
        ("stream", "created"),
        ("stream", "created"),
        ("schema", "ready"),
    ];
    assert_eq!(made, states(&expected));
    let (code, made, said) = bootstrap.run(&[]);
    assert_eq!(code, Some(0), "{said}");
    let expected = [
        ("bucket", "existed"),
        ("stream", "existed"),
        ("stream", "existed"),
        ("schema", "ready"),
    ];
    assert_eq!(made, states(&expected));
}

#[test]
fn a_wrong_key_is_told_by_its_code_and_the_rest_is_made() {
    let secret = support::unique_name("not-the-secret");
    let (code, made, said) = Bootstrap::new().run(&[("AWS_SECRET_ACCESS_KEY", &secret)]);
    assert_eq!(code, Some(1));
    assert!(said.contains("S3_CREDENTIALS_REFUSED"), "{said}");
    assert!(!said.contains(&secret), "{said}");
    let expected = [
        ("bucket", "failed"),
        ("stream", "created"),
        ("stream", "created"),
        ("schema", "ready"),
    ];
    assert_eq!(made, states(&expected));
}

#[test]
fn a_wrong_password_is_told_by_its_code_and_never_shown() {
    let dsn = support::postgres_dsn();
    let (_, rest) = dsn.split_once('@').unwrap();
    let wrong = format!("postgresql://platform:not-the-password@{rest}");
    let more = [
        ("IG_ADMISSION_DSN", wrong.as_str()),
        ("WSP_CHECKPOINT_DSN", &wrong),
    ];
    let (code, made, said) = Bootstrap::new().run(&more);
    assert_eq!(code, Some(1));
    assert!(said.contains("POSTGRES_AUTH_FAILED"), "{said}");
    assert!(!said.contains("not-the-password"), "{said}");
    assert_eq!(made.last().unwrap().1, "failed");
}
