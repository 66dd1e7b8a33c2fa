//! Chaos by seed: many clients, one budget, two gateways, one Redis, and all that can go wrong with them.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tests::chaos::{Plan, run};
use tests::spending::dollars;

/// Lets 500 clients spend a budget for 100 answers, and 500 others one that is enough, while gateways are killed and Redis is
/// away, and compares the purses with the provider's bill. Needs redis-server. Prints a row for each seed; fails if money is
/// lost or counted twice.
#[derive(Parser)]
struct Flags {
    /// The seeds, one run for each.
    #[arg(long, value_delimiter = ',', default_value = "1,2,3")]
    seeds: Vec<u64>,
    /// How many clients of each of two consumers want an answer.
    #[arg(long, default_value_t = 500)]
    clients: usize,
    /// For how many answers the budget of one of the two is about enough.
    #[arg(long, default_value_t = 100)]
    budget: u64,
    /// What a gateway does while Redis is away.
    #[arg(long, default_value = "deny", value_parser = ["deny", "local", "allow"])]
    when_down: String,
    /// How many things go wrong in a run.
    #[arg(long, default_value_t = 8)]
    blows: usize,
    /// Kill no gateway, and let no client leave: then the purses are the bill to the cent.
    #[arg(long)]
    no_kills: bool,
    /// Let Redis forget everything whenever it is gone.
    #[arg(long)]
    forgetful: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    let all = async {
        let mut out = std::io::stdout();
        let head = "| seed | complete | broken off | died | 429 | 503 | longest wait | cap $ | most at a time $ | billed $ | in the purses $ | at least $ |\n|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n";
        out.write_all(head.as_bytes())?;
        for seed in flags.seeds {
            let (clients, budget, when_down, blows) = (flags.clients, flags.budget, flags.when_down.clone(), flags.blows);
            let (kills, forgetful, arrival) = (!flags.no_kills, flags.forgetful, Duration::from_millis(500));
            let report = run(&Plan { seed, clients, budget, when_down, blows, kills, forgetful, arrival, patient: true }).await;
            eprintln!("seed {seed}: {}", report.blows.join("; "));
            let money = [report.cap, report.most, report.billed, report.used, report.least].map(dollars).join(" | ");
            writeln!(out, "| {seed} | {} | {} | {} | {} | {} | {:.2?} | {money} |", report.complete, report.broken, report.died, report.refused, report.unavailable, report.longest)?;
        }
        std::io::Result::Ok(())
    };
    // Whoever loses this race is dropped, and with it every process that it has started.
    tokio::select! {
        done = all => if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE },
        _ = tokio::signal::ctrl_c() => ExitCode::FAILURE,
    }
}
