//! End to end: a gateway in this process, a mock upstream behind it, one module per story.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod admin;
mod admin_limits;
mod bad_input;
mod dialects;
mod ledger;
mod passes;
mod prompts;
mod purses;
mod routing;
mod running;
mod streams;
