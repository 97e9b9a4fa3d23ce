//! Thresholds a load must meet: `p99<20ms,rate>100000`.
//!
//! A requirement is a metric, a comparison and a value. Times need a unit (`us`, `ms`, `s`), counts may have
//! one (`k`, `M`), memory must (`MiB`, `GiB`), errors may be a share (`%`).

use std::fmt;
use std::str::FromStr;

/// What can be required of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// A quantile of the latency, in 1/1000 of a percent: 99 % is 99,000.
    Quantile(u32),
    /// The longest latency.
    Max,
    /// The mean latency.
    Mean,
    /// 99 % of the events were sent at most so late (open loop).
    Lateness,
    /// Decided events per second.
    Rate,
    /// Refused events, as a number.
    Errors,
    /// Refused events, as a share of those sent.
    ErrorShare,
    /// CPU-seconds per million decided events.
    Cpu,
    /// Most resident memory.
    Rss,
}

/// How a measured value is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Smaller.
    Below,
    /// Smaller or equal.
    AtMost,
    /// Larger.
    Above,
    /// Larger or equal.
    AtLeast,
}

/// One threshold.
#[derive(Clone, Debug, PartialEq)]
pub struct Requirement {
    /// As it was written.
    pub text: String,
    /// What is measured.
    pub metric: Metric,
    /// How it is compared.
    pub comparison: Comparison,
    /// With what: milliseconds, events per second, events, a share, CPU-seconds or bytes.
    pub limit: f64,
}

/// What was measured, as thresholds ask for it. `None` when there is no such figure.
pub trait Measured {
    /// The value of a metric in its unit.
    fn value(&self, metric: Metric) -> Option<f64>;
}

/// A threshold beside what was measured.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Verdict {
    /// The threshold as written.
    pub requirement: String,
    /// What was measured, with its unit.
    pub measured: String,
    /// Whether it was met.
    pub met: bool,
    /// Both in a sentence.
    pub sentence: String,
}

/// Why a text is no threshold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequireError {
    /// No comparison in it.
    #[error("{0:?} has no comparison: write for example p99<20ms or rate>100000")]
    NoComparison(String),
    /// Another metric.
    #[error(
        "{0:?} cannot be required: there are p50, p90, p99, p999 and the like, max, mean, lateness, rate, \
         errors, cpu and rss"
    )]
    UnknownMetric(String),
    /// Not a number, or not with this unit.
    #[error("{value:?} is no {what}")]
    BadValue {
        /// What was written.
        value: String,
        /// What is needed.
        what: &'static str,
    },
}

const COMPARISONS: [(&str, Comparison); 4] = [
    ("<=", Comparison::AtMost),
    (">=", Comparison::AtLeast),
    ("<", Comparison::Below),
    (">", Comparison::Above),
];

impl FromStr for Requirement {
    type Err = RequireError;

    fn from_str(text: &str) -> Result<Requirement, RequireError> {
        let text = text.trim();
        let found = COMPARISONS
            .iter()
            .find_map(|(sign, comparison)| Some((text.split_once(sign)?, *comparison)));
        let Some(((name, value), comparison)) = found else {
            return Err(RequireError::NoComparison(text.to_owned()));
        };
        let metric = metric_of(name.trim(), value.trim())?;
        let limit = limit_of(metric, value.trim())?;
        Ok(Requirement {
            text: text.to_owned(),
            metric,
            comparison,
            limit,
        })
    }
}

impl Requirement {
    /// Compares with what was measured. A figure that does not exist meets nothing.
    pub fn judge(&self, measured: &dyn Measured) -> Verdict {
        let value = measured.value(self.metric);
        let met = value.is_some_and(|value| match self.comparison {
            Comparison::Below => value < self.limit,
            Comparison::AtMost => value <= self.limit,
            Comparison::Above => value > self.limit,
            Comparison::AtLeast => value >= self.limit,
        });
        let shown = match value {
            Some(value) => shown(self.metric, value),
            None => "nothing".to_owned(),
        };
        let verb = if met { "is met" } else { "is not met" };
        Verdict {
            requirement: self.text.clone(),
            sentence: format!("{} {verb}: {} was {shown}", self.text, self.metric),
            measured: shown,
            met,
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Metric::Quantile(thousandths) => {
                write!(f, "p{}", f64::from(*thousandths) / 1000.0)
            }
            Metric::Max => f.write_str("the longest latency"),
            Metric::Mean => f.write_str("the mean latency"),
            Metric::Lateness => f.write_str("the p99 of lateness"),
            Metric::Rate => f.write_str("the rate"),
            Metric::Errors => f.write_str("the number of refused events"),
            Metric::ErrorShare => f.write_str("the share of refused events"),
            Metric::Cpu => f.write_str("the CPU time per million events"),
            Metric::Rss => f.write_str("the peak memory"),
        }
    }
}

fn metric_of(name: &str, value: &str) -> Result<Metric, RequireError> {
    let known = match name {
        "max" => Some(Metric::Max),
        "mean" => Some(Metric::Mean),
        "lateness" => Some(Metric::Lateness),
        "rate" => Some(Metric::Rate),
        "errors" if value.ends_with('%') => Some(Metric::ErrorShare),
        "errors" => Some(Metric::Errors),
        "cpu" => Some(Metric::Cpu),
        "rss" => Some(Metric::Rss),
        _ => name.strip_prefix('p').and_then(quantile_of),
    };
    known.ok_or_else(|| RequireError::UnknownMetric(name.to_owned()))
}

/// `50` is half, `999` is 99.9 %, `99.9` too; three digits and more mean a percentage above 90.
fn quantile_of(digits: &str) -> Option<Metric> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let percent: f64 = match digits.len() {
        1 | 2 if plain => digits.parse().ok()?,
        3..=5 if plain && digits.starts_with('9') => {
            format!("{}.{}", &digits[..2], &digits[2..]).parse().ok()?
        }
        _ if digits.starts_with(|first: char| first.is_ascii_digit()) => digits.parse().ok()?,
        _ => return None,
    };
    let thousandths = (percent * 1000.0).round();
    (thousandths > 0.0 && thousandths < 100_000.0).then_some(Metric::Quantile(thousandths as u32))
}

fn limit_of(metric: Metric, value: &str) -> Result<f64, RequireError> {
    let (what, units): (&'static str, &[(&str, f64)]) = match metric {
        Metric::Quantile(_) | Metric::Max | Metric::Mean | Metric::Lateness => (
            "time with a unit, such as 20ms, 800us or 1.5s",
            &[("us", 0.001), ("µs", 0.001), ("ms", 1.0), ("s", 1000.0)],
        ),
        Metric::Rate | Metric::Errors => (
            "number, such as 100000, 100k or 1.5M",
            &[("k", 1e3), ("M", 1e6), ("", 1.0)],
        ),
        Metric::ErrorShare => ("share, such as 0.1%", &[("%", 0.01)]),
        Metric::Cpu => (
            "number of CPU-seconds per million events, such as 4.5",
            &[("s", 1.0), ("", 1.0)],
        ),
        Metric::Rss => (
            "size with a unit, such as 900MiB or 1GiB",
            &[
                ("KiB", 1024.0),
                ("MiB", 1_048_576.0),
                ("GiB", 1_073_741_824.0),
            ],
        ),
    };
    let scaled = units.iter().find_map(|(unit, factor)| {
        let number: f64 = value.strip_suffix(unit)?.trim().parse().ok()?;
        (number.is_finite() && number >= 0.0).then_some(number * factor)
    });
    scaled.ok_or_else(|| RequireError::BadValue {
        value: value.to_owned(),
        what,
    })
}

fn shown(metric: Metric, value: f64) -> String {
    match metric {
        Metric::Quantile(_) | Metric::Max | Metric::Mean | Metric::Lateness => {
            format!("{value:.3} ms")
        }
        Metric::Rate => format!("{value:.0} events/s"),
        Metric::Errors => format!("{value:.0}"),
        Metric::ErrorShare => format!("{:.4} %", value * 100.0),
        Metric::Cpu => format!("{value:.2} CPU-s"),
        Metric::Rss => format!("{:.1} MiB", value / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Always(Option<f64>);

    impl Measured for Always {
        fn value(&self, _: Metric) -> Option<f64> {
            self.0
        }
    }

    fn read(text: &str) -> Requirement {
        text.parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn every_metric_has_its_units() {
        let table = [
            ("p50<20ms", Metric::Quantile(50_000), 20.0),
            ("p99 <= 800us", Metric::Quantile(99_000), 0.8),
            ("p999<1.5s", Metric::Quantile(99_900), 1500.0),
            ("p99.99<60ms", Metric::Quantile(99_990), 60.0),
            ("p9999<60ms", Metric::Quantile(99_990), 60.0),
            ("max<2s", Metric::Max, 2000.0),
            ("mean<5ms", Metric::Mean, 5.0),
            ("lateness<5ms", Metric::Lateness, 5.0),
            ("rate>100000", Metric::Rate, 100_000.0),
            ("rate>=100k", Metric::Rate, 100_000.0),
            ("rate>1.5M", Metric::Rate, 1_500_000.0),
            ("errors<=0", Metric::Errors, 0.0),
            ("errors<0.1%", Metric::ErrorShare, 0.001),
            ("cpu<4.5", Metric::Cpu, 4.5),
            ("rss<1GiB", Metric::Rss, 1_073_741_824.0),
        ];
        for (text, metric, limit) in table {
            let read = read(text);
            assert_eq!(read.metric, metric, "{text}");
            assert!((read.limit - limit).abs() < 1e-9, "{text}: {}", read.limit);
        }
    }

    #[test]
    fn what_cannot_be_required_is_refused_with_a_reason() {
        for text in [
            "",
            "p99",
            "p99=20ms",
            "p99<20",
            "p99<ms",
            "p100<1ms",
            "p0<1ms",
            "p<1ms",
            "pabc<1ms",
            "speed>1",
            "rate>fast",
            "rate>-1",
            "rate>10ms",
            "errors<x%",
            "rss<5",
            "cpu<NaN",
            "max<infs",
            "p99<<20ms",
            "p-5<1ms",
        ] {
            let error = text.parse::<Requirement>();
            assert!(error.is_err(), "{text:?} was read as {error:?}");
        }
    }

    #[test]
    fn a_missed_threshold_says_what_was_measured() {
        let verdict = read("p99<20ms").judge(&Always(Some(31.25)));
        assert!(!verdict.met);
        assert_eq!(verdict.sentence, "p99<20ms is not met: p99 was 31.250 ms");
        let verdict = read("rate>10").judge(&Always(None));
        assert!(!verdict.met, "what was not measured meets nothing");
        assert!(read("rate>10").judge(&Always(Some(11.0))).met);
    }

    proptest! {
        #[test]
        fn comparisons_hold_exactly(limit in 0u32..1000, value in 0u32..1000) {
            let judge = |sign: &str| {
                let text = format!("rate{sign}{limit}");
                read(&text).judge(&Always(Some(f64::from(value)))).met
            };
            prop_assert_eq!(judge("<"), value < limit);
            prop_assert_eq!(judge("<="), value <= limit);
            prop_assert_eq!(judge(">"), value > limit);
            prop_assert_eq!(judge(">="), value >= limit);
        }

        #[test]
        fn no_text_breaks_the_parser(text in "\\PC{0,40}") {
            let _ = text.parse::<Requirement>();
        }
    }
}
