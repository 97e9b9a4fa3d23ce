"""Identity and hash recipes, written from the contract's text alone (contract 0.1, 1.2). Standard library only."""

import hashlib
import json
from datetime import datetime, timezone


def h(text):
    """Lowercase hex SHA-256 of the UTF-8 bytes."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def h32(text):
    return h(text)[:32]


def cj(value):
    """Compact canonical JSON: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def sj(value):
    """Spaced canonical JSON: sorted keys, one space after separators, ASCII."""
    return json.dumps(value, sort_keys=True, ensure_ascii=True, allow_nan=False)


def ij(value):
    """JSON in source key order, no spaces, ASCII."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def t_off(text):
    """Any zoned time as ISO with +00:00, fraction omitted when zero."""
    moment = datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(timezone.utc)
    return moment.isoformat()


SORT_KEYS = ["ts_utc", "filename", "file_row_number"]
TAIL = ["seed", "manifest_fingerprint", "scenario_id"]

# Contract 3.2: primary keys, in the order that enters the event id.
PRIMARY_KEYS = {
    "arrival_events_5B": TAIL + ["merchant_id", "arrival_seq"],
    "s1_arrival_entities_6B": TAIL + ["merchant_id", "arrival_seq"],
    "s2_flow_anchor_baseline_6B": TAIL + ["flow_id"],
    "s3_flow_anchor_with_fraud_6B": TAIL + ["flow_id"],
    "s2_event_stream_baseline_6B": TAIL + ["flow_id", "event_seq"],
    "s3_event_stream_with_fraud_6B": TAIL + ["flow_id", "event_seq"],
}

# Contract 3.2: path templates; P6 is the token order of all 6B outputs.
P6 = "seed={seed}/parameter_hash={parameter_hash}/manifest_fingerprint={manifest_fingerprint}/scenario_id={scenario_id}"
PATHS = {
    "arrival_events_5B": "data/layer2/5B/arrival_events/seed={seed}/manifest_fingerprint={manifest_fingerprint}"
    "/scenario_id={scenario_id}",
}
for _id in ["s1_arrival_entities_6B", "s1_session_index_6B", "s2_flow_anchor_baseline_6B",
            "s3_flow_anchor_with_fraud_6B", "s2_event_stream_baseline_6B", "s3_event_stream_with_fraud_6B",
            "s4_event_labels_6B", "s4_flow_truth_labels_6B", "s4_flow_bank_view_6B", "s4_case_timeline_6B"]:
    PATHS[_id] = "data/layer3/6B/" + _id + "/" + P6

OVERRIDE_SORT_KEYS = {
    "s1_session_index_6B": ["session_start_utc"],
    "s4_event_labels_6B": ["flow_id", "event_seq"],
    "s4_flow_truth_labels_6B": ["flow_id"],
    "s4_flow_bank_view_6B": ["flow_id"],
}

_TRAFFIC = ["payload.flow_id", "payload.merchant_id", "payload.account_id", "payload.party_id", "event_id"]
_ARRIVAL = ["payload.merchant_id", "payload.arrival_seq", "event_id"]
_ANCHOR = ["payload.flow_id", "payload.merchant_id", "payload.arrival_seq", "event_id"]

# Contract 7.5: event type -> (class, topic, key precedence).
ROUTES = {
    "s2_event_stream_baseline_6B": ("traffic_baseline", "fp.bus.traffic.baseline.v1", _TRAFFIC),
    "s3_event_stream_with_fraud_6B": ("traffic_fraud", "fp.bus.traffic.fraud.v1", _TRAFFIC),
    "arrival_events_5B": ("context_arrival", "fp.bus.context.arrival_events.v1", _ARRIVAL),
    "s1_arrival_entities_6B": ("context_arrival_entities", "fp.bus.context.arrival_entities.v1", _ARRIVAL),
    "s2_flow_anchor_baseline_6B": ("context_flow_baseline", "fp.bus.context.flow_anchor.baseline.v1", _ANCHOR),
    "s3_flow_anchor_with_fraud_6B": ("context_flow_fraud", "fp.bus.context.flow_anchor.fraud.v1", _ANCHOR),
}


def event_id(output_id, primary_key, row, pins):
    """V10. `pins` are the world's (manifest_fingerprint, parameter_hash, seed, scenario_id)."""
    parts = [output_id]
    for key in primary_key:
        if row.get(key) is None:
            raise ValueError("PRIMARY_KEY_MISSING: " + key)
        parts.append(str(row[key]))
    parts += [str(pin) for pin in pins if pin is not None]
    return h("|".join(parts))


def dedupe_key(platform_run_id, event_class, event):
    return h((platform_run_id or "") + ":" + event_class + ":" + event)


def payload_hash(envelope):
    return h(cj({key: envelope.get(key) for key in ("event_type", "schema_version", "payload")}))


def partition_key(envelope, precedence):
    for path in precedence:
        node = envelope
        for name in path.split("."):
            node = node.get(name) if isinstance(node, dict) else None
        if node is not None and node != "":
            return h(str(node))
    raise ValueError("PARTITION_KEY_MISSING")


def partition_of(key, partitions):
    return int(key[:16], 16) % partitions


def receipt_id(decision, event):
    return h32(decision + ":" + event)


def oracle_pack_id(world_key, engine_release, catalogue_digest, gate_map_digest):
    names = ("manifest_fingerprint", "parameter_hash", "scenario_id", "seed")
    parts = [str(world_key[name]) for name in names] + [engine_release, catalogue_digest, gate_map_digest]
    return h("|".join(parts))


def stream_view_id(engine_run_root, scenario_id, output_id, sort_keys):
    return h(cj({"engine_run_root": engine_run_root, "scenario_id": scenario_id, "output_id": output_id,
                 "sort_keys": sort_keys, "partition_granularity": "flat"}))


def scenario_run_id(equivalence_key):
    return h32("sr_run|" + equivalence_key)


def intent_fingerprint(pins, scenario_set, window_start, window_end):
    return h(sj({
        "manifest_fingerprint": pins["manifest_fingerprint"], "parameter_hash": pins["parameter_hash"],
        "seed": pins["seed"], "scenario_id": pins["scenario_id"], "scenario_set": scenario_set,
        "window_start_utc": t_off(window_start), "window_end_utc": t_off(window_end), "window_tz": "UTC",
    }))


def plan_hash(plan):
    return h(sj({key: value for key, value in plan.items() if key != "plan_hash"}))


def record_event_id(record):
    return h(sj({key: record[key] for key in ("event_kind", "run_id", "details")}))


def prune(value):
    if isinstance(value, dict):
        return {key: prune(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [prune(inner) for inner in value]
    return value


def bundle_hash(facts):
    return h(cj(prune({
        "locators": sorted(facts["locators"], key=lambda item: item["output_id"]),
        "receipts": sorted(facts["gate_receipts"], key=lambda item: item["gate_id"]),
        "instance_receipts": sorted(facts.get("instance_receipts") or [], key=lambda item: item["output_id"]),
        "policy_rev": facts["policy_rev"],
    })))


def ready_message_id(platform_run_id, run, bundle):
    return h("ready|" + platform_run_id + "|" + run + "|" + bundle)


def checkpoint_pack_key(pack_key, platform_run_id, run, attempt):
    return h("|".join([pack_key, platform_run_id, run, "1", "0", attempt]))


def governance_event_id(family, platform_run_id, run, component, dedupe):
    return h("|".join([family, platform_run_id, run or "", component, dedupe]))


def golden():
    """The published vectors of contract 1.3 that these recipes must give; a wrong recipe judges nothing."""
    mf, ph, prid, key = "a" * 64, "b" * 64, "platform_20260101T000000Z", "parity_20260101T000000Z"
    row = {"flow_id": 1234567890123456789, "event_seq": 1, "event_type": "AUTH_REQUEST",
           "ts_utc": "2026-01-01T00:00:01.250000Z", "amount": 25.99, "seed": 42, "manifest_fingerprint": mf,
           "parameter_hash": ph, "scenario_id": "baseline_v1", "fraud_flag": False, "campaign_id": None}
    output, root, run = "s3_event_stream_with_fraud_6B", "s3://oracle-store/local_full_run-5/run1", scenario_run_id(key)
    pins = {"manifest_fingerprint": mf, "parameter_hash": ph, "seed": 42, "scenario_id": "baseline_v1"}
    event = event_id(output, PRIMARY_KEYS[output], row, (mf, ph, 42, "baseline_v1"))
    envelope = {"event_type": output, "schema_version": "v1", "payload": row, "event_id": event}
    pack = oracle_pack_id(pins, "local", "d" * 64, "e" * 64)
    intent = intent_fingerprint(pins, None, "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z")
    policy = {"policy_id": "sr_policy", "revision": "v0-local", "content_digest": "c" * 64}
    plan = {"run_id": run, "policy_rev": policy, "strategy": "AUTO", "intended_outputs": [output],
            "required_gates": ["gate.layer3.6B.validation"], "evidence_deadline_utc": "2026-01-01T00:10:00.123456Z",
            "attempt_limit": 1, "created_at_utc": "2026-01-01T00:00:00.123456Z"}
    facts = {"locators": [{"output_id": output, "path": root + "/data/x/part-*.parquet", "manifest_fingerprint": mf,
                           "seed": 42, "scenario_id": "baseline_v1",
                           "content_digest": {"algo": "sha256", "hex": "d" * 64}}],
             "gate_receipts": [{"gate_id": "gate.layer3.6B.validation", "status": "PASS",
                                "scope": {"manifest_fingerprint": mf}, "receipt_kind": "passed_flag",
                                "digest": {"algo": "sha256", "hex": "e" * 64}}],
             "policy_rev": policy}
    bundle = "795855462cd2cea7bc425e9e71ab221571c0d324acf36ebb9dd85acaea1ae892"
    return {
        "V1": (run, "e4f2285913cc771d0d8dd1ad475f7a01"),
        "V4": (intent, "0d345b7c225c5c9a419c613f4582277dda3ea51e2e898fb0a5a578e8901471c7"),
        "V5": (plan_hash(plan), "cc2b7510fb6093dad7d72545153ae9cc08f4b84cb889b17ac0221eb912f91564"),
        "V6": (record_event_id({"event_kind": "RUN_ACCEPTED", "run_id": run,
                                "details": {"intent_fingerprint": intent}}),
               "f6a29fc4d6eac432e9f54c31f5f4e4f57206d5a368c470b69789f07635dfd964"),
        "V7": (bundle_hash(facts), bundle),
        "V8": (ready_message_id(prid, run, bundle), "0284b104d99b96935e1dc73aed1c1bea6a38d5b64e3439d18e2455b0526c9f2d"),
        "V10": (event, "592744f12c168a1be92d2719947290c1d2a8c49eff71bd48c99b60734fc5e15c"),
        "V11": (dedupe_key(prid, "traffic_fraud", event),
                "ad6e724ddfd666ae4612083e2380e863d051dbcfd6db9066ac539731e5bda9c2"),
        "V12": (payload_hash(envelope), "56138cf9dd6f996387272654adb13a6be4803bc109bece999bd5a44d145bf012"),
        "V13a": (receipt_id("ADMIT", event), "2e13119588b2f2fa0f144b727798facf"),
        "V13d": (receipt_id("DUPLICATE", event), "cf44722a1ab050c3f4258ac0819de6c4"),
        "V13q": (receipt_id("QUARANTINE", event), "5e6237763a6d9f53e2537b4c7a871bab"),
        "V14": (partition_key(envelope, _TRAFFIC), "22085aa929bcd7af4b23d9d9c046a1d4fde8be51f79d91392efafef96574ab01"),
        "V15": (pack, "d2a78e4a6b863ceff6a92870ccd30512b0e1db0db13caadf411e5fb195e5e230"),
        "V17": (stream_view_id(root, "baseline_v1", output, SORT_KEYS),
                "e10665092377a5add947226af25655d1dcea1d501ddaccafbb490d9e0a2d653a"),
        "V19": (checkpoint_pack_key(pack, prid, run, ""),
                "a3ed048f3d260e02f46a1fc179a5994d6ca8c73016a37a4ac66cc3be6217dea9"),
        "V21": (governance_event_id("RUN_STARTED", prid, run, "wsp_ready_consumer", "started:" + "1" * 64),
                "d17e6f6ae6121a092cef3781fc673b47d43bdbe8f40a8f5e988d6816b66aacc7"),
    }
