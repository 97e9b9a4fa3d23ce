//! Carries a plan out.

use std::time::Duration;

use wellspring_domain::ports::StoreError;

use super::plan::{bucket_resource, database_resource, stream_resource};
use super::{Made, Plan, PlannedStream, Resource};
use crate::event_bus::kinesis::{EnsuredStream, KinesisClient, KinesisWiring, ensure_stream};
use crate::object_store::s3::{EnsuredBucket, S3Options, ensure_bucket};
use crate::settings::Settings;
use crate::settings::secret::Secret;
use crate::state_store::postgres::{Database, DatabaseSettings};

/// Longest wait for one stream.
const STREAM_PATIENCE: Duration = Duration::from_secs(60);

/// Makes everything of the plan that is not there, and tells what came of each. Calls block.
pub fn make(settings: &Settings, plan: &Plan) -> Vec<Resource> {
    let wiring = &settings.wiring;
    let event_bus = KinesisWiring {
        region: wiring.event_bus.region.clone(),
        endpoint_url: wiring.event_bus.endpoint_url.clone(),
        ..KinesisWiring::default()
    };
    let control_bus = KinesisWiring {
        region: wiring.control_bus.region.clone(),
        endpoint_url: wiring.control_bus.endpoint_url.clone(),
        ..KinesisWiring::default()
    };
    let s3 = &wiring.objects.s3;
    std::thread::scope(|threads| {
        let buckets = threads.spawn(|| {
            make_all(plan.buckets.iter(), bucket_resource, |name| {
                bucket(s3, name)
            })
        });
        let event = threads.spawn(|| make_streams(&event_bus, plan.event_streams.iter()));
        let control = threads.spawn(|| make_streams(&control_bus, plan.control_stream.iter()));
        let schemas = threads.spawn(|| make_all(plan.databases.iter(), database_resource, schema));
        let parts = [buckets, event, control, schemas];
        let made = parts.into_iter().map(|part| part.join());
        made.flat_map(|part| part.expect("a thread that only asks servers does not panic"))
            .collect()
    })
}

fn make_streams<'p>(
    wiring: &KinesisWiring,
    streams: impl Iterator<Item = &'p PlannedStream>,
) -> Vec<Resource> {
    let client = KinesisClient::connect(wiring);
    let mut made = make_all(streams, stream_resource, |stream| {
        let client = client.as_ref().map_err(Clone::clone)?;
        let ensured = ensure_stream(client, &stream.name, stream.shards, STREAM_PATIENCE)?;
        Ok(match ensured {
            EnsuredStream::Created => Made::Created,
            EnsuredStream::Existed => Made::Existed,
        })
    });
    // A stream that was there keeps its shards, whatever the settings say.
    for stream in made.iter_mut() {
        stream.shards = stream.shards.filter(|_| stream.made != Made::Existed);
    }
    made
}

fn bucket(options: &S3Options, name: &str) -> Result<Made, StoreError> {
    Ok(match ensure_bucket(options, name)? {
        EnsuredBucket::Created => Made::Created,
        EnsuredBucket::Existed => Made::Existed,
    })
}

fn schema(dsn: &Secret) -> Result<Made, StoreError> {
    Database::open(dsn, DatabaseSettings::default())?;
    Ok(Made::Ready)
}

/// Makes one after the other; after the first failure the rest of the kind is not tried.
fn make_all<T>(
    wanted: impl Iterator<Item = T>,
    resource: impl Fn(T) -> Resource,
    make_one: impl Fn(T) -> Result<Made, StoreError>,
) -> Vec<Resource>
where
    T: Copy,
{
    let mut failed = false;
    let made = wanted.map(|item| {
        let mut resource = resource(item);
        if failed {
            resource.made = Made::NotTried;
            return resource;
        }
        match make_one(item) {
            Ok(made) => resource.made = made,
            Err(error) => {
                failed = true;
                resource.made = Made::Failed;
                resource.error = Some(error);
            }
        }
        resource
    });
    made.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::ResourceKind;

    #[test]
    fn after_a_failure_the_rest_of_a_kind_is_not_tried() {
        let made = make_all(
            ["a", "b", "c"].into_iter(),
            |name| Resource::planned(ResourceKind::Bucket, name),
            |name| match name {
                "b" => Err(StoreError::Refused {
                    code: "X_Y",
                    key: name.to_owned(),
                    cause: "no".to_owned(),
                }),
                _ => Ok(Made::Created),
            },
        );
        let made: Vec<Made> = made.iter().map(|resource| resource.made).collect();
        assert_eq!(made, [Made::Created, Made::Failed, Made::NotTried]);
    }
}
