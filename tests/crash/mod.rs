//! Kills and stops of the real daemon.

mod kill_nine;
mod sigterm;
