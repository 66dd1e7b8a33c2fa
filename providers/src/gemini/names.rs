//! Function names: OpenAI's may begin with a digit or a dash, Gemini's may not. Such a name gets a prefix on its way in and
//! loses it on its way out; nothing is remembered in between.

use std::borrow::Cow;

const PREFIX: &str = "_x_";

fn begins_badly(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_digit() || c == '-')
}

/// A function's name as Gemini takes it.
pub(super) fn to_gemini(name: &str) -> Cow<'_, str> {
    if begins_badly(name) { Cow::Owned(format!("{PREFIX}{name}")) } else { Cow::Borrowed(name) }
}

/// A function's name as the client knows it.
pub(super) fn from_gemini(name: &str) -> &str {
    name.strip_prefix(PREFIX).filter(|rest| begins_badly(rest)).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_comes_back() {
        for name in ["get_weather", "1password", "-x", "_x_", "_x_name", "_"] {
            assert_eq!(from_gemini(&to_gemini(name)), name);
            assert!(!begins_badly(&to_gemini(name)));
        }
    }
}
