#!/usr/bin/env python3
"""Recomputes every identity and digest of a platform run from the published recipes and compares.

Python standard library only; nothing of the program under test is used. Prints a JSON summary.
Exit 0 when all is equal, 4 when anything differs, 2 on wrong usage.
"""

import argparse
import json
import sys
from fractions import Fraction
from pathlib import Path

import bus as buses
import receipts
import recipes
import runner
from findings import Findings
from world import World, load


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-root", type=Path, required=True, help="runs/fraud-platform/<platform_run_id>")
    parser.add_argument("--engine-run-root", required=True, help="the sealed world, as it was given to the program")
    parser.add_argument("--receipts-db", type=Path, required=True, help="written by `receipts export --sqlite`")
    parser.add_argument("--catalogue", type=Path, required=True)
    parser.add_argument("--gate-map", type=Path, required=True)
    parser.add_argument("--world-manifest", type=Path, help="row counts and sums the world's author states")
    parser.add_argument("--stream-view-root", type=Path)
    parser.add_argument("--equivalence-key")
    parser.add_argument("--window-start", default="2026-01-01T00:00:00Z")
    parser.add_argument("--window-end", default="2026-01-02T00:00:00Z")
    parser.add_argument("--attempt-id", action="append", default=[], help="checkpoint attempt ids that were used")
    parser.add_argument("--partial", action="store_true", help="the run may not have streamed everything")
    return parser.parse_args()


def intent(args, world):
    if not args.equivalence_key:
        return None
    fingerprint = recipes.intent_fingerprint(world.tokens, None, args.window_start, args.window_end)
    return {"key": args.equivalence_key, "fingerprint": fingerprint}


def check_totals(found, args, views, bus):
    """Counts against the sorted views, counts and sums against what the world's author says."""
    if args.partial:
        return
    for output, rows in bus.rows.items():
        found.equal("rows_of_view", views.get(output), rows, output)
    if not args.world_manifest:
        return
    stated = load(args.world_manifest)
    for output, rows in bus.rows.items():
        found.equal("rows_of_world", stated["rows"][output], rows, output)
    traffic = "s3_event_stream_with_fraud_6B"
    if traffic in bus.amounts:
        total = round(float(bus.amounts[traffic]), 6)
        found.equal("amount_sum", stated["amount_sum_with_fraud"], total, traffic)
    baseline = "s2_event_stream_baseline_6B"
    if baseline in bus.amounts:
        minor = bus.amounts[baseline] * 100
        found.equal("amount_sum", Fraction(stated["amount_minor_sum_baseline"]), minor, baseline)


def main():
    args = arguments()
    found = Findings()
    for name, (computed, published) in recipes.golden().items():
        found.equal("golden_vector", published, computed, name)
    world = World(args.engine_run_root)
    world.check_pack(found, args.catalogue, args.gate_map)
    views = world.check_views(found, args.stream_view_root or world.root / "stream_view" / "ts_utc")

    run_root, platform_run_id = args.run_root, args.run_root.resolve().name
    runner.check_plans_and_records(found, run_root / "sr", intent(args, world))
    ready = runner.check_ready(found, run_root / "sr", run_root / "control_bus", platform_run_id, world)
    runs = set(ready.values())
    found.true("a_run_is_ready", runs)

    run = {"platform_run_id": platform_run_id, "scenario_run_ids": runs}
    bus = buses.read(found, run_root / "eb", world, run)
    counts = receipts.check(found, args.receipts_db, bus, platform_run_id)
    # Present where receipts are kept as one object each.
    receipts.check_rendered(found, sorted(run_root.glob("ig/receipts/*.json")), bus, platform_run_id)
    attempts = args.attempt_id + [""]
    cursors = runner.check_checkpoints(found, run_root / "wsp" / "checkpoints", platform_run_id, runs,
                                       world.pack["oracle_pack_id"], attempts)
    for (output, attempt), rows in cursors.items():
        found.true("checkpoint_not_ahead", rows <= bus.rows.get(output, 0), f"{output} {attempt!r}: {rows}")
    runner.check_governance(found, run_root / "obs" / "governance")
    check_totals(found, args, views, bus)

    summary = found.summary()
    summary.update(events=len(bus.events), rows=bus.rows, receipts=counts,
                   amounts={kind: round(float(total), 6) for kind, total in bus.amounts.items()})
    print(json.dumps(summary, indent=1, sort_keys=True, default=str))
    return 0 if summary["equal"] else 4


if __name__ == "__main__":
    sys.exit(main())
