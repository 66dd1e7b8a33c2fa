//! Reads a Responses request into a hub chat request: items become messages, and what one model turn was cut into
//! (reasoning, text, calls) becomes one assistant message again.

use serde::de::Deserializer;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::seal;
use crate::carry::{self, Detail};
use crate::envelope::parse_body;
use crate::wire::{
    self, Arguments, ChatRequest, Content, CustomCall, Either, FilePart, FunctionCall, FunctionDef, ImageUrl, InputAudio, JsonSchema, Message, ResponseFormat, Str, ToolCall, open, text_or_list,
};
use crate::{Error, chat};

/// What stands in for the provider's name in refusals.
const TARGET: &str = "models that do not speak the Responses API themselves";

open! {
    /// A Responses request. What is not named here passes into the hub's request as it stands.
    Request {
        /// The model asked for.
        "model" model: Str<'a>,
        /// A text, or items.
        "input" input: Input<'a>,
        /// The first system message.
        "instructions" instructions: Str<'a>,
        /// Whether the answer is streamed.
        "stream" stream: bool,
        /// What the stream carries beyond events; obfuscation is not offered here.
        "stream_options" stream_options: &'a RawValue,
        /// Most tokens to produce, reasoning included.
        "max_output_tokens" max_output_tokens: u64,
        /// Bound on calls of built-in tools, of which there are none here.
        "max_tool_calls" max_tool_calls: &'a RawValue,
        /// Tools.
        "tools" tools: Vec<Tool<'a>>,
        /// Which tool to use.
        "tool_choice" tool_choice: &'a RawValue,
        /// Format and verbosity of the text.
        "text" text: TextConfig<'a>,
        /// How to reason.
        "reasoning" reasoning: Reasoning<'a>,
        /// What the answer should have beyond the usual.
        "include" include: Vec<Str<'a>>,
        /// How many alternatives per token.
        "top_logprobs" top_logprobs: u32,
        /// `auto` or `disabled`. Nothing is ever cut here: a conversation that is too long is an error of the upstream.
        "truncation" truncation: &'a RawValue,
        /// Whether the response may be kept. It never is, and the answer says so.
        "store" store: &'a RawValue,
        /// A kept response to go on from.
        "previous_response_id" previous_response_id: &'a RawValue,
        /// A kept conversation to go on from.
        "conversation" conversation: &'a RawValue,
        /// Whether to answer at once and work later.
        "background" background: bool,
        /// A kept prompt template.
        "prompt" prompt: &'a RawValue,
        /// Shortening of long conversations by the server.
        "context_management" context_management: &'a RawValue,
        /// Moderation beside the answer.
        "moderation" moderation: &'a RawValue,
        /// OpenAI's access programs.
        "access_programs" access_programs: &'a RawValue,
        /// How images in the input are packed.
        "image" image: &'a RawValue,
    }
}

open! {
    /// One item of the input, of any type.
    Item {
        /// `message` where absent and there is a role.
        "type" kind: Str<'a>,
        /// The item's own id.
        "id" id: Str<'a>,
        /// A message's role.
        "role" role: Str<'a>,
        /// A message's content, or reasoning text.
        "content" content: Parts<'a>,
        /// A call's id.
        "call_id" call_id: Str<'a>,
        /// A call's tool.
        "name" name: Str<'a>,
        /// A function call's arguments.
        "arguments" arguments: Arguments<'a>,
        /// A custom tool call's input.
        "input" input: Str<'a>,
        /// A call's result.
        "output" output: Parts<'a>,
        /// Reasoning summary.
        "summary" summary: Vec<Part<'a>>,
        /// Opaque reasoning.
        "encrypted_content" encrypted_content: Str<'a>,
        /// A generated image, base64.
        "result" result: Str<'a>,
        /// A generated image's format.
        "output_format" output_format: Str<'a>,
        /// Tools that come with the conversation.
        "tools" tools: Vec<Tool<'a>>,
    }
}

open! {
    /// A part of a message, of a tool's result or of reasoning.
    Part {
        /// `input_text`, `output_text`, `input_image`, `input_file`, `input_audio`, `refusal`, `summary_text`, `reasoning_text`.
        "type" kind: Str<'a>,
        /// Text.
        "text" text: Str<'a>,
        /// Refusal text.
        "refusal" refusal: Str<'a>,
        /// Image by URL or data URL.
        "image_url" image_url: Str<'a>,
        /// `low`, `high`, `auto`, `original`.
        "detail" detail: Str<'a>,
        /// Uploaded file.
        "file_id" file_id: Str<'a>,
        /// File as a data URL.
        "file_data" file_data: Str<'a>,
        /// File by URL.
        "file_url" file_url: Str<'a>,
        /// File name.
        "filename" filename: Str<'a>,
        /// Audio, base64.
        "input_audio" input_audio: InputAudio<'a>,
        /// Anthropic's cache mark, kept where a client sets it.
        "cache_control" cache_control: &'a RawValue,
    }
}

open! {
    /// A tool on offer, flat.
    Tool {
        /// `function`, `custom`, or a built-in tool.
        "type" kind: Str<'a>,
        /// Name.
        "name" name: Str<'a>,
        /// What it does.
        "description" description: Str<'a>,
        /// JSON Schema of the arguments.
        "parameters" parameters: &'a RawValue,
        /// Whether the arguments must follow the schema strictly.
        "strict" strict: bool,
        /// A custom tool's input format.
        "format" format: CustomFormat<'a>,
    }
}

open! {
    /// What a custom tool takes.
    CustomFormat {
        /// `text` or `grammar`.
        "type" kind: Str<'a>,
        /// `lark` or `regex`.
        "syntax" syntax: Str<'a>,
        /// The grammar.
        "definition" definition: Str<'a>,
    }
}

open! {
    /// Format and verbosity of the text.
    TextConfig {
        /// Output format, flat.
        "format" format: TextFormat<'a>,
        /// Verbosity.
        "verbosity" verbosity: Str<'a>,
    }
}

open! {
    /// Output format, flat.
    TextFormat {
        /// `text`, `json_object`, `json_schema`.
        "type" kind: Str<'a>,
        /// Name of the schema.
        "name" name: Str<'a>,
        /// Description of the schema.
        "description" description: Str<'a>,
        /// The schema.
        "schema" schema: &'a RawValue,
        /// Strict adherence.
        "strict" strict: bool,
    }
}

open! {
    /// How to reason.
    Reasoning {
        /// Effort.
        "effort" effort: Str<'a>,
        /// `standard` or `pro`.
        "mode" mode: Str<'a>,
    }
}

/// The input: a text, or items.
#[derive(Debug, Clone)]
pub enum Input<'a> {
    /// What the user says.
    Text(Str<'a>),
    /// Items in order.
    Items(Vec<Item<'a>>),
}

/// Content: a text, or parts.
#[derive(Debug, Clone)]
pub enum Parts<'a> {
    /// A text.
    Text(Str<'a>),
    /// Parts in order.
    List(Vec<Part<'a>>),
}

/// Reads either form; the derived types are only ever read, but [`open!`] writes what it reads.
macro_rules! either {
    ($name:ident, $list:ident, $words:literal) => {
        impl<'de: 'a, 'a> Deserialize<'de> for $name<'a> {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                text_or_list(d, $words).map(|either| match either {
                    Either::Text(text) => $name::Text(text),
                    Either::List(list) => $name::$list(list),
                })
            }
        }

        impl Serialize for $name<'_> {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                match self {
                    $name::Text(text) => text.serialize(s),
                    $name::$list(list) => list.serialize(s),
                }
            }
        }
    };
}
either!(Input, Items, "a string or a list of items");
either!(Parts, List, "a string or a list of parts");

/// Reads a request into the JSON text of a hub chat request.
///
/// # Errors
/// What is wrong with the request, and what cannot be had from a target that only chats.
pub fn read(body: &[u8]) -> Result<Vec<u8>, Error> {
    let mut request: Request<'_> = parse_body(body)?;
    refuse(&request)?;
    let mut conversation = Conversation { messages: Vec::new(), turn: None, tools: request.tools.take().unwrap_or_default() };
    if let Some(text) = request.instructions.take().filter(|t| !t.is_empty()) {
        conversation.messages.push(message("system", Content::Text(text)));
    }
    match request.input.take() {
        None => return Err(Error::invalid("input", "`input` is missing: give it a text or a list of items")),
        Some(Input::Text(text)) => conversation.messages.push(message("user", Content::Text(text))),
        Some(Input::Items(items)) => {
            for (at, item) in items.into_iter().enumerate() {
                conversation.item(item, at)?;
            }
        }
    }
    conversation.end_turn();
    if conversation.messages.is_empty() {
        return Err(Error::invalid("input", "`input` must have at least one item"));
    }
    write(request, conversation)
}

fn write(request: Request<'_>, conversation: Conversation<'_>) -> Result<Vec<u8>, Error> {
    let choice = request.tool_choice.map(tool_choice).transpose()?;
    let customs = conversation.tools.iter().map(custom_tool).collect::<Vec<_>>();
    let tools = conversation.tools.iter().zip(&customs).enumerate().map(|(at, (t, custom))| tool(t, custom.as_deref(), at)).collect::<Result<Vec<_>, _>>()?;
    let text = request.text.unwrap_or_default();
    let wants_logprobs = request.top_logprobs.is_some_and(|n| n > 0) || request.include.iter().flatten().any(|i| &**i == "message.output_text.logprobs");
    let hub = ChatRequest {
        model: request.model,
        messages: Some(conversation.messages),
        stream: request.stream,
        max_completion_tokens: request.max_output_tokens,
        logprobs: wants_logprobs.then_some(true),
        top_logprobs: request.top_logprobs.filter(|n| *n > 0),
        response_format: text.format.map(response_format).transpose()?.flatten(),
        tool_choice: choice.as_deref(),
        tools: (!tools.is_empty()).then_some(tools),
        reasoning_effort: request.reasoning.and_then(|r| r.effort),
        verbosity: text.verbosity,
        extra: request.extra,
        ..ChatRequest::default()
    };
    let mut out = Vec::with_capacity(1024);
    chat::json(&mut out, &hub);
    Ok(out)
}

/// Refuses what needs something kept between requests, what would change the answer if it were left out, and chat's names
/// for what has another name here.
fn refuse(request: &Request<'_>) -> Result<(), Error> {
    const KEPT: &str = "nothing is kept between requests here; send the whole conversation in `input`";
    let refused = [
        ("previous_response_id", request.previous_response_id, KEPT),
        ("conversation", request.conversation, KEPT),
        ("prompt", request.prompt, "prompt templates are kept at OpenAI; send `instructions` and `input`"),
        ("context_management", request.context_management, "the conversation is not shortened here; send a shorter one"),
        ("moderation", request.moderation, "leave it out, or choose a model that speaks the Responses API"),
        ("access_programs", request.access_programs, "leave it out, or choose a model that speaks the Responses API"),
    ];
    for (name, value, why) in refused {
        if value.is_some_and(|v| v.get() != "[]") {
            return Err(Error::unsupported(TARGET, name, why));
        }
    }
    if request.background == Some(true) {
        return Err(Error::unsupported(TARGET, "background", "answers are not kept for later; leave it out, and use `stream` for long answers"));
    }
    if request.reasoning.as_ref().and_then(|r| r.mode.as_deref()).is_some_and(|m| m != "standard") {
        return Err(Error::unsupported(TARGET, "reasoning.mode", "leave it out"));
    }
    let moved = [
        ("messages", "input"),
        ("max_tokens", "max_output_tokens"),
        ("max_completion_tokens", "max_output_tokens"),
        ("response_format", "text.format"),
        ("reasoning_effort", "reasoning.effort"),
        ("verbosity", "text.verbosity"),
        ("functions", "tools"),
        ("function_call", "tool_choice"),
        ("logprobs", "top_logprobs"),
    ];
    for (key, value) in &request.extra {
        if let Some((old, new)) = moved.iter().find(|(old, _)| *old == &**key) {
            return Err(Error::invalid(*old, format!("`{old}` belongs to chat completions; in the Responses API it is `{new}`")));
        }
        if &**key == "n" && value.get() != "1" {
            return Err(Error::invalid("n", "the Responses API gives one answer; leave `n` out"));
        }
    }
    Ok(())
}

fn message<'a>(role: &'static str, content: Content<'a>) -> Message<'a> {
    Message { role: Some(role.into()), content: Some(content), ..Message::default() }
}

/// The messages so far, and the assistant's turn that is still being put together.
struct Conversation<'a> {
    messages: Vec<Message<'a>>,
    turn: Option<Message<'a>>,
    tools: Vec<Tool<'a>>,
}

impl<'a> Conversation<'a> {
    fn item(&mut self, item: Item<'a>, at: usize) -> Result<(), Error> {
        let kind = match item.kind.as_deref() {
            Some(kind) => kind.to_owned(),
            None if item.role.is_some() => "message".to_owned(),
            None if item.id.is_some() => "item_reference".to_owned(),
            None => return Err(Error::invalid(format!("input[{at}].type"), format!("`input[{at}].type` is missing"))),
        };
        match kind.as_str() {
            "message" => self.message(item, at)?,
            "reasoning" => self.reasoning(item),
            "function_call" | "custom_tool_call" => self.call(item, at)?,
            "function_call_output" | "custom_tool_call_output" => self.result(item, at)?,
            "image_generation_call" => self.image(item),
            "additional_tools" => self.tools.extend(item.tools.into_iter().flatten()),
            "item_reference" => {
                let id = item.id.as_deref().unwrap_or_default();
                return Err(Error::invalid(format!("input[{at}]"), format!("items are not stored here, so `{}` cannot be referred to; send the item itself", id.escape_default())));
            }
            other => {
                let why = format!("items of type `{}` belong to OpenAI's built-in tools; leave them out, or choose a model that speaks the Responses API", other.escape_default());
                return Err(Error::unsupported(TARGET, format!("input[{at}]"), why));
            }
        }
        Ok(())
    }

    fn message(&mut self, item: Item<'a>, at: usize) -> Result<(), Error> {
        let Some(role) = item.role else { return Err(Error::invalid(format!("input[{at}].role"), format!("`input[{at}].role` is missing"))) };
        let Some(parts) = item.content else { return Err(Error::invalid(format!("input[{at}].content"), format!("`input[{at}].content` is missing"))) };
        let content = content(parts, &format!("input[{at}].content"))?;
        if &*role != "assistant" {
            if !matches!(&*role, "user" | "system" | "developer") {
                return Err(Error::invalid(format!("input[{at}].role"), format!("`{}` is not a role; use `user`, `assistant`, `system` or `developer`", role.escape_default())));
            }
            self.end_turn();
            self.messages.push(Message { role: Some(role), content: Some(content), ..Message::default() });
            return Ok(());
        }
        // Calls must be followed by their results, so text that comes behind a call joins the call's message.
        if self.turn.as_ref().is_some_and(|t| t.content.is_some() && t.tool_calls.is_none()) {
            self.end_turn();
        }
        let turn = self.turn();
        turn.content = Some(match turn.content.take() {
            None => content,
            Some(before) => Content::Parts(parts_of(before).into_iter().chain(parts_of(content)).collect()),
        });
        Ok(())
    }

    fn reasoning(&mut self, item: Item<'a>) {
        let said: Vec<Str<'a>> = match item.content {
            Some(Parts::Text(text)) => vec![text],
            Some(Parts::List(parts)) => parts.into_iter().filter_map(|p| p.text).collect(),
            None => Vec::new(),
        };
        let said = if said.is_empty() { item.summary.into_iter().flatten().filter_map(|p| p.text).collect() } else { said };
        let content = item.encrypted_content.filter(|c| !c.is_empty());
        let opened = content.as_deref().and_then(seal::open);
        // Blocks without a text that were sealed here came in the middle of a message, and belong to it.
        let joins = opened.is_some() && said.is_empty();
        if !joins && self.turn.as_ref().is_some_and(|t| t.content.is_some() && t.tool_calls.is_none()) {
            self.end_turn();
        }
        let details = opened.unwrap_or_else(|| {
            let foreign = content.map(|data| Detail { kind: Some("reasoning.encrypted".into()), format: Some(carry::OPENAI.into()), data: Some(data), id: item.id, ..Detail::default() });
            foreign.into_iter().collect()
        });
        let turn = self.turn();
        for text in said.into_iter().filter(|t| !t.is_empty()) {
            turn.reasoning_content = Some(match turn.reasoning_content.take() {
                None => text,
                Some(before) => format!("{before}\n\n{text}").into(),
            });
        }
        if !details.is_empty() {
            turn.reasoning_details.get_or_insert_default().extend(details);
        }
    }

    fn call(&mut self, item: Item<'a>, at: usize) -> Result<(), Error> {
        let (Some(id), Some(name)) = (item.call_id, item.name) else {
            return Err(Error::invalid(format!("input[{at}]"), format!("`input[{at}]` must have `call_id` and `name`")));
        };
        let mut call = ToolCall { id: Some(id), ..ToolCall::default() };
        if item.kind.as_deref() == Some("custom_tool_call") {
            call.kind = Some("custom".into());
            call.custom = Some(CustomCall { name: Some(name), input: Some(item.input.unwrap_or_default()), ..CustomCall::default() });
        } else {
            call.kind = Some("function".into());
            call.function = Some(FunctionCall { name: Some(name), arguments: Some(item.arguments.unwrap_or_default()), ..FunctionCall::default() });
        }
        self.turn().tool_calls.get_or_insert_default().push(call);
        Ok(())
    }

    fn result(&mut self, item: Item<'a>, at: usize) -> Result<(), Error> {
        let Some(id) = item.call_id else { return Err(Error::invalid(format!("input[{at}].call_id"), format!("`input[{at}].call_id` is missing: it says which call this answers"))) };
        let Some(output) = item.output else { return Err(Error::invalid(format!("input[{at}].output"), format!("`input[{at}].output` is missing"))) };
        self.end_turn();
        let content = content(output, &format!("input[{at}].output"))?;
        self.messages.push(Message { tool_call_id: Some(id), ..message("tool", content) });
        Ok(())
    }

    /// An image that the model made in an earlier turn, in the form that this door gave it.
    fn image(&mut self, item: Item<'a>) {
        let Some(data) = item.result.filter(|r| !r.is_empty()) else { return };
        let url = if data.contains(':') { data } else { format!("data:image/{};base64,{data}", item.output_format.as_deref().unwrap_or("png")).into() };
        let part = wire::Part { kind: Some("image_url".into()), image_url: Some(ImageUrl { url: Some(url), ..ImageUrl::default() }), ..wire::Part::default() };
        let turn = self.turn();
        let mut parts = turn.content.take().map(parts_of).unwrap_or_default();
        parts.push(part);
        turn.content = Some(Content::Parts(parts));
    }

    fn turn(&mut self) -> &mut Message<'a> {
        self.turn.get_or_insert_with(|| Message { role: Some("assistant".into()), ..Message::default() })
    }

    /// Puts the assistant's turn where it belongs. Reasoning that nothing came of belongs to the message before it (a
    /// signature may come last), and to nothing if there is none.
    fn end_turn(&mut self) {
        let Some(turn) = self.turn.take() else { return };
        if turn.content.is_some() || turn.tool_calls.is_some() {
            self.messages.push(turn);
        } else if let Some(last) = self.messages.last_mut().filter(|m| m.role.as_deref() == Some("assistant")) {
            if let Some(details) = turn.reasoning_details {
                last.reasoning_details.get_or_insert_default().extend(details);
            }
            if last.reasoning_content.is_none() {
                last.reasoning_content = turn.reasoning_content;
            }
        }
    }
}

fn text_part(text: Str<'_>) -> wire::Part<'_> {
    wire::Part { kind: Some("text".into()), text: Some(text), ..wire::Part::default() }
}

fn parts_of(content: Content<'_>) -> Vec<wire::Part<'_>> {
    match content {
        Content::Text(text) => vec![text_part(text)],
        Content::Parts(parts) => parts,
    }
}

fn content<'a>(parts: Parts<'a>, path: &str) -> Result<Content<'a>, Error> {
    let list = match parts {
        Parts::Text(text) => return Ok(Content::Text(text)),
        Parts::List(list) => list,
    };
    let mut parts = list.into_iter().enumerate().map(|(at, p)| part(p, &format!("{path}[{at}]"))).collect::<Result<Vec<_>, _>>()?;
    Ok(match parts.as_mut_slice() {
        [] => Content::Text("".into()),
        [one] if one.cache_control.is_none() && one.text.is_some() => Content::Text(one.text.take().unwrap_or_default()),
        _ => Content::Parts(parts),
    })
}

fn part<'a>(p: Part<'a>, path: &str) -> Result<wire::Part<'a>, Error> {
    let missing = |field: &str| Error::invalid(format!("{path}.{field}"), format!("`{path}.{field}` is missing"));
    let by_id = |what: &str, field: &str| Error::invalid(format!("{path}.file_id"), format!("files are not stored here: send the {what} itself in `{field}`"));
    let mut out = match p.kind.as_deref() {
        Some("input_text" | "output_text" | "text" | "summary_text") => text_part(p.text.ok_or_else(|| missing("text"))?),
        Some("refusal") => wire::Part { kind: Some("refusal".into()), refusal: Some(p.refusal.ok_or_else(|| missing("refusal"))?), ..wire::Part::default() },
        Some("input_image") => match (p.image_url, p.file_id) {
            (Some(url), _) => {
                // Chat knows no `original`.
                let detail = p.detail.map(|d| if &*d == "original" { "high".into() } else { d });
                wire::Part { kind: Some("image_url".into()), image_url: Some(ImageUrl { url: Some(url), detail, ..ImageUrl::default() }), ..wire::Part::default() }
            }
            (None, Some(_)) => return Err(by_id("image", "image_url")),
            (None, None) => return Err(missing("image_url")),
        },
        Some("input_file") => match (p.file_data, p.file_url, p.file_id) {
            (Some(data), ..) => {
                let file = FilePart { file_data: Some(data), filename: p.filename, ..FilePart::default() };
                wire::Part { kind: Some("file".into()), file: Some(file), ..wire::Part::default() }
            }
            (None, Some(_), _) => return Err(Error::unsupported(TARGET, format!("{path}.file_url"), "files are not fetched here; send the file itself in `file_data`")),
            (None, None, Some(_)) => return Err(by_id("file", "file_data")),
            (None, None, None) => return Err(missing("file_data")),
        },
        Some("input_audio") => wire::Part { kind: Some("input_audio".into()), input_audio: Some(p.input_audio.ok_or_else(|| missing("input_audio"))?), ..wire::Part::default() },
        Some(other) => return Err(Error::unsupported(TARGET, format!("{path}.type"), format!("parts of type `{}` are not known", other.escape_default()))),
        None => return Err(missing("type")),
    };
    out.cache_control = p.cache_control;
    Ok(out)
}

fn tool<'a>(t: &'a Tool<'a>, custom: Option<&'a RawValue>, at: usize) -> Result<wire::Tool<'a>, Error> {
    let kind = t.kind.as_deref().unwrap_or_default();
    if !matches!(kind, "function" | "custom") {
        let why = format!("`{}` is one of OpenAI's built-in tools; take it out, or choose a model that speaks the Responses API", kind.escape_default());
        return Err(Error::unsupported(TARGET, format!("tools[{at}].type"), why));
    }
    if t.name.is_none() {
        return Err(Error::invalid(format!("tools[{at}].name"), format!("`tools[{at}].name` is missing; the Responses API has a function's fields beside `type`")));
    }
    let kind = Some(Str::from(kind));
    if custom.is_some() {
        return Ok(wire::Tool { kind, custom, ..wire::Tool::default() });
    }
    let function = FunctionDef { name: t.name.clone(), description: t.description.clone(), parameters: t.parameters, strict: t.strict, ..FunctionDef::default() };
    Ok(wire::Tool { kind, function: Some(function), ..wire::Tool::default() })
}

/// A custom tool as chat has it: its fields one level down, and its grammar another.
fn custom_tool(t: &Tool<'_>) -> Option<Box<RawValue>> {
    #[derive(Serialize)]
    struct Custom<'a> {
        name: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        description: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        format: Option<Format<'a>>,
    }
    #[derive(Serialize)]
    struct Format<'a> {
        r#type: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        grammar: Option<Grammar<'a>>,
    }
    #[derive(Serialize)]
    struct Grammar<'a> {
        syntax: Option<&'a str>,
        definition: Option<&'a str>,
    }
    if t.kind.as_deref() != Some("custom") {
        return None;
    }
    let format = t.format.as_ref().map(|f| {
        let kind = f.kind.as_deref().unwrap_or("text");
        Format { r#type: kind, grammar: (kind == "grammar").then_some(Grammar { syntax: f.syntax.as_deref(), definition: f.definition.as_deref() }) }
    });
    to_raw_value(&Custom { name: t.name.as_deref(), description: t.description.as_deref(), format }).ok()
}

/// The tool choice as chat has it: names one level down.
fn tool_choice(raw: &RawValue) -> Result<Box<RawValue>, Error> {
    #[derive(Deserialize)]
    struct Flat<'a> {
        #[serde(rename = "type", borrow)]
        kind: Str<'a>,
        #[serde(borrow)]
        name: Option<Str<'a>>,
        mode: Option<&'a str>,
        #[serde(borrow, default)]
        tools: Vec<Flat<'a>>,
    }
    if raw.get().starts_with('"') {
        return Ok(raw.to_owned());
    }
    let wrong = || Error::invalid("tool_choice", "`tool_choice` must be \"none\", \"auto\", \"required\", or an object of type `function`, `custom` or `allowed_tools`");
    let named = |flat: &Flat<'_>| match (&*flat.kind, &flat.name) {
        (kind @ ("function" | "custom"), Some(name)) => Ok(serde_json::json!({ "type": kind, kind: { "name": &**name } })),
        ("function" | "custom", None) => Err(Error::invalid("tool_choice.name", "`tool_choice` of this type must have a `name`")),
        (other, _) => Err(Error::unsupported(TARGET, "tool_choice", format!("`{}` is one of OpenAI's built-in tools", other.escape_default()))),
    };
    let flat: Flat<'_> = serde_json::from_str(raw.get()).map_err(|_| wrong())?;
    let chat = if &*flat.kind == "allowed_tools" {
        let tools = flat.tools.iter().map(named).collect::<Result<Vec<_>, _>>()?;
        serde_json::json!({ "type": "allowed_tools", "allowed_tools": { "mode": flat.mode.unwrap_or("auto"), "tools": tools } })
    } else {
        named(&flat)?
    };
    to_raw_value(&chat).map_err(|_| wrong())
}

fn response_format(format: TextFormat<'_>) -> Result<Option<ResponseFormat<'_>>, Error> {
    Ok(match format.kind.as_deref() {
        None | Some("text") => None,
        Some("json_object") => Some(ResponseFormat { kind: format.kind, ..ResponseFormat::default() }),
        Some("json_schema") => {
            if format.schema.is_none() {
                return Err(Error::invalid("text.format.schema", "`text.format.schema` is missing"));
            }
            let schema = JsonSchema { name: format.name, description: format.description, schema: format.schema, strict: format.strict, ..JsonSchema::default() };
            Some(ResponseFormat { kind: format.kind, json_schema: Some(schema), ..ResponseFormat::default() })
        }
        Some(other) => return Err(Error::invalid("text.format.type", format!("`{}` is not a format; use `text`, `json_object` or `json_schema`", other.escape_default()))),
    })
}
