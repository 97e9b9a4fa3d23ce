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
/// Fewest and most filter bits per key. Each absent key that passes a filter costs a read of a block, so there are as
/// many bits as memory allows.
const FILTER_BITS_PER_KEY: std::ops::RangeInclusive<u64> = 10..=20;
/// A filter may take this part of the memory that is free, because others will come.
const FILTER_PART_OF_FREE: u64 = 4;
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
    /// The places of the sections of a run with at most `entries_max` entries and so many filter lines; counts still
    /// zero.
    pub fn reserve(entries_max: u64, filter_lines: u64) -> RunHeader {
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

/// Filter lines for this many keys when so many bytes of memory are free for filters.
pub fn filter_lines_within(entries: u64, free_bytes: u64) -> u64 {
    let bits_per_key = free_bytes / FILTER_PART_OF_FREE * 8 / entries.max(1);
    filter_lines(
        entries,
        bits_per_key.clamp(*FILTER_BITS_PER_KEY.start(), *FILTER_BITS_PER_KEY.end()),
    )
}

/// Filter lines for this many keys of so many bits each.
pub fn filter_lines(entries: u64, bits_per_key: u64) -> u64 {
    (entries * bits_per_key)
        .div_ceil(FILTER_LINE as u64 * 8)
        .max(1)
}

/// The filter line of a key: grows with the key, so sorted keys fill lines in order.
pub fn filter_line_of(key: &Hash32, lines: u64) -> u64 {
    ((u128::from(key.leading_u64()) * u128::from(lines)) >> 64) as u64
}

/// Adds a key to its line.
pub fn filter_add(line: &mut [u8; FILTER_LINE], key: &Hash32) {
    for bit in filter_probes(key) {
        line[bit / 8] |= 1 << (bit % 8);
    }
}

/// False when the key was certainly not added to this line.
pub fn filter_may_hold(line: &[u8; FILTER_LINE], key: &Hash32) -> bool {
    // All bits, then one branch that is nearly always the same: a branch for each bit is a guess in vain, and the
    // lines of the next keys are not fetched while it waits for this one.
    filter_probes(key).fold(true, |all, bit| {
        all & (line[bit / 8] & (1 << (bit % 8)) != 0)
    })
}

/// Bit numbers within the line, from key bytes that neither choose the line nor the shard.
pub fn filter_probes(key: &Hash32) -> impl Iterator<Item = usize> {
    let bits = u64::from_le_bytes(key.0[16..24].try_into().expect("eight of thirty-two bytes"));
    (0..FILTER_PROBES).map(move |probe| (bits >> (probe * 9)) as usize & (FILTER_LINE * 8 - 1))
}

/// The bytes of an entry as they lie in a block.
pub type EntryBytes = [u8; ENTRY];

/// The key of an entry.
pub fn key_of(entry: &EntryBytes) -> &[u8; 32] {
    entry
        .first_chunk()
        .expect("an entry begins with thirty-two bytes of key")
}

/// Writes an entry at its place in a page: the first is number 0, and they are sorted.
///
/// Panics when the page has no such place: it holds [`BLOCK_ENTRIES`].
pub fn put_entry(page: &mut [u8; PAGE], number: usize, entry: &EntryBytes) {
    let at = BLOCK_HEAD + number * ENTRY;
    page[at..at + ENTRY].copy_from_slice(entry);
}

/// The entry at a place of a page that is known to hold it.
pub fn entry_at(page: &[u8], number: usize) -> &EntryBytes {
    &places_of(page)[number]
}

/// Every place of a page, filled or not.
fn places_of(page: &[u8]) -> &[EntryBytes] {
    page[BLOCK_HEAD..].as_chunks().0
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
        entries: &places_of(page)[..count],
    })
}

/// Covers the count and everything after the checksum itself.
fn block_crc(page: &[u8], crc32c: impl Fn(&[u8]) -> u32) -> u32 {
    crc32c(&page[BLOCK_HEAD..]) ^ u32::from(u16::from_le_bytes([page[0], page[1]]))
}

/// The entries of one checked block.
#[derive(Clone, Copy, Debug)]
pub struct BlockView<'a> {
    entries: &'a [EntryBytes],
}

impl<'a> BlockView<'a> {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// A block is never empty.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The bytes of the entry at `index`.
    pub fn entry(&self, index: usize) -> &'a EntryBytes {
        &self.entries[index]
    }

    /// The entry at `index`.
    pub fn slot(&self, index: usize) -> Slot {
        Slot::from_bytes(self.entry(index))
    }

    /// The entry of `key`.
    pub fn find(&self, key: &Hash32) -> Option<IndexEntry> {
        let place = self
            .entries
            .binary_search_by(|entry| key_of(entry).cmp(&key.0));
        place.ok().map(|index| self.slot(index).entry)
    }
}

impl Slot {
    /// Its bytes in a block.
    pub fn to_bytes(&self) -> EntryBytes {
        let mut bytes = [0; ENTRY];
        bytes[..32].copy_from_slice(&self.key.0);
        bytes[32..64].copy_from_slice(&self.entry.payload_hash.0);
        bytes[64..66].copy_from_slice(&self.entry.row.shard.to_le_bytes());
        bytes[66..70].copy_from_slice(&self.entry.row.segment.to_le_bytes());
        bytes[70..].copy_from_slice(&self.entry.row.row.to_le_bytes());
        bytes
    }

    /// The slot of these bytes.
    pub fn from_bytes(bytes: &EntryBytes) -> Slot {
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
            put_entry(&mut page, number, &slot.to_bytes());
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
    fn the_filter_knows_all_its_keys_and_few_others_the_fewer_the_more_memory_is_free() {
        for (free_bytes, most) in [(1 << 30, 30), (160_000, 80), (0, 600)] {
            let lines = filter_lines_within(20_000, free_bytes);
            let passed = wrongly_held(lines);
            assert!(passed < most, "{passed} of 20000, {lines} lines");
        }
    }

    #[test]
    fn a_filter_has_ten_to_twenty_bits_per_key_and_a_quarter_of_what_is_free() {
        let bytes = |free| filter_lines_within(1 << 20, free) * FILTER_LINE as u64;
        assert_eq!(bytes(0), 10 << 17);
        assert_eq!(bytes(1 << 40), 20 << 17);
        assert_eq!(bytes(8 << 20), 2 << 20);
        assert_eq!(filter_lines_within(0, 1 << 20), 1);
    }

    #[test]
    fn a_header_reads_back_and_names_what_is_wrong() {
        let header = RunHeader {
            entries: 60,
            blocks: 2,
            filter_crc: 9,
            index_crc: 8,
            ..RunHeader::reserve(60, 2)
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
