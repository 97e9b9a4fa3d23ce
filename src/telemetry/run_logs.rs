//! The logs inside a run's folder: narrative log and component log (contract 1.4).
//!
//! `platform.log` takes warnings, errors and narrative lines; `PLATFORM_LOG_PATH` moves it. With
//! `PLATFORM_COMPONENT` set, `<run root>/<full name>/<full name>.log` takes everything from INFO
//! up. Each line is one append.

use super::log_lines::line_of;
use crate::clock::SystemClock;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use wellspring_actors::telemetry::NARRATIVE;
use wellspring_domain::ports::Clock;
use wellspring_domain::run_paths::RunPaths;

/// The log files of the active run. Clones share them.
#[derive(Clone, Default)]
pub struct RunLogs {
    files: Arc<Mutex<Files>>,
}

#[derive(Default)]
struct Files {
    narrative: Option<File>,
    component: Option<File>,
}

/// Where the logs of a run go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunLogPaths {
    /// The narrative log.
    pub narrative: PathBuf,
    /// The component log, when a component is named.
    pub component: Option<PathBuf>,
}

impl RunLogPaths {
    /// The paths for a run; `variable` looks an environment variable up.
    pub fn of<'a>(paths: &RunPaths, variable: impl Fn(&str) -> Option<&'a str>) -> Self {
        let root = PathBuf::from(paths.run_root());
        let narrative = match variable("PLATFORM_LOG_PATH") {
            Some(path) => PathBuf::from(path),
            None => PathBuf::from(paths.platform_log()),
        };
        let component = variable("PLATFORM_COMPONENT").map(|component| {
            let name = full_name(component);
            root.join(&name).join(format!("{name}.log"))
        });
        RunLogPaths {
            narrative,
            component,
        }
    }
}

/// The full name of a component (contract 1.4). Anything but letters, digits, `_` and `-` becomes
/// `_`, so a name cannot leave the run's folder.
fn full_name(component: &str) -> String {
    match component {
        "sr" => "scenario_runner".to_string(),
        "wsp" => "world_streamer_producer".to_string(),
        "ig" => "ingestion_gate".to_string(),
        "eb" => "event_bus".to_string(),
        other => other
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || c == '_' || c == '-' {
                    c
                } else {
                    '_'
                }
            })
            .collect(),
    }
}

impl RunLogs {
    /// From now on lines go into this run's files.
    pub fn attach(&self, paths: &RunLogPaths) -> io::Result<()> {
        let narrative = Some(open(&paths.narrative)?);
        let component = paths.component.as_deref().map(open).transpose()?;
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = Files {
            narrative,
            component,
        };
        Ok(())
    }

    pub(super) fn layer(&self) -> RunLogLayer {
        RunLogLayer { logs: self.clone() }
    }

    fn write(&self, narrative: bool, line: &str) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = format!("{line}\n");
        // A full disk must not stop the work; the same line went to stderr.
        if let Some(file) = files.narrative.as_mut().filter(|_| narrative) {
            let _ = file.write_all(bytes.as_bytes());
        }
        if let Some(file) = files.component.as_mut() {
            let _ = file.write_all(bytes.as_bytes());
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

/// The part of the subscriber that writes into run logs.
pub(super) struct RunLogLayer {
    logs: RunLogs,
}

impl<S: Subscriber> Layer<S> for RunLogLayer {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let level = *event.metadata().level();
        if level > Level::INFO {
            return;
        }
        let narrative = level <= Level::WARN || event.metadata().target() == NARRATIVE;
        self.logs
            .write(narrative, &line_of(event, SystemClock::new().now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;
    use wellspring_actors::telemetry::narrate;
    use wellspring_domain::run_paths::PlatformRunId;

    fn paths_in(folder: &Path) -> RunPaths {
        let id = PlatformRunId::parse("platform_20260101T000000Z").unwrap();
        RunPaths::new(&folder.to_string_lossy(), &id)
    }

    #[test]
    fn warnings_and_narrative_lines_go_into_the_narrative_log_in_contract_form() {
        let folder = tempfile::tempdir().unwrap();
        let run = paths_in(folder.path());
        let component = |name: &str| (name == "PLATFORM_COMPONENT").then_some("wsp");
        let paths = RunLogPaths::of(&run, component);
        let logs = RunLogs::default();
        logs.attach(&paths).unwrap();
        let subscriber = tracing_subscriber::registry().with(logs.layer());
        tracing::subscriber::with_default(subscriber, || {
            narrate("world_streamer_producer", "WSP stream start run_id=r");
            tracing::info!("chatter");
            tracing::warn!(attempt = 2, text = "a\nb", "push retried");
            tracing::debug!("detail");
        });
        let narrative = fs::read_to_string(run.platform_log()).unwrap();
        let lines: Vec<&str> = narrative.lines().collect();
        assert_eq!(lines.len(), 2, "{narrative}");
        assert_eq!(
            &lines[0][19..],
            " [INFO] world_streamer_producer: WSP stream start run_id=r"
        );
        assert!(lines[0].as_bytes()[10] == b' ' && lines[0].as_bytes()[13] == b':');
        let module = "wellspring::telemetry::run_logs::tests";
        assert_eq!(
            &lines[1][19..],
            format!(" [WARNING] {module}: push retried attempt=2 text=a\\nb")
        );
        let component = fs::read_to_string(paths.component.unwrap()).unwrap();
        assert_eq!(component.lines().count(), 3);
    }

    #[test]
    fn log_paths_follow_the_environment_and_never_leave_the_run() {
        let run = paths_in(Path::new("runs"));
        let root = "runs/fraud-platform/platform_20260101T000000Z";
        let none = RunLogPaths::of(&run, |_| None);
        assert_eq!(
            none.narrative,
            PathBuf::from(format!("{root}/platform.log"))
        );
        assert_eq!(none.component, None);
        for (component, name) in [
            ("ig", "ingestion_gate"),
            ("eb", "event_bus"),
            ("../x", "___x"),
        ] {
            let variable = |name: &str| match name {
                "PLATFORM_COMPONENT" => Some(component),
                _ => Some("elsewhere.log"),
            };
            let paths = RunLogPaths::of(&run, variable);
            let expected = PathBuf::from(format!("{root}/{name}/{name}.log"));
            assert_eq!(paths.component, Some(expected));
            assert_eq!(paths.narrative, PathBuf::from("elsewhere.log"));
        }
    }
}
