//! Object store adapters.

pub mod local_files;

pub use local_files::LocalFiles;
