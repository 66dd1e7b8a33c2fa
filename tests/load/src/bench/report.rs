//! What was found, as Markdown for people and as JSON for whoever keeps a record.

use std::{collections::BTreeMap, fmt::Write, fs, process::Command};

use serde::Serialize;

use super::{
    Contest, Length, goals,
    scenario::{Found, SCENARIOS, Scenario},
};
use crate::stats::median;

/// What others may take of the proxy's core; the kernel's ticks themselves err by some hundredths.
const QUIET: f64 = 0.1;

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) enum Unit {
    PerSecond,
    Microseconds,
    Milliseconds,
    Megabytes,
    Percent,
}

impl Unit {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::PerSecond => "/s",
            Self::Microseconds => "µs",
            Self::Milliseconds => "ms",
            Self::Megabytes => "MB",
            Self::Percent => "%",
        }
    }
}

/// One measure of one scenario: medians over the rounds.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    pub(super) scenario: &'static str,
    pub(super) measure: &'static str,
    pub(super) unit: Unit,
    /// The side that is judged.
    pub(super) left: Option<f64>,
    /// The side that it is compared with.
    pub(super) right: Option<f64>,
    /// The mock alone.
    pub(super) base: Option<f64>,
    /// The ratio is that of what both add to the base.
    pub(super) added: bool,
    /// The sides are the translated and the passthrough model of the gateway.
    pub(super) passthrough: bool,
    pub(super) ratio: Option<f64>,
    /// The smallest and the largest ratio of one round.
    pub(super) spread: Option<(f64, f64)>,
}

impl Line {
    pub(super) fn pair(scenario: &'static str, measure: &'static str, unit: Unit, left: Option<f64>, right: Option<f64>) -> Self {
        let ratio = left.zip(right).filter(|(_, right)| *right > 0.0).map(|(left, right)| left / right);
        Self { scenario, measure, unit, left, right, base: None, added: false, passthrough: false, ratio, spread: None }
    }

    fn row(&self) -> String {
        let value = |value: Option<f64>| value.map_or("–".into(), number);
        let ratio = self.ratio.map_or("–".into(), |ratio| format!("{ratio:.2}{}", if self.added { " (added)" } else { "" }));
        let spread = self.spread.map_or("–".into(), |(low, high)| format!("{low:.2}–{high:.2}"));
        let (scenario, measure, unit) = (self.scenario, self.measure, self.unit.name());
        let (left, right) = (value(self.left), value(self.right));
        if self.passthrough {
            format!("| {scenario} | {measure}, {unit} | {left} | {right} | {ratio} | {spread} |\n")
        } else {
            format!("| {scenario} | {measure}, {unit} | {left} | {right} | {} | {ratio} | {spread} |\n", value(self.base))
        }
    }
}

/// Three digits that say something.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        middle if middle >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Everything that a bench has found.
#[derive(Serialize)]
pub struct Results {
    host: BTreeMap<&'static str, String>,
    pub(super) lines: Vec<Line>,
    rounds: BTreeMap<&'static str, Found>,
    /// Of each run, the share in which others had the proxy's core.
    taken: Vec<f64>,
    /// What went wrong on the way: with these, the numbers are not to be trusted.
    problems: Vec<String>,
}

impl Results {
    pub(super) fn new(contest: &Contest, length: &Length) -> Self {
        let cores = contest.cores;
        let gateway = match &contest.stand_in {
            Some(stand_in) => format!("{} in the gateway's place", stand_in.display()),
            None => contest.gateway.display().to_string(),
        };
        let host = BTreeMap::from([
            ("machine", machine()),
            ("gateway", gateway),
            ("nginx", nginx_version(contest)),
            ("cores", format!("proxy on {}, mock on {}, generator on {}", cores.proxy, cores.mock, cores.load)),
            ("length", format!("{} rounds of {} s", length.rounds, length.seconds)),
        ]);
        Self { host, lines: Vec::new(), rounds: BTreeMap::new(), taken: Vec::new(), problems: Vec::new() }
    }

    pub(super) fn add(&mut self, scenario: &Scenario, found: Found) {
        for ((side, reports), name) in scenario.sides().iter().zip([&found.left, &found.right, &found.base]).zip(["left", "right", "base"]) {
            self.taken.extend(reports.iter().filter_map(|report| report.taken));
            let errors: u64 = reports.iter().map(|report| report.errors).sum();
            if let Some((role, model)) = side
                && errors > 0
            {
                let first = reports.iter().find_map(|report| report.first_error.clone()).unwrap_or_default();
                self.problems.push(format!("{} ({name}: {} {model}): {errors} failed requests, the first: {first}", scenario.name, role.name()));
            }
        }
        self.rounds.insert(scenario.name, found);
    }

    /// No request failed.
    pub fn sound(&self) -> bool {
        self.problems.is_empty()
    }

    /// The tables for people.
    pub fn markdown(&self) -> String {
        let mut text = String::from("## Gateway and nginx\n\n");
        for (what, value) in &self.host {
            let _ = writeln!(text, "- {what}: {value}");
        }
        let most = self.taken.iter().copied().fold(0.0, f64::max);
        if let Some(middle) = median(self.taken.clone()) {
            let verdict = if middle > QUIET { ": **too much; ratios of CPU time may stand, latencies and requests per second do not**" } else { "" };
            let _ = writeln!(text, "- quiet: others had {:.1} % of the proxy's core in the median run, {:.1} % in the worst{verdict}", middle * 100.0, most * 100.0);
        }
        text.push_str("\n| scenario | measure | gateway | nginx | direct | ratio | in single rounds |\n|---|---|--:|--:|--:|--:|--:|\n");
        self.lines.iter().filter(|line| !line.passthrough).for_each(|line| text.push_str(&line.row()));
        if self.lines.iter().any(|line| line.passthrough) {
            text.push_str("\n| scenario | measure | translated | passthrough | ratio | in single rounds |\n|---|---|--:|--:|--:|--:|\n");
            self.lines.iter().filter(|line| line.passthrough).for_each(|line| text.push_str(&line.row()));
        }
        text.push_str("\n| goal | measured | limit | met |\n|---|--:|--:|---|\n");
        for standing in goals::standings(&self.lines) {
            let met = standing.met.map_or("–", |met| if met { "yes" } else { "**no**" });
            let _ = writeln!(text, "| {} | {} | {} | {met} |", standing.goal, standing.measured, standing.limit);
        }
        text.push('\n');
        for scenario in SCENARIOS.iter().filter(|scenario| self.rounds.contains_key(scenario.name)) {
            let _ = writeln!(text, "- `{}`: {}", scenario.name, scenario.about);
        }
        if !self.sound() {
            text.push_str("\nNOT TO BE TRUSTED, requests failed:\n\n");
        }
        for problem in &self.problems {
            let _ = writeln!(text, "- {problem}");
        }
        text
    }

    /// The same with every round's report.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "host": self.host,
            "lines": self.lines,
            "goals": goals::standings(&self.lines),
            "scenarios": SCENARIOS,
            "rounds": self.rounds,
            "taken": self.taken,
            "problems": self.problems,
        })
    }
}

/// The machine in a few words.
pub(super) fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("unknown CPU", |(_, name)| name);
    let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{count} × {model}, Linux {}", kernel.trim())
}

fn nginx_version(contest: &Contest) -> String {
    let said = Command::new(&contest.nginx).arg("-v").output().map(|output| String::from_utf8_lossy(&output.stderr).trim().to_owned());
    said.unwrap_or_default().trim_start_matches("nginx version: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_that_say_something() {
        assert_eq!([12345.6, 45.67, 1.234, 0.1234].map(number), ["12346", "45.7", "1.23", "0.123"]);
    }

    #[test]
    fn rows_say_what_their_ratio_is_of() {
        let mut line = Line::pair("rate", "latency p50", Unit::Microseconds, Some(50.0), Some(40.0));
        (line.base, line.added, line.ratio) = (Some(30.0), true, Some(2.0));
        assert_eq!(line.row(), "| rate | latency p50, µs | 50.0 | 40.0 | 30.0 | 2.00 (added) | – |\n");
    }
}
