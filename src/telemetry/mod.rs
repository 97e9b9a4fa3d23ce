//! Tracing and metrics set-up.

pub mod log_lines;
pub mod metrics;
pub mod run_logs;
pub mod spans;

use run_logs::RunLogs;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Telemetry of this process. Keep it to the end of `main`: dropping it sends the last spans.
pub struct Telemetry {
    /// The logs of the active run; silent until a run is attached.
    pub run_logs: RunLogs,
    spans: Option<spans::SpanExport>,
}

/// How much a command says on stderr unless `RUST_LOG` says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verbosity {
    /// Commands: warnings and errors.
    Quiet,
    /// Services: what happens, too.
    Service,
}

/// Sets logging and span export up for the whole process. Calling it again changes nothing.
pub fn start(verbosity: Verbosity) -> Telemetry {
    let run_logs = RunLogs::default();
    let spans = spans::SpanExport::from_environment();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        EnvFilter::new(match verbosity {
            Verbosity::Quiet => "warn",
            Verbosity::Service => "info,hyper=warn,reqwest=warn",
        })
    });
    let stderr = tracing_subscriber::fmt::layer()
        .event_format(log_lines::LogLine)
        .fmt_fields(log_lines::PlainFields)
        .with_writer(std::io::stderr);
    let stderr = tracing_subscriber::Layer::with_filter(stderr, filter);
    let exported = spans.as_ref().map(spans::SpanExport::layer);
    let registry = tracing_subscriber::registry()
        .with(exported)
        .with(stderr)
        .with(run_logs.layer());
    // Already set: a second call in the same process, as tests do.
    let _ = registry.try_init();
    Telemetry { run_logs, spans }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(spans) = self.spans.take() {
            spans.finish();
        }
    }
}
