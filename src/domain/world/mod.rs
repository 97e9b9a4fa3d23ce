//! The sealed world: catalogue, gates, pack, seal, stream views, checker rules.

pub mod stream_view;
