//! When a batch of envelopes is full (design 3.11): by events, by bytes, by the span of schedule it
//! covers, and always at the end of a part, so that a checkpoint names one part.

/// The limits of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Most events in one batch.
    pub events_max: u32,
    /// A batch is closed once it holds at least this many bytes.
    pub bytes_max: u32,
    /// Longest span of schedule in one batch, in microseconds; none when the run is not paced.
    pub schedule_span_micros_max: Option<u64>,
}

impl BatchLimits {
    /// The shipped limits: 512 events, 1 MiB, 5 ms of schedule when paced.
    pub fn standard(paced: Paced) -> Self {
        let span = match paced {
            Paced::Yes => Some(5_000),
            Paced::No => None,
        };
        Self {
            events_max: 512,
            bytes_max: 1 << 20,
            schedule_span_micros_max: span,
        }
    }
}

/// Whether a run follows a schedule or goes as fast as possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paced {
    /// Events wait until they are due.
    Yes,
    /// Events go out as fast as the gate takes them.
    No,
}

/// What a batch holds so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchFill {
    /// Events in the batch.
    pub events: u32,
    /// Bytes in the batch.
    pub bytes: u32,
    /// When the first event is due, in microseconds after the start of the run.
    pub first_due_micros: u64,
}

impl BatchFill {
    /// Whether the batch must be closed before an event due at `next_due_micros` joins it.
    pub fn closes_before(&self, limits: &BatchLimits, next_due_micros: u64) -> bool {
        if self.events == 0 {
            return false;
        }
        let span = next_due_micros.saturating_sub(self.first_due_micros);
        self.events >= limits.events_max
            || self.bytes >= limits.bytes_max
            || limits
                .schedule_span_micros_max
                .is_some_and(|max| span > max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(events: u32, bytes: u32, first_due_micros: u64) -> BatchFill {
        BatchFill {
            events,
            bytes,
            first_due_micros,
        }
    }

    #[test]
    fn an_empty_batch_takes_any_event() {
        let limits = BatchLimits {
            events_max: 1,
            bytes_max: 1,
            schedule_span_micros_max: Some(0),
        };
        assert!(!fill(0, 0, 0).closes_before(&limits, u64::MAX));
    }

    #[test]
    fn a_batch_closes_at_its_event_byte_and_schedule_limit() {
        let limits = BatchLimits::standard(Paced::Yes);
        assert!(!fill(511, 100, 0).closes_before(&limits, 0));
        assert!(fill(512, 100, 0).closes_before(&limits, 0));
        assert!(!fill(1, (1 << 20) - 1, 0).closes_before(&limits, 0));
        assert!(fill(1, 1 << 20, 0).closes_before(&limits, 0));
        assert!(!fill(1, 1, 1_000).closes_before(&limits, 6_000));
        assert!(fill(1, 1, 1_000).closes_before(&limits, 6_001));
    }

    #[test]
    fn without_pacing_time_never_closes_a_batch() {
        assert!(!fill(1, 1, 0).closes_before(&BatchLimits::standard(Paced::No), u64::MAX));
    }
}
