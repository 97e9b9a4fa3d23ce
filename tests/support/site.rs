//! An installation in a folder of its own, driven through the built program.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Finished;

/// No command of a test may take longer.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(240);

/// Begins the names of folders that live as long as a process; its id follows.
const SHARED: &str = "wellspring-shared-";

fn remove_folders_of_ended_processes() {
    for entry in fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name
            .strip_prefix(SHARED)
            .and_then(|rest| rest.split_once('-'));
        if process.is_some_and(|(id, _)| !Path::new("/proc").join(id).exists()) {
            // Another process may be removing it, too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A folder with its own runs root; removed when dropped.
pub struct Site {
    folder: tempfile::TempDir,
    settings: Vec<String>,
    profile: Option<String>,
}

impl Site {
    /// An empty installation.
    pub fn new() -> Self {
        Site::in_folder("wellspring-")
    }

    /// An installation that lives as long as the process: nothing drops it, so the next process removes it.
    pub fn of_the_process() -> Self {
        remove_folders_of_ended_processes();
        Site::in_folder(&format!("{SHARED}{}-", std::process::id()))
    }

    fn in_folder(prefix: &str) -> Self {
        let folder = tempfile::Builder::new().prefix(prefix).tempdir().unwrap();
        Site {
            folder,
            settings: Vec::new(),
            profile: None,
        }
    }

    /// Overrides a setting in every command (`key=value`).
    pub fn set(mut self, setting: impl Into<String>) -> Self {
        self.settings.push(setting.into());
        self
    }

    /// Uses this profile, given as YAML, instead of the shipped one.
    pub fn profile(mut self, yaml: &str) -> Self {
        let file = self.path().join("profile.yaml");
        fs::write(&file, yaml).unwrap();
        self.profile = Some(file.display().to_string());
        self
    }

    /// The folder commands run in.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The program with the site's settings and a clean environment.
    pub fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wellspring"));
        command.current_dir(self.path()).env_clear();
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        if let Some(profile) = &self.profile {
            command.args(["--profile", profile]);
        }
        command
    }

    /// Runs one command to its end.
    pub fn run<S: AsRef<str>>(&self, args: &[S]) -> Finished {
        self.run_with(args, &[])
    }

    /// Runs one command with environment variables.
    pub fn run_with<S: AsRef<str>>(&self, args: &[S], env: &[(&str, &str)]) -> Finished {
        let mut command = self.program();
        command.args(args.iter().map(AsRef::as_ref));
        command.envs(env.iter().copied());
        finish(command, self.path())
    }

    /// The active platform run, created when there is none.
    pub fn new_run(&self) -> String {
        let created = self.run(&["run", "new"]).ok().json();
        created["platform_run_id"].as_str().unwrap().to_owned()
    }

    /// The root of a platform run.
    pub fn run_root(&self, platform_run_id: &str) -> PathBuf {
        self.path()
            .join("runs/fraud-platform")
            .join(platform_run_id)
    }
}

/// Runs a command with a time limit; streams go through files so that no pipe can fill up.
pub fn finish(mut command: Command, scratch: &Path) -> Finished {
    let out = tempfile::NamedTempFile::new_in(scratch).unwrap();
    let err = tempfile::NamedTempFile::new_in(scratch).unwrap();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(File::create(out.path()).unwrap())
        .stderr(File::create(err.path()).unwrap())
        .spawn()
        .expect("the program starts");
    let end = Instant::now() + COMMAND_TIMEOUT;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if Instant::now() > end {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let text = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    let (stdout, stderr) = (text(out.path()), text(err.path()));
    let Some(status) = status else {
        panic!("{command:?} did not end within {COMMAND_TIMEOUT:?}\n{stdout}\n{stderr}");
    };
    Finished {
        code: status.code(),
        stdout,
        stderr,
    }
}

/// A JSON file.
#[track_caller]
pub fn read_json(path: impl AsRef<Path>) -> Value {
    let path = path.as_ref();
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Copies a folder with everything in it.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => {
                fs::copy(entry.path(), &target).unwrap();
            }
        }
    }
}

/// Fails with the whole story when a part is missing.
#[track_caller]
pub fn assert_contains(text: &str, part: &str, story: &str) {
    assert!(text.contains(part), "no {part:?} in: {story}");
}
