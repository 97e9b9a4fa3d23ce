//! Event bus adapters.
pub mod embedded_log;
