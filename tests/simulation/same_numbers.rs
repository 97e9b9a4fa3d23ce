//! Randomness nobody asked for, taken away.
//!
//! Hash maps of the standard library and the wake-up order of `tokio`'s watch channels draw their seeds from
//! the operating system, in this process and in no other way than through `getrandom`. This definition of it
//! stands before the C library's, so that two processes which do the same draw the same.

use std::sync::atomic::{AtomicU64, Ordering};

static DRAWN: AtomicU64 = AtomicU64::new(0);

/// Fills `buffer` with numbers that depend only on how often it was called.
///
/// The caller passes a buffer of `length` bytes that it may write, as `getrandom(2)` demands; the standard
/// library and the crate `getrandom` are its only callers here, and both do.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    let mut state = DRAWN.fetch_add(1, Ordering::Relaxed);
    for at in 0..length {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        // Sound: `at` is below `length`, and the caller owns that many bytes behind `buffer`.
        unsafe { buffer.add(at).write((state >> 33) as u8) };
    }
    length as isize
}

/// How often a seed was drawn. A test that it is not zero proves that the definition above is in force.
pub fn drawn() -> u64 {
    DRAWN.load(Ordering::Relaxed)
}
