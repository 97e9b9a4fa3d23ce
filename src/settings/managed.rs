//! Limits of the managed substrate: this node's leases, and how Kinesis is spoken to.

use super::section::{Section, key};
use crate::event_bus::kinesis::{CallTimeouts, KinesisWiring, ProducerSettings, ReaderSettings};
use std::time::Duration;
use wellspring_domain::event_bus::backoff::Backoff;
use wellspring_domain::event_bus::put_lanes::RequestLimits;
use wellspring_domain::event_bus::shard_buckets::ShardRates;

const MIB: u64 = 1024 * 1024;

/// `wiring.cluster`: this node among others that share the same backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSettings {
    /// Name of this node; made of host and process when absent.
    pub node_id: Option<String>,
    /// How long what this node holds stays its own without a sign of life.
    pub lease_ttl_ms: u64,
    /// How long a commit tries to reach a backend that is away before its shard starts anew.
    pub commit_patience_ms: u64,
}

impl ClusterSettings {
    pub(super) fn read(mut section: Section<'_, '_>) -> Self {
        let s = &mut section;
        let cluster = ClusterSettings {
            node_id: s.optional_text(key("node_id").env("WELLSPRING_NODE_ID")),
            lease_ttl_ms: s.whole(key("lease_ttl_ms"), 10_000, 500..=600_000),
            commit_patience_ms: s.whole(key("commit_patience_ms"), 30_000, 100..=600_000),
        };
        section.finish();
        cluster
    }

    /// How long leases last.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ttl_ms)
    }

    /// How long a commit tries.
    pub fn patience(&self) -> Duration {
        Duration::from_millis(self.commit_patience_ms)
    }

    /// The node's name: as configured, else host and process.
    pub fn node(&self) -> String {
        let made = || format!("{}-{}", host_name(), std::process::id());
        self.node_id.clone().unwrap_or_else(made)
    }
}

/// The name of this machine.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.map_or_else(|_| "node".to_owned(), |name| name.trim().to_owned())
}

/// `wiring.kinesis`: limits of requests and shards. The defaults are the service's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KinesisSettings {
    /// Requests in flight per stream and commit.
    pub lanes: usize,
    /// Most records of one request.
    pub request_records_max: usize,
    /// Most bytes of one request.
    pub request_bytes_max: usize,
    /// Most bytes of one record with its key.
    pub record_bytes_max: usize,
    /// Records a shard takes per second; 0: no limit.
    pub shard_records_per_second: u64,
    /// Bytes a shard takes per second; 0: no limit.
    pub shard_bytes_per_second: u64,
    /// Reads a shard answers per second; 0: no limit.
    pub shard_reads_per_second: u32,
    /// Shards of a stream that is created.
    pub shards: u32,
    /// Time limits of one request.
    pub timeouts: CallTimeouts,
}

impl KinesisSettings {
    pub(super) fn read(mut section: Section<'_, '_>) -> Self {
        let s = &mut section;
        let millis = |value| Duration::from_millis(value);
        let settings = KinesisSettings {
            lanes: s.whole(key("lanes"), 4, 1..=64) as usize,
            request_records_max: s.whole(key("request_records_max"), 500, 1..=500) as usize,
            request_bytes_max: s.whole(key("request_bytes_max"), 5 * MIB, 64..=10 * MIB) as usize,
            record_bytes_max: s.whole(key("record_bytes_max"), MIB, 64..=10 * MIB) as usize,
            shard_records_per_second: s.whole(key("shard_records_per_second"), 1_000, 0..=u64::MAX),
            shard_bytes_per_second: s.whole(key("shard_bytes_per_second"), MIB, 0..=u64::MAX),
            shard_reads_per_second: s.whole(key("shard_reads_per_second"), 5, 0..=1_000) as u32,
            shards: s.whole(key("shards"), 1, 1..=500) as u32,
            timeouts: CallTimeouts {
                connect: millis(s.whole(key("connect_timeout_ms"), 3_000, 10..=600_000)),
                attempt: millis(s.whole(key("attempt_timeout_ms"), 10_000, 10..=600_000)),
                operation: millis(s.whole(key("operation_timeout_ms"), 12_000, 10..=600_000)),
            },
        };
        if settings.record_bytes_max > settings.request_bytes_max {
            s.problem(
                "CONFIG_LIMITS_CONFLICT",
                "record_bytes_max",
                "a record would never fit into request_bytes_max",
            );
        }
        section.finish();
        settings
    }

    /// Limits of a producer.
    pub fn producer(&self, seed: u64) -> ProducerSettings {
        ProducerSettings {
            lanes: self.lanes,
            request: RequestLimits {
                records_max: self.request_records_max,
                bytes_max: self.request_bytes_max,
            },
            record_bytes_max: self.record_bytes_max,
            rates: ShardRates {
                records_per_second: self.shard_records_per_second,
                bytes_per_second: self.shard_bytes_per_second,
            },
            backoff: Backoff::default(),
            seed,
        }
    }

    /// Limits of readers.
    pub fn reader(&self) -> ReaderSettings {
        ReaderSettings {
            reads_per_second: self.shard_reads_per_second,
            ..ReaderSettings::default()
        }
    }

    /// Where the service is.
    pub fn wiring(&self, region: Option<&str>, endpoint_url: Option<&str>) -> KinesisWiring {
        KinesisWiring {
            region: region.map(str::to_owned),
            endpoint_url: endpoint_url.map(str::to_owned),
            timeouts: self.timeouts,
        }
    }
}
