//! Object store adapters.
