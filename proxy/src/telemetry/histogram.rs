//! A histogram of durations by atomics alone: the library's takes a mutex at each observation.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// Upper bounds in microseconds: a sidecar adds microseconds, an upstream takes seconds.
const BOUNDS: [u64; 14] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000, 30_000_000];

/// A histogram of seconds. Clones share their numbers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Histogram(Arc<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    counts: [AtomicU64; BOUNDS.len()],
    above: AtomicU64,
    micros: AtomicU64,
}

impl Histogram {
    /// Counts one duration: two atomic adds.
    pub(crate) fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let place = BOUNDS.partition_point(|bound| *bound < micros);
        self.0.counts.get(place).unwrap_or(&self.0.above).fetch_add(1, Relaxed);
        self.0.micros.fetch_add(micros, Relaxed);
    }
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let numbers = &self.0;
        let mut buckets: Vec<(f64, u64)> =
            BOUNDS.iter().zip(&numbers.counts).map(|(bound, count)| (seconds(*bound), count.load(Relaxed))).collect();
        buckets.push((f64::INFINITY, numbers.above.load(Relaxed)));
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(seconds(numbers.micros.load(Relaxed)), count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[expect(clippy::cast_precision_loss, reason = "a sum past 2^53 microseconds is 285 years")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn buckets_are_cumulative_and_end_at_infinity() {
        let histogram = Histogram::default();
        let mut registry = Registry::default();
        registry.register("t", "t", histogram.clone());
        for micros in [50, 100, 101, 60_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let mut text = String::new();
        text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("t_bucket{le=\"0.0001\"} 2\n"), "{text}");
        assert!(text.contains("t_bucket{le=\"0.00025\"} 3\n"), "{text}");
        assert!(text.contains("t_bucket{le=\"+Inf\"} 4\n"), "{text}");
        assert!(text.contains("t_count 4\n"), "{text}");
    }
}
