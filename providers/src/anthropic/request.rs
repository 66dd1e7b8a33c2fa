//! Writes a hub request as a Messages request.

use serde::Serialize;
use serde_json::value::RawValue;

use super::Host;
use super::content::{Block, extra};
use super::history::{self, Turn};
use super::model::Traits;
use super::thinking::{self, Sampling, Thinking};
use super::tools::{self, ChoiceBody, Format, ToolBody};
use crate::wire::ChatRequest;
use crate::{Call, Error, Target};

/// Bound on an answer where neither the client nor the price table gives one.
const MAX_TOKENS: u64 = 4096;

#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    anthropic_version: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    max_tokens: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    system: Vec<Block<'a>>,
    messages: Vec<Turn<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<ToolBody<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<ChoiceBody<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<Thinking<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_config: Option<OutputConfig<'a>>,
    #[serde(flatten)]
    sampling: Sampling,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stop_sequences: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Metadata<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stream: bool,
}

#[derive(Serialize)]
struct OutputConfig<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    effort: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<Format<'a>>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    user_id: &'a str,
}

/// Writes the request as `host` wants it, to be sent to `path`.
///
/// # Errors
/// When the request is wrong, or the model cannot honour it.
pub fn write(request: &ChatRequest<'_>, target: &Target<'_>, host: &Host, path: impl Into<String>) -> Result<Call, Error> {
    refuse(request, host)?;
    let traits = Traits::of(target.model, target.info);
    let mut history = history::read(request, host)?;
    let mut warnings = std::mem::take(&mut history.warnings);
    let tools = tools::read(request, &history.turns, &traits, host, &mut warnings)?;
    let max_tokens = max_tokens(request, target, &mut warnings);

    let mut decision = thinking::decide(request, &traits, host, max_tokens, &mut warnings)?;
    if tools.choice.as_ref().is_some_and(ChoiceBody::forces) {
        thinking::make_room_for_force(&mut decision, &traits, &mut warnings);
    } else if decision.thinking.as_ref().is_some_and(Thinking::has_budget) && history.lost_its_thinking() {
        warnings.push("thinking is off for this request: the history does not hold the signed thinking before its last tool calls".into());
        decision.thinking = None;
    }
    let thinks = decision.thinking.as_ref().is_some_and(Thinking::is_on);
    if !traits.prefill || thinks {
        history.end_with_the_user(&mut warnings);
    }
    let sampling = thinking::sampling(request, &traits, thinks, &mut warnings)?;

    if let Some(instruction) = tools.instruction {
        history.system.push(Block::text(instruction));
    }
    let format = tools.format;
    let body = Body {
        anthropic_version: host.version_in_body,
        model: host.version_in_body.is_none().then_some(target.model),
        max_tokens,
        system: history.system,
        messages: history.turns,
        tools: tools.tools,
        tool_choice: tools.choice,
        thinking: decision.thinking,
        output_config: (decision.effort.is_some() || format.is_some()).then_some(OutputConfig { effort: decision.effort, format }),
        sampling,
        stop_sequences: stop_sequences(request, &mut warnings),
        metadata: request.user.as_deref().filter(|u| !u.is_empty()).map(|user_id| Metadata { user_id }),
        service_tier: service_tier(request, &mut warnings),
        cache_control: extra(&request.extra, "cache_control"),
        stream: request.streams() && host.stream_in_body,
    };
    dropped(request, &mut warnings);
    let mut call = Call::json(path, &body);
    call.warnings = warnings;
    Ok(call)
}

/// What would change the answer's meaning if it were left out.
fn refuse(request: &ChatRequest<'_>, host: &Host) -> Result<(), Error> {
    let no = |param: &str, why: &str| Err(Error::unsupported(host.kind, param, why));
    if request.n.is_some_and(|n| n > 1) {
        return no("n", "Claude gives one answer; ask several times");
    }
    if request.logprobs == Some(true) || request.top_logprobs.is_some_and(|n| n > 0) {
        return no("logprobs", "Claude gives no log probabilities");
    }
    if request.modalities.iter().flatten().any(|m| &**m != "text") {
        return no("modalities", "Claude answers in text");
    }
    if extra(&request.extra, "web_search_options").is_some() {
        return no("web_search_options", "offer a search tool instead");
    }
    Ok(())
}

fn max_tokens(request: &ChatRequest<'_>, target: &Target<'_>, warnings: &mut Vec<String>) -> u64 {
    let most = target.info.and_then(|i| i.max_output);
    match (request.max_output(), most) {
        (Some(asked), Some(most)) if asked > most => {
            warnings.push(format!("lowered the bound on tokens from {asked} to {most}, the most that this model gives"));
            most
        }
        (Some(asked), _) => asked,
        (None, most) => most.unwrap_or(MAX_TOKENS),
    }
}

fn stop_sequences<'a>(request: &'a ChatRequest<'_>, warnings: &mut Vec<String>) -> Vec<&'a str> {
    let all = request.stop.iter().flat_map(|s| &s.0);
    let (kept, blank): (Vec<&str>, Vec<&str>) = all.map(|s| &**s).partition(|s| !s.trim().is_empty());
    if !blank.is_empty() {
        warnings.push("dropped a `stop` of nothing but white space: Claude does not take it".into());
    }
    kept
}

fn service_tier(request: &ChatRequest<'_>, warnings: &mut Vec<String>) -> Option<&'static str> {
    match request.service_tier.as_deref()? {
        "auto" => Some("auto"),
        "default" | "standard_only" => Some("standard_only"),
        other => {
            warnings.push(format!("dropped `service_tier`: Claude has no tier `{other}`"));
            None
        }
    }
}

/// Says what was left out.
fn dropped(request: &ChatRequest<'_>, warnings: &mut Vec<String>) {
    let penal = |p: Option<f64>| p.is_some_and(|p| p != 0.0);
    let known = [
        ("seed", request.seed.is_some()),
        ("logit_bias", request.logit_bias.is_some()),
        ("presence_penalty", penal(request.presence_penalty)),
        ("frequency_penalty", penal(request.frequency_penalty)),
        ("metadata", request.metadata.is_some()),
        ("verbosity", request.verbosity.is_some()),
        ("prompt_cache_key", request.prompt_cache_key.is_some()),
        ("store", request.store == Some(true)),
    ];
    let others = request.extra.iter().filter(|(_, value)| value.get() != "null").map(|(key, _)| (&**key, &**key != "cache_control"));
    for (name, given) in known.into_iter().chain(others) {
        if given {
            warnings.push(format!("dropped `{name}`: Claude does not take it"));
        }
    }
}
