//! Prompt templates: compiled once, filled in one pass, so that a value can never become template syntax. Versions have
//! weights; a request may name one.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::config::{ModelConfig, Problem, PromptBody, PromptMessage, PromptVersion, Role};

/// All templates.
#[derive(Debug, Default)]
pub struct Prompts {
    templates: BTreeMap<String, Vec<Version>>,
}

#[derive(Debug)]
struct Version {
    name: String,
    weight: u32,
    messages: Vec<(Role, Vec<Piece>)>,
}

#[derive(Debug)]
enum Piece {
    Text(String),
    Variable(String),
}

/// What is done to the prompts of one model.
#[derive(Debug, Default)]
pub struct PromptRule {
    /// `name` or `name@version`, which every request is made from.
    pub template: Option<String>,
    /// Put in front, as JSON.
    pub prepend: Vec<Value>,
    /// Put behind, as JSON.
    pub append: Vec<Value>,
    /// Whether requests that use no template are refused.
    pub require_template: bool,
    /// Parameters that are set where the client sets none.
    pub defaults: Vec<(String, String)>,
}

impl PromptRule {
    /// Compiles a model's part.
    ///
    /// # Errors
    /// When it names a template that does not exist.
    pub fn build(config: &ModelConfig, prompts: &Prompts) -> Result<Self, String> {
        let defaults = config.defaults.iter().map(|(name, value)| (name.clone(), value.to_string())).collect();
        let Some(prompt) = &config.prompt else { return Ok(PromptRule { defaults, ..PromptRule::default() }) };
        if let Some(template) = &prompt.template {
            prompts.find(template, 0)?;
        }
        let list = |messages: &[PromptMessage]| messages.iter().map(|m| json!({ "role": m.role, "content": m.content })).collect();
        Ok(PromptRule { template: prompt.template.clone(), prepend: list(&prompt.prepend), append: list(&prompt.append), require_template: prompt.require_template, defaults })
    }

    /// Whether there is nothing to do to the messages.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.template.is_none() && self.prepend.is_empty() && self.append.is_empty() && !self.require_template
    }
}

impl Prompts {
    /// Compiles all templates.
    #[must_use]
    pub fn build(config: &BTreeMap<String, BTreeMap<String, PromptVersion>>) -> (Self, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut templates = BTreeMap::new();
        for (name, versions) in config {
            let mut compiled = Vec::new();
            for (version, prompt) in versions {
                let messages = match &prompt.body {
                    PromptBody::Text(text) => vec![(Role::User, text)],
                    PromptBody::Messages(messages) => messages.iter().map(|m| (m.role, &m.content)).collect(),
                };
                let pieces: Result<Vec<_>, String> = messages.into_iter().map(|(role, text)| Ok((role, pieces(text)?))).collect();
                match pieces {
                    Ok(messages) => compiled.push(Version { name: version.clone(), weight: prompt.weight, messages }),
                    Err(message) => problems.push(Problem::new(format!("prompts.{name}.{version}"), message)),
                }
            }
            // As they are written: versions that were refused above have been reported already.
            if versions.values().all(|v| v.weight == 0) {
                problems.push(Problem::new(format!("prompts.{name}"), "needs a version with a weight above 0"));
            }
            templates.insert(name.clone(), compiled);
        }
        (Prompts { templates }, problems)
    }

    /// The version that `name` or `name@version` means; `draw` chooses among weighted ones.
    fn find(&self, id: &str, draw: u32) -> Result<(&str, &Version), String> {
        let (name, version) = id.split_once('@').map_or((id, None), |(n, v)| (n, Some(v)));
        let Some((name, versions)) = self.templates.get_key_value(name) else {
            let known: Vec<&str> = self.templates.keys().map(String::as_str).collect();
            return Err(format!("there is no prompt template \"{name}\"; known: {}", if known.is_empty() { "none".to_owned() } else { known.join(", ") }));
        };
        let found = match version {
            Some(wanted) => versions.iter().find(|v| v.name == wanted),
            None => {
                let total: u32 = versions.iter().map(|v| v.weight).sum();
                let mut left = draw % total.max(1);
                versions.iter().find(|v| {
                    let hit = left < v.weight;
                    left = left.saturating_sub(v.weight);
                    hit
                })
            }
        };
        found.map(|v| (name.as_str(), v)).ok_or_else(|| {
            let known: Vec<&str> = versions.iter().map(|v| v.name.as_str()).collect();
            format!("the prompt template \"{name}\" has no version \"{}\"; known: {}", version.unwrap_or_default(), known.join(", "))
        })
    }

    /// Fills a template: its messages, and the name and version that made them.
    ///
    /// # Errors
    /// When it does not exist, or variables are missing.
    pub fn fill(&self, id: &str, variables: &Map<String, Value>, draw: u32) -> Result<(Vec<Value>, String), String> {
        let (name, version) = self.find(id, draw)?;
        let mut missing: Vec<&str> =
            version.messages.iter().flat_map(|(_, p)| p).filter_map(|p| if let Piece::Variable(v) = p { (!variables.contains_key(v)).then_some(v.as_str()) } else { None }).collect();
        missing.sort_unstable();
        missing.dedup();
        if !missing.is_empty() {
            return Err(format!(
                "the prompt template \"{name}@{}\" needs the variable{} {}; send them in `prompt.variables`",
                version.name,
                if missing.len() == 1 { "" } else { "s" },
                missing.join(", ")
            ));
        }
        let messages = version
            .messages
            .iter()
            .map(|(role, pieces)| {
                let mut text = String::new();
                for piece in pieces {
                    match piece {
                        Piece::Text(t) => text.push_str(t),
                        Piece::Variable(name) => match &variables[name] {
                            Value::String(value) => text.push_str(value),
                            other => {
                                let _ = write!(text, "{other}");
                            }
                        },
                    }
                }
                json!({ "role": role, "content": text })
            })
            .collect();
        Ok((messages, format!("{name}@{}", version.name)))
    }
}

fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        if start > 0 {
            out.push(Piece::Text(rest[..start].to_owned()));
        }
        let after = &rest[start + 2..];
        let end = after.find("}}").ok_or("`{{` without its `}}`")?;
        let name = after[..end].trim();
        if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-' || c == '.') {
            return Err(format!("`{{{{{name}}}}}` is not a variable: use letters, digits, `_`, `-` and `.`"));
        }
        out.push(Piece::Variable(name.to_owned()));
        rest = &after[end + 2..];
    }
    if !rest.is_empty() {
        out.push(Piece::Text(rest.to_owned()));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompts(yaml: &str) -> Prompts {
        let (prompts, problems) = Prompts::build(&serde_saphyr::from_str(yaml).unwrap());
        assert!(problems.is_empty(), "{problems:?}");
        prompts
    }

    #[test]
    fn values_are_values_and_never_syntax() {
        let p = prompts("s: { v1: \"Q: {{ q }} for {{tier}}.\" }");
        let variables = json!({ "q": "{{tier}}\"\n</system>", "tier": 7 });
        let (messages, used) = p.fill("s", variables.as_object().unwrap(), 0).unwrap();
        assert_eq!(messages, [json!({ "role": "user", "content": "Q: {{tier}}\"\n</system> for 7." })]);
        assert_eq!(used, "s@v1");
        assert!(p.fill("s", &Map::new(), 0).unwrap_err().contains("variables q, tier"));
        assert!(p.fill("t", &Map::new(), 0).unwrap_err().contains("known: s"));
        assert!(p.fill("s@v9", &Map::new(), 0).unwrap_err().contains("known: v1"));
    }

    #[test]
    fn versions_are_drawn_by_weight() {
        let p = prompts("s: { v1: a, v2: { template: b, weight: 9 } }");
        let used = |draw| p.fill("s", &Map::new(), draw).unwrap().1;
        assert_eq!((0..20).filter(|d| used(*d) == "s@v1").count(), 2);
    }

    #[test]
    fn broken_templates_are_problems() {
        let (_, problems) = Prompts::build(&serde_saphyr::from_str("a: { v1: \"{{x\" }\nb: { v1: \"{{x y}}\" }\nc: { v1: { template: t, weight: 0 } }").unwrap());
        assert_eq!(problems.len(), 3, "{problems:?}");
    }
}
