//! What the gateway sets out to reach, and whether it did.

use serde::Serialize;

use super::report::{Line, number};

/// What of a line is held against the goal.
#[derive(Debug, Clone, Copy)]
enum Judged {
    /// The ratio must not be above this.
    Ratio(f64),
    /// The gateway's own number must not be above this.
    Own(f64),
    /// Only told.
    Nothing,
}

/// A goal: its title, the scenario and the measure it reads, and the limit.
type Goal = (&'static str, &'static str, &'static str, Judged);

const GOALS: &[Goal] = &[
    ("CPU per small request at saturation, to nginx", "small", "CPU per request", Judged::Ratio(1.8)),
    ("CPU per request with a prompt of 256 KB, to nginx", "large", "CPU per request", Judged::Ratio(1.4)),
    ("time added to the first token, to nginx", "first", "first token p50", Judged::Ratio(1.8)),
    ("p50 added at 500/s, to nginx", "rate", "latency p50", Judged::Ratio(1.5)),
    ("p99 added at 500/s, to nginx", "rate", "latency p99", Judged::Ratio(2.5)),
    ("CPU per chunk of a burst, to nginx", "burst", "CPU per chunk", Judged::Ratio(10.0)),
    ("CPU per small request, translated to passthrough", "translated-small", "CPU per request", Judged::Ratio(2.0)),
    ("CPU per chunk of a burst, translated to passthrough", "translated-burst", "CPU per chunk", Judged::Ratio(2.0)),
    ("resident memory, idle", "process", "resident memory, idle", Judged::Own(20.0)),
    ("resident memory, after the run", "process", "resident memory, after the run", Judged::Own(45.0)),
    ("ready after", "process", "ready after", Judged::Own(50.0)),
    ("CPU per request at 500/s", "rate", "CPU per request", Judged::Nothing),
];

/// How a goal stands.
#[derive(Debug, Serialize)]
pub(super) struct Standing {
    pub(super) goal: &'static str,
    pub(super) measured: String,
    pub(super) limit: String,
    /// Nothing if there is no limit, or if the measurement says nothing.
    pub(super) met: Option<bool>,
}

/// The goals whose scenarios have run.
pub(super) fn standings(lines: &[Line]) -> Vec<Standing> {
    let stands = |(goal, scenario, measure, judged): &Goal| {
        let line = lines.iter().find(|line| line.scenario == *scenario && line.measure == *measure)?;
        let own = line.left.map_or("–".into(), |value| format!("{} {}", number(value), line.unit.name()));
        let ratio = line.ratio.map(|ratio| format!("{ratio:.2}×"));
        let (measured, limit, met) = match *judged {
            Judged::Ratio(most) => (ratio.unwrap_or("cannot be told".into()), format!("≤ {most}×"), line.ratio.map(|ratio| ratio <= most)),
            Judged::Own(most) => (own, format!("≤ {most} {}", line.unit.name()), line.left.map(|value| value <= most)),
            Judged::Nothing => (ratio.map_or(own.clone(), |ratio| format!("{own} ({ratio})")), "told only".into(), None),
        };
        Some(Standing { goal, measured, limit, met })
    };
    GOALS.iter().filter_map(stands).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{report::Unit, scenario::SCENARIOS};

    #[test]
    fn every_goal_reads_a_number_that_some_scenario_gives() {
        for (goal, scenario, measure, _) in GOALS {
            let given = SCENARIOS.iter().any(|known| known.name == *scenario && known.measures.iter().any(|given| given.name() == *measure));
            assert!(given || *scenario == "process", "{goal}");
        }
    }

    #[test]
    fn goals_are_met_or_missed_or_cannot_be_told() {
        let mut line = Line::pair("small", "CPU per request", Unit::Microseconds, Some(30.0), Some(20.0));
        let met = |line: &Line| standings(std::slice::from_ref(line))[0].met;
        line.ratio = Some(1.8);
        assert_eq!(met(&line), Some(true));
        line.ratio = Some(1.81);
        assert_eq!(met(&line), Some(false));
        line.ratio = None;
        assert_eq!(met(&line), None);
    }
}
