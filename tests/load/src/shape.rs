//! The shape of a stream: how many tokens, and when. The prompt names it (`shape=burst-200`), because a prompt is the
//! one thing that survives a gateway that translates.

use std::{fmt, str::FromStr, time::Duration};

use memchr::memmem;

/// Every token of the mock carries this byte once and nothing else of an answer does, so that the generator counts
/// tokens by counting bytes. A paced token has the time it was sent behind it: nanoseconds since the epoch, 19 digits.
pub const MARK: u8 = b'@';

/// The digits behind the mark of a paced token.
pub const STAMP: usize = 19;

/// How a streamed answer is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shape {
    /// All tokens in one write: `burst-200`.
    Burst(u32),
    /// One write for each token, so far apart: `paced-50-20` is 50 tokens, 20 ms apart.
    Paced(u32, Duration),
}

impl Shape {
    /// The shape that a request body names, wherever it stands in it.
    pub fn in_body(body: &[u8]) -> Option<Self> {
        let from = memmem::find(body, b"shape=")? + b"shape=".len();
        let name = body[from..].split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'-').next()?;
        std::str::from_utf8(name).ok()?.parse().ok()
    }

    /// How many tokens the stream has.
    pub fn tokens(self) -> u32 {
        match self {
            Self::Burst(tokens) | Self::Paced(tokens, _) => tokens,
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Burst(tokens) => write!(f, "burst-{tokens}"),
            Self::Paced(tokens, every) => write!(f, "paced-{tokens}-{}", every.as_millis()),
        }
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let wrong = || format!("no shape {name:?}: say burst-TOKENS or paced-TOKENS-MILLISECONDS, at most 10000 each");
        let number = |text: &str| text.parse().ok().filter(|number| (1..=10_000).contains(number)).ok_or_else(wrong);
        match name.split('-').collect::<Vec<_>>()[..] {
            ["burst", tokens] => Ok(Self::Burst(number(tokens)?)),
            ["paced", tokens, every] => Ok(Self::Paced(number(tokens)?, Duration::from_millis(number(every)?.into()))),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for name in ["burst-200", "paced-50-20"] {
            assert_eq!(name.parse::<Shape>().unwrap().to_string(), name);
        }
        for wrong in ["", "burst", "burst-0", "burst-10001", "paced-5", "paced-5-x", "burst-5-5"] {
            assert!(wrong.parse::<Shape>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_body_names_its_shape_anywhere() {
        assert_eq!(Shape::in_body(br#"{"messages":[{"content":"shape=paced-5-2. Hello"}]}"#), Some(Shape::Paced(5, Duration::from_millis(2))));
        assert_eq!(Shape::in_body(br#"{"user":"shape=burst-7"}"#), Some(Shape::Burst(7)));
        assert_eq!(Shape::in_body(b"{}"), None);
    }
}
