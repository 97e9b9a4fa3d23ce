//! Line charts as SVG text: no script, no font, no network.

use std::fmt::Write;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 28.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 44.0;

/// How values lie on an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From zero on, evenly.
    Linear,
    /// Each step ten times the one before.
    Log,
}

/// One line of a chart.
pub struct Line {
    /// Its name in the legend.
    pub name: &'static str,
    /// Its points, from left to right.
    pub points: Vec<(f64, f64)>,
}

/// A chart.
pub struct Chart {
    /// What it shows, for readers that see no picture.
    pub title: &'static str,
    /// Name of the horizontal axis.
    pub x_name: &'static str,
    /// Name of the vertical axis.
    pub y_name: &'static str,
    /// Marks on the horizontal axis, with their texts; made from the points when empty.
    pub x_marks: Vec<(f64, String)>,
    /// The vertical axis.
    pub y_scale: Scale,
    /// The lines.
    pub lines: Vec<Line>,
}

/// The range of one axis and where its values lie.
struct Axis {
    low: f64,
    high: f64,
    scale: Scale,
    from: f64,
    to: f64,
}

impl Axis {
    fn place(&self, value: f64) -> f64 {
        let (low, high, value) = match self.scale {
            Scale::Linear => (self.low, self.high, value),
            Scale::Log => (
                self.low.log10(),
                self.high.log10(),
                value.max(self.low).log10(),
            ),
        };
        self.from + (value - low) / (high - low) * (self.to - self.from)
    }

    fn marks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Log => {
                let first = self.low.log10().round() as i32;
                let last = self.high.log10().round() as i32;
                (first..=last).map(|power| 10f64.powi(power)).collect()
            }
            Scale::Linear => {
                let step = round_step((self.high - self.low) / 5.0);
                let count = ((self.high - self.low) / step + 1e-9) as u32;
                (0..=count)
                    .map(|mark| self.low + f64::from(mark) * step)
                    .collect()
            }
        }
    }
}

/// 1, 2 or 5 times a power of ten.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    let rounded = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    let fits = rounded.into_iter().find(|step| *step >= least * 0.999);
    fits.unwrap_or(10.0 * power)
}

impl Chart {
    /// The chart as an `svg` element; a sentence when there is nothing to draw.
    pub fn render(&self) -> String {
        let all = || self.lines.iter().flat_map(|line| line.points.iter());
        if all().count() < 2 {
            return "<p class=\"none\">Too few points to draw.</p>".to_owned();
        }
        let x = self.x_axis(all().map(|point| point.0));
        let y = self.y_axis(all().map(|point| point.1));
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
            self.title
        );
        self.grid(&mut svg, &x, &y);
        for (index, line) in self.lines.iter().enumerate() {
            let points = line.points.iter();
            let places: Vec<String> = points
                .map(|(at, value)| format!("{:.1},{:.1}", x.place(*at), y.place(*value)))
                .collect();
            let _ = writeln!(
                svg,
                "<polyline class=\"line l{index}\" points=\"{}\"/>",
                places.join(" ")
            );
        }
        self.legend(&mut svg);
        svg.push_str("</svg>");
        svg
    }

    fn x_axis(&self, values: impl Iterator<Item = f64>) -> Axis {
        let marks = self.x_marks.iter().map(|mark| mark.0);
        // From zero on, so that marks are round.
        let (low, high) = bounds(values.chain(marks).chain([0.0]));
        Axis {
            low,
            high: if high > low { high } else { low + 1.0 },
            scale: Scale::Linear,
            from: LEFT,
            to: WIDTH - RIGHT,
        }
    }

    fn y_axis(&self, values: impl Iterator<Item = f64>) -> Axis {
        let (low, high) = match self.y_scale {
            Scale::Linear => {
                let (_, high) = bounds(values);
                let high = if high > 0.0 { high } else { 1.0 };
                let step = round_step(high / 5.0);
                (0.0, (high / step).ceil() * step)
            }
            Scale::Log => {
                let (low, high) = bounds(values.filter(|value| *value > 0.0));
                let (low, high) = if low <= high {
                    (low, high)
                } else {
                    (1.0, 10.0)
                };
                let low = 10f64.powf(low.log10().floor());
                let high = 10f64.powf(high.log10().ceil());
                (low, if high > low { high } else { low * 10.0 })
            }
        };
        Axis {
            low,
            high,
            scale: self.y_scale,
            from: HEIGHT - BOTTOM,
            to: TOP,
        }
    }

    fn grid(&self, svg: &mut String, x: &Axis, y: &Axis) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for value in y.marks() {
            let at = y.place(value);
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/>\
                 <text class=\"mark end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                LEFT - 6.0,
                at + 4.0,
                short(value)
            );
        }
        let own_marks = || x.marks().into_iter().map(|mark| (mark, short(mark)));
        let marks: Vec<(f64, String)> = match self.x_marks.is_empty() {
            true => own_marks().collect(),
            false => self.x_marks.clone(),
        };
        for (value, text) in marks {
            let at = x.place(value);
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{at:.1} {TOP}V{bottom}\"/>\
                 <text class=\"mark middle\" x=\"{at:.1}\" y=\"{:.1}\">{text}</text>",
                bottom + 16.0
            );
        }
        let _ = writeln!(
            svg,
            "<text class=\"mark middle\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\
             <text class=\"mark\" x=\"4\" y=\"11\">{}</text>",
            (LEFT + right) / 2.0,
            HEIGHT - 8.0,
            self.x_name,
            self.y_name
        );
    }

    fn legend(&self, svg: &mut String) {
        for (index, line) in self.lines.iter().enumerate() {
            let at = WIDTH - RIGHT - 110.0 * (self.lines.len() - index) as f64;
            let _ = writeln!(
                svg,
                "<path class=\"line l{index}\" d=\"M{at:.1} 8h18\"/>\
                 <text class=\"mark\" x=\"{:.1}\" y=\"12\">{}</text>",
                at + 23.0,
                line.name
            );
        }
    }
}

fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    })
}

/// `1.5k`, `20M`, `0.25`.
fn short(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e3 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = format!("{scaled:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(y_scale: Scale, points: Vec<(f64, f64)>) -> Chart {
        Chart {
            title: "a title",
            x_name: "seconds",
            y_name: "ms",
            x_marks: Vec::new(),
            y_scale,
            lines: vec![Line {
                name: "p99",
                points,
            }],
        }
    }

    #[test]
    fn points_lie_inside_and_higher_values_higher() {
        let svg = chart(Scale::Linear, vec![(0.0, 1.0), (5.0, 3.0), (10.0, 2.0)]).render();
        let points = svg.split("points=\"").nth(1).unwrap();
        let points = points.split('"').next().unwrap();
        let places: Vec<(f64, f64)> = points
            .split(' ')
            .map(|point| {
                let (x, y) = point.split_once(',').unwrap();
                (x.parse().unwrap(), y.parse().unwrap())
            })
            .collect();
        assert!(places.iter().all(|(x, y)| {
            (LEFT..=WIDTH - RIGHT).contains(x) && (TOP..=HEIGHT - BOTTOM).contains(y)
        }));
        assert!(places[1].1 < places[2].1 && places[2].1 < places[0].1);
    }

    #[test]
    fn strange_values_give_a_picture_or_a_sentence_and_never_nan() {
        for scale in [Scale::Linear, Scale::Log] {
            for points in [
                vec![],
                vec![(1.0, 1.0)],
                vec![(1.0, 0.0), (1.0, 0.0)],
                vec![(0.0, 5.0), (1.0, 5.0)],
                vec![(0.0, 0.001), (1.0, 90_000.0)],
            ] {
                let svg = chart(scale, points.clone()).render();
                assert!(
                    !svg.contains("NaN") && !svg.contains("inf"),
                    "{points:?}: {svg}"
                );
            }
        }
    }

    #[test]
    fn marks_are_round_and_short() {
        assert_eq!(round_step(3.1), 5.0);
        assert_eq!(round_step(0.011), 0.02);
        assert_eq!(short(1500.0), "1.5k");
        assert_eq!(short(20_000_000.0), "20M");
        assert_eq!(short(0.25), "0.25");
        assert_eq!(short(0.0), "0");
    }
}
