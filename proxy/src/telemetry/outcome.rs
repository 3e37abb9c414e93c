//! How a request ended, recorded once, even when nobody was left to say so.

use std::borrow::Borrow;
use std::time::{Duration, Instant};

use http::StatusCode;

use super::RouteMetrics;
use crate::error::Code;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The upstream's answer went out whole.
    Answered(StatusCode),
    /// We answered.
    Refused(Code),
    /// A stream was cut, or the app left.
    Aborted,
}

/// Records its request in `Drop`: [`End::Aborted`] unless [`Outcome::record`] ran before.
///
/// `R` is whatever holds the counters: an `Arc<RouteMetrics>`, or a worker's own handle that borrows as one.
#[derive(Debug)]
pub struct Outcome<R: Borrow<RouteMetrics>> {
    route: R,
    started: Instant,
    end: End,
}

impl<R: Borrow<RouteMetrics>> Outcome<R> {
    /// Starts the request's one timer.
    pub fn new(route: R) -> Self {
        Self::started_at(route, Instant::now())
    }

    /// Takes over a timer that ran before the route was known.
    pub fn started_at(route: R, started: Instant) -> Self {
        Self { route, started, end: End::Aborted }
    }

    /// Says how it ended; the last word counts.
    pub fn record(&mut self, end: End) {
        self.end = end;
    }

    /// What was recorded so far.
    pub fn end(&self) -> End {
        self.end
    }

    /// Time since the request began.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The counters.
    pub fn route(&self) -> &RouteMetrics {
        self.route.borrow()
    }
}

impl<R: Borrow<RouteMetrics>> Drop for Outcome<R> {
    fn drop(&mut self) {
        self.route.borrow().ended(self.end, self.started.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn an_outcome_nobody_recorded_is_aborted() {
        let metrics = Metrics::new();
        let route = Arc::new(RouteMetrics::unrouted(&metrics, "out"));
        drop(Outcome::new(Arc::clone(&route)));
        assert!(metrics.text().contains("code=\"aborted\"} 1\n"));
        assert!(metrics.text().contains("oilskin_request_seconds_count 1\n"));
    }

    #[test]
    fn only_the_last_word_counts() {
        let metrics = Metrics::new();
        let mut outcome = Outcome::new(Arc::new(RouteMetrics::unrouted(&metrics, "out")));
        outcome.record(End::Answered(StatusCode::OK));
        outcome.record(End::Refused(Code::UpstreamClosed));
        drop(outcome);
        assert!(metrics.text().contains("code=\"upstream_closed\"} 1\n"));
        assert!(metrics.text().contains("code=\"2xx\"} 0\n"));
    }
}
