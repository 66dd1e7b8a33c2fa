//! End to end: a gateway in this process, a mock upstream behind it, one module per story.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod admin;
mod admin_limits;
mod admission;
mod bad_input;
mod bills;
mod bounds;
mod certificates;
mod chaos;
mod crashes;
mod detours;
mod dialects;
mod doors;
mod explain;
mod files;
mod forms;
mod history;
mod issuer;
mod ledger;
mod outages;
mod pages;
mod passes;
mod prompts;
mod proxies;
mod purses;
mod replicas;
mod routing;
mod running;
mod strangers;
mod streams;
mod tiers;
mod tokens;
mod tries;
mod untold;
