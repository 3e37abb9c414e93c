//! How long keys that are held may be used: a matter of who answered when, on a clock that neither stands still while the machine
//! sleeps nor follows whoever sets the time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// A second denial counts once this much later, after a login that is fresh: an expired token is answered like a real denial.
pub(super) const DENIED_AGAIN: Duration = Duration::from_secs(10);

/// Refresh intervals after which a replica that was cut off may not know the version that the others write with.
const CUT_OFF: u32 = 3;

/// Since the machine was started.
pub(crate) fn now() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Unix seconds, by whoever sets the clock: for people, and to find a rotation due; never to judge what may be used.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What was declared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// Between two reads of the store, at most.
    pub(crate) refresh: Duration,
    /// Between two times that the roots unwrap W anew.
    pub(crate) root_check: Duration,
    /// How long keys write after store and roots last answered.
    pub(crate) stale_encrypt: Duration,
    /// How long they read.
    pub(crate) stale_decrypt: Duration,
}

/// What the keys may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    /// Writing and reading.
    Both,
    /// Reading.
    Reading,
    /// Nothing, and why.
    Neither(&'static str),
}

/// What a denial means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denial {
    /// The first: it is asked again.
    Perhaps,
    /// Believed: keys go at once.
    Final,
}

/// One keyset's.
#[derive(Debug)]
pub(super) struct Life {
    terms: Terms,
    /// The last refresh in which the store and enough roots answered. Nothing else moves it.
    complete: Option<Duration>,
    /// The last in which the store did.
    read: Option<Duration>,
    denied: Option<Duration>,
    is_out: bool,
}

impl Life {
    pub(super) fn new(terms: Terms) -> Self {
        Self { terms, complete: None, read: None, denied: None, is_out: false }
    }

    /// The store answered with the document that is held.
    pub(super) fn store_answered(&mut self, now: Duration) {
        self.read = Some(now);
    }

    /// So did the roots, for the document as the store has it.
    pub(super) fn all_answered(&mut self, now: Duration) {
        (self.read, self.complete) = (Some(now), Some(now));
        (self.denied, self.is_out) = (None, false);
    }

    /// When someone first said no, where that still waits for its second time.
    pub(super) fn first_denial(&self) -> Option<Duration> {
        self.denied
    }

    /// Someone said no. `is_fresh`: to a login that is later than the first time.
    pub(super) fn denied(&mut self, now: Duration, is_fresh: bool) -> Denial {
        let first = *self.denied.get_or_insert(now);
        if !is_fresh || now.saturating_sub(first) < DENIED_AGAIN {
            return Denial::Perhaps;
        }
        self.is_out = true;
        Denial::Final
    }

    /// Someone who could have said no did not answer at all: a denial before it proves nothing.
    pub(super) fn unanswered(&mut self) {
        if !self.is_out {
            self.denied = None;
        }
    }

    pub(super) fn right(&self, now: Duration) -> Right {
        let Some(complete) = self.complete else { return Right::Neither("not loaded") };
        let age = now.saturating_sub(complete);
        match () {
            () if self.is_out => Right::Neither("denied"),
            () if age < self.terms.stale_encrypt.min(self.terms.stale_decrypt) => Right::Both,
            () if age < self.terms.stale_decrypt => Right::Reading,
            () => Right::Neither("its store or roots have not answered for stale_decrypt"),
        }
    }

    /// What is left of the time to write and of the time to read.
    pub(super) fn left(&self, now: Duration) -> (Duration, Duration) {
        let Some(complete) = self.complete.filter(|_| !self.is_out) else { return Default::default() };
        let age = now.saturating_sub(complete);
        let read = self.terms.stale_decrypt.saturating_sub(age);
        (self.terms.stale_encrypt.saturating_sub(age).min(read), read)
    }

    pub(super) fn root_check_is_due(&self, now: Duration) -> bool {
        self.complete.is_none_or(|complete| now.saturating_sub(complete) >= self.terms.root_check)
    }

    /// How long it was cut off, where that is so long that others may write with a version it does not know. `longest` is the
    /// document's own refresh interval.
    pub(super) fn cut_off(&self, now: Duration, longest: Duration) -> Option<Duration> {
        let age = now.saturating_sub(self.read?);
        (age >= longest.max(self.terms.refresh) * CUT_OFF).then_some(age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms {
        refresh: Duration::from_secs(60),
        root_check: Duration::from_secs(300),
        stale_encrypt: Duration::from_secs(3_600),
        stale_decrypt: Duration::from_secs(4 * 3_600),
    };

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn keys_stop_writing_then_reading_and_only_a_whole_answer_helps() {
        let mut life = Life::new(TERMS);
        assert!(matches!(life.right(s(0)), Right::Neither(_)));
        life.all_answered(s(10));
        assert_eq!(life.right(s(3_609)), Right::Both);
        for second in [100, 3_000] {
            life.store_answered(s(second));
        }
        assert_eq!(life.right(s(3_610)), Right::Reading, "the store alone proves nothing of the roots");
        assert_eq!(life.left(s(3_010)), (s(600), s(3 * 3_600 + 600)));
        assert_eq!(life.right(s(4 * 3_600 + 9)), Right::Reading);
        assert!(matches!(life.right(s(4 * 3_600 + 10)), Right::Neither(_)));
        life.all_answered(s(20_000));
        assert_eq!(life.right(s(20_001)), Right::Both);
    }

    #[test]
    fn a_denial_counts_at_the_second_time_and_an_outage_between_them_makes_it_the_first() {
        let mut life = Life::new(TERMS);
        life.all_answered(s(0));
        assert_eq!(life.denied(s(100), true), Denial::Perhaps);
        assert_eq!(life.denied(s(105), true), Denial::Perhaps);
        assert_eq!(life.right(s(105)), Right::Both);
        life.unanswered();
        assert_eq!(life.denied(s(111), true), Denial::Perhaps);
        assert_eq!(life.denied(s(121), true), Denial::Final);
        assert_eq!(life.right(s(121)), Right::Neither("denied"));
        life.unanswered();
        assert_eq!(life.right(s(122)), Right::Neither("denied"), "an outage brings nothing back");
        assert_eq!(life.left(s(122)), Default::default());
        life.all_answered(s(130));
        assert_eq!(life.right(s(131)), Right::Both);
    }

    #[test]
    fn a_denial_that_met_the_login_of_the_first_one_does_not_count() {
        let mut life = Life::new(TERMS);
        life.all_answered(s(0));
        assert_eq!(life.first_denial(), None);
        for second in [100, 110, 400] {
            assert_eq!(life.denied(s(second), false), Denial::Perhaps);
            assert_eq!(life.first_denial(), Some(s(100)));
        }
        assert_eq!(life.right(s(400)), Right::Both);
        assert_eq!(life.denied(s(401), true), Denial::Final);
    }

    #[test]
    fn who_was_cut_off_for_three_of_the_longest_intervals_is_so() {
        let mut life = Life::new(TERMS);
        assert_eq!(life.cut_off(s(1_000), s(60)), None, "what was never loaded is missing, not cut off");
        life.all_answered(s(0));
        assert_eq!(life.cut_off(s(179), s(60)), None);
        assert_eq!(life.cut_off(s(180), s(60)), Some(s(180)));
        assert_eq!(life.cut_off(s(180), s(120)), None);
        life.store_answered(s(100));
        assert_eq!(life.cut_off(s(180), s(60)), None);
    }
}
