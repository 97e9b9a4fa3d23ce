//! What a profile names on managed backends.

use std::collections::{BTreeMap, BTreeSet};

use super::{Resource, ResourceKind};
use crate::settings::Settings;
use crate::settings::backends::{AdmissionSettings, BusKind, CheckpointBackend};
use crate::settings::secret::{Secret, masked_url};

/// Streams of the platform that no event type of the gate's policy leads to (contract 8, 9.6).
const OTHER_TOPICS: [&str; 2] = ["fp.bus.audit.v1", "fp.bus.case.v1"];
/// The control bus keeps one order.
const CONTROL_SHARDS: u32 = 1;

/// A stream and the shards it gets when it is new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedStream {
    /// Its name.
    pub name: String,
    /// Its shards.
    pub shards: u32,
}

/// Everything to make, each once and in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Buckets.
    pub buckets: Vec<String>,
    /// Streams of the event bus.
    pub event_streams: Vec<PlannedStream>,
    /// The stream of the control bus.
    pub control_stream: Option<PlannedStream>,
    /// Databases.
    pub databases: Vec<Secret>,
}

impl Plan {
    /// What these settings name; `topics` are those of the gate's policy.
    pub fn of<'t>(settings: &'t Settings, topics: impl IntoIterator<Item = &'t str>) -> Plan {
        Plan {
            buckets: buckets(settings),
            event_streams: event_streams(settings, topics),
            control_stream: control_stream(settings),
            databases: databases(settings),
        }
    }

    /// The plan as resources nothing has come of yet.
    pub fn resources(&self) -> Vec<Resource> {
        let buckets = self.buckets.iter().map(bucket_resource);
        let streams = self.event_streams.iter().chain(&self.control_stream);
        let streams = streams.map(stream_resource);
        let databases = self.databases.iter().map(database_resource);
        buckets.chain(streams).chain(databases).collect()
    }
}

pub(super) fn bucket_resource(bucket: &String) -> Resource {
    Resource::planned(ResourceKind::Bucket, bucket)
}

pub(super) fn stream_resource(stream: &PlannedStream) -> Resource {
    Resource {
        shards: Some(stream.shards),
        ..Resource::planned(ResourceKind::Stream, &stream.name)
    }
}

pub(super) fn database_resource(dsn: &Secret) -> Resource {
    Resource::planned(ResourceKind::Schema, masked_url(dsn.expose()))
}

fn buckets(settings: &Settings) -> Vec<String> {
    let wiring = &settings.wiring;
    let mut roots = vec![wiring.objects.store.root(), &wiring.oracle_root];
    roots.extend(wiring.oracle_engine_run_root.as_deref());
    roots.extend(wiring.oracle_stream_view_root.as_deref());
    let names = roots.into_iter().filter_map(bucket_of);
    let names: BTreeSet<&str> = names.collect();
    names.into_iter().map(str::to_owned).collect()
}

/// The bucket of `s3://bucket[/prefix]`.
fn bucket_of(root: &str) -> Option<&str> {
    let bucket = root.strip_prefix("s3://")?.split('/').next()?;
    (!bucket.is_empty()).then_some(bucket)
}

fn event_streams<'t>(
    settings: &'t Settings,
    topics: impl IntoIterator<Item = &'t str>,
) -> Vec<PlannedStream> {
    let bus = &settings.wiring.event_bus;
    if bus.kind != BusKind::Kinesis {
        return Vec::new();
    }
    if let Some(stream) = &bus.stream {
        return vec![PlannedStream {
            name: stream.clone(),
            shards: bus.shards_of(stream),
        }];
    }
    let named = bus.topics.iter();
    let named = named.filter(|(key, _)| *key != "topic_control");
    let names = topics.into_iter().chain(OTHER_TOPICS);
    let names = names.chain(named.map(|(_, topic)| topic.as_str()));
    let streams: BTreeMap<&str, u32> = names.map(|name| (name, bus.shards_of(name))).collect();
    streams
        .into_iter()
        .map(|(name, shards)| PlannedStream {
            name: name.to_owned(),
            shards,
        })
        .collect()
}

fn control_stream(settings: &Settings) -> Option<PlannedStream> {
    let bus = &settings.wiring.control_bus;
    let stream = bus.stream.as_ref().filter(|_| bus.kind == BusKind::Kinesis);
    stream.map(|name| PlannedStream {
        name: name.clone(),
        shards: CONTROL_SHARDS,
    })
}

fn databases(settings: &Settings) -> Vec<Secret> {
    let wiring = &settings.wiring;
    let mut databases = Vec::new();
    if let AdmissionSettings::Postgres { dsn } = &wiring.admission {
        databases.push(dsn.clone());
    }
    let checkpoints = &wiring.wsp_checkpoint;
    let checkpoints = checkpoints
        .dsn
        .as_ref()
        .filter(|_| checkpoints.backend == CheckpointBackend::Postgres);
    databases.extend(checkpoints.filter(|dsn| !databases.contains(dsn)).cloned());
    databases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::layers::Layers;
    use crate::settings::{ProfileSource, Settings};

    const ENVIRONMENT: [(&str, &str); 14] = [
        ("OBJECT_STORE_ENDPOINT", "http://127.0.0.1:1"),
        ("OBJECT_STORE_REGION", "us-east-1"),
        ("ORACLE_ROOT", "s3://oracle-store"),
        ("ORACLE_ENGINE_RUN_ROOT", "s3://oracle-store/world"),
        ("ORACLE_SCENARIO_ID", "baseline_v1"),
        ("ORACLE_STREAM_VIEW_ROOT", "s3://views/world"),
        ("IG_INGEST_URL", "http://127.0.0.1:2"),
        ("IG_ADMISSION_DSN", "postgresql://u:hidden@h/platform"),
        ("WSP_CHECKPOINT_DSN", "postgresql://u:hidden@h/platform"),
        ("EVENT_BUS_REGION", "us-east-1"),
        ("EVENT_BUS_ENDPOINT_URL", "http://127.0.0.1:3"),
        ("CONTROL_BUS_STREAM", "sr-control-bus"),
        ("CONTROL_BUS_REGION", "us-east-1"),
        ("CONTROL_BUS_ENDPOINT_URL", "http://127.0.0.1:3"),
    ];

    fn settings(profile: &str, more: &[(&str, &str)]) -> Settings {
        let layers = Layers::of(ENVIRONMENT.into_iter().chain(more.iter().copied()));
        Settings::load(&ProfileSource::find(profile).unwrap(), &layers).unwrap()
    }

    #[test]
    fn the_parity_profile_names_buckets_a_stream_per_topic_the_control_bus_and_one_database() {
        let settings = settings("local_parity", &[("EVENT_BUS_STREAM", "auto")]);
        let plan = Plan::of(&settings, ["fp.bus.traffic.fraud.v1", "fp.bus.rtdl.v1"]);
        assert_eq!(plan.buckets, ["fraud-platform", "oracle-store", "views"]);
        let names: Vec<&str> = plan.event_streams.iter().map(|s| s.name.as_str()).collect();
        let expected = [
            "fp.bus.audit.v1",
            "fp.bus.case.v1",
            "fp.bus.rtdl.v1",
            "fp.bus.traffic.fraud.v1",
        ];
        assert_eq!(names, expected);
        assert!(plan.event_streams.iter().all(|stream| stream.shards == 4));
        let control = plan.control_stream.as_ref().unwrap();
        assert_eq!(
            (control.name.as_str(), control.shards),
            ("sr-control-bus", 1)
        );
        assert_eq!(plan.databases.len(), 1, "both keys name the same one");
        let shown = serde_json::to_string(&plan.resources()).unwrap();
        assert!(!shown.contains("hidden"), "{shown}");
        assert_eq!(plan.resources().len(), 3 + 5 + 1);
    }

    #[test]
    fn a_fixed_stream_carries_all_topics_and_shards_go_by_name() {
        let more = [
            ("EVENT_BUS_STREAM", "everything"),
            ("WELLSPRING_WIRING_EVENT_BUS_SHARDS", "16"),
        ];
        let plan = Plan::of(&settings("local_parity", &more), ["fp.bus.rtdl.v1"]);
        let stream = PlannedStream {
            name: "everything".to_owned(),
            shards: 16,
        };
        assert_eq!(plan.event_streams, [stream]);
    }

    #[test]
    fn folders_need_nothing() {
        let profile = ProfileSource::find("local").unwrap();
        let settings = Settings::load(&profile, &Layers::default()).unwrap();
        let plan = Plan::of(&settings, ["fp.bus.rtdl.v1"]);
        assert_eq!(plan, Plan::default());
    }
}
