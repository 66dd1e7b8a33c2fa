//! Durations, sizes and counts as people write them: `200ms`, `5m`, `7d`; `64KiB`, `8MiB`; `200k`, `1M`.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use super::{Address, Off};

/// A duration: a number and `ms`, `s`, `m`, `h` or `d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A size in bytes: a number and `B`, `KiB`, `MiB`, `GiB` (or `KB`, `MB`, `GB`, powers of a thousand).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A count: a number, alone or with `k` or `M`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count(pub u64);

/// The number in front and the unit behind it.
fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number = text[..end].parse().ok()?;
    Some((number, text[end..].trim()))
}

fn scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let (number, unit) = split(text)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    Some(number * factor)
}

impl Span {
    fn parse(text: &str) -> Option<Self> {
        let units = [("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86_400.0)];
        Duration::try_from_secs_f64(scaled(text, &units)?).ok().map(Span)
    }
}

impl Size {
    fn parse(text: &str) -> Option<Self> {
        let units = [("", 1.0), ("B", 1.0), ("KiB", 1024.0), ("MiB", 1_048_576.0), ("GiB", 1_073_741_824.0), ("KB", 1e3), ("MB", 1e6), ("GB", 1e9)];
        scaled(text, &units).map(|n| Size(n as u64))
    }
}

impl Count {
    fn parse(text: &str) -> Option<Self> {
        scaled(text, &[("", 1.0), ("k", 1e3), ("M", 1e6)]).map(|n| Count(n as u64))
    }
}

/// What is worth another try: a word, or a status as the number that it is.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Cause {
    Word(String),
    Status(u16),
}

/// Where to listen, in the schema.
pub(super) struct Socket;

impl JsonSchema for Socket {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Socket".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": r"^.+:[0-9]+$", "description": SOCKET })
    }
}

const SOCKET: &str = "an address and a port such as 127.0.0.1:8080 or 0.0.0.0:8080";

/// Reads where to listen.
pub(super) fn address<'de, D: Deserializer<'de>>(d: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = Option::<String>::deserialize(d)?;
    text.map(|t| t.parse().map_err(|_| de::Error::custom(format!("must be {SOCKET}")))).transpose()
}

/// Reads where to listen, or `off`.
pub(super) fn address_or_off(text: &str) -> Result<Address, String> {
    match text {
        "off" => Ok(Address::Off(Off::Off)),
        at => at.parse().map(Address::At).map_err(|_| format!("must be {SOCKET}, or `off`")),
    }
}

/// Reads a list of causes as words.
pub(super) fn causes<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    let causes = Vec::<Cause>::deserialize(d)?;
    Ok(causes
        .into_iter()
        .map(|c| match c {
            Cause::Word(word) => word,
            Cause::Status(status) => status.to_string(),
        })
        .collect())
}

/// Reads the short form of something, a word, or its long one, a map. Unlike with serde's own way, what is wrong inside keeps its
/// path, and its words.
pub(super) fn short_or_long<'de, D: Deserializer<'de>, T, L: Deserialize<'de>>(d: D, short: fn(&str) -> Result<T, String>, long: fn(L) -> T) -> Result<T, D::Error> {
    struct Forms<T, L> {
        short: fn(&str) -> Result<T, String>,
        long: fn(L) -> T,
    }

    impl<'de, T, L: Deserialize<'de>> de::Visitor<'de> for Forms<T, L> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("text or a map")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            (self.short)(text).map_err(E::custom)
        }

        fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            L::deserialize(de::value::MapAccessDeserializer::new(map)).map(self.long)
        }
    }

    d.deserialize_any(Forms { short, long })
}

macro_rules! unit {
    ($name:ident, $what:literal, $pattern:literal, $number:expr) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let value = serde_json::Value::deserialize(d)?;
                let number: Option<fn(u64) -> $name> = $number;
                match (&value, number) {
                    (serde_json::Value::String(text), _) => $name::parse(text),
                    (serde_json::Value::Number(n), Some(make)) => n.as_u64().map(make),
                    _ => None,
                }
                .ok_or_else(|| de::Error::custom(format!("{value} is not {}", $what)))
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                // A bare number is taken where it needs no unit, and only there.
                let number: Option<fn(u64) -> $name> = $number;
                let kind = if number.is_some() { serde_json::json!(["string", "integer"]) } else { "string".into() };
                json_schema!({ "type": kind, "pattern": $pattern, "description": $what })
            }
        }
    };
}

unit!(Span, "a duration such as \"200ms\", \"30s\", \"5m\", \"1h\" or \"7d\"", r"^[0-9.]+ ?(ms|s|m|h|d)$", None);
unit!(Size, "a size such as \"64KiB\" or \"8MiB\"", r"^[0-9.]+ ?([KMG]i?B|B)?$", Some(Size));
unit!(Count, "a count such as 500, \"200k\" or \"1M\"", r"^[0-9.]+ ?[kM]?$", Some(Count));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_s_ways_of_writing() {
        let span = |t: &str| serde_json::from_value::<Span>(t.into()).map(|s| s.0.as_millis()).ok();
        assert_eq!(
            [span("200ms"), span("1.5s"), span("5m"), span("1h"), span("7d"), span("5"), span("5 years"), span("-1s")],
            [Some(200), Some(1500), Some(300_000), Some(3_600_000), Some(604_800_000), None, None, None]
        );
        let size = |t: &str| serde_json::from_value::<Size>(t.into()).map(|s| s.0).ok();
        assert_eq!([size("64KiB"), size("8MiB"), size("1MB"), size("12"), size("x")], [Some(65_536), Some(8_388_608), Some(1_000_000), Some(12), None]);
        let count = |t: serde_json::Value| serde_json::from_value::<Count>(t).map(|s| s.0).ok();
        assert_eq!([count("200k".into()), count("1M".into()), count(7.into()), count("".into())], [Some(200_000), Some(1_000_000), Some(7), None]);
    }
}
