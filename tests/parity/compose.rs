//! The compose file and the native start are the same stack: judged by what a real compose tool makes of the file.

use crate::support;
use serde_yaml_ng::Value;
use std::collections::BTreeMap;
use std::process::Command;

/// `KEY=value` lines of a file of the scripts' folder.
fn versions() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(support::scripts().join("versions.env")).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once('='));
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// The file as a compose tool reads it, every variable replaced.
fn composed() -> Value {
    let output = Command::new(support::scripts().join("compose"))
        .arg("config")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "compose config: {said}");
    assert!(!said.contains("not set"), "a variable is missing: {said}");
    serde_yaml_ng::from_slice(&output.stdout).unwrap()
}

fn service<'a>(composed: &'a Value, name: &str) -> &'a Value {
    let service = &composed["services"][name];
    assert!(service.is_mapping(), "no service {name}");
    service
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn command(service: &Value) -> Vec<&str> {
    let words = service["command"].as_sequence().unwrap();
    words.iter().map(text).collect()
}

/// Where a service is reached from outside: host, port. Tools write it as a line or as a mapping.
fn published(service: &Value) -> (String, String) {
    let ports = service["ports"].as_sequence().unwrap();
    assert_eq!(ports.len(), 1, "one port each: {ports:?}");
    if let Some(line) = ports[0].as_str() {
        let mut parts = line.split(':').map(str::to_owned);
        return (parts.next().unwrap(), parts.next().unwrap());
    }
    let port = match &ports[0]["published"] {
        Value::String(port) => port.clone(),
        other => other.as_u64().unwrap().to_string(),
    };
    (text(&ports[0]["host_ip"]).to_owned(), port)
}

fn native(file: &str) -> String {
    std::fs::read_to_string(support::scripts().join("native").join(file)).unwrap()
}

#[test]
fn the_compose_file_has_the_servers_and_versions_of_the_native_start() {
    let (composed, versions) = (composed(), versions());
    let services = composed["services"].as_mapping().unwrap();
    let mut names: Vec<&str> = services.keys().map(text).collect();
    names.sort_unstable();
    assert_eq!(names, ["kinesis", "kinesis_mock", "postgres", "s3"]);
    let images = [
        ("s3", "SEAWEEDFS_IMAGE"),
        ("kinesis", "NODE_IMAGE"),
        ("kinesis_mock", "NODE_IMAGE"),
        ("postgres", "POSTGRES_IMAGE"),
    ];
    for (name, image) in images {
        assert_eq!(text(&service(&composed, name)["image"]), versions[image]);
    }
    let tag = |image: &str| versions[image].rsplit(':').next().unwrap().to_owned();
    assert_eq!(tag("SEAWEEDFS_IMAGE"), versions["SEAWEEDFS_VERSION"]);
    assert_eq!(tag("POSTGRES_IMAGE"), versions["POSTGRES_VERSION"]);
    let packages = [
        ("kinesis", "kinesalite", "KINESALITE_VERSION"),
        ("kinesis_mock", "kinesis-local", "KINESIS_LOCAL_VERSION"),
    ];
    for (name, package, version) in packages {
        let wanted = format!("{package}@{} ", versions[version]);
        let script = command(service(&composed, name)).join(" ");
        assert!(script.contains(&wanted), "{name}: {script}");
    }
}

#[test]
fn the_compose_file_publishes_the_ports_and_credentials_of_the_environment_on_loopback() {
    let composed = composed();
    let urls = [
        ("s3", support::s3_endpoint()),
        ("kinesis", support::kinesis_endpoint()),
        ("kinesis_mock", support::kinesis_mock_endpoint()),
    ];
    for (name, url) in urls {
        let (host, port) = published(service(&composed, name));
        assert_eq!(url, format!("http://{host}:{port}"), "{name}");
        assert_eq!(host, "127.0.0.1");
    }
    let s3 = &service(&composed, "s3")["environment"];
    let keys = support::aws_keys();
    assert_eq!(text(&s3["AWS_ACCESS_KEY_ID"]), keys.access_key_id);
    assert_eq!(text(&s3["AWS_SECRET_ACCESS_KEY"]), keys.secret_access_key);
    let postgres = service(&composed, "postgres");
    let (host, port) = published(postgres);
    let database = &postgres["environment"];
    let part = |name: &str| text(&database[name]);
    let dsn = format!(
        "postgresql://{}:{}@{host}:{port}/{}",
        part("POSTGRES_USER"),
        part("POSTGRES_PASSWORD"),
        part("POSTGRES_DB")
    );
    assert_eq!(dsn, support::postgres_dsn());
    for name in [
        "IG_ADMISSION_DSN",
        "WSP_CHECKPOINT_DSN",
        "SR_AUTHORITY_STORE_DSN",
    ] {
        assert_eq!(support::variable(name), dsn, "{name}");
    }
}

#[test]
fn every_container_has_a_health_check() {
    let composed = composed();
    for (name, service) in composed["services"].as_mapping().unwrap() {
        let check = &service["healthcheck"];
        let test = check["test"].as_sequence().unwrap();
        assert!(test.len() > 2 && text(&test[0]) == "CMD", "{name:?}");
        assert!(check["retries"].as_u64().unwrap() >= 60, "{name:?}");
        assert!(check["interval"].is_string(), "{name:?}");
    }
}

/// Words of a native script that begin like an option and hold no variable.
fn fixed_options(script: &str, is_option: impl Fn(&str) -> bool) -> Vec<&str> {
    let code = script
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    code.flat_map(str::split_whitespace)
        .map(|word| word.trim_end_matches(')'))
        .filter(|word| is_option(word) && !word.contains('$') && !word.contains("127.0.0.1"))
        .collect()
}

#[test]
fn containers_are_started_with_the_options_of_the_native_start() {
    let composed = composed();
    let s3 = command(service(&composed, "s3"));
    let script = native("s3.sh");
    let options = fixed_options(&script, |word| {
        ["-master.", "-volume.", "-s3", "-filer"]
            .iter()
            .any(|start| word.starts_with(start))
    });
    assert!(options.len() > 10, "{options:?}");
    let missing: Vec<_> = options
        .iter()
        .filter(|option| !s3.contains(option))
        .collect();
    assert!(missing.is_empty(), "s3 in containers lacks {missing:?}");
    let growth = script
        .split_whitespace()
        .find_map(|word| word.strip_prefix("WEED_MASTER_VOLUME_GROWTH_COPY_1="));
    let environment = &service(&composed, "s3")["environment"];
    let composed_growth = &environment["WEED_MASTER_VOLUME_GROWTH_COPY_1"];
    assert!(growth.is_some(), "the native start sets it");
    assert_eq!(composed_growth.as_str(), growth);

    let script = native("postgres.sh");
    let postgres = command(service(&composed, "postgres"));
    let words = fixed_options(&script, |_word| true);
    let pairs = words.windows(2).filter(|pair| pair[0] == "-c");
    let options: Vec<&str> = pairs
        .map(|pair| pair[1])
        .filter(|word| word.contains('=') && !word.contains('"'))
        .collect();
    assert!(options.len() > 5, "{options:?}");
    let missing: Vec<_> = options
        .iter()
        .filter(|option| !postgres.contains(option))
        .collect();
    assert!(
        missing.is_empty(),
        "postgres in containers lacks {missing:?}"
    );

    let script = native("kinesis.sh");
    let kinesis = command(service(&composed, "kinesis")).join(" ");
    for option in fixed_options(&script, |word| {
        word.starts_with("--") && word.ends_with("Ms")
    }) {
        assert!(
            kinesis.contains(option),
            "kinesis in containers lacks {option}"
        );
    }
    let script = native("kinesis_mock.sh");
    let mock = &service(&composed, "kinesis_mock")["environment"];
    let settings = fixed_options(&script, |word| {
        word.split_once('=')
            .is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
    });
    assert!(settings.len() > 6, "{settings:?}");
    for (name, value) in settings
        .iter()
        .filter_map(|setting| setting.split_once('='))
    {
        assert_eq!(text(&mock[name]), value, "{name}");
    }
}
