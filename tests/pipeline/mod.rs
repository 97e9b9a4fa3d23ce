//! Whole worlds, from the sealed files to a verified bus.

mod fixture_world;
mod new_output;
mod two_processes;
