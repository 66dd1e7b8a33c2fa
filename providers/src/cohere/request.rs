//! A hub request as a request to `/v2/chat`.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::KIND;
use crate::wire::{ChatRequest, Choice, Content, FunctionCall, FunctionDef, ImageUrl, Message, ToolCall};
use crate::{Call, Error, Target, carry};

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: Vec<Entry<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict_tools: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<Format<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    k: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stop_sequences: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<bool>,
    /// Cohere's own fields, as the client sent them.
    #[serde(flatten)]
    passed: Map<String, Value>,
    stream: bool,
}

#[derive(Serialize)]
struct Entry<'a> {
    role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Said<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_plan: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallEntry<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<Cow<'a, str>>,
}

impl<'a> Entry<'a> {
    fn new(role: &'static str, content: Option<Said<'a>>) -> Self {
        Entry { role, content, tool_plan: None, tool_calls: Vec::new(), tool_call_id: None }
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Said<'a> {
    Text(Cow<'a, str>),
    Parts(Vec<Part<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Part<'a> {
    Text { text: &'a str },
    ImageUrl { image_url: &'a ImageUrl<'a> },
    Document { document: Document<'a> },
}

#[derive(Serialize)]
struct Document<'a> {
    data: Data<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Data<'a> {
    /// An object that the tool gave.
    Object(&'a RawValue),
    /// A text that it gave.
    Output { output: &'a str },
}

#[derive(Serialize)]
struct CallEntry<'a> {
    id: Cow<'a, str>,
    r#type: &'static str,
    function: CallFunction<'a>,
}

#[derive(Serialize)]
struct CallFunction<'a> {
    name: &'a str,
    arguments: &'a str,
}

#[derive(Serialize)]
struct Tool<'a> {
    r#type: &'static str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    parameters: Cow<'a, RawValue>,
}

#[derive(Serialize)]
struct Format<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    json_schema: Option<&'a RawValue>,
}

/// Writes the request.
pub(super) fn chat<'a>(request: &'a ChatRequest<'a>, target: &Target<'a>) -> Result<Call, Error> {
    let mut warnings = Vec::new();
    refuse(request)?;
    let messages = messages(request, &mut warnings)?;
    let (tools, strict_tools, tool_choice) = tools(request, &mut warnings)?;
    let passed = extras(request, &mut warnings)?;
    let mut bounded = |name: &str, value: Option<f64>, least: f64, most: f64| {
        let value = value?;
        let taken = value.clamp(least, most);
        if taken != value {
            warnings.push(format!("changed `{name}` from {value} to {taken}: Cohere takes {least} to {most}"));
        }
        Some(taken)
    };
    let body = Body {
        model: target.model,
        messages,
        tools,
        strict_tools,
        tool_choice,
        response_format: format(request)?,
        max_tokens: request.max_output(),
        temperature: request.temperature,
        p: bounded("top_p", request.top_p, 0.01, 0.99),
        k: request.top_k,
        seed: request.seed,
        presence_penalty: bounded("presence_penalty", request.presence_penalty, 0.0, 1.0),
        frequency_penalty: bounded("frequency_penalty", request.frequency_penalty, 0.0, 1.0),
        stop_sequences: request.stop.iter().flat_map(|s| &s.0).map(|s| &**s).collect(),
        logprobs: request.logprobs.filter(|l| *l),
        thinking: thinking(request, target, &mut warnings),
        passed,
        stream: request.streams(),
    };
    let mut call = Call::json("/v2/chat", &body);
    call.warnings = warnings;
    Ok(call)
}

/// What cannot be left out without changing what was asked.
fn refuse(request: &ChatRequest<'_>) -> Result<(), Error> {
    if request.n.is_some_and(|n| n > 1) {
        return Err(Error::unsupported(KIND, "n", "it gives one answer per request; send the request several times"));
    }
    if request.top_logprobs.is_some_and(|n| n > 0) {
        return Err(Error::unsupported(KIND, "top_logprobs", "it gives no alternatives; send `logprobs` alone"));
    }
    if request.modalities.iter().flatten().any(|m| **m != *"text") {
        return Err(Error::unsupported(KIND, "modalities", "it answers in text only"));
    }
    let formatted = request.response_format.as_ref().is_some_and(|f| f.kind.as_deref().is_some_and(|kind| kind != "text"));
    let beside = request.functions().next().is_some() || request.extra.iter().any(|(name, _)| &**name == "documents");
    if formatted && beside {
        return Err(Error::unsupported(KIND, "response_format", "it takes either a format or `tools` and `documents`; leave one of them out"));
    }
    Ok(())
}

fn messages<'a>(request: &'a ChatRequest<'a>, warnings: &mut Vec<String>) -> Result<Vec<Entry<'a>>, Error> {
    let mut entries = Vec::new();
    let mut legacy: Option<String> = None;
    let mut named = false;
    for (i, message) in request.messages.iter().flatten().enumerate() {
        let role = message.role.as_deref().unwrap_or_default();
        named |= message.name.is_some() && role != "function";
        entries.push(match role {
            "system" | "developer" => Entry::new("system", Some(Said::Text(text_of(message)))),
            "user" => Entry::new("user", Some(user(i, message)?)),
            "assistant" => assistant(i, message, &mut legacy)?,
            "tool" | "function" => {
                let id = match (message.tool_call_id.as_deref(), legacy.take()) {
                    (Some(id), _) => Cow::Borrowed(carry::unseal(id).0),
                    (None, Some(id)) if role == "function" => Cow::Owned(id),
                    (None, _) => return Err(Error::invalid(format!("messages[{i}].tool_call_id"), format!("`messages[{i}]` must say in `tool_call_id` which call it answers"))),
                };
                Entry { tool_call_id: Some(id), ..Entry::new("tool", Some(Said::Parts(result(i, message)?))) }
            }
            _ => return Err(Error::invalid(format!("messages[{i}].role"), format!("`messages[{i}].role` must be system, developer, user, assistant or tool"))),
        });
    }
    if named {
        warnings.push("dropped `name` of messages: Cohere has no place for it".into());
    }
    Ok(entries)
}

fn text_of<'a>(message: &'a Message<'a>) -> Cow<'a, str> {
    message.content.as_ref().map(Content::text).unwrap_or_default()
}

fn user<'a>(i: usize, message: &'a Message<'a>) -> Result<Said<'a>, Error> {
    let Some(Content::Parts(parts)) = &message.content else { return Ok(Said::Text(text_of(message))) };
    let parts = parts.iter().enumerate().map(|(j, part)| match (part.kind.as_deref(), &part.text, &part.image_url) {
        (Some("image_url"), _, Some(image_url)) => Ok(Part::ImageUrl { image_url }),
        (Some("text") | None, Some(text), _) => Ok(Part::Text { text }),
        (kind, ..) => Err(Error::unsupported(KIND, format!("messages[{i}].content[{j}]"), format!("it takes texts and images, not `{}`", kind.unwrap_or_default()))),
    });
    Ok(Said::Parts(parts.collect::<Result<_, _>>()?))
}

fn assistant<'a>(i: usize, message: &'a Message<'a>, legacy: &mut Option<String>) -> Result<Entry<'a>, Error> {
    let mut tool_calls = Vec::new();
    for (j, call) in message.tool_calls.iter().flatten().enumerate() {
        tool_calls.push(call_entry(&format!("messages[{i}].tool_calls[{j}]"), call)?);
    }
    if let Some(call) = &message.function_call {
        let id = format!("function_{i}");
        *legacy = Some(id.clone());
        tool_calls.push(function_entry(Cow::Owned(id), call));
    }
    let text = text_of(message);
    if tool_calls.is_empty() {
        let text = if text.is_empty() { message.refusal.as_deref().map_or(text, Cow::Borrowed) } else { text };
        return Ok(Entry::new("assistant", Some(Said::Text(text))));
    }
    // What the model says beside its calls is its plan; another provider's thinking is not.
    let own = message.reasoning_details.as_deref().is_none_or(<[_]>::is_empty);
    let plan: String = [message.reasoning_content.as_deref().filter(|_| own), Some(&*text)].into_iter().flatten().collect();
    Ok(Entry { tool_plan: Some(plan).filter(|p| !p.is_empty()), tool_calls, ..Entry::new("assistant", None) })
}

fn call_entry<'a>(param: &str, call: &'a ToolCall<'a>) -> Result<CallEntry<'a>, Error> {
    let id = call.id.as_deref().map(|id| carry::unseal(id).0).filter(|id| !id.is_empty());
    let id = id.ok_or_else(|| Error::invalid(format!("{param}.id"), format!("`{param}` must have an `id`")))?;
    let function = call.function.as_ref().ok_or_else(|| Error::unsupported(KIND, param, "it knows calls of functions only"))?;
    Ok(function_entry(Cow::Borrowed(id), function))
}

fn function_entry<'a>(id: Cow<'a, str>, function: &'a FunctionCall<'a>) -> CallEntry<'a> {
    let arguments = function.arguments.as_ref().map_or("{}", |a| a.json());
    CallEntry { id, r#type: "function", function: CallFunction { name: function.name.as_deref().unwrap_or_default(), arguments } }
}

/// A tool's result as documents, which the model can cite: a JSON object is one, a list of objects is several, and any
/// other text is the one field of one.
fn result<'a>(i: usize, message: &'a Message<'a>) -> Result<Vec<Part<'a>>, Error> {
    let mut parts = Vec::new();
    match &message.content {
        None => documents("", &mut parts),
        Some(Content::Text(text)) => documents(text, &mut parts),
        Some(Content::Parts(list)) => {
            for (j, part) in list.iter().enumerate() {
                let text = part.text.as_deref().ok_or_else(|| Error::unsupported(KIND, format!("messages[{i}].content[{j}]"), "a tool's result can hold texts only"))?;
                documents(text, &mut parts);
            }
        }
    }
    Ok(parts)
}

fn documents<'a>(text: &'a str, parts: &mut Vec<Part<'a>>) {
    let object = |raw: &&RawValue| raw.get().starts_with('{');
    let document = |data| Part::Document { document: Document { data } };
    if let Ok(raw) = serde_json::from_str::<&RawValue>(text)
        && object(&raw)
    {
        parts.push(document(Data::Object(raw)));
    } else if let Ok(list) = serde_json::from_str::<Vec<&RawValue>>(text)
        && !list.is_empty()
        && list.iter().all(object)
    {
        parts.extend(list.into_iter().map(|raw| document(Data::Object(raw))));
    } else {
        parts.push(document(Data::Output { output: text }));
    }
}

type Tools<'a> = (Vec<Tool<'a>>, Option<bool>, Option<&'static str>);

/// The tools, whether all of them are strict, and the choice. Cohere cannot name a tool: the others are not offered then.
fn tools<'a>(request: &'a ChatRequest<'a>, warnings: &mut Vec<String>) -> Result<Tools<'a>, Error> {
    if let Some((i, tool)) = request.tools.iter().flatten().enumerate().find(|(_, t)| t.function.is_none()) {
        let kind = tool.kind.as_deref().unwrap_or_default();
        return Err(Error::unsupported(KIND, format!("tools[{i}]"), format!("it takes tools of type `function`, not `{kind}`")));
    }
    let choice = request.choice()?.unwrap_or(Choice::Auto);
    let may = |f: &&FunctionDef<'a>| match &choice {
        Choice::Named(only) => f.name.as_deref() == Some(only),
        Choice::Allowed { names, .. } => names.iter().any(|n| f.name.as_deref() == Some(n)),
        Choice::None | Choice::Auto | Choice::Required => true,
    };
    let offered: Vec<&'a FunctionDef<'a>> = request.functions().filter(may).collect();
    let word = match &choice {
        Choice::None => Some("NONE"),
        Choice::Required | Choice::Named(_) | Choice::Allowed { required: true, .. } => Some("REQUIRED"),
        Choice::Auto | Choice::Allowed { .. } => None,
    };
    if word == Some("REQUIRED") && offered.is_empty() {
        return Err(Error::invalid("tool_choice", "`tool_choice` demands a tool that is not in `tools`"));
    }
    let strict = offered.iter().filter(|f| f.strict == Some(true)).count();
    let strict_tools = if strict > 0 && strict == offered.len() { Some(true) } else { None };
    if strict > 0 && strict_tools.is_none() {
        warnings.push("dropped `strict` of the tools: Cohere knows it for all tools or for none".into());
    }
    if request.parallel_tool_calls == Some(false) {
        warnings.push("dropped `parallel_tool_calls`: Cohere cannot forbid several calls at once".into());
    }
    let word = word.filter(|_| !offered.is_empty());
    let tools = offered
        .into_iter()
        .map(|f| Ok(Tool { r#type: "function", function: Function { name: f.name.as_deref().unwrap_or_default(), description: f.description.as_deref(), parameters: parameters(f)? } }));
    Ok((tools.collect::<Result<_, Error>>()?, strict_tools, word))
}

fn parameters<'a>(function: &'a FunctionDef<'a>) -> Result<Cow<'a, RawValue>, Error> {
    match function.parameters {
        Some(raw) if raw.get() != "null" => Ok(Cow::Borrowed(raw)),
        _ => RawValue::from_string(r#"{"type":"object","properties":{}}"#.into()).map(Cow::Owned).map_err(Error::answer),
    }
}

fn format<'a>(request: &'a ChatRequest<'a>) -> Result<Option<Format<'a>>, Error> {
    let Some(format) = &request.response_format else { return Ok(None) };
    match format.kind.as_deref() {
        None | Some("text") => Ok(None),
        Some("json_object") => Ok(Some(Format { r#type: "json_object", json_schema: None })),
        Some("json_schema") => match format.json_schema.as_ref().and_then(|j| j.schema) {
            Some(schema) => Ok(Some(Format { r#type: "json_object", json_schema: Some(schema) })),
            None => Err(Error::invalid("response_format.json_schema.schema", "`response_format.json_schema` must hold a `schema`")),
        },
        Some(_) => Err(Error::invalid("response_format.type", "`response_format.type` must be \"text\", \"json_object\" or \"json_schema\"")),
    }
}

/// Cohere's `thinking` from Anthropic's, or from an effort.
fn thinking(request: &ChatRequest<'_>, target: &Target<'_>, warnings: &mut Vec<String>) -> Option<Value> {
    #[derive(serde::Deserialize)]
    struct Asked<'a> {
        #[serde(rename = "type", borrow)]
        kind: Cow<'a, str>,
        #[serde(alias = "token_budget")]
        budget_tokens: Option<u64>,
    }
    let asked: Option<Asked<'_>> = request.thinking.and_then(|raw| serde_json::from_str(raw.get()).ok());
    let (on, budget) = match (asked, request.reasoning_effort.as_deref()) {
        (Some(asked), _) => (asked.kind != "disabled", asked.budget_tokens),
        (None, Some("none")) => (false, None),
        (None, Some("minimal")) => (true, Some(512)),
        (None, Some("low")) => (true, Some(2048)),
        (None, Some("medium")) => (true, Some(8192)),
        (None, Some(_)) => (true, None),
        (None, None) => return None,
    };
    if !(target.model.contains("reasoning") || target.info.is_some_and(|i| i.supports("reasoning"))) {
        if on {
            warnings.push("dropped `reasoning_effort`: this model does not think".into());
        }
        return None;
    }
    Some(match (on, budget) {
        (false, _) => json!({ "type": "disabled" }),
        (true, None) => json!({ "type": "enabled" }),
        (true, Some(tokens)) => json!({ "type": "enabled", "token_budget": tokens }),
    })
}

/// Cohere's own fields, and a word on every other parameter that is dropped.
fn extras(request: &ChatRequest<'_>, warnings: &mut Vec<String>) -> Result<Map<String, Value>, Error> {
    let mut passed = Map::new();
    for (key, raw) in &request.extra {
        match &**key {
            "documents" | "citation_options" | "safety_mode" | "priority" => {
                let value = serde_json::from_str(raw.get()).map_err(|e| Error::invalid(key.to_string(), e.to_string()))?;
                passed.insert(key.to_string(), value);
            }
            "web_search_options" => return Err(Error::unsupported(KIND, "web_search_options", "it has no web search; send `documents`")),
            _ if raw.get() == "null" => {}
            _ => warnings.push(format!("dropped `{key}`: Cohere does not take it")),
        }
    }
    let dropped = [
        ("user", request.user.is_some()),
        ("metadata", request.metadata.is_some()),
        ("logit_bias", request.logit_bias.is_some()),
        ("verbosity", request.verbosity.is_some()),
        ("prompt_cache_key", request.prompt_cache_key.is_some()),
        ("service_tier", request.service_tier.as_deref().is_some_and(|t| t != "auto" && t != "default")),
        ("store", request.store == Some(true)),
    ];
    warnings.extend(dropped.iter().filter(|(_, sent)| *sent).map(|(name, _)| format!("dropped `{name}`: Cohere does not take it")));
    Ok(passed)
}
