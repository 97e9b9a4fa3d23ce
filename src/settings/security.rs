//! `wiring.security`: who may push (contract 7.2, 9.2).

use super::layers::Layers;
use super::secret::Secret;
use super::section::{Section, key};

/// Authentication and rates. Secrets are masked wherever settings are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecuritySettings {
    /// `disabled`, `api_key`, `service_token`, `jwt`; any other is refused per request with
    /// `AUTH_MODE_UNKNOWN`, so it stays a text here.
    pub auth_mode: String,
    /// Header that carries the key or token.
    pub api_key_header: String,
    /// Keys (`api_key`) or principals (`service_token`) named directly.
    pub auth_allowlist: Vec<Secret>,
    /// File of more of them.
    pub auth_allowlist_ref: Option<String>,
    /// Token the World Streamer sends.
    pub wsp_auth_token: Option<Secret>,
    /// Token the decision fabric sends.
    pub df_auth_token: Option<Secret>,
    /// Token the action layer sends.
    pub al_auth_token: Option<Secret>,
    /// Token the case trigger writer sends.
    pub case_trigger_auth_token: Option<Secret>,
    /// Secrets that service tokens are signed with; the profile's list beats the environment.
    pub service_token_secrets: Vec<Secret>,
    /// Pushes per minute and process; 0 is no limit.
    pub push_rate_limit_per_minute: u64,
    /// Failed reads of the store before the gate is unhealthy.
    pub store_read_failure_threshold: u64,
}

const REJECTED_PREFIX: &str = "ready_";

impl SecuritySettings {
    pub(super) fn read(mut section: Section<'_, '_>, layers: &Layers) -> Self {
        let s = &mut section;
        let secrets = s.secrets(key("service_token_secrets"));
        let secrets_variable = s.text(key("service_token_secrets_env"), "IG_SERVICE_TOKEN_SECRETS");
        let settings = SecuritySettings {
            auth_mode: s.text(key("auth_mode"), "disabled"),
            api_key_header: s.text(key("api_key_header"), "X-IG-Api-Key"),
            auth_allowlist: s.secrets(key("auth_allowlist")),
            auth_allowlist_ref: s.optional_text(key("auth_allowlist_ref")),
            wsp_auth_token: s.secret(key("wsp_auth_token")),
            df_auth_token: s.secret(key("df_auth_token")),
            al_auth_token: s.secret(key("al_auth_token")),
            case_trigger_auth_token: s.secret(key("case_trigger_auth_token")),
            service_token_secrets: match secrets.is_empty() {
                true => secrets_of(layers, &secrets_variable),
                false => secrets,
            },
            push_rate_limit_per_minute: s.whole(key("push_rate_limit_per_minute"), 0, 0..=u64::MAX),
            store_read_failure_threshold: s.whole(
                key("store_read_failure_threshold"),
                3,
                1..=1_000_000,
            ),
        };
        super::reject_pull_keys(s, |name| name.starts_with(REJECTED_PREFIX));
        section.finish();
        settings
    }
}

fn secrets_of(layers: &Layers, variable: &str) -> Vec<Secret> {
    let text = layers.variable(variable).unwrap_or_default();
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(Secret::new)
        .collect()
}
