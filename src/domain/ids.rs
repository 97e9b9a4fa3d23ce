//! Identities and hash recipes, one function per row of contract 1.2.
//!
//! Every recipe is a SHA-256 over text that other programs build too, so each has its golden vector
//! in the tests below (contract 1.3). Nothing here reads a clock or a random source.

use crate::canonical_json::{CanonicalError, to_cj, to_sj};
use hmac::{Hmac, Mac};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::cmp::Ordering;
use std::fmt;

/// A SHA-256 digest; shown and serialised as 64 lower-case hex characters.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Hash32(pub [u8; 32]);

impl Ord for Hash32 {
    /// By bytes. The leading ones nearly always decide.
    fn cmp(&self, other: &Hash32) -> Ordering {
        let leading = self.leading_u64().cmp(&other.leading_u64());
        leading.then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Hash32 {
    fn partial_cmp(&self, other: &Hash32) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash32 {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Hash32 {
        Hash32(Sha256::digest(bytes).into())
    }

    /// Reads 64 lower-case hex characters; anything else is `None`.
    ///
    /// Several per event: steps without branches over whole arrays, so that many digits are done at once.
    pub fn from_hex(text: &[u8]) -> Option<Hash32> {
        let text: &[u8; 64] = text.try_into().ok()?;
        let mut values = [0u8; 64];
        let mut wrong = false;
        for (value, character) in values.iter_mut().zip(text) {
            let (digit, letter) = (character.wrapping_sub(b'0'), character.wrapping_sub(b'a'));
            wrong |= (digit > 9) & (letter > 5);
            *value = if digit <= 9 {
                digit
            } else {
                letter.wrapping_add(10)
            };
        }
        let mut out = [0u8; 32];
        for (byte, pair) in out.iter_mut().zip(values.chunks_exact(2)) {
            *byte = pair[0] << 4 | (pair[1] & 15);
        }
        (!wrong).then_some(Hash32(out))
    }

    /// The 64 hex characters, without an allocation. Steps as in [`Hash32::from_hex`].
    pub fn hex(&self) -> [u8; 64] {
        let (mut high, mut low) = ([0u8; 32], [0u8; 32]);
        for ((high, low), byte) in high.iter_mut().zip(&mut low).zip(self.0) {
            (*high, *low) = (hex_character(byte >> 4), hex_character(byte & 15));
        }
        let mut out = [0u8; 64];
        for (pair, (high, low)) in out.chunks_exact_mut(2).zip(high.iter().zip(&low)) {
            (pair[0], pair[1]) = (*high, *low);
        }
        out
    }

    /// The first eight bytes as a big-endian number: partition and lane choice (contract 1.2).
    pub fn leading_u64(&self) -> u64 {
        u64::from_be_bytes(self.0[..8].try_into().expect("eight of thirty-two bytes"))
    }
}

fn hex_character(value: u8) -> u8 {
    const LETTERS_LATER: u8 = b'a' - b'0' - 10;
    b'0' + value + u8::from(value > 9) * LETTERS_LATER
}

impl fmt::Display for Hash32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.hex()).expect("hex is ASCII"))
    }
}

impl fmt::Debug for Hash32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Hash32 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash32 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Hash32, D::Error> {
        let text = String::deserialize(deserializer)?;
        Hash32::from_hex(text.as_bytes())
            .ok_or_else(|| serde::de::Error::custom("expected 64 lower-case hex characters"))
    }
}

/// `H(x)`: lower-case hex SHA-256 of the text (contract 0.1).
pub fn h(text: &str) -> String {
    Hash32::of(text.as_bytes()).to_string()
}

/// `H32(x)`: the first 32 hex characters of `H(x)` (contract 0.1).
pub fn h32(text: &str) -> String {
    h(text)[..32].to_owned()
}

/// True for `^[a-f0-9]{n}$`.
pub fn is_hex(text: &str, length: usize) -> bool {
    is_hex_bytes(text.as_bytes(), length)
}

/// As [`is_hex`], for bytes that need not be UTF-8.
pub fn is_hex_bytes(text: &[u8], length: usize) -> bool {
    let hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    // No early end: a digest is looked at without a branch per byte.
    text.len() == length && text.iter().fold(true, |all, byte| all & hex(byte))
}

/// `scenario_run_id` from the caller's run equivalence key (V1).
pub fn scenario_run_id(run_equivalence_key: &str) -> String {
    h32(&format!("sr_run|{run_equivalence_key}"))
}

/// `attempt_id` of an engine attempt (V2).
pub fn attempt_id(run_id: &str, attempt_no: u32) -> String {
    h32(&format!("sr_attempt|{run_id}|{attempt_no}"))
}

/// The id that stands for a set of scenarios: order and repeats do not matter (V3).
pub fn scenario_set_id(scenarios: &[String]) -> String {
    let mut unique: Vec<&str> = scenarios.iter().map(String::as_str).collect();
    unique.sort_unstable();
    unique.dedup();
    format!("scnset_{}", &h(&unique.join("|"))[..16])
}

/// `H(SJ(value))`: intent fingerprint, plan hash, record-event id, status hash (V4, V5, V6, V9).
pub fn hash_sj<T: Serialize + ?Sized>(value: &T) -> Result<String, CanonicalError> {
    Ok(h(&to_sj(value)?))
}

/// `H(CJ(value))`: bundle hash, stream view id, policy digest (V7, V17, V20).
pub fn hash_cj<T: Serialize + ?Sized>(value: &T) -> Result<String, CanonicalError> {
    Ok(h(&to_cj(value)?))
}

/// READY `message_id`; `proof` is the bundle hash, else the plan hash (V8).
pub fn ready_message_id(platform_run_id: &str, scenario_run_id: &str, proof: &str) -> String {
    h(&format!(
        "ready|{platform_run_id}|{scenario_run_id}|{proof}"
    ))
}

/// `reemit_key` and message id of a terminal signal (V9).
pub fn terminal_reemit_key(run_id: &str, state: &str, status_hash: &str) -> String {
    h(&format!("terminal|{run_id}|{state}|{status_hash}"))
}

/// An opaque lease token (contract 1.2); `now` is T-off.
pub fn lease_token(run_id: &str, owner_id: &str, now: &str) -> String {
    h(&format!("{run_id}|{owner_id}|{now}"))
}

/// Engine `event_id`: output id, primary-key values, then the world pins, joined with `|` (V10).
/// The values are already in the contract's text form (contract 0.1, last row).
pub fn engine_event_id<'a>(
    output_id: &str,
    primary_key: impl Iterator<Item = &'a str>,
    pins: &[&'a str],
) -> String {
    let mut preimage = output_id.to_owned();
    for part in primary_key.chain(pins.iter().copied()) {
        preimage.push('|');
        preimage.push_str(part);
    }
    h(&preimage)
}

/// `dedupe_key`: uniqueness of an event within a platform run and class (V11).
pub fn dedupe_key(platform_run_id: &[u8], event_class: &[u8], event_id: &[u8]) -> Hash32 {
    hash_parts(&dedupe_key_text(platform_run_id, event_class, event_id))
}

/// What [`dedupe_key`] hashes, in parts.
pub fn dedupe_key_text<'a>(
    platform_run_id: &'a [u8],
    event_class: &'a [u8],
    event_id: &'a [u8],
) -> [&'a [u8]; 5] {
    [platform_run_id, b":", event_class, b":", event_id]
}

/// `payload_hash` over CJ of `{event_type, schema_version, payload}` (V12). Each argument is already
/// canonical JSON: quoted and escaped, or `null`.
pub fn payload_hash(
    event_type_json: &[u8],
    schema_version_json: &[u8],
    payload_json: &[u8],
) -> Hash32 {
    hash_parts(&payload_hash_text(
        event_type_json,
        schema_version_json,
        payload_json,
    ))
}

/// What [`payload_hash`] hashes, in parts.
pub fn payload_hash_text<'a>(
    event_type_json: &'a [u8],
    schema_version_json: &'a [u8],
    payload_json: &'a [u8],
) -> [&'a [u8]; 7] {
    [
        b"{\"event_type\":",
        event_type_json,
        b",\"payload\":",
        payload_json,
        b",\"schema_version\":",
        schema_version_json,
        b"}",
    ]
}

fn hash_parts(parts: &[&[u8]]) -> Hash32 {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    Hash32(hasher.finalize().into())
}

/// `receipt_id` of a decision (`ADMIT`, `DUPLICATE`, `QUARANTINE`) on an event (V13). With
/// `QUARANTINE` it is also the `quarantine_id`; a missing event id is the literal `unknown`.
pub fn receipt_id(decision: &str, event_id: &str) -> String {
    String::from_utf8(receipt_id_hex(decision, event_id).to_vec()).expect("hex is ASCII")
}

/// The 32 hex characters of [`receipt_id`], without an allocation.
pub fn receipt_id_hex(decision: &str, event_id: &str) -> [u8; 32] {
    let text = receipt_id_text(decision.as_bytes(), event_id.as_bytes());
    receipt_id_of(&hash_parts(&text))
}

/// The text whose digest a receipt id comes from, in parts.
pub fn receipt_id_text<'a>(decision: &'a [u8], event_id: &'a [u8]) -> [&'a [u8]; 3] {
    [decision, b":", event_id]
}

/// The receipt id of the digest of [`receipt_id_text`].
pub fn receipt_id_of(digest: &Hash32) -> [u8; 32] {
    let hex = digest.hex();
    hex[..32].try_into().expect("half of 64 characters")
}

/// `partition_key`: the digest of the chosen value's text (V14).
pub fn partition_key(value: &[u8]) -> Hash32 {
    Hash32::of(value)
}

/// The tokens of `oracle_pack_id` (V15).
#[derive(Clone, Copy, Debug)]
pub struct PackIdentity<'a> {
    /// Sealed world identity.
    pub manifest_fingerprint: &'a str,
    /// Governed parameter bundle.
    pub parameter_hash: &'a str,
    /// Scenario of the world.
    pub scenario_id: &'a str,
    /// Seed of the world.
    pub seed: u64,
    /// Engine release that wrote the world.
    pub engine_release: &'a str,
    /// SHA-256 of the catalogue file's raw bytes.
    pub catalogue_digest: &'a str,
    /// SHA-256 of the gate map file's raw bytes.
    pub gate_map_digest: &'a str,
}

/// `oracle_pack_id` (V15).
pub fn oracle_pack_id(pack: &PackIdentity<'_>) -> String {
    h(&format!(
        "{}|{}|{}|{}|{}|{}|{}",
        pack.manifest_fingerprint,
        pack.parameter_hash,
        pack.scenario_id,
        pack.seed,
        pack.engine_release,
        pack.catalogue_digest,
        pack.gate_map_digest
    ))
}

/// The pack key of a world without a pack manifest (V16).
pub fn fallback_pack_key(engine_run_root: &str) -> String {
    h(engine_run_root)
}

/// `source_locator_digest` over the matched source part paths, sorted (V18).
pub fn source_locator_digest(paths: &[String]) -> String {
    let mut sorted: Vec<&str> = paths.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    h(&sorted.join("\n"))
}

/// The scope of a stream checkpoint (V19).
#[derive(Clone, Copy, Debug)]
pub struct CheckpointScope<'a> {
    /// `oracle_pack_id`, else the fallback pack key.
    pub pack_key: &'a str,
    /// Platform run the stream belongs to.
    pub platform_run_id: &'a str,
    /// Scenario run the stream belongs to.
    pub scenario_run_id: &'a str,
    /// Number of lanes, normally 1.
    pub lane_count: u32,
    /// This lane, normally 0.
    pub lane_index: u32,
    /// Checkpoint attempt id, normally empty.
    pub attempt_id: &'a str,
}

/// Checkpoint `pack_key` (V19).
pub fn checkpoint_pack_key(scope: &CheckpointScope<'_>) -> String {
    h(&format!(
        "{}|{}|{}|{}|{}|{}",
        scope.pack_key,
        scope.platform_run_id,
        scope.scenario_run_id,
        scope.lane_count,
        scope.lane_index,
        scope.attempt_id
    ))
}

/// Governance `event_id` (V21); `subject` is the dedupe key, else CJ of the details.
pub fn governance_event_id(
    family: &str,
    platform_run_id: &str,
    scenario_run_id: Option<&str>,
    source_component: &str,
    subject: &str,
) -> String {
    h(&format!(
        "{family}|{platform_run_id}|{}|{source_component}|{subject}",
        scenario_run_id.unwrap_or("")
    ))
}

/// IG audit envelope `event_id` (contract 1.2).
pub fn audit_event_id(
    event_type: &str,
    ts: &str,
    payload: &Value,
) -> Result<String, CanonicalError> {
    Ok(h(&format!("{event_type}:{ts}:{}", to_cj(payload)?)))
}

/// A service token `st.v1.<principal>.<mac>` (V22).
pub fn service_token(principal: &str, secret: &[u8]) -> String {
    use base64::Engine;
    let encoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(principal);
    let mac = service_token_mac(principal, secret);
    let hex: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("st.v1.{encoded}.{hex}")
}

/// The MAC of a service token: HMAC-SHA256 over `v1|<principal>` (V22).
pub fn service_token_mac(principal: &str, secret: &[u8]) -> [u8; 32] {
    let mut mac =
        <Hmac<Sha256> as Mac>::new_from_slice(secret).expect("HMAC takes a key of any length");
    mac.update(b"v1|");
    mac.update(principal.as_bytes());
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn mf() -> String {
        "a".repeat(64)
    }
    fn ph() -> String {
        "b".repeat(64)
    }
    const PRID: &str = "platform_20260101T000000Z";
    const OUTPUT: &str = "s3_event_stream_with_fraud_6B";
    const EVENT: &str = "592744f12c168a1be92d2719947290c1d2a8c49eff71bd48c99b60734fc5e15c";
    const V1: &str = "e4f2285913cc771d0d8dd1ad475f7a01";
    const V4: &str = "0d345b7c225c5c9a419c613f4582277dda3ea51e2e898fb0a5a578e8901471c7";
    const V7: &str = "795855462cd2cea7bc425e9e71ab221571c0d324acf36ebb9dd85acaea1ae892";
    const V15: &str = "d2a78e4a6b863ceff6a92870ccd30512b0e1db0db13caadf411e5fb195e5e230";
    const ROOT: &str = "s3://oracle-store/local_full_run-5/run1";

    #[test]
    fn only_sixty_four_lower_case_digits_are_a_digest() {
        let bytes: [u8; 32] = std::array::from_fn(|at| (at * 37 + 11) as u8);
        let text = Hash32(bytes).hex();
        assert!(is_hex_bytes(&text, 64));
        assert_eq!(Hash32::from_hex(&text), Some(Hash32(bytes)));
        assert_eq!(Hash32([0xa9; 32]).to_string(), "a9".repeat(32));
        assert_eq!(Hash32::from_hex(&text[1..]), None);
        for at in 0..64 {
            for character in 0..=255 {
                let mut other = text;
                other[at] = character;
                let read = Hash32::from_hex(&other);
                match is_hex_bytes(&[character], 1) {
                    true => assert_eq!(read.map(|digest| digest.hex()), Some(other)),
                    false => assert_eq!(read, None),
                }
            }
        }
    }

    #[test]
    fn v1_to_v3_run_attempt_and_scenario_set() {
        assert_eq!(scenario_run_id("parity_20260101T000000Z"), V1);
        assert_eq!(attempt_id(V1, 1), "d85d61d57f456db4b04740a771c1e671");
        let set = [
            "stress".to_owned(),
            "baseline".to_owned(),
            "stress".to_owned(),
        ];
        assert_eq!(scenario_set_id(&set), "scnset_9b4791e078cca7c9");
    }

    #[test]
    fn v4_to_v6_intent_plan_and_record_event() {
        let intent = json!({"manifest_fingerprint": mf(), "parameter_hash": ph(), "seed": 42,
            "scenario_id": "baseline_v1", "scenario_set": null,
            "window_start_utc": "2026-01-01T00:00:00+00:00", "window_end_utc": "2026-01-02T00:00:00+00:00",
            "window_tz": "UTC"});
        assert_eq!(hash_sj(&intent).unwrap(), V4);
        let plan = json!({"run_id": V1, "policy_rev": {"policy_id": "sr_policy", "revision": "v0-local", "content_digest": "c".repeat(64)},
            "strategy": "AUTO", "intended_outputs": [OUTPUT], "required_gates": ["gate.layer3.6B.validation"],
            "evidence_deadline_utc": "2026-01-01T00:10:00.123456Z", "attempt_limit": 1,
            "created_at_utc": "2026-01-01T00:00:00.123456Z"});
        assert_eq!(
            hash_sj(&plan).unwrap(),
            "cc2b7510fb6093dad7d72545153ae9cc08f4b84cb889b17ac0221eb912f91564"
        );
        let record = json!({"event_kind": "RUN_ACCEPTED", "run_id": V1, "details": {"intent_fingerprint": V4}});
        assert_eq!(
            hash_sj(&record).unwrap(),
            "f6a29fc4d6eac432e9f54c31f5f4e4f57206d5a368c470b69789f07635dfd964"
        );
    }

    #[test]
    fn v7_to_v9_bundle_ready_and_terminal() {
        let policy = json!({"policy_id": "sr_policy", "revision": "v0-local", "content_digest": "c".repeat(64)});
        let bundle = json!({"locators": [{"output_id": OUTPUT, "path": format!("{ROOT}/data/x/part-*.parquet"),
                "manifest_fingerprint": mf(), "seed": 42, "scenario_id": "baseline_v1",
                "content_digest": {"algo": "sha256", "hex": "d".repeat(64)}}],
            "receipts": [{"gate_id": "gate.layer3.6B.validation", "status": "PASS", "scope": {"manifest_fingerprint": mf()},
                "receipt_kind": "passed_flag", "digest": {"algo": "sha256", "hex": "e".repeat(64)}}],
            "instance_receipts": [], "policy_rev": policy});
        assert_eq!(hash_cj(&bundle).unwrap(), V7);
        assert_eq!(
            ready_message_id(PRID, V1, V7),
            "0284b104d99b96935e1dc73aed1c1bea6a38d5b64e3439d18e2455b0526c9f2d"
        );
        let status = json!({"run_id": V1, "state": "FAILED", "updated_at_utc": "2026-01-01T00:00:00.123456Z",
            "reason_code": "ENGINE_ROOT_MISSING", "record_ref": format!("fraud-platform/{PRID}/sr/run_record/{V1}.jsonl")});
        let status_hash = hash_sj(&status).unwrap();
        assert!(
            status_hash.starts_with("f417c7f8") && status_hash.ends_with("af4e668"),
            "{status_hash}"
        );
        assert_eq!(
            terminal_reemit_key(V1, "FAILED", &status_hash),
            "62aabd9160229f493097a1391b7fa34045826eddd43d34166e455fda92a8fd9a"
        );
    }

    #[test]
    fn v10_to_v14_event_dedupe_payload_receipts_and_partition() {
        let key = ["42", &mf(), "baseline_v1", "1234567890123456789", "1"].map(str::to_owned);
        let pins = [mf(), ph(), "42".to_owned(), "baseline_v1".to_owned()];
        let pins: Vec<&str> = pins.iter().map(String::as_str).collect();
        assert_eq!(
            engine_event_id(OUTPUT, key.iter().map(String::as_str), &pins),
            EVENT
        );
        assert_eq!(
            dedupe_key(PRID.as_bytes(), b"traffic_fraud", EVENT.as_bytes()).to_string(),
            "ad6e724ddfd666ae4612083e2380e863d051dbcfd6db9066ac539731e5bda9c2"
        );
        let payload = to_cj(&json!({"flow_id": 1234567890123456789u64, "event_seq": 1, "event_type": "AUTH_REQUEST",
            "ts_utc": "2026-01-01T00:00:01.250000Z", "amount": 25.99, "seed": 42, "manifest_fingerprint": mf(),
            "parameter_hash": ph(), "scenario_id": "baseline_v1", "fraud_flag": false, "campaign_id": null}))
        .unwrap();
        assert_eq!(
            payload_hash(
                format!("\"{OUTPUT}\"").as_bytes(),
                b"\"v1\"",
                payload.as_bytes()
            )
            .to_string(),
            "56138cf9dd6f996387272654adb13a6be4803bc109bece999bd5a44d145bf012"
        );
        assert_eq!(
            receipt_id("ADMIT", EVENT),
            "2e13119588b2f2fa0f144b727798facf"
        );
        assert_eq!(
            receipt_id("DUPLICATE", EVENT),
            "cf44722a1ab050c3f4258ac0819de6c4"
        );
        assert_eq!(
            receipt_id("QUARANTINE", EVENT),
            "5e6237763a6d9f53e2537b4c7a871bab"
        );
        assert_eq!(
            partition_key(b"1234567890123456789").to_string(),
            "22085aa929bcd7af4b23d9d9c046a1d4fde8be51f79d91392efafef96574ab01"
        );
    }

    #[test]
    fn v15_to_v19_pack_view_sources_and_checkpoint() {
        let pack = PackIdentity {
            manifest_fingerprint: &mf(),
            parameter_hash: &ph(),
            scenario_id: "baseline_v1",
            seed: 42,
            engine_release: "local",
            catalogue_digest: &"d".repeat(64),
            gate_map_digest: &"e".repeat(64),
        };
        assert_eq!(oracle_pack_id(&pack), V15);
        assert_eq!(
            fallback_pack_key(ROOT),
            "364791ac067ab8489544289f29a431c32e49a459017a214a778254d1daa20ef5"
        );
        let view = json!({"engine_run_root": ROOT, "scenario_id": "baseline_v1", "output_id": OUTPUT,
            "sort_keys": ["ts_utc", "filename", "file_row_number"], "partition_granularity": "flat"});
        assert_eq!(
            hash_cj(&view).unwrap(),
            "e10665092377a5add947226af25655d1dcea1d501ddaccafbb490d9e0a2d653a"
        );
        let parts = [
            format!("{ROOT}/data/x/part-001.parquet"),
            format!("{ROOT}/data/x/part-000.parquet"),
        ];
        assert_eq!(
            source_locator_digest(&parts),
            "067b248156339631db5389efc0c8a27c5671dfacea19573bdec1cc203643d25a"
        );
        let scope = CheckpointScope {
            pack_key: V15,
            platform_run_id: PRID,
            scenario_run_id: V1,
            lane_count: 1,
            lane_index: 0,
            attempt_id: "",
        };
        assert_eq!(
            checkpoint_pack_key(&scope),
            "a3ed048f3d260e02f46a1fc179a5994d6ca8c73016a37a4ac66cc3be6217dea9"
        );
    }

    #[test]
    fn v21_and_v22_governance_and_service_token() {
        assert_eq!(
            governance_event_id(
                "RUN_STARTED",
                PRID,
                Some(V1),
                "wsp_ready_consumer",
                &format!("started:{}", "1".repeat(64))
            ),
            "d17e6f6ae6121a092cef3781fc673b47d43bdbe8f40a8f5e988d6816b66aacc7"
        );
        assert_eq!(
            service_token("world_stream_producer", b"test-secret-1"),
            "st.v1.d29ybGRfc3RyZWFtX3Byb2R1Y2Vy.0e40011b1bd532fa6b02c45dba3122564c4da20f5c4db4dea62428103cf1beef"
        );
    }

    #[test]
    fn hex_reads_back_and_refuses_upper_case() {
        let hash = Hash32::of(b"x");
        assert_eq!(Hash32::from_hex(&hash.hex()), Some(hash));
        assert_eq!(Hash32::from_hex("A".repeat(64).as_bytes()), None);
        assert!(is_hex("0f", 2) && !is_hex("0F", 2) && !is_hex("0f", 3));
    }
}
