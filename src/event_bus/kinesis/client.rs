//! A client of the service from wiring and environment (contract 8, T6, T8).
//!
//! Wiring beats the environment for endpoint and region. Credentials come from the environment alone: shared
//! configuration files and the metadata service are never asked, so that what a machine happens to hold can
//! not win over what the operator said.

use std::time::Duration;

use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::config::{
    BehaviorVersion, Credentials, Region, StalledStreamProtectionConfig,
};
use aws_sdk_kinesis::{Client, Config};
use wellspring_domain::ports::StoreError;

/// Time limits of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallTimeouts {
    /// Until a connection stands.
    pub connect: Duration,
    /// One attempt, from its first byte to the last one of the answer.
    pub attempt: Duration,
    /// The whole operation inside the client, signing included.
    pub operation: Duration,
}

impl Default for CallTimeouts {
    fn default() -> Self {
        CallTimeouts {
            connect: Duration::from_secs(3),
            attempt: Duration::from_secs(10),
            operation: Duration::from_secs(12),
        }
    }
}

/// Where the service is, as the profile says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KinesisWiring {
    /// Region.
    pub region: Option<String>,
    /// Endpoint, when it is not the region's own.
    pub endpoint_url: Option<String>,
    /// Time limits.
    pub timeouts: CallTimeouts,
}

/// A client of the service. Cloning shares its connections.
#[derive(Clone, Debug)]
pub struct KinesisClient {
    client: Client,
    endpoint: String,
}

impl KinesisClient {
    /// A client from wiring and this process's environment.
    pub fn connect(wiring: &KinesisWiring) -> Result<KinesisClient, StoreError> {
        KinesisClient::with_environment(wiring, &|name| std::env::var(name).ok())
    }

    /// A client from wiring and the given environment. Nothing is sent yet.
    pub fn with_environment(
        wiring: &KinesisWiring,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<KinesisClient, StoreError> {
        let named = |name: &str| environment(name).filter(|value| !value.trim().is_empty());
        let first = |wired: &Option<String>, names: &[&str]| {
            let wired = wired.clone().filter(|value| !value.trim().is_empty());
            wired.or_else(|| names.iter().find_map(|name| named(name)))
        };
        let region =
            first(&wiring.region, &["AWS_DEFAULT_REGION", "AWS_REGION"]).ok_or_else(|| {
                refused(
                    "KINESIS_REGION_MISSING",
                    "region",
                    "name it in the wiring of the bus or in AWS_DEFAULT_REGION",
                )
            })?;
        let endpoint = first(
            &wiring.endpoint_url,
            &["AWS_ENDPOINT_URL", "KINESIS_ENDPOINT_URL"],
        );
        let credentials = credentials(&named)?;
        let mut config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region.clone()))
            .credentials_provider(credentials)
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .timeout_config(timeouts(&wiring.timeouts));
        if let Some(url) = &endpoint {
            check_endpoint(url)?;
            config = config.endpoint_url(url);
            if url.starts_with("http://") {
                let plain = aws_smithy_http_client::Builder::new().build_http();
                config = config.http_client(plain);
            }
        }
        Ok(KinesisClient {
            client: Client::from_conf(config.build()),
            endpoint: endpoint.unwrap_or_else(|| format!("the endpoint of {region}")),
        })
    }

    /// Where requests go, for messages.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(super) fn service(&self) -> &Client {
        &self.client
    }
}

fn credentials(named: &dyn Fn(&str) -> Option<String>) -> Result<Credentials, StoreError> {
    let needed = |name: &'static str| {
        let cause = "set it in the environment; configuration files of other programs are not read";
        named(name).ok_or_else(|| refused("KINESIS_CREDENTIALS_MISSING", name, cause))
    };
    Ok(Credentials::new(
        needed("AWS_ACCESS_KEY_ID")?,
        needed("AWS_SECRET_ACCESS_KEY")?,
        named("AWS_SESSION_TOKEN"),
        None,
        "environment",
    ))
}

fn check_endpoint(url: &str) -> Result<(), StoreError> {
    let host = ["http://", "https://"]
        .iter()
        .find_map(|scheme| url.strip_prefix(scheme))
        .unwrap_or_default();
    let plain = !host.is_empty() && !host.starts_with('/') && !host.contains(['@', ' ', '$']);
    if plain {
        return Ok(());
    }
    // The value itself may hold a password, so it is not repeated.
    let cause = "it must be http:// or https:// and a host, without a user name";
    Err(refused("KINESIS_ENDPOINT_INVALID", "endpoint_url", cause))
}

fn refused(code: &'static str, key: &str, cause: &str) -> StoreError {
    StoreError::Refused {
        code,
        key: key.to_owned(),
        cause: cause.to_owned(),
    }
}

fn timeouts(limits: &CallTimeouts) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(limits.connect)
        .operation_attempt_timeout(limits.attempt)
        .operation_timeout(limits.operation)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [(&str, &str); 2] = [
        ("AWS_ACCESS_KEY_ID", "from-environment"),
        ("AWS_SECRET_ACCESS_KEY", "hidden"),
    ];

    fn connect(
        wiring: &KinesisWiring,
        environment: &[(&str, &str)],
    ) -> Result<KinesisClient, StoreError> {
        let value = |name: &str| {
            let found = environment.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        KinesisClient::with_environment(wiring, &value)
    }

    fn wired(region: Option<&str>, endpoint_url: Option<&str>) -> KinesisWiring {
        KinesisWiring {
            region: region.map(str::to_owned),
            endpoint_url: endpoint_url.map(str::to_owned),
            ..KinesisWiring::default()
        }
    }

    fn region_of(client: &KinesisClient) -> String {
        let config = client.service().config();
        config.region().map(ToString::to_string).unwrap()
    }

    #[test]
    fn wiring_beats_the_environment_for_endpoint_and_region() {
        let mut environment = KEYS.to_vec();
        environment.extend([
            ("AWS_DEFAULT_REGION", "eu-west-1"),
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
        ]);
        let wiring = wired(Some("us-east-1"), Some("http://127.0.0.1:2"));
        let client = connect(&wiring, &environment).unwrap();
        assert_eq!(client.endpoint(), "http://127.0.0.1:2");
        assert_eq!(region_of(&client), "us-east-1");
        let client = connect(&wired(None, None), &environment).unwrap();
        assert_eq!(client.endpoint(), "http://127.0.0.1:1");
        assert_eq!(region_of(&client), "eu-west-1");
        let blank = wired(Some(" "), Some(""));
        assert_eq!(
            region_of(&connect(&blank, &environment).unwrap()),
            "eu-west-1"
        );
    }

    #[test]
    fn what_is_missing_is_named_before_anything_is_sent() {
        let code = |wiring: &KinesisWiring, environment: &[(&str, &str)]| {
            connect(wiring, environment).unwrap_err().code()
        };
        let region = wired(Some("us-east-1"), None);
        assert_eq!(code(&wired(None, None), &KEYS), "KINESIS_REGION_MISSING");
        assert_eq!(code(&region, &[]), "KINESIS_CREDENTIALS_MISSING");
        assert_eq!(code(&region, &KEYS[..1]), "KINESIS_CREDENTIALS_MISSING");
        for bad in [
            "127.0.0.1:4566",
            "http://",
            "ftp://host",
            "${URL}",
            "http://u:p@host",
        ] {
            let wiring = wired(Some("us-east-1"), Some(bad));
            let error = connect(&wiring, &KEYS).unwrap_err();
            assert_eq!(error.code(), "KINESIS_ENDPOINT_INVALID", "{bad}");
            assert!(!error.to_string().contains("u:p"));
        }
    }

    #[test]
    fn secrets_are_in_no_text_of_the_client() {
        let client = connect(&wired(Some("us-east-1"), None), &KEYS).unwrap();
        assert!(!format!("{client:?}").contains("hidden"));
        assert_eq!(client.endpoint(), "the endpoint of us-east-1");
    }
}
