//! Pairs, medians and bootstrap intervals.

use anyhow::{Result, ensure};

/// Enough that the ends of an interval move less than its width's hundredth between seeds.
const RESAMPLES: usize = 10_000;

/// A median and its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Interval {
    pub(crate) low: f64,
    pub(crate) mid: f64,
    pub(crate) high: f64,
}

impl Interval {
    /// The median with the whole range: for so few samples that resampling them says nothing.
    pub(crate) fn range(samples: &[f64]) -> Result<Self> {
        let sorted = sorted(samples)?;
        let ends = sorted.first().zip(sorted.last());
        let (low, high) = ends.ok_or_else(nothing)?;
        Ok(Self { low: *low, mid: percentile(&sorted, 0.5)?, high: *high })
    }

    /// The median with its bootstrap 95 % interval.
    pub(crate) fn bootstrap(samples: &[f64]) -> Result<Self> {
        Self::resampled(samples, RESAMPLES)
    }

    fn resampled(samples: &[f64], resamples: usize) -> Result<Self> {
        let mid = median(samples)?;
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut medians = Vec::with_capacity(resamples);
        let mut drawn = Vec::with_capacity(samples.len());
        for _ in 0..resamples {
            drawn.clear();
            drawn.extend((0..samples.len()).filter_map(|_| samples.get(random.below(samples.len()))));
            medians.push(median(&drawn)?);
        }
        let medians = sorted(&medians)?;
        Ok(Self { low: percentile(&medians, 0.025)?, mid, high: percentile(&medians, 0.975)? })
    }
}

/// One ratio a round: what both were measured in shares the weather of that round.
pub(crate) fn ratios(over: &[f64], under: &[f64]) -> Result<Vec<f64>> {
    ensure!(over.len() == under.len(), "{} rounds cannot be paired with {}", over.len(), under.len());
    ensure!(under.iter().all(|value| *value > 0.0), "a round measured nothing");
    Ok(over.iter().zip(under).map(|(over, under)| over / under).collect())
}

pub(crate) fn median(samples: &[f64]) -> Result<f64> {
    percentile(&sorted(samples)?, 0.5)
}

/// The value below which `share` of the sorted samples lie, between two of them where it falls between.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> Result<f64> {
    let last = sorted.len().checked_sub(1).ok_or_else(nothing)?;
    let at = share.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (at.floor() as usize, at.ceil() as usize);
    let (below, above) = sorted.get(below).zip(sorted.get(above)).ok_or_else(nothing)?;
    Ok(below + (above - below) * at.fract())
}

pub(crate) fn sorted(samples: &[f64]) -> Result<Vec<f64>> {
    ensure!(samples.iter().all(|sample| sample.is_finite()), "a sample is no number");
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    Ok(sorted)
}

fn nothing() -> anyhow::Error {
    anyhow::anyhow!("there are no samples")
}

/// SplitMix64 with a fixed seed: the same samples give the same interval.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        ((u128::from(word) * bound as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_interpolate_and_stay_inside() {
        let samples = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(percentile(&samples, 0.0).unwrap(), 1.0);
        assert_eq!(percentile(&samples, 0.5).unwrap(), 2.5);
        assert_eq!(percentile(&samples, 1.0).unwrap(), 4.0);
        assert_eq!(percentile(&samples, 7.0).unwrap(), 4.0);
        assert_eq!(percentile(&[5.0], 0.99).unwrap(), 5.0);
        assert!(percentile(&[], 0.5).is_err());
    }

    #[test]
    fn ratios_pair_the_rounds_and_refuse_what_has_no_pair() {
        assert_eq!(ratios(&[2.0, 9.0], &[1.0, 3.0]).unwrap(), [2.0, 3.0]);
        assert!(ratios(&[1.0], &[1.0, 2.0]).is_err());
        assert!(ratios(&[1.0], &[0.0]).is_err());
    }

    #[test]
    fn pairing_takes_out_what_both_of_a_round_share() {
        let weather = [1.0, 3.0, 0.5, 2.0, 8.0];
        let ours: Vec<f64> = weather.iter().map(|share| share * 1.5).collect();
        let interval = Interval::bootstrap(&ratios(&ours, &weather).unwrap()).unwrap();
        assert_eq!((interval.low, interval.mid, interval.high), (1.5, 1.5, 1.5));
    }

    #[test]
    fn the_interval_holds_the_true_median_about_as_often_as_it_says() {
        let mut random = Random(7);
        let mut held = 0;
        for _ in 0..100 {
            let samples: Vec<f64> = (0..21).map(|_| random.below(1_000_001) as f64).collect();
            let interval = Interval::resampled(&samples, 400).unwrap();
            assert!(interval.low <= interval.mid && interval.mid <= interval.high);
            held += usize::from(interval.low <= 500_000.0 && 500_000.0 <= interval.high);
        }
        assert!((88..=100).contains(&held), "{held} of 100");
    }

    #[test]
    fn the_same_samples_give_the_same_interval() {
        let samples = [1.0, 4.0, 2.0, 9.0, 3.0];
        assert_eq!(Interval::bootstrap(&samples).unwrap(), Interval::bootstrap(&samples).unwrap());
    }

    #[test]
    fn a_range_is_what_was_seen() {
        let range = Interval::range(&[3.0, 1.0, 2.0]).unwrap();
        assert_eq!((range.low, range.mid, range.high), (1.0, 2.0, 3.0));
        assert!(Interval::range(&[]).is_err());
        assert!(Interval::range(&[f64::NAN]).is_err());
    }
}
