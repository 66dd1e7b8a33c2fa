//! Reads a whole chat completion as OpenAI and compatible hosts really send it. A chunk of a stream has the same shape, so
//! that the types are shared with its reader.

use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::error;
use crate::Error;
use crate::answer::{Answer, Call, Choice, Finish};
use crate::error::{ErrorKind, UpstreamError};
use crate::oddities::{Details, sources};
use crate::usage::{OpenAiUsage, Usage};
use crate::wire::{Arguments, Str};

/// A text, or a list of typed pieces of which some are thinking (Mistral).
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Body<'a> {
    #[serde(borrow)]
    Text(Str<'a>),
    #[serde(borrow)]
    Pieces(Vec<Piece<'a>>),
}

#[derive(Deserialize)]
pub(super) struct Piece<'a> {
    #[serde(borrow)]
    text: Option<Str<'a>>,
    #[serde(borrow)]
    thinking: Option<Vec<ThinkingPiece<'a>>>,
    /// Databricks' name for the same.
    #[serde(borrow)]
    summary: Option<Vec<ThinkingPiece<'a>>>,
}

#[derive(Deserialize)]
struct ThinkingPiece<'a> {
    #[serde(borrow)]
    text: Option<Str<'a>>,
}

impl Body<'_> {
    pub(super) fn each(&self, mut text: impl FnMut(&str), mut thinking: impl FnMut(&str)) {
        match self {
            Body::Text(t) => text(t),
            Body::Pieces(pieces) => {
                for piece in pieces {
                    if let Some(t) = &piece.text {
                        text(t);
                    }
                    for t in piece.thinking.iter().chain(&piece.summary).flatten().filter_map(|t| t.text.as_deref()) {
                        thinking(t);
                    }
                }
            }
        }
    }
}

/// `message` of an answer and `delta` of a chunk, as hosts really send them.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Message<'a> {
    #[serde(borrow)]
    pub(super) content: Option<Body<'a>>,
    #[serde(borrow)]
    pub(super) refusal: Option<Str<'a>>,
    #[serde(borrow)]
    pub(super) reasoning_content: Option<Str<'a>>,
    #[serde(borrow)]
    pub(super) reasoning: Option<Str<'a>>,
    #[serde(borrow)]
    pub(super) tool_calls: Option<ToolCalls<'a>>,
    #[serde(borrow)]
    pub(super) function_call: Option<Function<'a>>,
    #[serde(borrow)]
    pub(super) annotations: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    pub(super) reasoning_details: Option<&'a RawValue>,
    #[serde(borrow)]
    images: Option<Vec<Image<'a>>>,
}

#[derive(Deserialize)]
struct Image<'a> {
    #[serde(borrow)]
    image_url: Option<Url<'a>>,
}

#[derive(Deserialize)]
struct Url<'a> {
    #[serde(borrow)]
    url: Str<'a>,
}

impl Message<'_> {
    pub(super) fn image_urls(&self) -> impl Iterator<Item = &str> {
        self.images.iter().flatten().filter_map(|i| Some(&*i.image_url.as_ref()?.url))
    }
}

/// A list of calls, or in the streams of TGI 2 one call alone. Not an untagged enum: that could not keep arguments as they came.
pub(super) struct ToolCalls<'a>(pub(super) Vec<ToolCall<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for ToolCalls<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Vec<ToolCall<'de>>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of tool calls")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut calls = Vec::new();
                while let Some(call) = list.next_element()? {
                    calls.push(call);
                }
                Ok(calls)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                ToolCall::deserialize(MapAccessDeserializer::new(map)).map(|call| vec![call])
            }
        }
        d.deserialize_any(Either).map(ToolCalls)
    }
}

#[derive(Deserialize)]
pub(super) struct ToolCall<'a> {
    pub(super) index: Option<u32>,
    #[serde(borrow)]
    id: Option<Str<'a>>,
    #[serde(borrow)]
    pub(super) function: Option<Function<'a>>,
    #[serde(borrow)]
    pub(super) custom: Option<Custom<'a>>,
}

impl<'a> ToolCall<'a> {
    /// The one call of the legacy form, which has no id.
    pub(super) fn legacy(function: Function<'a>) -> Self {
        ToolCall { index: Some(0), id: None, function: Some(function), custom: None }
    }

    /// The id, if it has one: Mistral writes `"null"` where it has none.
    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref().filter(|id| !id.is_empty() && *id != "null")
    }
}

#[derive(Deserialize)]
pub(super) struct Function<'a> {
    #[serde(borrow)]
    pub(super) name: Option<Str<'a>>,
    #[serde(borrow)]
    pub(super) arguments: Option<Arguments<'a>>,
}

#[derive(Deserialize)]
pub(super) struct Custom<'a> {
    #[serde(borrow)]
    pub(super) name: Option<Str<'a>>,
    #[serde(borrow)]
    pub(super) input: Option<Str<'a>>,
}

#[derive(Deserialize)]
pub(super) struct Part<'a> {
    pub(super) index: Option<u32>,
    #[serde(borrow)]
    pub(super) message: Option<Message<'a>>,
    /// Perplexity sends `message` beside it: all that came so far, once more.
    #[serde(borrow)]
    pub(super) delta: Option<Message<'a>>,
    /// Legacy completions.
    #[serde(borrow)]
    pub(super) text: Option<Str<'a>>,
    #[serde(borrow)]
    pub(super) finish_reason: Option<Str<'a>>,
    #[serde(borrow)]
    pub(super) logprobs: Option<&'a RawValue>,
    /// OpenRouter's place for an error of the host behind it.
    #[serde(borrow)]
    pub(super) error: Option<&'a RawValue>,
}

impl Part<'_> {
    /// An error that is told in the place of a choice, or by its finish alone.
    pub(super) fn failure(&self) -> Option<Error> {
        match self.error.filter(real) {
            Some(error) => Some(error::read(200, format!("{{\"error\":{}}}", error.get()).as_bytes()).into()),
            None if self.finish_reason.as_deref() == Some("error") => Some(UpstreamError::new(ErrorKind::Server, "the upstream ended the answer with an error").into()),
            None => None,
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Completion<'a> {
    /// `error` where vLLM's older versions fail.
    #[serde(borrow)]
    pub(super) object: Option<Str<'a>>,
    #[serde(borrow)]
    pub(super) id: Option<Str<'a>>,
    #[serde(borrow)]
    pub(super) model: Option<Str<'a>>,
    #[serde(borrow)]
    pub(super) choices: Option<Vec<Part<'a>>>,
    pub(super) usage: Option<OpenAiUsage>,
    /// Groq's place for it in streams.
    pub(super) x_groq: Option<Groq>,
    #[serde(borrow)]
    pub(super) error: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) search_results: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) citations: Option<&'a RawValue>,
}

impl Completion<'_> {
    pub(super) fn failed(&self) -> bool {
        self.error.filter(real).is_some() || self.object.as_deref() == Some("error")
    }
}

#[derive(Deserialize)]
pub(super) struct Groq {
    pub(super) usage: Option<OpenAiUsage>,
}

pub(super) fn real(raw: &&RawValue) -> bool {
    raw.get() != "null"
}

/// Reads a whole chat completion (or a legacy completion).
///
/// # Errors
/// When it is not one, or reports an error.
pub fn read(body: &[u8]) -> Result<Answer, Error> {
    let completion: Completion<'_> = serde_json::from_slice(body).map_err(Error::answer)?;
    if completion.failed() {
        return Err(error::read(200, body).into());
    }
    let mut sources = sources(completion.search_results, completion.citations);
    let Some(parts) = completion.choices.filter(|c| !c.is_empty()) else { return Err(Error::answer("it has no `choices`")) };
    let mut answer = Answer { id: owned(completion.id), model: owned(completion.model), choices: Vec::new(), usage: completion.usage.or(completion.x_groq.and_then(|g| g.usage)).map(Usage::from) };
    for (position, part) in (0..).zip(parts) {
        if let Some(error) = part.failure() {
            return Err(error);
        }
        let index = part.index.unwrap_or(position);
        *answer.choice(index) = read_choice(part);
    }
    if let Some(first) = answer.choices.first_mut().filter(|c| c.annotations.is_empty()) {
        first.annotations.append(&mut sources);
    }
    Ok(answer)
}

fn owned(text: Option<Str<'_>>) -> String {
    text.map(|t| t.0.into_owned()).unwrap_or_default()
}

fn read_choice(part: Part<'_>) -> Choice {
    let message = part.message.or(part.delta).unwrap_or_default();
    let mut choice = Choice {
        text: part.text.map(|t| t.0.into_owned()),
        images: message.image_urls().map(str::to_owned).collect(),
        refusal: message.refusal.map(|t| t.0.into_owned()),
        reasoning: message.reasoning_content.or(message.reasoning).filter(|t| !t.is_empty()).map(|t| t.0.into_owned()),
        annotations: message.annotations.into_iter().flatten().map(ToOwned::to_owned).collect(),
        logprobs: part.logprobs.filter(real).map(ToOwned::to_owned),
        finish: part.finish_reason.map(|f| Finish::from_openai(&f)),
        ..Choice::default()
    };
    if let Some(raw) = message.reasoning_details {
        let mut details = Details::default();
        details.take(raw, |d| choice.details.push(d));
        details.finish(|d| choice.details.push(d));
    }
    if let Some(content) = message.content {
        let (mut text, mut thinking) = (String::new(), String::new());
        content.each(|t| text.push_str(t), |t| thinking.push_str(t));
        choice.text = Some(text);
        if !thinking.is_empty() {
            choice.reasoning = Some(thinking);
        }
    }
    let legacy = message.function_call.map(ToolCall::legacy);
    for (position, call) in message.tool_calls.into_iter().flat_map(|calls| calls.0).chain(legacy).enumerate() {
        let id = call.id().map_or_else(|| format!("call_{position}"), str::to_owned);
        let (name, arguments) = match (call.function, call.custom) {
            (Some(f), _) => (owned(f.name), f.arguments.unwrap_or_default().json().to_owned()),
            (None, Some(c)) => (owned(c.name), owned(c.input)),
            (None, None) => continue,
        };
        choice.calls.push(Call { id, name, arguments });
    }
    choice
}
