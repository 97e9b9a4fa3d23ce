//! What must hold for all inputs: numbers in canonical form, hash recipes, routing, cursors, retries.

use crate::admission::routing::{admission_shard_of, index_shard_of, partition_of};
use crate::canonical_json::{push_f64, push_i64, push_u64, to_cj, to_ij, to_sj};
use crate::ids::{self, Hash32};
use crate::ports::Cursor;
use crate::stream::cursor::{check_row, resume_point};
use crate::stream::retry::{AnswerClass, NextAttempt, RetryPolicy, RetryState, classify};
use crate::stream::source::PartName;
use proptest::prelude::*;
use serde_json::Value;
use sha2::{Digest, Sha256};

fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).unwrap()
}

/// Every class of floats: bit patterns reach subnormals, huge and tiny ones; the rest are those people write.
fn floats() -> impl Strategy<Value = f64> {
    let bits = any::<u64>().prop_map(f64::from_bits);
    let money = (any::<i32>(), 0u32..6).prop_map(|(n, d)| f64::from(n) / 10f64.powi(d as i32));
    let edges = prop::sample::select(vec![
        0.0,
        -0.0,
        1e16,
        9_999_999_999_999_998.0,
        1e15,
        1e-4,
        9.999e-5,
        1e-5,
        f64::MAX,
        f64::MIN_POSITIVE,
        5e-324,
        0.1 + 0.2,
    ]);
    prop_oneof![bits, money, edges].prop_filter("a number", |value| value.is_finite())
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        floats().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((".{0,6}", inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn sha256(text: &str) -> String {
    Sha256::digest(text.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn parts(rows: &[u64]) -> Vec<PartName> {
    let part = |number: usize| PartName {
        file: format!("/w/part-{number:06}.parquet"),
        name: format!("part-{number:06}.parquet"),
    };
    (0..rows.len()).map(part).collect()
}

proptest! {
    #[test]
    fn a_float_is_read_back_bit_by_bit_and_has_one_layout(value in floats()) {
        let written = text(|out| push_f64(out, value));
        prop_assert_eq!(written.parse::<f64>().unwrap().to_bits(), value.to_bits(), "{}", written);
        let (mantissa, exponent) = written.split_once('e').unwrap_or((&written, "+16"));
        prop_assert!(exponent.len() >= 3 && exponent.starts_with(['+', '-']), "{}", written);
        let size: i32 = exponent.parse().unwrap();
        prop_assert!(!(-4..16).contains(&size), "{}", written);
        prop_assert_eq!(written.contains('e') || written.contains('.'), true, "{}", written);
        prop_assert!(!mantissa.ends_with('.') && !mantissa.contains("e"), "{}", written);
    }

    #[test]
    fn integers_are_plain_decimal(signed: i64, unsigned: u64) {
        prop_assert_eq!(text(|out| push_i64(out, signed)), signed.to_string());
        prop_assert_eq!(text(|out| push_u64(out, unsigned)), unsigned.to_string());
    }

    #[test]
    fn every_form_is_ascii_and_means_the_value(value in json()) {
        for form in [to_cj(&value), to_sj(&value), to_ij(&value)] {
            let form = form.unwrap();
            prop_assert!(form.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{}", form);
            let again: Value = serde_json::from_str(&form).unwrap();
            prop_assert_eq!(&again, &value);
        }
        let compact = to_cj(&value).unwrap();
        let reread: Value = serde_json::from_str(&compact).unwrap();
        prop_assert_eq!(to_ij(&reread).unwrap(), compact, "sorted once is sorted");
    }

    #[test]
    fn hash_recipes_are_the_digest_of_their_text(a in ".{0,20}", b in ".{0,20}", c in ".{0,20}", n: u32) {
        let key = ids::dedupe_key(a.as_bytes(), b.as_bytes(), c.as_bytes());
        prop_assert_eq!(key.to_string(), sha256(&format!("{a}:{b}:{c}")));
        let hash = ids::payload_hash(a.as_bytes(), b.as_bytes(), c.as_bytes());
        let preimage = format!("{{\"event_type\":{a},\"payload\":{c},\"schema_version\":{b}}}");
        prop_assert_eq!(hash.to_string(), sha256(&preimage));
        prop_assert_eq!(ids::receipt_id(&a, &b), &sha256(&format!("{a}:{b}"))[..32]);
        prop_assert_eq!(ids::scenario_run_id(&a), &sha256(&format!("sr_run|{a}"))[..32]);
        prop_assert_eq!(ids::attempt_id(&a, n), &sha256(&format!("sr_attempt|{a}|{n}"))[..32]);
        prop_assert_eq!(ids::partition_key(a.as_bytes()).to_string(), sha256(&a));
        let ready = ids::ready_message_id(&a, &b, &c);
        prop_assert_eq!(ready, sha256(&format!("ready|{a}|{b}|{c}")));
        let event = ids::engine_event_id(&a, [b.as_str()].into_iter(), &[c.as_str()]);
        prop_assert_eq!(event, sha256(&format!("{a}|{b}|{c}")));
    }

    #[test]
    fn a_set_of_scenarios_has_one_id_in_any_order(mut names in prop::collection::vec("[a-z]{1,4}", 1..6)) {
        let id = ids::scenario_set_id(&names);
        names.reverse();
        names.push(names[0].clone());
        prop_assert_eq!(ids::scenario_set_id(&names), id);
    }

    #[test]
    fn routing_stays_within_its_bounds_and_depends_on_its_key_alone(
        key: [u8; 32], partitions in 0u32..300, topic: u16, shards in 0u16..70,
    ) {
        let key = Hash32(key);
        let partition = partition_of(&key, partitions);
        prop_assert!(partition < partitions.max(1));
        prop_assert_eq!(partition_of(&key, partitions), partition);
        prop_assert!(admission_shard_of(topic, partition, shards) < shards.max(1));
        prop_assert!(index_shard_of(&key, shards) < shards.max(1));
        let leading = u64::from_be_bytes(key.0[..8].try_into().unwrap());
        prop_assert_eq!(u64::from(partition), leading % u64::from(partitions.max(1)));
    }

    /// Reading on from any cursor gives exactly the rows behind it, counted over all parts.
    #[test]
    fn a_cursor_skips_what_was_sent_and_nothing_else(
        rows in prop::collection::vec(1u64..50, 1..6), at: prop::sample::Index,
    ) {
        let parts = parts(&rows);
        let all: Vec<(usize, u64)> = rows.iter().enumerate()
            .flat_map(|(part, rows)| (0..*rows).map(move |row| (part, row)))
            .collect();
        let last = at.index(all.len());
        let (part, row) = all[last];
        let cursor = |row: u64| Cursor {
            pack_key: "p".to_owned(),
            output_id: "o".to_owned(),
            last_file: parts[part].file.clone(),
            last_row_index: row,
            last_ts_utc: None,
            stream_view_id: Some("view".to_owned()),
            part_name: Some(parts[part].name.clone()),
        };
        let point = resume_point(&parts, "view", Some(&cursor(row))).unwrap();
        check_row(&point, &parts[part], rows[part]).unwrap();
        let left: Vec<(usize, u64)> = all.iter().copied()
            .filter(|(other, row)| (*other, *row) >= (point.part, point.row))
            .collect();
        prop_assert_eq!(&left[..], &all[last + 1..]);
        for beyond in [rows[part], u64::MAX] {
            let point = resume_point(&parts, "view", Some(&cursor(beyond))).unwrap();
            prop_assert!(check_row(&point, &parts[part], rows[part]).is_err(), "row {}", beyond);
        }
        prop_assert!(resume_point(&parts, "another", Some(&cursor(row))).is_err());
    }

    #[test]
    fn an_answer_is_of_one_class_and_only_refusals_end_an_output(
        status in 100u16..1000, wait: Option<u64>, code in prop::option::of("[A-Z_]{1,12}"),
    ) {
        let class = classify(status, wait, code.as_deref());
        match class {
            AnswerClass::Accepted => prop_assert!(status < 400),
            AnswerClass::Backpressure { wait_ms } => {
                prop_assert!([429, 503].contains(&status));
                prop_assert_eq!(Some(wait_ms), wait);
            }
            AnswerClass::Retry { reason } => {
                prop_assert!(status >= 400);
                prop_assert_eq!(reason, format!("http_{status}"));
            }
            AnswerClass::Rejected => {
                prop_assert!((400..500).contains(&status) || status >= 600);
                prop_assert!(![408, 429].contains(&status));
            }
        }
    }

    #[test]
    fn retries_end_and_their_waits_stay_below_twice_the_longest(
        attempts_max in 1u32..12, base in 0u64..10_000, max in 0u64..100_000, jitter in -1.0f64..2.0,
    ) {
        let policy = RetryPolicy { attempts_max, delay_base_ms: base, delay_max_ms: max, ..RetryPolicy::default() };
        let mut state = RetryState::default();
        let mut attempts = 1;
        while let NextAttempt::After { wait_ms } = state.after_failure(&policy, jitter) {
            prop_assert!(wait_ms <= 2 * max.min(base.saturating_mul(1 << 31)));
            attempts += 1;
            prop_assert!(attempts <= attempts_max);
        }
        prop_assert_eq!(attempts, attempts_max);
        state.progressed();
        prop_assert_eq!(state.attempts_failed(), 0);
    }
}
