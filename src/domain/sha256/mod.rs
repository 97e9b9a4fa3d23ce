//! SHA-256 of many messages at once.
//!
//! Every event needs four digests, so hashing is the largest single cost of the data plane. Processors with SHA
//! instructions hash two messages at a time; without them 8 or 16 are hashed side by side, one in each lane of the
//! vector registers; everywhere else one after the other. The digests are the same, and a test says so.

#[cfg(target_arch = "x86_64")]
mod constants;
#[cfg(target_arch = "x86_64")]
mod lanes;
#[cfg(target_arch = "x86_64")]
mod pairs;

use crate::ids::Hash32;
use sha2::{Digest, Sha256};

/// Bytes of one block.
const BLOCK: usize = 64;

/// Messages waiting to be hashed together.
#[derive(Debug)]
pub struct HashBatch {
    road: Road,
    /// Messages one after the other; padded to whole blocks when many are hashed at once.
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
    #[cfg(target_arch = "x86_64")]
    Pairs,
}

impl Road {
    /// The fastest here: without optimisation that is the `sha2` crate, which is always built with it.
    fn best() -> Road {
        let fastest = Road::all_here().last().copied();
        match cfg!(debug_assertions) {
            true => Road::OneByOne,
            false => fastest.unwrap_or(Road::OneByOne),
        }
    }

    /// Every way this processor can go, the fastest last.
    fn all_here() -> Vec<Road> {
        let mut roads = Road::many_at_once();
        roads.insert(0, Road::OneByOne);
        roads
    }

    #[cfg(target_arch = "x86_64")]
    fn many_at_once() -> Vec<Road> {
        let lanes = lanes::Width::all_here().into_iter().map(Road::Lanes);
        lanes
            .chain(pairs::are_here().then_some(Road::Pairs))
            .collect()
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn many_at_once() -> Vec<Road> {
        Vec::new()
    }
}

impl Default for HashBatch {
    fn default() -> Self {
        HashBatch::on(Road::best())
    }
}

impl HashBatch {
    /// One batch for each way this processor can hash, whichever it uses: for tests and fuzzers.
    pub fn each_way() -> impl Iterator<Item = HashBatch> {
        Road::all_here().into_iter().map(HashBatch::on)
    }

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
            #[cfg(target_arch = "x86_64")]
            Road::Pairs => pairs::hash(&self.text, &self.messages, digests),
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

    fn assert_same(messages: &[Vec<u8>]) {
        let expected: Vec<Hash32> = messages.iter().map(|text| Hash32::of(text)).collect();
        for mut batch in HashBatch::each_way() {
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
                assert_eq!(digests, expected, "{:?}", batch.road);
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
