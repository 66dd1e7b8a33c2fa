//! The gateway: the order of things. The only place that knows the config file, client-facing status codes, principals and
//! money; it knows the inside of no dialect.
//!
//! A request comes through [`door`], becomes an [`exchange::Exchange`], goes down a [`road`] past the checkpoints in
//! [`phase`], and leaves as a body that carries its [`ledger::Record`] along. [`config`] is what the user wrote, [`rules`]
//! what it compiles to, [`state`] what outlives a reload.

pub mod admin;
pub mod background;
pub mod body;
pub mod certificate;
pub mod config;
pub mod counters;
pub mod credential;
pub mod discover;
pub mod door;
pub mod doubts;
pub mod durable;
pub mod exchange;
pub mod explain;
pub mod fate;
pub mod fault;
pub(crate) mod fetch;
pub mod figures;
pub mod form;
pub mod guess;
pub mod history;
pub mod jwt;
pub mod keyring;
pub mod ledger;
pub mod metrics;
pub mod names;
pub mod near;
pub mod origin;
pub mod phase;
pub mod principal;
pub mod prompts;
pub mod purse;
pub mod rate;
pub mod road;
pub mod rules;
pub mod secret;
pub mod serve;
pub mod sinks;
pub mod stall;
pub mod state;
pub mod stream;
pub mod target;
pub mod telemetry;
pub mod tls;
pub mod trace;
pub mod upstream;
pub mod weight;
pub mod whole;
