//! Scenario Runner actors.
