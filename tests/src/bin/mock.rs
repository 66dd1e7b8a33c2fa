//! The mock of every dialect as a process of its own, for suites in other languages: prints its address and serves until
//! it is ended. An address may be given; without one it takes a free port on loopback.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;

use tests::Mock;

#[tokio::main]
async fn main() -> ExitCode {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let started = match address.parse::<SocketAddr>() {
        Ok(address) => Mock::at(address).await,
        Err(_) => Err(std::io::Error::other("the address must be written 127.0.0.1:9000")),
    };
    match started {
        Ok(mock) => {
            let mut out = std::io::stdout();
            let _ = writeln!(out, "{}", mock.address()).and_then(|()| out.flush());
            std::future::pending::<()>().await;
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "cannot listen on {address}: {error}");
            ExitCode::FAILURE
        }
    }
}
