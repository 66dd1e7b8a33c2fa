//! The history of usage, as written by the user.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use super::{Off, Span};

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
    /// The two forms are told apart here, because serde's message for "neither of two" says nothing.
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match Value::deserialize(d)? {
            Value::String(word) if word == "off" => Ok(UsageConfig::Off(Off::Off)),
            map @ Value::Object(_) => Usage::deserialize(map).map(UsageConfig::Kept).map_err(de::Error::custom),
            _ => Err(de::Error::custom("must be `off`, or a map such as `{ keep: 400d }`")),
        }
    }
}
