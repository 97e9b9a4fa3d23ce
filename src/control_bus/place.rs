//! Opens a control bus where the wiring says it is.

use super::{
    ControlPositions, FileControlBus, KinesisControlBus, KinesisControlBusSettings, Settled,
    ShardProgress,
};
use crate::event_bus::kinesis::{KinesisClient, KinesisWiring};
use std::sync::Arc;
use wellspring_domain::ports::{ControlBus, StoreError};

/// Where a control bus is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlBusPlace {
    /// A folder.
    Folder(String),
    /// A stream.
    Stream {
        /// Its name.
        stream: String,
        /// Where the service is.
        wiring: KinesisWiring,
    },
}

impl ControlBusPlace {
    /// The bus as a publisher uses it: nothing is read.
    pub fn open_to_publish(&self) -> Result<Arc<dyn ControlBus>, StoreError> {
        self.open(|| Ok(Arc::new(NothingRead)))
    }

    /// The bus as a consumer uses it; `positions` says what was settled.
    pub fn open_to_consume(
        &self,
        positions: impl FnOnce() -> Result<Arc<dyn ControlPositions>, StoreError>,
    ) -> Result<Arc<dyn ControlBus>, StoreError> {
        self.open(positions)
    }

    fn open(
        &self,
        positions: impl FnOnce() -> Result<Arc<dyn ControlPositions>, StoreError>,
    ) -> Result<Arc<dyn ControlBus>, StoreError> {
        match self {
            ControlBusPlace::Folder(root) => Ok(Arc::new(FileControlBus::new(root))),
            ControlBusPlace::Stream { stream, wiring } => Ok(Arc::new(KinesisControlBus::new(
                KinesisClient::connect(wiring)?,
                stream,
                KinesisControlBusSettings::default(),
                positions()?,
            ))),
        }
    }
}

/// Stands in for positions where a bus is only published to.
struct NothingRead;

impl NothingRead {
    fn refuse<T>(stream: &str) -> Result<T, StoreError> {
        Err(StoreError::Refused {
            code: "CONTROL_POSITIONS_MISSING",
            key: stream.to_owned(),
            cause: "this bus was opened to publish only".to_owned(),
        })
    }
}

impl ControlPositions for NothingRead {
    fn load(&self, stream: &str) -> Result<Vec<ShardProgress>, StoreError> {
        NothingRead::refuse(stream)
    }

    fn settle(&self, stream: &str, _settled: &Settled<'_>) -> Result<(), StoreError> {
        NothingRead::refuse(stream)
    }
}
