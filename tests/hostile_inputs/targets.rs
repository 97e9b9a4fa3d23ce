//! What is fed with hostile bytes: one function per reader of something that comes from outside or from
//! a disk. Used by the bounded tests beside this file and by `fuzz/`. None may panic, hang or take
//! memory beyond its input by much; where there is a slow way to know the answer, it must agree.

use super::slow_json::{self, Slow};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;
use wellspring::event_bus::embedded_log::{EmbeddedGateStore, JournalReader, LogOptions};
use wellspring::http::body::split_batch;
use wellspring::settings::layers::Layers;
use wellspring::settings::{ProfileSource, Settings};
use wellspring::state_store::embedded::checkpoints::FileCheckpoints;
use wellspring::world_files::parquet_reader::PartReader;
use wellspring::world_files::part_location::PartLocation;
use wellspring_domain::admission::bus_line::{BusLine, EnvelopeFacts};
use wellspring_domain::admission::decision::RowRef;
use wellspring_domain::admission::envelope::Envelope;
use wellspring_domain::admission::index_format::{PAGE, RunHeader, decode_block};
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::{CheckpointStore, GateStore, RunLayout};
use wellspring_domain::prefetch::prefetch;
use wellspring_domain::run_paths::{PlatformRunId, RunPaths};
use wellspring_domain::sha256::HashBatch;
use wellspring_domain::world::catalogue::Catalogue;
use wellspring_domain::world::gate_evidence::{index_paths, member_digests, parse_flag};
use wellspring_domain::world::gates::{GateMap, Verification};
use wellspring_domain::world::pack::PackManifest;

/// A reader under attack.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also that of its corpus folder and of its file in `fuzz/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("envelope", envelope),
    ("ndjson_batch", ndjson_batch),
    ("bus_line", bus_line),
    ("profile", profile),
    ("journal", journal),
    ("index_run", index_run),
    ("checkpoint", checkpoint),
    ("gate_evidence", gate_evidence),
    ("world_documents", world_documents),
    ("parquet_part", parquet_part),
    ("hash_batch", hash_batch),
];

/// The platform run of every corpus file that names one.
pub const RUN: &str = "platform_20260101T000000Z";

/// The envelope parser and its canonical check against a parser that is slow and obvious.
pub fn envelope(bytes: &[u8]) {
    let fast = Envelope::read(bytes);
    let shown = || String::from_utf8_lossy(bytes).into_owned();
    match slow_json::parse(bytes) {
        None => assert!(fast.is_err(), "accepted what is no JSON: {}", shown()),
        Some(slow @ Slow::Object(_)) => {
            let fast = fast.unwrap_or_else(|error| panic!("{error}: {}", shown()));
            let fast = fast.unwrap_or_else(|| panic!("no object: {}", shown()));
            let text = String::from_utf8_lossy(fast.text()).into_owned();
            assert_eq!(text, slow.text(false), "insertion order of {}", shown());
            let _ = fast.validate();
            if let Some(facts) = EnvelopeFacts::of(bytes) {
                assert_eq!(facts.payload_hash, slow_hash(&slow), "hash of {}", shown());
            }
        }
        Some(_) => assert!(matches!(fast, Ok(None)), "no object: {}", shown()),
    }
}

/// The payload hash (V12) from the slow tree.
fn slow_hash(envelope: &Slow) -> Hash32 {
    let part = |name: &str| match (name, envelope.get(name)) {
        ("payload", Some(value @ Slow::Object(_))) => value.text(true),
        // Only an object is sorted; anything else is refused before it is hashed.
        (_, Some(value)) => value.text(false),
        (_, None) => "null".to_owned(),
    };
    let (kind, payload, version) = (part("event_type"), part("payload"), part("schema_version"));
    let text =
        format!("{{\"event_type\":{kind},\"payload\":{payload},\"schema_version\":{version}}}");
    Hash32(Sha256::digest(text.as_bytes()).into())
}

/// The split of a batch body: ranges in order, within the body, and exactly the items of a good array.
pub fn ndjson_batch(bytes: &[u8]) {
    let split = split_batch(bytes);
    if let Ok(ranges) = &split {
        let mut end = 0;
        for range in ranges {
            assert!(range.start >= end && range.end > range.start, "{ranges:?}");
            end = range.end;
            // As judging does with the events it comes to next.
            prefetch(&bytes[range.start as usize..end as usize]);
        }
        assert!(end as usize <= bytes.len(), "{ranges:?}");
    }
    if let Some(Slow::List(items)) = slow_json::parse(bytes) {
        let Ok(ranges) = split else {
            panic!("a JSON array is a batch");
        };
        let parts = ranges
            .iter()
            .map(|range| &bytes[range.start as usize..range.end as usize]);
        let parts: Vec<Slow> = parts.filter_map(slow_json::parse).collect();
        assert_eq!(parts, items);
    }
}

/// A line of the bus read back.
pub fn bus_line(bytes: &[u8]) {
    let Some(line) = BusLine::parse(bytes) else {
        return;
    };
    if let Some(facts) = line.facts() {
        let slow = slow_json::parse(line.envelope).expect("an envelope is JSON");
        assert_eq!(facts.payload_hash, slow_hash(&slow));
    }
}

/// The profile loader.
pub fn profile(bytes: &[u8]) {
    let source = ProfileSource {
        path: "profile.yaml".into(),
        text: String::from_utf8_lossy(bytes).into_owned(),
        embedded: false,
    };
    if let Ok((_settings, problems)) = Settings::read(&source, &Layers::default()) {
        problems
            .iter()
            .for_each(|problem| assert!(!problem.code.is_empty()));
    }
}

/// A journal segment: its readers, and a start of the gate on it.
pub fn journal(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder for the journal");
    journal_rows(folder.path(), bytes);
    let run = PlatformRunId::parse(RUN).expect("a run id");
    let root = folder.path().to_string_lossy().into_owned();
    let layout = RunLayout {
        admission_shards: 1,
        index_shards: 1,
    };
    let store = EmbeddedGateStore::in_folder(&root, LogOptions::default());
    let _ = store.open_run(&run, &layout);
}

/// The rows a reader gives of a segment, up to the first error.
pub fn journal_rows(runs_root: &Path, segment: &[u8]) -> Vec<String> {
    let run = PlatformRunId::parse(RUN).expect("a run id");
    let paths = RunPaths::new(&runs_root.to_string_lossy(), &run);
    let shard = Path::new(&paths.ig()).join("journal/shard-000");
    fs::create_dir_all(&shard).expect("the shard's folder");
    fs::write(shard.join("segment-00000000.wsj"), segment).expect("the segment");
    let reader = JournalReader::new(&paths);
    let _ = reader.end(0);
    let _ = reader.visit_heads(|_| ());
    let Ok(rows) = reader.rows_from(RowRef::default()) else {
        return Vec::new();
    };
    let rows = rows.map_while(Result::ok).map(|row| format!("{row:?}"));
    rows.collect()
}

/// Header and blocks of an index run.
pub fn index_run(bytes: &[u8]) {
    let head = &bytes[..bytes.len().min(PAGE)];
    let _ = RunHeader::decode(head, bytes.len() as u64, wellspring::checksum::crc32c);
    for page in bytes.chunks(PAGE) {
        let Ok(block) = decode_block(page, wellspring::checksum::crc32c) else {
            continue;
        };
        assert!(!block.is_empty() && block.len() * 74 <= PAGE);
        for at in 0..block.len() {
            let _ = block.find(&block.slot(at).key);
        }
    }
}

/// The checkpoint loader.
pub fn checkpoint(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder for the checkpoint");
    let checkpoints = FileCheckpoints::new(folder.path());
    let path = checkpoints.cursor_path("pack", "output");
    fs::create_dir_all(path.parent().expect("a folder")).expect("the output's folder");
    fs::write(&path, bytes).expect("the cursor");
    let _ = checkpoints.load("pack", "output");
}

/// Flags and indexes of gates.
pub fn gate_evidence(bytes: &[u8]) {
    if let Ok(hex) = parse_flag(bytes, "sha256_hex") {
        assert!(hex.len() == 64 && hex.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let text = String::from_utf8_lossy(bytes);
        assert!(text.contains("sha256_hex"), "no such digest in {text}");
    }
    for order in ["ascii_lex", "index_order", "members_array_order"] {
        let rule: Verification = serde_json::from_value(serde_json::json!({
            "kind": "sha256_index_json_ascii_lex_raw_bytes", "digest_field": "sha256_hex",
            "order": order, "path_base": "bundle", "exclude": ["_passed.flag"],
        }))
        .expect("a rule");
        let _ = member_digests(bytes, &rule);
        if let Ok(paths) = index_paths(bytes, &rule) {
            assert!(!paths.iter().any(|path| path == "_passed.flag"));
        }
    }
}

/// Catalogue, gate map and pack manifest.
pub fn world_documents(bytes: &[u8]) {
    let _ = PackManifest::parse(bytes);
    if let Ok(value) = serde_json::from_slice::<Value>(bytes) {
        let _ = Catalogue::parse(&value);
        let _ = GateMap::parse(&value);
    }
}

/// A part of a stream view.
pub fn parquet_part(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder for the part");
    let path = folder.path().join("part-000000.parquet");
    fs::write(&path, bytes).expect("the part");
    for start in [0, 7] {
        let Ok(reader) = PartReader::open(&PartLocation::of_file(&path), 64, start) else {
            continue;
        };
        let rows = reader.take(1000).map_while(Result::ok);
        rows.for_each(|batch| assert!(batch.rows.num_rows() <= 64));
    }
}

/// SHA-256 of many messages at once, every way this processor can go. Lines are messages.
pub fn hash_batch(bytes: &[u8]) {
    let messages = || bytes.split(|byte| *byte == b'\n');
    let alone: Vec<Hash32> = messages()
        .map(|message| Hash32(Sha256::digest(message).into()))
        .collect();
    let mut digests = Vec::new();
    for mut batch in HashBatch::each_way() {
        for message in messages() {
            let (first, second) = message.split_at(message.len() / 2);
            batch.push(&[first, second]);
        }
        batch.finish(&mut digests);
        assert_eq!(digests, alone, "{batch:?}");
    }
}
