//! The scenarios: what is asked, of whom, and what is read from it.

use serde::Serialize;

use super::report::{Line, Unit};
use crate::stats::{Report, median};

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Role {
    Gateway,
    Nginx,
    /// The mock itself, with nobody in between.
    Direct,
}

impl Role {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Nginx => "nginx",
            Self::Direct => "direct",
        }
    }
}

/// Who is compared with whom.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) enum Pair {
    /// The gateway with nginx.
    Nginx,
    /// The gateway with nginx, by what each adds to the mock's own answer.
    NginxAdded,
    /// The gateway's translated model with its own passthrough.
    Passthrough,
}

/// One thing that is done to both sides.
#[derive(Debug, Serialize)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) pair: Pair,
    /// Arguments of the generator.
    pub(super) load: &'static [&'static str],
    /// Seconds; at least one whole stream, where streams are long.
    pub(super) least_warmup: f64,
    pub(super) measures: &'static [Measure],
}

/// One number out of a report.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) enum Measure {
    Requests,
    Tokens,
    CpuPerRequest,
    CpuPerToken,
    Busy,
    P50,
    P99,
    FirstP50,
    FirstP99,
    TransitP50,
    TransitP99,
}

impl Measure {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "chunks",
            Self::CpuPerRequest => "CPU per request",
            Self::CpuPerToken => "CPU per chunk",
            Self::Busy => "core busy",
            Self::P50 => "latency p50",
            Self::P99 => "latency p99",
            Self::FirstP50 => "first token p50",
            Self::FirstP99 => "first token p99",
            Self::TransitP50 => "transit of a chunk p50",
            Self::TransitP99 => "transit of a chunk p99",
        }
    }

    fn unit(self) -> Unit {
        match self {
            Self::Requests | Self::Tokens => Unit::PerSecond,
            Self::Busy => Unit::Percent,
            _ => Unit::Microseconds,
        }
    }

    /// Latencies have a floor, the mock's own, that is no proxy's doing.
    fn has_floor(self) -> bool {
        matches!(self, Self::P50 | Self::P99 | Self::FirstP50 | Self::FirstP99 | Self::TransitP50 | Self::TransitP99)
    }

    fn of(self, report: &Report) -> Option<f64> {
        let per = |count: u64| (count > 0).then(|| report.cpu_seconds.map(|spent| spent * 1e6 / count as f64)).flatten();
        match self {
            Self::Requests => Some(report.requests as f64 / report.seconds),
            Self::Tokens => Some(report.tokens as f64 / report.seconds),
            Self::CpuPerRequest => per(report.requests),
            Self::CpuPerToken => per(report.tokens),
            Self::Busy => report.cpu_seconds.map(|spent| spent * 100.0 / report.seconds),
            Self::P50 => Some(report.latency.p50),
            Self::P99 => Some(report.latency.p99),
            Self::FirstP50 => Some(report.first_token.p50),
            Self::FirstP99 => Some(report.first_token.p99),
            Self::TransitP50 => Some(report.transit.p50),
            Self::TransitP99 => Some(report.transit.p99),
        }
    }
}

use Measure::*;

/// All of them, in the order in which they run.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "small",
        about: "64 connections ask small questions as fast as they are answered",
        pair: Pair::Nginx,
        load: &["--connections", "64"],
        least_warmup: 0.0,
        measures: &[Requests, CpuPerRequest, Busy, P50, P99],
    },
    Scenario {
        name: "large",
        about: "16 connections ask with a prompt of 256 KB as fast as they are answered",
        pair: Pair::Nginx,
        load: &["--connections", "16", "--prompt", "262144"],
        least_warmup: 0.0,
        measures: &[Requests, CpuPerRequest, Busy, P50, P99],
    },
    Scenario {
        name: "rate",
        about: "500 small questions a second, at fixed times",
        pair: Pair::NginxAdded,
        load: &["--rate", "500", "--connections", "32"],
        least_warmup: 0.0,
        measures: &[P50, P99, CpuPerRequest],
    },
    Scenario {
        name: "first",
        about: "100 streams a second, at fixed times, of 5 tokens 2 ms apart",
        pair: Pair::NginxAdded,
        load: &["--rate", "100", "--connections", "32", "--shape", "paced-5-2"],
        least_warmup: 0.0,
        measures: &[FirstP50, FirstP99],
    },
    Scenario {
        name: "paced",
        about: "50 streams at once, of 50 tokens 20 ms apart",
        pair: Pair::NginxAdded,
        load: &["--rate", "50", "--connections", "100", "--shape", "paced-50-20"],
        least_warmup: 1.2,
        measures: &[TransitP50, TransitP99, CpuPerToken],
    },
    Scenario {
        name: "burst",
        about: "16 connections ask for streams of 200 tokens that the upstream writes at once",
        pair: Pair::Nginx,
        load: &["--connections", "16", "--shape", "burst-200"],
        least_warmup: 0.0,
        measures: &[Tokens, CpuPerToken, Busy, FirstP50, P50, P99],
    },
    Scenario {
        name: "translated-small",
        about: "as `small`, from OpenAI's dialect to Anthropic's and back",
        pair: Pair::Passthrough,
        load: &["--connections", "64"],
        least_warmup: 0.0,
        measures: &[Requests, CpuPerRequest, Busy],
    },
    Scenario {
        name: "translated-burst",
        about: "as `burst`, from OpenAI's dialect to Anthropic's and back",
        pair: Pair::Passthrough,
        load: &["--connections", "16", "--shape", "burst-200"],
        least_warmup: 0.0,
        measures: &[Tokens, CpuPerToken, Busy],
    },
];

/// The reports of a scenario, round by round.
#[derive(Debug, Default, Serialize)]
pub(super) struct Found {
    pub(super) left: Vec<Report>,
    pub(super) right: Vec<Report>,
    pub(super) base: Vec<Report>,
}

impl Scenario {
    /// Who is asked for which model: the side that is judged, the one it is compared with, and the floor of both.
    pub(super) fn sides(&self) -> [Option<(Role, &'static str)>; 3] {
        match self.pair {
            Pair::Nginx => [Some((Role::Gateway, "m")), Some((Role::Nginx, "m")), None],
            Pair::NginxAdded => [Some((Role::Gateway, "m")), Some((Role::Nginx, "m")), Some((Role::Direct, "m"))],
            Pair::Passthrough => [Some((Role::Gateway, "claude")), Some((Role::Gateway, "m")), None],
        }
    }

    /// The medians over the rounds and their ratios.
    pub(super) fn lines(&self, found: &Found) -> Vec<Line> {
        self.measures.iter().map(|measure| self.line(*measure, found)).collect()
    }

    fn line(&self, measure: Measure, found: &Found) -> Line {
        let values = |reports: &[Report]| reports.iter().filter_map(|report| measure.of(report)).collect::<Vec<_>>();
        let (left, right, base) = (values(&found.left), values(&found.right), values(&found.base));
        let added = measure.has_floor() && self.pair == Pair::NginxAdded;
        let floor = |round: usize| if added { base.get(round).copied() } else { Some(0.0) };
        let rounds = (0..left.len().min(right.len())).filter_map(|round| ratio(left[round], right[round], floor(round)?));
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        rounds.for_each(|ratio| (low, high) = (low.min(ratio), high.max(ratio)));
        let (left, right, base) = (median(left), median(right), median(base));
        let mut line = Line::pair(self.name, measure.name(), measure.unit(), left, right);
        line.base = base;
        line.added = added;
        line.passthrough = self.pair == Pair::Passthrough;
        line.ratio = left.zip(right).zip(if added { base } else { Some(0.0) }).and_then(|((left, right), floor)| ratio(left, right, floor));
        line.spread = (low <= high).then_some((low, high));
        line
    }
}

/// How much more the left is above the floor than the right; nothing where the right adds so little to the floor that
/// the ratio would be one of two errors.
fn ratio(left: f64, right: f64, floor: f64) -> Option<f64> {
    let (left, right) = (left - floor, right - floor);
    (right > floor * 0.1).then_some(left / right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_compared_without_the_floor() {
        let reports = |values: [f64; 3]| values.map(|p50| Report { latency: crate::stats::Percentiles { p50, ..Default::default() }, ..Default::default() }).to_vec();
        let found = Found { left: reports([140.0, 150.0, 200.0]), right: reports([125.0, 125.0, 126.0]), base: reports([100.0, 100.0, 101.0]) };
        let scenario = SCENARIOS.iter().find(|scenario| scenario.name == "rate").unwrap();
        let line = scenario.line(P50, &found);
        assert_eq!((line.left, line.right, line.base, line.ratio), (Some(150.0), Some(125.0), Some(100.0), Some(2.0)));
        assert_eq!(line.spread, Some((1.6, 3.96)));
        assert_eq!(scenario.line(CpuPerRequest, &found).ratio, None);
    }

    #[test]
    fn nothing_is_compared_with_what_cannot_be_measured() {
        assert_eq!(ratio(110.0, 100.5, 100.0), None);
        assert_eq!(ratio(3.0, 1.5, 0.0), Some(2.0));
        assert_eq!(ratio(3.0, 0.0, 0.0), None);
    }
}
