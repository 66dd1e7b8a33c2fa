//! The mock upstream as a program.

use std::{net::SocketAddr, process::ExitCode};

use clap::Parser;

/// An LLM provider on loopback that answers at once, always the same.
#[derive(Parser)]
struct Flags {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:9100")]
    listen: SocketAddr,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    let served = async {
        let listener = load::mock::bind(flags.listen).await?;
        eprintln!("mock upstream on http://{}/v1", listener.local_addr()?);
        load::mock::serve(listener).await
    };
    match served.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mock: {error}");
            ExitCode::FAILURE
        }
    }
}
