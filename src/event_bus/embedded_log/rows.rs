//! Journal rows as readers get them: everything a receipt is rendered from (contract 7.7).

pub use wellspring_domain::admission::journal_row::{JournalOutcome, JournalRow};
