//! Shared by all actors: credits, generations, slots, heartbeats, the live tree.
