//! How much of a growing file stays in the page cache.
//!
//! A log that only grows fills all memory with pages that nobody reads again, and then each write has to wait
//! for a page to be found, which costs several times what the write itself does. So pages far behind the end are
//! let go of as soon as they are on the disk, and the next writes find them free. Readers close to the end,
//! which is where followers of a live bus are, still read from memory.

use std::ops::Range;

/// Pages are let go of in steps of this: the kernel keeps parts of a large page.
const STEP_BYTES: u64 = 8 << 20;

/// What of one file is in the page cache because it was written.
#[derive(Clone, Copy, Debug)]
pub struct CacheWindow {
    keep: u64,
    cached_from: u64,
}

impl CacheWindow {
    /// A window of `keep` bytes over a file that is written from `end` on.
    pub fn new(keep: u64, end: u64) -> CacheWindow {
        CacheWindow {
            keep,
            cached_from: end - end % STEP_BYTES,
        }
    }

    /// What to let go of now that everything up to `synced` is on the disk.
    pub fn behind(&mut self, synced: u64) -> Option<Range<u64>> {
        let end = synced.saturating_sub(self.keep);
        let end = end - end % STEP_BYTES;
        if end <= self.cached_from {
            return None;
        }
        let behind = self.cached_from..end;
        self.cached_from = end;
        Some(behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn whole_steps_behind_the_window_are_let_go_of_once() {
        let mut window = CacheWindow::new(16 * MIB, 0);
        assert_eq!(window.behind(23 * MIB), None, "less than a step");
        assert_eq!(window.behind(24 * MIB), Some(0..8 * MIB));
        assert_eq!(window.behind(31 * MIB), None);
        assert_eq!(window.behind(50 * MIB), Some(8 * MIB..32 * MIB));
        // What an earlier process wrote is left alone, but for the step it ended in.
        let mut window = CacheWindow::new(0, 13 * MIB);
        assert_eq!(window.behind(17 * MIB), Some(8 * MIB..16 * MIB));
    }

    proptest! {
        /// Whatever the steps: nothing within the window is touched, nothing twice, and never more than a step
        /// stays behind it.
        #[test]
        fn the_window_is_kept_and_nothing_else(
            keep in 0..64 * MIB,
            writes in prop::collection::vec(1..20 * MIB, 1..40),
        ) {
            let mut window = CacheWindow::new(keep, 0);
            let (mut end, mut dropped) = (0, 0);
            for bytes in writes {
                end += bytes;
                if let Some(range) = window.behind(end) {
                    prop_assert_eq!(range.start, dropped);
                    prop_assert!(range.end + keep <= end);
                    dropped = range.end;
                }
                prop_assert!(end - dropped < keep + STEP_BYTES);
            }
        }
    }
}
