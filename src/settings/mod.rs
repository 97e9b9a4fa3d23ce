//! Typed profiles: policy and wiring, placeholders, validation, origin of each value.
