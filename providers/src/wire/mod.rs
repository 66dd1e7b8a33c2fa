//! The hub's request types: OpenAI's chat schema, as far as a translation needs it, borrowed from the body.
//! Every struct keeps the fields it does not know in `extra`, byte for byte, so that nothing is lost by reading it.

mod read;
mod tools;

use std::borrow::Cow;

use serde::de::Deserializer;
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub(crate) use read::open;
pub use read::{Either, Extra, Str, text_or_list};
pub use tools::{Arguments, Choice, CustomCall, CustomDef, FunctionCall, FunctionDef, Tool, ToolCall, no_parameters};

open! {
    /// A chat completion request.
    ChatRequest {
        /// The model asked for.
        "model" model: Str<'a>,
        /// The conversation.
        "messages" messages: Vec<Message<'a>>,
        /// Whether the answer is streamed.
        "stream" stream: bool,
        /// What the stream carries beyond deltas.
        "stream_options" stream_options: StreamOptions,
        /// Most tokens to produce (older name).
        "max_tokens" max_tokens: u64,
        /// Most tokens to produce, reasoning included.
        "max_completion_tokens" max_completion_tokens: u64,
        /// Sampling temperature.
        "temperature" temperature: f64,
        /// Nucleus sampling.
        "top_p" top_p: f64,
        /// Top-k sampling; not OpenAI's, but what compatible hosts and the other doors carry.
        "top_k" top_k: u64,
        /// Number of choices.
        "n" n: u32,
        /// Where to stop.
        "stop" stop: Stop<'a>,
        /// Presence penalty.
        "presence_penalty" presence_penalty: f64,
        /// Frequency penalty.
        "frequency_penalty" frequency_penalty: f64,
        /// Token biases.
        "logit_bias" logit_bias: &'a RawValue,
        /// Whether to return log probabilities.
        "logprobs" logprobs: bool,
        /// How many alternatives per token.
        "top_logprobs" top_logprobs: u32,
        /// Seed.
        "seed" seed: i64,
        /// End user.
        "user" user: Str<'a>,
        /// Metadata: an object of strings.
        "metadata" metadata: &'a RawValue,
        /// Output format.
        "response_format" response_format: ResponseFormat<'a>,
        /// Tools.
        "tools" tools: Vec<Tool<'a>>,
        /// Which tool to use; read with [`ChatRequest::choice`].
        "tool_choice" tool_choice: &'a RawValue,
        /// Whether several tools may be called at once.
        "parallel_tool_calls" parallel_tool_calls: bool,
        /// `none`, `minimal`, `low`, `medium`, `high`, `xhigh`.
        "reasoning_effort" reasoning_effort: Str<'a>,
        /// Anthropic's thinking configuration as its door carries it through the hub: `{type, budget_tokens}`.
        "thinking" thinking: &'a RawValue,
        /// Older form of tools.
        "functions" functions: Vec<FunctionDef<'a>>,
        /// Older form of the tool choice.
        "function_call" function_call: &'a RawValue,
        /// Output modalities.
        "modalities" modalities: Vec<Str<'a>>,
        /// Service tier.
        "service_tier" service_tier: Str<'a>,
        /// Verbosity of the answer.
        "verbosity" verbosity: Str<'a>,
        /// Key for the provider's prompt cache.
        "prompt_cache_key" prompt_cache_key: Str<'a>,
        /// Whether the provider may store the request.
        "store" store: bool,
    }
}

/// What a stream carries beyond deltas.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StreamOptions {
    /// A last chunk with the usage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_usage: Option<bool>,
}

open! {
    /// One message of the conversation.
    Message {
        /// `system`, `developer`, `user`, `assistant`, `tool`, or the legacy `function`.
        "role" role: Str<'a>,
        /// Text or parts.
        "content" content: Content<'a>,
        /// Participant name, or the function's for the legacy role.
        "name" name: Str<'a>,
        /// Calls the assistant made.
        "tool_calls" tool_calls: Vec<ToolCall<'a>>,
        /// Which call a `tool` message answers.
        "tool_call_id" tool_call_id: Str<'a>,
        /// Legacy single call.
        "function_call" function_call: FunctionCall<'a>,
        /// Refusal text.
        "refusal" refusal: Str<'a>,
        /// Thinking text, as DeepSeek, vLLM and this gateway name it.
        "reasoning_content" reasoning_content: Str<'a>,
        /// Opaque reasoning blocks to be handed back; see [`crate::carry`].
        "reasoning_details" reasoning_details: Vec<crate::carry::Detail<'a>>,
        /// Audio the assistant produced earlier.
        "audio" audio: &'a RawValue,
        /// Anthropic's cache mark, kept where a client sets it.
        "cache_control" cache_control: &'a RawValue,
        /// Whether a `tool` message reports a failure (Anthropic's `is_error`).
        "is_error" is_error: bool,
    }
}

/// A message's content.
#[derive(Debug, Clone)]
pub enum Content<'a> {
    /// Plain text.
    Text(Str<'a>),
    /// Parts in order.
    Parts(Vec<Part<'a>>),
}

open! {
    /// One part of a message.
    Part {
        /// `text`, `image_url`, `input_audio`, `file`, `refusal`, `video_url`.
        "type" kind: Str<'a>,
        /// Text of a `text` part.
        "text" text: Str<'a>,
        /// Image by URL or data URL.
        "image_url" image_url: ImageUrl<'a>,
        /// Audio, base64.
        "input_audio" input_audio: InputAudio<'a>,
        /// A file, by id or data URL.
        "file" file: FilePart<'a>,
        /// Video by URL or data URL.
        "video_url" video_url: ImageUrl<'a>,
        /// Text of a `refusal` part.
        "refusal" refusal: Str<'a>,
        /// Anthropic's cache mark, kept where a client sets it.
        "cache_control" cache_control: &'a RawValue,
    }
}

open! {
    /// An image (or video) by URL.
    ImageUrl {
        /// `https:` or `data:` URL.
        "url" url: Str<'a>,
        /// `auto`, `low`, `high`.
        "detail" detail: Str<'a>,
    }
}

open! {
    /// Audio in a message.
    InputAudio {
        /// Base64.
        "data" data: Str<'a>,
        /// `wav`, `mp3`, ...
        "format" format: Str<'a>,
    }
}

open! {
    /// A file in a message.
    FilePart {
        /// Uploaded file.
        "file_id" file_id: Str<'a>,
        /// Data URL.
        "file_data" file_data: Str<'a>,
        /// Name.
        "filename" filename: Str<'a>,
    }
}

open! {
    /// Output format.
    ResponseFormat {
        /// `text`, `json_object`, `json_schema`.
        "type" kind: Str<'a>,
        /// The schema for `json_schema`.
        "json_schema" json_schema: JsonSchema<'a>,
    }
}

open! {
    /// A named schema.
    JsonSchema {
        /// Name.
        "name" name: Str<'a>,
        /// Description.
        "description" description: Str<'a>,
        /// The schema.
        "schema" schema: &'a RawValue,
        /// Strict adherence.
        "strict" strict: bool,
    }
}

/// Stop sequences: one string or a list.
#[derive(Debug, Clone, Default)]
pub struct Stop<'a>(pub Vec<Str<'a>>);

impl Serialize for Stop<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(s)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Stop<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        text_or_list(d, "a string or a list of strings").map(|either| match either {
            Either::Text(text) => Stop(vec![text]),
            Either::List(list) => Stop(list),
        })
    }
}

impl Serialize for Content<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Content::Text(text) => text.serialize(s),
            Content::Parts(parts) => parts.serialize(s),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Content<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        text_or_list(d, "a string or a list of parts").map(|either| match either {
            Either::Text(text) => Content::Text(text),
            Either::List(list) => Content::Parts(list),
        })
    }
}

impl<'a> Content<'a> {
    /// All text of the content, parts joined with nothing between.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Content::Text(text) => Cow::Borrowed(&**text),
            Content::Parts(parts) => match parts.as_slice() {
                [] => Cow::Borrowed(""),
                [one] => Cow::Borrowed(one.text.as_deref().unwrap_or_default()),
                many => Cow::Owned(many.iter().filter_map(|p| p.text.as_deref()).collect()),
            },
        }
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Content::Text(text) => text.is_empty(),
            Content::Parts(parts) => parts.is_empty(),
        }
    }
}

impl<'a> ChatRequest<'a> {
    /// The bound on output tokens, by either name.
    #[must_use]
    pub fn max_output(&self) -> Option<u64> {
        self.max_completion_tokens.or(self.max_tokens)
    }

    /// Whether the answer is streamed.
    #[must_use]
    pub fn streams(&self) -> bool {
        self.stream == Some(true)
    }

    /// The function tools on offer, in either the present or the older form.
    pub fn functions(&self) -> impl Iterator<Item = &FunctionDef<'a>> {
        self.tools.iter().flatten().filter_map(|t| t.function.as_ref()).chain(self.functions.iter().flatten())
    }
}

/// A `data:` URL taken apart: media type and base64 payload. `None` for any other URL.
#[must_use]
pub fn data_url(url: &str) -> Option<(&str, &str)> {
    let (head, data) = url.strip_prefix("data:")?.split_once(',')?;
    let media = head.strip_suffix(";base64")?;
    Some((media.split(';').next().unwrap_or(media), data))
}
