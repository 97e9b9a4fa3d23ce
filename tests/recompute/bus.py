"""The event bus: every line, its identities, its order, its offsets (contract 2.2, 7.5, 8)."""

import json
import re
from fractions import Fraction

import recipes

TS = re.compile(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$")


class Bus:
    """What one pass over the bus found out."""

    def __init__(self):
        self.lines = {}       # (topic, partition) -> lines
        self.events = {}      # dedupe_key -> (topic, partition, offset, event_id, payload_hash, partition_key, type)
        self.rows = {}        # event_type -> events
        self.amounts = {}     # event_type -> exact sum, one amount per flow: its events repeat the flow's


def check_line(found, bus, world, line, at, last_ts, run):
    topic, partition, offset, partitions = at
    record = json.loads(line)
    where = f"{topic}[{partition}]@{offset}"
    found.equal("bus_line_is_ij", recipes.ij(record), line, where)
    found.equal("bus_record_fields", ["partition_key", "payload", "published_at_utc"], list(record), where)
    envelope = record["payload"]
    kind, payload = envelope["event_type"], envelope["payload"]
    event_class, home, precedence = recipes.ROUTES[kind]
    found.equal("topic", home, topic, where)
    event = recipes.event_id(kind, recipes.PRIMARY_KEYS[kind], payload, world.pins)
    found.equal("event_id", event, envelope["event_id"], where)
    key = recipes.partition_key(envelope, precedence)
    found.equal("partition_key", key, record["partition_key"], where)
    found.equal("partition", recipes.partition_of(key, partitions), partition, where)
    dedupe = recipes.dedupe_key(envelope["platform_run_id"], event_class, event)
    found.true("event_once", dedupe not in bus.events, where)
    bus.events[dedupe] = (topic, partition, offset, event, recipes.payload_hash(envelope), key, kind)
    found.true("order_per_key", last_ts.get(key, "") <= envelope["ts_utc"], where)
    last_ts[key] = envelope["ts_utc"]
    check_envelope(found, world, envelope, payload, run, where)
    bus.rows[kind] = bus.rows.get(kind, 0) + 1
    if "amount" in payload and payload.get("event_seq", 0) == 0:
        bus.amounts[kind] = bus.amounts.get(kind, 0) + Fraction(str(payload["amount"]))


def check_envelope(found, world, envelope, payload, run, where):
    expected = {
        "schema_version": "v1", "manifest_fingerprint": world.pins[0], "parameter_hash": world.pins[1],
        "seed": world.pins[2], "scenario_id": world.pins[3], "run_id": world.receipt["run_id"],
        "platform_run_id": run["platform_run_id"], "producer": "svc:world_stream_producer",
        "trace_id": world.pack["oracle_pack_id"], "span_id": world.pack["engine_release"],
    }
    found.equal("envelope_fields", expected, {name: envelope.get(name) for name in expected}, where)
    found.true("scenario_run_id_of_ready", envelope.get("scenario_run_id") in run["scenario_run_ids"], where)
    found.true("ts_utc_form", TS.match(envelope["ts_utc"]), where)
    found.equal("ts_utc_of_row", payload["ts_utc"], envelope["ts_utc"], where)


def read(found, folder, world, run):
    bus = Bus()
    for topic in sorted(path for path in folder.iterdir() if path.is_dir()):
        logs = sorted(topic.glob("partition=*.jsonl"), key=lambda path: int(path.stem.split("=")[1]))
        partitions = partition_count(topic, logs)
        last_ts = {}
        for log in logs:
            partition = int(log.stem.split("=")[1])
            offset = 0
            with open(log, encoding="ascii", newline="\n") as lines:
                for offset, line in enumerate(lines, 1):
                    found.true("line_is_whole", line.endswith("\n"), f"{log}@{offset}")
                    at = (topic.name, partition, offset - 1, partitions)
                    check_line(found, bus, world, line.rstrip("\n"), at, last_ts, run)
            bus.lines[topic.name, partition] = offset
        check_head(found, topic, bus)
    return bus


def partition_count(topic, logs):
    """How many partitions the topic was created with; one when nothing says otherwise."""
    described = topic / "_topic.json"
    if described.exists():
        return json.loads(described.read_text(encoding="utf-8"))["partitions"]
    return max([int(log.stem.split("=")[1]) + 1 for log in logs], default=1)


def check_head(found, topic, bus):
    for (name, partition), lines in bus.lines.items():
        head = topic / ("head.json" if partition == 0 else f"head-{partition}.json")
        if name == topic.name and head.exists():
            described = json.loads(head.read_text(encoding="utf-8"))
            found.equal("head_next_offset", lines, described["next_offset"], f"{name}[{partition}]")
