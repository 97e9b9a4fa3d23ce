//! `bus verify --rebuild`: drops everything that is derived from the journals and proves that the
//! journals give it back identical: index, lookup sidecars, quarantine records, receipt objects.
//!
//! Objects are moved aside first and removed only when what was made again is equal, so a difference
//! costs nothing. A crash in between is repaired by the next call, which compares with what was moved.

use super::index::{self, IndexMemory, IndexMemoryCap};
use super::projections::{JournalProjection, QuarantineRecords, ReceiptObjects, RowWriter};
use super::receipts::{lookup_folder, make_sidecars};
use super::verify::DigestSum;
use crate::event_bus::embedded_log::disk::{entry_names, failed};
use crate::event_bus::embedded_log::{JournalReader, RunLock};
use serde::Serialize;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wellspring_actors::ingestion_gate::projector::Projection;
use wellspring_domain::admission::receipt::ReceiptsLayout;
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::{ObjectStore, RunLayout, StoreError};
use wellspring_domain::run_paths::RunPaths;

/// One projection before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RebuiltPart {
    /// Which projection.
    pub name: &'static str,
    /// Keys, or files.
    pub items: u64,
    /// Digest of what was there.
    pub before: String,
    /// Digest of what the journals gave back.
    pub after: String,
    /// Where the old objects are kept when they differ.
    pub kept: Option<String>,
}

/// What the rebuild came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RebuildReport {
    /// True when every projection came back identical.
    pub identical: bool,
    /// By projection.
    pub parts: Vec<RebuiltPart>,
}

/// What a rebuild needs to know.
pub struct RebuildPlan<'a> {
    /// The run.
    pub paths: &'a RunPaths,
    /// Shards.
    pub layout: RunLayout,
    /// Memory of the index.
    pub index_memory: IndexMemoryCap,
    /// Receipts layout in force.
    pub receipts: ReceiptsLayout,
    /// Store rooted at the runs root, on this machine's disk.
    pub store: Arc<dyn ObjectStore>,
}

/// Drops and rebuilds the projections of a run that no gate has open.
pub fn rebuild(plan: &RebuildPlan<'_>) -> Result<RebuildReport, StoreError> {
    let _lock = RunLock::take(plan.paths)?;
    let journal = JournalReader::new(plan.paths);
    let mut parts = vec![
        rebuild_index(plan, &journal)?,
        rebuild_sidecars(plan.paths, &journal)?,
    ];
    let quarantines = QuarantineRecords {
        layout: plan.receipts,
    };
    parts.push(rebuild_objects(plan, "quarantine", quarantines)?);
    if plan.receipts == ReceiptsLayout::Objects {
        parts.push(rebuild_objects(plan, "receipts", ReceiptObjects)?);
    }
    Ok(RebuildReport {
        identical: parts.iter().all(|part| part.before == part.after),
        parts,
    })
}

fn rebuild_index(
    plan: &RebuildPlan<'_>,
    journal: &JournalReader,
) -> Result<RebuiltPart, StoreError> {
    let memory = IndexMemory::of(plan.index_memory);
    // What is damaged has no digest; it differs from what the journals give back.
    let before = match index::digest(plan.paths, &plan.layout, journal, &memory) {
        Ok((_, digest)) => digest.to_string(),
        Err(error @ StoreError::Damaged { .. }) => error.to_string(),
        Err(error) => return Err(error),
    };
    remove_folder(&index::index_folder(plan.paths))?;
    let (items, after) = index::digest(plan.paths, &plan.layout, journal, &memory)?;
    Ok(RebuiltPart {
        name: "index",
        items,
        before,
        after: after.to_string(),
        kept: None,
    })
}

fn rebuild_sidecars(paths: &RunPaths, journal: &JournalReader) -> Result<RebuiltPart, StoreError> {
    make_sidecars(paths, journal)?;
    let folder = lookup_folder(paths);
    let (_, before) = folder_digest(&folder)?;
    remove_folder(&folder)?;
    make_sidecars(paths, journal)?;
    let (items, after) = folder_digest(&folder)?;
    Ok(RebuiltPart {
        name: "lookup_sidecars",
        items,
        before,
        after,
        kept: None,
    })
}

fn rebuild_objects<W: RowWriter>(
    plan: &RebuildPlan<'_>,
    folder: &str,
    writer: W,
) -> Result<RebuiltPart, StoreError> {
    let name = writer.name();
    let ig = PathBuf::from(plan.paths.ig());
    let (current, aside) = (ig.join(folder), ig.join(format!("{folder}.dropped")));
    let cursor = ig.join("projections").join(format!("{name}.json"));
    let projection = JournalProjection::new(plan.store.clone(), plan.paths.runs_root(), writer);
    let run = plan.paths.run_id();
    if aside.exists() {
        // A rebuild was interrupted: what it had moved aside is what there was.
        remove_folder(&current)?;
    } else {
        projection.catch_up(run)?;
        move_aside(&current, &aside)?;
    }
    projection.forget(run);
    remove_file(&cursor)?;
    projection.catch_up(run)?;
    let (_, before) = folder_digest(&aside)?;
    let (items, after) = folder_digest(&current)?;
    let same = before == after;
    if same {
        remove_folder(&aside)?;
    }
    Ok(RebuiltPart {
        name,
        items,
        before,
        after,
        kept: (!same).then(|| aside.display().to_string()),
    })
}

/// Number of files below a folder and a digest of their names and contents.
fn folder_digest(folder: &Path) -> Result<(u64, String), StoreError> {
    let (mut files, mut sum) = (0, DigestSum::default());
    let mut open = vec![(folder.to_owned(), String::new())];
    while let Some((path, name)) = open.pop() {
        if path.is_dir() {
            for entry in entry_names(&path)? {
                open.push((path.join(&entry), format!("{name}/{entry}")));
            }
        } else if path.exists() {
            let bytes = fs::read(&path).map_err(failed("read", &path))?;
            let mut named = name.into_bytes();
            named.push(0);
            named.extend_from_slice(&Hash32::of(&bytes).0);
            sum.add(&Hash32::of(&named));
            files += 1;
        }
    }
    Ok((files, sum.hex()))
}

fn move_aside(from: &Path, to: &Path) -> Result<(), StoreError> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("rename", from)(error)),
        _moved_or_absent => Ok(()),
    }
}

fn remove_folder(folder: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(failed("remove folder", folder)(error))
        }
        _removed_or_absent => Ok(()),
    }
}

fn remove_file(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _removed_or_absent => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object_store::LocalFiles;
    use crate::state_store::embedded::test_run::{Decided, TestRun};

    fn plan(run: &TestRun) -> RebuildPlan<'_> {
        RebuildPlan {
            paths: &run.paths,
            layout: run.layout,
            index_memory: run.index_memory,
            receipts: ReceiptsLayout::Objects,
            store: Arc::new(LocalFiles::new(run.folder.path())),
        }
    }

    fn filled() -> TestRun {
        let mut run = TestRun::new();
        let admits: Vec<Decided> = (0..300).map(Decided::Admit).collect();
        let rows = run.commit(0, &admits);
        run.commit(
            0,
            &[Decided::Quarantine(900), Decided::Duplicate(3, rows[3])],
        );
        run.next_segment(0);
        run.commit(0, &[Decided::Admit(301)]);
        run.close();
        run
    }

    #[test]
    fn journals_give_every_projection_back_identical() {
        let run = filled();
        for _ in 0..2 {
            let report = rebuild(&plan(&run)).unwrap();
            assert!(report.identical, "{report:?}");
            let items: Vec<(&str, u64)> = report
                .parts
                .iter()
                .map(|part| (part.name, part.items))
                .collect();
            let expected = [
                ("index", 301),
                ("lookup_sidecars", 1),
                ("quarantine_records", 1),
                ("receipt_objects", 303),
            ];
            assert_eq!(items, expected);
        }
    }

    #[test]
    fn objects_that_differ_are_kept_and_said_to_differ_also_after_an_interruption() {
        let run = filled();
        rebuild(&plan(&run)).unwrap();
        let folder = PathBuf::from(run.paths.ig()).join("quarantine");
        let name = entry_names(&folder).unwrap().remove(0);
        fs::write(folder.join(&name), "{}\n").unwrap();
        for _ in 0..2 {
            let report = rebuild(&plan(&run)).unwrap();
            assert!(!report.identical);
            let kept = report.parts[2].kept.clone().unwrap();
            assert_eq!(
                fs::read_to_string(Path::new(&kept).join(&name)).unwrap(),
                "{}\n"
            );
            let made = fs::read_to_string(folder.join(&name)).unwrap();
            assert!(made.contains("PINS_MISSING"));
        }
    }

    #[test]
    fn a_run_in_use_is_not_touched() {
        let run = TestRun::new();
        assert_eq!(rebuild(&plan(&run)).unwrap_err().code(), "STORE_LOCKED");
    }
}
