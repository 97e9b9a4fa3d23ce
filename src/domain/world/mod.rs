//! The sealed world: catalogue, gates, pack, seal, stream views, checker rules.
//!
//! A world is engine output under one run root. It is read by reference and only after its gates have
//! passed: no PASS, no read (contract 3). Which outputs exist, how they are keyed and how each gate is
//! proven is data ([`catalogue::Catalogue`], [`gates::GateMap`]); these rules only interpret it.

pub mod catalogue;
pub mod checker;
pub mod gate_evidence;
pub mod gates;
pub mod locator;
pub mod pack;
pub mod seal;
pub mod stream_view;
pub mod world_key;
