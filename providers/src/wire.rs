//! The hub's request types: OpenAI's chat schema, as far as a translation needs it, borrowed from the body.
//! Every struct keeps the fields it does not know in `extra`, byte for byte, so that nothing is lost by reading it.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A string that borrows from the body where it has no escapes.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Str<'a>(pub Cow<'a, str>);

impl Deref for Str<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'a> From<&'a str> for Str<'a> {
    fn from(text: &'a str) -> Self {
        Str(Cow::Borrowed(text))
    }
}

impl From<String> for Str<'_> {
    fn from(text: String) -> Self {
        Str(Cow::Owned(text))
    }
}

impl fmt::Display for Str<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Str<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Str<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Borrow;
        impl<'de> Visitor<'de> for Borrow {
            type Value = Cow<'de, str>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E: de::Error>(self, v: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(v))
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(v.to_owned()))
            }
        }
        d.deserialize_str(Borrow).map(Str)
    }
}

/// Fields that a struct does not know: key and value as they stood.
pub type Extra<'a> = Vec<(Str<'a>, &'a RawValue)>;

/// Declares a struct all of whose fields are optional (`null` counts as absent) and which keeps unknown fields in `extra`.
/// `serde(flatten)` cannot hold a `RawValue`; this can, and allocates nothing for fields that are known.
macro_rules! open {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $key:literal $field:ident: $ty:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default)]
        pub struct $name<'a> {
            $($(#[$fdoc])* pub $field: Option<$ty>,)*
            /// Fields that are not known here, in their order.
            pub extra: $crate::wire::Extra<'a>,
        }

        impl<'de: 'a, 'a> serde::Deserialize<'de> for $name<'a> {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                struct Fields<'a>(std::marker::PhantomData<&'a ()>);
                impl<'de: 'a, 'a> serde::de::Visitor<'de> for Fields<'a> {
                    type Value = $name<'a>;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an object")
                    }
                    fn visit_map<M: serde::de::MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                        let mut out = $name::default();
                        while let Some(key) = map.next_key::<$crate::wire::Str<'a>>()? {
                            match &*key {
                                $($key => out.$field = map.next_value()?,)*
                                _ => out.extra.push((key, map.next_value()?)),
                            }
                        }
                        Ok(out)
                    }
                }
                d.deserialize_map(Fields(std::marker::PhantomData))
            }
        }

        impl serde::Serialize for $name<'_> {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeMap;
                let mut map = s.serialize_map(None)?;
                $(if let Some(value) = &self.$field {
                    map.serialize_entry($key, value)?;
                })*
                for (key, value) in &self.extra {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    };
}
pub(crate) use open;

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
    /// A tool call of the assistant.
    ToolCall {
        /// Position among the calls; in streams only.
        "index" index: u32,
        /// Id that the answer refers to; may carry a sealed signature, see [`crate::carry`].
        "id" id: Str<'a>,
        /// `function` or `custom`.
        "type" kind: Str<'a>,
        /// The call.
        "function" function: FunctionCall<'a>,
        /// A freeform call: `{name, input}`.
        "custom" custom: CustomCall<'a>,
        /// Vendor data that travels with the call (Google's shim: `{google: {thought_signature}}`).
        "extra_content" extra_content: &'a RawValue,
    }
}

open! {
    /// A function call.
    FunctionCall {
        /// Function name.
        "name" name: Str<'a>,
        /// Arguments: JSON in a string. Some hosts send an object; it is kept as its text.
        "arguments" arguments: Arguments<'a>,
    }
}

open! {
    /// A freeform tool call.
    CustomCall {
        /// Tool name.
        "name" name: Str<'a>,
        /// Input text.
        "input" input: Str<'a>,
    }
}

/// Arguments of a call as JSON text. Reads a string or, as some hosts send it, a bare object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arguments<'a>(pub Cow<'a, str>);

impl Arguments<'_> {
    /// The JSON text, `{}` where the client left it empty.
    #[must_use]
    pub fn json(&self) -> &str {
        if self.0.trim().is_empty() { "{}" } else { &self.0 }
    }
}

impl Serialize for Arguments<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Arguments<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(d)?.get();
        if raw.starts_with('"') {
            let text: Str<'a> = serde_json::from_str(raw).map_err(de::Error::custom)?;
            Ok(Arguments(text.0))
        } else if raw.starts_with('{') {
            Ok(Arguments(Cow::Borrowed(raw)))
        } else {
            Err(de::Error::custom("arguments must be a string of JSON"))
        }
    }
}

open! {
    /// A tool on offer.
    Tool {
        /// `function`, `custom`, or a provider's built-in tool.
        "type" kind: Str<'a>,
        /// A function's definition.
        "function" function: FunctionDef<'a>,
        /// A freeform tool's definition.
        "custom" custom: &'a RawValue,
        /// Anthropic's cache mark.
        "cache_control" cache_control: &'a RawValue,
    }
}

open! {
    /// A function on offer.
    FunctionDef {
        /// Name.
        "name" name: Str<'a>,
        /// What it does.
        "description" description: Str<'a>,
        /// JSON Schema of the arguments.
        "parameters" parameters: &'a RawValue,
        /// Whether the arguments must follow the schema strictly.
        "strict" strict: bool,
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

/// A string, or a list of `T`.
pub enum Either<'a, T> {
    /// A string.
    Text(Str<'a>),
    /// A list.
    List(Vec<T>),
}

/// Reads a field that may be a string or a list.
///
/// # Errors
/// When it is neither; the message says `expecting`.
pub fn text_or_list<'de: 'a, 'a, T: Deserialize<'de>, D: Deserializer<'de>>(d: D, expecting: &'static str) -> Result<Either<'a, T>, D::Error> {
    /// Borrows for `'a` and makes a `T`, holding neither.
    type Makes<'a, T> = std::marker::PhantomData<(&'a (), fn() -> T)>;
    struct Both<'a, T>(&'static str, Makes<'a, T>);
    impl<'de: 'a, 'a, T: Deserialize<'de>> Visitor<'de> for Both<'a, T> {
        type Value = Either<'a, T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
        fn visit_borrowed_str<E: de::Error>(self, v: &'de str) -> Result<Self::Value, E> {
            Ok(Either::Text(Str(Cow::Borrowed(v))))
        }
        fn visit_str<E: de::Error>(self, v: &str) -> Result<Self::Value, E> {
            Ok(Either::Text(Str(Cow::Owned(v.to_owned()))))
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = seq.next_element()? {
                list.push(item);
            }
            Ok(Either::List(list))
        }
    }
    d.deserialize_any(Both(expecting, std::marker::PhantomData))
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

/// What the client wants of the tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice<'a> {
    /// Call none.
    None,
    /// The model decides.
    Auto,
    /// Call at least one.
    Required,
    /// Call this one.
    Named(Str<'a>),
    /// Only these may be called; the flag says whether one must be.
    Allowed {
        /// Their names.
        names: Vec<Str<'a>>,
        /// Whether one must be called.
        required: bool,
    },
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

    /// Whether the client asked for usage in the stream.
    #[must_use]
    pub fn wants_stream_usage(&self) -> bool {
        self.stream_options.as_ref().and_then(|o| o.include_usage) == Some(true)
    }

    /// The function tools on offer, in either the present or the older form.
    pub fn functions(&self) -> impl Iterator<Item = &FunctionDef<'a>> {
        self.tools.iter().flatten().filter_map(|t| t.function.as_ref()).chain(self.functions.iter().flatten())
    }

    /// The tool choice, in either the present or the older form. `None` where the client said nothing.
    ///
    /// # Errors
    /// When the field has a shape that OpenAI does not know.
    pub fn choice(&self) -> Result<Option<Choice<'a>>, crate::Error> {
        let (param, raw) = match (self.tool_choice, self.function_call) {
            (Some(raw), _) => ("tool_choice", raw.get()),
            (None, Some(raw)) => ("function_call", raw.get()),
            (None, None) => return Ok(None),
        };
        let wrong = || crate::Error::invalid(param, format!("`{param}` must be \"none\", \"auto\", \"required\" or name a function"));
        if raw.starts_with('"') {
            return match raw.trim_matches('"') {
                "none" => Ok(Some(Choice::None)),
                "auto" => Ok(Some(Choice::Auto)),
                "required" | "any" => Ok(Some(Choice::Required)),
                _ => Err(wrong()),
            };
        }
        #[derive(Deserialize)]
        struct Named<'a> {
            #[serde(borrow)]
            name: Str<'a>,
        }
        #[derive(Deserialize)]
        struct Entry<'a> {
            #[serde(borrow)]
            function: Option<Named<'a>>,
            #[serde(borrow)]
            custom: Option<Named<'a>>,
        }
        #[derive(Deserialize)]
        struct Allowed<'a> {
            mode: Option<&'a str>,
            #[serde(borrow, default)]
            tools: Vec<Entry<'a>>,
        }
        #[derive(Deserialize)]
        struct Object<'a> {
            #[serde(borrow)]
            function: Option<Named<'a>>,
            #[serde(borrow)]
            custom: Option<Named<'a>>,
            #[serde(borrow)]
            name: Option<Str<'a>>,
            #[serde(borrow)]
            allowed_tools: Option<Allowed<'a>>,
        }
        let object: Object<'a> = serde_json::from_str(raw).map_err(|_| wrong())?;
        if let Some(allowed) = object.allowed_tools {
            let names = allowed.tools.into_iter().filter_map(|e| e.function.or(e.custom)).map(|n| n.name).collect();
            return Ok(Some(Choice::Allowed { names, required: allowed.mode == Some("required") }));
        }
        object.function.or(object.custom).map(|n| n.name).or(object.name).map(|n| Some(Choice::Named(n))).ok_or_else(wrong)
    }
}

/// The schema of a function that takes no parameters, for providers that insist on one.
#[must_use]
pub fn no_parameters() -> &'static RawValue {
    const NONE: &str = r#"{"type":"object","properties":{}}"#;
    // The constant is valid JSON; `null` stands here only to spare a panic.
    serde_json::from_str(NONE).unwrap_or(RawValue::NULL)
}

/// A `data:` URL taken apart: media type and base64 payload. `None` for any other URL.
#[must_use]
pub fn data_url(url: &str) -> Option<(&str, &str)> {
    let (head, data) = url.strip_prefix("data:")?.split_once(',')?;
    let media = head.strip_suffix(";base64")?;
    Some((media.split(';').next().unwrap_or(media), data))
}
