//! The validation bundles and flags of all ten gates, in every form a verifier must know (contract 3.4).

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::columns::Pins;
use super::options::GenerateError;

/// How a gate's digest is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    /// All bytes of the bundle but the flag, by path.
    WholeBundle,
    /// The member files, sorted by path.
    SortedMembers,
    /// The member files, as the index lists them.
    IndexOrder,
    /// The digests written in the index, as it lists them.
    MemberDigests,
}

/// Where member paths of an index start.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PathBase {
    Bundle,
    RunRoot,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flag {
    Text,
    Json,
}

/// One gate and the form of its evidence.
struct Gate {
    layer: u32,
    segment: &'static str,
    index_name: &'static str,
    /// Member of the index that holds the list; none for a bare list.
    index_list: Option<&'static str>,
    method: Method,
    path_base: PathBase,
    digest_field: &'static str,
    flag: Flag,
}

const INDEX: &str = "index.json";
const SHA: &str = "sha256_hex";
const BUNDLE_SHA: &str = "bundle_digest_sha256";

const GATES: [Gate; 10] = [
    gate(1, "1A", INDEX, None, Method::WholeBundle, SHA, Flag::Text),
    gate(1, "1B", INDEX, None, Method::WholeBundle, SHA, Flag::Text),
    gate(1, "2A", INDEX, None, Method::SortedMembers, SHA, Flag::Text),
    from_run_root(gate(
        1,
        "2B",
        INDEX,
        None,
        Method::SortedMembers,
        SHA,
        Flag::Text,
    )),
    gate(
        1,
        "3A",
        INDEX,
        Some("members"),
        Method::MemberDigests,
        SHA,
        Flag::Json,
    ),
    gate(
        1,
        "3B",
        INDEX,
        Some("files"),
        Method::SortedMembers,
        SHA,
        Flag::Json,
    ),
    gate(
        2,
        "5A",
        "validation_bundle_index_5A.json",
        Some("entries"),
        Method::SortedMembers,
        BUNDLE_SHA,
        Flag::Json,
    ),
    gate(
        2,
        "5B",
        INDEX,
        Some("entries"),
        Method::SortedMembers,
        BUNDLE_SHA,
        Flag::Json,
    ),
    gate(
        3,
        "6A",
        "validation_bundle_index_6A.json",
        Some("items"),
        Method::IndexOrder,
        SHA,
        Flag::Text,
    ),
    gate(
        3,
        "6B",
        INDEX,
        Some("items"),
        Method::SortedMembers,
        SHA,
        Flag::Text,
    ),
];

const fn gate(
    layer: u32,
    segment: &'static str,
    index_name: &'static str,
    index_list: Option<&'static str>,
    method: Method,
    digest_field: &'static str,
    flag: Flag,
) -> Gate {
    let path_base = PathBase::Bundle;
    Gate {
        layer,
        segment,
        index_name,
        index_list,
        method,
        path_base,
        digest_field,
        flag,
    }
}

const fn from_run_root(gate: Gate) -> Gate {
    Gate {
        path_base: PathBase::RunRoot,
        ..gate
    }
}

/// A file of a bundle: its path inside the bundle and its bytes.
struct Member {
    path: &'static str,
    bytes: Vec<u8>,
}

/// Writes every bundle under `root`. `rows` is what the world holds, per output id.
pub(super) fn write_all(
    root: &Path,
    pins: &Pins,
    rows: &[(&'static str, u64)],
) -> Result<(), GenerateError> {
    for gate in &GATES {
        write_bundle(root, pins, gate, rows)?;
    }
    Ok(())
}

fn write_bundle(
    root: &Path,
    pins: &Pins,
    gate: &Gate,
    rows: &[(&'static str, u64)],
) -> Result<(), GenerateError> {
    let bundle = format!(
        "data/layer{}/{}/validation/manifest_fingerprint={}",
        gate.layer, gate.segment, pins.manifest_fingerprint
    );
    let members = members(pins, gate, rows);
    let index = to_bytes(&index_json(gate, &bundle, &members));
    let digest = digest(gate, &members, &index);
    for member in &members {
        write(&root.join(&bundle).join(member.path), &member.bytes)?;
    }
    write(&root.join(&bundle).join(gate.index_name), &index)?;
    let flag = flag_bytes(gate, pins, &digest);
    write(&root.join(&bundle).join("_passed.flag"), &flag)
}

/// The evidence of one segment, in an order that is not lexical.
fn members(pins: &Pins, gate: &Gate, rows: &[(&'static str, u64)]) -> Vec<Member> {
    let segment = gate.segment;
    let counted: serde_json::Map<String, Value> = rows
        .iter()
        .filter(|(output, _)| output.ends_with(segment))
        .map(|(output, count)| ((*output).to_owned(), json!(count)))
        .collect();
    let report = json!({
        "segment": segment,
        "status": "PASS",
        "manifest_fingerprint": pins.manifest_fingerprint,
        "parameter_hash": pins.parameter_hash,
        "seed": pins.seed,
        "rows": counted,
    });
    let checks = json!({"checks": [
        {"id": format!("{segment}.V01"), "name": "row counts agree with the plan", "status": "PASS"},
        {"id": format!("{segment}.V02"), "name": "primary keys are unique", "status": "PASS"},
        {"id": format!("{segment}.V03"), "name": "path tokens equal row columns", "status": "PASS"},
    ]});
    let manifest = json!({"version": "validation.v1", "segment": segment});
    vec![
        Member {
            path: "validation_report.json",
            bytes: to_bytes(&report),
        },
        Member {
            path: "checks/check_summary.json",
            bytes: to_bytes(&checks),
        },
        Member {
            path: "MANIFEST.json",
            bytes: to_bytes(&manifest),
        },
    ]
}

fn index_json(gate: &Gate, bundle: &str, members: &[Member]) -> Value {
    let listed = |member: &Member| match gate.path_base {
        PathBase::Bundle => member.path.to_owned(),
        PathBase::RunRoot => format!("{bundle}/{}", member.path),
    };
    let entries: Vec<Value> = members
        .iter()
        .map(|member| json!({"path": listed(member), "sha256_hex": hex(&member.bytes)}))
        .collect();
    match gate.index_list {
        None => Value::Array(entries),
        Some(list) => json!({ list: entries }),
    }
}

fn digest(gate: &Gate, members: &[Member], index: &[u8]) -> String {
    let mut files: Vec<(&str, &[u8])> = members
        .iter()
        .map(|member| (member.path, member.bytes.as_slice()))
        .collect();
    if gate.method == Method::WholeBundle {
        files.push((gate.index_name, index));
    }
    if gate.method != Method::IndexOrder && gate.method != Method::MemberDigests {
        files.sort_unstable_by_key(|(path, _)| *path);
    }
    let mut hasher = Sha256::new();
    for (_, bytes) in files {
        match gate.method {
            Method::MemberDigests => hasher.update(hex(bytes)),
            _ => hasher.update(bytes),
        }
    }
    to_hex(&hasher.finalize())
}

fn flag_bytes(gate: &Gate, pins: &Pins, digest: &str) -> Vec<u8> {
    match gate.flag {
        Flag::Text => format!("{} = {digest}\n", gate.digest_field).into_bytes(),
        Flag::Json => to_bytes(&json!({
            "manifest_fingerprint": pins.manifest_fingerprint,
            gate.digest_field: digest,
        })),
    }
}

fn to_bytes(value: &Value) -> Vec<u8> {
    let mut bytes = value.to_string().into_bytes();
    bytes.push(b'\n');
    bytes
}

fn hex(bytes: &[u8]) -> String {
    to_hex(&Sha256::digest(bytes))
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write(path: &PathBuf, bytes: &[u8]) -> Result<(), GenerateError> {
    let io = |error: std::io::Error| GenerateError::io(path, &error);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(io)?;
    }
    fs::write(path, bytes).map_err(io)
}
