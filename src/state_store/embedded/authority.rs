//! Which run a key stands for and who may work on it: `sr_authority.db` (contract 5.3).
//!
//! SQLite, two tables with the contract's columns. Two more columns of our own: `fencing_token` grows
//! with each grant of a lease, and `owner_process` names the process that holds it, so that a lease of
//! a process that died is free at once instead of at its end.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use wellspring_domain::ids;
use wellspring_domain::ports::{
    Clock, EquivalenceOutcome, LeaseGrant, Leases, RunEquivalence, StoreError,
};
use wellspring_domain::time_text::Micros;

/// How long a statement waits for another process's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS sr_run_equivalence (
    run_equivalence_key TEXT PRIMARY KEY,
    run_id TEXT NOT NULL,
    intent_fingerprint TEXT NOT NULL,
    first_seen_at TEXT NOT NULL,
    last_seen_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS sr_run_leases (
    run_id TEXT PRIMARY KEY,
    owner_id TEXT NOT NULL,
    lease_token TEXT NOT NULL,
    expires_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    fencing_token INTEGER NOT NULL DEFAULT 0,
    owner_process TEXT NOT NULL DEFAULT ''
);";

/// The embedded authority store.
pub struct AuthorityStore {
    path: PathBuf,
    connection: Mutex<Connection>,
    clock: Arc<dyn Clock>,
    process: String,
}

impl AuthorityStore {
    /// Opens or creates the database and its folder.
    pub fn open(
        path: impl Into<PathBuf>,
        clock: Arc<dyn Clock>,
    ) -> Result<AuthorityStore, StoreError> {
        let path = path.into();
        let unavailable = |cause: String| StoreError::Unavailable {
            operation: "open",
            key: path.display().to_string(),
            cause,
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|error| unavailable(error.to_string()))?;
        }
        let connect = || -> rusqlite::Result<Connection> {
            let connection = Connection::open(&path)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.execute_batch(SCHEMA)?;
            Ok(connection)
        };
        let connection = connect().map_err(|error| unavailable(error.to_string()))?;
        Ok(AuthorityStore {
            connection: Mutex::new(connection),
            clock,
            process: process_identity(std::process::id()).unwrap_or_default(),
            path,
        })
    }

    /// Where the database lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` in one writing transaction.
    fn in_transaction<T>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut connection = self.lock();
        let run = || -> rusqlite::Result<T> {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        run().map_err(|error| StoreError::Unavailable {
            operation,
            key: self.path.display().to_string(),
            cause: error.to_string(),
        })
    }
}

impl RunEquivalence for AuthorityStore {
    fn resolve(
        &self,
        run_equivalence_key: &str,
        run_id: &str,
        intent_fingerprint: &str,
    ) -> Result<EquivalenceOutcome, StoreError> {
        let now = self.clock.now().format_off();
        self.in_transaction("resolve", |transaction| {
            transaction.execute(
                "INSERT INTO sr_run_equivalence VALUES (?1, ?2, ?3, ?4, ?4)
                 ON CONFLICT (run_equivalence_key) DO UPDATE SET last_seen_at = ?4
                 WHERE intent_fingerprint = ?3",
                params![run_equivalence_key, run_id, intent_fingerprint, now],
            )?;
            let row: Option<(String, String)> = transaction
                .query_row(
                    "SELECT run_id, intent_fingerprint FROM sr_run_equivalence
                     WHERE run_equivalence_key = ?1",
                    [run_equivalence_key],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .optional()?;
            Ok(match row {
                None => EquivalenceOutcome::Vanished,
                Some((run_id, stored)) if stored == intent_fingerprint => {
                    EquivalenceOutcome::Resolved { run_id }
                }
                Some((_, intent_fingerprint)) => {
                    EquivalenceOutcome::Collision { intent_fingerprint }
                }
            })
        })
    }
}

/// A lease as it is stored.
struct LeaseRow {
    token: String,
    expires_at: String,
    fencing_token: i64,
    owner_process: String,
}

impl LeaseRow {
    /// A time that cannot be read has passed: nobody could check such a lease.
    fn is_held(&self, now: Micros) -> bool {
        Micros::parse_any(&self.expires_at).is_ok_and(|end| now < end)
    }
}

fn lease_row(transaction: &Transaction<'_>, key: &str) -> rusqlite::Result<Option<LeaseRow>> {
    transaction
        .query_row(
            "SELECT lease_token, expires_at, fencing_token, owner_process FROM sr_run_leases
             WHERE run_id = ?1",
            [key],
            |row| {
                Ok(LeaseRow {
                    token: row.get(0)?,
                    expires_at: row.get(1)?,
                    fencing_token: row.get(2)?,
                    owner_process: row.get(3)?,
                })
            },
        )
        .optional()
}

fn end_of(now: Micros, ttl_seconds: u64) -> Micros {
    let seconds = i64::try_from(ttl_seconds).unwrap_or(i64::MAX);
    Micros(now.0.saturating_add(seconds.saturating_mul(1_000_000)))
}

fn grant(token: String, fencing_token: i64, expires_at: Micros) -> LeaseGrant {
    LeaseGrant {
        token,
        epoch: u64::try_from(fencing_token).unwrap_or_default(),
        expires_at,
    }
}

impl Leases for AuthorityStore {
    fn acquire(
        &self,
        key: &str,
        owner: &str,
        ttl_seconds: u64,
    ) -> Result<Option<LeaseGrant>, StoreError> {
        let now = self.clock.now();
        let expires_at = end_of(now, ttl_seconds);
        self.in_transaction("acquire", |transaction| {
            let row = lease_row(transaction, key)?;
            let held = row
                .as_ref()
                .is_some_and(|row| row.is_held(now) && may_live(&row.owner_process));
            if held {
                return Ok(None);
            }
            let fencing_token = row.map_or(1, |row| row.fencing_token.saturating_add(1));
            let token = ids::lease_token(key, owner, &now.format_off());
            transaction.execute(
                "INSERT OR REPLACE INTO sr_run_leases VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    key,
                    owner,
                    token,
                    expires_at.format_off(),
                    now.format_off(),
                    fencing_token,
                    self.process
                ],
            )?;
            Ok(Some(grant(token, fencing_token, expires_at)))
        })
    }

    fn renew(
        &self,
        key: &str,
        token: &str,
        ttl_seconds: u64,
    ) -> Result<Option<LeaseGrant>, StoreError> {
        let now = self.clock.now();
        let expires_at = end_of(now, ttl_seconds);
        self.in_transaction("renew", |transaction| {
            let row = lease_row(transaction, key)?;
            let Some(row) = row.filter(|row| row.token == token && row.is_held(now)) else {
                return Ok(None);
            };
            transaction.execute(
                "UPDATE sr_run_leases SET expires_at = ?2, updated_at = ?3 WHERE run_id = ?1",
                params![key, expires_at.format_off(), now.format_off()],
            )?;
            Ok(Some(grant(row.token, row.fencing_token, expires_at)))
        })
    }

    fn holds(&self, key: &str, token: &str) -> Result<bool, StoreError> {
        let now = self.clock.now();
        self.in_transaction("holds", |transaction| {
            let row = lease_row(transaction, key)?;
            Ok(row.is_some_and(|row| row.token == token && row.is_held(now)))
        })
    }

    fn release(&self, key: &str, token: &str) -> Result<(), StoreError> {
        let now = self.clock.now().format_off();
        // The row stays, ended now, so that the fencing token keeps growing.
        self.in_transaction("release", |transaction| {
            transaction.execute(
                "UPDATE sr_run_leases SET expires_at = ?3, updated_at = ?3
                 WHERE run_id = ?1 AND lease_token = ?2",
                params![key, token, now],
            )?;
            Ok(())
        })
    }
}

/// `<pid>:<start time>`: names one process for as long as the machine runs. `None` where the system
/// does not tell.
fn process_identity(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name may hold anything, so fields are counted after its closing bracket.
    let start_time = stat
        .rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(19)?
        .to_owned();
    Some(format!("{pid}:{start_time}"))
}

/// False only when the process is known to be gone.
fn may_live(identity: &str) -> bool {
    let pid = identity
        .split_once(':')
        .and_then(|(pid, _)| pid.parse().ok());
    let Some(pid) = pid else { return true };
    if !Path::new("/proc/self/stat").exists() {
        return true;
    }
    process_identity(pid).is_some_and(|living| living == identity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicI64, Ordering};

    struct Hand(AtomicI64);

    impl Clock for Hand {
        fn now(&self) -> Micros {
            Micros(self.0.load(Ordering::Relaxed))
        }
        fn monotonic_micros(&self) -> u64 {
            0
        }
    }

    struct Fixture {
        _folder: tempfile::TempDir,
        clock: Arc<Hand>,
        store: AuthorityStore,
    }

    fn fixture() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(Hand(AtomicI64::new(1_767_225_600_000_000)));
        let store = AuthorityStore::open(folder.path().join("sr/index/a.db"), clock.clone());
        Fixture {
            store: store.unwrap(),
            _folder: folder,
            clock,
        }
    }

    impl Fixture {
        fn pass_seconds(&self, seconds: i64) {
            self.clock
                .0
                .fetch_add(seconds * 1_000_000, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_key_stands_for_one_intent_for_ever() {
        let f = fixture();
        let resolve = |fingerprint: &str, run: &str| f.store.resolve("key", run, fingerprint);
        let first = EquivalenceOutcome::Resolved {
            run_id: "run".to_owned(),
        };
        assert_eq!(resolve("intent", "run").unwrap(), first);
        assert_eq!(
            resolve("intent", "another").unwrap(),
            first,
            "the first run id stays"
        );
        let intent_fingerprint = "intent".to_owned();
        assert_eq!(
            resolve("other", "run").unwrap(),
            EquivalenceOutcome::Collision { intent_fingerprint }
        );
    }

    #[test]
    fn a_held_lease_is_not_granted_until_it_ends_and_the_fencing_token_grows() {
        let f = fixture();
        let first = f.store.acquire("run", "one", 300).unwrap().unwrap();
        assert_eq!(f.store.acquire("run", "two", 300).unwrap(), None);
        f.pass_seconds(299);
        assert!(f.store.holds("run", &first.token).unwrap());
        f.pass_seconds(1);
        assert!(!f.store.holds("run", &first.token).unwrap());
        let second = f.store.acquire("run", "two", 300).unwrap().unwrap();
        assert!(second.epoch > first.epoch);
        assert_eq!(
            f.store.renew("run", &first.token, 300).unwrap(),
            None,
            "it was lost"
        );
    }

    #[test]
    fn a_renewed_lease_lasts_and_a_released_one_is_free_at_once() {
        let f = fixture();
        let lease = f.store.acquire("run", "one", 300).unwrap().unwrap();
        f.pass_seconds(200);
        assert_eq!(
            f.store
                .renew("run", &lease.token, 300)
                .unwrap()
                .unwrap()
                .epoch,
            lease.epoch
        );
        f.pass_seconds(200);
        assert!(f.store.holds("run", &lease.token).unwrap());
        f.store.release("run", "not the token").unwrap();
        assert!(f.store.holds("run", &lease.token).unwrap());
        f.store.release("run", &lease.token).unwrap();
        assert!(f.store.acquire("run", "two", 300).unwrap().is_some());
    }

    #[test]
    fn a_lease_of_a_process_that_died_is_free_at_once() {
        let f = fixture();
        f.store.acquire("run", "one", 300).unwrap().unwrap();
        assert_eq!(
            f.store.acquire("run", "two", 300).unwrap(),
            None,
            "this process lives"
        );
        let dead = "UPDATE sr_run_leases SET owner_process = '1:1'";
        f.store.lock().execute(dead, []).unwrap();
        assert!(f.store.acquire("run", "two", 300).unwrap().is_some());
    }

    #[test]
    fn a_second_connection_sees_the_first_ones_leases() {
        let f = fixture();
        let other = AuthorityStore::open(f.store.path(), f.clock.clone()).unwrap();
        f.store.acquire("run", "one", 300).unwrap().unwrap();
        assert_eq!(other.acquire("run", "two", 300).unwrap(), None);
    }
}
