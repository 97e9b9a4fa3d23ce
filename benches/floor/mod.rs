//! The floor: the least work that could do what the data plane does, as straight-line code.
//!
//! No actors, no supervision, no recovery, no back-pressure, nothing that could be left out. Every floor does the
//! *semantic* work of its stage with this contract's bytes: the envelopes are the same byte for byte, the
//! digests are those of contract 1.2, a decision row holds all a receipt needs, and a group of events counts as
//! admitted after its lines and then its decision frame are on stable storage (design 3, commit point). What
//! a floor leaves out is said in its file. The comparisons assert that both sides made the same bytes.
//!
//! It knows one output, `s3_event_stream_with_fraud_6B`, and its eleven columns.

pub mod columns;
pub mod digests;
pub mod disk;
pub mod framing;
pub mod http;
pub mod key_set;
pub mod pipeline;
pub mod shape;
pub mod sort;
