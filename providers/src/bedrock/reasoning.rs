//! How hard a model is to think: OpenAI's `reasoning_effort` and Anthropic's `thinking` in the terms of each maker.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::model::{Model, Thinking};
use crate::wire::{ChatRequest, Str};

/// What the client asks for.
enum Wish<'a> {
    Off,
    Effort(&'a str),
    Budget(u64),
    /// The model is to decide, guided by an effort if there is one.
    Adaptive(Option<&'a str>),
}

/// Anthropic's smallest budget.
const LEAST: u64 = 1024;

/// Writes the wish into the model's own request fields. Tells whether thinking is now on and forbids sampling parameters.
pub(super) fn ask(request: &ChatRequest<'_>, model: &Model, forced: bool, unsigned: bool, fields: &mut Map<String, Value>, warnings: &mut Vec<String>) -> bool {
    let Some(wish) = wish(request) else { return false };
    match model.thinking() {
        Thinking::None => {
            if !matches!(wish, Wish::Off) {
                warnings.push("dropped `reasoning_effort`: this model is not known to think on Bedrock; send its own parameter in `additionalModelRequestFields`".into());
            }
            false
        }
        Thinking::Budget => budget(&wish, request, forced, unsigned, fields, warnings),
        Thinking::Adaptive => adaptive(&wish, model, forced, fields, warnings),
        Thinking::Nova => nova(&wish, request, fields, warnings),
        Thinking::Effort => {
            let effort = match wish {
                Wish::Off if model.always_thinks() => {
                    warnings.push("changed `reasoning_effort` to low: this model cannot do without thinking".into());
                    "low"
                }
                Wish::Off => "none",
                // The client's word is OpenAI's own already.
                Wish::Effort(word) if !model.always_thinks() => word,
                ref other => level(other, false),
            };
            fields.insert("reasoning_effort".into(), effort.into());
            false
        }
    }
}

fn wish<'a>(request: &'a ChatRequest<'_>) -> Option<Wish<'a>> {
    #[derive(Deserialize)]
    struct Asked<'a> {
        #[serde(rename = "type", borrow)]
        kind: Str<'a>,
        budget_tokens: Option<u64>,
    }
    let effort = request.reasoning_effort.as_deref();
    let asked: Option<Asked<'_>> = request.thinking.and_then(|raw| serde_json::from_str(raw.get()).ok());
    match (asked, effort) {
        (Some(asked), _) => Some(match (&*asked.kind, asked.budget_tokens) {
            ("disabled", _) => Wish::Off,
            ("enabled", Some(tokens)) => Wish::Budget(tokens),
            _ => Wish::Adaptive(effort),
        }),
        (None, Some("none")) => Some(Wish::Off),
        (None, Some(effort)) => Some(Wish::Effort(effort)),
        (None, None) => None,
    }
}

/// The effort as one of low, medium, high, and xhigh and max where they are known.
fn level(wish: &Wish<'_>, extra: bool) -> &'static str {
    match wish {
        Wish::Off => "low",
        Wish::Effort(word) | Wish::Adaptive(Some(word)) => match *word {
            "none" | "minimal" | "low" => "low",
            "medium" => "medium",
            "xhigh" if extra => "xhigh",
            "max" if extra => "max",
            _ => "high",
        },
        Wish::Budget(..4096) => "low",
        Wish::Budget(..16_384) => "medium",
        Wish::Budget(_) | Wish::Adaptive(None) => "high",
    }
}

fn budget(wish: &Wish<'_>, request: &ChatRequest<'_>, forced: bool, unsigned: bool, fields: &mut Map<String, Value>, warnings: &mut Vec<String>) -> bool {
    let tokens = match wish {
        Wish::Off => return false,
        Wish::Budget(tokens) => *tokens,
        Wish::Effort("minimal") => LEAST,
        Wish::Effort("xhigh" | "max") => 32_768,
        other => match level(other, false) {
            "low" => 2048,
            "medium" => 8192,
            _ => 16_384,
        },
    };
    let max = request.max_output().unwrap_or(u64::MAX);
    // A budget of our own choice leaves a quarter for the answer itself.
    let most = if matches!(wish, Wish::Budget(_)) { max.saturating_sub(1) } else { max - max / 4 };
    let why = if forced {
        "this model does not think where a tool call is demanded"
    } else if unsigned {
        "the last tool calls in `messages` came without their signed reasoning; hand back `reasoning_details`"
    } else if max <= LEAST {
        "`max_completion_tokens` leaves no room to think; 1025 is the least"
    } else {
        fields.insert("thinking".into(), json!({ "type": "enabled", "budget_tokens": tokens.clamp(LEAST, most.max(LEAST)) }));
        return true;
    };
    warnings.push(format!("turned thinking off: {why}"));
    false
}

fn adaptive(wish: &Wish<'_>, model: &Model, forced: bool, fields: &mut Map<String, Value>, warnings: &mut Vec<String>) -> bool {
    if matches!(wish, Wish::Off) {
        if model.always_thinks() {
            warnings.push("changed the effort to low: this model cannot do without thinking".into());
            fields.insert("output_config".into(), json!({ "effort": "low" }));
        } else if model.thinks_by_default() {
            fields.insert("thinking".into(), json!({ "type": "disabled" }));
        }
        return false;
    }
    if matches!(wish, Wish::Budget(_)) {
        warnings.push(format!("changed `thinking.budget_tokens` to the effort {}: this model takes no budget", level(wish, true)));
    }
    if forced {
        warnings.push("left thinking to the model's default: it cannot be asked for where a tool call is demanded".into());
    } else {
        fields.insert("thinking".into(), json!({ "type": "adaptive" }));
    }
    if !matches!(wish, Wish::Adaptive(None)) {
        fields.insert("output_config".into(), json!({ "effort": level(wish, model.extra_high() && !forced) }));
    }
    !forced
}

fn nova(wish: &Wish<'_>, request: &ChatRequest<'_>, fields: &mut Map<String, Value>, warnings: &mut Vec<String>) -> bool {
    if matches!(wish, Wish::Off) {
        return false;
    }
    let mut effort = level(wish, false);
    if effort == "high" && request.max_output().is_some() {
        effort = "medium";
        warnings.push("changed the effort to medium: Nova takes no bound on tokens with high effort".into());
    }
    fields.insert("reasoningConfig".into(), json!({ "type": "enabled", "maxReasoningEffort": effort }));
    effort == "high"
}
