//! Control bus adapters: how READY and terminal signals travel (contract 5.9).

pub mod file;

pub use file::FileControlBus;
