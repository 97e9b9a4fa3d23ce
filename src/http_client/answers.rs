//! What the gate's answers say about each event (contract 7.1, design 3.9).

use serde::Deserialize;
use serde_json::Value;
use wellspring_domain::ports::ItemOutcome;
use wellspring_domain::stream::retry::{AnswerClass, TRANSIENT_CODES, classify};

const DETAIL_CHARS_MAX: usize = 256;

/// The outcome in the body of a single push below 400. Whatever it says, the gate took the event
/// over (contract 6.8).
pub fn single_outcome(body: &[u8]) -> ItemOutcome {
    if let Ok(plain) = serde_json::from_slice::<PlainItem>(body) {
        return plain.into();
    }
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    decided(&answer).unwrap_or(ItemOutcome::Admitted)
}

/// The outcomes of a batch, one for each of its `events` in order; anything else decides nothing.
pub fn batch_outcomes(body: &[u8], events: usize) -> Result<Vec<ItemOutcome>, String> {
    match plain_outcomes(body, events) {
        Some(outcomes) => Ok(outcomes),
        None => any_outcomes(body, events),
    }
}

/// Nearly every answer: nothing but admitted events and copies. It is read without keeping what else it says.
fn plain_outcomes(body: &[u8], events: usize) -> Option<Vec<ItemOutcome>> {
    #[derive(Deserialize)]
    struct Plain {
        results: Vec<PlainItem>,
    }
    let answer: Plain = serde_json::from_slice(body).ok()?;
    let outcomes = answer.results.into_iter().map(ItemOutcome::from);
    (outcomes.len() == events).then(|| outcomes.collect())
}

/// A decision that needs no other word.
#[derive(Deserialize)]
struct PlainItem {
    decision: PlainDecision,
}

#[derive(Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum PlainDecision {
    Admit,
    Duplicate,
}

impl From<PlainItem> for ItemOutcome {
    fn from(item: PlainItem) -> ItemOutcome {
        match item.decision {
            PlainDecision::Admit => ItemOutcome::Admitted,
            PlainDecision::Duplicate => ItemOutcome::Duplicate,
        }
    }
}

fn any_outcomes(body: &[u8], events: usize) -> Result<Vec<ItemOutcome>, String> {
    let answer: Value = serde_json::from_slice(body)
        .map_err(|error| format!("the answer to a batch is not JSON: {error}"))?;
    let lists = [
        Some(&answer),
        answer.get("results"),
        answer.get("items"),
        answer.get("outcomes"),
    ];
    let items = lists.into_iter().flatten().find_map(Value::as_array);
    let items = items.ok_or("the answer to a batch has no list of results")?;
    if items.len() != events {
        return Err(format!("{} results for {events} events", items.len()));
    }
    Ok(items.iter().map(item_outcome).collect())
}

fn item_outcome(item: &Value) -> ItemOutcome {
    decided(item).unwrap_or_else(|| undecided(item))
}

fn decided(item: &Value) -> Option<ItemOutcome> {
    match item.get("decision")?.as_str()? {
        "ADMIT" => Some(ItemOutcome::Admitted),
        "DUPLICATE" => Some(ItemOutcome::Duplicate),
        "QUARANTINE" => Some(ItemOutcome::Quarantined {
            code: reason_code(item),
        }),
        _ => None,
    }
}

fn reason_code(item: &Value) -> String {
    let codes = item
        .get("reason_codes")
        .or_else(|| item.get("receipt")?.get("reason_codes"));
    let first = codes.and_then(|codes| codes.get(0)).and_then(Value::as_str);
    let plain = item.get("reason_code").and_then(Value::as_str);
    plain.or(first).unwrap_or_default().to_owned()
}

/// An item with an error: classified like the answer to a single push.
fn undecided(item: &Value) -> ItemOutcome {
    let text = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default();
    let code = text("error").to_owned();
    let known = item
        .get("status")
        .and_then(Value::as_u64)
        .and_then(|s| u16::try_from(s).ok());
    let retryable = TRANSIENT_CODES.contains(&code.as_str()) || code.ends_with("_RETRY");
    let status = known.unwrap_or(if retryable { 503 } else { 400 });
    let retry_after_ms = item.get("retry_after_ms").and_then(Value::as_u64);
    match classify(status, retry_after_ms, Some(&code)) {
        AnswerClass::Backpressure { wait_ms } => ItemOutcome::Retry {
            code,
            retry_after_ms: wait_ms.max(1),
        },
        AnswerClass::Retry { .. } => ItemOutcome::Retry {
            code,
            retry_after_ms: 0,
        },
        AnswerClass::Rejected | AnswerClass::Accepted => ItemOutcome::Rejected {
            status,
            code,
            detail: text("detail").chars().take(DETAIL_CHARS_MAX).collect(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_result_of_a_batch_becomes_the_outcome_of_its_event() {
        let answer = json!({"results": [
            {"decision": "ADMIT", "receipt_ref": "r#0"},
            {"decision": "DUPLICATE"},
            {"decision": "QUARANTINE", "reason_code": "SCHEMA_FAIL"},
            {"error": "IG_UNHEALTHY", "status": 503, "retry_after_ms": 1000},
            {"error": "PRECEDING_ITEM_RETRY"},
            {"error": "ENVELOPE_INVALID", "status": 422, "detail": "no event_id"},
        ]});
        let outcomes = batch_outcomes(answer.to_string().as_bytes(), 6).unwrap();
        let retry = |code: &str, retry_after_ms| ItemOutcome::Retry {
            code: code.to_owned(),
            retry_after_ms,
        };
        assert_eq!(
            outcomes,
            [
                ItemOutcome::Admitted,
                ItemOutcome::Duplicate,
                ItemOutcome::Quarantined {
                    code: "SCHEMA_FAIL".to_owned()
                },
                retry("IG_UNHEALTHY", 1000),
                retry("PRECEDING_ITEM_RETRY", 0),
                ItemOutcome::Rejected {
                    status: 422,
                    code: "ENVELOPE_INVALID".to_owned(),
                    detail: "no event_id".to_owned(),
                },
            ]
        );
    }

    #[test]
    fn a_plain_answer_is_read_as_any_other_is() {
        let body = br#"{"more":[1],"results":[{"decision":"ADMIT","receipt_ref":"r#0"},{"decision":"DUPLICATE"}]}"#;
        let outcomes = [ItemOutcome::Admitted, ItemOutcome::Duplicate];
        assert_eq!(plain_outcomes(body, 2).unwrap(), outcomes);
        assert_eq!(any_outcomes(body, 2).unwrap(), outcomes);
        assert!(plain_outcomes(body, 3).is_none());
    }

    #[test]
    fn an_answer_that_does_not_fit_the_batch_decides_nothing() {
        for body in ["", "{}", "[]", "[{\"decision\":\"ADMIT\"}]"] {
            assert!(batch_outcomes(body.as_bytes(), 2).is_err(), "{body}");
        }
    }

    #[test]
    fn a_single_push_below_400_is_accepted_whatever_it_says() {
        assert_eq!(
            single_outcome(b"{\"decision\":\"DUPLICATE\"}"),
            ItemOutcome::Duplicate
        );
        assert_eq!(single_outcome(b"<html>"), ItemOutcome::Admitted);
    }
}
