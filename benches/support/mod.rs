//! What every bench shares: measuring, the world it works on, and the report.

pub mod child;
pub mod gate;
pub mod http_load;
pub mod measure;
pub mod report;
pub mod session;
pub mod world;

use std::str::FromStr;

/// A number from the environment.
pub fn number<N: FromStr>(name: &str, default: N) -> N {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}")),
        Err(_) => default,
    }
}

/// A folder on the disk that is measured; `WELLSPRING_BENCH_DIR` names another place for it.
pub fn folder() -> tempfile::TempDir {
    match std::env::var_os("WELLSPRING_BENCH_DIR") {
        Some(parent) => tempfile::tempdir_in(parent),
        None => tempfile::tempdir(),
    }
    .expect("a temporary folder")
}
