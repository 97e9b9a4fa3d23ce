//! The Scenario Runner on a tiny world of its own, with a clock by hand and faults by number.

mod crash;
mod engine;
mod fixture_world;
mod reemit;
mod refusals;
mod seeded;
mod submit;
mod support;
