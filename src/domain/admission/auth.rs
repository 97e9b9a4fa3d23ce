//! Who may push, and under which label it is remembered (contract 7.2).
//!
//! Keys never leave this module: receipts and logs carry a label (W24). Every comparison with a secret
//! takes the same time whether it fits or not.

use crate::admission::decision::Actor;
use crate::ids::{h, service_token_mac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// How callers prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// Everybody is welcome.
    Disabled,
    /// The header holds a key of the allowlist.
    ApiKey,
    /// The header holds a signed service token (V22).
    ServiceToken,
    /// Known, never accepted.
    Jwt,
    /// Nothing we know: nobody is let in.
    Unknown,
}

impl AuthMode {
    /// The mode of that name in a profile.
    pub fn parse(name: &str) -> AuthMode {
        match name {
            "disabled" => AuthMode::Disabled,
            "api_key" => AuthMode::ApiKey,
            "service_token" => AuthMode::ServiceToken,
            "jwt" => AuthMode::Jwt,
            _ => AuthMode::Unknown,
        }
    }
}

/// What callers are checked against.
#[derive(Clone)]
pub struct AuthPolicy {
    mode: AuthMode,
    /// Keys (`api_key`) or principals (`service_token`).
    allowlist: Vec<String>,
    /// Under which label the keys are remembered; with no authentication, that of everybody.
    actors: Vec<Arc<Actor>>,
    /// Secrets service tokens are signed with.
    secrets: Vec<String>,
}

/// Why a caller is not let in: always HTTP 401.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct AuthRefusal {
    /// Contract reason code.
    pub code: &'static str,
    /// A sentence without secrets.
    pub detail: &'static str,
}

impl AuthPolicy {
    /// `allowlist` holds keys (`api_key`) or principals (`service_token`), `secrets` what service tokens are
    /// signed with.
    pub fn new(mode: AuthMode, allowlist: Vec<String>, secrets: Vec<String>) -> AuthPolicy {
        let label = |key: &String| actor(&format!("api_key:{}", &h(key)[..12]), "api_key");
        AuthPolicy {
            actors: match mode {
                AuthMode::Disabled => vec![actor("ANONYMOUS", "disabled")],
                AuthMode::ApiKey => allowlist.iter().map(label).collect(),
                AuthMode::ServiceToken | AuthMode::Jwt | AuthMode::Unknown => Vec::new(),
            },
            mode,
            allowlist,
            secrets,
        }
    }

    /// Checks the header's value and names the caller.
    pub fn authenticate(&self, header: Option<&str>) -> Result<Arc<Actor>, AuthRefusal> {
        match self.mode {
            AuthMode::Disabled => Ok(self.actors[0].clone()),
            AuthMode::ApiKey => self.check_key(header),
            AuthMode::ServiceToken => self.check_token(header),
            AuthMode::Jwt => refuse(
                "AUTH_MODE_UNSUPPORTED",
                "jwt is not supported: use api_key or service_token",
            ),
            AuthMode::Unknown => refuse(
                "AUTH_MODE_UNKNOWN",
                "the profile names an auth_mode that does not exist",
            ),
        }
    }

    fn check_key(&self, header: Option<&str>) -> Result<Arc<Actor>, AuthRefusal> {
        let key = header.unwrap_or_default();
        let keys = self.allowlist.iter().zip(&self.actors);
        // Every key is compared, whichever it is.
        let known = keys.fold(None, |known, (allowed, actor)| {
            match same(allowed.as_bytes(), key.as_bytes()) {
                true => Some(actor),
                false => known,
            }
        });
        match known {
            Some(actor) if !key.is_empty() => Ok(actor.clone()),
            _ => refuse("UNAUTHORIZED", "the key is missing or not in the allowlist"),
        }
    }

    fn check_token(&self, header: Option<&str>) -> Result<Arc<Actor>, AuthRefusal> {
        if self.secrets.is_empty() {
            return refuse(
                "AUTH_SERVICE_TOKEN_SECRET_MISSING",
                "no service token secret is configured",
            );
        }
        let principal = header.and_then(|token| self.principal_of(token));
        let Some(principal) = principal else {
            return refuse(
                "UNAUTHORIZED",
                "the service token is missing or not signed with a known secret",
            );
        };
        let label = format!("SYSTEM::{principal}");
        let allowed = self.allowlist.is_empty()
            || self
                .allowlist
                .iter()
                .any(|name| *name == principal || *name == label);
        if allowed {
            Ok(actor(&principal, "service_token"))
        } else {
            refuse("UNAUTHORIZED", "the principal is not in the allowlist")
        }
    }

    /// The principal of a token whose signature fits one of the secrets.
    fn principal_of(&self, token: &str) -> Option<String> {
        let (encoded, mac) = token.strip_prefix("st.v1.")?.split_once('.')?;
        let principal = String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()?;
        let signed = self.secrets.iter().fold(false, |signed, secret| {
            let expected: String = service_token_mac(&principal, secret.as_bytes())
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            signed | same(expected.as_bytes(), mac.as_bytes())
        });
        (signed && !principal.is_empty()).then_some(principal)
    }
}

fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

fn actor(principal: &str, auth_mode: &str) -> Arc<Actor> {
    let labelled = principal.starts_with("SYSTEM::") || principal.starts_with("HUMAN::");
    Arc::new(Actor {
        actor_id: if labelled {
            principal.to_owned()
        } else {
            format!("SYSTEM::{principal}")
        },
        source_type: "SYSTEM".to_owned(),
        auth_mode: auth_mode.to_owned(),
        principal: principal.to_owned(),
    })
}

fn refuse(code: &'static str, detail: &'static str) -> Result<Arc<Actor>, AuthRefusal> {
    Err(AuthRefusal { code, detail })
}

/// A sliding window over the last 60 seconds, in one-second steps (contract 7.2, last line).
#[derive(Debug)]
pub struct RateWindow {
    limit: u64,
    seconds: [u64; 60],
    newest: u64,
}

impl RateWindow {
    /// At most `limit` requests in any 60 seconds; none for zero, which means no limit.
    pub fn new(limit: u64) -> Option<RateWindow> {
        let window = RateWindow {
            limit,
            seconds: [0; 60],
            newest: 0,
        };
        (limit > 0).then_some(window)
    }

    /// Counts a request at `second` (monotonic); false when it is one too many, and then it is not counted.
    pub fn admit(&mut self, second: u64) -> bool {
        for passed in (self.newest + 1..=second).take(60) {
            self.seconds[(passed % 60) as usize] = 0;
        }
        if second > self.newest + 60 {
            self.seconds = [0; 60];
        }
        self.newest = self.newest.max(second);
        if self.seconds.iter().sum::<u64>() >= self.limit {
            return false;
        }
        self.seconds[(self.newest % 60) as usize] += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::service_token;

    fn policy(mode: &str, allowlist: &[&str], secrets: &[&str]) -> AuthPolicy {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        AuthPolicy::new(AuthMode::parse(mode), owned(allowlist), owned(secrets))
    }

    fn code(policy: &AuthPolicy, header: Option<&str>) -> &'static str {
        policy
            .authenticate(header)
            .map_or_else(|refusal| refusal.code, |_| "OK")
    }

    #[test]
    fn each_mode_answers_with_its_code() {
        assert_eq!(code(&policy("disabled", &[], &[]), None), "OK");
        assert_eq!(
            code(&policy("jwt", &[], &[]), Some("x")),
            "AUTH_MODE_UNSUPPORTED"
        );
        assert_eq!(code(&policy("open", &[], &[]), None), "AUTH_MODE_UNKNOWN");
        let keys = policy("api_key", &["k1", "k2"], &[]);
        assert_eq!(
            (
                code(&keys, Some("k2")),
                code(&keys, Some("k3")),
                code(&keys, None)
            ),
            ("OK", "UNAUTHORIZED", "UNAUTHORIZED")
        );
        assert_eq!(
            code(&policy("api_key", &[""], &[]), Some("")),
            "UNAUTHORIZED"
        );
        assert_eq!(
            code(&policy("service_token", &[], &[]), Some("x")),
            "AUTH_SERVICE_TOKEN_SECRET_MISSING"
        );
    }

    #[test]
    fn service_tokens_need_a_known_secret_and_a_listed_principal() {
        let token = service_token("world_stream_producer", b"s2");
        let open = policy("service_token", &[], &["s1", "s2"]);
        assert_eq!(
            open.authenticate(Some(&token)).unwrap().actor_id,
            "SYSTEM::world_stream_producer"
        );
        assert_eq!(
            code(
                &policy("service_token", &["SYSTEM::world_stream_producer"], &["s2"]),
                Some(&token)
            ),
            "OK"
        );
        assert_eq!(
            code(&policy("service_token", &["other"], &["s2"]), Some(&token)),
            "UNAUTHORIZED"
        );
        assert_eq!(
            code(&policy("service_token", &[], &["s1"]), Some(&token)),
            "UNAUTHORIZED"
        );
        for broken in [
            "",
            "st.v1.",
            "st.v1.%%%.00",
            "st.v1..00",
            &token[..token.len() - 1],
        ] {
            assert_eq!(code(&open, Some(broken)), "UNAUTHORIZED", "{broken}");
        }
    }

    #[test]
    fn a_key_is_remembered_by_a_label_only() {
        let actor = policy("api_key", &["top-secret"], &[])
            .authenticate(Some("top-secret"))
            .unwrap();
        assert!(
            actor.principal.starts_with("api_key:") && !format!("{actor:?}").contains("top-secret")
        );
    }

    #[test]
    fn the_rate_window_slides() {
        let mut window = RateWindow::new(2).unwrap();
        assert!(window.admit(100) && window.admit(130));
        assert!(!window.admit(159));
        assert!(window.admit(160));
        assert!(!window.admit(189) && window.admit(190));
        assert!(window.admit(1_000) && window.admit(1_000) && !window.admit(1_000));
        assert!(RateWindow::new(0).is_none());
    }
}
