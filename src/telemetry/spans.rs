//! Span export over OTLP, only when `OTEL_EXPORTER_OTLP_ENDPOINT` is set: no default needs the
//! network.

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracerProvider, Tracer};
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::registry::LookupSpan;

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// Sends spans in batches from a thread of its own.
pub(super) struct SpanExport {
    provider: SdkTracerProvider,
}

impl SpanExport {
    /// The export the environment asks for, if any. One that cannot start is said and left out.
    pub(super) fn from_environment() -> Option<Self> {
        let asked = std::env::var(ENDPOINT).is_ok_and(|endpoint| !endpoint.trim().is_empty());
        if !asked {
            return None;
        }
        match SpanExporter::builder().with_http().build() {
            Ok(exporter) => {
                let resource = Resource::builder().with_service_name("wellspring").build();
                let provider = SdkTracerProvider::builder()
                    .with_resource(resource)
                    .with_batch_exporter(exporter)
                    .build();
                Some(SpanExport { provider })
            }
            Err(error) => {
                crate::cli::progress::say(&format!("{ENDPOINT}: spans are not exported: {error}"));
                None
            }
        }
    }

    pub(super) fn layer<S>(&self) -> OpenTelemetryLayer<S, Tracer>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        tracing_opentelemetry::layer().with_tracer(self.provider.tracer("wellspring"))
    }

    /// Sends what is left. A collector that does not answer does not hold up the end.
    pub(super) fn finish(self) {
        if let Err(error) = self.provider.shutdown() {
            crate::cli::progress::say(&format!(
                "{ENDPOINT}: the last spans were not sent: {error}"
            ));
        }
    }
}
