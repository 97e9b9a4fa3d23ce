//! Files that were damaged between two runs.
