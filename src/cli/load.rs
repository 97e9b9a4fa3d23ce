//! `wellspring load`: what a gate takes, how fast, and at what cost.

use super::output::{OutputFormat, TableView, bytes, grouped, print_json, print_table};
use super::{CliContext, Outcome, progress};
use crate::http::answer_form::AnswerForm;
use crate::load::http_connection::HttpGateAddress;
use crate::load::producer::PushKind;
use crate::load::report::LoadReport;
use crate::load::require::Requirement;
use crate::load::{self, KnobProblem, LoadPlan, Source, Target, html};
use crate::settings::Settings;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory};
use std::path::{Path, PathBuf};
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  wellspring load                                      200,000 events at full speed, gate in this process
  wellspring load --events 5M --keys 1M --shards 4     more of everything
  wellspring load --rate 50k --duration 30s --warmup 5s --require 'p99<20ms,errors<=0'
                                                       open loop: latency from the planned send time
  wellspring load --duplicates 0.1 --invalid 0.01 --skew 0.99 --verify
                                                       an unkind mixture, compared with the bus afterwards
  wellspring load --url http://127.0.0.1:8081 --producers 4 --duration 10s
                                                       batches over HTTP to a gate that runs
  wellspring load --url http://127.0.0.1:8081 --single --producers 512 --gate-pid 4711
                                                       one event a request over 512 kept connections
  wellspring load --world runs/demo/world              the sorted views of a sealed world as events

A report is written beside the run: <run id>.json, and <run id>.html with plots, one page that needs nothing else.
Metrics of --require: p50 p90 p99 p999 ... max mean lateness (with us, ms, s), rate (k, M), errors (number or %),
cpu (CPU-seconds per million events), rss (MiB, GiB); comparisons: < <= > >=.
Exit codes: 0 all holds, 2 usage, 4 a check does not hold or a requirement is not met.";

/// Events of a load that says neither how many nor how long.
const EVENTS: u64 = 200_000;

/// Options of `wellspring load`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct LoadArgs {
    /// A gate that runs; without it a gate is started in this process.
    #[arg(long, value_name = "http://HOST:PORT", value_parser = address)]
    url: Option<HttpGateAddress>,
    /// One event per request instead of batches (with --url).
    #[arg(long, requires = "url")]
    single: bool,
    /// Ask for decisions without their receipts, `Prefer: return=minimal` (with --single).
    #[arg(long, requires = "single")]
    minimal: bool,
    /// Process of the gate, so that its processor time counts, too (with --url).
    #[arg(long, value_name = "PID", requires = "url")]
    gate_pid: Option<u32>,
    /// Planned events per second (open loop); without it events are sent as fast as they are answered.
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: Option<f64>,
    /// Most events; 200k when there is no --duration either, a world's all.
    #[arg(long, value_name = "N", value_parser = count)]
    events: Option<u64>,
    /// Longest time of sending, for example 30s.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Time at the beginning that is checked and not measured.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    warmup: Duration,
    /// Senders, each with keys of its own; over HTTP each is one kept connection [default: 4; 32 with --single].
    #[arg(long, visible_alias = "connections", value_name = "N", value_parser = count)]
    producers: Option<u64>,
    /// Most events in a batch [default: 512 in process, 500 over HTTP].
    #[arg(long, value_name = "N", value_parser = count)]
    batch: Option<u64>,
    /// Most batches of one producer without an answer, in process [default: 16; 256 with --rate].
    #[arg(long, value_name = "N", value_parser = count, conflicts_with = "url")]
    window: Option<u64>,
    /// Distinct partition keys.
    #[arg(long, value_name = "N", default_value = "100k", value_parser = count)]
    keys: u64,
    /// How unevenly keys are used: exponent of a Zipf law, 0 is evenly.
    #[arg(long, value_name = "S", default_value_t = 0.0)]
    skew: f64,
    /// Share of events that repeat an earlier one, from 0 to below 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    duplicates: f64,
    /// Share of events the gate must quarantine, from 0 to below 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    invalid: f64,
    /// Bytes of each payload [default: the smallest].
    #[arg(long, value_name = "N", value_parser = count)]
    payload_bytes: Option<u64>,
    /// Another seed is another load.
    #[arg(long, value_name = "S", default_value_t = 42)]
    seed: u64,
    /// The rows of this sealed and sorted world instead of synthetic events; one producer per output.
    #[arg(long, value_name = "DIR")]
    world: Option<String>,
    /// Scenario of the world [default: the profile's, else the only one in the world].
    #[arg(long, value_name = "ID", requires = "world")]
    scenario_id: Option<String>,
    /// Only these outputs of the world (comma-separated).
    #[arg(long, value_name = "IDS", value_delimiter = ',', requires = "world")]
    output_ids: Vec<String>,
    /// Admission and index shards of the gate in this process [default: the profile's].
    #[arg(long, value_name = "N", conflicts_with = "url")]
    shards: Option<u16>,
    /// Partitions of each topic of the gate in this process [default: the profile's].
    #[arg(long, value_name = "N", conflicts_with = "url")]
    partitions: Option<u32>,
    /// Runs root: where the run of this load is put, or where the gate at --url keeps its runs.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Compare bus and receipts with what was sent: once, byte for byte, in order per key.
    #[arg(long)]
    verify: bool,
    /// What must be met, comma-separated, for example 'p99<20ms,rate>100000'.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    require: Vec<Requirement>,
    /// Where the report goes: FILE.json and FILE.html [default: <dir>/<run id>].
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Where loads lie that say nothing else.
const DIR: &str = "runs/load";

/// Runs the command.
pub fn run(args: LoadArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    if let Some(sentence) = args.usage_problem() {
        end_with_usage(sentence);
    }
    let settings = args.settings(ctx)?;
    let stem = args.report.clone();
    let folder = args.folder().to_owned();
    let report = match load::run(&args.plan(settings)) {
        Err(error) if error.is::<KnobProblem>() => end_with_usage(error.to_string()),
        other => other?,
    };
    let stem = stem.unwrap_or_else(|| folder.join(&report.platform_run_id));
    let files = write_files(&report, &stem)?;
    match ctx.format {
        OutputFormat::Json => print_json(&report)?,
        OutputFormat::Table => print_table(&table(&report))?,
    }
    for line in closing(&report, &files) {
        progress::say(&line);
    }
    Ok(match report.passed {
        true => Outcome::Ok,
        false => Outcome::Differences,
    })
}

/// As clap ends a command whose arguments make no sense.
fn end_with_usage(sentence: String) -> ! {
    super::Cli::command()
        .error(ErrorKind::ValueValidation, sentence)
        .exit()
}

impl LoadArgs {
    /// What clap cannot see.
    fn usage_problem(&self) -> Option<String> {
        let share = |share: f64| (0.0..1.0).contains(&share);
        let producers = self.producers();
        if !share(self.duplicates) || !share(self.invalid) || !share(self.duplicates + self.invalid)
        {
            return Some(
                "--duplicates, --invalid and their sum are shares from 0 to below 1".into(),
            );
        }
        if !(0.0..=10.0).contains(&self.skew) {
            return Some("--skew is from 0 to 10".into());
        }
        if self.keys < producers && self.world.is_none() {
            return Some(format!("--keys must be at least --producers ({producers})"));
        }
        if producers == 0 || self.batch == Some(0) || self.window == Some(0) {
            return Some("--producers, --batch and --window are at least 1".into());
        }
        if producers > 65_536 || self.batch() > 65_536 || self.window() > 65_536 {
            return Some("--producers, --batch and --window are at most 65,536".into());
        }
        if self.keys > 1 << 32 {
            return Some("--keys is at most 4,294,967,296".into());
        }
        if self.single && self.batch.is_some() {
            return Some("--single has no --batch".into());
        }
        if self.world.is_some() && (self.duplicates > 0.0 || self.invalid > 0.0) {
            return Some("a world is sent as it is: no --duplicates and no --invalid".into());
        }
        if self.world.is_some() && self.single {
            return Some("a world has one connection per output: send it in batches".into());
        }
        if self.verify && self.url.is_some() && self.dir.is_none() {
            return Some("--verify reads the gate's bus: give its runs root as --dir".into());
        }
        None
    }

    fn producers(&self) -> u64 {
        let default = if self.single { 32 } else { 4 };
        self.producers.unwrap_or(default)
    }

    fn batch(&self) -> u64 {
        match (self.single, &self.url) {
            (true, _) => 1,
            (false, Some(_)) => self.batch.unwrap_or(500),
            (false, None) => self.batch.unwrap_or(512),
        }
    }

    fn window(&self) -> u64 {
        match &self.url {
            Some(_) => 1,
            None => self
                .window
                .unwrap_or(if self.rate.is_some() { 256 } else { 16 }),
        }
    }

    fn folder(&self) -> &Path {
        self.dir.as_deref().unwrap_or(Path::new(DIR))
    }

    /// The profile with the run moved into the load's folder.
    fn settings(&self, ctx: &CliContext) -> anyhow::Result<Settings> {
        let mut layers = ctx.layers();
        if self.url.is_none() {
            let folder = self.folder().to_string_lossy().into_owned();
            layers.set_flag("wiring.object_store.root", folder.clone());
            layers.set_folder(folder);
        }
        if let Some(shards) = self.shards {
            layers.set_flag("wiring.gate.admission_shards", shards.to_string());
            layers.set_flag("wiring.gate.index_shards", shards.to_string());
        }
        if let Some(partitions) = self.partitions {
            layers.set_flag("wiring.event_bus.partitions", partitions.to_string());
        }
        let profile = ctx.profile().map_err(super::context::settings_failure)?;
        Settings::load(&profile, &layers).map_err(super::context::settings_failure)
    }

    fn plan(self, settings: Settings) -> LoadPlan {
        let (producers, batch, window) = (self.producers(), self.batch(), self.window());
        let endless = self.duration.is_none() && self.world.is_none();
        let security = &settings.wiring.security;
        let token = security.wsp_auth_token.as_ref();
        let auth = token.map(|token| {
            let header = security.api_key_header.clone();
            (header, token.expose().to_owned())
        });
        let target = match self.url {
            None => Target::InProcess,
            Some(address) => Target::Http {
                address: HttpGateAddress { auth, ..address },
                kind: match (self.single, self.minimal) {
                    (true, true) => PushKind::Single(AnswerForm::Reference),
                    (true, false) => PushKind::Single(AnswerForm::Receipt),
                    (false, _) => PushKind::Batch,
                },
                gate_process: self.gate_pid,
                runs_root: self
                    .dir
                    .as_ref()
                    .map(|dir| dir.to_string_lossy().into_owned()),
            },
        };
        let source = match self.world {
            None => Source::Synthetic,
            Some(root) => Source::World {
                root,
                scenario_id: self.scenario_id,
                outputs: self.output_ids,
            },
        };
        LoadPlan {
            settings,
            target,
            source,
            rate: self.rate,
            events: self.events.or(endless.then_some(EVENTS)),
            duration: self.duration,
            warmup: self.warmup,
            producers,
            batch,
            window,
            keys: self.keys,
            skew: self.skew,
            duplicates: self.duplicates,
            invalid: self.invalid,
            payload_bytes: self.payload_bytes.map(|bytes| bytes as usize),
            seed: self.seed,
            verify: self.verify,
            requirements: self.require,
        }
    }
}

/// A whole number, perhaps in thousands or millions: `200k`, `1.5M`.
fn count(text: &str) -> Result<u64, String> {
    let number = scaled(text)?;
    match number.fract() == 0.0 && number <= 1e15 {
        true => Ok(number as u64),
        false => Err("expected a whole number such as 1000, 200k or 1.5M".to_owned()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = scaled(text)?;
    match (0.001..=1e9).contains(&rate) {
        true => Ok(rate),
        false => Err("expected events per second, such as 50000 or 50k".to_owned()),
    }
}

fn scaled(text: &str) -> Result<f64, String> {
    let units = [("k", 1e3), ("M", 1e6), ("G", 1e9), ("", 1.0)];
    let read = units.iter().find_map(|(unit, factor)| {
        let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
        (number.is_finite() && number >= 0.0).then_some(number * factor)
    });
    read.ok_or_else(|| "expected a number such as 1000, 200k or 1.5M".to_owned())
}

fn address(url: &str) -> Result<HttpGateAddress, String> {
    HttpGateAddress::parse(url, None).map_err(|error| error.to_string())
}

/// Writes both forms of the report; gives their names.
fn write_files(report: &LoadReport, stem: &Path) -> anyhow::Result<[PathBuf; 2]> {
    let with = |extension: &str| {
        let mut name = stem.as_os_str().to_owned();
        name.push(extension);
        PathBuf::from(name)
    };
    let (json, page) = (with(".json"), with(".html"));
    if let Some(folder) = stem.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut text = serde_json::to_string_pretty(report)?;
    text.push('\n');
    std::fs::write(&json, text)?;
    std::fs::write(&page, html::page(report))?;
    Ok([json, page])
}

fn table(report: &LoadReport) -> TableView {
    let mut table = TableView::pairs();
    let counts = &report.counts;
    table.row(["sent".to_owned(), grouped(counts.sent)]);
    table.row(["admitted".to_owned(), grouped(counts.admitted)]);
    table.row(["duplicate".to_owned(), grouped(counts.duplicate)]);
    table.row(["quarantined".to_owned(), grouped(counts.quarantined)]);
    table.row(["refused".to_owned(), grouped(counts.refused)]);
    table.row([
        "events/s".to_owned(),
        grouped(report.events_per_second as u64),
    ]);
    if let Some(latency) = &report.latency {
        for (name, value) in [
            ("p50 ms", latency.p50_ms),
            ("p90 ms", latency.p90_ms),
            ("p99 ms", latency.p99_ms),
            ("p99.9 ms", latency.p999_ms),
            ("max ms", latency.max_ms),
        ] {
            table.row([name.to_owned(), format!("{value:.2}")]);
        }
    }
    if let Some(lateness) = &report.lateness {
        table.row([
            "sent late, p99 ms".to_owned(),
            format!("{:.2}", lateness.p99_ms),
        ]);
    }
    let cpu = &report.cpu;
    if let Some(seconds) = cpu.seconds_per_million {
        table.row(["CPU-s per million".to_owned(), format!("{seconds:.2}")]);
    }
    if let Some(seconds) = cpu.harness_seconds_per_million {
        table.row(["of it the harness".to_owned(), format!("{seconds:.2}")]);
    }
    if let Some(share) = cpu.used.others_share {
        table.row([
            "CPU of others".to_owned(),
            format!("{:.1} %", share * 100.0),
        ]);
    }
    if let Some(peak) = report.peak_resident_bytes {
        table.row(["peak memory".to_owned(), bytes(peak)]);
    }
    table
}

/// What a person wants to know besides the figures: everything that is wrong, then where to look.
fn closing(report: &LoadReport, files: &[PathBuf]) -> Vec<String> {
    let mut lines = Vec::new();
    for (code, times) in &report.refusals {
        lines.push(format!("refused {}: {code}", grouped(*times)));
    }
    for check in &report.checks {
        let verdict = match check.holds {
            Some(true) => "holds",
            Some(false) => "DOES NOT HOLD",
            None => "was not judged",
        };
        lines.push(format!("{} {verdict}: {}", check.name, check.detail));
    }
    lines.extend(
        report
            .requirements
            .iter()
            .map(|verdict| verdict.sentence.clone()),
    );
    let cpu = &report.cpu;
    lines.push(format!(
        "measured {:.2} s: {:.2} CPU-s ({:.2} user, {:.2} system) of {}",
        report.measured_seconds,
        cpu.used.process_seconds,
        cpu.used.user_seconds,
        cpu.used.system_seconds,
        cpu.of
    ));
    let names: Vec<String> = files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    lines.push(format!("report: {}", names.join("   ")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn parse(line: &str) -> Result<LoadArgs, String> {
        let words = ["wellspring", "load"].into_iter().chain(line.split(' '));
        let words = words.filter(|word| !word.is_empty());
        let cli = super::super::Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        match cli.command {
            super::super::Command::Load(args) => Ok(args),
            _ => panic!("it is a load"),
        }
    }

    #[test]
    fn counts_and_rates_are_read_in_thousands_and_millions() {
        assert_eq!(count("200k"), Ok(200_000));
        assert_eq!(count("1.5M"), Ok(1_500_000));
        assert!(count("1.5").is_err() && count("x").is_err() && count("-1").is_err());
        assert_eq!(rate("0.5"), Ok(0.5));
        assert!(rate("0").is_err() && rate("inf").is_err());
    }

    #[test]
    fn wrong_knobs_are_usage_errors_with_a_sentence() {
        for line in [
            "--duplicates 1",
            "--duplicates 0.6 --invalid 0.5",
            "--invalid -0.1",
            "--skew 11",
            "--keys 3",
            "--producers 0",
            "--batch 0",
            "--world w --invalid 0.1",
            "--url http://h:1 --verify",
            "--url http://h:1 --single --batch 5",
        ] {
            let problem = parse(line).map(|args| args.usage_problem());
            assert!(!matches!(problem, Ok(None)), "{line}");
        }
        for line in [
            "--require p99",
            "--single",
            "--url ftp://x",
            "--url http://h:1 --shards 2",
            "--duration soon",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        assert_eq!(parse("").unwrap().usage_problem(), None);
    }

    #[test]
    fn thresholds_come_in_one_list() {
        let args = parse("--require p99<20ms,rate>100k").unwrap();
        let texts: Vec<&str> = args.require.iter().map(|one| one.text.as_str()).collect();
        assert_eq!(texts, ["p99<20ms", "rate>100k"]);
    }
}
