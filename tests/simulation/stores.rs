//! What is durable besides the gate: control bus, ready records, checkpoints, leases.

use crate::faults::{Fault, Lie};
use crate::sim::{Sim, unavailable};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use wellspring_domain::ports::{
    CheckpointStore, ControlBus, ControlRecord, Cursor, LeaseGrant, Leases, PutOutcome, StoreError,
};
use wellspring_domain::time_text::Micros;

/// All of it. A write is durable or was never made: torn writes are the gate's disk's.
#[derive(Default)]
pub struct Stores {
    pub messages: Vec<ControlRecord>,
    pub settled: BTreeSet<String>,
    /// Lines of ready records by message id.
    pub records: BTreeMap<String, Vec<String>>,
    pub checkpoints: BTreeMap<(String, String), Cursor>,
    pub leases: BTreeMap<String, Lease>,
}

/// A lease that was granted.
#[derive(Clone)]
pub struct Lease {
    token: String,
    epoch: u64,
    expires_at: u64,
}

/// The control bus, whose messages come late, twice, in another order.
pub struct SimBus(pub Arc<Sim>);

impl SimBus {
    /// Puts a message on the bus from outside, where nothing fails. The same message may be put again: it then
    /// lies at two positions.
    pub fn put(&self, message_id: &str, envelope: &[u8]) {
        let mut stores = self.0.stores();
        let position = format!("{message_id}#{}", stores.messages.len());
        stores.messages.push(ControlRecord {
            position,
            bytes: envelope.to_vec(),
        });
    }

    /// Whether every message on the bus is settled.
    pub fn is_settled(&self) -> bool {
        let stores = self.0.stores();
        stores.settled.len() == stores.messages.len()
    }

    fn records(&self, max: usize) -> Vec<ControlRecord> {
        let again = self.0.strikes(Fault::SettledComesAgain);
        let mut records: Vec<ControlRecord> = {
            let stores = self.0.stores();
            let open =
                |record: &&ControlRecord| again || !stores.settled.contains(&record.position);
            stores.messages.iter().filter(open).cloned().collect()
        };
        if self.0.strikes(Fault::PollReorders) {
            for at in (1..records.len()).rev() {
                records.swap(at, self.0.below(at as u64 + 1) as usize);
            }
        }
        if self.0.strikes(Fault::PollMisses) {
            records.truncate(self.0.below(records.len() as u64 + 1) as usize);
        }
        records.truncate(max);
        records
    }
}

impl ControlBus for SimBus {
    fn publish(
        &self,
        _topic: &str,
        message_id: &str,
        _partition_key: &str,
        envelope: &[u8],
    ) -> Result<PutOutcome, StoreError> {
        self.0.alive("publish", message_id)?;
        self.put(message_id, envelope);
        Ok(PutOutcome::Created)
    }

    fn poll(&self, topic: &str, max: usize) -> Result<Vec<ControlRecord>, StoreError> {
        self.0.fails(Fault::PollFails, "poll", topic)?;
        if self.0.strikes(Fault::PollPanics) {
            panic!("simulated");
        }
        let records = self.records(max);
        let seen: Vec<&str> = records.iter().map(|r| r.position.as_str()).collect();
        self.0.note(format!("poll {}", seen.join(" ")));
        Ok(records)
    }

    fn settle(&self, topic: &str, record: &ControlRecord) -> Result<(), StoreError> {
        self.0.dies(Fault::DiesBeforeSettle, "settle", topic)?;
        self.0.fails(Fault::SettleFails, "settle", topic)?;
        self.0.note(format!("settle {}", record.position));
        let message_id = record.position.split('#').next().unwrap_or_default();
        self.0.judge().settled(message_id);
        self.0.stores().settled.insert(record.position.clone());
        self.0.dies(Fault::DiesAfterSettle, "settle", topic)
    }
}

/// Checkpoints.
pub struct SimCheckpoints(pub Arc<Sim>);

impl CheckpointStore for SimCheckpoints {
    fn load(&self, pack_key: &str, output_id: &str) -> Result<Option<Cursor>, StoreError> {
        self.0
            .fails(Fault::CheckpointLoadFails, "load", output_id)?;
        let key = (pack_key.to_owned(), output_id.to_owned());
        let mut cursor = self.0.stores().checkpoints.get(&key).cloned();
        if let Some(cursor) = cursor.as_mut().filter(|_| self.0.lies(Lie::CursorAhead)) {
            cursor.last_row_index += 1;
        }
        Ok(cursor)
    }

    fn save(&self, cursor: &Cursor, _updated_at: Micros) -> Result<(), StoreError> {
        let key = cursor.output_id.as_str();
        self.0.dies(Fault::DiesBeforeCheckpoint, "save", key)?;
        self.0.fails(Fault::CheckpointSaveFails, "save", key)?;
        if self.0.strikes(Fault::CheckpointSavePanics) {
            panic!("simulated");
        }
        let (pack, row) = (&cursor.pack_key, cursor.last_row_index);
        let part = cursor.part_name.as_deref().unwrap_or_default();
        self.0.note(format!("checkpoint {pack} {key} {part} {row}"));
        self.0.judge().saved(&self.0.plan, cursor);
        let place = (cursor.pack_key.clone(), cursor.output_id.clone());
        self.0.stores().checkpoints.insert(place, cursor.clone());
        self.0.dies(Fault::DiesAfterCheckpoint, "save", key)?;
        self.0.fails(Fault::CheckpointAnswerLost, "save", key)
    }
}

/// Leases that end in virtual time.
pub struct SimLeases(pub Arc<Sim>);

impl SimLeases {
    /// Takes a lease from whoever has it.
    pub fn steal(&self, key: &str) {
        let until = self.0.micros() + 3_000_000;
        let mut stores = self.0.stores();
        let epoch = stores.leases.get(key).map_or(0, |lease| lease.epoch) + 1;
        let lease = Lease {
            token: format!("{key} {epoch}"),
            epoch,
            expires_at: until,
        };
        stores.leases.insert(key.to_owned(), lease);
    }
}

impl Leases for SimLeases {
    fn acquire(
        &self,
        key: &str,
        _owner: &str,
        ttl_seconds: u64,
    ) -> Result<Option<LeaseGrant>, StoreError> {
        self.0.alive("acquire", key)?;
        let now = self.0.micros();
        let mut stores = self.0.stores();
        let held = stores.leases.get(key);
        if held.is_some_and(|held| held.expires_at > now) {
            return Ok(None);
        }
        let epoch = held.map_or(0, |lease| lease.epoch) + 1;
        let lease = Lease {
            token: format!("{key} {epoch}"),
            epoch,
            expires_at: now + ttl_seconds * 1_000_000,
        };
        let grant = LeaseGrant {
            token: lease.token.clone(),
            epoch,
            expires_at: Micros(lease.expires_at as i64),
        };
        stores.leases.insert(key.to_owned(), lease);
        Ok(Some(grant))
    }

    fn renew(
        &self,
        key: &str,
        token: &str,
        ttl_seconds: u64,
    ) -> Result<Option<LeaseGrant>, StoreError> {
        if !self.holds(key, token)? {
            return Ok(None);
        }
        let until = self.0.micros() + ttl_seconds * 1_000_000;
        let mut stores = self.0.stores();
        let Some(lease) = stores.leases.get_mut(key) else {
            return Err(unavailable("renew", key, "the lease is gone"));
        };
        lease.expires_at = until;
        Ok(Some(LeaseGrant {
            token: token.to_owned(),
            epoch: lease.epoch,
            expires_at: Micros(until as i64),
        }))
    }

    fn holds(&self, key: &str, token: &str) -> Result<bool, StoreError> {
        self.0.alive("holds", key)?;
        let now = self.0.micros();
        let stores = self.0.stores();
        let lease = stores.leases.get(key);
        Ok(lease.is_some_and(|lease| lease.token == token && lease.expires_at > now))
    }

    fn release(&self, key: &str, token: &str) -> Result<(), StoreError> {
        if self.holds(key, token)? {
            self.0.stores().leases.remove(key);
        }
        Ok(())
    }
}
