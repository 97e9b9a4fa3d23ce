//! HTTP surfaces: HTTP <-> handles, no rules.
