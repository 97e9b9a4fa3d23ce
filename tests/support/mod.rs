//! What every black-box test needs: a folder of its own, the built program, worlds, daemons, HTTP.

pub mod bus;
pub mod daemon;
pub mod finished;
pub mod gate_client;
pub mod push_cases;
pub mod recompute;
pub mod run;
pub mod scenario;
pub mod site;
pub mod world;

pub use finished::Finished;
pub use site::Site;
