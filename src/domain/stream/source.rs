//! What output streams read from: the time-sorted view of one output, block by block (contract 6.6).

use super::column::NamedColumn;
use crate::ports::Cursor;
use std::sync::Arc;

/// One part file of a stream view.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartName {
    /// Full path or URI; orders the parts and stands in cursors.
    pub file: String,
    /// File name alone, so that a moved view still resumes.
    pub name: String,
}

/// Why a view cannot be opened or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct SourceError {
    /// The contract's reason code.
    pub code: &'static str,
    /// What is wrong, for a person.
    pub detail: String,
    /// Whether trying again can help.
    pub fault: SourceFault,
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceFault {
    /// The store may answer the next time.
    Transient,
    /// What is stored is wrong and stays wrong.
    Lasting,
}

/// Rows in order, and where in the view they lie.
pub trait RowBlock: Send {
    /// The part the rows come from.
    fn part(&self) -> &Arc<PartName>;
    /// Row number, within the part, of the first row.
    fn first_row(&self) -> u64;
    /// Number of rows; at least one.
    fn rows(&self) -> usize;
    /// The columns.
    fn columns(&self) -> Vec<NamedColumn<'_>>;
}

/// Reads one view forward.
pub trait BlockReader: Send {
    /// The next rows; `None` at the end of the view.
    fn next_block(&mut self) -> Result<Option<Box<dyn RowBlock>>, SourceError>;
}

/// A verified view, positioned behind the cursor it was opened with.
pub struct OpenView {
    /// Identity of the view (V17).
    pub stream_view_id: String,
    /// Rows of the whole view, when its receipt says so.
    pub rows_total: Option<u64>,
    /// The rows from here on.
    pub reader: Box<dyn BlockReader>,
}

/// The sealed world as streams see it. Blocking.
pub trait WorldSource: Send + Sync {
    /// Verifies the view of an output (contract 6.6 steps 1 and 2) and stands behind `after`.
    fn open(&self, output_id: &str, after: Option<&Cursor>) -> Result<OpenView, SourceError>;
}
