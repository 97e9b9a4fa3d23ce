//! Reason codes: every stable code with who says it, its meaning, whether to try again, and the way out.
//!
//! One table per plane, joined by [`all`]. Tests read the sources of the program: a code that is said
//! somewhere and explained nowhere fails them, and `docs/operations.md` shows exactly this table.

mod admission;
mod http;
mod oracle;
mod runs;
mod runtime;
mod scenario;
mod settings;
mod storage;
mod stream_sort;
mod streaming;
mod streams;
mod verification;

/// Who says a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Speaker {
    /// Profiles, settings, references.
    Config,
    /// The platform run and its root.
    Run,
    /// The world generator.
    World,
    /// The oracle pack, its seal and the oracle check.
    Oracle,
    /// The stream sort.
    StreamSort,
    /// The Scenario Runner.
    ScenarioRunner,
    /// The World Streamer.
    WorldStreamer,
    /// The Ingestion Gate.
    Gate,
    /// The gate's HTTP edge.
    Http,
    /// The event bus and the control bus.
    Bus,
    /// Objects, journals, indexes, checkpoints.
    Store,
    /// The verifiers of bus and receipts.
    Verifier,
    /// The supervisors of the program.
    Supervision,
}

impl Speaker {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Speaker::Config => "config",
            Speaker::Run => "run",
            Speaker::World => "world generator",
            Speaker::Oracle => "oracle check",
            Speaker::StreamSort => "stream sort",
            Speaker::ScenarioRunner => "scenario runner",
            Speaker::WorldStreamer => "streamer",
            Speaker::Gate => "gate",
            Speaker::Http => "http",
            Speaker::Bus => "bus",
            Speaker::Store => "store",
            Speaker::Verifier => "verifier",
            Speaker::Supervision => "supervision",
        }
    }
}

/// Whether the same thing can succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CodeClass {
    /// Sending the same again is safe and right, at once.
    SendAgain,
    /// The same can succeed later without a change.
    WaitAndRetry,
    /// It comes back until its cause is gone.
    FixTheCause,
    /// Nothing is wrong; it says what happened.
    Information,
}

impl CodeClass {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            CodeClass::SendAgain => "retry the same",
            CodeClass::WaitAndRetry => "retry after waiting",
            CodeClass::FixTheCause => "fix the cause",
            CodeClass::Information => "information",
        }
    }
}

/// One stable code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReasonCode {
    /// The code, in capitals; answers may add `:detail`.
    pub code: &'static str,
    /// Who says it.
    pub said_by: &'static [Speaker],
    /// Whether to try again.
    pub class: CodeClass,
    /// What it means, in one sentence.
    pub meaning: &'static str,
    /// What to do about it.
    pub action: &'static str,
}

/// A row, written short.
const fn row(
    code: &'static str,
    said_by: &'static [Speaker],
    class: CodeClass,
    meaning: &'static str,
    action: &'static str,
) -> ReasonCode {
    ReasonCode {
        code,
        said_by,
        class,
        meaning,
        action,
    }
}

/// A part of the table with its title.
#[derive(Clone, Copy, Debug)]
pub struct Chapter {
    /// The title in documents.
    pub title: &'static str,
    /// Its codes, sorted.
    pub codes: &'static [ReasonCode],
}

/// The whole table in the order in which an operator meets it.
pub const CHAPTERS: [Chapter; 12] = [
    settings::CHAPTER,
    runs::CHAPTER,
    oracle::CHAPTER,
    stream_sort::CHAPTER,
    scenario::CHAPTER,
    streaming::CHAPTER,
    admission::CHAPTER,
    http::CHAPTER,
    storage::CHAPTER,
    streams::CHAPTER,
    verification::CHAPTER,
    runtime::CHAPTER,
];

/// Every code.
pub fn all() -> impl Iterator<Item = &'static ReasonCode> {
    CHAPTERS.iter().flat_map(|chapter| chapter.codes)
}

/// The row of a code as it was printed: `CODE` or `CODE:detail`, in any case.
pub fn find(printed: &str) -> Option<&'static ReasonCode> {
    let code = printed.split([':', ' ']).next().unwrap_or_default();
    all().find(|row| row.code.eq_ignore_ascii_case(code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_code_is_explained_once_and_in_order() {
        let mut seen = BTreeSet::new();
        for chapter in CHAPTERS {
            let codes: Vec<_> = chapter.codes.iter().map(|row| row.code).collect();
            assert!(codes.is_sorted(), "{} is not sorted", chapter.title);
            for code in codes {
                assert!(seen.insert(code), "{code} is explained twice");
            }
        }
    }

    #[test]
    fn every_row_has_a_speaker_a_meaning_and_a_way_out() {
        for row in all() {
            assert!(!row.said_by.is_empty(), "{} is said by nobody", row.code);
            for text in [row.meaning, row.action] {
                assert!(text.len() > 8, "{} says {text:?}", row.code);
                assert!(!text.ends_with('.') && !text.contains('|'), "{}", row.code);
            }
            let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
            assert!(row.code.chars().all(plain), "{}", row.code);
        }
    }

    #[test]
    fn a_printed_code_is_found_with_its_detail_and_in_any_case() {
        let found = |text| find(text).map(|row| row.code);
        assert_eq!(found("OUTPUT_UNKNOWN:an_output"), Some("OUTPUT_UNKNOWN"));
        assert_eq!(found("ig_unhealthy"), Some("IG_UNHEALTHY"));
        assert_eq!(found("IG_UNHEALTHY: RED"), Some("IG_UNHEALTHY"));
        assert_eq!(found("NO_SUCH_CODE"), None);
        assert_eq!(found(""), None);
    }
}
