//! How much a Claude is to think, and what sampling that leaves: each generation says it in its own way.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::Host;
use super::model::{Traits, Unasked};
use crate::Error;
use crate::wire::{ChatRequest, Str};

/// Least `budget_tokens` that the API takes.
const LEAST: u64 = 1024;

/// The `thinking` object of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Thinking<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    budget_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    display: Option<Cow<'a, str>>,
}

impl Thinking<'_> {
    pub(super) fn is_on(&self) -> bool {
        self.r#type != "disabled"
    }

    /// Whether it is bound by a budget, which is stricter about the history.
    pub(super) fn has_budget(&self) -> bool {
        self.budget_tokens.is_some()
    }

    const OFF: Thinking<'static> = Thinking { r#type: "disabled", budget_tokens: None, display: None };
}

/// What was decided: the two fields of the request that it concerns.
#[derive(Debug, Default)]
pub(super) struct Decision<'a> {
    pub(super) thinking: Option<Thinking<'a>>,
    pub(super) effort: Option<&'static str>,
}

/// Anthropic's configuration as its door carries it through the hub.
#[derive(Deserialize)]
struct Asked<'a> {
    #[serde(borrow)]
    r#type: Str<'a>,
    budget_tokens: Option<u64>,
    #[serde(borrow)]
    display: Option<Str<'a>>,
}

/// Decides by what the client asked, in either dialect, and by what the model takes.
pub(super) fn decide<'a>(request: &'a ChatRequest<'_>, traits: &Traits, host: &Host, max_tokens: u64, warnings: &mut Vec<String>) -> Result<Decision<'a>, Error> {
    let wanted = request.reasoning_effort.as_deref();
    if let Some(word) = wanted.filter(|w| !["none", "minimal", "low", "medium", "high", "xhigh", "max"].contains(w)) {
        return Err(Error::invalid("reasoning_effort", format!("`{word}` must be none, minimal, low, medium, high or xhigh")));
    }
    let asked: Option<Asked<'a>> = match request.thinking.filter(|raw| raw.get() != "null") {
        Some(raw) => Some(serde_json::from_str(raw.get()).map_err(|_| Error::invalid("thinking", "`thinking` must be an object with a `type`"))?),
        None => None,
    };
    let display = asked.as_ref().and_then(|a| a.display.as_ref()).map(|d| d.0.clone());
    let budget = match asked.as_ref().map(|a| &*a.r#type) {
        Some("disabled") => {
            let mut decision = off(traits, host, warnings);
            if let Some(word) = wanted.filter(|w| *w != "none" && host.output_config).and_then(|w| effort(w, traits)) {
                decision.effort = Some(modest(word));
            }
            return Ok(decision);
        }
        Some("enabled") => asked.as_ref().and_then(|a| a.budget_tokens),
        Some("adaptive") => None,
        Some(other) => return Err(Error::invalid("thinking.type", format!("`{other}` must be enabled, adaptive or disabled"))),
        None => match wanted {
            None => return Ok(Decision::default()),
            Some("none") => return Ok(off(traits, host, warnings)),
            Some(_) => None,
        },
    };
    if traits.adaptive {
        let effort = if host.output_config { wanted.and_then(|w| effort(w, traits)) } else { None };
        // The newest models keep the text of their thinking to themselves unless they are asked for it.
        let display = display.or_else(|| (!traits.sampling && asked.is_none()).then_some(Cow::Borrowed("summarized")));
        return Ok(Decision { thinking: Some(Thinking { r#type: "adaptive", budget_tokens: None, display }), effort });
    }
    if !traits.budget {
        warnings.push(format!("dropped `{}`: this model does not think before it answers", if asked.is_some() { "thinking" } else { "reasoning_effort" }));
        return Ok(Decision::default());
    }
    let budget = budget.unwrap_or_else(|| usual(wanted.unwrap_or("high"), max_tokens)).max(LEAST);
    if max_tokens <= LEAST {
        warnings.push(format!("thinking is off: it takes at least {LEAST} tokens and `max_tokens` allows {max_tokens}"));
        return Ok(Decision::default());
    }
    let budget = if budget < max_tokens { budget } else { (max_tokens / 4 * 3).max(LEAST) };
    Ok(Decision { thinking: Some(Thinking { r#type: "enabled", budget_tokens: Some(budget), display }), effort: None })
}

/// Says that the model is not to think, where it has to be said and can be.
pub(super) fn off(traits: &Traits, host: &Host, warnings: &mut Vec<String>) -> Decision<'static> {
    match traits.unasked {
        Unasked::Answers => Decision::default(),
        Unasked::Thinks => Decision { thinking: Some(Thinking::OFF), effort: None },
        Unasked::AlwaysThinks => {
            warnings.push("this model always thinks; it is asked for little effort instead".into());
            Decision { thinking: None, effort: host.output_config.then_some("low") }
        }
    }
}

/// A tool can only be forced on a model that does not think: makes room for that where the model allows it.
pub(super) fn make_room_for_force(decision: &mut Decision<'_>, traits: &Traits, warnings: &mut Vec<String>) {
    // Whether a model that always thinks can be forced is for the model to say.
    if traits.unasked == Unasked::AlwaysThinks {
        return;
    }
    if decision.thinking.as_ref().is_some_and(Thinking::is_on) {
        warnings.push("thinking is off for this request: Claude cannot think where a tool call is forced".into());
        decision.thinking = None;
    }
    if traits.unasked == Unasked::Thinks {
        decision.thinking = Some(Thinking::OFF);
        decision.effort = decision.effort.map(modest);
    }
}

/// As much effort as is allowed with thinking off.
fn modest(effort: &'static str) -> &'static str {
    if matches!(effort, "xhigh" | "max") { "high" } else { effort }
}

/// The nearest effort that the model knows.
fn effort(wanted: &str, traits: &Traits) -> Option<&'static str> {
    let ladder: &[&str] = match wanted {
        "minimal" | "low" => &["low"],
        "medium" => &["medium"],
        "high" => &["high"],
        "xhigh" => &["xhigh", "high"],
        _ => &["max", "high"],
    };
    ladder.iter().find_map(|word| traits.efforts.iter().find(|known| *known == word).copied())
}

/// A budget for an effort, with a quarter of the tokens left for the answer.
fn usual(effort: &str, max_tokens: u64) -> u64 {
    let tokens = match effort {
        "minimal" => LEAST,
        "low" => 2048,
        "medium" => 8192,
        "high" => 16_384,
        _ => 32_768,
    };
    tokens.min(max_tokens / 4 * 3)
}

/// Sampling parameters as they are sent.
#[derive(Debug, Default, Serialize)]
pub(super) struct Sampling {
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<u64>,
}

/// What the model, and thinking, leave of the sampling parameters.
pub(super) fn sampling(request: &ChatRequest<'_>, traits: &Traits, thinks: bool, warnings: &mut Vec<String>) -> Result<Sampling, Error> {
    // The default values say nothing, and need no word where nothing may be said.
    let free = traits.sampling && !thinks;
    let mut sampling = Sampling { temperature: request.temperature.filter(|t| free || *t != 1.0), top_p: request.top_p.filter(|p| free && traits.both || *p != 1.0), top_k: request.top_k };
    if let Some(temperature) = sampling.temperature {
        if temperature < 0.0 {
            return Err(Error::invalid("temperature", "`temperature` must not be negative"));
        }
        if temperature > 1.0 && free {
            warnings.push(format!("lowered `temperature` from {temperature} to 1, Claude's highest"));
            sampling.temperature = Some(1.0);
        }
    }
    let mut drop = |name: &str, given: bool, why: &str| {
        if given {
            warnings.push(format!("dropped `{name}`: {why}"));
        }
    };
    if !traits.sampling {
        let why = "this model takes no sampling parameters";
        drop("temperature", sampling.temperature.take().is_some(), why);
        drop("top_p", sampling.top_p.take().is_some(), why);
        drop("top_k", sampling.top_k.take().is_some(), why);
    } else if thinks {
        let why = "Claude does not take it while it thinks";
        drop("temperature", sampling.temperature.take().is_some(), why);
        drop("top_k", sampling.top_k.take().is_some(), why);
        if sampling.top_p.is_some_and(|p| p < 0.95) {
            sampling.top_p = None;
            drop("top_p", true, "while it thinks Claude takes nothing below 0.95");
        }
    } else if sampling.temperature.is_some() && !traits.both {
        drop("top_p", sampling.top_p.take().is_some(), "this model takes either `temperature` or `top_p`");
    }
    Ok(sampling)
}
