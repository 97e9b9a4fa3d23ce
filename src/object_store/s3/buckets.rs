//! Buckets themselves: looked at and made, for bootstrap.

use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration};
use wellspring_domain::ports::StoreError;

use super::client::{S3Client, repeated};
use super::fault::{Fault, fault_of};
use super::io_runtime::begin;
use super::options::S3Options;

/// The region whose buckets carry no constraint.
const REGION_WITHOUT_CONSTRAINT: &str = "us-east-1";

/// What making a bucket came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnsuredBucket {
    /// It is new.
    Created,
    /// It was there.
    Existed,
}

/// Makes the bucket unless there is one these credentials can list. Repeating it changes nothing.
pub fn ensure_bucket(options: &S3Options, bucket: &str) -> Result<EnsuredBucket, StoreError> {
    let client = S3Client::new(options)?;
    let name = bucket.to_owned();
    // An endpoint of its own knows no regions.
    let region = options.region.clone().filter(|region| {
        options.endpoint.is_none() && region.as_str() != REGION_WITHOUT_CONSTRAINT
    });
    let work = begin(async move { ensure(&client, &name, region.as_deref()).await });
    let ensured = work.wait().unwrap_or_else(|| {
        Err(Fault::Passing(
            "the work of the client ended early".to_owned(),
        ))
    });
    ensured.map_err(|fault| fault.into_store_error("create bucket", bucket.to_owned()))
}

async fn ensure(
    client: &S3Client,
    bucket: &str,
    region: Option<&str>,
) -> Result<EnsuredBucket, Fault> {
    match look(client, bucket).await {
        Ok(()) => return Ok(EnsuredBucket::Existed),
        Err(Fault::Absent) => {}
        Err(Fault::Refused {
            code: "S3_BUCKET_MISSING",
            ..
        }) => {}
        Err(fault) => return Err(fault),
    }
    let created = repeated(&client.patience, || create(client, bucket, region)).await?;
    // Somebody else's bucket of that name shows here.
    look(client, bucket).await?;
    Ok(created)
}

async fn look(client: &S3Client, bucket: &str) -> Result<(), Fault> {
    let looked = repeated(&client.patience, || async {
        let request = client.sdk.list_objects_v2().bucket(bucket).max_keys(1);
        request.send().await.map_err(|error| fault_of(&error))
    });
    looked.await.map(|_page| ())
}

async fn create(
    client: &S3Client,
    bucket: &str,
    region: Option<&str>,
) -> Result<EnsuredBucket, Fault> {
    let place = region.map(|region| {
        CreateBucketConfiguration::builder()
            .location_constraint(BucketLocationConstraint::from(region))
            .build()
    });
    let request = client
        .sdk
        .create_bucket()
        .bucket(bucket)
        .set_create_bucket_configuration(place);
    match request.send().await {
        Ok(_created) => Ok(EnsuredBucket::Created),
        // Ours from another bootstrap, or from this request when its answer was lost.
        Err(error) => match error.code() {
            Some("BucketAlreadyOwnedByYou" | "BucketAlreadyExists") => Ok(EnsuredBucket::Existed),
            _ => Err(fault_of(&error)),
        },
    }
}
