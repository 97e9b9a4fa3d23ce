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
            Ok(exporter) => Some(SpanExport::through(exporter)),
            Err(error) => {
                crate::cli::progress::say(&format!("{ENDPOINT}: spans are not exported: {error}"));
                None
            }
        }
    }

    fn through(exporter: SpanExporter) -> Self {
        let resource = Resource::builder().with_service_name("wellspring").build();
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_batch_exporter(exporter)
            .build();
        SpanExport { provider }
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

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_otlp::WithExportConfig;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn a_span_reaches_the_collector_when_the_program_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        let collector = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut seen = Vec::new();
            let mut part = [0; 4096];
            // The body ends with the span; both names are plain bytes in protobuf.
            while !String::from_utf8_lossy(&seen).contains("flush_of_shard_0") {
                let read = stream.read(&mut part).unwrap();
                assert_ne!(read, 0, "the request ends early");
                seen.extend_from_slice(&part[..read]);
            }
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                .unwrap();
            String::from_utf8_lossy(&seen).into_owned()
        });
        let exporter = SpanExporter::builder()
            .with_http()
            .with_endpoint(url)
            .build()
            .unwrap();
        let export = SpanExport::through(exporter);
        let subscriber = tracing_subscriber::registry().with(export.layer());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info_span!("flush_of_shard_0").in_scope(|| {});
        });
        export.finish();
        let request = collector.join().unwrap();
        assert!(request.starts_with("POST /v1/traces HTTP/1.1"), "{request}");
        assert!(request.contains("wellspring"), "{request}");
    }
}
