//! The plot: each ratio with its interval and its goal on one logarithmic scale.

use std::fmt::Write;

use crate::row::{Goal, Row, Verdict};

const LABEL: f64 = 560.0;
const SCALE: f64 = 480.0;
const LINE: f64 = 22.0;
const TOP: f64 = 34.0;

/// The ratios among `rows` as an SVG document.
pub(crate) fn svg(rows: &[Row]) -> String {
    let ratios: Vec<_> =
        rows.iter().filter(|row| row.unit == "×").filter_map(|row| Some((row, row.measured.as_ref().ok()?))).collect();
    let scale = Scale::over(ratios.iter().flat_map(|(row, interval)| {
        let goal = goal(row).unwrap_or(1.0);
        [interval.low, interval.high, goal]
    }));
    let (width, height) = (LABEL + SCALE + 20.0, TOP + LINE * ratios.len() as f64 + 10.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for tick in scale.ticks() {
        let x = scale.x(tick);
        let _ = writeln!(out, "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{height}\" stroke=\"#ddd\"/>");
        let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"20\" text-anchor=\"middle\" fill=\"#555\">{tick} ×</text>");
    }
    for (at, (row, interval)) in ratios.iter().enumerate() {
        let y = TOP + LINE * (at as f64 + 0.5);
        let colour = match row.verdict() {
            Verdict::Met => "#1a7f37",
            Verdict::Missed | Verdict::Failed => "#cf222e",
            Verdict::Shown => "#57606a",
        };
        let (low, mid, high) = (scale.x(interval.low), scale.x(interval.mid), scale.x(interval.high));
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LABEL - 12.0,
            y + 4.0,
            escape(&row.what)
        );
        let _ = writeln!(
            out,
            "<line x1=\"{low:.1}\" x2=\"{high:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"{colour}\" stroke-width=\"3\"/>"
        );
        let _ = writeln!(out, "<circle cx=\"{mid:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>");
        if let Some(goal) = goal(row) {
            let x = scale.x(goal);
            let (top, bottom) = (y - 8.0, y + 8.0);
            let _ = writeln!(
                out,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top:.1}\" y2=\"{bottom:.1}\" stroke=\"black\" stroke-width=\"2\"/>"
            );
        }
    }
    out.push_str("</svg>\n");
    out
}

fn goal(row: &Row) -> Option<f64> {
    match row.goal {
        Goal::AtMost(goal) | Goal::AtLeast(goal) => Some(goal),
        Goal::Shown(_) => None,
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    fn over(values: impl Iterator<Item = f64>) -> Self {
        let (mut low, mut high) = (0.5_f64, 2.0_f64);
        for value in values.filter(|value| *value > 0.0) {
            (low, high) = (low.min(value), high.max(value));
        }
        Self { low: low * 0.9, high: high * 1.1 }
    }

    fn x(&self, value: f64) -> f64 {
        LABEL + SCALE * (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0]
            .into_iter()
            .filter(|tick| (self.low..=self.high).contains(tick))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Interval;

    #[test]
    fn every_ratio_is_drawn_inside_and_nothing_else() {
        let interval = Interval { low: 0.1, mid: 0.2, high: 30.0 };
        let rows = [
            Row::ratio("part", "a < b", Goal::AtMost(1.25), interval),
            Row::value("part", "idle", Goal::AtMost(15.0), "MB", interval),
            Row::failed("part", &anyhow::anyhow!("gone")),
        ];
        let svg = svg(&rows);
        assert_eq!(svg.matches("<circle").count(), 1);
        assert!(svg.contains("a &lt; b") && !svg.contains("idle"), "{svg}");
        let inside = |x: f64| (LABEL..=LABEL + SCALE).contains(&x);
        let scale = Scale::over([0.1, 30.0].into_iter());
        assert!(inside(scale.x(0.1)) && inside(scale.x(30.0)));
        assert!(scale.ticks().count() >= 5);
    }
}
