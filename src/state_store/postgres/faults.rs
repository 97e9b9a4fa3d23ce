//! What went wrong, as the outside is told: unavailable, or refused with a stable code and a way out.
//! The server's words are kept, connection texts are not.

use deadpool_postgres::{PoolError, TimeoutType};
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;
use wellspring_domain::ports::StoreError;

/// Why a call ended early: the database, or a rule of ours.
#[derive(Debug)]
pub enum Fault {
    /// The database or the way to it.
    Database(Error),
    /// Already in the words of the port.
    Store(StoreError),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault::Database(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Fault::Store(error)
    }
}

/// Which database and what was tried.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// What was tried.
    pub operation: &'static str,
    /// The database, masked.
    pub shown: &'a str,
}

impl Place<'_> {
    /// A refusal with a code.
    pub fn refused(self, code: &'static str, cause: impl Into<String>) -> StoreError {
        StoreError::Refused {
            code,
            key: self.shown.to_owned(),
            cause: cause.into(),
        }
    }

    /// Something that may pass.
    pub fn unavailable(self, cause: impl Into<String>) -> StoreError {
        StoreError::Unavailable {
            operation: self.operation,
            key: self.shown.to_owned(),
            cause: cause.into(),
        }
    }

    /// The port's words for a fault.
    pub fn tell(self, fault: Fault) -> StoreError {
        match fault {
            Fault::Store(error) => error,
            Fault::Database(error) => self.tell_database(&error),
        }
    }

    /// The port's words for a pool that gave no connection.
    pub fn tell_pool(self, error: PoolError) -> StoreError {
        match error {
            PoolError::Backend(error) => self.tell_database(&error),
            PoolError::Timeout(TimeoutType::Wait) => self.unavailable(
                "all connections are busy; raise the pool's size or the load is too high",
            ),
            PoolError::Timeout(_) => self.unavailable("no connection within the time limit"),
            PoolError::PostCreateHook(error) => self.unavailable(error.to_string()),
            PoolError::Closed | PoolError::NoRuntimeSpecified => {
                self.unavailable("the pool is closed")
            }
        }
    }

    fn tell_database(self, error: &Error) -> StoreError {
        let words = words_of(error);
        let Some(state) = error.code() else {
            return match error.to_string().starts_with("error performing TLS") {
                true => self.refused(
                    "POSTGRES_TLS_FAILED",
                    format!("{words}; check sslmode and sslrootcert of the connection"),
                ),
                false => self.unavailable(words),
            };
        };
        match refusal_of(state) {
            Some((code, way_out)) => self.refused(code, format!("{words}; {way_out}")),
            None => self.unavailable(words),
        }
    }
}

/// Code and way out of a state that comes back until its cause is gone.
fn refusal_of(state: &SqlState) -> Option<(&'static str, &'static str)> {
    let auth = [
        &SqlState::INVALID_PASSWORD,
        &SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
    ];
    if auth.contains(&state) {
        return Some((
            "POSTGRES_AUTH_FAILED",
            "check user and password of the connection, and the server's pg_hba.conf",
        ));
    }
    if *state == SqlState::INVALID_CATALOG_NAME {
        return Some((
            "POSTGRES_DATABASE_MISSING",
            "create the database, or name another one in the connection",
        ));
    }
    if *state == SqlState::INSUFFICIENT_PRIVILEGE {
        return Some((
            "POSTGRES_PERMISSION_DENIED",
            "let the role create and use tables in its schema",
        ));
    }
    // Class 42: the schema is not what was created.
    state.code().starts_with("42").then_some((
        "POSTGRES_SCHEMA_UNUSABLE",
        "tables of this name were made or changed by something else; use a database of its own",
    ))
}

/// The error with its causes. The library repeats no parameter and no connection text in them.
fn words_of(error: &Error) -> String {
    if let Some(said) = error.as_db_error() {
        return format!(
            "{}: {} ({})",
            said.severity(),
            said.message(),
            said.code().code()
        );
    }
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        words.push_str(": ");
        words.push_str(&inner.to_string());
        cause = inner.source();
    }
    words
}
