//! The runner: starts the mock, nginx and the gateway, lets the generator loose on one after the other, and says how
//! the gateway compares.

mod configs;
mod goals;
mod report;
mod scenario;
mod soak;
mod stage;

use std::{path::PathBuf, str::FromStr, time::Duration};

pub use report::Results;
pub use soak::soak;

use report::{Line, Unit};
use scenario::{Role, SCENARIOS, Scenario};
use stage::Stage;

use crate::stats::median;

/// What is compared, and where.
#[derive(Debug, Clone)]
pub struct Contest {
    /// The gateway's binary.
    pub gateway: PathBuf,
    /// The yardstick's binary.
    pub nginx: PathBuf,
    /// A second nginx that plays the gateway, to see what the bench itself finds between two that are the same.
    pub stand_in: Option<PathBuf>,
    /// Who runs where.
    pub cores: Cores,
}

/// The cores that the processes are pinned to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cores {
    /// The gateway and nginx, of which only one has work at a time.
    pub proxy: usize,
    /// The mock upstream.
    pub mock: usize,
    /// The generator and the runner.
    pub load: usize,
}

impl Default for Cores {
    /// The proxy has core 0 for itself; mock and generator share core 1, or have one each where there are three.
    fn default() -> Self {
        let last = std::thread::available_parallelism().map_or(0, |count| count.get() - 1);
        Self { proxy: 0, mock: last.min(2), load: last.min(1) }
    }
}

impl FromStr for Cores {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("no cores {text:?}: say PROXY,MOCK,GENERATOR such as 0,1,1");
        match text.split(',').map(|core| core.parse().map_err(|_| wrong())).collect::<Result<Vec<_>, _>>()?[..] {
            [proxy, mock, load] => Ok(Self { proxy, mock, load }),
            _ => Err(wrong()),
        }
    }
}

/// How long, how often, and which scenarios.
#[derive(Debug, Clone)]
pub struct Length {
    /// The measured window of each run.
    pub seconds: f64,
    /// Runs of each scenario for each side.
    pub rounds: u32,
    /// Scenarios by name; all if empty.
    pub only: Vec<String>,
}

/// Times that each side is started, to see how soon it is ready.
const STARTS: usize = 5;

/// The names that `--only` knows.
pub fn names() -> impl Iterator<Item = &'static str> {
    std::iter::once("process").chain(SCENARIOS.iter().map(|scenario| scenario.name))
}

/// Runs the scenarios and gathers what they found.
pub async fn run(contest: &Contest, length: &Length) -> Result<Results, String> {
    if let Some(unknown) = length.only.iter().find(|name| !names().any(|known| known == *name)) {
        return Err(format!("no scenario {unknown:?}; known: {}", names().collect::<Vec<_>>().join(", ")));
    }
    let wanted = |name: &str| length.only.is_empty() || length.only.iter().any(|only| only == name);
    let mut stage = Stage::set(contest).await?;
    let mut results = Results::new(contest, length);
    results.lines.push(starts(&mut stage, if wanted("process") { STARTS } else { 1 }).await?);
    tokio::time::sleep(Duration::from_millis(500)).await;
    results.lines.push(memory(&stage, "resident memory, idle")?);
    warm(&stage).await?;
    for scenario in SCENARIOS.iter().filter(|scenario| wanted(scenario.name)) {
        let found = play(&stage, scenario, length).await?;
        results.lines.extend(scenario.lines(&found));
        results.add(scenario, found);
    }
    results.lines.push(memory(&stage, "resident memory, after the run")?);
    Ok(results)
}

/// Starts both sides in turn, several times; they stay up after the last.
async fn starts(stage: &mut Stage, times: usize) -> Result<Line, String> {
    let mut found = [Vec::new(), Vec::new()];
    for _ in 0..times {
        for (times, role) in found.iter_mut().zip([Role::Gateway, Role::Nginx]) {
            times.push(stage.start(role).await?.as_secs_f64() * 1000.0);
        }
    }
    let [gateway, nginx] = found;
    Ok(Line::pair("process", "ready after", Unit::Milliseconds, median(gateway), median(nginx)))
}

fn memory(stage: &Stage, measure: &'static str) -> Result<Line, String> {
    let megabytes = |role| Ok::<_, String>(Some(stage.resident(role)? as f64 / 1e6));
    Ok(Line::pair("process", measure, Unit::Megabytes, megabytes(Role::Gateway)?, megabytes(Role::Nginx)?))
}

/// A little of everything, so that nobody's first request is measured and whoever cannot answer is told at once.
async fn warm(stage: &Stage) -> Result<(), String> {
    for (role, model) in [(Role::Direct, "m"), (Role::Nginx, "m"), (Role::Gateway, "m"), (Role::Gateway, "claude")] {
        for asked in [&["--count", "500"][..], &["--count", "100", "--shape", "burst-20"]] {
            let report = stage.load(role, model, asked, Duration::from_secs(60)).await?;
            if report.errors > 0 {
                let error = report.first_error.unwrap_or_default();
                return Err(format!("{} does not answer model {model:?} {asked:?}: {error}{}", role.name(), stage.log(role)));
            }
        }
    }
    Ok(())
}

/// Runs one scenario in rounds: one side, the other, the base, and again, so that a machine that changes its pace
/// changes it for all.
async fn play(stage: &Stage, scenario: &Scenario, length: &Length) -> Result<scenario::Found, String> {
    let mut found = scenario::Found::default();
    let (seconds, warmup) = (length.seconds.to_string(), (length.seconds / 4.0).max(scenario.least_warmup).to_string());
    for round in 1..=length.rounds {
        for (side, reports) in scenario.sides().into_iter().zip([&mut found.left, &mut found.right, &mut found.base]) {
            let Some((role, model)) = side else { continue };
            eprintln!("{} {round}/{}: {} {model}", scenario.name, length.rounds, role.name());
            let mut asked = scenario.load.to_vec();
            asked.extend(["--seconds", &seconds, "--warmup", &warmup]);
            reports.push(stage.load(role, model, &asked, Duration::from_secs_f64(length.seconds * 2.0 + 60.0)).await?);
        }
    }
    Ok(found)
}
