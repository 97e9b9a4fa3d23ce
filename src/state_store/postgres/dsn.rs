//! Connection texts: `postgres://` and `postgresql://` with the options of libpq that matter here.
//!
//! `sslmode` and `sslrootcert` are taken out before the library reads the rest: it knows neither
//! `verify-full` nor certificate files.

use wellspring_domain::ports::StoreError;

use crate::settings::secret::{Secret, masked_url};

/// How the connection is encrypted (libpq's words).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// Never.
    Disable,
    /// When the server offers it; the server is not verified.
    Prefer,
    /// Always; the server is verified only when a root certificate is named.
    Require,
    /// Always; the certificate and the host name are verified.
    VerifyFull,
}

/// A connection text, taken apart.
#[derive(Clone, Debug)]
pub struct Dsn {
    /// What the library reads.
    pub config: tokio_postgres::Config,
    /// Encryption.
    pub tls: TlsMode,
    /// File of trusted certificates instead of the system's.
    pub root_certificates: Option<String>,
    /// The text with its credentials masked, for errors.
    pub shown: String,
}

impl Dsn {
    /// Reads a connection text. Errors never repeat it.
    pub fn parse(dsn: &Secret) -> Result<Dsn, StoreError> {
        let text = dsn.expose().trim();
        let shown = masked_url(text);
        let refused = |cause: String| StoreError::Refused {
            code: "POSTGRES_DSN_INVALID",
            key: shown.clone(),
            cause,
        };
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            let cause = "a connection starts with postgres:// or postgresql://";
            return Err(refused(cause.to_owned()));
        }
        let (address, query) = text.split_once('?').unwrap_or((text, ""));
        let mut tls = TlsMode::Prefer;
        let mut root_certificates = None;
        let mut kept = Vec::new();
        for option in query.split('&').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("sslmode", mode)) => {
                    tls = tls_mode(mode).ok_or_else(|| unknown_mode(&shown))?
                }
                Some(("sslrootcert", file)) => root_certificates = Some(plain(file)),
                _ => kept.push(option),
            }
        }
        let rest = match kept.is_empty() {
            true => address.to_owned(),
            false => format!("{address}?{}", kept.join("&")),
        };
        // The library's own text may repeat a value, so only what kind of mistake it is goes out.
        let mut config: tokio_postgres::Config = rest.parse().map_err(|_| {
            refused("the connection is no URL, or has an option that is not known".to_owned())
        })?;
        config.ssl_mode(match tls {
            TlsMode::Disable => tokio_postgres::config::SslMode::Disable,
            TlsMode::Prefer => tokio_postgres::config::SslMode::Prefer,
            TlsMode::Require | TlsMode::VerifyFull => tokio_postgres::config::SslMode::Require,
        });
        if config.get_hosts().is_empty() {
            return Err(refused("the connection names no host".to_owned()));
        }
        Ok(Dsn {
            config,
            tls,
            root_certificates,
            shown,
        })
    }
}

fn tls_mode(mode: &str) -> Option<TlsMode> {
    match mode {
        "disable" => Some(TlsMode::Disable),
        "allow" | "prefer" => Some(TlsMode::Prefer),
        "require" => Some(TlsMode::Require),
        // Stricter than asked: the name is checked, too.
        "verify-ca" | "verify-full" => Some(TlsMode::VerifyFull),
        _ => None,
    }
}

fn unknown_mode(shown: &str) -> StoreError {
    StoreError::Refused {
        code: "POSTGRES_DSN_INVALID",
        key: shown.to_owned(),
        cause: "sslmode is disable, prefer, require or verify-full".to_owned(),
    }
}

/// A percent-encoded text in plain; `%` that starts no code stays.
fn plain(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = text
            .get(at + 1..at + 3)
            .filter(|_| bytes[at] == b'%')
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Dsn, StoreError> {
        Dsn::parse(&Secret::new(text))
    }

    #[test]
    fn encryption_is_read_apart_and_the_rest_is_the_librarys() {
        let dsn = parse(
            "postgresql://u:p%40@h:5433/db?sslmode=verify-full&sslrootcert=/c%20a.pem&connect_timeout=3",
        );
        let dsn = dsn.unwrap();
        assert_eq!(dsn.tls, TlsMode::VerifyFull);
        assert_eq!(dsn.root_certificates.as_deref(), Some("/c a.pem"));
        assert_eq!(dsn.config.get_password(), Some(&b"p@"[..]));
        assert_eq!(dsn.config.get_dbname(), Some("db"));
        assert_eq!(dsn.config.get_ports(), [5433]);
        assert_eq!(dsn.shown, "postgresql://***@h:5433/db");
        assert_eq!(parse("postgres://h/db").unwrap().tls, TlsMode::Prefer);
    }

    #[test]
    fn a_connection_that_is_none_is_refused_without_its_secret() {
        for text in [
            "host=h password=hunter2",
            "mysql://u:hunter2@h/db",
            "postgres://u:hunter2@h/db?sslmode=maybe",
            "postgres://u:hunter2@h/db?hunter2=1",
            "postgres://u:hunter2@h:port/db",
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.code(), "POSTGRES_DSN_INVALID", "{text}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
