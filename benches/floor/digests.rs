//! Floor of hashing: SHA-256 with nothing around it.
//!
//! Three roads: the `sha2` crate message by message, the domain's way of hashing many messages at once (two with SHA
//! instructions, a register full of them without), and the assembly of the TLS library, which is the fastest
//! for one long message where there are no SHA instructions.

use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::hash::Context;
use sha2::{Digest, Sha256};
use wellspring_domain::ids::Hash32;
use wellspring_domain::sha256::HashBatch;

/// Bytes hashed at once: they stay in the processor's cache.
const LANE_BYTES: usize = 128 * 1024;

/// Digests of all messages, one after the other.
pub fn one_by_one<'a>(messages: impl Iterator<Item = &'a [u8]>, digests: &mut Vec<Hash32>) {
    digests.clear();
    digests.extend(messages.map(|message| Hash32(Sha256::digest(message).into())));
}

/// Digests of all messages, many at once.
pub fn in_lanes<'a>(messages: impl Iterator<Item = &'a [u8]>, digests: &mut Vec<Hash32>) {
    let (mut batch, mut some) = (HashBatch::default(), Vec::new());
    digests.clear();
    for message in messages {
        batch.push(&[message]);
        if batch.bytes() >= LANE_BYTES {
            batch.finish(&mut some);
            digests.append(&mut some);
        }
    }
    batch.finish(&mut some);
    digests.append(&mut some);
}

/// A digest over parts that come one after the other: `sha2`.
pub fn crate_digest<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Hash32 {
    let mut digest = Sha256::new();
    parts.for_each(|part| digest.update(part));
    Hash32(digest.finalize().into())
}

/// The same: assembly.
pub fn assembly_digest<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Hash32 {
    let mut digest = assembly();
    parts.for_each(|part| digest.update(part));
    let output = digest.finish();
    Hash32(output.as_ref().try_into().expect("32 bytes"))
}

/// A running digest in assembly.
pub fn assembly() -> Box<dyn Context> {
    let suite = TLS13_AES_128_GCM_SHA256.tls13();
    let suite = suite.expect("a suite of TLS 1.3");
    suite.common.hash_provider.start()
}
