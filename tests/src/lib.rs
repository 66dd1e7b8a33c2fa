//! What the end-to-end tests stand on: a gateway in this process or several in their own, a Redis, an upstream that does as
//! it is told and keeps its bill, and a client that looks at every response twice. One file per story below `tests/e2e/`.

// All of this is test code: a harness that cannot do its work panics, and the test that uses it fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod binary;
pub mod chaos;
pub mod client;
pub mod dialects;
pub mod harness;
pub mod mock;
#[allow(missing_docs, clippy::new_without_default, reason = "the file is the counters' own, of whose tests it is a part")]
#[path = "../../gateway/src/counters/suite/server.rs"]
pub mod redis;
pub mod replica;
pub mod script;
pub mod spending;

pub use client::{Client, Connection, Response};
pub use harness::Running;
pub use mock::{Behaviour, Gate, Mock, Stream};
pub use replica::{Replica, Site};
