//! Who streams a READY: claims, written once each, so that two consumers never stream the same one
//! (W12).
//!
//! Claim `n` of a message is `<message id>.claim-<n>.json` beside its ready record. It holds while its
//! process lives. A consumer that finds the newest claim dead writes the next number; of two that try,
//! one finds the file taken. A claim is never changed or removed, so nothing can be undone by a late
//! writer.

use serde::{Deserialize, Serialize};
use wellspring_domain::canonical_json::to_cj;
use wellspring_domain::ports::{ObjectStore, PutOutcome, StoreError};

use super::processes;
use crate::failpoints::{Artefact, Operation, Step, around};

const CLAIM: Step = Step(Artefact::ReadyClaim, Operation::Put);

/// Claims of one message that are tried before somebody else is taken to have it.
const CLAIMS_TRIED_MAX: u32 = 10_000;
/// Largest difference between two readings of one process's start, in seconds.
const START_TOLERANCE: f64 = 1.5;

/// What a claim says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// The process.
    pub pid: u64,
    /// When it was created, in seconds since the epoch.
    pub pid_create_time: f64,
    /// When it claimed (T-off).
    pub claimed_at_utc: String,
}

/// What asking for a claim came to.
#[derive(Clone, Debug, PartialEq)]
pub enum ClaimOutcome {
    /// This process has the message.
    Ours,
    /// A living process has it.
    Held(Claim),
}

/// Asks for a message. `stem` is the key of its ready record without the ending.
pub fn claim(
    store: &dyn ObjectStore,
    stem: &str,
    now_off: &str,
) -> Result<ClaimOutcome, StoreError> {
    let pid = u64::from(std::process::id());
    let own = Claim {
        pid,
        pid_create_time: processes::created_at(pid).unwrap_or_default(),
        claimed_at_utc: now_off.to_owned(),
    };
    claim_as(store, stem, &own, &processes::created_at)
}

fn claim_as(
    store: &dyn ObjectStore,
    stem: &str,
    own: &Claim,
    created_at: &dyn Fn(u64) -> Option<f64>,
) -> Result<ClaimOutcome, StoreError> {
    let text = to_cj(own).map_err(|error| damaged(stem, error.to_string()))?;
    for number in 1..=CLAIMS_TRIED_MAX {
        let key = format!("{stem}.claim-{number}.json");
        let holder = match store.get(&key)? {
            Some(bytes) => bytes,
            None => match around(CLAIM, || store.put_if_absent(&key, text.as_bytes()))? {
                PutOutcome::Created => return Ok(ClaimOutcome::Ours),
                PutOutcome::AlreadyExists => store.get(&key)?.unwrap_or_default(),
            },
        };
        let holder: Claim = serde_json::from_slice(&holder)
            .map_err(|error| damaged(&key, format!("not a claim: {error}")))?;
        if same_process(&holder, own) {
            return Ok(ClaimOutcome::Ours);
        }
        let alive = created_at(holder.pid)
            .is_some_and(|created| (created - holder.pid_create_time).abs() < START_TOLERANCE);
        if alive {
            return Ok(ClaimOutcome::Held(holder));
        }
    }
    Err(damaged(
        stem,
        format!("more than {CLAIMS_TRIED_MAX} dead claims"),
    ))
}

fn same_process(a: &Claim, b: &Claim) -> bool {
    a.pid == b.pid && (a.pid_create_time - b.pid_create_time).abs() < START_TOLERANCE
}

fn damaged(key: &str, cause: String) -> StoreError {
    StoreError::Damaged {
        key: key.to_owned(),
        offset: 0,
        cause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object_store::LocalFiles;

    fn by(pid: u64) -> Claim {
        Claim {
            pid,
            pid_create_time: 100.0 + pid as f64,
            claimed_at_utc: "t".to_owned(),
        }
    }

    /// Processes 1 and 2 live.
    fn alive(pid: u64) -> Option<f64> {
        (pid <= 2).then_some(100.0 + pid as f64)
    }

    #[test]
    fn a_living_claim_keeps_others_out_and_its_owner_in() {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalFiles::new(folder.path());
        let ask = |pid| claim_as(&store, "r/m", &by(pid), &alive).unwrap();
        assert_eq!(ask(1), ClaimOutcome::Ours);
        assert_eq!(ask(2), ClaimOutcome::Held(by(1)));
        assert_eq!(ask(1), ClaimOutcome::Ours);
    }

    #[test]
    fn a_dead_claim_is_taken_over_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalFiles::new(folder.path());
        let ask = |pid| claim_as(&store, "r/m", &by(pid), &alive).unwrap();
        assert_eq!(ask(9), ClaimOutcome::Ours);
        assert_eq!(ask(2), ClaimOutcome::Ours);
        assert_eq!(ask(1), ClaimOutcome::Held(by(2)));
    }

    #[test]
    fn a_reused_process_id_is_not_the_process_that_claimed() {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalFiles::new(folder.path());
        let earlier = Claim {
            pid_create_time: 5.0,
            ..by(1)
        };
        claim_as(&store, "r/m", &earlier, &alive).unwrap();
        assert_eq!(
            claim_as(&store, "r/m", &by(2), &alive).unwrap(),
            ClaimOutcome::Ours
        );
    }

    #[test]
    fn a_claim_nobody_can_read_stops_the_consumer_instead_of_letting_it_in() {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalFiles::new(folder.path());
        store.put("r/m.claim-1.json", b"{").unwrap();
        let error = claim_as(&store, "r/m", &by(1), &alive).unwrap_err();
        assert_eq!(error.code(), "STORE_DAMAGED");
    }

    #[test]
    fn this_process_can_claim_twice() {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalFiles::new(folder.path());
        assert_eq!(claim(&store, "m", "t").unwrap(), ClaimOutcome::Ours);
        assert_eq!(claim(&store, "m", "t").unwrap(), ClaimOutcome::Ours);
    }
}
