//! From settings to the backends of a managed gate.

use super::receipts::LedgerReceipts;
use super::reconcile::Reconciler;
use super::substrate::Substrate;
use crate::event_bus::kinesis::{KinesisClient, Producer, Scan, StreamNames, describe_stream};
use crate::settings::Settings;
use crate::settings::secret::Secret;
use crate::state_store::postgres::admissions::AdmissionLedger;
use crate::state_store::postgres::{Database, DatabaseSettings};
use std::sync::Arc;
use std::time::Duration;
use wellspring_domain::admission::receipt::ReceiptsLayout;
use wellspring_domain::ports::{Clock, ObjectStore, StoreError};
use wellspring_domain::run_paths::PlatformRunId;

/// How long a health probe asks a stream.
const DESCRIBE_PATIENCE: Duration = Duration::from_secs(3);

/// What only the settings know.
pub struct ManagedParts<'a> {
    /// The settings.
    pub settings: &'a Settings,
    /// The database of claims and decisions.
    pub dsn: &'a Secret,
    /// Objects below the runs root.
    pub objects: Arc<dyn ObjectStore>,
    /// Where receipts are kept.
    pub layout: ReceiptsLayout,
    /// Topics the policy publishes to.
    pub topics: Vec<String>,
    /// Time.
    pub clock: &'a Arc<dyn Clock>,
}

/// Connects to all backends; what does not answer is told by its code. Blocks.
pub fn connect(parts: ManagedParts<'_>) -> Result<Substrate, StoreError> {
    let wiring = &parts.settings.wiring;
    let client = kinesis_client(parts.settings)?;
    let seed = parts.clock.monotonic_micros();
    let database = Database::open(parts.dsn, DatabaseSettings::default())?;
    Ok(Substrate {
        ledger: AdmissionLedger::new(database),
        producer: Arc::new(Producer::new(
            client.clone(),
            wiring.kinesis.producer(seed),
        )?),
        scan: Scan::new(client, wiring.kinesis.reader()),
        streams: StreamNames::from_wiring(wiring.event_bus.stream.as_deref()),
        objects: parts.objects,
        runs_root: parts.settings.runs_root().to_owned(),
        layout: parts.layout,
        topics: parts.topics,
        node: wiring.cluster.node(),
        lease: wiring.cluster.lease(),
        patience: wiring.cluster.patience(),
    })
}

/// A client of the event bus.
pub fn kinesis_client(settings: &Settings) -> Result<KinesisClient, StoreError> {
    let bus = &settings.wiring.event_bus;
    let kinesis = &settings.wiring.kinesis;
    let wiring = kinesis.wiring(bus.region.as_deref(), bus.endpoint_url.as_deref());
    KinesisClient::connect(&wiring)
}

impl Substrate {
    /// Receipt lookups over the ledger.
    pub fn receipts(&self, own_run: Option<PlatformRunId>) -> LedgerReceipts {
        LedgerReceipts {
            ledger: self.ledger.clone(),
            runs_root: self.runs_root.clone(),
            layout: self.layout,
            own_run,
        }
    }

    /// Settles what other nodes left, now and then, until the process ends.
    pub fn spawn_reconciliation(&self) -> std::io::Result<()> {
        let reconciler = Reconciler::new(self.clone());
        let pause = self.lease;
        std::thread::Builder::new()
            .name("reconciliation".to_owned())
            .spawn(move || {
                loop {
                    std::thread::sleep(pause);
                    if let Err(error) = reconciler.settle_all() {
                        tracing::warn!(%error, "claims of ended writers are not settled yet");
                    }
                }
            })
            .map(drop)
    }
}

/// Asks the backends whether they are there.
#[derive(Clone)]
pub struct ManagedProbe {
    ledger: AdmissionLedger,
    client: KinesisClient,
    streams: Vec<String>,
}

impl ManagedProbe {
    /// A probe of these backends.
    pub fn new(substrate: &Substrate, client: KinesisClient) -> ManagedProbe {
        let streams = substrate.stream_names();
        ManagedProbe {
            ledger: substrate.ledger.clone(),
            client,
            streams: streams.into_iter().map(str::to_owned).collect(),
        }
    }

    /// The database answers.
    pub fn database(&self) -> Result<(), StoreError> {
        self.ledger.database().ping()
    }

    /// Every stream is there.
    pub fn bus(&self) -> Result<(), StoreError> {
        for stream in &self.streams {
            if describe_stream(&self.client, stream, DESCRIBE_PATIENCE)?.is_none() {
                return Err(StoreError::Refused {
                    code: "KINESIS_STREAM_NOT_FOUND",
                    key: stream.clone(),
                    cause: "the stream does not exist; wellspring bootstrap creates it".to_owned(),
                });
            }
        }
        Ok(())
    }
}
