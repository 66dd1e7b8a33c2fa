//! What a model's name tells of what it takes: Google publishes no list that a program could read, but names its models by
//! generation and size.

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::wire::ChatRequest;

/// A model by its name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Model<'a> {
    /// The name without `models/`.
    pub(crate) name: &'a str,
    /// Major and minor version; a name without one counts as new, a family that is not Gemini as old.
    pub(crate) version: (u32, u32),
}

/// How a model is told how much to think.
enum Thinking {
    /// Not at all.
    Fixed,
    /// By a number of tokens in these bounds; a minimum of 0 means that it can be turned off.
    Budget { min: u64, max: u64 },
    /// By a word; not every model knows every word.
    Level { minimal: bool, medium: bool },
}

/// What the client wants of thinking.
enum Wish {
    Off,
    Minimal,
    Low,
    Medium,
    High,
    Tokens(u64),
    Free,
}

/// `generationConfig.thinkingConfig`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ThinkingConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    include_thoughts: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking_budget: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking_level: Option<&'static str>,
}

impl<'a> Model<'a> {
    pub(crate) fn of(name: &'a str) -> Self {
        let name = name.strip_prefix("models/").unwrap_or(name);
        Model { name, version: version(name) }
    }

    /// Whether it takes schemas as JSON Schema; older ones only know a part of OpenAPI's.
    pub(crate) fn takes_json_schema(self) -> bool {
        self.version >= (2, 5)
    }

    /// Whether it refuses a history whose calls lack their signatures.
    pub(crate) fn wants_signatures(self) -> bool {
        self.version >= (3, 0)
    }

    /// Whether it can be held to a schema while it has tools.
    pub(crate) fn combines_tools_and_schema(self) -> bool {
        self.version >= (3, 0)
    }

    /// Whether tool results may hold images in themselves.
    pub(crate) fn takes_media_in_results(self) -> bool {
        self.version >= (3, 0)
    }

    /// Whether it still knows presence and frequency penalties.
    pub(crate) fn takes_penalties(self) -> bool {
        self.version < (2, 5)
    }

    fn thinking(self) -> Thinking {
        let has = |word| self.name.contains(word);
        if self.version < (2, 5) || has("-tts") || has("image") || has("computer-use") {
            return Thinking::Fixed;
        }
        if self.version < (3, 0) {
            return if has("flash") { Thinking::Budget { min: 0, max: 24_576 } } else { Thinking::Budget { min: 128, max: 32_768 } };
        }
        let minimal = has("flash-lite") || has("flash") && self.version < (3, 7);
        Thinking::Level { minimal, medium: !(has("pro") && self.version == (3, 0)) }
    }

    /// What `reasoning_effort`, or Anthropic's `thinking`, is for this model. `None` where the client said nothing or the
    /// model cannot be told.
    pub(crate) fn thinking_config(self, request: &ChatRequest<'_>, warnings: &mut Vec<String>) -> Result<Option<ThinkingConfig>, Error> {
        let Some((param, wish)) = wish(request)? else { return Ok(None) };
        Ok(match self.thinking() {
            Thinking::Fixed => {
                if !matches!(wish, Wish::Off) {
                    warnings.push(format!("dropped `{param}`: {} cannot be told how much to think", self.name));
                }
                None
            }
            Thinking::Budget { min, max } => {
                let tokens = match wish {
                    Wish::Off => 0,
                    Wish::Minimal | Wish::Low => 1024,
                    Wish::Medium => 8192,
                    Wish::High => 24_576,
                    Wish::Tokens(tokens) => tokens,
                    Wish::Free => return Ok(Some(ThinkingConfig { include_thoughts: Some(true), thinking_budget: Some(-1), thinking_level: None })),
                };
                let bound = tokens.clamp(min, max);
                if bound != tokens {
                    warnings.push(format!("`{param}` became a thinking budget of {bound} tokens: {} takes {min} to {max}", self.name));
                }
                Some(ThinkingConfig { include_thoughts: (bound > 0).then_some(true), thinking_budget: i64::try_from(bound).ok(), thinking_level: None })
            }
            Thinking::Level { minimal, medium } => {
                let level = match wish {
                    Wish::Off | Wish::Minimal if minimal => "MINIMAL",
                    Wish::Off | Wish::Minimal | Wish::Low | Wish::Tokens(..=1024) => "LOW",
                    Wish::Medium | Wish::Tokens(..=8192) if medium => "MEDIUM",
                    Wish::Medium | Wish::High | Wish::Tokens(_) => "HIGH",
                    Wish::Free => return Ok(Some(ThinkingConfig { include_thoughts: Some(true), thinking_budget: None, thinking_level: None })),
                };
                let exact = matches!((&wish, level), (Wish::Minimal, "MINIMAL") | (Wish::Low, "LOW") | (Wish::Medium, "MEDIUM") | (Wish::High, "HIGH") | (Wish::Tokens(_), _));
                if !exact {
                    warnings.push(format!("`{param}` became the thinking level {level}: {} has none nearer to it", self.name));
                }
                Some(ThinkingConfig { include_thoughts: (!matches!(wish, Wish::Off)).then_some(true), thinking_budget: None, thinking_level: Some(level) })
            }
        })
    }
}

fn version(name: &str) -> (u32, u32) {
    let Some(rest) = name.strip_prefix("gemini-") else { return (0, 0) };
    let number = rest.split('-').next().unwrap_or_default();
    let mut digits = number.split('.').map(str::parse);
    match (digits.next(), digits.next()) {
        (Some(Ok(major)), None) => (major, 0),
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        // `gemini-flash-latest` and the like move on by themselves.
        _ => (u32::MAX, 0),
    }
}

fn wish(request: &ChatRequest<'_>) -> Result<Option<(&'static str, Wish)>, Error> {
    if let Some(effort) = &request.reasoning_effort {
        let wish = match &**effort {
            "none" => Wish::Off,
            "minimal" => Wish::Minimal,
            "low" => Wish::Low,
            "medium" => Wish::Medium,
            "high" | "xhigh" | "max" => Wish::High,
            "auto" | "default" => return Ok(None),
            _ => return Err(Error::invalid("reasoning_effort", "`reasoning_effort` must be one of none, minimal, low, medium, high, xhigh")),
        };
        return Ok(Some(("reasoning_effort", wish)));
    }
    #[derive(Deserialize)]
    struct Anthropic<'a> {
        r#type: Option<&'a str>,
        budget_tokens: Option<u64>,
    }
    let Some(raw) = request.thinking else { return Ok(None) };
    let thinking: Anthropic<'_> = serde_json::from_str(raw.get()).map_err(|_| Error::invalid("thinking", "`thinking` must be an object like {\"type\": \"enabled\", \"budget_tokens\": 2048}"))?;
    let wish = match (thinking.r#type, thinking.budget_tokens) {
        (Some("disabled"), _) => Wish::Off,
        (_, Some(tokens)) => Wish::Tokens(tokens),
        _ => Wish::Free,
    };
    Ok(Some(("thinking", wish)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_names() {
        for (name, expected) in [
            ("gemini-2.5-pro", (2, 5)),
            ("models/gemini-3-flash-preview", (3, 0)),
            ("gemini-4-argon", (4, 0)),
            ("gemini-2.0-flash-lite", (2, 0)),
            ("gemini-flash-latest", (u32::MAX, 0)),
            ("gemma-3-27b-it", (0, 0)),
        ] {
            assert_eq!(Model::of(name).version, expected, "{name}");
        }
    }

    #[test]
    fn every_model_gets_the_word_or_the_number_it_knows() {
        let config = |model: &str, body: &str| {
            let request: ChatRequest<'_> = serde_json::from_str(body).unwrap();
            let mut warnings = Vec::new();
            let config = Model::of(model).thinking_config(&request, &mut warnings).unwrap();
            (config.map(|c| serde_json::to_string(&c).unwrap()).unwrap_or_default(), warnings.len())
        };
        let effort = |model: &str, effort: &str| config(model, &format!(r#"{{"reasoning_effort":"{effort}"}}"#));
        assert_eq!(effort("gemini-2.5-flash", "none"), (r#"{"thinkingBudget":0}"#.into(), 0));
        assert_eq!(effort("gemini-2.5-pro", "none"), (r#"{"includeThoughts":true,"thinkingBudget":128}"#.into(), 1));
        assert_eq!(effort("gemini-2.5-pro", "medium"), (r#"{"includeThoughts":true,"thinkingBudget":8192}"#.into(), 0));
        assert_eq!(effort("gemini-3-flash-preview", "minimal"), (r#"{"includeThoughts":true,"thinkingLevel":"MINIMAL"}"#.into(), 0));
        assert_eq!(effort("gemini-3-pro-preview", "medium"), (r#"{"includeThoughts":true,"thinkingLevel":"HIGH"}"#.into(), 1));
        assert_eq!(effort("gemini-3.1-pro-preview", "medium"), (r#"{"includeThoughts":true,"thinkingLevel":"MEDIUM"}"#.into(), 0));
        assert_eq!(effort("gemini-4-argon", "none"), (r#"{"thinkingLevel":"LOW"}"#.into(), 1));
        assert_eq!(effort("gemini-2.0-flash", "high"), (String::new(), 1));
        assert_eq!(effort("gemini-2.0-flash", "none"), (String::new(), 0));
        let anthropic = |model: &str, body: &str| config(model, &format!(r#"{{"thinking":{body}}}"#));
        assert_eq!(anthropic("gemini-2.5-flash", r#"{"type":"enabled","budget_tokens":99999}"#), (r#"{"includeThoughts":true,"thinkingBudget":24576}"#.into(), 1));
        assert_eq!(anthropic("gemini-3.8-flash", r#"{"type":"enabled","budget_tokens":4096}"#), (r#"{"includeThoughts":true,"thinkingLevel":"MEDIUM"}"#.into(), 0));
        assert_eq!(anthropic("gemini-3.8-flash", r#"{"type":"adaptive"}"#), (r#"{"includeThoughts":true}"#.into(), 0));
        assert_eq!(anthropic("gemini-2.5-flash", r#"{"type":"adaptive"}"#), (r#"{"includeThoughts":true,"thinkingBudget":-1}"#.into(), 0));
    }
}
