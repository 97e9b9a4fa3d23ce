//! Scenario Runner actors: one actor that works runs off the async threads, one at a time.

mod runner_actor;

#[cfg(test)]
mod runner_actor_tests;

pub use runner_actor::{
    ScenarioRunnerHandle, ScenarioRunnerLimits, ScenarioRunnerSpec, ScenarioRunnerView,
    spawn_scenario_runner,
};
