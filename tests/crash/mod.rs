//! Kills, stops and faults of the real daemon.

mod damage;
mod disk_faults;
mod failpoints;
mod kill_nine;
mod points;
mod sigterm;
