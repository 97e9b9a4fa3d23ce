"""Receipts and the index: exported tables against the bus (contract 1.2, 7.7-7.9)."""

import json
import sqlite3

import recipes


def check(found, database, bus, platform_run_id):
    """Returns decisions -> rows."""
    counts = {}
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        connection.row_factory = sqlite3.Row
        check_admissions(found, connection, bus)
        admitted = set()
        for row in connection.execute("select * from receipts"):
            counts[row["decision"]] = counts.get(row["decision"], 0) + 1
            check_receipt(found, row, bus, platform_run_id)
            if row["decision"] == "ADMIT":
                found.true("admit_receipt_once", row["dedupe_key"] not in admitted, row["receipt_id"])
                admitted.add(row["dedupe_key"])
        found.equal("every_event_has_a_receipt", 0, len(bus.events.keys() - admitted))
        for row in connection.execute("select * from quarantines"):
            found.equal("quarantine_id", recipes.receipt_id("QUARANTINE", row["event_id"] or "unknown"),
                        row["quarantine_id"])
    return counts


def check_admissions(found, connection, bus):
    admitted = 0
    for row in connection.execute("select * from admissions where state is null or state = 'ADMITTED'"):
        admitted += 1
        where = row["dedupe_key"]
        event = bus.events.get(where)
        if not found.true("dedupe_key", event is not None, where):
            continue
        topic, partition, offset, event_id, payload_hash, _, kind = event
        found.equal("eb_ref", (topic, partition, str(offset), "file_line"),
                    (row["eb_topic"], row["eb_partition"], row["eb_offset"], row["eb_offset_kind"]), where)
        found.equal("payload_hash", payload_hash, row["payload_hash"], where)
        found.equal("admission_event_id", event_id, row["event_id"], where)
        found.equal("event_class", recipes.ROUTES[kind][0], row["event_class"], where)
        found.true("receipt_ref", row["receipt_ref"], where)
    found.equal("admissions_equal_bus", len(bus.events), admitted)


def check_receipt(found, row, bus, platform_run_id):
    where = row["receipt_id"]
    found.equal("receipt_id", recipes.receipt_id(row["decision"], row["event_id"]), row["receipt_id"], row["event_id"])
    found.equal("receipt_platform_run_id", platform_run_id, row["platform_run_id"], where)
    if row["decision"] in ("ADMIT", "DUPLICATE"):
        event = bus.events.get(row["dedupe_key"])
        if found.true("receipt_dedupe_key", event is not None, where):
            found.equal("receipt_eb_ref", (event[0], event[1], str(event[2])),
                        (row["eb_topic"], row["eb_partition"], row["eb_offset"]), where)
    if row["decision"] == "DUPLICATE":
        found.equal("reason_codes", ["DUPLICATE"], json.loads(row["reason_codes_json"]), where)


def check_rendered(found, files, bus, platform_run_id):
    """Full receipts as files, compact canonical JSON, the way a reader of the contract gets them."""
    for path in files:
        text = path.read_text(encoding="utf-8")
        receipt = json.loads(text)
        where = path.name
        found.equal("receipt_is_cj", recipes.cj(receipt), text.rstrip("\n"), where)
        found.equal("receipt_file_name", path.stem, receipt["receipt_id"], where)
        found.equal("receipt_id", recipes.receipt_id(receipt["decision"], receipt["event_id"]), path.stem, where)
        found.equal("receipt_platform_run_id", platform_run_id, receipt["platform_run_id"], where)
        event = bus.events.get(receipt["dedupe_key"])
        if receipt["decision"] == "QUARANTINE" or not found.true("rendered_dedupe_key", event is not None, where):
            continue
        found.equal("rendered_payload_hash", {"algo": "sha256", "hex": event[4]}, receipt["payload_hash"], where)
        found.equal("rendered_eb_ref", (event[0], event[1], str(event[2])),
                    tuple(receipt["eb_ref"][name] for name in ("topic", "partition", "offset")), where)
        if receipt["decision"] == "ADMIT":
            found.equal("rendered_partition_key", event[5], receipt["partition_key"], where)
