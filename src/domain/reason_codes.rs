//! Reason codes: every stable code with its meaning and the way out.
