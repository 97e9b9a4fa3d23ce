//! Settings as a whole: the shipped profiles, the order of layers, and every named code.

use super::backends::{AdmissionSettings, BusKind, CheckpointBackend};
use super::layers::{Layers, Origin};
use super::policy::VerifyGates;
use super::*;

fn source(text: &str) -> ProfileSource {
    ProfileSource {
        path: PathBuf::from("nowhere/test.yaml"),
        text: text.to_string(),
        embedded: false,
    }
}

fn shipped_profile(name: &str) -> ProfileSource {
    let path = format!("config/platform/profiles/{name}.yaml");
    let text = shipped::text_of(&path).unwrap().to_string();
    ProfileSource {
        path: PathBuf::from(path),
        text,
        embedded: true,
    }
}

fn load(text: &str) -> Settings {
    Settings::load(&source(text), &Layers::default())
        .map_err(|error| error.to_string())
        .unwrap()
}

/// `code key` of every problem, sorted.
fn problems(profile: &ProfileSource, layers: &Layers) -> Vec<String> {
    let (_, problems) = Settings::read(profile, layers)
        .map_err(|e| e.to_string())
        .unwrap();
    let mut lines: Vec<String> = problems
        .iter()
        .map(|problem| format!("{} {}", problem.code, problem.key))
        .collect();
    lines.sort();
    lines
}

fn origin_of(settings: &Settings, key: &str) -> Origin {
    settings
        .effective
        .iter()
        .find(|value| value.key == key)
        .unwrap()
        .origin
        .clone()
}

const PARITY_ENVIRONMENT: [(&str, &str); 14] = [
    ("OBJECT_STORE_ENDPOINT", "http://localhost:9000"),
    ("OBJECT_STORE_REGION", "us-east-1"),
    ("ORACLE_ROOT", "s3://oracle-store"),
    ("ORACLE_ENGINE_RUN_ROOT", "s3://oracle-store/run"),
    ("ORACLE_SCENARIO_ID", "baseline_v1"),
    ("ORACLE_STREAM_VIEW_ROOT", "s3://oracle-store/views"),
    ("IG_INGEST_URL", "http://localhost:8081"),
    (
        "IG_ADMISSION_DSN",
        "postgresql://u:hidden@localhost:5434/platform",
    ),
    (
        "WSP_CHECKPOINT_DSN",
        "postgresql://u:hidden@localhost:5434/platform",
    ),
    ("EVENT_BUS_STREAM", "auto"),
    ("EVENT_BUS_REGION", "us-east-1"),
    ("EVENT_BUS_ENDPOINT_URL", "http://localhost:4566"),
    ("CONTROL_BUS_STREAM", "sr-control-bus"),
    ("CONTROL_BUS_REGION", "us-east-1"),
];

#[test]
fn the_local_profile_works_with_nothing_set() {
    let settings = Settings::load(&shipped_profile("local"), &Layers::default()).unwrap();
    assert_eq!(settings.runs_root(), "runs");
    assert_eq!(settings.policy.stream_speedup, 600.0);
    assert_eq!(settings.policy.verify_gates, VerifyGates::Warn);
    assert_eq!(settings.wiring.oracle_engine_run_root, None);
    assert_eq!(settings.wiring.event_bus.partitions_of("any"), 1);
    assert!(!settings.strict_seal());
    assert!(matches!(settings.gate_backend(), Ok(GateBackend::Embedded)));
    assert_eq!(settings.coordination_dsn(), None);
}

#[test]
fn an_empty_profile_has_every_default_of_the_contract() {
    let settings = load("profile_id: local");
    let wiring = &settings.wiring;
    assert_eq!(settings.policy.policy_rev, "local");
    assert_eq!(settings.policy.stream_speedup, 1.0);
    assert_eq!(wiring.oracle_root, "runs/local_full_run-5");
    assert_eq!(wiring.ig_ingest_url, "http://localhost:8081");
    assert_eq!(
        (wiring.event_bus.kind, wiring.control_bus.kind),
        (BusKind::File, BusKind::File)
    );
    assert_eq!(wiring.wsp_checkpoint.flush_every, 1);
    assert_eq!(wiring.wsp_retry.max_attempts, 5);
    assert_eq!(
        wiring.wsp_producer.producer_id.as_deref(),
        Some("svc:world_stream_producer")
    );
    assert_eq!(wiring.security.auth_mode, "disabled");
    assert_eq!(wiring.security.api_key_header, "X-IG-Api-Key");
    assert_eq!(wiring.health.probe_interval_seconds, 30);
    assert_eq!(wiring.gate.facts_absence_cache_ms, 2000);
    assert_eq!(wiring.gate.shutdown_deadline_ms, 10_000);
    assert_eq!(wiring.stream.batch_events_max, 512);
}

#[test]
fn the_parity_profile_resolves_to_shared_backends() {
    let mut layers = Layers::of(PARITY_ENVIRONMENT);
    let missing = problems(&shipped_profile("local_parity"), &layers);
    assert_eq!(missing, ["ENV_VAR_MISSING wiring.control_bus.endpoint_url"]);
    let url = ("CONTROL_BUS_ENDPOINT_URL", "http://localhost:4566");
    layers = Layers::of(PARITY_ENVIRONMENT.into_iter().chain([url]));
    let settings = Settings::load(&shipped_profile("local_parity"), &layers).unwrap();
    let wiring = &settings.wiring;
    assert!(wiring.objects.store.is_s3());
    assert_eq!(wiring.objects.s3.path_style, Some(true));
    assert!(matches!(
        wiring.admission,
        AdmissionSettings::Postgres { .. }
    ));
    assert_eq!(wiring.wsp_checkpoint.backend, CheckpointBackend::Postgres);
    assert_eq!(
        wiring.event_bus.stream, None,
        "auto is one stream per topic"
    );
    assert_eq!(settings.policy.verify_gates, VerifyGates::Enforce);
    assert!(matches!(
        settings.gate_backend(),
        Ok(GateBackend::Managed { .. })
    ));
    assert!(settings.coordination_dsn().is_some());
    settings.require_backends().unwrap();
}

#[test]
fn bus_and_admission_are_embedded_together_or_shared_together() {
    let codes = |profile: &str| {
        let settings = load(profile);
        let error = settings.gate_backend().unwrap_err();
        let problem = &error.problems()[0];
        format!("{} {}", problem.code, problem.key)
    };
    let kinesis = "profile_id: local\nwiring: {event_bus_kind: kinesis, event_bus: {stream: auto}}";
    assert_eq!(
        codes(kinesis),
        "BACKEND_NOT_AVAILABLE wiring.admission_db_path"
    );
    let postgres = "profile_id: local\nwiring: {admission_db_path: 'postgresql://u@h/d'}";
    assert_eq!(
        codes(postgres),
        "BACKEND_NOT_AVAILABLE wiring.event_bus_kind"
    );
    let kafka = "profile_id: local\nwiring: {event_bus_kind: kafka}";
    assert_eq!(codes(kafka), "BACKEND_NOT_AVAILABLE wiring.event_bus_kind");
}

#[test]
fn every_unset_variable_of_a_managed_profile_is_named_under_its_code_at_once() {
    let lines = problems(&shipped_profile("dev"), &Layers::default());
    assert_eq!(
        lines,
        [
            "CHECKPOINT_DSN_MISSING wiring.wsp_checkpoint.dsn",
            "CONTROL_BUS_STREAM_MISSING wiring.control_bus.stream",
            "ENV_VAR_MISSING wiring.control_bus.region",
            "ENV_VAR_MISSING wiring.event_bus.region",
            "ENV_VAR_MISSING wiring.object_store.region",
            "ENV_VAR_MISSING wiring.oracle_engine_run_root",
            "ENV_VAR_MISSING wiring.oracle_root",
            "ENV_VAR_MISSING wiring.oracle_scenario_id",
            "ENV_VAR_MISSING wiring.oracle_stream_view_root",
            "ENV_VAR_MISSING wiring.security.wsp_auth_token",
            "EVENT_BUS_STREAM_MISSING wiring.event_bus.stream",
            "IG_ADMISSION_DSN_MISSING wiring.admission_db_path",
            "IG_INGEST_URL_MISSING wiring.ig_ingest_url",
        ]
    );
    let error = Settings::load(&shipped_profile("dev"), &Layers::default())
        .err()
        .unwrap();
    assert!(
        error
            .to_string()
            .contains("${WSP_CHECKPOINT_DSN} is not set"),
        "{error}"
    );
    assert!(load("profile_id: local").profile_id == "local");
}

#[test]
fn all_shipped_profiles_differ_only_where_they_may() {
    for name in ["local", "local_parity", "dev", "prod"] {
        let (settings, found) = Settings::read(&shipped_profile(name), &Layers::default()).unwrap();
        assert_eq!(settings.profile_id, name);
        assert_eq!(settings.strict_seal(), matches!(name, "dev" | "prod"));
        let unexpected: Vec<_> = found
            .iter()
            .filter(|p| !p.code.ends_with("_MISSING"))
            .collect();
        assert!(unexpected.is_empty(), "{name}: {unexpected:?}");
    }
}

#[test]
fn a_managed_profile_never_falls_back_to_folders_in_silence() {
    let lines = problems(&source("profile_id: prod"), &Layers::default());
    assert_eq!(
        lines,
        [
            "IG_ADMISSION_DSN_MISSING wiring.admission_db_path",
            "LOCAL_BACKEND_IN_MANAGED_PROFILE wiring.control_bus.kind",
            "LOCAL_BACKEND_IN_MANAGED_PROFILE wiring.event_bus_kind",
            "LOCAL_BACKEND_IN_MANAGED_PROFILE wiring.object_store.root",
            "LOCAL_BACKEND_IN_MANAGED_PROFILE wiring.wsp_checkpoint.backend",
        ]
    );
    let explicit = "
profile_id: prod
wiring:
  object_store: {root: runs, kind: file}
  event_bus_kind: file
  control_bus: {kind: file}
  wsp_checkpoint: {backend: file}
  admission_db_path: runs/fraud-platform/ig.db
";
    let settings = load(explicit);
    assert!(settings.strict_seal());
    assert!(matches!(settings.gate_backend(), Ok(GateBackend::Embedded)));
    assert_eq!(settings.coordination_dsn(), None);
}

#[test]
fn unknown_keys_are_refused_by_their_path_and_other_planes_pass() {
    let text = "
profile_id: local
ieg: {anything: 1}
label_store: [1]
typo: 5
policy: {stream_speedupp: 2, case_policy: {x: 1}}
wiring:
  object_store: {roots: x}
  archive_writer: {x: 1}
  event_bus: {topic_any: t, sharding: 3}
";
    assert_eq!(
        problems(&source(text), &Layers::default()),
        [
            "CONFIG_KEY_UNKNOWN policy.stream_speedupp",
            "CONFIG_KEY_UNKNOWN typo",
            "CONFIG_KEY_UNKNOWN wiring.event_bus.sharding",
            "CONFIG_KEY_UNKNOWN wiring.object_store.roots",
        ]
    );
}

#[test]
fn keys_of_the_pull_model_are_refused_by_their_own_code() {
    let text = "
profile_id: local
wiring:
  ready_lease: {ttl: 1}
  pull_sharding: {}
  pull_time_budget_seconds: 5
  security: {ready_allowlist: [x]}
";
    assert_eq!(
        problems(&source(text), &Layers::default()),
        [
            "PULL_WIRING_DEPRECATED wiring.pull_sharding",
            "PULL_WIRING_DEPRECATED wiring.pull_time_budget_seconds",
            "PULL_WIRING_DEPRECATED wiring.ready_lease",
            "PULL_WIRING_DEPRECATED wiring.security.ready_allowlist",
        ]
    );
}

#[test]
fn kinds_that_do_not_exist_are_refused_by_their_codes() {
    let text = "
profile_id: local
wiring:
  event_bus_kind: pulsar
  control_bus: {kind: carrier_pigeon}
  wsp_checkpoint: {backend: redis}
  object_store: {kind: tape}
";
    assert_eq!(
        problems(&source(text), &Layers::default()),
        [
            "CHECKPOINT_BACKEND_UNSUPPORTED wiring.wsp_checkpoint.backend",
            "CONTROL_BUS_KIND_UNSUPPORTED wiring.control_bus.kind",
            "EB_KIND_UNSUPPORTED wiring.event_bus_kind",
            "OBJECT_STORE_KIND_UNSUPPORTED wiring.object_store.kind",
        ]
    );
}

#[test]
fn managed_kinds_without_their_resource_are_refused_by_their_codes() {
    let text = "
profile_id: local
wiring:
  event_bus_kind: kinesis
  control_bus: {kind: kinesis}
  wsp_checkpoint: {backend: postgres}
  object_store: {kind: s3}
";
    assert_eq!(
        problems(&source(text), &Layers::default()),
        [
            "CHECKPOINT_DSN_MISSING wiring.wsp_checkpoint.dsn",
            "CONTROL_BUS_STREAM_MISSING wiring.control_bus.stream",
            "EVENT_BUS_STREAM_MISSING wiring.event_bus.stream",
            "OBJECT_STORE_BUCKET_MISSING wiring.object_store.bucket",
        ]
    );
}

#[test]
fn a_flag_beats_the_environment_and_the_environment_beats_the_profile() {
    let text = "profile_id: local\nwiring: {ig_ingest_url: 'http://file:1'}";
    let key = "wiring.ig_ingest_url";
    let mut layers = Layers::default();
    let url = |layers: &Layers| {
        let settings = Settings::load(&source(text), layers).unwrap();
        (
            settings.wiring.ig_ingest_url.clone(),
            origin_of(&settings, key),
        )
    };
    assert_eq!(
        url(&layers),
        ("http://file:1".into(), Origin::Profile(vec![]))
    );
    layers = Layers::of([("IG_INGEST_URL", "http://env:1/")]);
    assert_eq!(
        url(&layers),
        (
            "http://env:1".into(),
            Origin::Environment("IG_INGEST_URL".into())
        )
    );
    layers.set_flag(key, "http://flag:1");
    assert_eq!(url(&layers), ("http://flag:1".into(), Origin::Flag));
}

#[test]
fn any_key_can_be_set_by_a_variable_named_after_it() {
    let layers = Layers::of([("WELLSPRING_WIRING_GATE_FACTS_ABSENCE_CACHE_MS", "9")]);
    let settings = Settings::load(&source("profile_id: local"), &layers).unwrap();
    assert_eq!(settings.wiring.gate.facts_absence_cache_ms, 9);
}

#[test]
fn a_flag_for_a_key_that_does_not_exist_is_refused() {
    let mut layers = Layers::default();
    layers.set_flag("wiring.gate.flush", "1");
    let lines = problems(&source("profile_id: local"), &layers);
    assert_eq!(lines, ["CONFIG_KEY_UNKNOWN wiring.gate.flush"]);
}

#[test]
fn endpoint_and_region_of_the_profile_beat_the_environment() {
    let text = "
profile_id: local
wiring:
  object_store: {root: 's3://b', endpoint: 'http://profile:1'}
";
    let layers = Layers::of([
        ("OBJECT_STORE_ENDPOINT", "http://env:1"),
        ("OBJECT_STORE_REGION", "eu-1"),
    ]);
    let settings = Settings::load(&source(text), &layers).unwrap();
    let s3 = &settings.wiring.objects.s3;
    assert_eq!(s3.endpoint.as_deref(), Some("http://profile:1"));
    assert_eq!(s3.region.as_deref(), Some("eu-1"));
}

#[test]
fn an_embedded_bus_with_objects_in_a_bucket_is_refused_by_its_key() {
    let settings = load("profile_id: local\nwiring: {object_store: {root: 's3://b'}}");
    let error = settings.require_backends().unwrap_err();
    assert_eq!(error.code(), "BACKEND_NOT_AVAILABLE");
    assert_eq!(error.problems()[0].key, "wiring.object_store.root");
}

#[test]
fn s3_is_reached_by_the_profile_then_by_the_components_variables_then_by_the_common_ones() {
    let text = "profile_id: local\nwiring: {object_store: {root: 's3://b'}}";
    let s3 = |variables: &[(&str, &str)]| {
        let layers = Layers::of(variables.iter().copied());
        let settings = Settings::load(&source(text), &layers).unwrap();
        settings.wiring.objects.clone()
    };
    let common = [
        ("AWS_ENDPOINT_URL", "http://aws:1"),
        ("AWS_DEFAULT_REGION", "eu-9"),
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "very-secret"),
    ];
    let objects = s3(&common);
    assert_eq!(objects.s3.endpoint.as_deref(), Some("http://aws:1"));
    assert_eq!(objects.gate_s3.region.as_deref(), Some("eu-9"));
    assert!(objects.s3.credentials.is_some());
    assert!(!format!("{objects:?}").contains("very-secret"));
    let own = [
        ("SR_S3_ENDPOINT_URL", "http://sr:1"),
        ("IG_S3_ENDPOINT_URL", "http://ig:1"),
        ("IG_S3_PATH_STYLE", "true"),
        ("IG_AWS_READ_TIMEOUT_SECONDS", "7"),
        ("OBJECT_STORE_READ_TIMEOUT", "0.5"),
        ("OBJECT_STORE_MAX_ATTEMPTS", "9"),
    ];
    let objects = s3(&[common.as_slice(), &own].concat());
    assert_eq!(objects.s3.endpoint.as_deref(), Some("http://sr:1"));
    assert_eq!(objects.gate_s3.endpoint.as_deref(), Some("http://ig:1"));
    assert_eq!(
        (objects.s3.path_style, objects.gate_s3.path_style),
        (None, Some(true))
    );
    assert_eq!(objects.s3.patience.read_timeout.as_millis(), 500);
    assert_eq!(objects.s3.patience.attempts_max, 9);
    assert_eq!(objects.gate_s3.patience.read_timeout.as_secs(), 7);
    assert_eq!(objects.gate_s3.patience.attempts_max, 3);
}

#[test]
fn a_bucket_is_a_folder_only_when_nothing_says_s3() {
    for (section, root) in [
        ("{bucket: b}", "b"),
        ("{bucket: b, region: r}", "s3://b"),
        ("{bucket: b, endpoint: 'http://e'}", "s3://b"),
        ("{bucket: b, kind: s3}", "s3://b"),
        ("{bucket: b, root: r}", "r"),
        ("{}", "runs"),
    ] {
        let settings = load(&format!(
            "profile_id: local\nwiring: {{object_store: {section}}}"
        ));
        assert_eq!(settings.runs_root(), root, "{section}");
    }
}

#[test]
fn limits_are_checked_against_each_other() {
    let text = "
profile_id: local
wiring:
  gate: {credit_events_max: 10, credit_bytes_max: 8192, body_bytes_max: 1048576,
         batch_body_bytes_max: 65536, header_timeout_ms: 40000}
  wsp_retry: {base_delay_ms: 9000}
  supervision: {backoff_first_ms: 40000}
";
    assert_eq!(
        problems(&source(text), &Layers::default()),
        [
            "CONFIG_LIMITS_CONFLICT wiring.gate.batch_body_bytes_max",
            "CONFIG_LIMITS_CONFLICT wiring.gate.batch_events_max",
            "CONFIG_LIMITS_CONFLICT wiring.gate.body_bytes_max",
            "CONFIG_LIMITS_CONFLICT wiring.gate.header_timeout_ms",
            "CONFIG_LIMITS_CONFLICT wiring.supervision.backoff_first_ms",
            "CONFIG_LIMITS_CONFLICT wiring.wsp_retry.base_delay_ms",
        ]
    );
}

#[test]
fn values_of_the_wrong_kind_are_refused_by_their_key() {
    let text = "
profile_id: local
policy: {stream_speedup: fast, require_gate_pass: perhaps, verify_gates: sometimes}
wiring: {gate: {facts_absence_cache_ms: -1}, event_bus: {partitions: 0}, ig_ingest_url: 'host:1'}
";
    assert_eq!(
        problems(&source(text), &Layers::default()),
        [
            "CONFIG_VALUE_INVALID policy.require_gate_pass",
            "CONFIG_VALUE_INVALID policy.stream_speedup",
            "CONFIG_VALUE_INVALID policy.verify_gates",
            "CONFIG_VALUE_INVALID wiring.event_bus.partitions",
            "CONFIG_VALUE_INVALID wiring.gate.facts_absence_cache_ms",
            "IG_INGEST_URL_INVALID wiring.ig_ingest_url",
        ]
    );
}

#[test]
fn partitions_are_one_number_or_numbers_by_topic() {
    let bus = |value: &str| {
        let text = format!("profile_id: local\nwiring: {{event_bus: {{partitions: {value}}}}}");
        load(&text).wiring.event_bus
    };
    assert_eq!(bus("4").partitions_of("x"), 4);
    let by_topic = bus("{default: 2, fp.bus.traffic.fraud.v1: 8}");
    assert_eq!(by_topic.partitions_of("fp.bus.traffic.fraud.v1"), 8);
    assert_eq!(by_topic.partitions_of("x"), 2);
    let layers = Layers::of([("WELLSPRING_WIRING_EVENT_BUS_PARTITIONS", "4")]);
    let settings = Settings::load(&source("profile_id: local"), &layers).unwrap();
    assert_eq!(settings.wiring.event_bus.partitions_of("x"), 4);
}

#[test]
fn an_output_list_of_the_environment_beats_the_profile_and_ids_beat_files() {
    let text = "profile_id: local\npolicy: {traffic_output_ids: [a], traffic_output_ids_ref: f}";
    let lists = |layers: Layers| {
        let policy = Settings::load(&source(text), &layers).unwrap().policy;
        (policy.traffic_output_ids, policy.traffic_output_ids_ref)
    };
    assert_eq!(lists(Layers::default()), (vec!["a".to_string()], None));
    let env_ref = ("WSP_TRAFFIC_OUTPUT_IDS_REF", "g");
    assert_eq!(
        lists(Layers::of([env_ref])),
        (vec![], Some("g".to_string()))
    );
    let env_ids = ("WSP_TRAFFIC_OUTPUT_IDS", "b, c");
    let expected = (vec!["b".to_string(), "c".to_string()], None);
    assert_eq!(lists(Layers::of([env_ref, env_ids])), expected);
}

#[test]
fn no_secret_is_ever_shown() {
    let text = "
profile_id: local
wiring:
  admission_db_path: postgresql://user:hidden@h/db
  wsp_checkpoint: {dsn: 'postgresql://user:hidden@h/db?password=hidden'}
  security:
    auth_allowlist: [hidden]
    wsp_auth_token: hidden
    service_token_secrets: [hidden, hidden]
";
    let settings = load(text);
    let shown = serde_json::to_string(&settings.effective).unwrap();
    assert!(!shown.contains("hidden"), "{shown}");
    let debug = format!("{:?} {:?}", settings.policy, settings.wiring);
    assert!(!debug.contains("hidden"), "{debug}");
    assert!(shown.contains("postgresql://***@h/db"));
}

#[test]
fn secrets_of_the_environment_count_only_when_the_profile_has_none() {
    let layers = Layers::of([("IG_SERVICE_TOKEN_SECRETS", "one, two")]);
    let count = |text: &str| {
        let settings = Settings::load(&source(text), &layers).unwrap();
        settings.wiring.security.service_token_secrets.len()
    };
    assert_eq!(count("profile_id: local"), 2);
    let own = "profile_id: local\nwiring: {security: {service_token_secrets: [x]}}";
    assert_eq!(count(own), 1);
}

#[test]
fn a_broken_profile_file_is_refused_with_its_place() {
    for (text, part) in [
        ("a: [", "nowhere/test.yaml"),
        ("profile_id: x\nprofile_id: y", "duplicate"),
        ("- 1", "must be a set of keys"),
    ] {
        let error = Settings::read(&source(text), &Layers::default())
            .err()
            .unwrap();
        assert_eq!(error.code(), "PROFILE_INVALID");
        assert!(error.to_string().contains(part), "{error}");
    }
    let lines = problems(&source("wiring: 5"), &Layers::default());
    assert_eq!(
        lines,
        ["CONFIG_VALUE_INVALID wiring", "PROFILE_INVALID profile_id"]
    );
}

#[test]
fn references_are_found_beside_the_profile_or_in_the_program_itself() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mine.yaml"), "output_ids: [a]").unwrap();
    let path = folder.path().join("p.yaml");
    let profile = ProfileSource {
        path,
        text: "profile_id: local".to_string(),
        embedded: false,
    };
    let settings = Settings::load(&profile, &Layers::default()).unwrap();
    assert_eq!(
        settings.load_ref_value("mine.yaml").unwrap()["output_ids"][0],
        "a"
    );
    let shipped = settings
        .load_ref_text("/elsewhere/config/platform/ig/class_map_v0.yaml")
        .unwrap();
    assert!(shipped.text.contains("event_types"));
    assert_eq!(
        settings.resolve_ref("none.yaml").unwrap_err().code(),
        "CONFIG_REF_MISSING"
    );
    let s3 = settings.resolve_ref("s3://bucket/list.txt").unwrap_err();
    assert_eq!(s3.code(), "CONFIG_REF_UNSUPPORTED");
}
