//! The embedded partitioned file log and its decision journal.
