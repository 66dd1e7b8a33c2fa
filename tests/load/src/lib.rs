//! Benchmarks: a mock upstream, a load generator, and nginx as the yardstick.
//!
//! Three programs share this crate: `mock` answers, `load` asks, `bench` starts both, puts the gateway and nginx
//! between them in turn, and prints the ratios. Everything stays on loopback.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking"))]

pub mod answers;
pub mod bench;
pub mod generate;
pub mod http1;
pub mod mock;
pub mod process;
pub mod shape;
pub mod stats;
