//! A hint to the processor that bytes will be read soon.
//!
//! An event is framed, judged and gathered on whatever core is free, so its bytes mostly lie in another core's cache.
//! Whoever works through many events asks for one while it works on another, instead of waiting for each.

// The one unsafe operation is a hint; whether the bytes are there when they are read changes nothing but time.
#![allow(unsafe_code)]

/// How many events ahead bytes are asked for: long enough before they are read, and few enough to stay in the cache.
pub const EVENTS_AHEAD: usize = 2;

/// Bytes the processor fetches at once.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const LINE: usize = 64;

/// Asks for bytes without waiting for them. Nothing happens on processors this does not know.
#[inline]
pub fn prefetch(bytes: &[u8]) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    for line in bytes.chunks(LINE) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the instruction reads nothing into the program, writes nothing and never faults, whatever the
        // address; this one is of a byte of the slice.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = bytes;
}

#[cfg(test)]
mod tests {
    use super::prefetch;

    #[test]
    fn bytes_of_any_length_anywhere_stay_as_they_are() {
        let bytes: Vec<u8> = (0..=255).cycle().take(5000).collect();
        let before = bytes.clone();
        for start in 0..130 {
            for length in [0, 1, 63, 64, 65, 4095, 4800] {
                prefetch(&bytes[start..start + length]);
            }
        }
        prefetch(&[]);
        assert_eq!(bytes, before);
    }
}
