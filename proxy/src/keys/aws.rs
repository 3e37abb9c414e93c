//! Amazon Web Services: root keys in KMS, documents in Secrets Manager.
//!
//! `client` is how both are reached, over `http`; `kms` and `secrets` are the two.

mod client;
mod http;
mod kms;
mod secrets;

use std::time::Duration;

use oilskin_config as config;

pub(crate) use http::client as http_client;
pub(super) use kms::Kms;
pub(super) use secrets::Secrets;

/// Refreshes come up to a fifth early, a tenth at the mean.
const EARLY: f64 = 0.9;

/// Says what keysets cost that are read at these intervals, where AWS keeps them.
pub(super) fn say_calls(keys: &config::Keys, intervals: impl ExactSizeIterator<Item = Duration>) {
    let keysets = intervals.len();
    // All of them, also where fewer are enough: that is how one shows that is lost.
    let roots = keys.roots.iter().filter(|root| matches!(root, config::Root::AwsKms(_))).count();
    let say = |provider, calls: u64| {
        tracing::info!(provider, keysets, calls, "about {calls} calls a day; tenants and rotations come on top");
    };
    if roots > 0 {
        say("awskms", calls_a_day(std::iter::repeat_n(keys.root_check, keysets * roots)));
    }
    if matches!(keys.store, config::Store::AwsSecret(_)) {
        say("awssm", calls_a_day(intervals.map(|interval| interval.mul_f64(EARLY))));
    }
}

/// About how often a process calls in a day that asks once in each of these intervals.
fn calls_a_day(intervals: impl Iterator<Item = Duration>) -> u64 {
    let day: f64 = intervals.map(|interval| 86_400.0 / interval.as_secs_f64().max(0.001)).sum();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive estimate, shown to people")]
    let day = day.round() as u64;
    day
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_s_calls_follow_from_what_is_kept_fresh() {
        let calls = |seconds: &[u64]| calls_a_day(seconds.iter().map(|seconds| Duration::from_secs(*seconds)));
        assert_eq!(calls_a_day(std::iter::once(Duration::from_secs(60).mul_f64(EARLY))), 1_600);
        assert_eq!(calls(&[300, 300, 300]), 864);
        assert_eq!(calls(&[60, 3_600]), 1_464);
        assert_eq!(calls(&[]), 0);
    }
}
