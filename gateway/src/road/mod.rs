//! The roads: functions that one reads top to bottom. Each line is a checkpoint, and their order is the contract.

pub mod models;
pub mod multipart;
pub mod passed;
