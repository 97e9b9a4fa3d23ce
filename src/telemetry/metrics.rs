//! The Prometheus recorder behind the `metrics` facade, and `GET /metrics`.

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use std::sync::{Mutex, PoisonError};

/// Upper bounds of every histogram in seconds (names ending in `_seconds`): 100 us to 10 s.
const LATENCY_BUCKETS: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

static RECORDER: Mutex<Option<Metrics>> = Mutex::new(None);

/// The metrics of this process. The `metrics` facade is process-wide, and so is this.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl Metrics {
    /// Installs the recorder, once; later calls give the same one.
    pub fn start() -> Result<Metrics, BuildError> {
        let mut recorder = RECORDER.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(metrics) = recorder.as_ref() {
            return Ok(metrics.clone());
        }
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_string()), &LATENCY_BUCKETS)?
            .install_recorder()?;
        Ok(recorder.insert(Metrics { handle }).clone())
    }

    /// All metrics as Prometheus text.
    pub fn render(&self) -> String {
        self.handle.run_upkeep();
        self.handle.render()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wellspring_actors::runtime::StageMetrics;

    #[test]
    fn what_stages_count_is_rendered_as_prometheus_text() {
        Metrics::start().unwrap();
        let stage = StageMetrics::new("metrics_test");
        stage.taken(3, 100);
        stage.dropped("TOO_LATE", 1);
        ::metrics::histogram!("wellspring_test_seconds").record(0.002);
        let text = Metrics::start().unwrap().render();
        for line in [
            r#"wellspring_stage_events_in_total{stage="metrics_test"} 3"#,
            r#"wellspring_stage_bytes_in_total{stage="metrics_test"} 100"#,
            r#"wellspring_stage_dropped_total{stage="metrics_test",reason="TOO_LATE"} 1"#,
            r#"wellspring_test_seconds_bucket{le="0.0025"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
