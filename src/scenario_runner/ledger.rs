//! The Scenario Runner's ledger: documents of one run, written under its lease (contract 5.2).
//!
//! Write-once documents are created and never replaced; the status only moves forward; the record
//! takes each fact once. Before each write the lease is checked and renewed, so a runner that lost
//! its run stops writing (contract 5.3).

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};
use wellspring_domain::canonical_json::to_cj;
use wellspring_domain::ports::{Clock, ObjectStore, PutOutcome, StoreError};
use wellspring_domain::scenario::document::Document;
use wellspring_domain::scenario::run_record::{
    QuarantineFile, RecordEvent, RecordIndex, RecordKind, RunStatus,
};
use wellspring_domain::scenario::state_machine::RunState;

use super::error::RunError;
use super::lease::HeldLease;

/// How often a lease is renewed while nothing is written.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(30);
/// How long a torn line is given to become whole: another process may just be writing it.
const TORN_LINE_PATIENCE: Duration = Duration::from_millis(50);

/// What may be done about a line that a crash cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TornLine {
    /// The holder of the run's own lease drops it from the file.
    Drop,
    /// Others pass over it.
    Skip,
}

/// Store keys of one run's documents.
#[derive(Clone, Debug)]
pub struct LedgerKeys {
    prefix: String,
    run_id: String,
}

impl LedgerKeys {
    /// Keys below `<run prefix>/sr`.
    pub fn new(run_prefix: &str, run_id: &str) -> LedgerKeys {
        LedgerKeys {
            prefix: format!("{run_prefix}/sr"),
            run_id: run_id.to_owned(),
        }
    }

    /// The run.
    pub fn run_id(&self) -> &str {
        &self.run_id
    }

    /// `<run prefix>/sr`.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    fn document(&self, folder: &str, extension: &str) -> String {
        format!("{}/{folder}/{}.{extension}", self.prefix, self.run_id)
    }

    /// The plan.
    pub fn plan(&self) -> String {
        self.document("run_plan", "json")
    }

    /// The record.
    pub fn record(&self) -> String {
        self.document("run_record", "jsonl")
    }

    /// The record's index.
    pub fn record_index(&self) -> String {
        self.document("run_record_index", "json")
    }

    /// The status.
    pub fn status(&self) -> String {
        self.document("run_status", "json")
    }

    /// The facts view.
    pub fn facts_view(&self) -> String {
        self.document("run_facts_view", "json")
    }

    /// READY as it is or will be published.
    pub fn ready_signal(&self) -> String {
        self.document("ready_signal", "json")
    }

    /// The quarantine file.
    pub fn quarantine(&self) -> String {
        self.document("quarantine", "json")
    }

    /// Output of one engine attempt.
    pub fn attempt_log(&self, attempt_no: u32, stream: &str) -> String {
        format!(
            "{}/engine_attempt_logs/run_id={}/attempt_no={attempt_no}/{stream}.log",
            self.prefix, self.run_id
        )
    }
}

/// Reads a checked document; one that breaks its schema is damage, not absence.
pub fn read_document<T: Document>(
    store: &dyn ObjectStore,
    key: &str,
) -> Result<Option<T>, StoreError> {
    let Some(bytes) = store.get(key)? else {
        return Ok(None);
    };
    T::from_json(&bytes)
        .map(Some)
        .map_err(|error| StoreError::Damaged {
            key: key.to_owned(),
            offset: 0,
            cause: error.to_string(),
        })
}

/// The status of a run, without its lease.
pub fn read_status(
    store: &dyn ObjectStore,
    keys: &LedgerKeys,
) -> Result<Option<RunStatus>, StoreError> {
    read_document(store, &keys.status())
}

/// The quarantine file of a run.
pub fn read_quarantine(
    store: &dyn ObjectStore,
    keys: &LedgerKeys,
) -> Result<Option<QuarantineFile>, StoreError> {
    let Some(bytes) = store.get(&keys.quarantine())? else {
        return Ok(None);
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| StoreError::Damaged {
            key: keys.quarantine(),
            offset: 0,
            cause: error.to_string(),
        })
}

/// All quarantine files of a platform run, by run id.
pub fn list_quarantined(
    store: &dyn ObjectStore,
    run_prefix: &str,
) -> Result<Vec<QuarantineFile>, StoreError> {
    let folder = format!("{run_prefix}/sr/quarantine");
    let mut files = Vec::new();
    for meta in store.list(&folder)? {
        let name = meta.key[folder.len() + 1..]
            .strip_suffix(".json")
            .map(str::to_owned);
        let Some(run_id) = name else { continue };
        files.extend(read_quarantine(
            store,
            &LedgerKeys::new(run_prefix, &run_id),
        )?);
    }
    Ok(files)
}

/// One run's ledger, opened for writing.
pub struct RunLedger<'a> {
    store: &'a dyn ObjectStore,
    clock: &'a dyn Clock,
    keys: LedgerKeys,
    lease: HeldLease<'a>,
    record: Vec<RecordEvent>,
    known: BTreeSet<String>,
}

impl<'a> RunLedger<'a> {
    /// Opens the ledger and reads its record.
    pub fn open(
        store: &'a dyn ObjectStore,
        clock: &'a dyn Clock,
        keys: LedgerKeys,
        lease: HeldLease<'a>,
        torn_line: TornLine,
    ) -> Result<RunLedger<'a>, RunError> {
        let record = read_record(store, &keys, torn_line)?;
        let known = record.iter().map(|event| event.event_id.clone()).collect();
        Ok(RunLedger {
            store,
            clock,
            keys,
            lease,
            record,
            known,
        })
    }

    /// The run's keys.
    pub fn keys(&self) -> &LedgerKeys {
        &self.keys
    }

    /// The facts recorded so far, oldest first.
    pub fn record(&self) -> &[RecordEvent] {
        &self.record
    }

    /// Checks and renews the lease.
    pub fn keep_lease(&mut self) -> Result<(), RunError> {
        self.lease.keep()
    }

    /// Keeps the lease while `work` runs for long without writing.
    pub fn keep_lease_while<T>(&mut self, work: impl FnOnce() -> T) -> Result<T, RunError> {
        self.lease.keep_while(RENEWAL_INTERVAL, work)
    }

    /// The status as stored.
    pub fn status(&self) -> Result<Option<RunStatus>, RunError> {
        Ok(read_status(self.store, &self.keys)?)
    }

    /// A stored document.
    pub fn read<T: Document>(&self, key: &str) -> Result<Option<T>, RunError> {
        Ok(read_document(self.store, key)?)
    }

    /// Appends a fact unless the record has it. `true` when it is new.
    pub fn fact(
        &mut self,
        kind: RecordKind,
        details: Map<String, Value>,
    ) -> Result<bool, RunError> {
        let event = RecordEvent::new(kind, self.keys.run_id(), details, self.clock.now())?;
        if self.known.contains(&event.event_id) {
            return Ok(false);
        }
        self.lease.keep()?;
        self.store
            .append_line(&self.keys.record(), to_cj(&event)?.as_bytes())?;
        self.known.insert(event.event_id.clone());
        self.record.push(event);
        let index = RecordIndex {
            event_ids: self.known.iter().cloned().collect(),
        };
        self.store
            .put(&self.keys.record_index(), json_file(&index)?.as_bytes())?;
        Ok(true)
    }

    /// Moves the run to a state; staying and moving backwards write nothing.
    pub fn set_state(
        &mut self,
        next: RunState,
        reason_code: Option<&str>,
        facts_view_ref: Option<String>,
    ) -> Result<RunStatus, RunError> {
        let current = self.status()?;
        let status = RunStatus {
            run_id: self.keys.run_id().to_owned(),
            state: next,
            updated_at_utc: self.clock.now().format_mod(),
            reason_code: reason_code.map(str::to_owned),
            record_ref: self.keys.record(),
            facts_view_ref,
        };
        if let Some(current) = current {
            let same = current.state == next
                && current.reason_code == status.reason_code
                && current.facts_view_ref == status.facts_view_ref;
            if same || !current.state.may_become(next) {
                return Ok(current);
            }
        }
        self.lease.keep()?;
        self.store
            .put(&self.keys.status(), json_file(&status)?.as_bytes())?;
        Ok(status)
    }

    /// Creates a write-once document.
    pub fn create<T: Serialize>(
        &mut self,
        key: &str,
        document: &T,
    ) -> Result<PutOutcome, RunError> {
        self.lease.keep()?;
        Ok(self
            .store
            .put_if_absent(key, json_file(document)?.as_bytes())?)
    }

    /// Writes or replaces an object.
    pub fn replace(&mut self, key: &str, bytes: &[u8]) -> Result<(), RunError> {
        self.lease.keep()?;
        Ok(self.store.put(key, bytes)?)
    }

    /// Writes or replaces a JSON document.
    pub fn replace_json<T: Serialize>(&mut self, key: &str, document: &T) -> Result<(), RunError> {
        let text = json_file(document)?;
        self.replace(key, text.as_bytes())
    }
}

/// CJ and a newline, the form of every object-store JSON file (contract 3.8).
fn json_file<T: Serialize>(document: &T) -> Result<String, RunError> {
    Ok(format!("{}\n", to_cj(document)?))
}

/// The record's facts. A line cut short by a crash is dropped from the file, so that every reader
/// finds whole lines only; its fact is told again by the step that was cut off.
fn read_record(
    store: &dyn ObjectStore,
    keys: &LedgerKeys,
    torn_line: TornLine,
) -> Result<Vec<RecordEvent>, RunError> {
    let key = keys.record();
    let Some(bytes) = store.get(&key)? else {
        return Ok(Vec::new());
    };
    let (record, whole) = whole_lines(&bytes);
    if whole.len() == bytes.len() || torn_line == TornLine::Skip {
        return Ok(record);
    }
    std::thread::sleep(TORN_LINE_PATIENCE);
    let bytes = store.get(&key)?.unwrap_or_default();
    let (record, whole) = whole_lines(&bytes);
    if whole.len() != bytes.len() {
        tracing::warn!(key, "a torn line was dropped from the run record");
        store.put(&key, &whole)?;
    }
    Ok(record)
}

/// The events of all whole lines, and the bytes of those lines.
fn whole_lines(bytes: &[u8]) -> (Vec<RecordEvent>, Vec<u8>) {
    let mut record: Vec<RecordEvent> = Vec::new();
    let mut whole = Vec::with_capacity(bytes.len());
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if let (true, Ok(event)) = (line.ends_with(b"\n"), serde_json::from_slice(line)) {
            whole.extend_from_slice(line);
            record.push(event);
        }
    }
    (record, whole)
}
