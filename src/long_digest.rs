//! SHA-256 of long inputs: files, objects, whole outputs.
//!
//! One long message cannot be hashed in lanes, so what counts is the fastest single stream: the TLS library,
//! which is linked anyway, has it in assembly for every processor, with and without SHA instructions. Many
//! short messages are for [`wellspring_domain::sha256`].

use aws_lc_rs::digest::{Context, SHA256};
use wellspring_domain::ids::Hash32;

/// A SHA-256 that takes its input in pieces.
#[derive(Clone)]
pub struct LongDigest(Context);

impl LongDigest {
    /// Of nothing yet.
    pub fn new() -> LongDigest {
        LongDigest(Context::new(&SHA256))
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of everything taken.
    pub fn finish(self) -> Hash32 {
        let mut digest = Hash32::default();
        digest.0.copy_from_slice(self.0.finish().as_ref());
        digest
    }
}

impl Default for LongDigest {
    fn default() -> LongDigest {
        LongDigest::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_pieces_give_the_digest_of_the_whole(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..12)
        ) {
            let mut digest = LongDigest::new();
            pieces.iter().for_each(|piece| digest.update(piece));
            prop_assert_eq!(digest.finish(), Hash32::of(&pieces.concat()));
        }
    }
}
