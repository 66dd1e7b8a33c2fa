//! The history of usage, as written by the user.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::{Off, Span, units};

/// Whether there is a history of usage.
#[derive(Debug, Clone, JsonSchema)]
#[serde(untagged)]
pub enum UsageConfig {
    /// The word `off`.
    Off(Off),
    /// For how long.
    Kept(Usage),
}

/// The history of usage.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Usage {
    /// How long a day is kept, in whole days. Default `400d`.
    pub keep: Option<Span>,
}

impl<'de> Deserialize<'de> for UsageConfig {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let off = |word: &str| if word == "off" { Ok(UsageConfig::Off(Off::Off)) } else { Err("must be `off`, or a map such as `{ keep: 400d }`".to_owned()) };
        units::short_or_long(d, off, UsageConfig::Kept)
    }
}
