//! Event bus adapters.
pub mod embedded_log;
pub mod kinesis;
