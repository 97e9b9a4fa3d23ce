//! Are the packs that must run downstream alive, and for this run? (contract 6.3, T19)
//!
//! A READY is deferred, not refused, while they are not: a stream that starts before its readers is
//! lost on them. Reading files and processes is the caller's work; this module only judges.

use serde_json::Value;

/// Most reasons a deferral names.
pub const REASONS_MAX: usize = 4;

/// The reason when something is not ready and nothing more precise is known.
pub const DEPENDENCY_NOT_READY: &str = "DEPENDENCY_NOT_READY";

/// Largest difference between the recorded and the actual start of a living process, in seconds.
const CREATE_TIME_TOLERANCE: f64 = 1e-3;

/// What the judgement asks of its surroundings.
pub trait PackProbe {
    /// The parsed pack file, `None` when it does not exist, or why it cannot be read.
    fn spec(&self, path: &str) -> Result<Option<Value>, String>;
    /// The parsed state file of a pack, `None` when it does not exist, or why it cannot be read.
    fn state(&self, pack_id: &str) -> Result<Option<Value>, String>;
    /// When the running process `pid` was created, in seconds since the epoch; `None` when it is not
    /// running.
    fn process_created_at(&self, pid: u64) -> Option<f64>;
}

/// What must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackRequirements {
    /// `WSP_READY_REQUIRED_PACKS`: pack files, in order.
    pub pack_paths: Vec<String>,
    /// The run the packs must serve; none when `WSP_READY_REQUIRE_ACTIVE_RUN_MATCH` is off.
    pub active_run: Option<String>,
}

/// Every reason why the required packs are not ready; empty when they are.
pub fn pack_problems(requirements: &PackRequirements, probe: &dyn PackProbe) -> Vec<String> {
    let active_run = requirements.active_run.as_deref();
    let problems = |path: &String| {
        check_pack(path, active_run, probe)
            .err()
            .unwrap_or_default()
    };
    requirements.pack_paths.iter().flat_map(problems).collect()
}

/// The reason of a deferral: up to four problems joined with `;`.
pub fn deferral_reason(problems: &[String]) -> String {
    match problems {
        [] => DEPENDENCY_NOT_READY.to_owned(),
        _ => problems[..problems.len().min(REASONS_MAX)].join(";"),
    }
}

fn check_pack(
    path: &str,
    active_run: Option<&str>,
    probe: &dyn PackProbe,
) -> Result<(), Vec<String>> {
    let one = |reason: String| vec![reason];
    let invalid_spec = |why: String| one(format!("PACK_SPEC_INVALID:{path}:{why}"));
    let spec = probe.spec(path).map_err(invalid_spec)?;
    let spec = spec.ok_or_else(|| one(format!("PACK_FILE_MISSING:{path}")))?;
    let (id, process_ids) = read_spec(&spec).map_err(invalid_spec)?;

    let invalid_state = |why: String| one(format!("PACK_STATE_INVALID:{id}:{why}"));
    let state = probe.state(id).map_err(invalid_state)?;
    let state = state.ok_or_else(|| one(format!("PACK_STATE_MISSING:{id}")))?;
    let state = state
        .as_object()
        .ok_or_else(|| invalid_state("not an object".to_owned()))?;
    if let Some(want) = active_run {
        check_run(id, state.get("active_platform_run_id"), want).map_err(one)?;
    }
    let processes = state.get("processes").and_then(Value::as_object);
    let processes = processes
        .filter(|processes| !processes.is_empty())
        .ok_or_else(|| one(format!("PACK_PROCESSES_MISSING:{id}")))?;
    let problem =
        |process_id: &&str| check_process(id, process_id, processes.get(*process_id), probe);
    let problems: Vec<String> = process_ids.iter().filter_map(problem).collect();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}

/// The pack id and its process ids.
fn read_spec(spec: &Value) -> Result<(&str, Vec<&str>), String> {
    if spec.get("version").and_then(Value::as_u64) != Some(1) {
        return Err("version is not 1".to_owned());
    }
    let id = spec
        .get("pack_id")
        .and_then(Value::as_str)
        .filter(|id| !id.is_empty());
    let processes = spec
        .get("processes")
        .and_then(Value::as_array)
        .filter(|list| !list.is_empty());
    let process_id = |process: &'_ Value| -> Option<String> {
        process.get("id").and_then(Value::as_str).map(str::to_owned)
    };
    let processes = processes.ok_or("processes is empty")?;
    if processes
        .iter()
        .any(|process| process_id(process).is_none())
    {
        return Err("a process has no id".to_owned());
    }
    let ids = processes
        .iter()
        .filter_map(|process| process.get("id")?.as_str())
        .collect();
    Ok((id.ok_or("pack_id is missing")?, ids))
}

fn check_run(id: &str, have: Option<&Value>, want: &str) -> Result<(), String> {
    match have.and_then(Value::as_str).filter(|run| !run.is_empty()) {
        None => Err(format!("PACK_ACTIVE_RUN_MISSING:{id}")),
        Some(have) if have != want => Err(format!("PACK_ACTIVE_RUN_MISMATCH:{id}:{have}->{want}")),
        Some(_) => Ok(()),
    }
}

fn check_process(
    id: &str,
    process_id: &str,
    entry: Option<&Value>,
    probe: &dyn PackProbe,
) -> Option<String> {
    let Some(entry) = entry else {
        return Some(format!("PACK_PROCESS_MISSING:{id}:{process_id}"));
    };
    let recorded = entry.get("pid").and_then(Value::as_u64);
    let created = entry.get("pid_create_time").and_then(Value::as_f64);
    let alive = match (
        recorded.and_then(|pid| probe.process_created_at(pid)),
        created,
    ) {
        (Some(actual), Some(recorded)) => (actual - recorded).abs() <= CREATE_TIME_TOLERANCE,
        _ => false,
    };
    (!alive).then(|| format!("PACK_PROCESS_NOT_RUNNING:{id}:{process_id}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const RUN: &str = "platform_20260101T000000Z";

    struct Probe {
        spec: Result<Option<Value>, String>,
        state: Result<Option<Value>, String>,
    }

    impl PackProbe for Probe {
        fn spec(&self, _path: &str) -> Result<Option<Value>, String> {
            self.spec.clone()
        }
        fn state(&self, _pack_id: &str) -> Result<Option<Value>, String> {
            self.state.clone()
        }
        fn process_created_at(&self, pid: u64) -> Option<f64> {
            (pid == 7).then_some(1000.0005)
        }
    }

    fn spec() -> Value {
        json!({"version": 1, "pack_id": "rtdl", "processes": [{"id": "a"}, {"id": "b"}]})
    }

    fn state() -> Value {
        let process = json!({"pid": 7, "pid_create_time": 1000.0});
        json!({"pack_id": "rtdl", "active_platform_run_id": RUN,
               "processes": {"a": process, "b": process}})
    }

    fn reasons(
        spec: Result<Option<Value>, String>,
        state: Result<Option<Value>, String>,
    ) -> String {
        let requirements = PackRequirements {
            pack_paths: vec!["p.yaml".to_owned()],
            active_run: Some(RUN.to_owned()),
        };
        pack_problems(&requirements, &Probe { spec, state }).join(";")
    }

    #[test]
    fn a_living_pack_of_this_run_is_no_problem() {
        assert_eq!(reasons(Ok(Some(spec())), Ok(Some(state()))), "");
    }

    #[test]
    fn every_reason_of_the_table_is_reachable() {
        let with = |member: &str, value: Value| {
            let mut state = state();
            state[member] = value;
            Ok(Some(state))
        };
        let dead = json!({"a": {"pid": 7, "pid_create_time": 1000.1}, "b": {"pid": 8, "pid_create_time": 1.0}});
        let run = |run: &str| with("active_platform_run_id", json!(run));
        let good = || Ok(Some(spec()));
        let other_run = format!("PACK_ACTIVE_RUN_MISMATCH:rtdl:other->{RUN}");
        let table = [
            (Ok(None), Ok(None), "PACK_FILE_MISSING:p.yaml"),
            (
                Err("bad yaml".to_owned()),
                Ok(None),
                "PACK_SPEC_INVALID:p.yaml:bad yaml",
            ),
            (
                Ok(Some(json!({"version": 2}))),
                Ok(None),
                "PACK_SPEC_INVALID:p.yaml:version is not 1",
            ),
            (good(), Ok(None), "PACK_STATE_MISSING:rtdl"),
            (
                good(),
                Err("cut off".to_owned()),
                "PACK_STATE_INVALID:rtdl:cut off",
            ),
            (
                good(),
                Ok(Some(json!(1))),
                "PACK_STATE_INVALID:rtdl:not an object",
            ),
            (good(), run(""), "PACK_ACTIVE_RUN_MISSING:rtdl"),
            (good(), run("other"), &other_run),
            (
                good(),
                with("processes", json!({})),
                "PACK_PROCESSES_MISSING:rtdl",
            ),
            (
                good(),
                with("processes", json!({"b": state()["processes"]["b"]})),
                "PACK_PROCESS_MISSING:rtdl:a",
            ),
            (
                good(),
                with("processes", dead),
                "PACK_PROCESS_NOT_RUNNING:rtdl:a;PACK_PROCESS_NOT_RUNNING:rtdl:b",
            ),
        ];
        for (spec, state, expected) in table {
            assert_eq!(reasons(spec, state), expected);
        }
    }

    #[test]
    fn without_the_run_match_any_run_will_do() {
        let requirements = PackRequirements {
            pack_paths: vec!["p.yaml".to_owned()],
            active_run: None,
        };
        let mut other = state();
        other["active_platform_run_id"] = json!("other");
        let probe = Probe {
            spec: Ok(Some(spec())),
            state: Ok(Some(other)),
        };
        assert!(pack_problems(&requirements, &probe).is_empty());
    }

    #[test]
    fn a_deferral_names_at_most_four_problems() {
        let problems: Vec<String> = (1..=6).map(|n| format!("P{n}")).collect();
        assert_eq!(deferral_reason(&problems), "P1;P2;P3;P4");
        assert_eq!(deferral_reason(&[]), DEPENDENCY_NOT_READY);
    }
}
