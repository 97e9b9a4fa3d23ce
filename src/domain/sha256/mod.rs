//! SHA-256 of many messages at once.
//!
//! Every event needs four digests, so hashing is the largest single cost of the data plane on processors
//! without SHA instructions. There, 8 or 16 messages are hashed side by side, one in each lane of the vector
//! registers; everywhere else one after the other. The digests are the same, and a test says so.

#[cfg(target_arch = "x86_64")]
mod lanes;

use crate::ids::Hash32;
use sha2::{Digest, Sha256};

/// Bytes of one block.
const BLOCK: usize = 64;

/// Messages waiting to be hashed together.
#[derive(Debug)]
pub struct HashBatch {
    road: Road,
    /// Messages one after the other; padded to whole blocks when lanes hash them.
    text: Vec<u8>,
    messages: Vec<Message>,
}

/// Where a message lies in the text.
#[derive(Clone, Copy, Debug)]
struct Message {
    start: u32,
    length: u32,
}

impl Message {
    fn of<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        &text[self.start as usize..(self.start + self.length) as usize]
    }

    #[cfg(target_arch = "x86_64")]
    fn blocks(&self) -> usize {
        padded(self.length as usize) / BLOCK
    }
}

/// How this processor hashes best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Road {
    OneByOne,
    #[cfg(target_arch = "x86_64")]
    Lanes(lanes::Width),
}

impl Road {
    #[cfg(target_arch = "x86_64")]
    fn best() -> Road {
        lanes::Width::best().map_or(Road::OneByOne, Road::Lanes)
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn best() -> Road {
        Road::OneByOne
    }
}

impl Default for HashBatch {
    fn default() -> Self {
        HashBatch::on(Road::best())
    }
}

impl HashBatch {
    fn on(road: Road) -> HashBatch {
        HashBatch {
            road,
            text: Vec::new(),
            messages: Vec::new(),
        }
    }

    /// Adds a message given in parts; its digest takes the same place in [`HashBatch::finish`].
    pub fn push(&mut self, parts: &[&[u8]]) {
        let start = self.text.len();
        for part in parts {
            self.text.extend_from_slice(part);
        }
        self.close(start);
    }

    /// Adds the message `write` appends. After an error there is no such message.
    pub fn push_with<E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.text.len();
        match write(&mut self.text) {
            Ok(()) => self.close(start),
            Err(error) => {
                self.text.truncate(start);
                return Err(error);
            }
        }
        Ok(())
    }

    fn close(&mut self, start: usize) {
        let length = self.text.len() - start;
        self.messages.push(Message {
            start: start as u32,
            length: length as u32,
        });
        if self.road != Road::OneByOne {
            self.text.push(0x80);
            self.text.resize(start + padded(length) - 8, 0);
            let bits = length as u64 * 8;
            self.text.extend_from_slice(&bits.to_be_bytes());
        }
    }

    /// How many messages wait.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Bytes that wait: callers keep this small enough for the cache.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// The digests in the order of the messages. The batch is empty afterwards.
    pub fn finish(&mut self, digests: &mut Vec<Hash32>) {
        digests.clear();
        digests.resize(self.messages.len(), Hash32::default());
        match self.road {
            Road::OneByOne => {
                for (digest, message) in digests.iter_mut().zip(&self.messages) {
                    *digest = Hash32(Sha256::digest(message.of(&self.text)).into());
                }
            }
            #[cfg(target_arch = "x86_64")]
            Road::Lanes(width) => lanes::hash(width, &self.text, &self.messages, digests),
        }
        self.text.clear();
        self.messages.clear();
    }
}

/// Bytes of a message with its padding: 0x80, zeros, eight bytes of length.
fn padded(length: usize) -> usize {
    (length + 9).next_multiple_of(BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn roads() -> Vec<Road> {
        let mut roads = vec![Road::OneByOne];
        #[cfg(target_arch = "x86_64")]
        roads.extend(lanes::Width::all_here().into_iter().map(Road::Lanes));
        roads
    }

    fn assert_same(messages: &[Vec<u8>]) {
        let expected: Vec<Hash32> = messages.iter().map(|text| Hash32::of(text)).collect();
        for road in roads() {
            let mut batch = HashBatch::on(road);
            let mut digests = vec![Hash32::default(); 3];
            for _again in 0..2 {
                for message in messages {
                    let (first, second) = message.split_at(message.len() / 3);
                    batch.push(&[first, second]);
                    let broken = |text: &mut Vec<u8>| {
                        text.push(1);
                        Err("not this one")
                    };
                    assert!(batch.push_with(broken).is_err());
                }
                assert_eq!(batch.len(), messages.len());
                batch.finish(&mut digests);
                assert_eq!(digests, expected, "{road:?}");
                assert!(batch.is_empty() && batch.bytes() == 0);
            }
        }
    }

    #[test]
    fn every_length_around_a_block_hashes_as_alone() {
        let message = |length: usize| (0..length).map(|at| (at * 7) as u8).collect();
        assert_same(&(0..260).map(message).collect::<Vec<_>>());
        assert_same(&[]);
        assert_same(&[b"abc".to_vec()]);
    }

    proptest! {
        #[test]
        fn any_batch_hashes_as_its_messages_alone(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..900), 0..60)
        ) {
            assert_same(&messages);
        }
    }
}
