//! Commands that read a run on shared backends.

use super::CliContext;
use super::failure::Failure;
use crate::clock::SystemClock;
use crate::event_bus::kinesis::StreamNames;
use crate::gate::managed::assembly::{ManagedParts, connect};
use crate::gate::managed::read_bus::{BusEntry, ReadPlace, ShardHead, heads, read};
use crate::gate::managed::substrate::Substrate;
use crate::gate::managed::{verify_bus, verify_receipts};
use crate::gate::policy_files::load_policy;
use crate::settings::GateBackend;
use crate::state_store::embedded::verify::{BusReport, ReceiptsReport, TopicFingerprint};
use std::io::Write;
use std::sync::Arc;
use wellspring_domain::admission::bus_offset::SequenceNumber;
use wellspring_domain::admission::policy::AdmissionPolicy;
use wellspring_domain::canonical_json::{push_string, push_u64};
use wellspring_domain::ports::{Clock, StoreError};
use wellspring_domain::run_paths::PlatformRunId;

/// The backends of the settings in force, and the policy that says what goes where.
pub struct ManagedRun {
    /// Backends.
    pub substrate: Substrate,
    policy: AdmissionPolicy,
}

/// Connects when the settings name shared backends; `None` for embedded ones.
pub fn open(ctx: &CliContext) -> anyhow::Result<Option<ManagedRun>> {
    let settings = ctx.settings()?;
    let backend = settings
        .gate_backend()
        .map_err(super::context::settings_failure)?;
    let GateBackend::Managed { dsn } = backend else {
        return Ok(None);
    };
    let policy = load_policy(settings).map_err(|error| Failure::of(error.code(), error))?;
    let objects = settings.object_stores().open(settings.runs_root());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let substrate = connect(ManagedParts {
        settings,
        dsn,
        objects: objects.map_err(|error| Failure::of(error.code(), error))?,
        layout: super::receipts::layout(settings),
        topics: policy.topics().iter().map(ToString::to_string).collect(),
        clock: &clock,
    });
    let substrate = substrate.map_err(|error| Failure::of(error.code(), error))?;
    Ok(Some(ManagedRun { substrate, policy }))
}

/// What `bus read` was asked for.
pub struct BusRead<'a> {
    /// The run.
    pub run: &'a PlatformRunId,
    /// Topic.
    pub topic: &'a str,
    /// Partition.
    pub partition: u32,
    /// Sequence number to start at; `0` means the beginning.
    pub from_offset: &'a str,
    /// Most records.
    pub max: usize,
}

impl ManagedRun {
    /// Prints records, one JSON object per line.
    pub fn print_records(&self, asked: &BusRead<'_>, out: &mut dyn Write) -> anyhow::Result<()> {
        let from = match asked.from_offset {
            "0" => None,
            text => Some(SequenceNumber::parse(text).ok_or_else(|| {
                let sentence = format!("--from-offset {text} is no sequence number");
                Failure::new("BUS_OFFSET_INVALID", sentence)
            })?),
        };
        let place = ReadPlace {
            run: asked.run,
            topic: asked.topic,
            partition: asked.partition,
            from,
            max: asked.max,
        };
        let class_of = |event_type: &str| self.policy.rule(event_type).class.clone();
        let mut line = Vec::new();
        let mut failed = None;
        read(&self.substrate, &place, &class_of, &mut |entry| {
            line.clear();
            push_entry(&mut line, asked.topic, entry);
            if let Err(error) = out.write_all(&line) {
                failed.get_or_insert(error);
            }
            Ok(())
        })
        .map_err(store_failure)?;
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Where streams end, one topic's or all.
    pub fn heads(&self, topic: Option<&str>) -> anyhow::Result<Vec<ShardHead>> {
        let streams: &StreamNames = &self.substrate.streams;
        let mut heads = heads(&self.substrate).map_err(store_failure)?;
        heads.retain(|head| topic.is_none_or(|topic| head.stream == streams.stream_of(topic)));
        Ok(heads)
    }

    /// The bus against the ledger.
    pub fn verify_bus(
        &self,
        run: &PlatformRunId,
    ) -> anyhow::Result<(BusReport, Vec<TopicFingerprint>)> {
        let topic_of = |event_type: &str| self.policy.rule(event_type).topic.to_string();
        verify_bus::verify_bus(&self.substrate, run, &topic_of).map_err(store_failure)
    }

    /// The receipts against segments and records.
    pub fn verify_receipts(&self, run: &PlatformRunId) -> anyhow::Result<ReceiptsReport> {
        verify_receipts::verify_receipts(&self.substrate, run).map_err(store_failure)
    }
}

/// `{"topic","partition","offset","record"}`; the record as a file bus would hold it.
fn push_entry(line: &mut Vec<u8>, topic: &str, entry: &BusEntry) {
    line.extend_from_slice(b"{\"topic\":");
    push_string(line, topic);
    line.extend_from_slice(b",\"partition\":");
    push_u64(line, u64::from(entry.record.partition));
    line.extend_from_slice(b",\"offset\":");
    push_string(line, &entry.record.sequence.to_string());
    line.extend_from_slice(b",\"record\":{\"partition_key\":");
    push_string(line, &entry.record.partition_key);
    line.extend_from_slice(b",\"payload\":");
    line.extend_from_slice(&entry.record.data);
    line.extend_from_slice(b",\"published_at_utc\":");
    push_string(line, &entry.row.decided_at.format_off());
    line.extend_from_slice(b"}}\n");
}

fn store_failure(error: StoreError) -> anyhow::Error {
    Failure::of(error.code(), error).into()
}
