//! Memory for the bus lines of one append, placed like the file they go to.
//!
//! Lines begin in memory as far behind a block boundary as they will in their partition's file. So whole blocks go to
//! the disk from where they were written first: a large append is not copied once more. A wrong place costs that
//! copy and nothing else.

use std::ops::Deref;

/// Boundaries memory and files are placed by: a multiple of the logical blocks of common disks.
pub const BLOCK: usize = 4096;

/// Bus lines, one after the other.
#[derive(Clone, Debug, Default)]
pub struct LineMemory {
    memory: Vec<u8>,
    /// Where the lines begin in it.
    start: usize,
}

impl LineMemory {
    /// No lines yet, in memory to be filled again. They will begin at `first_byte` of their file.
    pub fn within(mut memory: Vec<u8>, first_byte: u64) -> LineMemory {
        let place = (first_byte % BLOCK as u64) as usize;
        memory.clear();
        memory.reserve(BLOCK);
        let base = memory.as_ptr().addr() % BLOCK;
        let start = (BLOCK + place - base) % BLOCK;
        memory.resize(start, 0);
        LineMemory { memory, start }
    }

    /// Makes room for so many more bytes. Lines that move begin as far behind a boundary as they did.
    fn reserve(&mut self, bytes: usize) {
        if self.memory.capacity() - self.memory.len() >= bytes {
            return;
        }
        let lines = self.len() + bytes;
        let room = lines.max(2 * self.memory.capacity()) + BLOCK;
        let first_byte = self.as_ptr().addr() as u64;
        let mut larger = LineMemory::within(Vec::with_capacity(room), first_byte);
        larger.memory.extend_from_slice(self);
        *self = larger;
    }

    /// Adds bytes behind the last ones, given in parts.
    pub fn push(&mut self, parts: &[&[u8]]) {
        self.reserve(parts.iter().map(|part| part.len()).sum());
        for part in parts {
            self.memory.extend_from_slice(part);
        }
    }

    /// The memory, to be filled again.
    pub fn into_memory(self) -> Vec<u8> {
        self.memory
    }
}

impl Deref for LineMemory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..]
    }
}

/// Lines that were made elsewhere, wherever they are.
impl From<Vec<u8>> for LineMemory {
    fn from(memory: Vec<u8>) -> LineMemory {
        LineMemory { memory, start: 0 }
    }
}

impl PartialEq for LineMemory {
    fn eq(&self, other: &LineMemory) -> bool {
        **self == **other
    }
}

impl Eq for LineMemory {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lines_begin_where_their_file_goes_on_however_they_grow_and_whatever_was_there_before(
            first_byte in any::<u64>(),
            before in 0usize..20_000,
            lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..12),
        ) {
            let mut memory = LineMemory::within(vec![7; before], first_byte);
            for line in &lines {
                memory.push(&[line]);
                prop_assert_eq!(memory.as_ptr().addr() % BLOCK, (first_byte % BLOCK as u64) as usize);
            }
            prop_assert_eq!(memory.to_vec(), lines.concat());
            prop_assert!(memory == LineMemory::from(lines.concat()));
        }
    }

    #[test]
    fn memory_that_is_large_enough_is_filled_again_where_it_is() {
        let mut memory = LineMemory::within(Vec::new(), 5);
        memory.push(&[&[1; 100_000]]);
        let room = memory.into_memory();
        let (at, capacity) = (room.as_ptr(), room.capacity());
        let mut again = LineMemory::within(room, 77);
        again.push(&[&[2; 100_000]]);
        let room = again.into_memory();
        assert_eq!((room.as_ptr(), room.capacity()), (at, capacity));
    }
}
