//! Sorted sidecars of sealed journal segments: from receipt id and dedupe key to rows.
//!
//! ```text
//! head      magic "WSPRLKUP", version, shard, segment, rows, CRC32C of what follows
//! receipts  rows x (first 16 bytes of the receipt digest, row), sorted
//! keys      rows x (first 16 bytes of the dedupe key, row), sorted
//! ```
//!
//! Numbers are little endian. A sidecar is a projection: a damaged one is made again from its segment.

use crate::checksum::{crc32c, crc32c_append};
use crate::event_bus::embedded_log::disk::{damaged, failed};
use crate::failpoints::{Artefact, Operation, Step, around, writing};
use crate::state_store::embedded::journal_source::{JournalSource, RowSpan};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use wellspring_domain::admission::decision::RowRef;
use wellspring_domain::admission::journal_row::JournalRow;
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::StoreError;
use wellspring_domain::run_paths::RunPaths;

const SIDECAR: Artefact = Artefact::LookupSidecar;
const MAGIC: &[u8; 8] = b"WSPRLKUP";
const VERSION: u32 = 1;
const HEAD: u64 = 8 + 4 + 4 + 4 + 4 + 4;
const ITEM: u64 = 20;
/// Items read at once while a sidecar is checked.
const CHECK_ITEMS: u64 = 8192;

/// The part of an id a sidecar holds.
pub type Id16 = [u8; 16];

/// Which of the two sections is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// By receipt id.
    Receipts,
    /// By dedupe key.
    Keys,
}

/// The first 16 bytes of a receipt id's digest: all of the id, which is 32 hex characters (V13).
pub fn receipt_id16(row: &JournalRow) -> Id16 {
    id16_of(row.decision().as_str(), &row.event_id)
}

/// The receipt id of a decision on an event, as bytes (V13).
pub fn id16_of(decision: &str, event_id: &str) -> Id16 {
    head16(&Hash32::of(format!("{decision}:{event_id}").as_bytes()))
}

/// The first 16 bytes of a digest.
pub fn head16(hash: &Hash32) -> Id16 {
    hash.0[..16]
        .try_into()
        .expect("sixteen of thirty-two bytes")
}

/// Where lookups keep their files.
pub fn lookup_folder(paths: &RunPaths) -> PathBuf {
    PathBuf::from(paths.ig()).join("lookup")
}

/// Makes every missing sidecar of a run's sealed segments.
pub fn make_sidecars(paths: &RunPaths, journal: &dyn JournalSource) -> Result<(), StoreError> {
    for shard in journal.shards()? {
        let mut segments = journal.segments(shard)?;
        segments.pop();
        for segment in segments {
            Sidecar::open_or_make(paths, journal, shard, segment)?;
        }
    }
    Ok(())
}

/// An open, checked sidecar.
pub struct Sidecar {
    file: File,
    path: PathBuf,
    shard: u16,
    segment: u32,
    rows: u64,
}

impl Sidecar {
    /// Opens the sidecar of a sealed segment; makes it first when it is missing or damaged.
    pub fn open_or_make(
        paths: &RunPaths,
        journal: &dyn JournalSource,
        shard: u16,
        segment: u32,
    ) -> Result<Sidecar, StoreError> {
        let folder = lookup_folder(paths).join(format!("shard-{shard:03}"));
        let path = folder.join(format!("segment-{segment:08}.wsl"));
        match Sidecar::open(&path, shard, segment) {
            Ok(Some(sidecar)) => return Ok(sidecar),
            Ok(None) => {}
            Err(error @ StoreError::Damaged { .. }) => {
                tracing::warn!(%error, "lookup sidecar is made again from its journal segment");
            }
            Err(error) => return Err(error),
        }
        fs::create_dir_all(&folder).map_err(failed("create folder", &folder))?;
        make(&path, journal, shard, segment)?;
        Sidecar::open(&path, shard, segment)?.ok_or_else(|| damaged(&path, 0, "sidecar is gone"))
    }

    fn open(path: &Path, shard: u16, segment: u32) -> Result<Option<Sidecar>, StoreError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("open", path)(error)),
        };
        let size = file.metadata().map_err(failed("stat", path))?.len();
        let mut head = [0u8; HEAD as usize];
        if size < HEAD {
            return Err(damaged(path, 0, "file is shorter than its head"));
        }
        file.read_exact_at(&mut head, 0)
            .map_err(failed("read", path))?;
        if &head[..8] != MAGIC {
            return Err(damaged(path, 0, "not a lookup sidecar"));
        }
        let number =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if number(8) != VERSION {
            return Err(StoreError::UnknownVersion {
                key: path.display().to_string(),
                found: number(8),
                known: VERSION,
            });
        }
        let rows = u64::from(number(20));
        let named = (number(12), number(16)) == (u32::from(shard), segment);
        if !named || size != HEAD + 2 * rows * ITEM {
            return Err(damaged(path, 12, "head does not fit the file"));
        }
        let sidecar = Sidecar {
            file,
            path: path.to_owned(),
            shard,
            segment,
            rows,
        };
        match sidecar.checksum()? == number(24) {
            true => Ok(Some(sidecar)),
            false => Err(damaged(path, HEAD, "checksum")),
        }
    }

    fn checksum(&self) -> Result<u32, StoreError> {
        let end = HEAD + 2 * self.rows * ITEM;
        let mut piece = vec![0; (CHECK_ITEMS * ITEM) as usize];
        let (mut at, mut sum) = (HEAD, 0);
        while at < end {
            let length = (end - at).min(piece.len() as u64) as usize;
            self.read(&mut piece[..length], at)?;
            sum = crc32c_append(sum, &piece[..length]);
            at += length as u64;
        }
        Ok(sum)
    }

    /// All rows with this id, in order.
    pub fn rows_of(&self, section: Section, id: &Id16) -> Result<Vec<RowRef>, StoreError> {
        let start = match section {
            Section::Receipts => HEAD,
            Section::Keys => HEAD + self.rows * ITEM,
        };
        let (mut low, mut high) = (0, self.rows);
        while low < high {
            let middle = (low + high) / 2;
            match self.item(start, middle)?.0 < *id {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        let mut found = Vec::new();
        while low < self.rows {
            let (item_id, row) = self.item(start, low)?;
            if item_id != *id {
                break;
            }
            found.push(RowRef {
                shard: self.shard,
                segment: self.segment,
                row,
            });
            low += 1;
        }
        Ok(found)
    }

    fn item(&self, start: u64, number: u64) -> Result<(Id16, u32), StoreError> {
        let mut item = [0u8; ITEM as usize];
        self.read(&mut item, start + number * ITEM)?;
        let (id, row) = item.split_at(16);
        let id = id.try_into().expect("sixteen of twenty bytes");
        Ok((id, u32::from_le_bytes([row[0], row[1], row[2], row[3]])))
    }

    fn read(&self, out: &mut [u8], at: u64) -> Result<(), StoreError> {
        self.file
            .read_exact_at(out, at)
            .map_err(failed("read", &self.path))
    }
}

/// Writes the sidecar of a segment. It takes 40 bytes of memory per row of the segment.
fn make(
    path: &Path,
    journal: &dyn JournalSource,
    shard: u16,
    segment: u32,
) -> Result<(), StoreError> {
    let (mut receipts, mut keys) = (Vec::new(), Vec::new());
    journal.visit_rows(&RowSpan::segment(shard, segment), &mut |row| {
        receipts.push((receipt_id16(row), row.row_ref.row));
        keys.push((head16(&row.dedupe_key), row.row_ref.row));
        Ok(())
    })?;
    receipts.sort_unstable();
    keys.sort_unstable();
    let mut body = Vec::with_capacity(2 * receipts.len() * ITEM as usize);
    for (id, row) in receipts.iter().chain(&keys) {
        body.extend_from_slice(id);
        body.extend_from_slice(&row.to_le_bytes());
    }
    let mut head = Vec::with_capacity(HEAD as usize);
    head.extend_from_slice(MAGIC);
    let numbers = [
        VERSION,
        u32::from(shard),
        segment,
        receipts.len() as u32,
        crc32c(&body),
    ];
    numbers
        .iter()
        .for_each(|number| head.extend_from_slice(&number.to_le_bytes()));
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(&head)?;
        writing(Step(SIDECAR, Operation::Write), &body, |body| {
            file.write_all(body)
        })?;
        around(Step(SIDECAR, Operation::Sync), || file.sync_all())?;
        around(Step(SIDECAR, Operation::Rename), || {
            fs::rename(&temporary, path)
        })
    };
    write().map_err(failed("write", path))
}
