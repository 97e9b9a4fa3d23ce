//! Ports: what the rules and actors need from the outside.
