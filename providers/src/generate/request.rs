//! Gemini requests into the hub. Only requests whose target is not Gemini come here, so what only Gemini has is refused where
//! leaving it out would change what is asked, and left out with a word where it would not (safety settings, labels).

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::{RawValue, to_raw_value};

use super::schema::to_json_schema;
use super::turns;
use crate::Error;
use crate::door::once;
use crate::envelope::parse_body;
use crate::wire::{ChatRequest, FunctionDef, JsonSchema, ResponseFormat, Stop, Str, Tool};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    model: Option<Str<'a>>,
    stream: Option<bool>,
    #[serde(borrow)]
    contents: Option<Many<turns::Content<'a>>>,
    #[serde(borrow, alias = "system_instruction")]
    system_instruction: Option<turns::Content<'a>>,
    #[serde(borrow)]
    tools: Option<Many<Tools<'a>>>,
    #[serde(borrow, alias = "tool_config")]
    tool_config: Option<ToolConfig<'a>>,
    #[serde(borrow, alias = "generation_config")]
    generation_config: Option<GenerationConfig<'a>>,
    #[serde(borrow, alias = "cached_content")]
    cached_content: Option<&'a RawValue>,
    #[serde(borrow, alias = "service_tier")]
    service_tier: Option<Str<'a>>,
}

/// A list, or the one thing that stands for a list of one: Google's servers take both.
pub(super) struct Many<T>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Many<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let raw = <&'de RawValue>::deserialize(d)?.get();
        let list = if raw.starts_with('[') { serde_json::from_str(raw) } else { serde_json::from_str(raw).map(|one| vec![one]) };
        list.map(Many).map_err(de::Error::custom)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tools<'a> {
    #[serde(borrow, alias = "function_declarations")]
    function_declarations: Option<Vec<Declaration<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Declaration<'a> {
    #[serde(borrow)]
    name: Str<'a>,
    #[serde(borrow)]
    description: Option<Str<'a>>,
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
    #[serde(borrow, alias = "parameters_json_schema")]
    parameters_json_schema: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToolConfig<'a> {
    #[serde(borrow, alias = "function_calling_config")]
    function_calling_config: Option<CallingConfig<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CallingConfig<'a> {
    #[serde(borrow)]
    mode: Option<Str<'a>>,
    #[serde(borrow, default, alias = "allowed_function_names")]
    allowed_function_names: Vec<Str<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct GenerationConfig<'a> {
    temperature: Option<f64>,
    #[serde(alias = "top_p")]
    top_p: Option<f64>,
    #[serde(alias = "top_k")]
    top_k: Option<f64>,
    #[serde(alias = "candidate_count")]
    candidate_count: Option<u32>,
    #[serde(alias = "max_output_tokens")]
    max_output_tokens: Option<u64>,
    #[serde(borrow, alias = "stop_sequences")]
    stop_sequences: Option<Vec<Str<'a>>>,
    seed: Option<i64>,
    #[serde(alias = "presence_penalty")]
    presence_penalty: Option<f64>,
    #[serde(alias = "frequency_penalty")]
    frequency_penalty: Option<f64>,
    #[serde(alias = "response_logprobs")]
    response_logprobs: Option<bool>,
    logprobs: Option<u32>,
    #[serde(borrow, alias = "response_mime_type")]
    response_mime_type: Option<Str<'a>>,
    #[serde(borrow, alias = "response_schema")]
    response_schema: Option<&'a RawValue>,
    #[serde(borrow, alias = "response_json_schema", alias = "_responseJsonSchema")]
    response_json_schema: Option<&'a RawValue>,
    #[serde(borrow, alias = "response_modalities")]
    response_modalities: Option<Vec<Str<'a>>>,
    #[serde(borrow, alias = "thinking_config")]
    thinking_config: Option<ThinkingConfig<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ThinkingConfig<'a> {
    #[serde(alias = "thinking_budget")]
    thinking_budget: Option<i64>,
    #[serde(borrow, alias = "thinking_level")]
    thinking_level: Option<Str<'a>>,
}

/// The keys of an object, in camel case, which Google's servers take beside snake case. Nothing of what is no object.
struct Keys(Vec<String>);

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Keys;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Keys, M::Error> {
                let mut keys = Vec::new();
                while let Some(key) = map.next_key::<Str<'de>>()? {
                    // A field that is set to nothing is not there.
                    if map.next_value::<Option<IgnoredAny>>()?.is_some() {
                        keys.push(camel(&key));
                    }
                }
                Ok(Keys(keys))
            }
        }
        d.deserialize_map(Names)
    }
}

fn camel(key: &str) -> String {
    let mut upper = false;
    key.trim_start_matches('_')
        .chars()
        .filter_map(|c| {
            if c == '_' {
                upper = true;
                None
            } else {
                Some(if std::mem::take(&mut upper) { c.to_ascii_uppercase() } else { c })
            }
        })
        .collect()
}

/// What is written anew and has to live as long as the hub request that borrows it.
#[derive(Default)]
struct Kept {
    choice: Option<Box<RawValue>>,
    schema: Option<Box<RawValue>>,
    parameters: Vec<Option<Box<RawValue>>>,
}

/// Reads a request: the JSON text of a hub request.
pub(super) fn read(body: &[u8], warnings: &mut Vec<String>) -> Result<Vec<u8>, Error> {
    let request: Request<'_> = parse_body(body)?;
    if request.cached_content.is_some_and(|c| !matches!(c.get(), "null" | "\"\"")) {
        return Err(Error::invalid("cachedContent", "cached content lives at Google; this request goes to another provider, so send the content itself"));
    }
    let kept = keep(&request)?;
    dropped(body, warnings)?;
    let none = GenerationConfig::default();
    let config = request.generation_config.as_ref().unwrap_or(&none);
    let mut hub = ChatRequest {
        model: request.model.as_deref().map(|m| Str::from(m.strip_prefix("models/").unwrap_or(m))),
        messages: Some(turns::read(request.system_instruction.as_ref(), request.contents.as_ref().map_or(&[], |c| &c.0), warnings)?),
        stream: request.stream.filter(|s| *s),
        tool_choice: kept.choice.as_deref(),
        service_tier: request.service_tier.as_deref().and_then(tier),
        ..ChatRequest::default()
    };
    let mut parameters = kept.parameters.iter();
    let tools: Vec<Tool<'_>> = declarations(&request).map(|(_, d)| tool(d, parameters.next().and_then(Option::as_deref))).collect();
    hub.tools = Some(tools).filter(|t| !t.is_empty());
    generation(config, kept.schema.as_deref(), &mut hub)?;
    let mut out = Vec::with_capacity(body.len());
    crate::chat::json(&mut out, &hub);
    Ok(out)
}

/// Says what is left out, and refuses tools that only Gemini has.
fn dropped(body: &[u8], warnings: &mut Vec<String>) -> Result<(), Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Parts {
        tools: Option<Many<Keys>>,
        #[serde(alias = "tool_config")]
        tool_config: Option<Keys>,
        #[serde(alias = "generation_config")]
        generation_config: Option<Keys>,
    }
    let (top, parts): (Keys, Parts) = (parse_body(body)?, parse_body(body)?);
    for (at, tool) in parts.tools.iter().flat_map(|t| &t.0).enumerate() {
        if let Some(own) = tool.0.iter().find(|k| *k != "functionDeclarations") {
            return Err(Error::invalid(format!("tools[{at}].{own}"), format!("only Gemini models have the tool `{own}`; this request goes to another provider, which takes `functionDeclarations`")));
        }
    }
    let known = ["model", "stream", "contents", "systemInstruction", "tools", "toolConfig", "generationConfig", "cachedContent", "serviceTier"];
    let calling = ["functionCallingConfig"];
    let generation = [
        "temperature",
        "topP",
        "topK",
        "candidateCount",
        "maxOutputTokens",
        "stopSequences",
        "seed",
        "presencePenalty",
        "frequencyPenalty",
        "responseLogprobs",
        "logprobs",
        "responseMimeType",
        "responseSchema",
        "responseJsonSchema",
        "responseModalities",
        "thinkingConfig",
    ];
    let (tools, config) = (parts.tool_config.map(|k| k.0).unwrap_or_default(), parts.generation_config.map(|k| k.0).unwrap_or_default());
    for (place, keys, known) in [("", &top.0, &known[..]), ("toolConfig.", &tools, &calling), ("generationConfig.", &config, &generation)] {
        for key in keys.iter().filter(|k| !known.contains(&k.as_str())) {
            once(warnings, format!("dropped `{place}{key}`: only Gemini has it"));
        }
    }
    Ok(())
}

/// OpenAI's word for a service tier.
fn tier<'a>(word: &str) -> Option<Str<'a>> {
    Some(Str::from(match word.to_ascii_lowercase().trim_start_matches("service_tier_") {
        "flex" => "flex",
        "priority" => "priority",
        "standard" => "default",
        _ => return None,
    }))
}

fn declarations<'r, 'a>(request: &'r Request<'a>) -> impl Iterator<Item = (usize, &'r Declaration<'a>)> {
    let tools = request.tools.iter().flat_map(|t| &t.0).enumerate();
    tools.flat_map(|(at, t)| t.function_declarations.iter().flatten().map(move |d| (at, d)))
}

fn tool<'a>(declaration: &'a Declaration<'_>, parameters: Option<&'a RawValue>) -> Tool<'a> {
    let function = FunctionDef {
        name: Some(Str::from(&*declaration.name)),
        description: declaration.description.as_deref().map(Str::from),
        parameters: declaration.parameters_json_schema.or(parameters),
        ..FunctionDef::default()
    };
    Tool { kind: Some(Str::from("function")), function: Some(function), ..Tool::default() }
}

fn keep(request: &Request<'_>) -> Result<Kept, Error> {
    let schema = |raw: &RawValue, path: String| to_json_schema(raw).ok_or_else(|| Error::invalid(path, "the schema cannot be read"));
    let mut kept = Kept::default();
    for (at, declaration) in declarations(request) {
        kept.parameters.push(declaration.parameters.map(|raw| schema(raw, format!("tools[{at}].functionDeclarations"))).transpose()?);
    }
    if let Some(raw) = request.generation_config.as_ref().and_then(|c| c.response_schema) {
        kept.schema = Some(schema(raw, "generationConfig.responseSchema".into())?);
    }
    kept.choice = choice(request.tool_config.as_ref().and_then(|c| c.function_calling_config.as_ref()))?;
    Ok(kept)
}

/// OpenAI's tool choice.
fn choice(config: Option<&CallingConfig<'_>>) -> Result<Option<Box<RawValue>>, Error> {
    let Some(config) = config else { return Ok(None) };
    let named = |name: &Str<'_>| serde_json::json!({ "type": "function", "function": { "name": &**name } });
    let allowed = |mode: &str| {
        let tools: Vec<_> = config.allowed_function_names.iter().map(named).collect();
        serde_json::json!({ "type": "allowed_tools", "allowed_tools": { "mode": mode, "tools": tools } })
    };
    let choice = match (config.mode.as_deref().unwrap_or_default().to_ascii_uppercase().as_str(), &*config.allowed_function_names) {
        ("" | "MODE_UNSPECIFIED", _) => return Ok(None),
        ("AUTO", _) | ("VALIDATED", []) => "auto".into(),
        ("NONE", _) => "none".into(),
        ("ANY", []) => "required".into(),
        ("ANY", [name]) => named(name),
        ("ANY", _) => allowed("required"),
        ("VALIDATED", _) => allowed("auto"),
        _ => return Err(Error::invalid("toolConfig.functionCallingConfig.mode", "`mode` must be AUTO, ANY, NONE or VALIDATED")),
    };
    Ok(to_raw_value(&choice).ok())
}

fn generation<'a>(config: &'a GenerationConfig<'_>, schema: Option<&'a RawValue>, hub: &mut ChatRequest<'a>) -> Result<(), Error> {
    hub.temperature = config.temperature;
    hub.top_p = config.top_p;
    hub.top_k = config.top_k.map(|k| k as u64);
    hub.n = config.candidate_count.filter(|n| *n != 1);
    hub.max_completion_tokens = config.max_output_tokens;
    hub.stop = config.stop_sequences.as_ref().filter(|s| !s.is_empty()).map(|s| Stop(s.iter().map(|s| Str::from(&**s)).collect()));
    hub.seed = config.seed;
    hub.presence_penalty = config.presence_penalty;
    hub.frequency_penalty = config.frequency_penalty;
    hub.logprobs = config.response_logprobs.filter(|l| *l);
    hub.top_logprobs = config.logprobs.filter(|_| hub.logprobs.is_some());
    hub.reasoning_effort = config.thinking_config.as_ref().and_then(effort);
    hub.response_format = response_format(config, schema)?;
    for modality in config.response_modalities.iter().flatten() {
        match &*modality.to_ascii_uppercase() {
            "TEXT" | "MODALITY_UNSPECIFIED" => {}
            "IMAGE" => hub.modalities = Some(vec![Str::from("image"), Str::from("text")]),
            other => return Err(Error::invalid("generationConfig.responseModalities", format!("`{other}` cannot be had from the provider that this request goes to"))),
        }
    }
    Ok(())
}

fn effort<'a>(thinking: &ThinkingConfig<'_>) -> Option<Str<'a>> {
    let word = match (thinking.thinking_level.as_deref(), thinking.thinking_budget) {
        (Some(level), _) if level != "THINKING_LEVEL_UNSPECIFIED" => return Some(Str::from(level.to_ascii_lowercase())),
        (_, None | Some(..0)) => return None,
        (_, Some(0)) => "none",
        (_, Some(..=1024)) => "low",
        (_, Some(..=8192)) => "medium",
        _ => "high",
    };
    Some(Str::from(word))
}

fn response_format<'a>(config: &'a GenerationConfig<'_>, schema: Option<&'a RawValue>) -> Result<Option<ResponseFormat<'a>>, Error> {
    let schema = config.response_json_schema.or(schema);
    match (config.response_mime_type.as_deref().unwrap_or("text/plain"), schema) {
        ("application/json", Some(schema)) => {
            let json_schema = JsonSchema { name: Some(Str::from("response")), schema: Some(schema), ..JsonSchema::default() };
            Ok(Some(ResponseFormat { kind: Some(Str::from("json_schema")), json_schema: Some(json_schema), ..ResponseFormat::default() }))
        }
        ("application/json", None) => Ok(Some(ResponseFormat { kind: Some(Str::from("json_object")), ..ResponseFormat::default() })),
        ("text/plain", None) => Ok(None),
        ("text/plain", Some(_)) => Err(Error::invalid("generationConfig.responseMimeType", "a response schema needs `responseMimeType: \"application/json\"`")),
        (other, _) => Err(Error::invalid("generationConfig.responseMimeType", format!("`{other}` cannot be had from the provider that this request goes to; use text/plain or application/json"))),
    }
}
