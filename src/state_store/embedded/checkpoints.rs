//! Stream checkpoints as files (contract 6.7).
//!
//! `<root>/<pack_key>/output_id=<id>/cursor.json` is the cursor (SJ, replaced as a whole), `cursor.jsonl`
//! beside it the log of all saves. The cursor's bytes are on the disk before it is renamed into place,
//! so it is never torn; a rename lost in a power cut leaves the cursor before it, which only means that
//! the gate sees some events again.

use crate::checksum::crc32c;
use crate::object_store::local_files::ends_in_torn_line;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::failpoints::{Artefact, Operation, Step, around, writing};
use serde_json::Value;
use wellspring_domain::canonical_json::to_sj;
use wellspring_domain::ports::{CheckpointStore, Cursor, StoreError};
use wellspring_domain::time_text::Micros;

const CURSOR: Artefact = Artefact::Checkpoint;
/// The member that holds the checksum of all others.
const CHECKSUM: &str = "checksum";
/// Members only this program writes.
const OWN_FIELDS: [&str; 2] = ["stream_view_id", "part_name"];

/// A folder of checkpoints.
#[derive(Clone, Debug)]
pub struct FileCheckpoints {
    root: PathBuf,
}

impl FileCheckpoints {
    /// Checkpoints below `root`; folders are made by the first save.
    pub fn new(root: impl Into<PathBuf>) -> FileCheckpoints {
        FileCheckpoints { root: root.into() }
    }

    /// The file of a cursor.
    pub fn cursor_path(&self, pack_key: &str, output_id: &str) -> PathBuf {
        self.folder(pack_key, output_id).join("cursor.json")
    }

    fn folder(&self, pack_key: &str, output_id: &str) -> PathBuf {
        self.root
            .join(pack_key)
            .join(format!("output_id={}", output_id.replace('/', "_")))
    }
}

impl CheckpointStore for FileCheckpoints {
    fn load(&self, pack_key: &str, output_id: &str) -> Result<Option<Cursor>, StoreError> {
        let path = self.cursor_path(pack_key, output_id);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unavailable("read", &path, &error)),
        };
        let cursor = read_cursor(&bytes).map_err(|cause| StoreError::Damaged {
            key: path.display().to_string(),
            offset: 0,
            cause: format!("not a cursor: {cause}"),
        })?;
        Ok(Some(cursor))
    }

    fn save(&self, cursor: &Cursor, updated_at: Micros) -> Result<(), StoreError> {
        let folder = self.folder(&cursor.pack_key, &cursor.output_id);
        let text = cursor_text(cursor, updated_at);
        replace(&folder, &text).map_err(|error| unavailable("save", &folder, &error))?;
        append(&folder, &text).map_err(|error| unavailable("append", &folder, &error))
    }
}

fn cursor_text(cursor: &Cursor, updated_at: Micros) -> String {
    let mut record = serde_json::to_value(cursor).expect("a cursor holds texts and numbers only");
    record["updated_at_utc"] = Value::String(updated_at.format_off());
    record[CHECKSUM] = Value::String(checksum_of(&record));
    to_sj(&record).expect("a JSON value has a canonical form")
}

/// CRC32C of the record without its checksum. One wrong digit would skip or repeat rows in silence.
fn checksum_of(record: &Value) -> String {
    let text = to_sj(record).expect("a JSON value has a canonical form");
    format!("{:08x}", crc32c(text.as_bytes()))
}

/// A cursor of ours must match its checksum; one of another program has none, and none of our fields.
fn read_cursor(bytes: &[u8]) -> Result<Cursor, String> {
    let mut record: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let stated = record
        .as_object_mut()
        .and_then(|own| own.shift_remove(CHECKSUM));
    let is_ours = stated.is_some() || OWN_FIELDS.iter().any(|name| record.get(name).is_some());
    if is_ours && stated != Some(Value::String(checksum_of(&record))) {
        return Err("the checksum does not match".to_owned());
    }
    serde_json::from_value(record).map_err(|error| error.to_string())
}

fn replace(folder: &Path, text: &str) -> std::io::Result<()> {
    let (temporary, target) = (folder.join("cursor.tmp"), folder.join("cursor.json"));
    let mut file = match File::create(&temporary) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            fs::create_dir_all(folder)?;
            File::create(&temporary)?
        }
        created => created?,
    };
    let text = text.as_bytes();
    writing(Step(CURSOR, Operation::Write), text, |text| {
        file.write_all(text)
    })?;
    around(Step(CURSOR, Operation::Sync), || file.sync_data())?;
    around(Step(CURSOR, Operation::Rename), || {
        fs::rename(temporary, target)
    })
}

/// One write a line, so that a line is never torn by another; half a line a crash left is ended first.
fn append(folder: &Path, text: &str) -> std::io::Result<()> {
    let mut log = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(folder.join("cursor.jsonl"))?;
    let text = match ends_in_torn_line(&mut log)? {
        true => format!("\n{text}"),
        false => text.to_owned(),
    };
    let step = Step(Artefact::CheckpointLog, Operation::Write);
    writing(step, format!("{text}\n").as_bytes(), |line| {
        log.write_all(line)
    })
}

fn unavailable(operation: &'static str, path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Unavailable {
        operation,
        key: path.display().to_string(),
        cause: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(row: u64) -> Cursor {
        Cursor {
            pack_key: "a".repeat(64),
            output_id: "team/arrivals".to_owned(),
            last_file: "/w/stream_view/ts_utc/output_id=x/part-000000.parquet".to_owned(),
            last_row_index: row,
            last_ts_utc: Some("2026-01-01T00:00:01.250000Z".to_owned()),
            stream_view_id: Some("b".repeat(64)),
            part_name: Some("part-000000.parquet".to_owned()),
        }
    }

    #[test]
    fn a_saved_cursor_is_loaded_and_every_save_is_in_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = FileCheckpoints::new(folder.path().join("not/yet"));
        assert_eq!(
            checkpoints.load(&"a".repeat(64), "team/arrivals").unwrap(),
            None
        );
        checkpoints.save(&cursor(1), Micros(0)).unwrap();
        checkpoints.save(&cursor(9), Micros(1_500_000)).unwrap();
        let loaded = checkpoints.load(&"a".repeat(64), "team/arrivals").unwrap();
        assert_eq!(loaded, Some(cursor(9)));
        let path = checkpoints.cursor_path(&"a".repeat(64), "team/arrivals");
        assert!(
            path.to_str()
                .unwrap()
                .contains("/output_id=team_arrivals/cursor.json")
        );
        let log = fs::read_to_string(path.with_file_name("cursor.jsonl")).unwrap();
        let rows: Vec<u64> = log
            .lines()
            .map(|line| serde_json::from_str::<Cursor>(line).unwrap().last_row_index)
            .collect();
        assert_eq!(rows, [1, 9]);
    }

    #[test]
    fn the_file_is_spaced_canonical_json_without_a_newline() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = FileCheckpoints::new(folder.path());
        checkpoints.save(&cursor(3), Micros(0)).unwrap();
        let path = checkpoints.cursor_path(&"a".repeat(64), "team/arrivals");
        let text = fs::read_to_string(path).unwrap();
        assert!(
            text.starts_with("{\"checksum\": \"")
                && text.contains(", \"last_file\": \"/w/stream_view"),
            "{text}"
        );
        assert!(
            text.ends_with("\"updated_at_utc\": \"1970-01-01T00:00:00+00:00\"}"),
            "{text}"
        );
    }

    #[test]
    fn no_flipped_bit_of_a_cursor_goes_unnoticed() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = FileCheckpoints::new(folder.path());
        checkpoints.save(&cursor(1234), Micros(0)).unwrap();
        let path = checkpoints.cursor_path(&"a".repeat(64), "team/arrivals");
        let bytes = fs::read(&path).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &flipped).unwrap();
            match checkpoints.load(&"a".repeat(64), "team/arrivals") {
                // White space between members says nothing.
                Ok(loaded) => assert_eq!(loaded, Some(cursor(1234)), "bit {bit}"),
                Err(error) => assert_eq!(error.code(), "STORE_DAMAGED", "bit {bit}"),
            }
        }
    }

    #[test]
    fn half_a_line_a_crash_left_in_the_log_is_ended_before_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = FileCheckpoints::new(folder.path());
        checkpoints.save(&cursor(1), Micros(0)).unwrap();
        let log = checkpoints
            .cursor_path(&"a".repeat(64), "team/arrivals")
            .with_file_name("cursor.jsonl");
        let whole = fs::read(&log).unwrap();
        fs::write(&log, &whole[..whole.len() / 2]).unwrap();
        checkpoints.save(&cursor(2), Micros(0)).unwrap();
        let text = fs::read_to_string(&log).unwrap();
        let last: Cursor = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!((last.last_row_index, text.lines().count()), (2, 2));
    }

    #[test]
    fn a_cursor_of_another_program_is_read_and_a_damaged_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = FileCheckpoints::new(folder.path());
        let path = checkpoints.cursor_path("k", "x");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let foreign = r#"{"last_file": "f", "last_row_index": 7, "last_ts_utc": null, "output_id": "x", "pack_key": "k", "updated_at_utc": "t"}"#;
        fs::write(&path, foreign).unwrap();
        let loaded = checkpoints.load("k", "x").unwrap().unwrap();
        assert_eq!((loaded.last_row_index, loaded.part_name), (7, None));
        fs::write(&path, &foreign[..40]).unwrap();
        assert_eq!(
            checkpoints.load("k", "x").unwrap_err().code(),
            "STORE_DAMAGED"
        );
    }
}
