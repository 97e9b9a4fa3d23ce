//! SHA-256 with the processor's SHA instructions, two messages at a time.
//!
//! Each of these instructions needs the result of the one before, so a processor hashing one message waits for most
//! of the time. Two messages that know nothing of each other fill the gaps. Whoever has ended takes the next message;
//! the last one is hashed alone.

// Whether the processor has the instructions has to be checked for at run time; the compiler cannot know. The unsafe
// operations are one call whose condition is that check, and loads of sixteen bytes from a slice of sixty-four.
#![allow(unsafe_code)]

use super::constants::{FIRST, K};
use super::{BLOCK, Message};
use crate::ids::Hash32;
use std::arch::x86_64::*;

/// True when this processor has the instructions.
pub(super) fn are_here() -> bool {
    is_x86_feature_detected!("sha")
        && is_x86_feature_detected!("sse4.1")
        && is_x86_feature_detected!("ssse3")
}

/// The digests of padded messages.
pub(super) fn hash(text: &[u8], messages: &[Message], digests: &mut [Hash32]) {
    assert!(are_here());
    // SAFETY: the features the function is compiled for were checked above.
    unsafe { hash_all(text, messages, digests) }
}

/// A message that is being hashed.
struct Running<'t> {
    number: usize,
    /// The blocks to come.
    blocks: &'t [[u8; BLOCK]],
    state: State,
}

/// The eight words, as the instructions want them.
#[derive(Clone, Copy)]
struct State {
    abef: __m128i,
    cdgh: __m128i,
}

#[target_feature(enable = "sha,sse4.1,ssse3")]
fn hash_all(text: &[u8], messages: &[Message], digests: &mut [Hash32]) {
    let mut waiting = messages.iter().enumerate().map(|(number, message)| {
        let (blocks, _) = text[message.start as usize..].as_chunks();
        Running {
            number,
            blocks: &blocks[..message.blocks()],
            state: State::first(),
        }
    });
    let (Some(mut one), mut other) = (waiting.next(), waiting.next()) else {
        return;
    };
    while let Some(two) = &mut other {
        let common = one.blocks.len().min(two.blocks.len());
        let (first, second) = (one.take(common), two.take(common));
        for (first, second) in first.iter().zip(second) {
            [one.state, two.state] = compress([one.state, two.state], [first, second]);
        }
        if two.blocks.is_empty() {
            digests[two.number] = two.state.digest();
            other = waiting.next();
        }
        if one.blocks.is_empty() {
            digests[one.number] = one.state.digest();
            match other.take() {
                Some(left) => (one, other) = (left, waiting.next()),
                None => return,
            }
        }
    }
    for block in one.blocks {
        [one.state] = compress([one.state], [block]);
    }
    digests[one.number] = one.state.digest();
}

impl<'t> Running<'t> {
    /// The next blocks.
    fn take(&mut self, count: usize) -> &'t [[u8; BLOCK]] {
        let (now, later) = self.blocks.split_at(count);
        self.blocks = later;
        now
    }
}

impl State {
    #[target_feature(enable = "sse4.1")]
    fn first() -> State {
        let [a, b, c, d, e, f, g, h] = FIRST.map(|word| word as i32);
        State {
            abef: _mm_set_epi32(a, b, e, f),
            cdgh: _mm_set_epi32(c, d, g, h),
        }
    }

    #[target_feature(enable = "sse4.1")]
    fn digest(self) -> Hash32 {
        let words = [
            _mm_extract_epi32::<3>(self.abef),
            _mm_extract_epi32::<2>(self.abef),
            _mm_extract_epi32::<3>(self.cdgh),
            _mm_extract_epi32::<2>(self.cdgh),
            _mm_extract_epi32::<1>(self.abef),
            _mm_extract_epi32::<0>(self.abef),
            _mm_extract_epi32::<1>(self.cdgh),
            _mm_extract_epi32::<0>(self.cdgh),
        ];
        let mut digest = Hash32::default();
        for (bytes, word) in digest.0.as_chunks_mut().0.iter_mut().zip(words) {
            *bytes = word.to_be_bytes();
        }
        digest
    }
}

/// One block of each of `N` messages.
#[inline]
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn compress<const N: usize>(states: [State; N], blocks: [&[u8; BLOCK]; N]) -> [State; N] {
    let mut words = [[_mm_setzero_si128(); 4]; N];
    for (words, block) in words.iter_mut().zip(blocks) {
        *words = load(block);
    }
    let mut now = states;
    macro_rules! four_rounds {
        ($($group:literal)*) => { $(
            let constants = _mm_set_epi32(
                K[4 * $group + 3] as i32,
                K[4 * $group + 2] as i32,
                K[4 * $group + 1] as i32,
                K[4 * $group] as i32,
            );
            for (state, words) in now.iter_mut().zip(&mut words) {
                if $group >= 4 {
                    extend::<{ $group % 4 }>(words);
                }
                let words = _mm_add_epi32(words[$group % 4], constants);
                state.cdgh = _mm_sha256rnds2_epu32(state.cdgh, state.abef, words);
                let words = _mm_shuffle_epi32::<0b1110>(words);
                state.abef = _mm_sha256rnds2_epu32(state.abef, state.cdgh, words);
            }
        )* };
    }
    four_rounds!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    for (new, old) in now.iter_mut().zip(states) {
        new.abef = _mm_add_epi32(new.abef, old.abef);
        new.cdgh = _mm_add_epi32(new.cdgh, old.cdgh);
    }
    now
}

/// The sixteen words of a block.
#[inline]
#[target_feature(enable = "sse4.1,ssse3")]
fn load(block: &[u8; BLOCK]) -> [__m128i; 4] {
    let big_endian = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    let mut words = [_mm_setzero_si128(); 4];
    for (words, bytes) in words.iter_mut().zip(block.as_chunks::<16>().0) {
        // SAFETY: sixteen bytes are there to be read, and the load asks for no alignment.
        let bytes = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
        *words = _mm_shuffle_epi8(bytes, big_endian);
    }
    words
}

/// Replaces the four oldest of the last sixteen words, at place `OLDEST`, by the next four.
#[inline]
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn extend<const OLDEST: usize>(words: &mut [__m128i; 4]) {
    let [old, after, before, last] = [0, 1, 2, 3].map(|later| words[(OLDEST + later) % 4]);
    let sum = _mm_add_epi32(
        _mm_sha256msg1_epu32(old, after),
        _mm_alignr_epi8::<4>(last, before),
    );
    words[OLDEST] = _mm_sha256msg2_epu32(sum, last);
}
