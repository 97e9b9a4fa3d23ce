//! The projections every gate keeps up to date.

use crate::settings::Settings;
use std::sync::Arc;
use wellspring_actors::ingestion_gate::projector::Projection;

/// Projections by name.
pub fn standard(_settings: &Settings) -> anyhow::Result<Vec<(String, Arc<dyn Projection>)>> {
    Ok(Vec::new())
}
