//! Timestamps in the four contract formats (contract 0.2).
