//! When things happen: a diurnal and weekly rate, turned into times by its inverse.
//!
//! The rate is a table per hour of the local day and per weekday. For each distance to UTC the
//! cumulative rate over the whole world is tabulated every ten minutes; a fraction of the traffic maps
//! to a time by a search in that table.

use super::options::MICROS_PER_DAY;

const STEP_MICROS: i64 = 600 * 1_000_000;
const MICROS_PER_HOUR: i64 = 3600 * 1_000_000;

/// Rate per local hour, arbitrary unit.
const HOUR_RATE: [u32; 24] = [
    18, 11, 8, 7, 8, 14, 30, 52, 70, 78, 84, 96, 108, 98, 86, 84, 92, 108, 118, 112, 92, 70, 48, 30,
];
/// Rate per day of the week, Monday first, per hundred.
const WEEKDAY_RATE: [u32; 7] = [92, 94, 96, 100, 118, 124, 98];

/// The rate of one distance to UTC over the whole world.
pub(super) struct DayCurve {
    start_micros: i64,
    length_micros: i64,
    /// Cumulative rate at the end of each step, normalised to 1.
    cumulative: Vec<f64>,
}

impl DayCurve {
    /// Tabulates the rate between `start_micros` and `start_micros + length_micros`.
    pub(super) fn new(start_micros: i64, length_micros: i64, offset_minutes: i32) -> Self {
        let steps = (length_micros + STEP_MICROS - 1) / STEP_MICROS;
        let offset_micros = i64::from(offset_minutes) * 60_000_000;
        let mut total = 0.0;
        let mut cumulative: Vec<f64> = (0..steps)
            .map(|step| {
                let from = step * STEP_MICROS;
                let covered = (length_micros - from).min(STEP_MICROS);
                total += rate_at(start_micros + from + offset_micros) * covered as f64;
                total
            })
            .collect();
        for value in &mut cumulative {
            *value /= total;
        }
        Self {
            start_micros,
            length_micros,
            cumulative,
        }
    }

    /// The time before which `fraction` (0..1) of the traffic has happened.
    pub(super) fn time_at(&self, fraction: f64) -> i64 {
        let last = self.cumulative.len() - 1;
        let step = self
            .cumulative
            .partition_point(|share| *share <= fraction)
            .min(last);
        let before = if step == 0 {
            0.0
        } else {
            self.cumulative[step - 1]
        };
        let inside = (fraction - before) / (self.cumulative[step] - before);
        let from = step as i64 * STEP_MICROS;
        let covered = (self.length_micros - from).min(STEP_MICROS);
        let within = (inside * covered as f64) as i64;
        self.start_micros + from + within.clamp(0, covered - 1)
    }
}

fn rate_at(local_micros: i64) -> f64 {
    let day = local_micros.div_euclid(MICROS_PER_DAY);
    let in_day = local_micros.rem_euclid(MICROS_PER_DAY);
    let hour = (in_day / MICROS_PER_HOUR) as usize;
    let within = (in_day % MICROS_PER_HOUR) as f64 / MICROS_PER_HOUR as f64;
    let (this, next) = (
        f64::from(HOUR_RATE[hour]),
        f64::from(HOUR_RATE[(hour + 1) % 24]),
    );
    // 1970-01-01 was a Thursday.
    let weekday = (day + 3).rem_euclid(7) as usize;
    (this + (next - this) * within) * f64::from(WEEKDAY_RATE[weekday])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_rise_with_the_fraction_and_stay_inside_the_world() {
        let curve = DayCurve::new(1_000_000, 2 * MICROS_PER_DAY + 7, 330);
        let times: Vec<i64> = (0..1000)
            .map(|i| curve.time_at(f64::from(i) / 1000.0))
            .collect();
        assert!(times.windows(2).all(|pair| pair[0] <= pair[1]));
        assert!(times[0] >= 1_000_000);
        assert!(curve.time_at(0.999_999_999_9) < 1_000_000 + 2 * MICROS_PER_DAY + 7);
    }

    #[test]
    fn the_local_evening_is_busier_than_the_local_night() {
        let curve = DayCurve::new(0, MICROS_PER_DAY, 0);
        let count_between = |from: i64, to: i64| {
            let hours = |time: i64| time / MICROS_PER_HOUR;
            (0..10_000)
                .map(|i| hours(curve.time_at(f64::from(i) / 10_000.0)))
                .filter(|hour| (from..to).contains(hour))
                .count()
        };
        assert!(count_between(17, 20) > 5 * count_between(2, 5));
    }
}
