//! Log lines as the contract writes them: `YYYY-MM-DD HH:MM:SS [LEVEL] logger: message` (1.4).
//!
//! Fields follow the message as `key=value`. A field named `logger` names the logger instead of the
//! module. Line ends inside values are escaped, so a line is always one line.

use std::fmt::{self, Write};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;
use wellspring_domain::ports::Clock;
use wellspring_domain::time_text::Micros;

use crate::clock::SystemClock;

/// Formats events for stderr.
pub struct LogLine;

/// Formats span fields; events do not use it.
pub struct PlainFields;

impl<S, N> FormatEvent<S, N> for LogLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        writeln!(writer, "{}", line_of(event, SystemClock::new().now()))
    }
}

impl<'a> FormatFields<'a> for PlainFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'a>, fields: R) -> fmt::Result {
        let mut parts = Parts::default();
        fields.record(&mut parts);
        write!(writer, "{}", parts.values.trim_start())
    }
}

/// The line of an event, without a line end.
pub fn line_of(event: &Event<'_>, now: Micros) -> String {
    let mut parts = Parts::default();
    event.record(&mut parts);
    let target = event.metadata().target();
    let logger = parts.logger.as_deref().unwrap_or(target);
    let level = level_name(*event.metadata().level());
    format!(
        "{} [{level}] {logger}: {}{}",
        stamp(now),
        parts.message,
        parts.values
    )
}

/// `YYYY-MM-DD HH:MM:SS`.
fn stamp(now: Micros) -> String {
    let civil = now.civil();
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        civil.year, civil.month, civil.day, civil.hour, civil.minute, civil.second
    )
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        Level::DEBUG => "DEBUG",
        Level::TRACE => "TRACE",
    }
}

#[derive(Default)]
struct Parts {
    message: String,
    logger: Option<String>,
    values: String,
}

impl Parts {
    fn take(&mut self, field: &Field, text: &str) {
        match field.name() {
            "message" => self.message = one_line(text),
            "logger" => self.logger = Some(one_line(text)),
            // Fields of the `log` bridge repeat what the line says already.
            name if name.starts_with("log.") => {}
            name => {
                // Writing to a string cannot fail.
                let _ = write!(self.values, " {name}={}", one_line(text));
            }
        }
    }
}

impl Visit for Parts {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, &format!("{value:?}"));
    }
}

fn one_line(text: &str) -> String {
    text.replace('\r', "\\r").replace('\n', "\\n")
}
