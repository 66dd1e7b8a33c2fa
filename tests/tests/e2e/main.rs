//! End to end: a gateway in this process, a mock upstream behind it, one module per story.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod admin;
mod admin_limits;
mod admission;
mod bad_input;
mod certificates;
mod dialects;
mod doors;
mod explain;
mod issuer;
mod ledger;
mod passes;
mod prompts;
mod purses;
mod routing;
mod running;
mod strangers;
mod streams;
mod tokens;
mod tries;
