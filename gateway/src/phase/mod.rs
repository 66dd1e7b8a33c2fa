//! The checkpoints of a request, one file each. A phase does not call a phase; the roads say their order.

pub mod admit;
pub mod call;
pub mod identity;
pub mod prompt;
pub mod read;
pub mod relay;
pub mod route;
