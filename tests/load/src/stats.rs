//! Medians and percentiles, and the report that `load` prints and `bench` reads.

use serde::{Deserialize, Serialize};

/// What one run of the generator saw.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// Length of the measured window.
    pub seconds: f64,
    /// Answers that ended in the window.
    pub requests: u64,
    /// Tokens that arrived in the window; one per whole answer.
    pub tokens: u64,
    /// Exchanges that failed, at any time.
    pub errors: u64,
    /// What the first of them said.
    pub first_error: Option<String>,
    /// CPU time that the watched processes spent in the window.
    pub cpu_seconds: Option<f64>,
    /// Share of the window in which others had their core: other processes, or other guests of the same host.
    pub taken: Option<f64>,
    /// From the (intended) sending of a request to the end of its answer.
    pub latency: Percentiles,
    /// From the (intended) sending of a request to its first token.
    pub first_token: Percentiles,
    /// From the upstream's write of a paced token to its arrival.
    pub transit: Percentiles,
}

/// A distribution in microseconds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Percentiles {
    /// How many values there were.
    pub count: u64,
    /// The median.
    pub p50: f64,
    /// Nine of ten are no larger.
    pub p90: f64,
    /// Ninety-nine of a hundred are no larger.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Percentiles {
    /// Sorts and reads the distribution of some nanoseconds.
    pub fn of(mut nanoseconds: Vec<u64>) -> Self {
        nanoseconds.sort_unstable();
        let at = |share: f64| {
            let rank = (share * nanoseconds.len() as f64).ceil() as usize;
            nanoseconds.get(rank.saturating_sub(1)).map_or(0.0, |value| *value as f64 / 1000.0)
        };
        Self { count: nanoseconds.len() as u64, p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) }
    }
}

/// The middle value, or the mean of the two in the middle; nothing of nothing.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let found = Percentiles::of((1..=100).rev().map(|value| value * 1000).collect());
        assert_eq!((found.count, found.p50, found.p90, found.p99, found.max), (100, 50.0, 90.0, 99.0, 100.0));
        assert_eq!(Percentiles::of(Vec::new()).max, 0.0);
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }
}
