//! Health of the gate: reasons and the state that follows from them (contract 7.10).

use serde::{Deserialize, Serialize};

/// How well the gate is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum HealthState {
    /// Takes everything.
    #[default]
    Green,
    /// Takes work unless the profile says otherwise.
    Amber,
    /// Takes nothing: 503 with `IG_UNHEALTHY`.
    Red,
}

/// Why the gate is not green.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum HealthReason {
    /// The last object-store operation failed.
    ObjectStoreUnhealthy,
    /// The decision store does not answer.
    OpsDbUnhealthy,
    /// Too many failed reads.
    StoreReadUnhealthy,
    /// Publishing failed too often, or the bus cannot be described.
    BusUnhealthy,
    /// The bus cannot say how it is.
    BusHealthUnknown,
    /// Free disk space is below `min_free_bytes`.
    DiskSpaceLow,
    /// The gate is shutting down.
    Draining,
}

impl HealthReason {
    fn state(self) -> HealthState {
        if self == HealthReason::BusHealthUnknown {
            HealthState::Amber
        } else {
            HealthState::Red
        }
    }
}

/// The answer of `GET /v1/ops/health`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The worst state any reason calls for.
    pub state: HealthState,
    /// All reasons, sorted.
    pub reasons: Vec<HealthReason>,
}

impl Health {
    /// The health that follows from `reasons`.
    pub fn from_reasons(mut reasons: Vec<HealthReason>) -> Health {
        reasons.sort_unstable();
        reasons.dedup();
        let state = reasons
            .iter()
            .map(|reason| reason.state())
            .max()
            .unwrap_or_default();
        Health { state, reasons }
    }

    /// The reasons as the contract writes them, joined with commas.
    pub fn reason_text(&self) -> String {
        let names: Vec<String> = self
            .reasons
            .iter()
            .filter_map(|reason| {
                serde_json::to_value(reason)
                    .ok()?
                    .as_str()
                    .map(str::to_owned)
            })
            .collect();
        names.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_reason_decides() {
        assert_eq!(Health::from_reasons(vec![]).state, HealthState::Green);
        assert_eq!(
            Health::from_reasons(vec![HealthReason::BusHealthUnknown]).state,
            HealthState::Amber
        );
        let red = Health::from_reasons(vec![
            HealthReason::DiskSpaceLow,
            HealthReason::BusHealthUnknown,
        ]);
        assert_eq!(red.state, HealthState::Red);
        assert_eq!(red.reason_text(), "BUS_HEALTH_UNKNOWN,DISK_SPACE_LOW");
    }
}
