//! Receipt contexts: stored once, named by number afterwards.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use deadpool_postgres::GenericClient;
use wellspring_domain::admission::decision::ReceiptContext;
use wellspring_domain::admission::receipt::without_nulls;
use wellspring_domain::canonical_json::push_cj;
use wellspring_domain::ids::Hash32;

use super::super::faults::Fault;
use super::super::values::{Columns, damaged, storable};

/// Contexts remembered at most; a run has a few, hostile senders may make many.
const REMEMBERED_MAX: usize = 4_096;

/// What is known of stored contexts.
#[derive(Default)]
pub struct ContextIds {
    by_digest: Mutex<HashMap<Hash32, i64>>,
    by_id: Mutex<HashMap<i64, Arc<ReceiptContext>>>,
}

impl ContextIds {
    /// The numbers of `contexts`, in order; new ones are stored.
    pub async fn store(
        &self,
        connection: &impl GenericClient,
        contexts: &[Arc<ReceiptContext>],
    ) -> Result<Vec<i64>, Fault> {
        let mut ids = Vec::with_capacity(contexts.len());
        for context in contexts {
            let text = text_of(context);
            let digest = Hash32::of(text.as_bytes());
            let known = remembered(&self.by_digest, &digest);
            let id = match known {
                Some(id) => id,
                None => {
                    let id = insert(connection, context, &text, digest).await?;
                    remember(&self.by_digest, digest, id);
                    id
                }
            };
            ids.push(id);
        }
        Ok(ids)
    }

    /// The contexts of these numbers.
    pub async fn load(
        &self,
        connection: &impl GenericClient,
        ids: impl Iterator<Item = i64>,
    ) -> Result<HashMap<i64, Arc<ReceiptContext>>, Fault> {
        let mut found = HashMap::new();
        let mut missing = Vec::new();
        for id in ids {
            if found.contains_key(&id) || missing.contains(&id) {
                continue;
            }
            match remembered(&self.by_id, &id) {
                Some(context) => drop(found.insert(id, context)),
                None => missing.push(id),
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        let select = "SELECT context_id, context FROM ws_contexts WHERE context_id = ANY($1)";
        let statement = connection.prepare_cached(select).await?;
        for row in connection.query(&statement, &[&missing]).await? {
            let row = Columns(&row);
            let id = row.get("context_id")?;
            let parsed = serde_json::from_str(row.get("context")?);
            let context: Arc<ReceiptContext> =
                Arc::new(parsed.map_err(|_| damaged("ws_contexts.context", "a receipt context"))?);
            remember(&self.by_id, id, context.clone());
            found.insert(id, context);
        }
        Ok(found)
    }
}

async fn insert(
    connection: &impl GenericClient,
    context: &ReceiptContext,
    text: &str,
    digest: Hash32,
) -> Result<i64, Fault> {
    let statement = connection
        .prepare_cached(
            "WITH added AS (
                 INSERT INTO ws_contexts
                     (digest, event_type, policy_id, policy_revision, policy_digest, pins_json, context)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)
                 ON CONFLICT (digest) DO NOTHING RETURNING context_id)
             SELECT context_id FROM added
             UNION ALL SELECT context_id FROM ws_contexts WHERE digest = $1 LIMIT 1",
        )
        .await?;
    let policy = &context.policy_rev;
    let mut pins = Vec::new();
    push_cj(&mut pins, &without_nulls(&context.pins));
    let pins = String::from_utf8_lossy(&pins);
    let digest = digest.to_string();
    let event_type = storable(&context.event_type);
    // Another's insert may become visible only to the next statement.
    loop {
        let found = connection
            .query_opt(
                &statement,
                &[
                    &digest,
                    &event_type,
                    &policy.policy_id,
                    &policy.revision,
                    &policy.content_digest,
                    &pins,
                    &text,
                ],
            )
            .await?;
        if let Some(row) = found {
            return Ok(row.get(0));
        }
    }
}

/// CJ: equal contexts have equal text.
fn text_of(context: &ReceiptContext) -> String {
    let value = serde_json::to_value(context).expect("a context has text keys only");
    let mut text = Vec::with_capacity(1_024);
    push_cj(&mut text, &value);
    String::from_utf8(text).expect("canonical JSON is UTF-8")
}

fn remembered<K: std::hash::Hash + Eq, V: Clone>(map: &Mutex<HashMap<K, V>>, key: &K) -> Option<V> {
    let map = map.lock().unwrap_or_else(PoisonError::into_inner);
    map.get(key).cloned()
}

fn remember<K: std::hash::Hash + Eq, V>(map: &Mutex<HashMap<K, V>>, key: K, value: V) {
    let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
    if map.len() >= REMEMBERED_MAX {
        map.clear();
    }
    map.insert(key, value);
}
