"""The Scenario Runner's ledger, READY, checkpoints and governance facts (contract 5, 6.7, 7.12)."""

import json
import sqlite3

import recipes
import world as worlds


def _json_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def check_plans_and_records(found, sr, expected):
    for path in sorted(sr.glob("run_plan/*.json")):
        plan = worlds.load(path)
        found.equal("plan_hash", recipes.plan_hash(plan), plan["plan_hash"], path.name)
        found.equal("file_is_cj", recipes.cj(plan) + "\n", path.read_text(encoding="utf-8"), path)
    for path in sorted(sr.glob("run_record/*.jsonl")):
        records = _json_lines(path)
        for record in records:
            found.equal("record_event_id", recipes.record_event_id(record), record["event_id"], record["event_kind"])
            if record["event_kind"] == "RUN_ACCEPTED" and expected:
                found.equal("intent_fingerprint", expected["fingerprint"], record["details"]["intent_fingerprint"])
        ids = [record["event_id"] for record in records]
        found.equal("record_event_once", sorted(set(ids)), sorted(ids), path.name)
    database = sr / "index" / "sr_authority.db"
    if database.exists():
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            rows = connection.execute("select run_equivalence_key, run_id, intent_fingerprint from sr_run_equivalence")
            for key, run, fingerprint in rows:
                found.equal("scenario_run_id", recipes.scenario_run_id(key), run, key)
                if expected and key == expected["key"]:
                    found.equal("intent_fingerprint", expected["fingerprint"], fingerprint, key)


def check_ready(found, sr, control_bus, platform_run_id, world):
    """Returns READY message id -> scenario run id."""
    ready = {}
    for path in sorted(sr.glob("run_facts_view/*.json")):
        facts = worlds.load(path)
        run = facts["run_id"]
        bundle = recipes.bundle_hash(facts)
        found.equal("bundle_hash", bundle, facts["bundle_hash"], path.name)
        check_evidence(found, facts, world)
        signal = worlds.load(sr / "ready_signal" / (run + ".json"))
        message = recipes.ready_message_id(platform_run_id, run, bundle)
        found.equal("ready_message_id", message, signal["message_id"], run)
        found.equal("ready_bundle_hash", bundle, signal["bundle_hash"], run)
        ready[message] = run
    for path in sorted(control_bus.glob("*/*.json")):
        text = path.read_text(encoding="utf-8")
        envelope = json.loads(text)
        found.equal("control_bus_is_sj", recipes.sj(envelope) + "\n", text, path.name)
        found.equal("control_bus_file_name", path.stem, envelope["message_id"], path.name)
        if envelope["payload"].get("bundle_hash"):
            run = envelope["payload"]["run_id"]
            message = recipes.ready_message_id(platform_run_id, run, envelope["payload"]["bundle_hash"])
            found.equal("ready_message_id", message, envelope["message_id"], path.name)
    return ready


def check_evidence(found, facts, world):
    for locator in facts["locators"]:
        digest = locator.get("content_digest", {}).get("hex")
        found.equal("locator_content_digest", world.locator_digest(locator["output_id"]), digest, locator["output_id"])
    fingerprint = facts["pins"]["manifest_fingerprint"]
    for receipt in facts["gate_receipts"]:
        gate = receipt["gate_id"]
        found.equal("gate_digest", worlds.gate_digest(world.root, gate, fingerprint), receipt["digest"]["hex"], gate)
        found.equal("gate_status", "PASS", receipt["status"], gate)
    for receipt in facts.get("instance_receipts") or []:
        digest = world.locator_digest(receipt["output_id"])
        found.equal("instance_digest", digest, receipt["target_digest"]["hex"], receipt["output_id"])


def check_checkpoints(found, folder, platform_run_id, runs, pack_key, attempts):
    """Returns (output, attempt) -> rows acknowledged, for views of one part."""
    keys = {}
    for run in runs:
        for attempt in attempts:
            keys[recipes.checkpoint_pack_key(pack_key, platform_run_id, run, attempt)] = attempt
    cursors = {}
    for path in sorted(folder.glob("*/output_id=*/cursor.json")):
        cursor = worlds.load(path)
        found.equal("checkpoint_pack_key", path.parent.parent.name, cursor["pack_key"], path)
        found.true("checkpoint_pack_key", cursor["pack_key"] in keys, path)
        text = path.read_text(encoding="utf-8")
        found.equal("checkpoint_is_sj", recipes.sj(cursor), text, path)
        cursors[cursor["output_id"], keys.get(cursor["pack_key"])] = cursor["last_row_index"] + 1
    return cursors


def _dedupe_candidates(event):
    """What a fact's dedupe key can be; the stored object carries only its parts."""
    details = event["details"]
    message = details.get("message_id", "")
    family = event["event_family"]
    if family in ("RUN_READY_SEEN", "RUN_STARTED", "RUN_ENDED"):
        name = {"RUN_READY_SEEN": "ready_seen", "RUN_STARTED": "started", "RUN_ENDED": "ended"}[family]
        tails = [""] + [f":{number}" for number in range(1, 50)] + [f":attempt:{number}" for number in range(1, 50)]
        return [f"{name}:{message}{tail}" for tail in tails]
    if family == "RUN_CANCELLED":
        return [f"cancelled:{message}:{why}" for why in ("scope_mismatch", "scenario_missing", "engine_root_missing")]
    if family == "POLICY_REV_CHANGED":
        policy = details.get("policy_rev", details)
        return [f"ig_policy_activation:{policy.get('content_digest')}"]
    if family == "CORRIDOR_ANOMALY":
        return [f"ig_quarantine:{details['event_id']}:{details['reason_code']}"]
    return []


def check_governance(found, folder):
    for path in sorted(folder.glob("events/*.json")):
        event = worlds.load(path)
        pins, component = event["pins"], event["actor"]["source_component"]
        candidates = _dedupe_candidates(event) + [recipes.cj(event["details"])]
        ids = {recipes.governance_event_id(event["event_family"], pins["platform_run_id"],
                                           pins.get("scenario_run_id"), component, key) for key in candidates}
        found.true("governance_event_id", event["event_id"] in ids, f"{event['event_family']} {path.name}")
        found.equal("governance_file_name", path.stem, event["event_id"], path.name)
