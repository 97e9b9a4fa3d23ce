//! The World Streamer's rules: what is streamed, how a row becomes an envelope, when it is due, what
//! an answer means, and where a restart continues (contract section 6).

pub mod batch_cut;
pub mod column;
pub mod cursor;
pub mod frame_value;
pub mod framing;
pub mod output_plan;
pub mod pacing;
pub mod preflight;
pub mod ready_decision;
pub mod required_packs;
pub mod retry;
pub mod source;
