//! Where objects live and how S3 is reached (contract 3.8, 9.2).
//!
//! Endpoint, region and addressing of the profile beat every variable (T6). Credentials are taken from
//! the environment and nowhere else (T8).

use super::layers::Layers;
use super::secret::Secret;
use super::section::{Section, key};
use crate::object_store::s3::{S3Credentials, S3Options, S3Patience};

/// Where objects live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectStoreSettings {
    /// A folder: the runs root.
    Local {
        /// The folder.
        root: String,
    },
    /// An S3 bucket.
    S3 {
        /// `s3://bucket` and an optional prefix.
        root: String,
    },
}

impl ObjectStoreSettings {
    /// The root as the contract writes it: a folder, or `s3://bucket`.
    pub fn root(&self) -> &str {
        match self {
            ObjectStoreSettings::Local { root } | ObjectStoreSettings::S3 { root } => root,
        }
    }

    /// True for a bucket.
    pub fn is_s3(&self) -> bool {
        matches!(self, ObjectStoreSettings::S3 { .. })
    }
}

/// Everything about objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectStorage {
    /// Where the runs live.
    pub store: ObjectStoreSettings,
    /// How S3 is reached by everything but the gate.
    pub s3: S3Options,
    /// How S3 is reached by the gate, which waits less: its senders wait for it.
    pub gate_s3: S3Options,
}

/// The folder of what never leaves this machine, when objects are in a bucket.
const LOCAL_ROOT_DEFAULT: &str = "runs";

impl ObjectStorage {
    pub(super) fn read(mut section: Section<'_, '_>, layers: &Layers, strict: bool) -> Self {
        let s = &mut section;
        let said_kind = s.says("kind");
        let kind = s.choice(
            key("kind").env("OBJECT_STORE_KIND"),
            "auto",
            &[
                ("auto", None),
                ("s3", Some(true)),
                ("local", Some(false)),
                ("file", Some(false)),
            ],
            "OBJECT_STORE_KIND_UNSUPPORTED",
        );
        let root = s.optional_text(
            key("root")
                .env("PLATFORM_STORE_ROOT")
                .missing_code("OBJECT_STORE_ROOT_MISSING"),
        );
        let bucket = s.optional_text(key("bucket").missing_code("OBJECT_STORE_BUCKET_MISSING"));
        let s3 = read_s3(s, layers);
        let managed = kind.unwrap_or(s3.endpoint.is_some() || s3.region.is_some());
        let root = match (root, bucket) {
            (Some(root), _) => root,
            (None, Some(bucket)) if managed => format!("s3://{bucket}"),
            (None, Some(bucket)) => bucket,
            (None, None) => "runs".to_string(),
        };
        let is_s3 = root.starts_with("s3://");
        if kind == Some(true) && !is_s3 && !s.has_problem("root") && !s.has_problem("bucket") {
            s.problem(
                "OBJECT_STORE_BUCKET_MISSING",
                "bucket",
                "kind is s3, but neither root nor bucket names one",
            );
        }
        if strict && !is_s3 && !said_kind && !s.has_problem("root") && !s.has_problem("bucket") {
            s.problem(
                "LOCAL_BACKEND_IN_MANAGED_PROFILE",
                "root",
                format!("objects would go to the folder {root:?}; say kind: file if that is meant"),
            );
        }
        let gate_s3 = read_gate_s3(s.section("gate"), &s3, layers);
        let store = match (is_s3, layers.folder()) {
            (true, _) => ObjectStoreSettings::S3 { root },
            (false, None) => ObjectStoreSettings::Local { root },
            (false, Some(folder)) => {
                s.overruled_by_flag("root", folder);
                ObjectStoreSettings::Local {
                    root: folder.to_owned(),
                }
            }
        };
        section.finish();
        ObjectStorage {
            store,
            s3: with_environment(s3, layers, &RUNNER_AND_STREAMER),
            gate_s3: with_environment(gate_s3, layers, &GATE),
        }
    }

    /// Where this machine keeps what never goes into a bucket: the active run, logs, spill files.
    pub(super) fn read_local_root(&self, wiring: &mut Section<'_, '_>, layers: &Layers) -> String {
        let configured = wiring.text(key("local_root"), LOCAL_ROOT_DEFAULT);
        match (&self.store, layers.folder()) {
            (ObjectStoreSettings::Local { root }, _) => root.clone(),
            (ObjectStoreSettings::S3 { .. }, None) => configured,
            (ObjectStoreSettings::S3 { .. }, Some(folder)) => {
                wiring.overruled_by_flag("local_root", folder);
                folder.to_owned()
            }
        }
    }
}

fn read_s3(s: &mut Section<'_, '_>, layers: &Layers) -> S3Options {
    let default = S3Patience::default();
    S3Options {
        endpoint: s.optional_text(key("endpoint").env_fallback("OBJECT_STORE_ENDPOINT")),
        region: s.optional_text(key("region").env_fallback("OBJECT_STORE_REGION")),
        path_style: s.optional_switch(key("path_style")),
        credentials: credentials(layers),
        patience: S3Patience {
            connect_timeout: s.seconds(
                key("connect_timeout_seconds").env("OBJECT_STORE_CONNECT_TIMEOUT"),
                default.connect_timeout.as_secs_f64(),
            ),
            read_timeout: s.seconds(
                key("read_timeout_seconds").env("OBJECT_STORE_READ_TIMEOUT"),
                default.read_timeout.as_secs_f64(),
            ),
            attempts_max: s.whole(
                key("attempts_max").env("OBJECT_STORE_MAX_ATTEMPTS"),
                default.attempts_max.into(),
                ATTEMPTS,
            ) as u32,
            append_attempts_max: s.whole(
                key("append_attempts_max").env("OBJECT_STORE_APPEND_MAX_ATTEMPTS"),
                default.append_attempts_max.into(),
                ATTEMPTS,
            ) as u32,
            append_backoff_ms: s.whole(
                key("append_backoff_ms").env("OBJECT_STORE_APPEND_BACKOFF_MS"),
                default.append_backoff_ms,
                BACKOFF_MS,
            ),
        },
    }
}

const ATTEMPTS: std::ops::RangeInclusive<u64> = 1..=1_000;
const BACKOFF_MS: std::ops::RangeInclusive<u64> = 1..=60_000;

/// The gate's own knobs (contract 3.8, `IG_`): shorter, because a sender waits behind them.
fn read_gate_s3(mut section: Section<'_, '_>, s3: &S3Options, layers: &Layers) -> S3Options {
    let s = &mut section;
    // Appends wait like everywhere else unless the gate's own variables say otherwise.
    let (append_attempts, append_backoff) = (
        s3.patience.append_attempts_max,
        s3.patience.append_backoff_ms,
    );
    let gate = S3Options {
        patience: S3Patience {
            connect_timeout: s.seconds(
                key("connect_timeout_seconds").env("IG_AWS_CONNECT_TIMEOUT_SECONDS"),
                2.0,
            ),
            read_timeout: s.seconds(
                key("read_timeout_seconds").env("IG_AWS_READ_TIMEOUT_SECONDS"),
                5.0,
            ),
            attempts_max: s.whole(key("attempts_max").env("IG_AWS_MAX_ATTEMPTS"), 3, ATTEMPTS)
                as u32,
            append_attempts_max: s.whole(
                key("append_attempts_max").env("IG_OBJECT_STORE_APPEND_MAX_ATTEMPTS"),
                append_attempts.into(),
                ATTEMPTS,
            ) as u32,
            append_backoff_ms: s.whole(
                key("append_backoff_ms").env("IG_OBJECT_STORE_APPEND_BACKOFF_MS"),
                append_backoff,
                BACKOFF_MS,
            ),
        },
        credentials: credentials(layers),
        ..s3.clone()
    };
    section.finish();
    gate
}

/// The variables of one component.
struct Variables {
    endpoint: &'static str,
    region: &'static str,
    path_style: &'static str,
}

const RUNNER_AND_STREAMER: Variables = Variables {
    endpoint: "SR_S3_ENDPOINT_URL",
    region: "SR_S3_REGION",
    path_style: "SR_S3_PATH_STYLE",
};
const GATE: Variables = Variables {
    endpoint: "IG_S3_ENDPOINT_URL",
    region: "IG_S3_REGION",
    path_style: "IG_S3_PATH_STYLE",
};

/// What the profile leaves open, from the component's variables, then from the common ones.
fn with_environment(options: S3Options, layers: &Layers, own: &Variables) -> S3Options {
    let variable = |names: &[&str]| {
        names
            .iter()
            .find_map(|name| layers.variable(name))
            .map(str::to_owned)
    };
    let path_style = layers.variable(own.path_style).map(|text| {
        let text = text.to_ascii_lowercase();
        matches!(text.as_str(), "1" | "true" | "yes" | "on")
    });
    S3Options {
        endpoint: options
            .endpoint
            .or_else(|| variable(&[own.endpoint, "AWS_ENDPOINT_URL"])),
        region: options
            .region
            .or_else(|| variable(&[own.region, "AWS_REGION", "AWS_DEFAULT_REGION"])),
        path_style: options.path_style.or(path_style),
        ..options
    }
}

fn credentials(layers: &Layers) -> Option<S3Credentials> {
    let secret = |name: &str| layers.variable(name).map(Secret::new);
    Some(S3Credentials {
        access_key_id: secret("AWS_ACCESS_KEY_ID")?,
        secret_access_key: secret("AWS_SECRET_ACCESS_KEY")?,
        session_token: secret("AWS_SESSION_TOKEN"),
    })
}
