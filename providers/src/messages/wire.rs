//! Anthropic's request types, as far as the door needs them. Every struct keeps the fields it does not know in `extra`.

use serde::de::Deserializer;
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::wire::{Either, Str, open, text_or_list};

/// A search result names its source by a word, an image or a document has an object there.
#[derive(Debug, Clone)]
pub enum Origin<'a> {
    /// A word, usually a URL.
    Name(Str<'a>),
    /// An object.
    Source(Box<Source<'a>>),
}

impl Serialize for Origin<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Origin::Name(name) => name.serialize(s),
            Origin::Source(source) => source.serialize(s),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Origin<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(d)?.get();
        if raw.starts_with('"') { serde_json::from_str(raw).map(Origin::Name) } else { serde_json::from_str(raw).map(|s| Origin::Source(Box::new(s))) }.map_err(serde::de::Error::custom)
    }
}

open! {
    /// A Messages request.
    Request {
        /// The model asked for.
        "model" model: Str<'a>,
        /// The conversation.
        "messages" messages: Vec<Message<'a>>,
        /// Instructions.
        "system" system: Content<'a>,
        /// Most tokens to produce.
        "max_tokens" max_tokens: u64,
        /// Who asks.
        "metadata" metadata: Metadata<'a>,
        /// Where to stop.
        "stop_sequences" stop_sequences: Vec<Str<'a>>,
        /// Whether the answer is streamed.
        "stream" stream: bool,
        /// Sampling temperature.
        "temperature" temperature: f64,
        /// Top-k sampling.
        "top_k" top_k: u64,
        /// Nucleus sampling.
        "top_p" top_p: f64,
        /// Tools.
        "tools" tools: Vec<Tool<'a>>,
        /// Which tool to use.
        "tool_choice" tool_choice: ToolChoice<'a>,
        /// How to think.
        "thinking" thinking: &'a RawValue,
        /// Effort and form of the answer.
        "output_config" output_config: OutputConfig<'a>,
        /// Form of the answer, as the beta had it.
        "output_format" output_format: Format<'a>,
        /// Service tier.
        "service_tier" service_tier: Str<'a>,
        /// Servers that Anthropic would call.
        "mcp_servers" mcp_servers: Vec<&'a RawValue>,
    }
}

open! {
    /// One turn, or a part of one.
    Message {
        /// `user`, `assistant`; the newest API has `system` too.
        "role" role: Str<'a>,
        /// Text or blocks.
        "content" content: Content<'a>,
    }
}

/// Text or blocks.
#[derive(Debug, Clone)]
pub enum Content<'a> {
    /// Plain text.
    Text(Str<'a>),
    /// Blocks in order.
    Blocks(Vec<Block<'a>>),
}

impl Serialize for Content<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Content::Text(text) => text.serialize(s),
            Content::Blocks(blocks) => blocks.serialize(s),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Content<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        text_or_list(d, "a string or a list of content blocks").map(|either| match either {
            Either::Text(text) => Content::Text(text),
            Either::List(list) => Content::Blocks(list),
        })
    }
}

open! {
    /// A content block.
    Block {
        /// What it is.
        "type" kind: Str<'a>,
        /// Text of a `text` block.
        "text" text: Str<'a>,
        /// Where an image or a document comes from; what a search result names itself by.
        "source" source: Origin<'a>,
        /// Title of a document or a search result.
        "title" title: Str<'a>,
        /// Thinking text.
        "thinking" thinking: Str<'a>,
        /// Signature over the thinking.
        "signature" signature: Str<'a>,
        /// Data of a `redacted_thinking` block.
        "data" data: Str<'a>,
        /// Id of a `tool_use`.
        "id" id: Str<'a>,
        /// Name of a `tool_use`.
        "name" name: Str<'a>,
        /// Input of a `tool_use`.
        "input" input: &'a RawValue,
        /// Which call a `tool_result` answers.
        "tool_use_id" tool_use_id: Str<'a>,
        /// Content of a `tool_result`; other blocks have other things there.
        "content" content: &'a RawValue,
        /// Whether a `tool_result` reports a failure.
        "is_error" is_error: bool,
        /// Citations of a text, or whether a document may be cited.
        "citations" citations: &'a RawValue,
        /// End of a cached prefix.
        "cache_control" cache_control: &'a RawValue,
    }
}

open! {
    /// Where an image or a document comes from.
    Source {
        /// `base64`, `url`, `text`, `content`, `file`.
        "type" kind: Str<'a>,
        /// Media type.
        "media_type" media_type: Str<'a>,
        /// Base64 or text.
        "data" data: Str<'a>,
        /// URL.
        "url" url: Str<'a>,
        /// Blocks.
        "content" content: Content<'a>,
        /// Uploaded file.
        "file_id" file_id: Str<'a>,
    }
}

open! {
    /// A tool on offer.
    Tool {
        /// Absent or `custom` for the client's own; else one of Anthropic's.
        "type" kind: Str<'a>,
        /// Name.
        "name" name: Str<'a>,
        /// What it does.
        "description" description: Str<'a>,
        /// JSON Schema of the input.
        "input_schema" input_schema: &'a RawValue,
        /// Whether the input must follow the schema strictly.
        "strict" strict: bool,
        /// End of a cached prefix.
        "cache_control" cache_control: &'a RawValue,
    }
}

open! {
    /// Which tool to use.
    ToolChoice {
        /// `auto`, `any`, `tool`, `none`.
        "type" kind: Str<'a>,
        /// The tool's name.
        "name" name: Str<'a>,
        /// At most one call at a time.
        "disable_parallel_tool_use" disable_parallel_tool_use: bool,
    }
}

open! {
    /// Who asks.
    Metadata {
        /// Opaque name of the user.
        "user_id" user_id: Str<'a>,
    }
}

open! {
    /// Effort and form of the answer.
    OutputConfig {
        /// `low`, `medium`, `high`, `xhigh`, `max`.
        "effort" effort: Str<'a>,
        /// Form of the answer.
        "format" format: Format<'a>,
    }
}

open! {
    /// Form of the answer.
    Format {
        /// `json_schema`.
        "type" kind: Str<'a>,
        /// The schema.
        "schema" schema: &'a RawValue,
    }
}
