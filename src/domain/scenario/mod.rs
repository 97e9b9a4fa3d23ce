//! The Scenario Runner's rules: request, plan, evidence, state machine, facts view, READY.
