"""The sealed world: pack, seal, stream views, gate digests, locator digests (contract 3)."""

import hashlib
import json
from pathlib import Path

import recipes

# Contract 3.4: layer, segment -> (kind, digest field, sorted, paths relative to the run root, excluded names, index).
GATES = {
    "gate.layer1.1A.validation": ("bundle", "sha256_hex", True, False, ["_passed.flag"]),
    "gate.layer1.1B.validation": ("bundle", "sha256_hex", True, False, ["_passed.flag"]),
    "gate.layer1.2A.validation": ("index", "sha256_hex", True, False, ["_passed.flag"]),
    "gate.layer1.2B.validation": ("index", "sha256_hex", True, True, ["_passed.flag"]),
    "gate.layer1.3A.validation": ("members", "sha256_hex", False, False, ["_passed.flag"]),
    "gate.layer1.3B.validation": ("index", "sha256_hex", True, False, ["_passed.flag"]),
    "gate.layer2.5A.validation": ("index", "bundle_digest_sha256", True, False, ["_passed.flag"]),
    "gate.layer2.5B.validation": ("index", "bundle_digest_sha256", True, False, ["_passed.flag"]),
    "gate.layer3.6A.validation": ("index", "sha256_hex", False, False, ["_passed.flag"]),
    "gate.layer3.6B.validation": ("index", "sha256_hex", True, False, ["_passed.flag", "index.json"]),
}
INDEX_NAMES = {"5A": "validation_bundle_index_5A.json", "6A": "validation_bundle_index_6A.json"}


def load(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def file_digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _entries(index):
    if isinstance(index, dict):
        index = next(index[name] for name in ("items", "members", "entries", "files") if name in index)
    return index


def gate_digest(root, gate_id, fingerprint):
    """The digest a gate's bundle has now, by the method of its row."""
    kind, field, ordered, from_root, excluded = GATES[gate_id]
    layer, segment = gate_id.split(".")[1:3]
    bundle = root / "data" / layer / segment / "validation" / ("manifest_fingerprint=" + fingerprint)
    digest = hashlib.sha256()
    if kind == "bundle":
        files = {str(path.relative_to(bundle)): path for path in bundle.rglob("*") if path.is_file()}
        for name in sorted(files):
            if Path(name).name not in excluded:
                digest.update(files[name].read_bytes())
        return digest.hexdigest()
    entries = _entries(load(bundle / INDEX_NAMES.get(segment, "index.json")))
    if kind == "members":
        for entry in entries:
            digest.update(entry[field].encode("ascii"))
        return digest.hexdigest()
    paths = [entry if isinstance(entry, str) else entry["path"] for entry in entries]
    paths = [path for path in paths if path not in excluded and Path(path).name not in excluded]
    for path in sorted(paths) if ordered else paths:
        digest.update(((root if from_root else bundle) / path).read_bytes())
    return digest.hexdigest()


class World:
    def __init__(self, root_text):
        self.root_text = root_text.rstrip("/")
        self.root = Path(root_text)
        self.receipt = load(self.root / "run_receipt.json")
        self.pack = load(self.root / "_oracle_pack_manifest.json")
        self.scenario_id = self.pack["world_key"]["scenario_id"]
        self.pins = tuple(self.receipt[name] for name in ("manifest_fingerprint", "parameter_hash", "seed")) + (
            self.scenario_id,)
        self.tokens = dict(zip(("manifest_fingerprint", "parameter_hash", "seed", "scenario_id"), self.pins))

    def parts(self, output_id):
        """Relative paths of an output's raw parts, sorted."""
        folder = self.root / recipes.PATHS[output_id].format(**self.tokens)
        return sorted(str(path.relative_to(self.root)) for path in folder.glob("part-*.parquet"))

    def locator_digest(self, output_id):
        digest = hashlib.sha256()
        for part in self.parts(output_id):
            digest.update((self.root / part).read_bytes())
        return digest.hexdigest()

    def check_pack(self, found, catalogue, gate_map):
        pack, seal = self.pack, load(self.root / "_SEALED.json")
        found.equal("catalogue_digest", file_digest(catalogue), pack["catalogue_digest"])
        found.equal("gate_map_digest", file_digest(gate_map), pack["gate_map_digest"])
        key = dict(self.tokens)
        found.equal("world_key", key, pack["world_key"])
        expected = recipes.oracle_pack_id(key, pack["engine_release"], pack["catalogue_digest"], pack["gate_map_digest"])
        found.equal("oracle_pack_id", expected, pack["oracle_pack_id"])
        found.equal("oracle_pack_id", expected, seal["oracle_pack_id"])
        found.equal("seal_status", "SEALED_OK", seal["seal_status"])

    def check_views(self, found, base):
        """Returns the rows of each sorted view."""
        rows = {}
        for folder in sorted(base.glob("output_id=*")):
            manifest, receipt = load(folder / "_stream_view_manifest.json"), load(folder / "_stream_sort_receipt.json")
            output = manifest["output_id"]
            keys = recipes.OVERRIDE_SORT_KEYS.get(output, ["ts_utc"]) + ["filename", "file_row_number"]
            view_id = recipes.stream_view_id(manifest["engine_run_root"], self.scenario_id, output, keys)
            found.equal("stream_view_id", view_id, manifest["stream_view_id"], output)
            found.equal("stream_view_id", view_id, receipt["stream_view_id"], output)
            sources = sorted(manifest["engine_run_root"].rstrip("/") + "/" + part for part in self.parts(output))
            found.equal("source_locator_digest", recipes.h("\n".join(sources)), receipt["source_locator_digest"], output)
            found.equal("sort_stats", receipt["raw_stats"], receipt["sorted_stats"], output)
            found.equal("sort_status", "OK", receipt["status"], output)
            rows[output] = receipt["raw_stats"]["row_count"]
        return rows
