//! Reads a Messages request into the hub.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::parts::{content, nested, part, plain, text};
use super::wire::{Block, Content, Format, Request, Tool};
use crate::carry::{self, Detail};
use crate::door::once;
use crate::envelope::parse_body;
use crate::place::Counter;
use crate::wire::{self, Arguments, ChatRequest, FunctionCall, FunctionDef, JsonSchema, ResponseFormat, Stop, Str, StreamOptions, ToolCall};
use crate::{Error, chat};

/// Tools that Anthropic runs itself: a model without them can still answer, and the client has no part in them.
const SERVER_TOOLS: &[&str] = &["web_search_", "web_fetch_", "code_execution_", "tool_search_tool_", "advisor_", "mcp_toolset"];

/// The hub's text of a request.
pub(super) fn read(body: &[u8], warnings: &mut Vec<String>) -> Result<Vec<u8>, Error> {
    let request: Request<'_> = parse_body(body)?;
    if request.mcp_servers.as_ref().is_some_and(|s| !s.is_empty()) {
        return Err(Error::invalid("mcp_servers", "servers that Anthropic calls are only there on its own API; list them as servers of this gateway"));
    }
    let tools = tools(&request, warnings)?;
    let choice = tool_choice(&request)?;
    let choice: Option<&RawValue> = match &choice {
        Some(json) => serde_json::from_str(json).map(Some).map_err(Error::answer)?,
        None => None,
    };
    let hub = ChatRequest {
        model: request.model.clone(),
        messages: Some(messages(&request, warnings)?),
        stream: request.stream,
        stream_options: (request.stream == Some(true)).then_some(StreamOptions { include_usage: Some(true) }),
        max_completion_tokens: request.max_tokens,
        temperature: request.temperature,
        top_p: request.top_p,
        top_k: request.top_k,
        stop: request.stop_sequences.clone().filter(|s| !s.is_empty()).map(Stop),
        user: request.metadata.as_ref().and_then(|m| m.user_id.clone()),
        response_format: request.output_config.as_ref().and_then(|c| c.format.as_ref()).or(request.output_format.as_ref()).map(format).transpose()?,
        tools,
        tool_choice: choice,
        parallel_tool_calls: request.tool_choice.as_ref().filter(|c| c.disable_parallel_tool_use == Some(true)).map(|_| false),
        reasoning_effort: effort(&request),
        thinking: request.thinking,
        service_tier: request.service_tier.as_ref().map(|t| if &**t == "standard_only" { Str::from("default") } else { t.clone() }),
        // A mark on the whole request: whoever caches by marks puts it where it belongs.
        extra: request.extra.iter().filter(|(key, _)| &**key == "cache_control").cloned().collect(),
        ..ChatRequest::default()
    };
    for (key, _) in request.extra.iter().filter(|(key, value)| &**key != "cache_control" && value.get() != "null") {
        once(warnings, format!("dropped `{key}`: only Anthropic's own API has it"));
    }
    let mut out = Vec::with_capacity(body.len() + body.len() / 8);
    chat::json(&mut out, &hub);
    Ok(out)
}

fn messages<'a>(request: &Request<'a>, warnings: &mut Vec<String>) -> Result<Vec<wire::Message<'a>>, Error> {
    let given = request.messages.as_deref().unwrap_or_default();
    if given.is_empty() {
        return Err(Error::invalid("messages", "`messages` must have at least one message"));
    }
    let mut out = Vec::with_capacity(given.len() + 1);
    if let Some(system) = &request.system {
        out.push(wire::Message { role: role("system"), content: Some(content(system, "system", warnings)?), ..wire::Message::default() });
    }
    for (index, message) in given.iter().enumerate() {
        let at = format!("messages[{index}]");
        let Some(said) = &message.content else { return Err(Error::invalid(format!("{at}.content"), "every message needs `content`")) };
        match message.role.as_deref() {
            Some("user") => user(said, &at, &mut out, warnings)?,
            Some("assistant") => out.push(assistant(said, &at, warnings)?),
            Some("system") => out.push(wire::Message { role: role("system"), content: Some(content(said, &at, warnings)?), ..wire::Message::default() }),
            _ => return Err(Error::invalid(format!("{at}.role"), "`role` must be user or assistant")),
        }
    }
    Ok(out)
}

fn role<'a>(role: &'static str) -> Option<Str<'a>> {
    Some(Str::from(role))
}

/// A user's turn: the results become messages of their own, before what the user says.
fn user<'a>(said: &Content<'a>, at: &str, out: &mut Vec<wire::Message<'a>>, warnings: &mut Vec<String>) -> Result<(), Error> {
    let mut parts = Vec::new();
    let Content::Blocks(blocks) = said else {
        out.push(wire::Message { role: role("user"), content: Some(content(said, at, warnings)?), ..wire::Message::default() });
        return Ok(());
    };
    for (index, block) in blocks.iter().enumerate() {
        let at = format!("{at}.content[{index}]");
        match block.kind.as_deref() {
            Some("tool_result") => out.push(result(block, &at, warnings)?),
            Some("mid_conv_system") => {
                let said = nested(block, &at)?;
                out.push(wire::Message { role: role("system"), content: Some(content(&said, &at, warnings)?), ..wire::Message::default() });
            }
            _ => part(block, &at, &mut parts, warnings)?,
        }
    }
    if !parts.is_empty() {
        out.push(wire::Message { role: role("user"), content: Some(plain(parts)), ..wire::Message::default() });
    }
    Ok(())
}

fn result<'a>(block: &Block<'a>, at: &str, warnings: &mut Vec<String>) -> Result<wire::Message<'a>, Error> {
    let id = block.tool_use_id.clone().ok_or_else(|| Error::invalid(format!("{at}.tool_use_id"), "a `tool_result` needs a `tool_use_id`"))?;
    let said = nested(block, at)?;
    Ok(wire::Message {
        role: role("tool"),
        tool_call_id: Some(id),
        content: Some(content(&said, at, warnings)?),
        is_error: block.is_error.filter(|e| *e),
        cache_control: block.cache_control,
        ..wire::Message::default()
    })
}

fn assistant<'a>(said: &Content<'a>, at: &str, warnings: &mut Vec<String>) -> Result<wire::Message<'a>, Error> {
    let mut message = wire::Message { role: role("assistant"), ..wire::Message::default() };
    let Content::Blocks(blocks) = said else {
        message.content = Some(content(said, at, warnings)?);
        return Ok(message);
    };
    let (mut parts, mut calls, mut details, mut thoughts) = (Vec::new(), Vec::new(), Vec::new(), String::new());
    let mut counter = Counter::default();
    for (index, block) in blocks.iter().enumerate() {
        let at = format!("{at}.content[{index}]");
        let before = parts.len();
        match block.kind.as_deref() {
            Some("thinking" | "redacted_thinking") => {
                thoughts.push_str(block.thinking.as_deref().unwrap_or_default());
                details.extend(detail(block, details.len() as u32, &mut counter));
            }
            Some("tool_use") => {
                counter.call();
                calls.push(call(block, &at)?);
            }
            // What a long conversation was shortened to: nothing else tells of it any more.
            Some("compaction") => {
                let Content::Text(summary) = nested(block, &at)? else { return Err(Error::invalid(format!("{at}.content"), "the `content` of a `compaction` must be a string")) };
                if !summary.is_empty() {
                    parts.push(text(summary));
                }
            }
            Some(kind) if kind == "server_tool_use" || kind == "fallback" || kind.ends_with("_tool_result") => {
                once(warnings, format!("left out `{kind}` blocks: they tell what Anthropic's own tools did; what came of it is in the text"));
            }
            _ => part(block, &at, &mut parts, warnings)?,
        }
        parts[before..].iter().filter_map(|part| part.text.as_deref()).for_each(|text| counter.text(text));
    }
    message.content = (!parts.is_empty()).then(|| plain(parts));
    message.tool_calls = (!calls.is_empty()).then_some(calls);
    message.reasoning_content = (!thoughts.is_empty()).then(|| Str::from(thoughts));
    message.reasoning_details = (!details.is_empty()).then_some(details);
    Ok(message)
}

/// A block of thinking as the hub carries it, with its place; what another provider signed is under a seal of this door.
fn detail<'a>(block: &Block<'a>, index: u32, counter: &mut Counter) -> Option<Detail<'a>> {
    let signature = block.signature.clone().filter(|s| !s.is_empty());
    let own = Detail { format: Some(Str::from(carry::ANTHROPIC)), index: Some(index), ..Detail::default() };
    if let Some(data) = block.data.clone() {
        return Some(Detail { kind: Some(Str::from("reasoning.encrypted")), data: Some(data), id: counter.place().map(Str::from), ..own });
    }
    let signature = signature?;
    match carry::unseal(&signature) {
        (_, Some((_, sealed))) => {
            let value: serde_json::Value = serde_json::from_str(&sealed).ok()?;
            let text = |name: &str| value[name].as_str().map(|t| Str::from(t.to_owned()));
            Some(Detail {
                kind: text("type"),
                format: text("format"),
                text: text("text"),
                signature: text("signature"),
                data: text("data"),
                summary: text("summary"),
                id: text("id"),
                index: Some(index),
                extra: Vec::new(),
            })
        }
        _ if super::is_sealed(&signature) => None,
        _ => Some(Detail { kind: Some(Str::from("reasoning.text")), text: block.thinking.clone(), signature: Some(signature), id: counter.place().map(Str::from), ..own }),
    }
}

fn call<'a>(block: &Block<'a>, at: &str) -> Result<ToolCall<'a>, Error> {
    let (Some(id), Some(name)) = (block.id.clone(), block.name.clone()) else {
        return Err(Error::invalid(at, "a `tool_use` needs an `id` and a `name`"));
    };
    let arguments = block.input.map_or(Cow::Borrowed("{}"), |raw| Cow::Borrowed(raw.get()));
    Ok(ToolCall {
        id: Some(id),
        kind: Some(Str::from("function")),
        function: Some(FunctionCall { name: Some(name), arguments: Some(Arguments(arguments)), extra: Vec::new() }),
        extra: block.cache_control.map(|mark| (Str::from("cache_control"), mark)).into_iter().collect(),
        ..ToolCall::default()
    })
}

/// The tools on offer. Anthropic's own are left out where there are others; alone they are what the request is about.
fn tools<'a>(request: &Request<'a>, warnings: &mut Vec<String>) -> Result<Option<Vec<wire::Tool<'a>>>, Error> {
    let given = request.tools.as_deref().unwrap_or_default();
    let served = |tool: &Tool<'_>| tool.kind.as_deref().is_some_and(|kind| SERVER_TOOLS.iter().any(|s| kind.starts_with(s)));
    let forced = request.tool_choice.as_ref().and_then(|c| c.name.as_deref());
    let mut tools = Vec::with_capacity(given.len());
    for (index, tool) in given.iter().enumerate() {
        let kind = tool.kind.as_deref().unwrap_or_default();
        if served(tool) && given.iter().any(|other| !served(other)) && (forced.is_none() || forced != tool.name.as_deref()) {
            once(warnings, format!("left out the tool `{kind}`: Anthropic runs it itself, and the model behind this name does not have it"));
            continue;
        }
        let more = tool.extra.iter().filter(|(_, value)| !matches!(value.get(), "null" | "false")).map(|(key, _)| key);
        more.for_each(|key| once(warnings, format!("dropped `{key}` of tools: only Anthropic's own API has it")));
        tools.push(function(tool, index)?);
    }
    Ok((!tools.is_empty()).then_some(tools))
}

fn function<'a>(tool: &Tool<'a>, index: usize) -> Result<wire::Tool<'a>, Error> {
    if let Some(kind) = tool.kind.as_deref().filter(|k| *k != "custom") {
        return Err(Error::invalid(
            format!("tools[{index}].type"),
            format!("`{kind}` is one of Anthropic's own tools, which the model behind this name does not have; leave it out, or offer a tool of your own"),
        ));
    }
    if tool.name.is_none() {
        return Err(Error::invalid(format!("tools[{index}].name"), "every tool needs a `name`"));
    }
    Ok(wire::Tool {
        kind: Some(Str::from("function")),
        function: Some(FunctionDef { name: tool.name.clone(), description: tool.description.clone(), parameters: tool.input_schema, strict: tool.strict, extra: Vec::new() }),
        cache_control: tool.cache_control,
        ..wire::Tool::default()
    })
}

fn tool_choice(request: &Request<'_>) -> Result<Option<String>, Error> {
    let Some(choice) = &request.tool_choice else { return Ok(None) };
    Ok(Some(match (choice.kind.as_deref(), &choice.name) {
        (Some("auto"), _) => "\"auto\"".to_owned(),
        (Some("any"), _) => "\"required\"".to_owned(),
        (Some("none"), _) => "\"none\"".to_owned(),
        (Some("tool"), Some(name)) => serde_json::json!({ "type": "function", "function": { "name": &**name } }).to_string(),
        (Some("tool"), None) => return Err(Error::invalid("tool_choice.name", "`tool_choice` of type tool needs a `name`")),
        _ => return Err(Error::invalid("tool_choice.type", "`type` must be auto, any, tool or none")),
    }))
}

/// The effort in OpenAI's words: as it was given, or else what a budget comes to.
fn effort<'a>(request: &Request<'a>) -> Option<Str<'a>> {
    #[derive(serde::Deserialize)]
    struct Thinking<'a> {
        #[serde(borrow)]
        r#type: Str<'a>,
        budget_tokens: Option<u64>,
    }
    let thinking: Option<Thinking<'_>> = request.thinking.and_then(|raw| serde_json::from_str(raw.get()).ok());
    let given = request.output_config.as_ref().and_then(|c| c.effort.clone()).map(|e| if &*e == "max" { Str::from("xhigh") } else { e });
    let thinking = thinking.filter(|t| &*t.r#type == "enabled");
    given.or_else(|| {
        Some(Str::from(match thinking?.budget_tokens? {
            0..=4096 => "low",
            4097..=16_384 => "medium",
            _ => "high",
        }))
    })
}

fn format<'a>(format: &Format<'a>) -> Result<ResponseFormat<'a>, Error> {
    let schema = format.schema.ok_or_else(|| Error::invalid("output_config.format.schema", "`format` needs a `schema`"))?;
    let json_schema = JsonSchema { name: Some(Str::from("answer")), schema: Some(schema), ..JsonSchema::default() };
    Ok(ResponseFormat { kind: Some(Str::from("json_schema")), json_schema: Some(json_schema), extra: Vec::new() })
}
