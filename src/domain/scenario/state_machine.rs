//! The states of a run and the moves between them (contract 5.4).

use serde::{Deserialize, Serialize};

/// Where a run stands. A run never moves backwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RunState {
    /// Accepted.
    Open,
    /// The plan is written.
    Planned,
    /// The engine runs.
    Executing,
    /// Part of the contract's state set; no step uses it.
    Verifying,
    /// Evidence is missing and may still come.
    WaitingEvidence,
    /// Proven and announced.
    Ready,
    /// Ended without READY.
    Failed,
    /// The evidence contradicts itself.
    Quarantined,
}

impl RunState {
    /// The name in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            RunState::Open => "OPEN",
            RunState::Planned => "PLANNED",
            RunState::Executing => "EXECUTING",
            RunState::Verifying => "VERIFYING",
            RunState::WaitingEvidence => "WAITING_EVIDENCE",
            RunState::Ready => "READY",
            RunState::Failed => "FAILED",
            RunState::Quarantined => "QUARANTINED",
        }
    }

    /// True when no other state can follow.
    pub fn is_terminal(self) -> bool {
        matches!(
            self,
            RunState::Ready | RunState::Failed | RunState::Quarantined
        )
    }

    /// True when a run may move from this state to `next`; staying is always allowed.
    pub fn may_become(self, next: RunState) -> bool {
        use RunState::{
            Executing, Failed, Open, Planned, Quarantined, Ready, Verifying, WaitingEvidence,
        };
        if self == next {
            return true;
        }
        match self {
            Open => matches!(next, Planned | Failed | Quarantined),
            Planned => matches!(
                next,
                Executing | WaitingEvidence | Ready | Failed | Quarantined
            ),
            Executing => matches!(next, WaitingEvidence | Ready | Failed | Quarantined),
            WaitingEvidence => matches!(next, Ready | Failed | Quarantined),
            Verifying | Ready | Failed | Quarantined => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RunState::{self, *};

    const ALL: [RunState; 8] = [
        Open,
        Planned,
        Executing,
        Verifying,
        WaitingEvidence,
        Ready,
        Failed,
        Quarantined,
    ];

    #[test]
    fn the_moves_are_exactly_those_of_the_contract() {
        let allowed: &[(RunState, &[RunState])] = &[
            (Open, &[Planned, Failed, Quarantined]),
            (
                Planned,
                &[Executing, WaitingEvidence, Ready, Failed, Quarantined],
            ),
            (Executing, &[WaitingEvidence, Ready, Failed, Quarantined]),
            (WaitingEvidence, &[Ready, Failed, Quarantined]),
            (Verifying, &[]),
            (Ready, &[]),
            (Failed, &[]),
            (Quarantined, &[]),
        ];
        for (from, nexts) in allowed {
            for to in ALL {
                let expected = *from == to || nexts.contains(&to);
                assert_eq!(from.may_become(to), expected, "{from:?} -> {to:?}");
            }
        }
    }

    #[test]
    fn names_are_those_of_the_status_documents() {
        for state in ALL {
            let json = serde_json::to_string(&state).unwrap();
            assert_eq!(json, format!("\"{}\"", state.as_str()));
        }
    }
}
