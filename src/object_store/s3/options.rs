//! How S3 is reached: everything that comes from wiring and environment (contract 3.8).

use std::time::Duration;

use crate::settings::secret::Secret;

/// A key pair. It comes from the environment only: shared files and metadata services are never asked,
/// so that what happens to lie on a machine cannot win over what was said (T8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Credentials {
    /// `AWS_ACCESS_KEY_ID`.
    pub access_key_id: Secret,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret_access_key: Secret,
    /// `AWS_SESSION_TOKEN`, for credentials that end.
    pub session_token: Option<Secret>,
}

/// How long and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct S3Patience {
    /// Until a connection stands.
    pub connect_timeout: Duration,
    /// Until an answer begins, and between two pieces of a body.
    pub read_timeout: Duration,
    /// Attempts of one request in all.
    pub attempts_max: u32,
    /// Attempts to append a line while others append too.
    pub append_attempts_max: u32,
    /// Milliseconds to wait after the first lost append; n times as long after the n-th.
    pub append_backoff_ms: u64,
}

impl Default for S3Patience {
    fn default() -> S3Patience {
        S3Patience {
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(120),
            attempts_max: 5,
            append_attempts_max: 5,
            append_backoff_ms: 50,
        }
    }
}

/// Everything a client is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct S3Options {
    /// Endpoint, when it is not the region's own.
    pub endpoint: Option<String>,
    /// Region.
    pub region: Option<String>,
    /// Path addressing instead of virtual hosts; virtual hosts when nobody says.
    pub path_style: Option<bool>,
    /// The key pair; without one no bucket is opened.
    pub credentials: Option<S3Credentials>,
    /// Timeouts and attempts.
    pub patience: S3Patience,
}
