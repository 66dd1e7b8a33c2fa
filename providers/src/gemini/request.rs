//! A hub request as the body of `generateContent`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::contents::{self, Content, Part};
use super::model::{Model, ThinkingConfig};
use super::{Host, schema};
use crate::Error;
use crate::door::once;
use crate::wire::{ChatRequest, Choice, FunctionDef, Tool};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    contents: Vec<Content<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_instruction: Option<System<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Offer<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_config: Option<ToolConfig>,
    generation_config: GenerationConfig<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    safety_settings: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cached_content: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct System<'a> {
    parts: Vec<Part<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Offer<'a> {
    #[serde(rename_all = "camelCase")]
    Functions { function_declarations: Vec<Declaration<'a>> },
    /// One of Gemini's own tools, as the client wrote it.
    Own(&'a Tool<'a>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Declaration<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters_json_schema: Option<Cow<'a, RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Box<RawValue>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ToolConfig {
    function_calling_config: CallingConfig,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CallingConfig {
    mode: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allowed_function_names: Vec<String>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct GenerationConfig<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    candidate_count: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stop_sequences: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_logprobs: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_mime_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_json_schema: Option<Cow<'a, RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_schema: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    response_modalities: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking_config: Option<Thinking<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Thinking<'a> {
    Ours(ThinkingConfig),
    Theirs(&'a RawValue),
}

/// Gemini's own fields in a hub request: at the top level, or where Google's OpenAI shim has them.
#[derive(Default)]
struct Own<'a> {
    safety_settings: Option<&'a RawValue>,
    cached_content: Option<&'a RawValue>,
    labels: Option<&'a RawValue>,
    thinking_config: Option<&'a RawValue>,
}

/// Writes the body; what was dropped goes into `warnings`.
pub(super) fn write(request: &ChatRequest<'_>, host: &Host, model: Model<'_>, warnings: &mut Vec<String>) -> Result<Vec<u8>, Error> {
    let own = own_fields(request, host, warnings)?;
    let contents = contents::write(request, host, model, warnings)?;
    let choice = request.choice()?;
    let mut config = generation(request, host, model, warnings)?;
    config.thinking_config = match own.thinking_config {
        Some(raw) => Some(Thinking::Theirs(raw)),
        None => model.thinking_config(request, warnings)?.map(Thinking::Ours),
    };
    let mut tools = offers(request, host, model, choice.as_ref(), warnings)?;
    let mut tool_config = tool_config(choice, &tools)?;
    if config.response_mime_type.is_some() && !tools.is_empty() && !model.combines_tools_and_schema() {
        if tool_config.as_ref().is_none_or(|c| c.function_calling_config.mode != "NONE") {
            return Err(Error::unsupported(host.kind, "response_format", format!("{} cannot have tools and a JSON format at once; leave one out, or use Gemini 3 or later", model.name)));
        }
        tools.clear();
        tool_config = None;
    }
    drop_unknown(request, warnings);
    let body = Body {
        contents: contents.turns,
        system_instruction: Some(contents.system).filter(|s| !s.is_empty()).map(|parts| System { parts }),
        tools,
        tool_config,
        generation_config: config,
        safety_settings: own.safety_settings,
        cached_content: own.cached_content,
        labels: own.labels,
    };
    let mut out = Vec::with_capacity(2048);
    crate::chat::json(&mut out, &body);
    Ok(out)
}

fn own_fields<'a>(request: &'a ChatRequest<'_>, host: &Host, warnings: &mut Vec<String>) -> Result<Own<'a>, Error> {
    #[derive(Deserialize)]
    struct ExtraBody<'a> {
        #[serde(borrow)]
        google: Option<Google<'a>>,
    }
    #[derive(Deserialize)]
    struct Google<'a> {
        #[serde(borrow)]
        thinking_config: Option<&'a RawValue>,
        #[serde(borrow)]
        cached_content: Option<&'a RawValue>,
        #[serde(borrow)]
        safety_settings: Option<&'a RawValue>,
    }
    let mut own = Own::default();
    for (key, value) in &request.extra {
        if value.get() == "null" {
            continue;
        }
        match &**key {
            "safetySettings" | "safety_settings" => own.safety_settings = Some(value),
            "cachedContent" | "cached_content" => own.cached_content = Some(value),
            "labels" if host.labels => own.labels = Some(value),
            "extra_body" => {
                let extra: ExtraBody<'a> = serde_json::from_str(value.get()).map_err(|e| Error::invalid("extra_body", format!("`extra_body` is not as expected: {e}")))?;
                if let Some(google) = extra.google {
                    own.thinking_config = google.thinking_config;
                    own.cached_content = google.cached_content.or(own.cached_content);
                    own.safety_settings = google.safety_settings.or(own.safety_settings);
                }
            }
            "web_search_options" => return Err(Error::unsupported(host.kind, "web_search_options", "offer Gemini's own tool instead: `\"tools\": [{\"googleSearch\": {}}]`")),
            "audio" => return Err(Error::unsupported(host.kind, "audio", "it does not speak through chat completions")),
            other => once(warnings, format!("dropped `{other}`: {} has no such parameter", host.kind)),
        }
    }
    Ok(own)
}

fn generation<'a>(request: &'a ChatRequest<'_>, host: &Host, model: Model<'_>, warnings: &mut Vec<String>) -> Result<GenerationConfig<'a>, Error> {
    let mut config = GenerationConfig { max_output_tokens: request.max_output(), temperature: request.temperature, top_p: request.top_p, top_k: request.top_k, ..GenerationConfig::default() };
    match request.n {
        None | Some(1) => {}
        Some(n @ 2..=8) => config.candidate_count = Some(n),
        Some(_) => return Err(Error::unsupported(host.kind, "n", "it gives 1 to 8 choices")),
    }
    if let Some(stop) = &request.stop {
        config.stop_sequences = stop.0.iter().map(|s| &**s).filter(|s| !s.is_empty()).collect();
        if config.stop_sequences.len() > 5 {
            return Err(Error::unsupported(host.kind, "stop", "it takes at most 5 stop sequences"));
        }
    }
    if let Some(seed) = request.seed {
        config.seed = i32::try_from(seed).ok();
        if config.seed.is_none() {
            warnings.push("dropped `seed`: Gemini's has 32 bits".into());
        }
    }
    penalties(request, model, &mut config, warnings);
    match (request.logprobs, request.top_logprobs) {
        (Some(true), top) => {
            config.response_logprobs = Some(true);
            config.logprobs = top.filter(|n| *n > 0);
        }
        (_, Some(1..)) => return Err(Error::invalid("top_logprobs", "`top_logprobs` needs `logprobs: true`")),
        _ => {}
    }
    for modality in request.modalities.iter().flatten() {
        match &**modality {
            "text" => config.response_modalities.push("TEXT"),
            "image" => config.response_modalities.push("IMAGE"),
            other => return Err(Error::unsupported(host.kind, "modalities", format!("it gives text and images here, not `{other}`"))),
        }
    }
    if config.response_modalities == ["TEXT"] {
        config.response_modalities.clear();
    }
    response_format(request, host, model, &mut config)?;
    Ok(config)
}

fn penalties(request: &ChatRequest<'_>, model: Model<'_>, config: &mut GenerationConfig<'_>, warnings: &mut Vec<String>) {
    for (name, value, slot) in [("presence_penalty", request.presence_penalty, &mut config.presence_penalty), ("frequency_penalty", request.frequency_penalty, &mut config.frequency_penalty)] {
        if value.is_none_or(|v| v == 0.0) {
            continue;
        }
        if model.takes_penalties() {
            *slot = value;
        } else {
            warnings.push(format!("dropped `{name}`: {} does not take it", model.name));
        }
    }
}

fn response_format<'a>(request: &'a ChatRequest<'_>, host: &Host, model: Model<'_>, config: &mut GenerationConfig<'a>) -> Result<(), Error> {
    let Some(format) = &request.response_format else { return Ok(()) };
    match format.kind.as_deref().unwrap_or_default() {
        "text" => {}
        "json_object" => config.response_mime_type = Some("application/json"),
        "json_schema" => {
            let path = "response_format.json_schema.schema";
            let raw = format.json_schema.as_ref().and_then(|s| s.schema).ok_or_else(|| Error::invalid(path, "`json_schema` needs a `schema`"))?;
            config.response_mime_type = Some("application/json");
            if model.takes_json_schema() {
                config.response_json_schema = Some(schema::json_schema(raw));
            } else {
                config.response_schema = Some(openapi(raw, host, model, path)?);
            }
        }
        _ => return Err(Error::invalid("response_format.type", "`response_format.type` must be text, json_object or json_schema")),
    }
    Ok(())
}

fn openapi(raw: &RawValue, host: &Host, model: Model<'_>, path: &str) -> Result<Box<RawValue>, Error> {
    let converted = schema::openapi(raw).and_then(|schema| to_raw_value(&schema).ok());
    converted.ok_or_else(|| Error::unsupported(host.kind, path, format!("{} knows no recursive schemas; use Gemini 2.5 or later", model.name)))
}

fn offers<'a>(request: &'a ChatRequest<'_>, host: &Host, model: Model<'_>, choice: Option<&Choice<'_>>, warnings: &mut Vec<String>) -> Result<Vec<Offer<'a>>, Error> {
    let mut declarations = Vec::new();
    let mut own = Vec::new();
    for (index, tool) in request.tools.iter().flatten().enumerate() {
        match (&tool.function, tool.kind.as_deref()) {
            (Some(function), _) => declare(function, &format!("tools[{index}].function"), host, model, choice, &mut declarations, warnings)?,
            (None, None) if !tool.extra.is_empty() => own.push(Offer::Own(tool)),
            (None, kind) => {
                return Err(Error::unsupported(host.kind, format!("tools[{index}]"), format!("it has no tools of type `{}`; offer functions", kind.unwrap_or("nothing"))));
            }
        }
    }
    for (index, function) in request.functions.iter().flatten().enumerate() {
        declare(function, &format!("functions[{index}]"), host, model, choice, &mut declarations, warnings)?;
    }
    let mut offers = Vec::with_capacity(own.len() + 1);
    if !declarations.is_empty() {
        offers.push(Offer::Functions { function_declarations: declarations });
    }
    offers.append(&mut own);
    Ok(offers)
}

fn declare<'a>(
    function: &'a FunctionDef<'_>,
    path: &str,
    host: &Host,
    model: Model<'_>,
    choice: Option<&Choice<'_>>,
    declarations: &mut Vec<Declaration<'a>>,
    warnings: &mut Vec<String>,
) -> Result<(), Error> {
    let name = function.name.as_deref().filter(|n| !n.is_empty()).ok_or_else(|| Error::invalid(format!("{path}.name"), "a function needs a name"))?;
    // Names can only be narrowed down where a call is forced: where it is not, the others are not offered.
    if let Some(Choice::Allowed { names, required: false }) = choice
        && !names.iter().any(|n| &**n == name)
    {
        return Ok(());
    }
    if function.strict == Some(true) {
        once(warnings, "`strict` of a function is not promised: Gemini keeps to schemas by training, or where a call is forced");
    }
    let mut declaration = Declaration { name, description: function.description.as_deref(), parameters_json_schema: None, parameters: None };
    if let Some(raw) = function.parameters.filter(|raw| !matches!(raw.get(), "null" | "{}")) {
        let path = format!("{path}.parameters");
        if schema::is_not_object(raw) {
            return Err(Error::invalid(path, "the parameters of a function must be a schema of type object"));
        }
        if model.takes_json_schema() {
            declaration.parameters_json_schema = Some(schema::json_schema(raw));
        } else {
            // An object of nothing is said by saying nothing.
            declaration.parameters = Some(openapi(raw, host, model, &path)?).filter(|schema| schema.get().contains("\"properties\""));
        }
    }
    declarations.push(declaration);
    Ok(())
}

fn tool_config(choice: Option<Choice<'_>>, tools: &[Offer<'_>]) -> Result<Option<ToolConfig>, Error> {
    let Some(choice) = choice else { return Ok(None) };
    let offered: &[Declaration<'_>] = match tools.first() {
        Some(Offer::Functions { function_declarations }) => function_declarations,
        _ => &[],
    };
    let known = |name: &str| {
        if offered.iter().any(|d| d.name == name) { Ok(name.to_owned()) } else { Err(Error::invalid("tool_choice", format!("`tool_choice` names `{name}`, which is not among the tools"))) }
    };
    let (mode, allowed_function_names) = match choice {
        Choice::None | Choice::Auto if offered.is_empty() => return Ok(None),
        Choice::None => ("NONE", Vec::new()),
        Choice::Auto => ("AUTO", Vec::new()),
        Choice::Required if offered.is_empty() => return Err(Error::invalid("tool_choice", "`tool_choice` asks for a call, but there are no functions in `tools`")),
        Choice::Required => ("ANY", Vec::new()),
        Choice::Named(name) => ("ANY", vec![known(&name)?]),
        Choice::Allowed { names, required } => {
            let names = names.iter().map(|n| known(n)).collect::<Result<_, _>>()?;
            if required { ("ANY", names) } else { ("AUTO", Vec::new()) }
        }
    };
    Ok(Some(ToolConfig { function_calling_config: CallingConfig { mode, allowed_function_names } }))
}

/// Says of everything else that it is dropped.
fn drop_unknown(request: &ChatRequest<'_>, warnings: &mut Vec<String>) {
    let plain_tier = |tier: &str| matches!(tier, "auto" | "default");
    let dropped = [
        ("logit_bias", request.logit_bias.is_some_and(|b| !matches!(b.get(), "null" | "{}"))),
        ("user", request.user.is_some()),
        ("metadata", request.metadata.is_some()),
        ("parallel_tool_calls", request.parallel_tool_calls == Some(false)),
        ("service_tier", request.service_tier.as_deref().is_some_and(|t| !plain_tier(t))),
        ("verbosity", request.verbosity.as_deref().is_some_and(|v| v != "medium")),
        ("prompt_cache_key", request.prompt_cache_key.is_some()),
        ("store", request.store == Some(true)),
    ];
    for (name, _) in dropped.iter().filter(|(_, set)| *set) {
        warnings.push(format!("dropped `{name}`: {}", if *name == "service_tier" { "Gemini is asked in its standard tier, whose prices are known" } else { "Gemini does not take it" }));
    }
}
