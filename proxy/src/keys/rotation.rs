//! When a keyset gets a new version, and when everybody holds it.

use std::time::Duration;

use oilskin_crypto::document::{Document, Line, State};

/// A new version is written with once whoever promotes it has itself held it for so many of the longest refresh intervals.
const INTERVALS: u32 = 3;

/// Clocks make no more than one rotation due in that time.
const DAY: u64 = 86_400;

/// What is to be done next for a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing is pending.
    Idle,
    /// A version is pending, and for so long it must still be held.
    Hold(Duration),
    /// It was held for long enough.
    Promote([u8; 32]),
}

/// What one process saw of a line with its own clock.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    pending: Option<([u8; 32], Duration)>,
    longest: Duration,
}

impl Watch {
    /// Looks at a document as it was read `now` (since the machine was started).
    pub(crate) fn see(&mut self, document: &Document, line: Line, now: Duration) -> Step {
        let Some(version) = document.pending(line) else {
            *self = Self::default();
            return Step::Idle;
        };
        let interval = Duration::from_secs(document.refresh);
        let since = match self.pending {
            Some((id, since)) if id == version.key_id => since,
            _ => {
                *self = Self { pending: Some((version.key_id, now)), longest: interval };
                now
            }
        };
        self.longest = self.longest.max(interval);
        let held = now.saturating_sub(since);
        match (self.longest * INTERVALS).checked_sub(held).filter(|left| !left.is_zero()) {
            Some(left) => Step::Hold(left),
            None => Step::Promote(version.key_id),
        }
    }
}

/// Whether a clock that says `now` (Unix seconds) makes a rotation due. A document from the future makes none: the clock is wrong, or
/// was when it was written.
pub(crate) fn is_due(document: &Document, line: Line, after: Duration, now: u64) -> bool {
    let times = document.versions.iter().flat_map(|version| {
        let times = version.times;
        [Some(times.made), times.active, times.retired, times.destroyed].into_iter().flatten()
    });
    let newest = times.max().unwrap_or(0);
    let last = document.versions.iter().filter(|version| version.line == line).map(|version| version.times.made).max();
    let since = document.active(line).map(|version| version.times.active.unwrap_or(version.times.made));
    newest <= now
        && document.pending(line).is_none()
        && last.is_some_and(|last| now - last >= DAY)
        && since.is_some_and(|since| now - since >= after.as_secs())
}

/// For how long a version is not written with any more.
pub(crate) fn retired_for(document: &Document, key_id: &[u8; 32], now: u64) -> Option<Duration> {
    let version = document.versions.iter().find(|version| version.key_id == *key_id)?;
    let retired = version.times.retired.filter(|_| version.state == State::Retired)?;
    Some(Duration::from_secs(now.saturating_sub(retired)))
}

#[cfg(test)]
mod tests {
    use oilskin_crypto::document::{Times, VersionEntry};
    use oilskin_crypto::{Algorithm, Cipher};

    use super::*;

    const NOW: u64 = 2_000_000_000;
    const AFTER: Duration = Duration::from_secs(90 * DAY);

    fn version(id: u8, state: State, made: u64) -> VersionEntry {
        let alg = Algorithm { cipher: Cipher::Aegis256, development: false };
        let times = Times { made, ..Times::default() };
        VersionEntry { key_id: [id; 32], alg, line: Line::Field, state, times, sealed: Some(vec![0; 72]) }
    }

    fn document(versions: Vec<VersionEntry>) -> Document {
        let name = "pii".to_owned();
        Document { name, epoch: 1, refresh: 60, k: 1, development: false, roots: Vec::new(), versions }
    }

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_version_is_promoted_by_who_held_it_for_three_intervals() {
        let mut watch = Watch::default();
        let mut seen = document(vec![version(1, State::Active, NOW)]);
        assert_eq!(watch.see(&seen, Line::Field, s(10)), Step::Idle);
        seen.versions.push(version(2, State::Pending, NOW));
        assert_eq!(watch.see(&seen, Line::Field, s(20)), Step::Hold(s(180)));
        assert_eq!(watch.see(&seen, Line::Lookup, s(20)), Step::Idle);
        assert_eq!(watch.see(&seen, Line::Field, s(30)), Step::Hold(s(180)), "looking at another line began it anew");
        assert_eq!(watch.see(&seen, Line::Field, s(209)), Step::Hold(s(1)));
        assert_eq!(watch.see(&seen, Line::Field, s(210)), Step::Promote([2; 32]));
    }

    #[test]
    fn another_version_or_a_longer_interval_makes_it_wait_longer() {
        let mut watch = Watch::default();
        let mut seen = document(vec![version(2, State::Pending, NOW)]);
        assert_eq!(watch.see(&seen, Line::Field, s(0)), Step::Hold(s(180)));
        seen.refresh = 100;
        assert_eq!(watch.see(&seen, Line::Field, s(180)), Step::Hold(s(120)));
        seen.refresh = 10;
        assert_eq!(watch.see(&seen, Line::Field, s(299)), Step::Hold(s(1)), "who still has the long one is waited for");
        seen.versions = vec![version(3, State::Pending, NOW)];
        assert_eq!(watch.see(&seen, Line::Field, s(301)), Step::Hold(s(30)));
    }

    #[test]
    fn clocks_make_a_rotation_due_once_a_day_and_never_from_the_future() {
        let due = |versions: Vec<VersionEntry>, now| is_due(&document(versions), Line::Field, AFTER, now);
        let old = || version(1, State::Active, NOW - 90 * DAY);
        assert!(due(vec![old()], NOW));
        assert!(!due(vec![old()], NOW - 1));
        assert!(!due(vec![old(), version(2, State::Pending, NOW - 80 * DAY)], NOW), "one is under way");
        assert!(!due(vec![old(), version(2, State::Retired, NOW - DAY + 1)], NOW), "one a day");
        assert!(due(vec![old(), version(2, State::Retired, NOW - DAY)], NOW));
        assert!(!due(vec![old(), version(2, State::Retired, NOW + 1)], NOW), "written by a clock that is ahead");
        let mut promoted = old();
        promoted.times.active = Some(NOW - DAY);
        assert!(!due(vec![promoted], NOW), "its age is counted from when it became active");
        assert!(!due(Vec::new(), NOW));
    }
}
