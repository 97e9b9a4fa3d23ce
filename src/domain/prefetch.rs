//! A hint to the processor that bytes will be read soon.
//!
//! An event is framed, judged and gathered on whatever core is free, so its bytes mostly lie in another core's cache.
//! Whoever works through many events asks for one while it works on another, instead of waiting for each.

// The one unsafe operation is a hint; whether the bytes are there when they are read changes nothing but time.
#![allow(unsafe_code)]

/// How many events ahead bytes are asked for: long enough before they are read, and few enough to stay in the cache.
pub const EVENTS_AHEAD: usize = 2;

/// Asks for bytes without waiting for them. Nothing happens on processors this does not know.
#[inline]
pub fn prefetch(bytes: &[u8]) {
    lines_from(bytes.as_ptr(), bytes.len());
}

/// The same for a value, or for the place of one that will be written.
#[inline]
pub fn prefetch_value<T>(value: &T) {
    lines_from(std::ptr::from_ref(value).cast(), size_of::<T>());
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
fn lines_from(start: *const u8, length: usize) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    /// Bytes the processor fetches at once.
    const LINE: usize = 64;
    for line in (0..length).step_by(LINE) {
        // SAFETY: the instruction reads nothing into the program, writes nothing and never faults, whatever the
        // address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(line).cast()) };
    }
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn lines_from(_start: *const u8, _length: usize) {}

#[cfg(test)]
mod tests {
    use super::{prefetch, prefetch_value};
    use std::mem::MaybeUninit;

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

    #[test]
    fn values_and_places_without_one_stay_as_they_are() {
        let mut values: Vec<[u64; 21]> = Vec::with_capacity(64);
        values.push([7; 21]);
        prefetch_value(&values[0]);
        values
            .spare_capacity_mut()
            .iter()
            .for_each(prefetch_value::<MaybeUninit<_>>);
        prefetch_value(&());
        assert_eq!(values, [[7; 21]]);
    }
}
