//! A bounded pool of connections to one database whose schema is up to date.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime,
};
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::StoreError;

use super::dsn::{Dsn, TlsMode};
use super::faults::{Fault, Place};
use super::migrations;
use super::tls::Rustls;
use crate::blocking_runtime::block_on;
use crate::settings::secret::Secret;

/// Limits of one database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatabaseSettings {
    /// Connections at once.
    pub connections_max: usize,
    /// Longest wait for a new connection.
    pub connect_timeout: Duration,
    /// Longest wait for a free connection of the pool.
    pub wait_timeout: Duration,
    /// Longest time the server works on one statement.
    pub statement_timeout: Duration,
    /// Longest time of one call, whatever the server does; above the statement timeout.
    pub call_timeout: Duration,
}

impl Default for DatabaseSettings {
    fn default() -> Self {
        DatabaseSettings {
            connections_max: 16,
            connect_timeout: Duration::from_secs(5),
            wait_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(20),
            call_timeout: Duration::from_secs(30),
        }
    }
}

/// One database. Clones share the pool, and so does whoever opens the same connection again.
#[derive(Clone)]
pub struct Database(Arc<Inner>);

struct Inner {
    pool: Pool,
    settings: DatabaseSettings,
    shown: String,
    /// True once the schema is known to be up to date.
    ready: AtomicBool,
}

/// A pool that somebody may still hold, by the digest of its connection text.
type OpenPool = (Hash32, DatabaseSettings, Weak<Inner>);

static OPEN_POOLS: Mutex<Vec<OpenPool>> = Mutex::new(Vec::new());

impl Database {
    /// Connects and brings the schema up to date. The first connection is made here, so a wrong
    /// password or a missing database is told at start-up.
    pub fn open(dsn: &Secret, settings: DatabaseSettings) -> Result<Database, StoreError> {
        let database = Database::deferred(dsn, settings)?;
        database.ping()?;
        Ok(database)
    }

    /// Connects, and brings the schema up to date, with the first call. Only a connection text that is
    /// none is refused here.
    pub fn deferred(dsn: &Secret, settings: DatabaseSettings) -> Result<Database, StoreError> {
        let digest = Hash32::of(dsn.expose().as_bytes());
        let mut open = OPEN_POOLS.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, _, pool)| pool.strong_count() > 0);
        let same = |entry: &&OpenPool| entry.0 == digest && entry.1 == settings;
        if let Some(inner) = open.iter().find(same).and_then(|entry| entry.2.upgrade()) {
            return Ok(Database(inner));
        }
        let database = Database::connect(dsn, settings)?;
        open.push((digest, settings, Arc::downgrade(&database.0)));
        Ok(database)
    }

    /// The pool alone; nothing is connected yet.
    fn connect(dsn: &Secret, settings: DatabaseSettings) -> Result<Database, StoreError> {
        let mut dsn = Dsn::parse(dsn)?;
        if dsn.config.get_application_name().is_none() {
            dsn.config.application_name("wellspring");
        }
        if dsn.config.get_connect_timeout().is_none() {
            dsn.config.connect_timeout(settings.connect_timeout);
        }
        dsn.config.keepalives_idle(Duration::from_secs(30));
        dsn.config.tcp_user_timeout(settings.call_timeout);
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let manager = match dsn.tls {
            TlsMode::Disable => Manager::from_config(dsn.config, tokio_postgres::NoTls, recycling),
            _ => {
                let tls = Rustls::of(&dsn)?;
                Manager::from_config(dsn.config, tls, recycling)
            }
        };
        let pool = Pool::builder(manager)
            .max_size(settings.connections_max)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(settings.wait_timeout))
            .create_timeout(Some(settings.connect_timeout * 2))
            .recycle_timeout(Some(settings.connect_timeout))
            .post_create(session_hook(settings))
            .build();
        let pool = pool.map_err(|error| StoreError::Unavailable {
            operation: "connect",
            key: dsn.shown.clone(),
            cause: error.to_string(),
        })?;
        Ok(Database(Arc::new(Inner {
            pool,
            settings,
            shown: dsn.shown,
            ready: AtomicBool::new(false),
        })))
    }

    /// The database's address without credentials.
    pub fn shown(&self) -> &str {
        &self.0.shown
    }

    /// Asks the server for nothing; for health probes.
    pub fn ping(&self) -> Result<(), StoreError> {
        self.call("ping", async |connection| {
            connection.simple_query("SELECT 1").await?;
            Ok(())
        })
    }

    pub(super) fn place(&self, operation: &'static str) -> Place<'_> {
        Place {
            operation,
            shown: &self.0.shown,
        }
    }

    /// Runs `work` on a connection and waits for it. A call that takes too long is given up together
    /// with its connection: what was sent on it may still happen, so its outcome is unknown.
    pub(super) fn call<T>(
        &self,
        operation: &'static str,
        work: impl AsyncFnOnce(&mut Object) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        self.call_within(operation, self.0.settings.call_timeout, work)
    }

    /// As [`Database::call`], for calls that read for long.
    pub(super) fn call_within<T>(
        &self,
        operation: &'static str,
        limit: Duration,
        work: impl AsyncFnOnce(&mut Object) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let place = self.place(operation);
        block_on(async {
            let mut connection = self.0.pool.get().await.map_err(|e| place.tell_pool(e))?;
            let working = async {
                if !self.0.ready.load(Ordering::Acquire) {
                    migrations::apply(&mut connection).await?;
                    self.0.ready.store(true, Ordering::Release);
                }
                work(&mut connection).await
            };
            let done = tokio::time::timeout(limit, working).await;
            match done {
                Ok(done) => done.map_err(|fault| place.tell(fault)),
                Err(_too_long) => {
                    drop(Object::take(connection));
                    Err(place.unavailable(format!("no answer within {limit:?}")))
                }
            }
        })
    }
}

/// What every session says first. Statements here are short and go through indexes; a plan made while a
/// table was small must not be kept when it has grown, so plans that read whole tables are out unless a
/// statement asks for them.
fn session_hook(settings: DatabaseSettings) -> Hook {
    let timeout = settings.statement_timeout.as_millis();
    let setup = format!(
        "SET statement_timeout = {timeout}; SET lock_timeout = {timeout}; \
         SET idle_in_transaction_session_timeout = {timeout}; SET client_min_messages = warning; \
         SET TIME ZONE 'UTC'; SET jit = off; SET enable_seqscan = off; SET enable_hashjoin = off; \
         SET enable_mergejoin = off"
    );
    Hook::async_fn(move |client, _metrics| {
        let setup = setup.clone();
        Box::pin(async move {
            client
                .batch_execute(&setup)
                .await
                .map_err(HookError::Backend)
        })
    })
}
