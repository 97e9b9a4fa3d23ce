//! SHA-256 in the lanes of AVX2 or AVX-512 registers: one message per lane, so no lane waits for another.
//!
//! Used only where the processor has no SHA instructions (they are faster still, [`super::pairs`]). A lane whose message has
//! ended takes the next one; lanes without work hash what is left in them and are not read.

// Vector instructions have to be checked for at run time; the compiler cannot know. Both unsafe operations
// are calls whose condition is the checked feature, and loads and stores of arrays of exactly one register.
#![allow(unsafe_code)]

use super::constants::{FIRST, K};
use super::{BLOCK, Message};
use crate::ids::Hash32;
use std::arch::x86_64::*;

/// How many messages are hashed side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    Eight,
    Sixteen,
}

impl Width {
    /// Every width this processor can run.
    pub(super) fn all_here() -> Vec<Width> {
        let eight = is_x86_feature_detected!("avx2").then_some(Width::Eight);
        let sixteen = is_x86_feature_detected!("avx512f").then_some(Width::Sixteen);
        eight.into_iter().chain(sixteen).collect()
    }
}

/// The digests of padded messages.
pub(super) fn hash(width: Width, text: &[u8], messages: &[Message], digests: &mut [Hash32]) {
    match width {
        Width::Eight => assert!(is_x86_feature_detected!("avx2")),
        Width::Sixteen => assert!(is_x86_feature_detected!("avx512f")),
    }
    // SAFETY: the features the functions are compiled for were checked above.
    unsafe {
        match width {
            Width::Eight => hash_eight(text, messages, digests),
            Width::Sixteen => hash_sixteen(text, messages, digests),
        }
    }
}

#[target_feature(enable = "avx2")]
fn hash_eight(text: &[u8], messages: &[Message], digests: &mut [Hash32]) {
    run::<__m256i, 8>(text, messages, digests);
}

#[target_feature(enable = "avx512f")]
fn hash_sixteen(text: &[u8], messages: &[Message], digests: &mut [Hash32]) {
    run::<__m512i, 16>(text, messages, digests);
}

/// A register of 32-bit lanes. Methods may only run where the register's feature is there: they are inlined
/// into the two functions above.
trait Register<const L: usize>: Copy {
    fn load(lanes: &[u32; L]) -> Self;
    fn store(self, lanes: &mut [u32; L]);
    fn splat(word: u32) -> Self;
    fn add(self, other: Self) -> Self;
    fn xor3(self, second: Self, third: Self) -> Self;
    fn rotate<const RIGHT: i32, const LEFT: i32>(self) -> Self;
    fn shift<const RIGHT: u32>(self) -> Self;
    /// Bits of `yes` where this has ones, of `no` elsewhere.
    fn choose(self, yes: Self, no: Self) -> Self;
    fn majority(self, second: Self, third: Self) -> Self;
}

/// One lane: the message it hashes, and how many of its blocks are left.
#[derive(Clone, Copy, Default)]
struct Lane {
    message: usize,
    at: usize,
    left: usize,
}

#[inline(always)]
fn run<R: Register<L>, const L: usize>(text: &[u8], messages: &[Message], digests: &mut [Hash32]) {
    let mut state = [[0u32; L]; 8];
    let mut lanes = [Lane::default(); L];
    let mut next = 0;
    let mut working = 0;
    let mut begin = |lane: &mut Lane, state: &mut [[u32; L]; 8], number: usize| -> usize {
        let Some(message) = messages.get(next) else {
            return 0;
        };
        *lane = Lane {
            message: next,
            at: message.start as usize,
            left: message.blocks(),
        };
        for (words, first) in state.iter_mut().zip(FIRST) {
            words[number] = first;
        }
        next += 1;
        1
    };
    for (number, lane) in lanes.iter_mut().enumerate() {
        working += begin(lane, &mut state, number);
    }
    let mut words = [[0u32; L]; 16];
    while working > 0 {
        for (number, lane) in lanes.iter_mut().enumerate() {
            if lane.left > 0 {
                let block: &[u8; BLOCK] = text[lane.at..].first_chunk().expect("whole blocks");
                for (slot, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
                    slot[number] = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                }
                lane.at += BLOCK;
            }
        }
        compress::<R, L>(&mut state, &words);
        for (number, lane) in lanes.iter_mut().enumerate() {
            if lane.left == 0 {
                continue;
            }
            lane.left -= 1;
            if lane.left == 0 {
                let slots = digests[lane.message].0.chunks_exact_mut(4);
                for (slot, words) in slots.zip(&state) {
                    slot.copy_from_slice(&words[number].to_be_bytes());
                }
                working += begin(lane, &mut state, number);
                working -= 1;
            }
        }
    }
}

#[inline(always)]
fn compress<R: Register<L>, const L: usize>(state: &mut [[u32; L]; 8], words: &[[u32; L]; 16]) {
    let (mut w, mut s) = ([R::splat(0); 16], [R::splat(0); 8]);
    for (register, lanes) in w.iter_mut().zip(words) {
        *register = R::load(lanes);
    }
    for (register, lanes) in s.iter_mut().zip(&*state) {
        *register = R::load(lanes);
    }
    for sixteen in 0..4 {
        macro_rules! rounds {
            ($($round:literal)*) => { $(
                if sixteen > 0 {
                    let (near, far) = (w[($round + 1) & 15], w[($round + 14) & 15]);
                    let low = near.rotate::<7, 25>().xor3(near.rotate::<18, 14>(), near.shift::<3>());
                    let high = far.rotate::<17, 15>().xor3(far.rotate::<19, 13>(), far.shift::<10>());
                    w[$round] = w[$round].add(low).add(w[($round + 9) & 15]).add(high);
                }
                round(&mut s, $round, w[$round].add(R::splat(K[sixteen * 16 + $round])));
            )* };
        }
        rounds!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    }
    for (old, new) in state.iter_mut().zip(s) {
        R::load(old).add(new).store(old);
    }
}

/// One round. Instead of moving eight words along, the names move over the array.
#[inline(always)]
fn round<R: Register<L>, const L: usize>(s: &mut [R; 8], number: usize, word: R) {
    let at = |name: usize| (name + 16 - number) & 7;
    let (a, b, c, d) = (s[at(0)], s[at(1)], s[at(2)], s[at(3)]);
    let (e, f, g, h) = (s[at(4)], s[at(5)], s[at(6)], s[at(7)]);
    let mixed = e
        .rotate::<6, 26>()
        .xor3(e.rotate::<11, 21>(), e.rotate::<25, 7>());
    let first = h.add(mixed).add(e.choose(f, g)).add(word);
    let mixed = a
        .rotate::<2, 30>()
        .xor3(a.rotate::<13, 19>(), a.rotate::<22, 10>());
    s[at(3)] = d.add(first);
    s[at(7)] = first.add(mixed).add(a.majority(b, c));
}

// SAFETY of both: the methods are inlined into functions that have the register's feature; loads and stores
// have no alignment to keep and are of arrays as long as the register.
impl Register<8> for __m256i {
    #[inline(always)]
    fn load(lanes: &[u32; 8]) -> Self {
        unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) }
    }
    #[inline(always)]
    fn store(self, lanes: &mut [u32; 8]) {
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), self) }
    }
    #[inline(always)]
    fn splat(word: u32) -> Self {
        unsafe { _mm256_set1_epi32(word as i32) }
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        unsafe { _mm256_add_epi32(self, other) }
    }
    #[inline(always)]
    fn xor3(self, second: Self, third: Self) -> Self {
        unsafe { _mm256_xor_si256(self, _mm256_xor_si256(second, third)) }
    }
    #[inline(always)]
    fn rotate<const RIGHT: i32, const LEFT: i32>(self) -> Self {
        unsafe {
            _mm256_or_si256(
                _mm256_srli_epi32::<RIGHT>(self),
                _mm256_slli_epi32::<LEFT>(self),
            )
        }
    }
    #[inline(always)]
    fn shift<const RIGHT: u32>(self) -> Self {
        unsafe { _mm256_srl_epi32(self, _mm_cvtsi32_si128(RIGHT as i32)) }
    }
    #[inline(always)]
    fn choose(self, yes: Self, no: Self) -> Self {
        unsafe { _mm256_xor_si256(no, _mm256_and_si256(self, _mm256_xor_si256(yes, no))) }
    }
    #[inline(always)]
    fn majority(self, second: Self, third: Self) -> Self {
        unsafe {
            let either = _mm256_or_si256(self, second);
            _mm256_or_si256(
                _mm256_and_si256(self, second),
                _mm256_and_si256(third, either),
            )
        }
    }
}

impl Register<16> for __m512i {
    #[inline(always)]
    fn load(lanes: &[u32; 16]) -> Self {
        unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) }
    }
    #[inline(always)]
    fn store(self, lanes: &mut [u32; 16]) {
        unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), self) }
    }
    #[inline(always)]
    fn splat(word: u32) -> Self {
        unsafe { _mm512_set1_epi32(word as i32) }
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        unsafe { _mm512_add_epi32(self, other) }
    }
    #[inline(always)]
    fn xor3(self, second: Self, third: Self) -> Self {
        unsafe { _mm512_ternarylogic_epi32::<0x96>(self, second, third) }
    }
    #[inline(always)]
    fn rotate<const RIGHT: i32, const LEFT: i32>(self) -> Self {
        unsafe { _mm512_ror_epi32::<RIGHT>(self) }
    }
    #[inline(always)]
    fn shift<const RIGHT: u32>(self) -> Self {
        unsafe { _mm512_srli_epi32::<RIGHT>(self) }
    }
    #[inline(always)]
    fn choose(self, yes: Self, no: Self) -> Self {
        unsafe { _mm512_ternarylogic_epi32::<0xCA>(self, yes, no) }
    }
    #[inline(always)]
    fn majority(self, second: Self, third: Self) -> Self {
        unsafe { _mm512_ternarylogic_epi32::<0xE8>(self, second, third) }
    }
}
