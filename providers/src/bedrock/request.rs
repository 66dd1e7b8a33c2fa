//! A hub request as a Converse request.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::blocks::Block;
use super::messages::{self, Turn};
use super::model::{Maker, Model};
use super::tools::{self, TextFormat, ToolConfig};
use super::{KIND, reasoning};
use crate::wire::ChatRequest;
use crate::{Call, Error, Target, path_segment};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    messages: Vec<Turn<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    system: Vec<Block<'a>>,
    #[serde(skip_serializing_if = "Inference::is_empty")]
    inference_config: Inference<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_config: Option<ToolConfig<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_config: Option<OutputConfig<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<ServiceTier<'a>>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    additional_model_request_fields: Map<String, Value>,
    #[serde(flatten)]
    passed: Passed<'a>,
}

/// Converse's own fields, which a client may send beside OpenAI's, in camel or in snake case.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Passed<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    guardrail_config: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    performance_config: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_metadata: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_variables: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Inference<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stop_sequences: Vec<&'a str>,
}

impl Inference<'_> {
    fn is_empty(&self) -> bool {
        self.max_tokens.is_none() && self.temperature.is_none() && self.top_p.is_none() && self.stop_sequences.is_empty()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OutputConfig<'a> {
    text_format: TextFormat<'a>,
}

#[derive(Serialize)]
struct ServiceTier<'a> {
    r#type: &'a str,
}

/// Writes the request.
pub(super) fn chat<'a>(request: &'a ChatRequest<'a>, target: &Target<'_>) -> Result<Call, Error> {
    let path = format!("/model/{}/{}", path_segment(target.model)?, if request.streams() { "converse-stream" } else { "converse" });
    let model = Model::of(target);
    let mut warnings = Vec::new();
    refuse(request)?;
    let mut talk = messages::read(request, &model, &mut warnings)?;
    let plan = tools::plan(request, &model, talk.tools, &mut warnings)?;
    if plan.json_object {
        talk.system.push(Block::Text(Cow::Borrowed("Answer with one JSON object and nothing else, not even a code fence.")));
        warnings.push("turned `response_format` json_object into an instruction: Bedrock has no such mode; send a json_schema to be sure".into());
    }
    let mut fields = Map::new();
    let thinking = reasoning::ask(request, &model, plan.forced, talk.unsigned, &mut fields, &mut warnings);
    if !model.takes_prefill() || thinking && model.claude() {
        talk.end_with_the_user(&mut warnings);
    }
    let inference_config = inference(request, &model, thinking, &mut fields, &mut warnings);
    let passed = extras(request, &model, &mut fields, &mut warnings)?;
    let body = Body {
        messages: talk.turns,
        system: talk.system,
        inference_config,
        tool_config: plan.config,
        output_config: plan.format.map(|text_format| OutputConfig { text_format }),
        service_tier: service_tier(request, &mut warnings),
        additional_model_request_fields: fields,
        passed,
    };
    let mut call = Call::json(path, &body);
    call.warnings = warnings;
    Ok(call)
}

fn service_tier<'a>(request: &'a ChatRequest<'a>, warnings: &mut Vec<String>) -> Option<ServiceTier<'a>> {
    match request.service_tier.as_deref()? {
        "auto" => None,
        r#type @ ("default" | "flex" | "priority" | "reserved") => Some(ServiceTier { r#type }),
        other => {
            warnings.push(format!("dropped `service_tier`: Bedrock has no tier `{other}`"));
            None
        }
    }
}

/// What cannot be left out without changing what was asked.
fn refuse(request: &ChatRequest<'_>) -> Result<(), Error> {
    if request.n.is_some_and(|n| n > 1) {
        return Err(Error::unsupported(KIND, "n", "it gives one answer per request; send the request several times"));
    }
    if request.logprobs == Some(true) || request.top_logprobs.is_some_and(|n| n > 0) {
        return Err(Error::unsupported(KIND, "logprobs", "it gives no log probabilities; leave the parameter out"));
    }
    if request.modalities.iter().flatten().any(|m| **m != *"text") {
        return Err(Error::unsupported(KIND, "modalities", "it answers in text only"));
    }
    Ok(())
}

fn inference<'a>(request: &'a ChatRequest<'a>, model: &Model, thinking: bool, fields: &mut Map<String, Value>, warnings: &mut Vec<String>) -> Inference<'a> {
    let samples = model.samples() && !thinking;
    let (mut temperature, mut top_p, mut top_k) = (request.temperature, request.top_p, request.top_k);
    if !samples {
        let why = if model.samples() { "it cannot stand beside thinking" } else { "this model does not take it" };
        for (name, sent) in [("temperature", temperature.take().is_some()), ("top_p", top_p.take().is_some()), ("top_k", top_k.take().is_some())] {
            if sent {
                warnings.push(format!("dropped `{name}`: {why}"));
            }
        }
    }
    if temperature.is_some() && top_p.is_some() && !model.samples_by_both() {
        top_p = None;
        warnings.push("dropped `top_p`: this model does not take it beside `temperature`".into());
    }
    if let Some(hot) = temperature.filter(|t| *t > 1.0) {
        temperature = Some(1.0);
        warnings.push(format!("changed `temperature` from {hot} to 1: Bedrock takes no more"));
    }
    if let Some(k) = top_k {
        match model.maker {
            Maker::Claude | Maker::Mistral => {
                fields.insert("top_k".into(), k.into());
            }
            Maker::Nova => {
                fields.insert("inferenceConfig".into(), serde_json::json!({ "topK": k }));
            }
            Maker::Cohere => {
                fields.insert("k".into(), k.into());
            }
            _ => warnings.push("dropped `top_k`: this model has no known place for it; send it in `additionalModelRequestFields`".into()),
        }
    }
    let stops = request.stop.iter().flat_map(|s| &s.0);
    let (stop_sequences, blank): (Vec<&str>, Vec<&str>) = stops.map(|s| &**s).partition(|s| !(s.is_empty() || model.claude() && s.trim().is_empty()));
    if !blank.is_empty() {
        warnings.push("dropped blank `stop` sequences: this model does not take them".into());
    }
    Inference { max_tokens: request.max_output(), temperature, top_p, stop_sequences }
}

/// Converse's own fields, and a word on every other parameter that is dropped.
fn extras<'a>(request: &'a ChatRequest<'a>, model: &Model, fields: &mut Map<String, Value>, warnings: &mut Vec<String>) -> Result<Passed<'a>, Error> {
    let mut passed = Passed::default();
    for (key, raw) in &request.extra {
        match &**key {
            "guardrailConfig" | "guardrail_config" => passed.guardrail_config = Some(raw),
            "performanceConfig" | "performance_config" => passed.performance_config = Some(raw),
            "requestMetadata" | "request_metadata" => passed.request_metadata = Some(raw),
            "promptVariables" | "prompt_variables" => passed.prompt_variables = Some(raw),
            "anthropic_beta" if model.claude() || model.maker == Maker::Opaque => {
                fields.insert("anthropic_beta".into(), serde_json::from_str(raw.get()).unwrap_or_default());
            }
            "additionalModelRequestFields" | "additional_model_request_fields" => {
                let own: Map<String, Value> = serde_json::from_str(raw.get()).map_err(|_| Error::invalid(key.to_string(), format!("`{key}` must be an object")))?;
                fields.extend(own);
            }
            // It is a mark on the messages already.
            "cache_control" if model.caches() => {}
            "web_search_options" => return Err(Error::unsupported(KIND, "web_search_options", "it has no web search")),
            _ if raw.get() == "null" => {}
            _ => warnings.push(format!("dropped `{key}`: Converse does not take it")),
        }
    }
    let dropped = [
        ("seed", request.seed.is_some()),
        ("user", request.user.is_some()),
        ("metadata", request.metadata.is_some()),
        ("logit_bias", request.logit_bias.is_some()),
        ("presence_penalty", request.presence_penalty.is_some_and(|p| p != 0.0)),
        ("frequency_penalty", request.frequency_penalty.is_some_and(|p| p != 0.0)),
        ("verbosity", request.verbosity.is_some()),
        ("prompt_cache_key", request.prompt_cache_key.is_some()),
        ("store", request.store == Some(true)),
    ];
    warnings.extend(dropped.iter().filter(|(_, sent)| *sent).map(|(name, _)| format!("dropped `{name}`: Converse does not take it")));
    if request.parallel_tool_calls == Some(false) {
        warnings.push("dropped `parallel_tool_calls`: Converse cannot forbid several calls at once".into());
    }
    if !model.caches() && marks_cache(request) {
        warnings.push("dropped `cache_control`: this model has no prompt cache on Bedrock".into());
    }
    Ok(passed)
}

/// Whether the client set a cache mark anywhere.
fn marks_cache(request: &ChatRequest<'_>) -> bool {
    request.tools.iter().flatten().any(|t| t.cache_control.is_some())
        || request.messages.iter().flatten().any(|m| m.cache_control.is_some() || matches!(&m.content, Some(crate::wire::Content::Parts(parts)) if parts.iter().any(|p| p.cache_control.is_some())))
}
