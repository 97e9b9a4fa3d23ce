//! The report as one page that needs nothing else: styles and pictures are in it.

use super::report::{Knobs, LoadReport};
use super::sampler::Point;
use super::svg::{Chart, Line, Scale};
use crate::cli::output::{bytes, grouped};
use std::fmt::Write;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1d2430;--soft:#667085;--rule:#d8dde6;--paper:#fff;--card:#f6f8fb;\
--good:#137a4b;--bad:#b42318;--c0:#2563c9;--c1:#d9730d;--c2:#b02a6b}\
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#9aa4b2;--rule:#333b48;--paper:#14181f;--card:#1c222c;\
--good:#4cc38a;--bad:#ff8a80;--c0:#6ea8fe;--c1:#f5a25d;--c2:#ef7fb4}}\
body{margin:0 auto;padding:24px;max-width:920px;background:var(--paper);color:var(--ink);\
font:15px/1.5 system-ui,sans-serif}\
h1{font-size:22px;margin:0}h2{font-size:16px;margin:28px 0 8px}p{margin:4px 0;color:var(--soft)}\
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:8px;margin:16px 0}\
.tile{background:var(--card);border-radius:8px;padding:10px 12px}\
.tile b{display:block;font-size:19px;font-variant-numeric:tabular-nums}.tile span{color:var(--soft);font-size:12px}\
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
td,th{text-align:left;padding:4px 8px;border-bottom:1px solid var(--rule);vertical-align:top}\
td.n{text-align:right}.good{color:var(--good)}.bad{color:var(--bad)}\
svg{width:100%;height:auto;background:var(--card);border-radius:8px}\
.grid{stroke:var(--rule);fill:none}.line{fill:none;stroke-width:1.6}\
.l0{stroke:var(--c0)}.l1{stroke:var(--c1)}.l2{stroke:var(--c2)}\
.mark{fill:var(--soft);font-size:11px}.end{text-anchor:end}.middle{text-anchor:middle}";

/// The whole page.
pub fn page(report: &LoadReport) -> String {
    let mut html = String::with_capacity(64 * 1024);
    let title = format!("Load of {}", escaped(&report.platform_run_id));
    let _ = write!(
        html,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{title}</title><style>{STYLE}</style></head><body>\n\
         <h1>{title}</h1>\n<p>{}</p>\n",
        escaped(&summary(report))
    );
    tiles(&mut html, report);
    verdicts(&mut html, report);
    for (name, chart) in charts(report) {
        let _ = write!(html, "<h2>{name}</h2>\n{}\n", chart.render());
    }
    pairs(&mut html, "Processors and memory", &cpu_rows(report));
    pairs(&mut html, "Knobs", &knob_rows(&report.knobs));
    html.push_str("</body></html>\n");
    html
}

fn summary(report: &LoadReport) -> String {
    let knobs = &report.knobs;
    let pace = match knobs.rate {
        Some(rate) => format!(
            "open loop at {} events/s, latency from the planned send time",
            grouped(rate as u64)
        ),
        None => "closed loop at full speed, latency from handing over".to_owned(),
    };
    let verdict = if report.passed {
        "passed"
    } else {
        "NOT passed"
    };
    format!(
        "{}: {verdict}. {}, {pace}. Wellspring {}.",
        report.started_at, knobs.target, report.build
    )
}

fn tiles(html: &mut String, report: &LoadReport) {
    html.push_str("<div class=\"tiles\">");
    let mut tile = |value: String, name: &str| {
        let _ = write!(
            html,
            "<div class=\"tile\"><b>{value}</b><span>{name}</span></div>"
        );
    };
    tile(
        grouped(report.events_per_second as u64),
        "events per second",
    );
    if let Some(latency) = &report.latency {
        tile(format!("{:.2} ms", latency.p50_ms), "p50");
        tile(format!("{:.2} ms", latency.p99_ms), "p99");
        tile(format!("{:.2} ms", latency.p999_ms), "p99.9");
        tile(format!("{:.2} ms", latency.max_ms), "longest");
    }
    if let Some(cpu) = report.cpu.seconds_per_million {
        tile(format!("{cpu:.2}"), "CPU-s per million events");
    }
    tile(grouped(report.counts.admitted), "admitted");
    tile(grouped(report.counts.refused), "refused");
    html.push_str("</div>\n");
}

fn verdicts(html: &mut String, report: &LoadReport) {
    html.push_str("<h2>Checks and requirements</h2>\n<table>");
    for check in &report.checks {
        let (class, word) = match check.holds {
            Some(true) => ("good", "holds"),
            Some(false) => ("bad", "DOES NOT HOLD"),
            None => ("", "not judged"),
        };
        let _ = write!(
            html,
            "<tr><td>{}</td><td class=\"{class}\">{word}</td><td>{}</td></tr>",
            check.name,
            escaped(&check.detail)
        );
    }
    for verdict in &report.requirements {
        let (class, word) = match verdict.met {
            true => ("good", "met"),
            false => ("bad", "NOT MET"),
        };
        let _ = write!(
            html,
            "<tr><td>{}</td><td class=\"{class}\">{word}</td><td>{}</td></tr>",
            escaped(&verdict.requirement),
            escaped(&verdict.measured)
        );
    }
    for (code, times) in &report.refusals {
        let _ = write!(
            html,
            "<tr><td>refused</td><td>{}</td><td>{}</td></tr>",
            grouped(*times),
            escaped(code)
        );
    }
    html.push_str("</table>\n");
}

fn charts(report: &LoadReport) -> Vec<(&'static str, Chart)> {
    let line = |name, value: fn(&Point) -> Option<f64>| Line {
        name,
        points: report
            .points
            .iter()
            .filter_map(|point| Some((point.at_seconds, value(point)?)))
            .collect(),
    };
    let over_time = |title, y_name, y_scale, lines| Chart {
        title,
        x_name: "seconds since the load began",
        y_name,
        x_marks: Vec::new(),
        y_scale,
        lines,
    };
    vec![
        ("Latency by percentile", percentiles(report)),
        (
            "Latency over time",
            over_time(
                "latency over time",
                "ms",
                Scale::Log,
                vec![
                    line("p50", |point| point.p50_ms),
                    line("p99", |point| point.p99_ms),
                    line("longest", |point| point.max_ms),
                ],
            ),
        ),
        (
            "Throughput over time",
            over_time(
                "events per second over time",
                "events/s",
                Scale::Linear,
                vec![
                    line("sent", |point| Some(point.sent_per_second)),
                    line("decided", |point| Some(point.decided_per_second)),
                    line("refused", |point| Some(point.refused_per_second)),
                ],
            ),
        ),
        (
            "Processors over time",
            over_time(
                "busy processors over time",
                "processors",
                Scale::Linear,
                vec![
                    line("this process", |point| Some(point.process_processors)),
                    line("others", |point| point.others_share.map(on_this_machine)),
                ],
            ),
        ),
    ]
}

fn on_this_machine(share: f64) -> f64 {
    share * std::thread::available_parallelism().map_or(1, usize::from) as f64
}

/// Each nine of the percentage takes the same width.
fn percentiles(report: &LoadReport) -> Chart {
    let curve = report.latency.iter().flat_map(|latency| &latency.curve);
    let nines = |percent: f64| -(1.0 - percent / 100.0).max(1e-12).log10();
    let points: Vec<(f64, f64)> = curve.map(|(percent, ms)| (nines(*percent), *ms)).collect();
    let last = points.last().map_or(0.0, |point| point.0);
    let marks = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999];
    Chart {
        title: "latency by percentile",
        x_name: "percentile",
        y_name: "ms",
        x_marks: marks
            .into_iter()
            .filter(|percent| nines(*percent) <= last + 1e-9)
            .map(|percent| (nines(percent), format!("{percent} %")))
            .collect(),
        y_scale: Scale::Log,
        lines: vec![Line {
            name: "latency",
            points,
        }],
    }
}

fn cpu_rows(report: &LoadReport) -> Vec<(&'static str, String)> {
    let cpu = &report.cpu;
    let used = &cpu.used;
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let mut rows = vec![
        ("Processor time is of", cpu.of.to_owned()),
        ("Wall", format!("{:.2} s", used.wall_seconds)),
        (
            "This process",
            format!(
                "{:.2} CPU-s ({:.2} user, {:.2} system)",
                used.process_seconds, used.user_seconds, used.system_seconds
            ),
        ),
        (
            "Of it the harness",
            format!("{:.2} CPU-s", cpu.harness_seconds),
        ),
    ];
    if let Some(gate) = used.gate_seconds {
        rows.push(("The gate's process", format!("{gate:.2} CPU-s")));
    }
    let others = used.others_share;
    rows.push((
        "Taken by other processes",
        others.map_or("unknown".to_owned(), percent),
    ));
    rows.push(("Taken by the machine's host", percent(used.stolen_share)));
    rows.push(("Processors", used.processors.to_string()));
    if let Some(peak) = report.peak_resident_bytes {
        rows.push(("Peak resident memory of this process", bytes(peak)));
    }
    rows
}

fn knob_rows(knobs: &Knobs) -> Vec<(&'static str, String)> {
    let none = || "-".to_owned();
    let number = |value: Option<u64>| value.map_or_else(none, grouped);
    vec![
        ("target", knobs.target.to_owned()),
        ("url", knobs.url.clone().unwrap_or_else(none)),
        ("loop", knobs.r#loop.to_owned()),
        ("rate", number(knobs.rate.map(|rate| rate as u64))),
        ("source", knobs.source.clone()),
        ("events", number(knobs.events)),
        (
            "duration",
            knobs
                .duration_seconds
                .map_or_else(none, |seconds| format!("{seconds} s")),
        ),
        ("warm-up", format!("{} s", knobs.warmup_seconds)),
        ("producers", grouped(knobs.producers)),
        ("batch", grouped(knobs.batch)),
        ("window", grouped(knobs.window)),
        ("keys", number(knobs.keys)),
        ("skew", knobs.skew.to_string()),
        ("duplicates", knobs.duplicates.to_string()),
        ("invalid", knobs.invalid.to_string()),
        ("payload bytes", number(knobs.payload_bytes)),
        ("envelope bytes", number(knobs.envelope_bytes)),
        ("seed", knobs.seed.to_string()),
        ("shards", number(knobs.shards)),
        ("partitions", number(knobs.partitions)),
    ]
}

fn pairs(html: &mut String, title: &str, rows: &[(&str, String)]) {
    let _ = write!(html, "<h2>{title}</h2>\n<table>");
    for (name, value) in rows {
        let _ = write!(
            html,
            "<tr><td>{name}</td><td class=\"n\">{}</td></tr>",
            escaped(value)
        );
    }
    html.push_str("</table>\n");
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '"' => safe.push_str("&quot;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_cannot_leave_their_place() {
        assert_eq!(escaped("<b a=\"1\">&"), "&lt;b a=&quot;1&quot;&gt;&amp;");
    }
}
