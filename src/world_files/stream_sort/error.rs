//! Why a stream sort stopped (contract 3.7).

use std::path::{Path, PathBuf};

use wellspring_domain::ports::StoreError;
use wellspring_domain::world::stream_view::StreamViewRefusal;

use crate::world_files::parquet_reader::PartError;

/// Why a sort stopped. A target folder is as it was before; in a bucket parts may lie that no receipt
/// commits.
#[derive(Debug, thiserror::Error)]
pub enum SortError {
    /// What lies in the target folder forbids a sort.
    #[error(transparent)]
    View(#[from] StreamViewRefusal),
    /// No source part matches the output's path.
    #[error("no source part of {output_id} matches {pattern}")]
    OutputPathsEmpty {
        /// The output.
        output_id: String,
        /// Where parts were looked for.
        pattern: String,
    },
    /// The time key is missing, null or no time in some row.
    #[error("{output_id} has no usable ts_utc: {reason}")]
    MissingTsUtc {
        /// The output.
        output_id: String,
        /// Which column or row.
        reason: String,
    },
    /// Another sort key is missing, or null in some row.
    #[error("{output_id} cannot be sorted by {keys}: {reason}")]
    MissingSortKey {
        /// The output.
        output_id: String,
        /// The keys in question, comma separated.
        keys: String,
        /// Why not.
        reason: String,
    },
    /// Only `flat` (also spelled `none`) exists.
    #[error("partition granularity {granularity} is not supported, only flat")]
    GranularityUnsupported {
        /// What was asked for.
        granularity: String,
    },
    /// Windows of days were asked for and there is no time to cut by.
    #[error("{output_id} has no time range to cut into windows of days")]
    TsRangeMissing {
        /// The output.
        output_id: String,
    },
    /// The written parts hold no rows although the source does.
    #[error("the sorted parts of {output_id} hold no rows, the source has {raw_rows}")]
    StatsEmpty {
        /// The output.
        output_id: String,
        /// Rows of the source.
        raw_rows: u64,
    },
    /// The written parts could not be read again.
    #[error(
        "the sorted parts of {output_id} could not be read back in {attempts} attempts: {reason}"
    )]
    StatsRetryFailed {
        /// The output.
        output_id: String,
        /// Attempts made.
        attempts: u32,
        /// Last cause.
        reason: String,
    },
    /// No part was written.
    #[error("sorting {output_id} wrote no part")]
    OutputEmpty {
        /// The output.
        output_id: String,
    },
    /// Raw and sorted statistics differ, or the written rows are out of order.
    #[error("the sorted parts of {output_id} are not the source in order: {difference}")]
    ValidationFailed {
        /// The output.
        output_id: String,
        /// First difference.
        difference: String,
    },
    /// Something appeared in the target folder while sorting.
    #[error("{path} filled up while sorting: {reason}")]
    PartRenameCollision {
        /// The target folder.
        path: PathBuf,
        /// The file system's words.
        reason: String,
    },
    /// Another process sorts this output into this folder.
    #[error("{path} is being sorted by another process")]
    Busy {
        /// The staging lock.
        path: PathBuf,
    },
    /// A source part cannot be read, or its rows contradict its footer.
    #[error("{reason}")]
    Source {
        /// What is wrong.
        reason: String,
    },
    /// The object store refused, or could not be reached.
    #[error(transparent)]
    Store(StoreError),
    /// The file system refused.
    #[error("{path}: {reason}")]
    Io {
        /// File or folder.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
}

impl SortError {
    /// The reason code (contract 3.7).
    pub fn code(&self) -> &'static str {
        match self {
            Self::View(refusal) => refusal.code(),
            Self::OutputPathsEmpty { .. } => "OUTPUT_PATHS_EMPTY",
            Self::MissingTsUtc { .. } => "MISSING_TS_UTC",
            Self::MissingSortKey { .. } => "MISSING_SORT_KEY",
            Self::GranularityUnsupported { .. } => "PARTITION_GRANULARITY_UNSUPPORTED",
            Self::TsRangeMissing { .. } => "STREAM_SORT_TS_RANGE_MISSING",
            Self::StatsEmpty { .. } => "STREAM_SORT_STATS_EMPTY",
            Self::StatsRetryFailed { .. } => "STREAM_SORT_STATS_RETRY_FAILED",
            Self::OutputEmpty { .. } => "STREAM_SORT_OUTPUT_EMPTY",
            Self::ValidationFailed { .. } => "STREAM_SORT_VALIDATION_FAILED",
            Self::PartRenameCollision { .. } => "STREAM_VIEW_PART_RENAME_COLLISION",
            Self::Busy { .. } => "STREAM_SORT_BUSY",
            Self::Source { .. } => "STREAM_SORT_SOURCE_UNREADABLE",
            Self::Store(error) => error.code(),
            Self::Io { .. } => "STREAM_SORT_IO_FAILED",
        }
    }

    /// The code with what it is about: `CODE:<output>[:<keys>]` where the contract writes it so.
    pub fn coded(&self) -> String {
        match self {
            Self::OutputPathsEmpty { output_id, .. } | Self::MissingTsUtc { output_id, .. } => {
                format!("{}:{output_id}", self.code())
            }
            Self::MissingSortKey {
                output_id, keys, ..
            } => {
                format!("{}:{output_id}:{keys}", self.code())
            }
            _ => self.code().to_owned(),
        }
    }

    pub(super) fn io(path: &Path, error: &std::io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            reason: error.to_string(),
        }
    }

    pub(super) fn store(error: StoreError) -> Self {
        Self::Store(error)
    }

    pub(super) fn source(path: &Path, reason: impl std::fmt::Display) -> Self {
        Self::Source {
            reason: format!("{}: {reason}", path.display()),
        }
    }

    /// A failure of a kernel on rows that were already read and checked.
    pub(super) fn rows(error: &dyn std::fmt::Display) -> Self {
        Self::Source {
            reason: format!("rows cannot be rearranged: {error}"),
        }
    }
}

impl From<PartError> for SortError {
    fn from(error: PartError) -> Self {
        Self::Source {
            reason: error.to_string(),
        }
    }
}
