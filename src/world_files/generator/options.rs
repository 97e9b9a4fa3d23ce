//! What a world is asked to be, and why it may not be made.

use std::path::PathBuf;

use wellspring_domain::time_text::Micros;

/// Microseconds of one day.
pub(super) const MICROS_PER_DAY: i64 = 86_400_000_000;

const PARTS_MAX: u32 = 10_000;
const DAYS_MAX: u32 = 366;
const EVENTS_MAX: u64 = 20_000_000_000;

/// What to generate (contract 3.1-3.4 gives the layout).
#[derive(Debug, Clone)]
pub struct GenerateOptions {
    /// Folder of the new engine run root; absent or empty.
    pub out: PathBuf,
    /// Traffic events of one event stream: two per flow, so an even number.
    pub events: u64,
    /// World seed; the `seed` column is a signed 64-bit integer.
    pub seed: u64,
    /// Parquet parts per output.
    pub parts: u32,
    /// Scenario id, also a path segment.
    pub scenario_id: String,
    /// First day, `YYYY-MM-DD`, UTC.
    pub start_date: String,
    /// Length of the world in days.
    pub days: u32,
    /// Parts generated at the same time; 0 means one per processor.
    pub threads: usize,
}

impl GenerateOptions {
    /// A world of `events` traffic events with the usual scenario, start and length.
    pub fn new(out: impl Into<PathBuf>, events: u64, seed: u64, parts: u32) -> Self {
        Self {
            out: out.into(),
            events,
            seed,
            parts,
            scenario_id: "baseline_v1".to_owned(),
            start_date: "2026-01-01".to_owned(),
            days: 7,
            threads: 0,
        }
    }

    /// Checks every option before anything is written.
    pub(super) fn check(&self) -> Result<Micros, GenerateError> {
        let refuse = |option, reason: &str| {
            Err(GenerateError::Option {
                option,
                reason: reason.to_owned(),
            })
        };
        if self.events == 0 || !self.events.is_multiple_of(2) || self.events > EVENTS_MAX {
            return refuse(
                "events",
                "must be an even number from 2 to 20,000,000,000: a flow has two events",
            );
        }
        if i64::try_from(self.seed).is_err() {
            return refuse("seed", "must fit a signed 64-bit column");
        }
        if self.parts == 0 || self.parts > PARTS_MAX {
            return refuse("parts", "must be from 1 to 10,000");
        }
        if self.days == 0 || self.days > DAYS_MAX {
            return refuse("days", "must be from 1 to 366");
        }
        if !is_scenario_id(&self.scenario_id) {
            return refuse(
                "scenario-id",
                "must be 1 to 256 letters, digits, dots, dashes or underscores",
            );
        }
        match Micros::parse_any(&format!("{}T00:00:00Z", self.start_date)) {
            Ok(start) if start.format_env().starts_with(&self.start_date) => Ok(start),
            _ => refuse("start-date", "must be a day like 2026-01-01"),
        }
    }

    /// Flows of the world: one request and one response each.
    pub(super) fn flows(&self) -> u64 {
        self.events / 2
    }
}

fn is_scenario_id(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (1..=256).contains(&text.len()) && text.chars().all(allowed) && !text.starts_with('.')
}

/// Why a world was not made. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// An option is out of range.
    #[error("--{option} {reason}")]
    Option {
        /// The option's long name.
        option: &'static str,
        /// What it must be.
        reason: String,
    },
    /// The target folder holds something.
    #[error("{path} is not empty: a world is written once, choose a new folder")]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// Another process writes the same world now.
    #[error("{path} is being written by another process")]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot write {path}: {reason}")]
    Io {
        /// File or folder.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// Rows could not be encoded.
    #[error("cannot encode {path}: {reason}")]
    Encode {
        /// The part.
        path: PathBuf,
        /// The encoder's words.
        reason: String,
    },
}

impl GenerateError {
    /// Reason code for answers and scripts.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Option { .. } => "WORLD_OPTION_INVALID",
            Self::NotEmpty { .. } => "WORLD_DIR_NOT_EMPTY",
            Self::Busy { .. } => "WORLD_DIR_BUSY",
            Self::Io { .. } => "WORLD_WRITE_FAILED",
            Self::Encode { .. } => "WORLD_ENCODE_FAILED",
        }
    }

    pub(super) fn io(path: impl Into<PathBuf>, error: &std::io::Error) -> Self {
        Self::Io {
            path: path.into(),
            reason: error.to_string(),
        }
    }
}
