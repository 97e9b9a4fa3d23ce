//! Bytes of an index run file: header, filter, block index, blocks of sorted entries.
//!
//! ```text
//! page 0            header (magic "WSPRIDXR", version, counts, places, checksums), CRC32C
//! filter            lines of 64 bytes; a key's line grows with the key, so a sorted writer streams it
//! block index       the first eight key bytes of each block's first entry, big endian
//! blocks            4096 bytes each: count, CRC32C, entries of 74 bytes sorted by key
//! ```
//!
//! Numbers are little endian except where they are key bytes. The checksum function is passed in,
//! because this package does no I/O and needs no table for it.

use super::decision::{IndexEntry, RowRef};
use crate::ids::Hash32;

/// First bytes of a run file.
pub const MAGIC: &[u8; 8] = b"WSPRIDXR";
/// Version this program writes and reads.
pub const VERSION: u32 = 1;
/// Size of a page: the header has one, each block has one.
pub const PAGE: usize = 4096;
/// Bytes of one entry: key, payload hash, shard, segment, row.
pub const ENTRY: usize = 32 + 32 + 2 + 4 + 4;
/// Bytes before the entries of a block: count, reserved, checksum.
const BLOCK_HEAD: usize = 8;
/// Entries that fit in a block.
pub const BLOCK_ENTRIES: usize = (PAGE - BLOCK_HEAD) / ENTRY;
/// Bytes of one filter line.
pub const FILTER_LINE: usize = 64;
/// Filter bits per key of runs of at most so many entries. Each absent key that passes costs a read of a block, so there
/// are many bits as long as filters are small: there are a few runs of each size at most.
const FILTER_BITS_PER_KEY: [(u64, u64); 3] = [(4_000_000, 20), (16_000_000, 16), (u64::MAX, 10)];
/// Bits set per key.
const FILTER_PROBES: u32 = 6;

/// An entry of the index with its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Dedupe key.
    pub key: Hash32,
    /// What is known of it.
    pub entry: IndexEntry,
}

/// What the first page of a run file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunHeader {
    /// Entries in all blocks.
    pub entries: u64,
    /// Blocks.
    pub blocks: u64,
    /// Filter lines.
    pub filter_lines: u64,
    /// Where the filter starts.
    pub filter_at: u64,
    /// Where the block index starts.
    pub index_at: u64,
    /// Where the first block starts.
    pub blocks_at: u64,
    /// Checksum of the filter.
    pub filter_crc: u32,
    /// Checksum of the block index.
    pub index_crc: u32,
}

/// Why a page is not what a run file holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// Not an index run.
    #[error("not an index run file")]
    Magic,
    /// Written by another version of the program.
    #[error("version {0}")]
    Version(u32),
    /// The checksum or a count is wrong.
    #[error("{0}")]
    Damaged(&'static str),
}

impl RunHeader {
    /// The places of the sections of a run with at most `entries_max` entries; counts still zero.
    pub fn reserve(entries_max: u64) -> RunHeader {
        let filter_lines = filter_lines(entries_max);
        let blocks_max = entries_max.div_ceil(BLOCK_ENTRIES as u64);
        let filter_at = PAGE as u64;
        let index_at = page_up(filter_at + filter_lines * FILTER_LINE as u64);
        RunHeader {
            entries: 0,
            blocks: 0,
            filter_lines,
            filter_at,
            index_at,
            blocks_at: page_up(index_at + blocks_max * 8),
            filter_crc: 0,
            index_crc: 0,
        }
    }

    /// The header page.
    pub fn encode(&self, crc32c: impl Fn(&[u8]) -> u32) -> Vec<u8> {
        let mut page = Vec::with_capacity(PAGE);
        page.extend_from_slice(MAGIC);
        page.extend_from_slice(&VERSION.to_le_bytes());
        for number in self.numbers() {
            page.extend_from_slice(&number.to_le_bytes());
        }
        page.extend_from_slice(&self.filter_crc.to_le_bytes());
        page.extend_from_slice(&self.index_crc.to_le_bytes());
        let crc = crc32c(&page);
        page.extend_from_slice(&crc.to_le_bytes());
        page.resize(PAGE, 0);
        page
    }

    fn numbers(&self) -> [u64; 6] {
        [
            self.entries,
            self.blocks,
            self.filter_lines,
            self.filter_at,
            self.index_at,
            self.blocks_at,
        ]
    }

    /// Reads a header page and checks it against the size of its file.
    pub fn decode(
        page: &[u8],
        file_bytes: u64,
        crc32c: impl Fn(&[u8]) -> u32,
    ) -> Result<RunHeader, PageError> {
        const BODY: usize = 12 + 6 * 8 + 8;
        if page.len() < PAGE || &page[..8] != MAGIC {
            return Err(PageError::Magic);
        }
        let version = u32_at(page, 8);
        if version != VERSION {
            return Err(PageError::Version(version));
        }
        if crc32c(&page[..BODY]) != u32_at(page, BODY) {
            return Err(PageError::Damaged("header checksum"));
        }
        let header = RunHeader {
            entries: u64_at(page, 12),
            blocks: u64_at(page, 20),
            filter_lines: u64_at(page, 28),
            filter_at: u64_at(page, 36),
            index_at: u64_at(page, 44),
            blocks_at: u64_at(page, 52),
            filter_crc: u32_at(page, 60),
            index_crc: u32_at(page, 64),
        };
        let blocks_bytes = header.blocks.checked_mul(PAGE as u64);
        let end = blocks_bytes.and_then(|bytes| header.blocks_at.checked_add(bytes));
        match end == Some(file_bytes) {
            true => Ok(header),
            false => Err(PageError::Damaged("file size")),
        }
    }
}

/// Filter lines for this many keys.
pub fn filter_lines(entries: u64) -> u64 {
    let mut sizes = FILTER_BITS_PER_KEY.iter();
    let bits_per_key = sizes.find(|(most, _)| entries <= *most);
    (entries * bits_per_key.map_or(0, |(_, bits)| *bits))
        .div_ceil(FILTER_LINE as u64 * 8)
        .max(1)
}

/// The filter line of a key: grows with the key, so sorted keys fill lines in order.
pub fn filter_line_of(key: &Hash32, lines: u64) -> u64 {
    ((u128::from(key.leading_u64()) * u128::from(lines)) >> 64) as u64
}

/// Adds a key to its line.
pub fn filter_add(line: &mut [u8; FILTER_LINE], key: &Hash32) {
    for bit in probes(key) {
        line[bit / 8] |= 1 << (bit % 8);
    }
}

/// False when the key was certainly not added to this line.
pub fn filter_may_hold(line: &[u8; FILTER_LINE], key: &Hash32) -> bool {
    // All bits, then one branch that is nearly always the same: a branch for each bit is a guess in vain, and the
    // lines of the next keys are not fetched while it waits for this one.
    probes(key).fold(true, |all, bit| {
        all & (line[bit / 8] & (1 << (bit % 8)) != 0)
    })
}

/// Bit numbers within the line, from key bytes that neither choose the line nor the shard.
fn probes(key: &Hash32) -> impl Iterator<Item = usize> {
    let bits = u64::from_le_bytes(key.0[16..24].try_into().expect("eight of thirty-two bytes"));
    (0..FILTER_PROBES).map(move |probe| (bits >> (probe * 9)) as usize & (FILTER_LINE * 8 - 1))
}

/// Writes an entry at its place in a page: the first is number 0, and they are sorted.
///
/// Panics when the page has no such place: it holds [`BLOCK_ENTRIES`].
pub fn put_entry(page: &mut [u8; PAGE], number: usize, slot: &Slot) {
    let at = BLOCK_HEAD + number * ENTRY;
    let entry = &mut page[at..at + ENTRY];
    entry[..32].copy_from_slice(&slot.key.0);
    entry[32..64].copy_from_slice(&slot.entry.payload_hash.0);
    entry[64..66].copy_from_slice(&slot.entry.row.shard.to_le_bytes());
    entry[66..70].copy_from_slice(&slot.entry.row.segment.to_le_bytes());
    entry[70..].copy_from_slice(&slot.entry.row.row.to_le_bytes());
}

/// Completes a page with so many entries, whatever it held before.
pub fn end_block(page: &mut [u8; PAGE], entries: usize, crc32c: impl Fn(&[u8]) -> u32) {
    page[BLOCK_HEAD + entries * ENTRY..].fill(0);
    page[..BLOCK_HEAD].fill(0);
    page[..2].copy_from_slice(&(entries as u16).to_le_bytes());
    let crc = block_crc(page, crc32c);
    page[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// The entries' bytes of a page, checked.
pub fn decode_block(
    page: &[u8],
    crc32c: impl Fn(&[u8]) -> u32,
) -> Result<BlockView<'_>, PageError> {
    if page.len() != PAGE {
        return Err(PageError::Damaged("block size"));
    }
    let count = usize::from(u16::from_le_bytes([page[0], page[1]]));
    if count > BLOCK_ENTRIES || count == 0 {
        return Err(PageError::Damaged("block head"));
    }
    if block_crc(page, crc32c) != u32_at(page, 4) {
        return Err(PageError::Damaged("block checksum"));
    }
    Ok(BlockView {
        entries: &page[BLOCK_HEAD..BLOCK_HEAD + count * ENTRY],
    })
}

/// Covers the count and everything after the checksum itself.
fn block_crc(page: &[u8], crc32c: impl Fn(&[u8]) -> u32) -> u32 {
    crc32c(&page[BLOCK_HEAD..]) ^ u32::from(u16::from_le_bytes([page[0], page[1]]))
}

/// The entries of one checked block.
#[derive(Clone, Copy, Debug)]
pub struct BlockView<'a> {
    entries: &'a [u8],
}

impl BlockView<'_> {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len() / ENTRY
    }

    /// A block is never empty.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry at `index`.
    pub fn slot(&self, index: usize) -> Slot {
        read_entry(&self.entries[index * ENTRY..(index + 1) * ENTRY])
    }

    /// The entry of `key`.
    pub fn find(&self, key: &Hash32) -> Option<IndexEntry> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = (low + high) / 2;
            let at = middle * ENTRY;
            match self.entries[at..at + 32].cmp(&key.0) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(self.slot(middle).entry),
            }
        }
        None
    }
}

fn read_entry(bytes: &[u8]) -> Slot {
    let hash = |at: usize| Hash32(bytes[at..at + 32].try_into().expect("thirty-two bytes"));
    Slot {
        key: hash(0),
        entry: IndexEntry {
            payload_hash: hash(32),
            row: RowRef {
                shard: u16::from_le_bytes([bytes[64], bytes[65]]),
                segment: u32_at(bytes, 66),
                row: u32_at(bytes, 70),
            },
        },
    }
}

fn page_up(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE as u64) * PAGE as u64
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> u32 {
        bytes
            .iter()
            .fold(7u32, |sum, byte| sum.rotate_left(5) ^ u32::from(*byte))
    }

    fn slot(number: u32) -> Slot {
        Slot {
            key: Hash32::of(&number.to_be_bytes()),
            entry: IndexEntry {
                payload_hash: Hash32::of(b"p"),
                row: RowRef {
                    shard: 3,
                    segment: 70_000,
                    row: number,
                },
            },
        }
    }

    /// A page of these entries, in memory that held something else.
    fn block_of(slots: &[Slot]) -> [u8; PAGE] {
        let mut page = [0xa5; PAGE];
        for (number, slot) in slots.iter().enumerate() {
            put_entry(&mut page, number, slot);
        }
        end_block(&mut page, slots.len(), sum);
        page
    }

    #[test]
    fn what_a_page_held_before_is_not_in_it() {
        let page = block_of(&[slot(1)]);
        assert!(page[BLOCK_HEAD + ENTRY..].iter().all(|byte| *byte == 0));
        assert_eq!(page[2..4], [0, 0]);
    }

    #[test]
    fn a_block_gives_back_its_entries_and_nothing_else() {
        let mut slots: Vec<Slot> = (0..BLOCK_ENTRIES as u32).map(slot).collect();
        slots.sort_by_key(|slot| slot.key);
        let page = block_of(&slots);
        let block = decode_block(&page, sum).unwrap();
        assert_eq!(block.len(), BLOCK_ENTRIES);
        for (index, slot) in slots.iter().enumerate() {
            assert_eq!(block.slot(index), *slot);
            assert_eq!(block.find(&slot.key), Some(slot.entry));
        }
        assert_eq!(block.find(&Hash32::of(b"absent")), None);
    }

    #[test]
    fn a_flipped_bit_anywhere_in_a_block_is_found() {
        let page = block_of(&[slot(1)]);
        for at in [0, 5, 8, 40, 8 + ENTRY - 1] {
            let mut broken = page;
            broken[at] ^= 1;
            assert!(decode_block(&broken, sum).is_err(), "byte {at}");
        }
    }

    /// How many of 20,000 absent keys pass a filter of so many lines with as many keys.
    fn wrongly_held(lines: u64) -> usize {
        let mut filter = vec![[0u8; FILTER_LINE]; lines as usize];
        for number in 0..20_000u32 {
            let key = slot(number).key;
            filter_add(&mut filter[filter_line_of(&key, lines) as usize], &key);
        }
        let held = |number: u32| {
            let key = slot(number).key;
            filter_may_hold(&filter[filter_line_of(&key, lines) as usize], &key)
        };
        assert!((0..20_000).all(held));
        (20_000..40_000).filter(|number| held(*number)).count()
    }

    #[test]
    fn the_filter_knows_all_its_keys_and_few_others_the_fewer_the_smaller_a_run_is() {
        for (entries, most) in [(20_000, 30), (4_000_001, 60), (16_000_001, 600)] {
            let lines = 20_000 * filter_lines(entries) / entries;
            let passed = wrongly_held(lines);
            assert!(passed < most, "{passed} of 20000, run of {entries}");
        }
    }

    #[test]
    fn a_header_reads_back_and_names_what_is_wrong() {
        let header = RunHeader {
            entries: 60,
            blocks: 2,
            filter_crc: 9,
            index_crc: 8,
            ..RunHeader::reserve(60)
        };
        let size = header.blocks_at + 2 * PAGE as u64;
        let page = header.encode(sum);
        assert_eq!(RunHeader::decode(&page, size, sum), Ok(header));
        assert_eq!(
            RunHeader::decode(&page, size - 1, sum),
            Err(PageError::Damaged("file size"))
        );
        let mut newer = page.clone();
        newer[8] = 2;
        assert_eq!(
            RunHeader::decode(&newer, size, sum),
            Err(PageError::Version(2))
        );
        let mut broken = page.clone();
        broken[13] ^= 1;
        assert_eq!(
            RunHeader::decode(&broken, size, sum),
            Err(PageError::Damaged("header checksum"))
        );
        assert_eq!(
            RunHeader::decode(&page[1..], size, sum),
            Err(PageError::Magic)
        );
    }
}
