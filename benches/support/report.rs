//! The comparison: a JSON file per bench, and one page and one JSON file made of all of them.
//!
//! `WELLSPRING_BENCH_OUT` names the folder (default: `bench` in the target folder). A bench that runs again
//! replaces its rows; rows it did not measure this time are kept.

use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// One way's cost.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    pub name: String,
    pub events: u64,
    pub wall_seconds: f64,
    pub cpu_seconds: f64,
    /// Share of the machine other processes took, 0 to 1.
    pub other_share: f64,
    pub rounds: usize,
    /// p50 and p99 of the last round, when the work has a latency.
    pub latency_ms: Option<(f64, f64)>,
}

impl Figure {
    /// CPU seconds per million events.
    pub fn cpu_per_million(&self) -> f64 {
        self.cpu_seconds / self.events.max(1) as f64 * 1e6
    }

    /// Events a second on the wall.
    pub fn rate(&self) -> f64 {
        self.events as f64 / self.wall_seconds.max(1e-9)
    }
}

/// What ours is compared by.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// CPU per event, at most this many times the floor's.
    CpuRatioMax(f64),
    /// Wall time per event, at most this many times the floor's.
    WallRatioMax(f64),
    /// Events a second, at least this many times the floor's.
    RateRatioMin(f64),
    /// Seconds on the wall, at most.
    SecondsMax(f64),
    /// A value that was measured on the side, in the unit named, and its bound from above.
    ValueMax(f64, f64),
}

/// One piece of work: the floor first, ours last.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    pub work: String,
    pub figures: Vec<Figure>,
    pub goals: Vec<Goal>,
    pub note: String,
}

impl Row {
    fn ours(&self) -> &Figure {
        self.figures.last().expect("a row has a figure")
    }

    fn floor(&self) -> Option<&Figure> {
        self.figures.first().filter(|_| self.figures.len() > 1)
    }

    fn cpu_ratio(&self) -> Option<f64> {
        let floor = self.floor()?.cpu_per_million();
        Some(self.ours().cpu_per_million() / floor.max(1e-12))
    }

    fn wall_ratio(&self) -> Option<f64> {
        Some(self.floor()?.rate() / self.ours().rate().max(1e-12))
    }

    fn is_met(&self, goal: Goal) -> Option<bool> {
        Some(match goal {
            Goal::CpuRatioMax(bound) => self.cpu_ratio()? <= bound,
            Goal::WallRatioMax(bound) => self.wall_ratio()? <= bound,
            Goal::RateRatioMin(bound) => 1.0 / self.wall_ratio()? >= bound,
            Goal::SecondsMax(bound) => self.ours().wall_seconds <= bound,
            Goal::ValueMax(value, bound) => value <= bound,
        })
    }
}

impl Goal {
    fn words(self) -> String {
        match self {
            Goal::CpuRatioMax(bound) => format!("CPU <= {bound} x floor"),
            Goal::WallRatioMax(bound) => format!("wall <= {bound} x floor"),
            Goal::RateRatioMin(bound) => format!("rate >= {bound} x floor"),
            Goal::SecondsMax(bound) => format!("<= {bound} s"),
            Goal::ValueMax(value, bound) => format!("{value:.0} <= {bound:.0}"),
        }
    }
}

/// Prints a row as it was measured.
pub fn print_row(row: &Row) {
    println!("{}", row.work);
    for figure in &row.figures {
        println!(
            "  {:<44} {:>9.3} CPU-s/M  {:>10.0} events/s  wall {:>8.3} s  others {:>3.0} %",
            figure.name,
            figure.cpu_per_million(),
            figure.rate(),
            figure.wall_seconds,
            figure.other_share * 100.0
        );
        if let Some((p50, p99)) = figure.latency_ms {
            println!("  {:<44} p50 {p50:.2} ms, p99 {p99:.2} ms", "");
        }
    }
    if let (Some(cpu), Some(wall)) = (row.cpu_ratio(), row.wall_ratio()) {
        println!("  last / first: CPU {cpu:.2}, wall {wall:.2}");
    }
    for goal in &row.goals {
        println!("  goal {}: {}", goal.words(), verdict(row.is_met(*goal)));
    }
}

fn verdict(met: Option<bool>) -> &'static str {
    match met {
        Some(true) => "met",
        Some(false) => "NOT met",
        None => "not measured",
    }
}

/// Keeps the rows of a bench and writes the page anew.
pub fn save(bench: &str, rows: &[Row]) {
    let folder = folder();
    std::fs::create_dir_all(&folder).expect("a folder for the report");
    let file = folder.join(format!("{bench}.rows.json"));
    let mut kept = read(&file);
    for row in rows {
        match kept.iter_mut().find(|known| known.work == row.work) {
            Some(known) => *known = row.clone(),
            None => kept.push(row.clone()),
        }
    }
    write_json(&file, &kept);
    let all = read_all(&folder);
    write_json(&folder.join("bench-report.json"), &all);
    let page = folder.join("bench-report.md");
    std::fs::write(&page, render(&all)).expect("the page is written");
    println!("report: {}", page.display());
}

fn folder() -> PathBuf {
    match std::env::var_os("WELLSPRING_BENCH_OUT") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench"),
    }
}

#[derive(Serialize)]
struct Bench {
    bench: String,
    rows: Vec<Row>,
}

fn read_all(folder: &Path) -> Vec<Bench> {
    let entries = std::fs::read_dir(folder).expect("the report's folder");
    let mut benches: Vec<Bench> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_name()?.to_str()?;
            let bench = name.strip_suffix(".rows.json")?.to_owned();
            Some(Bench {
                bench,
                rows: read(&path),
            })
        })
        .collect();
    benches.sort_by(|a, b| a.bench.cmp(&b.bench));
    benches
}

fn read(file: &Path) -> Vec<Row> {
    let Ok(text) = std::fs::read(file) else {
        return Vec::new();
    };
    serde_json::from_slice(&text).expect("rows as this program writes them")
}

fn write_json<T: Serialize + ?Sized>(file: &Path, value: &T) {
    let text = serde_json::to_vec_pretty(value).expect("figures are JSON");
    std::fs::write(file, text).expect("the report is written");
}

fn render(benches: &[Bench]) -> String {
    let mut page = "# Bench report\n\nCPU-s/M: CPU seconds of the process per million events. \
        Ratios are ours to the floor measured in the same run; a wall ratio is of time per event. \
        Others: share of all processors that other processes took meanwhile; above 15 % a row is not quiet.\n"
        .to_owned();
    for bench in benches {
        let _ = write!(
            page,
            "\n## {}\n\n| work | ours CPU-s/M | floor CPU-s/M | ratio | ours events/s | wall ratio | goal | met | others |\n\
             |---|---|---|---|---|---|---|---|---|\n",
            bench.bench
        );
        for row in &bench.rows {
            page.push_str(&line_of(row));
        }
        for row in &bench.rows {
            notes_of(row, &mut page);
        }
    }
    page
}

fn line_of(row: &Row) -> String {
    let ratio = |ratio: Option<f64>| ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
    let floor = row.floor().map(Figure::cpu_per_million);
    let goals: Vec<String> = row.goals.iter().map(|goal| goal.words()).collect();
    let met: Vec<&str> = row
        .goals
        .iter()
        .map(|goal| verdict(row.is_met(*goal)))
        .collect();
    let shares = row.figures.iter().map(|figure| figure.other_share);
    format!(
        "| {} | {:.3} | {} | {} | {:.0} | {} | {} | {} | {:.0} % |\n",
        row.work,
        row.ours().cpu_per_million(),
        floor.map_or("-".to_owned(), |floor| format!("{floor:.3}")),
        ratio(row.cpu_ratio()),
        row.ours().rate(),
        ratio(row.wall_ratio()),
        goals.join("; "),
        met.join("; "),
        shares.fold(0.0, f64::max) * 100.0
    )
}

/// Ways between the floor and ours, and remarks.
fn notes_of(row: &Row, page: &mut String) {
    let between = row.figures.len().saturating_sub(1);
    for figure in row.figures.iter().take(between).skip(1) {
        let _ = write!(
            page,
            "\n{}: {} takes {:.3} CPU-s/M at {:.0} events/s.\n",
            row.work,
            figure.name,
            figure.cpu_per_million(),
            figure.rate()
        );
    }
    for figure in &row.figures {
        if let Some((p50, p99)) = figure.latency_ms {
            let name = &figure.name;
            let _ = write!(
                page,
                "\n{}: latency of {name}: p50 {p50:.2} ms, p99 {p99:.2} ms.\n",
                row.work
            );
        }
    }
    if !row.note.is_empty() {
        let _ = write!(page, "\n{}: {}\n", row.work, row.note);
    }
}
