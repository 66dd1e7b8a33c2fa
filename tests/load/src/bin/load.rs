//! The generator as a program; it prints its report as JSON.

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use clap::Parser;
use load::{
    generate::{self, Plan},
    shape::Shape,
    stats::Report,
};

/// Asks a gateway on loopback the same thing over and over, and reports what it saw as JSON. Without --rate the loop is
/// closed: each connection asks again when it has its answer.
#[derive(Parser)]
struct Flags {
    /// Whom to ask; a loopback address.
    #[arg(long)]
    target: SocketAddr,
    /// Requests per second, at fixed times (open loop).
    #[arg(long, conflicts_with = "count")]
    rate: Option<f64>,
    /// Ask so many times instead of for --seconds (closed loop).
    #[arg(long)]
    count: Option<u64>,
    /// Connections that are kept open.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=2048))]
    connections: u16,
    /// Length of the measured window.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Seconds before the measured window.
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// The model to name.
    #[arg(long, default_value = "m")]
    model: String,
    /// Bytes of the prompt.
    #[arg(long, default_value_t = 400)]
    prompt: usize,
    /// Ask for a stream: burst-TOKENS or paced-TOKENS-MILLISECONDS.
    #[arg(long)]
    shape: Option<Shape>,
    /// Processes whose CPU time is measured, by id.
    #[arg(long, value_delimiter = ',')]
    watch: Vec<u32>,
    /// The core that they are pinned to: what others take of it is reported.
    #[arg(long)]
    core: Option<usize>,
}

fn main() -> ExitCode {
    match run(Flags::parse()).and_then(|report| serde_json::to_string(&report).map_err(|error| error.to_string())) {
        Ok(report) => {
            #[allow(clippy::print_stdout, reason = "the report is what this program is for")]
            {
                println!("{report}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> Result<Report, String> {
    if !flags.target.ip().is_loopback() {
        return Err("the generator asks on loopback only".into());
    }
    let seconds = |value: f64| Duration::try_from_secs_f64(value).map_err(|error| format!("{value} seconds: {error}"));
    let plan = Plan {
        target: flags.target,
        connections: flags.connections.into(),
        model: flags.model,
        prompt: flags.prompt,
        shape: flags.shape,
        warmup: seconds(flags.warmup)?,
        length: seconds(flags.seconds)?,
        watch: flags.watch,
        core: flags.core,
    };
    match flags.rate {
        Some(rate) if rate > 0.0 => generate::open::run(&plan, rate),
        Some(_) => Err("a rate must be above nought".into()),
        None => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
            runtime.block_on(generate::closed::run(&plan, flags.count))
        }
    }
}
