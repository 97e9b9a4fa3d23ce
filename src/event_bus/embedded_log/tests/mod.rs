//! The embedded log as a whole, against real files in temporary folders.

mod bus_reading;
mod crashes;
mod fixture;
mod large_appends;
mod random_cuts;
mod refusals;
mod round_trip;
