//! Which platform run is active, and how a new one begins (contract 1.4, W21).
//!
//! Order: the environment's `PLATFORM_RUN_ID`, then the file `ACTIVE_RUN_ID`, then, where creation
//! is allowed, a new id. Every source is checked against the pattern. The file is replaced in one
//! step, and the run's folder is created exclusively, so two starts in one second get two runs.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use wellspring_domain::run_paths::{PlatformRunId, RunPaths, active_run_id_path};
use wellspring_domain::time_text::Micros;

/// Why there is no usable run.
#[derive(Debug, thiserror::Error)]
pub enum ActiveRunError {
    /// The environment or the file holds something else.
    #[error(
        "{source_name} holds {text:?}, which is not a platform run id (platform_YYYYMMDDTHHMMSSZ)"
    )]
    Invalid {
        /// Where it was read.
        source_name: String,
        /// What was read, shortened.
        text: String,
    },
    /// Nobody says which run it is.
    #[error("no platform run is active")]
    Missing,
    /// Many starts at once, and every id in reach is taken.
    #[error("no free platform run id near {0}")]
    NoFreeId(String),
    /// The folder or file cannot be used.
    #[error("cannot use {}: {cause}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

impl ActiveRunError {
    /// The stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            ActiveRunError::Invalid { .. } => "PLATFORM_RUN_ID_INVALID",
            ActiveRunError::Missing => "PLATFORM_RUN_ID_MISSING",
            ActiveRunError::NoFreeId(_) => "PLATFORM_RUN_ID_TAKEN",
            ActiveRunError::Io { .. } => "RUN_ROOT_UNUSABLE",
        }
    }
}

/// Where the active id comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunIdOrigin {
    /// `PLATFORM_RUN_ID`.
    Environment,
    /// `ACTIVE_RUN_ID`.
    File,
    /// Made now.
    Created,
}

/// Most seconds an id moves ahead of the clock to be free.
const SECONDS_AHEAD_MAX: i64 = 60;
const MICROS_PER_SECOND: i64 = 1_000_000;

/// The active run below one runs root.
pub struct ActiveRun<'a> {
    runs_root: &'a str,
    environment: Option<&'a str>,
}

impl<'a> ActiveRun<'a> {
    /// `environment` is the value of `PLATFORM_RUN_ID`, if it is set.
    pub fn new(runs_root: &'a str, environment: Option<&'a str>) -> Self {
        ActiveRun {
            runs_root,
            environment,
        }
    }

    /// The active run, if there is one.
    pub fn find(&self) -> Result<Option<(PlatformRunId, RunIdOrigin)>, ActiveRunError> {
        if let Some(text) = self.environment {
            let id = parse("PLATFORM_RUN_ID", text)?;
            return Ok(Some((id, RunIdOrigin::Environment)));
        }
        let path = self.file();
        match fs::read_to_string(&path) {
            Ok(text) if text.trim().is_empty() => Ok(None),
            Ok(text) => Ok(Some((
                parse(&path.to_string_lossy(), &text)?,
                RunIdOrigin::File,
            ))),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(ActiveRunError::Io { path, cause }),
        }
    }

    /// The active run, or an error that says there is none.
    pub fn require(&self) -> Result<PlatformRunId, ActiveRunError> {
        self.find()?
            .map(|(id, _)| id)
            .ok_or(ActiveRunError::Missing)
    }

    /// The active run, or a new one.
    pub fn find_or_create(
        &self,
        now: Micros,
    ) -> Result<(PlatformRunId, RunIdOrigin), ActiveRunError> {
        match self.find()? {
            Some(found) => Ok(found),
            None => Ok((self.create(now)?, RunIdOrigin::Created)),
        }
    }

    /// A new run under a new id, made active.
    pub fn create(&self, now: Micros) -> Result<PlatformRunId, ActiveRunError> {
        let id = self.claim(now)?;
        self.activate(&id)?;
        Ok(id)
    }

    /// A new id that nobody else gets, because its folder is made.
    pub fn claim(&self, now: Micros) -> Result<PlatformRunId, ActiveRunError> {
        for ahead in 0..=SECONDS_AHEAD_MAX {
            let id = PlatformRunId::generate(Micros(now.0 + ahead * MICROS_PER_SECOND));
            if self.claim_folder(&id)? {
                return Ok(id);
            }
        }
        Err(ActiveRunError::NoFreeId(
            PlatformRunId::generate(now).to_string(),
        ))
    }

    /// Makes a given run the active one; its folder is created if need be.
    pub fn activate(&self, id: &PlatformRunId) -> Result<(), ActiveRunError> {
        let root = PathBuf::from(RunPaths::new(self.runs_root, id).run_root());
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |cause| ActiveRunError::Io { path, cause }
        };
        fs::create_dir_all(&root).map_err(failed(&root))?;
        let file = self.file();
        replace(&file, format!("{id}\n").as_bytes()).map_err(failed(&file))
    }

    /// Creates the run's folder; `false` when somebody has it already.
    fn claim_folder(&self, id: &PlatformRunId) -> Result<bool, ActiveRunError> {
        let root = PathBuf::from(RunPaths::new(self.runs_root, id).run_root());
        let parent = root.parent().unwrap_or(Path::new(".")).to_path_buf();
        fs::create_dir_all(&parent).map_err(|cause| ActiveRunError::Io {
            path: parent,
            cause,
        })?;
        match fs::create_dir(&root) {
            Ok(()) => Ok(true),
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(cause) => Err(ActiveRunError::Io { path: root, cause }),
        }
    }

    fn file(&self) -> PathBuf {
        PathBuf::from(active_run_id_path(self.runs_root))
    }
}

/// Parses an id a person or another program gave.
pub fn parse(source_name: &str, text: &str) -> Result<PlatformRunId, ActiveRunError> {
    PlatformRunId::parse(text.trim()).map_err(|_| ActiveRunError::Invalid {
        source_name: source_name.to_string(),
        text: text.trim().chars().take(64).collect(),
    })
}

/// Readers see the old text or the new one, never a part.
fn replace(file: &Path, text: &[u8]) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let mut staged = tempfile::NamedTempFile::new_in(folder)?;
    staged.write_all(text)?;
    staged.as_file().sync_all()?;
    staged.persist(file).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const NOW: Micros = Micros(1_767_225_600_000_000); // 2026-01-01T00:00:00Z

    fn root() -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_string_lossy().into_owned();
        (folder, root)
    }

    #[test]
    fn a_new_run_is_found_again_until_the_next_one() {
        let (_folder, root) = root();
        let active = ActiveRun::new(&root, None);
        assert!(active.find().unwrap().is_none());
        assert_eq!(
            active.require().unwrap_err().code(),
            "PLATFORM_RUN_ID_MISSING"
        );
        let id = active.create(NOW).unwrap();
        assert_eq!(id.as_str(), "platform_20260101T000000Z");
        assert_eq!(
            active.find().unwrap(),
            Some((id.clone(), RunIdOrigin::File))
        );
        assert_eq!(active.find_or_create(NOW).unwrap().0, id);
        assert_ne!(active.create(NOW).unwrap(), id);
    }

    #[test]
    fn two_starts_in_one_second_get_two_runs() {
        let (_folder, root) = root();
        let ids: BTreeSet<_> = std::thread::scope(|scope| {
            let start = || ActiveRun::new(&root, None).create(NOW).unwrap();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(ids.len(), 8);
    }

    #[test]
    fn the_environment_beats_the_file_and_both_are_checked() {
        let (folder, root) = root();
        ActiveRun::new(&root, None).create(NOW).unwrap();
        let other = "platform_20270101T000000Z";
        let (id, origin) = ActiveRun::new(&root, Some(other)).find().unwrap().unwrap();
        assert_eq!((id.as_str(), origin), (other, RunIdOrigin::Environment));
        let error = ActiveRun::new(&root, Some("../etc")).find().unwrap_err();
        assert_eq!(error.code(), "PLATFORM_RUN_ID_INVALID");
        fs::write(
            folder.path().join("fraud-platform/ACTIVE_RUN_ID"),
            "nonsense",
        )
        .unwrap();
        let error = ActiveRun::new(&root, None).find().unwrap_err();
        assert!(error.to_string().contains("ACTIVE_RUN_ID"), "{error}");
    }

    #[test]
    fn an_explicit_id_is_written_down() {
        let (folder, root) = root();
        let id = parse("--id", " platform_20260202T020202Z ").unwrap();
        ActiveRun::new(&root, None).activate(&id).unwrap();
        let text = fs::read_to_string(folder.path().join("fraud-platform/ACTIVE_RUN_ID")).unwrap();
        assert_eq!(text, "platform_20260202T020202Z\n");
        assert_eq!(ActiveRun::new(&root, None).require().unwrap(), id);
    }
}
