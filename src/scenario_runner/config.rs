//! What a Scenario Runner is made of: policy, wiring, contract files, run, and ports.

use std::sync::Arc;

use wellspring_domain::ports::{
    Clock, ControlBus, Leases, ObjectStore, RunEquivalence, StoreError,
};
use wellspring_domain::provenance::Provenance;
use wellspring_domain::run_paths::{PlatformRunId, RunPaths};
use wellspring_domain::scenario::settings::{ScenarioPolicy, ScenarioWiring};

use crate::clock::SystemClock;
use crate::control_bus::ControlBusPlace;
use crate::object_store::{ObjectStores, OpenStoreError};
use crate::settings::secret::Secret;
use crate::state_store::embedded::authority::AuthorityStore;
use crate::state_store::postgres::authority::PostgresAuthority;
use crate::state_store::postgres::{Database, DatabaseSettings};
use crate::world_files::contract_files::ContractFiles;

/// Opens an engine run root as a store; `None` when there is no such root.
pub type WorldOpener =
    Arc<dyn Fn(&str) -> Result<Option<Arc<dyn ObjectStore>>, StoreError> + Send + Sync>;

/// Where a Scenario Runner keeps things and whom it talks to.
#[derive(Clone)]
pub struct ScenarioPorts {
    /// The runs root: ledger, instance proofs, session.
    pub store: Arc<dyn ObjectStore>,
    /// Takes READY.
    pub control_bus: Arc<dyn ControlBus>,
    /// Who may work on a run.
    pub leases: Arc<dyn Leases>,
    /// Which run a key stands for.
    pub equivalence: Arc<dyn RunEquivalence>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Engine run roots.
    pub worlds: WorldOpener,
}

/// Everything a Scenario Runner needs.
#[derive(Clone)]
pub struct ScenarioRunnerConfig {
    /// Decides outcomes.
    pub policy: ScenarioPolicy,
    /// Says where things lie and who may ask.
    pub wiring: ScenarioWiring,
    /// How worlds are read.
    pub contract_files: Arc<ContractFiles>,
    /// The platform run.
    pub run_paths: RunPaths,
    /// Stamped into facts views and READY.
    pub provenance: Provenance,
    /// Store, bus, leases, clock.
    pub ports: ScenarioPorts,
}

/// Why the authority store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Neither `sqlite:///` nor PostgreSQL.
    #[error("authority_store_dsn names no store there is an adapter for: {scheme}")]
    Unsupported {
        /// The scheme, without anything that could be a secret.
        scheme: String,
    },
    /// Runs in a bucket are shared by machines, a file beside this process is not.
    #[error("runs lie in {runs_root}: authority_store_dsn must name a database")]
    DsnMissing {
        /// Where runs lie.
        runs_root: String,
    },
    /// The wiring asks for a managed acceptance mode.
    #[error("acceptance_mode {mode} needs a managed substrate")]
    ManagedMode {
        /// The mode.
        mode: String,
    },
    /// The database cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store of the runs cannot be opened.
    #[error(transparent)]
    Objects(#[from] OpenStoreError),
}

impl AuthorityError {
    /// The stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            AuthorityError::Unsupported { .. } => "AUTHORITY_STORE_UNSUPPORTED",
            AuthorityError::DsnMissing { .. } => "AUTHORITY_STORE_DSN_MISSING",
            AuthorityError::ManagedMode { .. } => "SR_SETTLEMENT_LOCK_FAIL_CLOSED",
            AuthorityError::Store(error) => error.code(),
            AuthorityError::Objects(error) => error.code(),
        }
    }
}

/// What a Scenario Runner is made from.
pub struct ScenarioRunnerSetup {
    /// The folder or bucket that holds all runs.
    pub runs_root: String,
    /// The folder of what never leaves this machine; the runs root when that is a folder.
    pub local_root: String,
    /// Opens the runs root and worlds.
    pub stores: ObjectStores,
    /// Where READY is published.
    pub control_bus: ControlBusPlace,
    /// The platform run.
    pub platform_run_id: PlatformRunId,
    /// Decides outcomes.
    pub policy: ScenarioPolicy,
    /// Says where things lie and who may ask.
    pub wiring: ScenarioWiring,
    /// How worlds are read.
    pub contract_files: Arc<ContractFiles>,
    /// Stamped into facts views and READY.
    pub provenance: Provenance,
}

impl ScenarioRunnerConfig {
    /// A Scenario Runner on folders or a bucket, with its authority in SQLite or PostgreSQL.
    pub fn open(setup: ScenarioRunnerSetup) -> Result<ScenarioRunnerConfig, AuthorityError> {
        if setup.wiring.acceptance_mode == "dev_min_managed" {
            let mode = setup.wiring.acceptance_mode;
            return Err(AuthorityError::ManagedMode { mode });
        }
        let run_paths = RunPaths::new(&setup.runs_root, &setup.platform_run_id);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let local_paths = RunPaths::new(&setup.local_root, &setup.platform_run_id);
        let dsn = setup.wiring.authority_store_dsn.as_deref();
        let place = authority_place(dsn, &setup.runs_root, &local_paths)?;
        let (leases, equivalence) = place.open(&clock)?;
        let ports = ScenarioPorts {
            store: setup.stores.open(&setup.runs_root)?,
            control_bus: setup.control_bus.open_to_publish()?,
            leases,
            equivalence,
            clock,
            worlds: world_opener(setup.stores),
        };
        Ok(ScenarioRunnerConfig {
            policy: setup.policy,
            wiring: setup.wiring,
            contract_files: setup.contract_files,
            run_paths,
            provenance: setup.provenance,
            ports,
        })
    }
}

/// Where equivalence and leases are kept.
#[derive(Debug, PartialEq, Eq)]
enum AuthorityPlace {
    /// A SQLite file.
    File(String),
    /// A database that other nodes share.
    Postgres(Secret),
}

/// Both halves of the authority store.
type Authority = (Arc<dyn Leases>, Arc<dyn RunEquivalence>);

impl AuthorityPlace {
    fn open(&self, clock: &Arc<dyn Clock>) -> Result<Authority, AuthorityError> {
        match self {
            AuthorityPlace::File(path) => {
                let store = Arc::new(AuthorityStore::open(path, clock.clone())?);
                Ok((store.clone(), store))
            }
            AuthorityPlace::Postgres(dsn) => {
                let database = Database::open(dsn, DatabaseSettings::default())?;
                let store = Arc::new(PostgresAuthority::new(database));
                Ok((store.clone(), store))
            }
        }
    }
}

/// What the DSN names; without one, a file below the run (contract 5.2, 5.3).
fn authority_place(
    dsn: Option<&str>,
    runs_root: &str,
    local_paths: &RunPaths,
) -> Result<AuthorityPlace, AuthorityError> {
    let Some(dsn) = dsn.map(str::trim).filter(|dsn| !dsn.is_empty()) else {
        return match runs_root.contains("://") {
            true => Err(AuthorityError::DsnMissing {
                runs_root: runs_root.to_owned(),
            }),
            false => {
                let path = format!("{}/index/sr_authority.db", local_paths.sr());
                Ok(AuthorityPlace::File(path))
            }
        };
    };
    if let Some(path) = dsn.strip_prefix("sqlite:///") {
        return Ok(AuthorityPlace::File(path.to_owned()));
    }
    match dsn.split_once("://") {
        Some(("postgres" | "postgresql", _)) => Ok(AuthorityPlace::Postgres(Secret::new(dsn))),
        scheme => Err(AuthorityError::Unsupported {
            scheme: scheme.map_or("no scheme", |(scheme, _)| scheme).to_owned(),
        }),
    }
}

/// Opens folders and buckets as engine run roots.
pub fn world_opener(stores: ObjectStores) -> WorldOpener {
    Arc::new(move |root| match stores.open_existing(root) {
        Ok(store) => Ok(Some(store)),
        Err(OpenStoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into_store_error(root)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_store_is_a_file_below_the_run_unless_a_dsn_says_otherwise() {
        let run = PlatformRunId::parse("platform_20260101T000000Z").unwrap();
        let paths = RunPaths::new("runs", &run);
        let place = |dsn: Option<&str>, root| authority_place(dsn, root, &paths);
        let file = |path: &str| AuthorityPlace::File(path.to_owned());
        let below = "runs/fraud-platform/platform_20260101T000000Z/sr/index/sr_authority.db";
        assert_eq!(place(None, "runs").unwrap(), file(below));
        assert_eq!(place(Some(" "), "runs").unwrap(), file(below));
        let named = place(Some("sqlite:////tmp/a.db"), "s3://b").unwrap();
        assert_eq!(named, file("/tmp/a.db"));
        let dsn = "postgresql://u:secret@host/db";
        let shared = place(Some(dsn), "s3://b").unwrap();
        assert_eq!(shared, AuthorityPlace::Postgres(Secret::new(dsn)));
        assert!(!format!("{shared:?}").contains("secret"));
        let missing = place(None, "s3://b").unwrap_err();
        assert_eq!(missing.code(), "AUTHORITY_STORE_DSN_MISSING");
        let refused = place(Some("mysql://u:secret@host/db"), "runs").unwrap_err();
        assert_eq!(refused.code(), "AUTHORITY_STORE_UNSUPPORTED");
        assert!(!refused.to_string().contains("secret"));
    }
}
