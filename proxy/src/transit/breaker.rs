//! Keeps calls from a Vault that does not answer: after failures in a row nobody asks for a moment, then one does.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::backoff;

/// Failures in a row that open it.
const FAILURES: u32 = 3;

/// How long nobody asks: from this on, up to twice that.
const PAUSE: Duration = Duration::from_millis(250);

/// The longest that Vault may ask to be spared for.
const LONGEST: Duration = Duration::from_secs(5);

/// A worker's breaker. Only what says something about Vault counts: an answer, of whatever kind, closes it.
#[derive(Default)]
pub(super) struct Breaker {
    failures: Cell<u32>,
    /// Nobody asks until then.
    until: Cell<Option<Instant>>,
    /// Somebody tries whether it answers again.
    probing: Cell<bool>,
    /// What it failed with last.
    reason: Cell<&'static str>,
}

impl Breaker {
    /// Whether to call now.
    ///
    /// # Errors
    /// What the calls before failed with.
    pub(super) fn admit(&self, now: Instant) -> Result<(), &'static str> {
        let Some(until) = self.until.get() else { return Ok(()) };
        match now < until || self.probing.replace(true) {
            true => Err(self.reason.get()),
            false => Ok(()),
        }
    }

    /// Vault has answered.
    pub(super) fn answered(&self) {
        self.failures.set(0);
        self.until.set(None);
        self.probing.set(false);
    }

    /// It has not, or it asks to be spared for so long. Returns whether this opened the breaker.
    pub(super) fn failed(&self, now: Instant, reason: &'static str, spare: Option<Duration>) -> bool {
        let failures = self.failures.get() + 1;
        self.failures.set(failures);
        self.reason.set(reason);
        self.probing.set(false);
        if failures < FAILURES && spare.is_none() {
            return false;
        }
        let was_closed = self.until.get().is_none();
        let pause = spare.map_or_else(|| PAUSE.mul_f64(1.0 + backoff::share()), |spare| spare.min(LONGEST));
        self.until.set(Some(now + pause));
        was_closed
    }

    /// A call ended without telling anything: its messages are gone.
    pub(super) fn given_up(&self) {
        self.probing.set(false);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Breaker, FAILURES, PAUSE};

    #[test]
    fn it_opens_after_failures_in_a_row_and_lets_one_try() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        for _ in 1..FAILURES {
            assert!(!breaker.failed(now, "sealed", None));
            breaker.admit(now).unwrap();
        }
        assert!(breaker.failed(now, "sealed", None));
        assert_eq!(breaker.admit(now), Err("sealed"));
        let later = now + 2 * PAUSE + Duration::from_millis(1);
        breaker.admit(later).unwrap();
        assert_eq!(breaker.admit(later), Err("sealed"), "one tries, the others wait");
        assert!(!breaker.failed(later, "timeout", None), "it was open already");
        assert_eq!(breaker.admit(later), Err("timeout"));
        breaker.admit(later + 2 * PAUSE).unwrap();
        breaker.answered();
        breaker.admit(later).unwrap();
        breaker.admit(later).unwrap();
    }

    #[test]
    fn whoever_asks_to_be_spared_is_spared_but_not_for_ever() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        assert!(breaker.failed(now, "throttled", Some(Duration::from_secs(1))));
        assert_eq!(breaker.admit(now + Duration::from_millis(900)), Err("throttled"));
        breaker.admit(now + Duration::from_millis(1_001)).unwrap();
        breaker.failed(now, "throttled", Some(Duration::from_secs(86_400)));
        breaker.admit(now + Duration::from_secs(6)).unwrap();
    }
}
