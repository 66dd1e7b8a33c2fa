//! The types of a Responses request, and how one is read into a hub chat request.

use serde::de::Deserializer;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::input::{Conversation, message};
use super::tools::{custom_tool, response_format, tool, tool_choice};
use crate::envelope::parse_body;
use crate::wire::{Arguments, ChatRequest, Content, Either, InputAudio, Str, open, text_or_list};
use crate::{Error, chat};

/// What stands in for the provider's name in refusals.
pub(super) const TARGET: &str = "models that do not speak the Responses API themselves";

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
        /// A new effort, from here on.
        "reasoning" reasoning: Reasoning<'a>,
        /// A new format, from here on.
        "text" text: TextConfig<'a>,
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

/// Reads a request into the JSON text of a hub chat request; what was left out goes into `warnings`.
///
/// # Errors
/// What is wrong with the request, and what cannot be had from a target that only chats.
pub fn read(body: &[u8], warnings: &mut Vec<String>) -> Result<Vec<u8>, Error> {
    let mut request: Request<'_> = parse_body(body)?;
    refuse(&request)?;
    dropped(&request, warnings);
    let mut conversation = Conversation::new(request.tools.take().unwrap_or_default());
    if let Some(text) = request.instructions.take().filter(|t| !t.is_empty()) {
        conversation.messages.push(message("system", Content::Text(text)));
    }
    match request.input.take() {
        None => return Err(Error::invalid("input", "`input` is missing: give it a text or a list of items")),
        Some(Input::Text(text)) => conversation.messages.push(message("user", Content::Text(text))),
        Some(Input::Items(items)) => {
            for (at, item) in items.into_iter().enumerate() {
                conversation.item(item, at, warnings)?;
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
        response_format: conversation.format.or(text.format).map(response_format).transpose()?.flatten(),
        tool_choice: choice.as_deref(),
        tools: (!tools.is_empty()).then_some(tools),
        reasoning_effort: conversation.effort.or(request.reasoning.and_then(|r| r.effort)),
        verbosity: text.verbosity,
        extra: request.extra,
        ..ChatRequest::default()
    };
    let mut out = Vec::with_capacity(1024);
    chat::json(&mut out, &hub);
    Ok(out)
}

/// Says what is left out, where it does no harm.
fn dropped(request: &Request<'_>, warnings: &mut Vec<String>) {
    fn set(raw: Option<&RawValue>) -> Option<&str> {
        raw.map(RawValue::get).filter(|r| *r != "null")
    }
    let mut say = |given: bool, text: &str| {
        if given {
            warnings.push(text.to_owned());
        }
    };
    say(set(request.store) == Some("true"), "`store` is off: nothing is kept here, send the whole conversation with every request");
    say(set(request.truncation) == Some("\"auto\""), "dropped `truncation`: nothing is cut here, a conversation that is too long is an error");
    say(set(request.max_tool_calls).is_some(), "dropped `max_tool_calls`: it bounds OpenAI's built-in tools, of which there are none here");
    say(set(request.image).is_some(), "dropped `image`: only OpenAI packs images so");
    // What this door gives by itself, and what there is nothing of.
    let given = ["reasoning.encrypted_content", "message.output_text.logprobs"];
    for name in request.include.iter().flatten().filter(|i| !given.contains(&&***i)) {
        warnings.push(format!("dropped `{}` of `include`: it is about OpenAI's built-in tools", name.escape_default()));
    }
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
