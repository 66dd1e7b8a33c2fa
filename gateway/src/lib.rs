//! The gateway: the order of things. The only place that knows the config file, client-facing status codes, principals and
//! money; it knows the inside of no dialect.

pub mod credential;
pub mod secret;
