//! Where the parts of one run live: run-scoped path rewriting (contract 1.4).

use super::Settings;
use wellspring_domain::run_paths::{PLATFORM_FOLDER, RunPaths, platform_prefix};

/// Rewrites a configured path into the run's own folder.
///
/// No path gives `<run root>/<suffix>`. A path equal to or under the platform folder whose next
/// component is not a run gives the same. Anything else, another folder or a URL, stays as it is.
pub fn run_scoped(path: Option<&str>, suffix: &str, paths: &RunPaths) -> String {
    let own = format!("{}/{suffix}", paths.run_root());
    let Some(path) = path else { return own };
    if ["s3://", "postgres://", "postgresql://"]
        .iter()
        .any(|scheme| path.starts_with(scheme))
    {
        return path.to_string();
    }
    let root = paths.runs_root();
    let platform = format!("{root}/{}", platform_prefix(root));
    // `runs/fraud-platform` is how profiles write it, whatever the configured root is (W32).
    let spelled = format!("runs/{PLATFORM_FOLDER}");
    let folders = [platform.trim_end_matches('/'), spelled.as_str()];
    let below = folders.iter().find_map(|folder| below(path, folder));
    match below {
        Some(rest) if !rest.starts_with("platform_") => own,
        _ => path.to_string(),
    }
}

/// What follows `folder/` in `path`; empty when they are equal; `None` when it is elsewhere.
fn below<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    let rest = path.trim_end_matches('/').strip_prefix(folder)?;
    if rest.is_empty() {
        return Some(rest);
    }
    rest.strip_prefix('/')
}

impl Settings {
    /// The event bus folder of a run. Folders are below the local root, never below a bucket.
    pub fn event_bus_root(&self, paths: &RunPaths) -> String {
        let paths = self.local_paths(paths.run_id());
        run_scoped(self.wiring.event_bus.root.as_deref(), "eb", &paths)
    }

    /// The file control bus folder of a run.
    pub fn control_bus_root(&self, paths: &RunPaths) -> String {
        run_scoped(
            self.wiring.control_bus.root.as_deref(),
            "control_bus",
            &self.local_paths(paths.run_id()),
        )
    }

    /// The stream checkpoint folder of a run.
    pub fn checkpoint_root(&self, paths: &RunPaths) -> String {
        run_scoped(
            self.wiring.wsp_checkpoint.root.as_deref(),
            "wsp/checkpoints",
            &self.local_paths(paths.run_id()),
        )
    }

    /// The file that exported admission tables go to.
    pub fn admission_db_path(&self, paths: &RunPaths) -> String {
        let path = match &self.wiring.admission {
            super::backends::AdmissionSettings::Embedded { path } => path.as_deref(),
            super::backends::AdmissionSettings::Postgres { .. } => None,
        };
        let paths = self.local_paths(paths.run_id());
        run_scoped(path, "ig/index/ig_admission.db", &paths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wellspring_domain::run_paths::PlatformRunId;

    fn paths(root: &str) -> RunPaths {
        let id = PlatformRunId::parse("platform_20260101T000000Z").unwrap();
        RunPaths::new(root, &id)
    }

    #[test]
    fn paths_in_the_platform_folder_become_the_runs_own() {
        let own = "runs/fraud-platform/platform_20260101T000000Z/eb";
        for (path, scoped) in [
            (None, own),
            (Some("runs/fraud-platform"), own),
            (Some("runs/fraud-platform/"), own),
            (Some("runs/fraud-platform/eb"), own),
            (Some("runs/fraud-platform/eb/deeper"), own),
            (
                Some("runs/fraud-platform/platform_x/eb"),
                "runs/fraud-platform/platform_x/eb",
            ),
            (Some("runs/fraud-platformer/eb"), "runs/fraud-platformer/eb"),
            (Some("/data/eb"), "/data/eb"),
            (Some("s3://bucket/eb"), "s3://bucket/eb"),
            (Some("postgresql://h/db"), "postgresql://h/db"),
        ] {
            assert_eq!(run_scoped(path, "eb", &paths("runs")), scoped, "{path:?}");
        }
    }

    #[test]
    fn the_spelling_of_profiles_follows_the_configured_root() {
        let own = "/data/fraud-platform/platform_20260101T000000Z/eb";
        assert_eq!(
            run_scoped(Some("runs/fraud-platform/eb"), "eb", &paths("/data")),
            own
        );
        assert_eq!(
            run_scoped(Some("/data/fraud-platform/eb"), "eb", &paths("/data")),
            own
        );
    }

    #[test]
    fn no_root_ever_doubles_the_platform_folder() {
        for root in [
            "runs",
            "runs/fraud-platform",
            "s3://fraud-platform",
            "/d/fraud-platform/",
        ] {
            let scoped = run_scoped(Some("runs/fraud-platform/control_bus"), "cb", &paths(root));
            assert!(
                !scoped.contains("fraud-platform/fraud-platform"),
                "{root}: {scoped}"
            );
            assert!(
                scoped.ends_with("platform_20260101T000000Z/cb"),
                "{root}: {scoped}"
            );
        }
    }
}
