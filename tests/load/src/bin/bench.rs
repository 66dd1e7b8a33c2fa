//! The benchmark as a program: the gateway and nginx in the same run, as ratios.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use load::bench::{self, Contest, Cores, Length};
use tokio::signal::unix::{SignalKind, signal};

/// Compares the gateway with nginx as a plain reverse proxy, in the same run, as ratios. Prints Markdown, and writes all
/// that it found as JSON. Builds nothing: run `cargo build --release -p gateway -p load` first.
#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    contest: ContestFlags,
    /// Length of each measured window.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Rounds of each scenario; medians over them are reported.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Run these scenarios only, by name: process, small, large, rate, first, paced, burst, translated-small, translated-burst.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Args)]
struct ContestFlags {
    /// The gateway's binary.
    #[arg(long, global = true, default_value = "target/release/trivium")]
    gateway: PathBuf,
    /// nginx's binary.
    #[arg(long, global = true, default_value = "nginx")]
    nginx: PathBuf,
    /// Put this nginx in the gateway's place: all ratios should come out near 1, and how near is the bench's own error.
    #[arg(long, global = true, value_name = "NGINX")]
    stand_in: Option<PathBuf>,
    /// Cores of the proxy, the mock and the generator [default: 0,1,1, or 0,2,1 where there are three].
    #[arg(long, global = true)]
    cores: Option<Cores>,
    /// Where the JSON goes.
    #[arg(long, global = true, default_value = "target/bench.json")]
    json: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Send very many requests and streams through the gateway and see whether its memory grows.
    Soak {
        /// Small requests.
        #[arg(long, default_value_t = 1_000_000)]
        requests: u64,
        /// Streams of 20 tokens.
        #[arg(long, default_value_t = 10_000)]
        streams: u64,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    // The loser of this race is dropped, and with it every process that it started.
    let ended = tokio::select! {
        ended = run(&flags) => ended,
        error = interrupted() => Err(error),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what was asked for; true if nothing failed on the way.
async fn run(flags: &Flags) -> Result<bool, String> {
    let ContestFlags { gateway, nginx, stand_in, cores, json } = &flags.contest;
    if stand_in.is_none() && !gateway.is_file() {
        return Err(format!("{} is missing: run `cargo build --release -p gateway` first, or say --gateway PATH", gateway.display()));
    }
    let contest = Contest { gateway: gateway.clone(), nginx: nginx.clone(), stand_in: stand_in.clone(), cores: cores.unwrap_or_default() };
    match flags.command {
        Some(Command::Soak { requests, streams }) => {
            let (markdown, found) = bench::soak(&contest, requests, streams).await?;
            publish(&markdown, &found, json)?;
            Ok(true)
        }
        None => {
            if !(0.1..=3600.0).contains(&flags.seconds) {
                return Err("--seconds must be between 0.1 and 3600".into());
            }
            let length = Length { seconds: flags.seconds, rounds: flags.rounds, only: flags.only.clone() };
            let results = bench::run(&contest, &length).await?;
            publish(&results.markdown(), &results.json(), json)?;
            Ok(results.sound())
        }
    }
}

fn publish(markdown: &str, found: &serde_json::Value, path: &Path) -> Result<(), String> {
    #[allow(clippy::print_stdout, reason = "the table is what this program is for")]
    {
        println!("{markdown}");
    }
    path.parent().map_or(Ok(()), fs::create_dir_all).map_err(|error| format!("{}: {error}", path.display()))?;
    fs::write(path, format!("{found:#}\n")).map_err(|error| format!("{}: {error}", path.display()))
}

/// Waits for a signal that asks us to end.
async fn interrupted() -> String {
    let caught = async {
        let (mut interrupt, mut terminate, mut hangup) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        Ok::<_, std::io::Error>(())
    };
    match caught.await {
        Ok(()) => "interrupted; all that was started is ended".into(),
        Err(error) => format!("signals cannot be caught: {error}"),
    }
}
