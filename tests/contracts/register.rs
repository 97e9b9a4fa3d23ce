//! Where every reason code of the contract is tested, and why a few are not provoked from outside.
//!
//! The list is checked: the named file must speak of the code, and `wellspring explain` must know it.

use std::fs;

use crate::support::Site;
use crate::support::world::repository;

/// Codes provoked through the built program, by the file that does it.
const PROVOKED: &[(&str, &str)] = &[
    (
        "tests/stream_sort/main.rs",
        "OUTPUT_IDS_MISSING TEMPLATE_TOKEN_MISSING OUTPUT_PATHS_EMPTY MISSING_TS_UTC \
      MISSING_SORT_KEY PARTITION_GRANULARITY_UNSUPPORTED STREAM_SORT_TS_RANGE_MISSING \
      STREAM_VIEW_PART_RENAME_COLLISION STREAM_RECEIPT_MISSING STREAM_RECEIPT_MISMATCH STREAM_VIEW_PARTIAL_EXISTS",
    ),
    (
        "tests/contracts/oracle_pack.rs",
        "SCENARIO_ID_MISSING PACK_ROOT_NOT_FOUND WORLD_KEY_MISSING \
      MANIFEST_MISMATCH SEAL_MISMATCH",
    ),
    (
        "tests/contracts/oracle_check.rs",
        "RUN_RECEIPT_UNREADABLE RUN_RECEIPT_INVALID SCENARIO_ID_AMBIGUOUS \
      GATE_RECEIPT_MISSING OUTPUT_MISSING OUTPUT_UNKNOWN OUTPUT_TEMPLATE_MISSING PACK_MANIFEST_MISSING",
    ),
    (
        "tests/contracts/oracle_facts.rs",
        "RUN_FACTS_UNREADABLE RUN_FACTS_INVALID GATE_PASS_MISSING DIGEST_MISSING \
      LOCATOR_MISSING PACK_NOT_SEALED",
    ),
    (
        "tests/contracts/scenario_run.rs",
        "AUTH_DENIED UNKNOWN_OUTPUT_ID UNKNOWN_GATE_ID ENGINE_ROOT_MISSING \
      EVIDENCE_WAITING EVIDENCE_MISSING_DEADLINE EVIDENCE_CONFLICT ORACLE_PACK_INVALID ORACLE_PACK_MISMATCH \
      ENGINE_COMMAND_MISSING ENGINE_COMMAND_TEMPLATE_UNRESOLVED ENGINE_EXIT_NONZERO ENGINE_FAILED ENGINE_TIMEOUT \
      ENGINE_RECEIPT_MISSING ENGINE_RECEIPT_INVALID ENGINE_RECEIPT_MISMATCH EQUIV_KEY_COLLISION \
      FACTS_VIEW_DRIFT READY_SIGNAL_DRIFT PLAN_DRIFT INSTANCE_RECEIPT_DRIFT READY_PUBLISH_FAILED \
      LEASE_BUSY",
    ),
    (
        "tests/contracts/scenario_reemit.rs",
        "REEMIT_NOT_APPLICABLE REEMIT_TERMINAL_ONLY_MISMATCH \
      REEMIT_READY_ONLY_MISMATCH CROSS_RUN_OVERRIDE_REQUIRED CROSS_RUN_OVERRIDE_REASON_NOT_ALLOWED \
      REEMIT_RATE_LIMIT FACTS_VIEW_MISSING",
    ),
    (
        "tests/contracts/ready_decisions.rs",
        "PLATFORM_RUN_ID_MISMATCH SCENARIO_RUN_ID_MISMATCH \
      PLATFORM_RUN_SCOPE_MISMATCH SKIPPED_DUPLICATE PACK_FILE_MISSING PACK_SPEC_INVALID PACK_STATE_MISSING \
      PACK_STATE_INVALID PACK_ACTIVE_RUN_MISSING PACK_ACTIVE_RUN_MISMATCH PACK_PROCESSES_MISSING \
      PACK_PROCESS_MISSING PACK_PROCESS_NOT_RUNNING",
    ),
    (
        "tests/contracts/stream_refusals.rs",
        "PACK_MANIFEST_INVALID WORLD_KEY_MISMATCH NO_TRAFFIC_OUTPUTS \
      CONTEXT_OUTPUT_UNKNOWN PRODUCER_ID_MISSING PRODUCER_ALLOWLIST_MISSING PRODUCER_ALLOWLIST_UNREADABLE \
      PRODUCER_ALLOWLIST_UNSUPPORTED PRODUCER_ALLOWLIST_EMPTY PRODUCER_NOT_ALLOWED CHECKPOINT_DSN_MISSING \
      CONTROL_BUS_STREAM_MISSING CONTROL_BUS_KIND_UNSUPPORTED WSP_LANE_CONFIG_INVALID STREAM_VIEW_MISSING \
      STREAM_VIEW_RECEIPT_BAD STREAM_VIEW_ID_MISMATCH STREAM_VIEW_OUTPUT_MISMATCH STREAM_VIEW_EMPTY \
      PRIMARY_KEY_MISSING STREAM_FAILED IG_PUSH_RETRY_EXHAUSTED IG_PUSH_REJECTED",
    ),
    (
        "tests/contracts/http_edge.rs",
        "UNAUTHORIZED AUTH_MODE_UNKNOWN AUTH_MODE_UNSUPPORTED \
      AUTH_SERVICE_TOKEN_SECRET_MISSING RATE_LIMITED MISSING_QUERY INVALID_JSON IG_UNHEALTHY DISK_SPACE_LOW",
    ),
    ("tests/contracts/hostile.rs", "BODY_TOO_LARGE GATE_BUSY"),
    ("tests/contracts/bounds.rs", "GATE_BUSY BATCH_TOO_LARGE"),
    (
        "tests/parity/s3/refusals.rs",
        "S3_CREDENTIALS_REFUSED S3_CREDENTIALS_MISSING S3_BUCKET_MISSING STORE_ROOT_NOT_FOUND",
    ),
    ("tests/parity/s3/worlds.rs", "SYNC_TARGET_DIFFERS"),
    (
        "src/object_store/s3/tests.rs",
        "S3_ACCESS_DENIED S3_APPEND_CONFLICT S3_ROOT_INVALID S3_ENDPOINT_INVALID S3_REGION_MISSING",
    ),
    (
        "src/object_store/s3/fault.rs",
        "S3_REGION_WRONG S3_REQUEST_REFUSED",
    ),
    (
        "tests/crash/failpoints.rs",
        "FAILPOINTS_INVALID FAILPOINTS_REFUSED",
    ),
    (
        "tests/support/push_cases.rs",
        "ENVELOPE_INVALID PINS_MISSING SCHEMA_POLICY_MISSING SCHEMA_VERSION_REQUIRED \
      SCHEMA_VERSION_NOT_ALLOWED SCHEMA_FAIL",
    ),
    ("tests/contracts/push.rs", "PAYLOAD_HASH_MISMATCH"),
    (
        "tests/contracts/gate_policy.rs",
        "PARTITION_KEY_MISSING UNSUPPORTED_HASH_ALGO OBJECT_STORE_UNHEALTHY",
    ),
];

/// Codes that cannot be provoked from outside on folders of one machine: where they are kept beside the
/// code, and why. `ADMISSION_STATE_INVALID` is not among them: no stored state of the embedded index is
/// unknown, so nothing can say it.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    (
        "STREAM_SORT_STATS_EMPTY",
        "src/world_files/stream_sort/tests.rs",
        "a sort that writes nothing of something",
    ),
    (
        "STREAM_SORT_STATS_RETRY_FAILED",
        "src/world_files/stream_sort/tests.rs",
        "needs a disk that forgets",
    ),
    (
        "STREAM_SORT_OUTPUT_EMPTY",
        "src/world_files/stream_sort/tests.rs",
        "needs parts that vanish while sorting",
    ),
    (
        "STREAM_SORT_VALIDATION_FAILED",
        "src/world_files/stream_sort/tests.rs",
        "needs rows changed while sorting",
    ),
    (
        "EQUIV_KEY_RESOLUTION_FAILED",
        "src/scenario_runner/tests/refusals.rs",
        "needs a table row that vanishes",
    ),
    (
        "LEASE_TOKEN_MISSING",
        "src/scenario_runner/tests/refusals.rs",
        "needs a lease lost between two steps",
    ),
    (
        "LEASE_LOST",
        "src/scenario_runner/tests/refusals.rs",
        "needs a lease taken over between two steps",
    ),
    (
        "ENGINE_INVOCATION_INVALID",
        "src/scenario_runner/tests/submit.rs",
        "the command line cannot ask for it",
    ),
    (
        "PLAN_INVALID",
        "src/scenario_runner/tests/submit.rs",
        "needs a policy no loader accepts",
    ),
    (
        "ATTEMPT_LIMIT_EXCEEDED",
        "src/scenario_runner/tests/engine.rs",
        "needs a crash between two records",
    ),
    (
        "LOCATOR_SCHEMA_INVALID",
        "src/scenario_runner/tests/submit.rs",
        "needs a catalogue no loader accepts",
    ),
    (
        "RECEIPT_SCHEMA_INVALID",
        "src/scenario_runner/tests/submit.rs",
        "needs a gate map no loader accepts",
    ),
    (
        "INSTANCE_SCOPE_MISSING",
        "src/scenario_runner/tests/submit.rs",
        "needs a catalogue without partitions",
    ),
    (
        "PUBLISH_IN_FLIGHT_RETRY",
        "src/http_client/http_client_tests.rs",
        "needs a flush slower than the timeout",
    ),
    (
        "PRECEDING_ITEM_RETRY",
        "actors/ingestion_gate/gate_tests.rs",
        "needs a commit that fails once",
    ),
    (
        "PUBLISH_AMBIGUOUS",
        "src/domain/admission/anomaly.rs",
        "the embedded log commits or does not; Kinesis can",
    ),
    (
        "PUBLISH_AMBIGUOUS_RETRY",
        "src/domain/stream/retry.rs",
        "only said by gates over Kinesis",
    ),
    (
        "BUS_HEALTH_UNKNOWN",
        "src/domain/admission/health.rs",
        "a folder is always known; Kinesis may not be",
    ),
    (
        "SCENARIO_RUN_ID_MISSING",
        "src/domain/stream/ready_decision.rs",
        "the facts schema refuses it before",
    ),
    (
        "DEPENDENCY_NOT_READY",
        "src/domain/stream/required_packs.rs",
        "fallback without a reason of its own",
    ),
    (
        "PLATFORM_RUN_ID_MISSING",
        "src/domain/stream/ready_decision.rs",
        "of a READY: the schema refuses it before",
    ),
    (
        "INSTANCE_DIGEST_MISSING",
        "src/domain/scenario/instance_proof.rs",
        "every locator we write has a digest",
    ),
    (
        "INSTANCE_RECEIPT_SCHEMA_INVALID",
        "src/domain/scenario/instance_proof.rs",
        "we write only valid ones",
    ),
    (
        "STORE_READ_UNHEALTHY",
        "src/domain/reason_codes/admission.rs",
        "needs a file system that cannot tell its free space",
    ),
    (
        "BUS_UNHEALTHY",
        "src/domain/reason_codes/admission.rs",
        "a failed append ends the process; said over Kinesis",
    ),
    (
        "OPS_DB_UNHEALTHY",
        "src/domain/reason_codes/admission.rs",
        "said over PostgreSQL",
    ),
    (
        "GATE_FAIL",
        "src/domain/scenario/evidence.rs",
        "a flag that differs is a conflict, which is checked first",
    ),
    (
        "SYNC_DIGEST_MISMATCH",
        "src/world_files/world_sync.rs",
        "needs a store that keeps other bytes than it was sent",
    ),
    (
        "INTERNAL_ERROR",
        "src/http/mod.rs",
        "needs a panic in a handler",
    ),
];

#[test]
fn every_code_is_spoken_of_where_the_register_says() {
    let mut wrong = Vec::new();
    let provoked = PROVOKED
        .iter()
        .flat_map(|(file, codes)| codes.split_whitespace().map(|code| (*file, code)));
    let elsewhere = ELSEWHERE.iter().map(|(code, file, _)| (*file, *code));
    for (file, code) in provoked.chain(elsewhere) {
        let text = fs::read_to_string(repository().join(file)).unwrap_or_default();
        if !text.contains(code) {
            wrong.push(format!("{code} is not in {file}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_code_is_explained_to_people() {
    let site = Site::new();
    let provoked = PROVOKED
        .iter()
        .flat_map(|(_, codes)| codes.split_whitespace());
    for code in provoked.chain(ELSEWHERE.iter().map(|(code, _, _)| *code)) {
        let explained = site.run(&["explain", code, "--format", "table"]).ok();
        let words = explained.stdout.split_whitespace().count();
        assert!(words > 8, "{code}: {}", explained.everything());
    }
}
