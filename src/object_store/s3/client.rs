//! One client of S3, and how often it asks.
//!
//! The SDK asks once; repeating is done here, because only here is known whether a request that failed
//! may have been carried out (a conditional write that is repeated must not mistake its own object for
//! somebody else's).

use std::future::Future;
use std::time::Duration;

use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, StalledStreamProtectionConfig};
use wellspring_domain::ports::StoreError;

use super::fault::Fault;
use super::io_runtime;
use super::options::{S3Options, S3Patience};

const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// The region of an endpoint that has none.
const REGION_OF_ENDPOINTS: &str = "us-east-1";

/// A client with its patience. Clones share connections.
#[derive(Clone)]
pub(super) struct S3Client {
    pub(super) sdk: aws_sdk_s3::Client,
    pub(super) patience: S3Patience,
}

impl S3Client {
    /// Makes a client; nothing is sent. What is missing is an error with its code.
    pub(super) fn new(options: &S3Options) -> Result<S3Client, StoreError> {
        let Some(credentials) = &options.credentials else {
            return Err(refused(
                "S3_CREDENTIALS_MISSING",
                "AWS_ACCESS_KEY_ID",
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; shared files and metadata services are not asked",
            ));
        };
        let region = match (&options.region, &options.endpoint) {
            (Some(region), _) => region.clone(),
            (None, Some(_)) => REGION_OF_ENDPOINTS.to_owned(),
            (None, None) => {
                return Err(refused(
                    "S3_REGION_MISSING",
                    "wiring.object_store.region",
                    "set the region, or AWS_DEFAULT_REGION",
                ));
            }
        };
        io_runtime::start().map_err(|error| StoreError::Unavailable {
            operation: "start",
            key: "s3".to_owned(),
            cause: error.to_string(),
        })?;
        let credentials = Credentials::new(
            credentials.access_key_id.expose(),
            credentials.secret_access_key.expose(),
            credentials
                .session_token
                .as_ref()
                .map(|token| token.expose().to_owned()),
            None,
            "environment",
        );
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region))
            .credentials_provider(credentials)
            .force_path_style(options.path_style.unwrap_or(false))
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts(&options.patience))
            // Bodies have the read timeout between their pieces instead.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if let Some(endpoint) = &options.endpoint {
            config = config.endpoint_url(checked_endpoint(endpoint)?);
            if endpoint.starts_with("http://") {
                config = config.http_client(aws_smithy_http_client::Builder::new().build_http());
            }
        }
        Ok(S3Client {
            sdk: aws_sdk_s3::Client::from_conf(config.build()),
            patience: options.patience,
        })
    }
}

fn timeouts(patience: &S3Patience) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(patience.connect_timeout)
        .read_timeout(patience.read_timeout)
        .operation_attempt_timeout(patience.connect_timeout + patience.read_timeout)
        .build()
}

/// An endpoint is `http://host[:port]` or `https://…`: a name alone is a mistake that would otherwise
/// show as a failed request (T9).
fn checked_endpoint(endpoint: &str) -> Result<&str, StoreError> {
    let rest = ["http://", "https://"]
        .iter()
        .find_map(|scheme| endpoint.strip_prefix(scheme));
    match rest {
        Some(host) if !host.is_empty() && !host.contains('@') => Ok(endpoint),
        _ => Err(refused(
            "S3_ENDPOINT_INVALID",
            "wiring.object_store.endpoint",
            "an endpoint is http://host:port or https://host, without credentials in it",
        )),
    }
}

fn refused(code: &'static str, key: &str, cause: &str) -> StoreError {
    StoreError::Refused {
        code,
        key: key.to_owned(),
        cause: cause.to_owned(),
    }
}

/// Counts attempts and waits between them.
pub(super) struct Attempts {
    left: u32,
    backoff: Duration,
}

impl Attempts {
    pub(super) fn of(patience: &S3Patience) -> Attempts {
        Attempts {
            left: patience.attempts_max.max(1),
            backoff: BACKOFF_FIRST,
        }
    }

    /// Waits for the next attempt; the fault itself when there is none left.
    pub(super) async fn again(&mut self, fault: Fault) -> Result<(), Fault> {
        self.left -= 1;
        if self.left == 0 {
            return Err(fault);
        }
        tokio::time::sleep(jittered(self.backoff)).await;
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        Ok(())
    }
}

/// Between half of the time and all of it, so that racing clients part.
pub(super) fn jittered(time: Duration) -> Duration {
    time.mul_f64(rand::random_range(0.5..1.0))
}

/// Repeats a request that may be carried out any number of times.
pub(super) async fn repeated<T, F>(
    patience: &S3Patience,
    mut request: impl FnMut() -> F,
) -> Result<T, Fault>
where
    F: Future<Output = Result<T, Fault>>,
{
    let mut attempts = Attempts::of(patience);
    loop {
        match request().await {
            Err(fault @ Fault::Passing(_)) => attempts.again(fault).await?,
            done => return done,
        }
    }
}
