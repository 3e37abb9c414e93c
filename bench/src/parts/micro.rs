//! Field engine and rewriter in this process, each beside what one would write instead.

mod engine;
mod rewriter;
mod samples;

use anyhow::Result;
use rustix::time::{ClockId, clock_gettime};

use super::{Found, Plan};
use crate::row::{Goal, Row};
use crate::stats::{Interval, median, ratios};

/// CPU seconds that one side of a round takes at least: hundreds of runs of the shortest.
const SIDE: f64 = 0.02;

/// Rounds are short here, so there are more of them.
const ROUNDS_EACH: usize = 3;

/// Two ways to do the same work, to be run by turns.
struct Pair {
    /// What the row is called.
    what: &'static str,
    /// Ours must be at least so many times as fast.
    must: f64,
    /// What it is compared with.
    baseline: Box<dyn FnMut()>,
    ours: Box<dyn FnMut()>,
}

pub(super) fn engine(plan: &Plan) -> Result<Found> {
    run("engine", engine::pairs()?, plan)
}

pub(super) fn rewriter(plan: &Plan) -> Result<Found> {
    run("rewriter", rewriter::pairs()?, plan)
}

fn run(part: &'static str, pairs: Vec<Pair>, plan: &Plan) -> Result<Found> {
    let mut found = Found::default();
    for mut pair in pairs {
        let (mut baseline, mut ours) = (Vec::new(), Vec::new());
        for round in 0..plan.rounds * ROUNDS_EACH {
            // Whoever goes first finds the caches as the other left them: by turns.
            if round % 2 == 0 {
                baseline.push(seconds(&mut pair.baseline));
                ours.push(seconds(&mut pair.ours));
            } else {
                ours.push(seconds(&mut pair.ours));
                baseline.push(seconds(&mut pair.baseline));
            }
        }
        let interval = Interval::bootstrap(&ratios(&baseline, &ours)?)?;
        let note = format!("{:.1} µs against {:.1} µs", median(&ours)? * 1e6, median(&baseline)? * 1e6);
        found.rows.push(Row::ratio(part, pair.what, Goal::AtLeast(pair.must), interval).note(note));
    }
    Ok(found)
}

/// CPU seconds of this thread that one run takes.
pub(super) fn seconds(run: &mut dyn FnMut()) -> f64 {
    let started = now();
    let mut runs = 0;
    loop {
        run();
        runs += 1;
        let taken = now() - started;
        if taken >= SIDE {
            return taken / f64::from(runs);
        }
    }
}

fn now() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}
