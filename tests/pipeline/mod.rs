//! Whole worlds, from the sealed files to a verified bus.

mod demo;
mod fixture_world;
mod load;
mod new_output;
mod operators;
mod two_processes;
