//! A row of the table: what was measured, what must be reached, and whether it was.

use crate::stats::Interval;

/// What a row must reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Goal {
    /// Its upper end may not pass this.
    AtMost(f64),
    /// Its lower end may not fall below this.
    AtLeast(f64),
    /// Printed beside the others, with what is expected.
    Shown(&'static str),
}

/// One measured thing.
#[derive(Debug)]
pub(crate) struct Row {
    /// The part of the bench it belongs to, by which it can be run alone.
    pub(crate) part: &'static str,
    pub(crate) what: String,
    pub(crate) goal: Goal,
    /// `×` for ratios, which are plotted.
    pub(crate) unit: &'static str,
    /// The figure, or why there is none.
    pub(crate) measured: Result<Interval, String>,
    /// What a reader should know beside the figure.
    pub(crate) note: String,
}

/// How a row ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Met,
    Missed,
    /// It has no goal.
    Shown,
    /// It could not be measured.
    Failed,
}

impl Row {
    pub(crate) fn ratio(part: &'static str, what: impl Into<String>, goal: Goal, interval: Interval) -> Self {
        Self { part, what: what.into(), goal, unit: "×", measured: Ok(interval), note: String::new() }
    }

    pub(crate) fn value(
        part: &'static str,
        what: impl Into<String>,
        goal: Goal,
        unit: &'static str,
        interval: Interval,
    ) -> Self {
        Self { unit, ..Self::ratio(part, what, goal, interval) }
    }

    /// A part that could not be measured.
    pub(crate) fn failed(part: &'static str, error: &anyhow::Error) -> Self {
        let measured = Err(format!("{error:#}"));
        Self { part, what: part.to_owned(), goal: Goal::Shown(""), unit: "", measured, note: String::new() }
    }

    pub(crate) fn note(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }

    /// Met only where the unfavourable end of the interval meets the goal.
    pub(crate) fn verdict(&self) -> Verdict {
        let Ok(interval) = &self.measured else { return Verdict::Failed };
        let met = match self.goal {
            Goal::AtMost(most) => interval.high <= most,
            Goal::AtLeast(least) => interval.low >= least,
            Goal::Shown(_) => return Verdict::Shown,
        };
        if met { Verdict::Met } else { Verdict::Missed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unfavourable_end_decides() {
        let interval = Interval { low: 0.9, mid: 1.0, high: 1.1 };
        let verdict = |goal| Row::ratio("part", "what", goal, interval).verdict();
        assert_eq!(verdict(Goal::AtMost(1.1)), Verdict::Met);
        assert_eq!(verdict(Goal::AtMost(1.05)), Verdict::Missed);
        assert_eq!(verdict(Goal::AtLeast(0.9)), Verdict::Met);
        assert_eq!(verdict(Goal::AtLeast(0.95)), Verdict::Missed);
        assert_eq!(verdict(Goal::Shown("")), Verdict::Shown);
        assert_eq!(Row::failed("part", &anyhow::anyhow!("gone")).verdict(), Verdict::Failed);
    }
}
