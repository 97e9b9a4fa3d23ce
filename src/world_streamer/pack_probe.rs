//! Reads what the required-pack gate judges: pack files, their state files and processes (contract
//! 6.3).

use std::fs;
use std::io::ErrorKind;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use wellspring_domain::run_paths::platform_prefix;
use wellspring_domain::stream::required_packs::{PackProbe, PackRequirements, pack_problems};

use super::processes;
use crate::settings::Settings;
use crate::settings::refs::yaml_value;

/// The gate in front of every READY, as the environment configures it.
pub struct RequiredPacks {
    pack_paths: Vec<String>,
    require_active_run_match: bool,
    check_interval: Duration,
    log_interval: Duration,
    operate_root: String,
    last: Mutex<Option<LastCheck>>,
}

struct LastCheck {
    run: Option<String>,
    at: Instant,
    logged_at: Option<Instant>,
    problems: Vec<String>,
}

impl RequiredPacks {
    /// Reads `WSP_READY_REQUIRED_PACKS` and what belongs to it.
    pub fn of_settings(settings: &Settings) -> Self {
        let listed = settings
            .variable("WSP_READY_REQUIRED_PACKS")
            .unwrap_or_default();
        let paths = listed
            .split(',')
            .map(str::trim)
            .filter(|path| !path.is_empty());
        let seconds = |name: &str, default: f64| {
            let given = settings
                .variable(name)
                .and_then(|text| text.trim().parse::<f64>().ok());
            let given = given.filter(|seconds| (0.0..=86_400.0).contains(seconds));
            Duration::from_secs_f64(given.unwrap_or(default))
        };
        let root = settings.local_root();
        let required = settings.variable("WSP_READY_REQUIRE_ACTIVE_RUN_MATCH");
        RequiredPacks {
            pack_paths: paths.map(str::to_owned).collect(),
            require_active_run_match: !required.is_some_and(is_off),
            check_interval: seconds("WSP_READY_REQUIRED_PACKS_CHECK_INTERVAL_SECONDS", 2.0),
            log_interval: seconds("WSP_READY_REQUIRED_PACKS_LOG_INTERVAL_SECONDS", 20.0),
            operate_root: format!(
                "{}/{}operate",
                root.trim_end_matches('/'),
                platform_prefix(root)
            ),
            last: Mutex::new(None),
        }
    }

    /// Why the packs are not ready for this run; empty when they are. An answer is kept for the check
    /// interval.
    pub fn problems(&self, active_run: Option<&str>) -> Vec<String> {
        if self.pack_paths.is_empty() {
            return Vec::new();
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let run = active_run.map(str::to_owned);
        let fresh =
            |known: &&LastCheck| known.run == run && known.at.elapsed() < self.check_interval;
        if let Some(known) = last.as_ref().filter(fresh) {
            return known.problems.clone();
        }
        let requirements = PackRequirements {
            pack_paths: self.pack_paths.clone(),
            active_run: run.clone().filter(|_| self.require_active_run_match),
        };
        let problems = pack_problems(&requirements, self);
        let mut logged_at = last.as_ref().and_then(|known| known.logged_at);
        if !problems.is_empty() && logged_at.is_none_or(|at| at.elapsed() >= self.log_interval) {
            tracing::warn!(?problems, "READY waits for packs downstream");
            logged_at = Some(Instant::now());
        }
        *last = Some(LastCheck {
            run,
            at: Instant::now(),
            logged_at,
            problems: problems.clone(),
        });
        problems
    }
}

fn is_off(text: &str) -> bool {
    matches!(
        text.trim().to_ascii_lowercase().as_str(),
        "0" | "false" | "no" | "off"
    )
}

impl PackProbe for RequiredPacks {
    fn spec(&self, path: &str) -> Result<Option<Value>, String> {
        match read(path)? {
            Some(text) => yaml_value(&text, path).map(Some),
            None => Ok(None),
        }
    }

    fn state(&self, pack_id: &str) -> Result<Option<Value>, String> {
        let path = format!("{}/{pack_id}/state.json", self.operate_root);
        match read(&path)? {
            Some(text) => serde_json::from_str(&text)
                .map(Some)
                .map_err(|error| error.to_string()),
            None => Ok(None),
        }
    }

    fn process_created_at(&self, pid: u64) -> Option<f64> {
        processes::created_at(pid)
    }
}

fn read(path: &str) -> Result<Option<String>, String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}
