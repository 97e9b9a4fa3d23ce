//! Objects in a real S3 server: what the store promises, what it refuses, and whole worlds in a bucket.

mod objects;
mod refusals;
pub mod slow;
mod worlds;

use crate::support;
use aws_sdk_s3::error::ProvideErrorMetadata;
use std::sync::{Arc, Once};
use wellspring::object_store::ObjectStores;
use wellspring::object_store::s3::{S3Credentials, S3Options};
use wellspring::settings::secret::Secret;
use wellspring_domain::ports::ObjectStore;

/// How the server of the stack is reached.
fn options() -> S3Options {
    let keys = support::aws_keys();
    S3Options {
        endpoint: Some(support::s3_endpoint()),
        region: Some(support::region()),
        path_style: Some(true),
        credentials: Some(S3Credentials {
            access_key_id: Secret::new(keys.access_key_id),
            secret_access_key: Secret::new(keys.secret_access_key),
            session_token: None,
        }),
        ..S3Options::default()
    }
}

/// The SDK itself: what the store has no verb for, and a stranger to race with.
fn stranger() -> aws_sdk_s3::Client {
    let keys = support::aws_keys();
    let credentials = aws_sdk_s3::config::Credentials::new(
        keys.access_key_id,
        keys.secret_access_key,
        None,
        None,
        "test",
    );
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(aws_sdk_s3::config::BehaviorVersion::latest())
        .region(aws_sdk_s3::config::Region::new(support::region()))
        .credentials_provider(credentials)
        .force_path_style(true)
        .endpoint_url(support::s3_endpoint())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    aws_sdk_s3::Client::from_conf(config)
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

/// One bucket for all of these tests: the server of the stack takes room on disk for each.
const BUCKET: &str = "wellspring-tests";

/// A root below which nothing lies, in a bucket that is there.
fn root(prefix: &str) -> String {
    static MADE: Once = Once::new();
    MADE.call_once(|| {
        let made = block_on(async { stranger().create_bucket().bucket(BUCKET).send().await });
        if let Err(error) = made {
            let code = error.code().unwrap_or_default().to_owned();
            assert!(code.starts_with("BucketAlready"), "{error:?}");
        }
    });
    format!("s3://{BUCKET}/{}", support::unique_name(prefix))
}

/// A store below a root of its own.
fn store(prefix: &str) -> Arc<dyn ObjectStore> {
    let stores = ObjectStores::with_s3(options());
    stores.open(&root(prefix)).unwrap()
}
