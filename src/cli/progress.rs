//! Progress on stderr: a moving bar on a terminal, plain lines now and then in a pipe.

use super::output::grouped;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const PLAIN_LINE_EVERY: Duration = Duration::from_secs(5);

/// One piece of work a person may be waiting for. Shared between threads by reference.
pub struct Progress {
    label: String,
    total: Option<u64>,
    shown: Shown,
}

enum Shown {
    Bar(ProgressBar),
    Lines {
        done: AtomicU64,
        last_line: Mutex<Instant>,
        note: Mutex<String>,
    },
}

impl Progress {
    /// Starts showing `label`, out of `total` units when that is known.
    pub fn start(label: impl Into<String>, total: Option<u64>) -> Self {
        let label = label.into();
        if io::stderr().is_terminal() {
            let bar = bar(&label, total);
            return Progress {
                label,
                total,
                shown: Shown::Bar(bar),
            };
        }
        say(&format!("{label} ..."));
        let lines = Shown::Lines {
            done: AtomicU64::new(0),
            last_line: Mutex::new(Instant::now()),
            note: Mutex::default(),
        };
        Progress {
            label,
            total,
            shown: lines,
        }
    }

    /// Adds finished units.
    pub fn add(&self, units: u64) {
        match &self.shown {
            Shown::Bar(bar) => bar.inc(units),
            Shown::Lines { done, .. } => {
                let sum = done.fetch_add(units, Ordering::Relaxed) + units;
                self.maybe_line(sum);
            }
        }
    }

    /// Sets how many units are finished.
    pub fn set(&self, units: u64) {
        match &self.shown {
            Shown::Bar(bar) => bar.set_position(units),
            Shown::Lines { done, .. } => {
                done.store(units, Ordering::Relaxed);
                self.maybe_line(units);
            }
        }
    }

    /// Says how it goes, beside how far it is.
    pub fn note(&self, text: &str) {
        match &self.shown {
            Shown::Bar(bar) => bar.set_message(text.to_owned()),
            Shown::Lines { note, .. } => {
                // Another thread is printing what it found before.
                if let Ok(mut note) = note.try_lock() {
                    text.clone_into(&mut note);
                }
            }
        }
    }

    /// Ends it with a closing sentence.
    pub fn finish(&self, sentence: impl AsRef<str>) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
        say(&format!("{}: {}", self.label, sentence.as_ref()));
    }

    fn maybe_line(&self, done: u64) {
        let Shown::Lines {
            last_line, note, ..
        } = &self.shown
        else {
            return;
        };
        // Another thread is printing: it says the same.
        let Ok(mut last) = last_line.try_lock() else {
            return;
        };
        if last.elapsed() < PLAIN_LINE_EVERY {
            return;
        }
        *last = Instant::now();
        let mut line = plain_line(&self.label, done, self.total);
        if let Some(note) = note.try_lock().ok().filter(|note| !note.is_empty()) {
            line.push_str(&format!("; {}", *note));
        }
        say(&line);
    }
}

/// A line for the person in front of the terminal. Never mixes with results: it goes to stderr.
pub fn say(line: &str) {
    // Nobody listens on a closed stderr, and that must not end the work.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

fn plain_line(label: &str, done: u64, total: Option<u64>) -> String {
    match total {
        Some(total) if total > 0 => {
            let percent = done.min(total) * 100 / total;
            format!(
                "{label}: {} of {} ({percent} %)",
                grouped(done),
                grouped(total)
            )
        }
        _ => format!("{label}: {}", grouped(done)),
    }
}

fn bar(label: &str, total: Option<u64>) -> ProgressBar {
    let bar = match total {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::new_spinner(),
    };
    let template = match total {
        Some(_) => "{prefix} [{bar:32}] {human_pos}/{human_len} {per_sec} eta {eta} {msg}",
        None => "{prefix} {spinner} {human_pos} {per_sec} {msg}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(label.to_string());
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_line_names_the_work_and_how_far_it_is() {
        assert_eq!(
            plain_line("sort", 1500, Some(3000)),
            "sort: 1,500 of 3,000 (50 %)"
        );
        assert_eq!(plain_line("sort", 1500, None), "sort: 1,500");
        assert_eq!(plain_line("sort", 5, Some(0)), "sort: 5");
    }
}
