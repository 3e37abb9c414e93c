//! Counters of one route, resolved when a snapshot is built: the data path adds to atomics and looks nothing up.

use std::sync::OnceLock;
use std::time::Duration;

use http::StatusCode;
use oilskin_config::Op;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::Histogram;
use super::metrics::{FieldLabels, Metrics, RequestLabels, RouteLabel};
use crate::error::Code;

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const ABORTED: usize = CLASSES.len();
const CODES: usize = ABORTED + 1;
const SLOTS: usize = CODES + Code::COUNT;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The upstream's answer went out whole.
    Answered(StatusCode),
    /// We answered.
    Refused(Code),
    /// A stream was cut, or the app left.
    Aborted,
}

/// The counters of one route. The same names give the same counters after a reload.
#[derive(Debug)]
pub(crate) struct RouteMetrics {
    listener: String,
    route: String,
    family: Family<RequestLabels, Counter>,
    // Filled at first use: 30 series a route, most for ever zero, would make `/metrics` of 1,000 routes megabytes.
    ends: [OnceLock<Counter>; SLOTS],
    seconds: Histogram,
    not_inspected: Counter,
}

impl RouteMetrics {
    /// The counters of a route.
    pub(crate) fn new(metrics: &Metrics, listener: &str, route: &str) -> Self {
        Self::bare(metrics, listener, route)
    }

    /// The counters of what reaches no route (`no_route`, refusals before routing): the label is `-`.
    pub(crate) fn unrouted(metrics: &Metrics, listener: &str) -> Self {
        Self::bare(metrics, listener, "-")
    }

    fn bare(metrics: &Metrics, listener: &str, route: &str) -> Self {
        let this = Self {
            listener: listener.to_owned(),
            route: route.to_owned(),
            family: metrics.requests.clone(),
            ends: [const { OnceLock::new() }; SLOTS],
            seconds: metrics.seconds.clone(),
            not_inspected: metrics.not_inspected.get_or_create_owned(&RouteLabel { route: route.to_owned() }),
        };
        // Present from the start, so that the first increase shows in a rate.
        this.slot(1);
        this
    }

    /// A body passed unread because no rule reads its type.
    pub(crate) fn not_inspected(&self) {
        self.not_inspected.inc();
    }

    /// Counts the end of a request, once.
    pub(crate) fn ended(&self, end: End, after: Duration) {
        if let Some(counter) = self.slot(place(end)) {
            counter.inc();
        }
        self.seconds.observe(after);
    }

    fn slot(&self, place: usize) -> Option<&Counter> {
        let slot = self.ends.get(place)?;
        Some(slot.get_or_init(|| self.family.get_or_create_owned(&self.labels(place))))
    }

    fn labels(&self, place: usize) -> RequestLabels {
        RequestLabels { listener: self.listener.clone(), route: self.route.clone(), code: label(place) }
    }
}

fn place(end: End) -> usize {
    match end {
        End::Answered(status) => class(status),
        End::Refused(code) => CODES + code.index(),
        End::Aborted => ABORTED,
    }
}

fn class(status: StatusCode) -> usize {
    usize::from(status.as_u16() / 100).saturating_sub(1).min(CLASSES.len() - 1)
}

fn label(place: usize) -> &'static str {
    let code = || place.checked_sub(CODES).and_then(|place| Code::ALL.get(place)).map(|code| code.as_str());
    CLASSES.get(place).copied().or_else(code).unwrap_or("aborted")
}

/// What became of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum FieldResult {
    /// Encrypted, or opened.
    Ok,
    /// Opened by a context other than the first.
    RenamedContext,
    /// Opened by a version that is retired: written back, it is encrypted anew.
    Stale,
    /// Opened by a backend that no longer writes.
    OtherBackend,
    /// No token while decrypting, accepted (`plaintext: accept`).
    PlaintextSeen,
    /// No token while decrypting, refused.
    PlaintextRefused,
    /// A token the app sent back that opened for its place.
    TokenKept,
    /// Did not open, or could not be encrypted.
    Failed,
    /// Its key was not there.
    KeyUnavailable,
}

impl FieldResult {
    /// Every result.
    pub(crate) const ALL: [Self; 9] = [
        Self::Ok,
        Self::RenamedContext,
        Self::Stale,
        Self::OtherBackend,
        Self::PlaintextSeen,
        Self::PlaintextRefused,
        Self::TokenKept,
        Self::Failed,
        Self::KeyUnavailable,
    ];

    /// Its label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::RenamedContext => "renamed_context",
            Self::Stale => "stale",
            Self::OtherBackend => "other_backend",
            Self::PlaintextSeen => "plaintext_seen",
            Self::PlaintextRefused => "plaintext_refused",
            Self::TokenKept => "token_kept",
            Self::Failed => "failed",
            Self::KeyUnavailable => "key_unavailable",
        }
    }
}

/// The counters of one rule in one direction.
#[derive(Debug)]
pub(crate) struct RuleMetrics {
    rule: String,
    op: Op,
    family: Family<FieldLabels, Counter>,
    results: [OnceLock<Counter>; FieldResult::ALL.len()],
}

impl RuleMetrics {
    /// The counters of the rule of that name.
    pub(crate) fn new(metrics: &Metrics, rule: &str, op: Op) -> Self {
        let family = metrics.fields.clone();
        let this = Self { rule: rule.to_owned(), op, family, results: [const { OnceLock::new() }; _] };
        this.add(FieldResult::Ok, 0);
        this
    }

    /// Counts `number` fields; one atomic add.
    pub(crate) fn add(&self, result: FieldResult, number: u64) {
        if let Some(slot) = self.results.get(result as usize) {
            slot.get_or_init(|| self.family.get_or_create_owned(&self.labels(result))).inc_by(number);
        }
    }

    fn labels(&self, result: FieldResult) -> FieldLabels {
        let op = match self.op {
            Op::Encrypt => "encrypt",
            Op::Decrypt => "decrypt",
        };
        FieldLabels { rule: self.rule.clone(), op, result: result.as_str() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_own_series() {
        let metrics = Metrics::new();
        let route = RouteMetrics::bare(&metrics, "out", "crm");
        for code in Code::ALL {
            route.ended(End::Refused(code), Duration::ZERO);
        }
        for code in Code::ALL {
            let line = format!("oilskin_requests_total{{listener=\"out\",route=\"crm\",code=\"{code}\"}} 1\n");
            assert!(metrics.text().contains(&line), "{line}");
        }
    }

    #[test]
    fn answers_count_by_class() {
        let metrics = Metrics::new();
        let route = RouteMetrics::bare(&metrics, "out", "crm");
        for status in [101, 200, 204, 404, 599, 999] {
            route.ended(End::Answered(StatusCode::from_u16(status).unwrap()), Duration::ZERO);
        }
        route.ended(End::Aborted, Duration::ZERO);
        for (code, count) in [("1xx", 1), ("2xx", 2), ("4xx", 1), ("5xx", 2), ("aborted", 1)] {
            let line = format!("route=\"crm\",code=\"{code}\"}} {count}\n");
            assert!(metrics.text().contains(&line), "{line}");
        }
        assert!(!metrics.text().contains("3xx"), "series that never were are not shown");
    }

    #[test]
    fn a_rebuilt_snapshot_goes_on_counting() {
        let metrics = Metrics::new();
        for _ in 0..2 {
            RouteMetrics::unrouted(&metrics, "out").ended(End::Refused(Code::NoRoute), Duration::ZERO);
        }
        assert!(metrics.text().contains("route=\"-\",code=\"no_route\"} 2\n"));
    }

    #[test]
    fn fields_count_by_rule_and_result() {
        let metrics = Metrics::new();
        RuleMetrics::new(&metrics, "$..ssn", Op::Encrypt).add(FieldResult::Ok, 3);
        RuleMetrics::new(&metrics, "$..ssn", Op::Decrypt).add(FieldResult::RenamedContext, 1);
        let text = metrics.text();
        assert!(text.contains("oilskin_fields_total{rule=\"$..ssn\",op=\"encrypt\",result=\"ok\"} 3\n"), "{text}");
        assert!(text.contains("op=\"decrypt\",result=\"renamed_context\"} 1\n"), "{text}");
    }
}
