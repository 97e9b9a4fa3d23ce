//! What must be true after a load, and whether it is.

use super::recorder::Recorded;
use serde::Serialize;

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// Whether it holds; `None` when it could not be judged.
    pub holds: Option<bool>,
    /// What was compared.
    pub detail: String,
}

impl Check {
    /// A check with a verdict.
    pub fn new(name: &'static str, holds: bool, detail: impl Into<String>) -> Check {
        Check {
            name,
            holds: Some(holds),
            detail: detail.into(),
        }
    }

    /// A check that cannot be judged, and why.
    pub fn open(name: &'static str, detail: impl Into<String>) -> Check {
        Check {
            name,
            holds: None,
            detail: detail.into(),
        }
    }
}

/// Every event sent was answered: admitted, duplicate, quarantined or refused.
pub fn conservation(recorded: &Recorded) -> Check {
    let counts = recorded.counts;
    let detail = format!(
        "{} sent = {} admitted + {} duplicate + {} quarantined + {} refused",
        counts.sent, counts.admitted, counts.duplicate, counts.quarantined, counts.refused
    );
    Check::new("conservation", counts.sent == counts.answered(), detail)
}

/// Every kind of event got the decision it must get.
pub fn decisions(recorded: &Recorded) -> Check {
    const NAME: &str = "decisions";
    let (counts, made) = (recorded.counts, recorded.composition);
    if counts.refused > 0 {
        let detail = format!(
            "{} events were refused, so their copies may have been admitted instead",
            counts.refused
        );
        return Check::open(NAME, detail);
    }
    let holds = (counts.admitted, counts.duplicate, counts.quarantined)
        == (made.fresh, made.copies, made.invalid);
    let detail = format!(
        "{} fresh events: {} admitted; {} copies: {} duplicate; {} invalid: {} quarantined",
        made.fresh,
        counts.admitted,
        made.copies,
        counts.duplicate,
        made.invalid,
        counts.quarantined
    );
    Check::new(NAME, holds, detail)
}

#[cfg(test)]
mod tests {
    use super::super::recorder::{Answered, Outcome, Recording};
    use super::super::synthetic::Composition;
    use super::*;

    fn recorded(sent: u64, outcomes: &[Outcome<'_>], made: Composition) -> Recorded {
        let recording = Recording::new(1);
        recording.part(0).sent(&made, sent, 0);
        let batch = Answered {
            sent_at: 0,
            answered_at: 1,
            measured_from: 0,
        };
        let events = outcomes.iter().map(|outcome| (0, None, *outcome));
        recording.part(0).answered(&batch, events);
        recording.recorded()
    }

    #[test]
    fn an_event_without_an_answer_is_not_conserved() {
        let made = Composition::default();
        assert_eq!(
            conservation(&recorded(1, &[Outcome::Admitted], made)).holds,
            Some(true)
        );
        assert_eq!(
            conservation(&recorded(2, &[Outcome::Admitted], made)).holds,
            Some(false)
        );
    }

    #[test]
    fn a_copy_that_is_admitted_is_a_wrong_decision_unless_something_was_refused() {
        let made = Composition {
            fresh: 1,
            copies: 1,
            invalid: 0,
        };
        let judge = |outcomes: &[Outcome<'_>]| decisions(&recorded(2, outcomes, made)).holds;
        assert_eq!(judge(&[Outcome::Admitted, Outcome::Duplicate]), Some(true));
        assert_eq!(judge(&[Outcome::Admitted, Outcome::Admitted]), Some(false));
        assert_eq!(judge(&[Outcome::Refused("x"), Outcome::Admitted]), None);
    }
}
