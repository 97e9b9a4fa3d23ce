//! What streamers of several nodes agree through: the control bus, and who streams which READY.

use super::ready_claims::ReadyClaims;
use crate::control_bus::ControlPositions;
use crate::settings::Settings;
use crate::state_store::postgres::control_positions::PostgresControlPositions;
use crate::state_store::postgres::leases::PostgresLeases;
use crate::state_store::postgres::{Database, DatabaseSettings};
use std::sync::Arc;
use wellspring_domain::ports::{ControlBus, StoreError};
use wellspring_domain::run_paths::PlatformRunId;

/// The control bus READY comes on.
pub fn open_control_bus(
    settings: &Settings,
    run: &PlatformRunId,
) -> Result<Arc<dyn ControlBus>, StoreError> {
    let place = settings.control_bus_place(&settings.local_paths(run));
    place.open_to_consume(|| {
        let Some(database) = coordination(settings)? else {
            return Err(StoreError::Refused {
                code: "CONTROL_POSITIONS_MISSING",
                key: "wiring.control_bus.kind".to_owned(),
                cause: "a control bus on kinesis needs wsp_checkpoint in PostgreSQL, where it \
                        remembers what was settled"
                    .to_owned(),
            });
        };
        let positions: Arc<dyn ControlPositions> =
            Arc::new(PostgresControlPositions::new(database));
        Ok(positions)
    })
}

/// How READY messages are claimed: by leases where nodes share a database, else by files.
pub fn ready_claims(settings: &Settings) -> Result<ReadyClaims, StoreError> {
    Ok(match coordination(settings)? {
        None => ReadyClaims::Files,
        Some(database) => ReadyClaims::Leases {
            leases: Arc::new(PostgresLeases::new(database)),
            node: settings.wiring.cluster.node(),
            lease: settings.wiring.cluster.lease(),
        },
    })
}

fn coordination(settings: &Settings) -> Result<Option<Database>, StoreError> {
    let dsn = settings.coordination_dsn();
    dsn.map(|dsn| Database::open(dsn, DatabaseSettings::default()))
        .transpose()
}
