//! How long to wait before the next attempt at something outside that has failed.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use ring::rand::{SecureRandom, SystemRandom};

/// Shortest wait.
const SHORTEST: Duration = Duration::from_secs(1);

/// Waits without end, from 1 s on, doubling up to `longest`. To each is added up to itself again: pods that started together must not
/// come back together.
pub(crate) fn waits(longest: Duration) -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(SHORTEST)
        .with_max_delay(longest / 2)
        .without_max_times()
        .with_jitter()
        .build()
}

/// A random share, from 0 to 1: replicas that started together must not do things together.
pub(crate) fn share() -> f64 {
    let mut bytes = [0; 2];
    // Without random bytes nothing is encrypted either; all at the same moment is then the least of it.
    let _ = SystemRandom::new().fill(&mut bytes);
    f64::from(u16::from_ne_bytes(bytes)) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{SHORTEST, waits};

    #[test]
    fn waits_grow_are_spread_and_bounded() {
        let longest = Duration::from_secs(30);
        for (at, wait) in waits(longest).take(1_000).enumerate() {
            let bound = if at == 0 { 2 * SHORTEST } else { longest };
            assert!((SHORTEST..=bound).contains(&wait), "{at}: {wait:?}");
        }
        let distinct: std::collections::BTreeSet<_> = (0..20).map(|_| waits(longest).nth(5)).collect();
        assert!(distinct.len() > 10, "{distinct:?}");
    }
}
