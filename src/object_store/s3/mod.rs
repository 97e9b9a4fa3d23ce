//! Objects in an S3 bucket (contract 3.8).

pub mod options;

pub use options::{S3Credentials, S3Options, S3Patience};
