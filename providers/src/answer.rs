//! The hub's answer: what a provider's dialect is read into and a door's dialect is written out of. An [`Answer`] is the
//! whole of it, [`Delta`]s are its pieces in a stream, and the pieces joined are the whole.

use serde_json::value::RawValue;

use crate::carry;
use crate::place::{Step, order};
use crate::usage::Usage;

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Finish {
    /// The model was done, or met a stop sequence.
    #[default]
    Stop,
    /// The bound on tokens, or the context, was reached.
    Length,
    /// The model waits for the results of its tool calls.
    ToolCalls,
    /// A content filter cut it.
    ContentFilter,
}

impl Finish {
    /// OpenAI's word.
    #[must_use]
    pub fn as_openai(self) -> &'static str {
        match self {
            Finish::Stop => "stop",
            Finish::Length => "length",
            Finish::ToolCalls => "tool_calls",
            Finish::ContentFilter => "content_filter",
        }
    }

    /// Reads OpenAI's word and those that compatible hosts use for it.
    #[must_use]
    pub fn from_openai(word: &str) -> Self {
        match word {
            "length" | "max_tokens" | "model_length" | "model_context_window_exceeded" => Finish::Length,
            "tool_calls" | "function_call" | "tool_use" => Finish::ToolCalls,
            "content_filter" | "refusal" | "safety" => Finish::ContentFilter,
            _ => Finish::Stop,
        }
    }
}

/// A piece of an answer in a stream. Texts borrow from the upstream's event.
#[derive(Debug, Clone, Copy)]
pub enum Delta<'a> {
    /// The first piece: the provider's own id (empty if it has none) and the model that answers.
    Start {
        /// Answer id.
        id: &'a str,
        /// Model.
        model: &'a str,
    },
    /// Text.
    Text {
        /// Choice.
        choice: u32,
        /// Text.
        text: &'a str,
    },
    /// Text of a refusal.
    Refusal {
        /// Choice.
        choice: u32,
        /// Text.
        text: &'a str,
    },
    /// Thinking text.
    Reasoning {
        /// Choice.
        choice: u32,
        /// Text.
        text: &'a str,
    },
    /// An opaque block of reasoning that the provider wants back in the next turn; completes the reasoning before it.
    Detail {
        /// Choice.
        choice: u32,
        /// The block.
        detail: &'a OwnedDetail,
    },
    /// A tool call begins.
    Call {
        /// Choice.
        choice: u32,
        /// Position among the choice's calls, dense from 0.
        index: u32,
        /// Call id, sealed if a signature must travel with it.
        id: &'a str,
        /// Function name.
        name: &'a str,
    },
    /// A piece of a call's arguments.
    Arguments {
        /// Choice.
        choice: u32,
        /// The call.
        index: u32,
        /// Fragment of JSON text.
        json: &'a str,
    },
    /// An annotation (a citation), OpenAI's shape.
    Annotation {
        /// Choice.
        choice: u32,
        /// The object.
        json: &'a str,
    },
    /// An image, as a data URL.
    Image {
        /// Choice.
        choice: u32,
        /// The URL.
        url: &'a str,
    },
    /// Log probabilities, OpenAI's shape.
    Logprobs {
        /// Choice.
        choice: u32,
        /// The object.
        json: &'a str,
    },
    /// A choice is done.
    Finish {
        /// Choice.
        choice: u32,
        /// Why.
        reason: Finish,
    },
    /// What it used. May come more than once: each replaces the one before.
    Usage(Usage),
}

/// A reasoning block as an answer holds it; [`crate::carry::Detail`] is the same as a request brings it back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnedDetail {
    /// `reasoning.text`, `reasoning.encrypted`, `reasoning.summary`.
    pub kind: &'static str,
    /// Who can read it back.
    pub format: &'static str,
    /// Thinking text that the signature covers; the summary of a `reasoning.summary`, which is written under that name.
    pub text: Option<String>,
    /// Signature.
    pub signature: Option<String>,
    /// Opaque data.
    pub data: Option<String>,
    /// The tool call it belongs to, or the block's own id: of Claude's thinking, where in its turn it stood.
    pub id: Option<String>,
    /// Position among the answer's blocks.
    pub index: u32,
}

impl OwnedDetail {
    /// What tells where in its turn it stood; none of what has other ids.
    pub(crate) fn place(&self) -> Option<&str> {
        self.id.as_deref().filter(|_| matches!(self.format, carry::ANTHROPIC | carry::BEDROCK))
    }
}

impl serde::Serialize for OwnedDetail {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = s.serialize_map(None)?;
        map.serialize_entry("type", self.kind)?;
        map.serialize_entry("format", self.format)?;
        let text = if self.kind == "reasoning.summary" { "summary" } else { "text" };
        for (name, value) in [(text, &self.text), ("signature", &self.signature), ("data", &self.data), ("id", &self.id)] {
            if let Some(value) = value {
                map.serialize_entry(name, value)?;
            }
        }
        map.serialize_entry("index", &self.index)?;
        map.end()
    }
}

/// A tool call of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Call {
    /// Id, sealed if a signature must travel with it.
    pub id: String,
    /// Function name.
    pub name: String,
    /// JSON text.
    pub arguments: String,
}

/// One choice of an answer.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// Text; `None` where there is none.
    pub text: Option<String>,
    /// Refusal.
    pub refusal: Option<String>,
    /// Thinking text.
    pub reasoning: Option<String>,
    /// Opaque reasoning blocks.
    pub details: Vec<OwnedDetail>,
    /// Tool calls.
    pub calls: Vec<Call>,
    /// Annotations, OpenAI's shape.
    pub annotations: Vec<Box<RawValue>>,
    /// Images, as data URLs.
    pub images: Vec<String>,
    /// Log probabilities, OpenAI's shape.
    pub logprobs: Option<Box<RawValue>>,
    /// Why it ended.
    pub finish: Option<Finish>,
}

/// A whole answer.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// The provider's own id, empty if it gives none.
    pub id: String,
    /// The model that answered, as the provider names it.
    pub model: String,
    /// Choices; their position is their index.
    pub choices: Vec<Choice>,
    /// What it used, if the provider says so.
    pub usage: Option<Usage>,
}

impl Answer {
    /// Adds a piece of a stream.
    pub fn apply(&mut self, delta: &Delta<'_>) {
        match *delta {
            Delta::Start { id, model } => {
                id.clone_into(&mut self.id);
                model.clone_into(&mut self.model);
            }
            Delta::Text { choice, text } => self.choice(choice).text.get_or_insert_default().push_str(text),
            Delta::Refusal { choice, text } => self.choice(choice).refusal.get_or_insert_default().push_str(text),
            Delta::Reasoning { choice, text } => self.choice(choice).reasoning.get_or_insert_default().push_str(text),
            Delta::Detail { choice, detail } => self.choice(choice).details.push(detail.clone()),
            Delta::Call { choice, id, name, .. } => self.choice(choice).calls.push(Call { id: id.to_owned(), name: name.to_owned(), arguments: String::new() }),
            Delta::Arguments { choice, index, json } => {
                if let Some(call) = self.choice(choice).calls.get_mut(index as usize) {
                    call.arguments.push_str(json);
                }
            }
            Delta::Annotation { choice, json } => {
                if let Ok(raw) = RawValue::from_string(json.to_owned()) {
                    self.choice(choice).annotations.push(raw);
                }
            }
            Delta::Image { choice, url } => self.choice(choice).images.push(url.to_owned()),
            Delta::Logprobs { choice, json } => {
                let slot = &mut self.choice(choice).logprobs;
                *slot = join_logprobs(slot.take(), json);
            }
            Delta::Finish { choice, reason } => self.choice(choice).finish = Some(reason),
            Delta::Usage(usage) => self.usage = Some(usage),
        }
    }

    /// Gives the answer out as the pieces of a stream, in the order in which they stood in it as far as that is known: what a
    /// cache hit or the echo provider streams.
    pub fn replay(&self, mut each: impl FnMut(Delta<'_>)) {
        each(Delta::Start { id: &self.id, model: &self.model });
        for (choice, c) in (0..).zip(&self.choices) {
            c.replay(choice, &mut each);
        }
        if let Some(usage) = self.usage {
            each(Delta::Usage(usage));
        }
    }

    /// The choice at `index`, made if it is not there yet.
    pub fn choice(&mut self, index: u32) -> &mut Choice {
        // A provider's index is not to be trusted with memory.
        let index = (index as usize).min(MAX_CHOICES - 1);
        if self.choices.len() <= index {
            self.choices.resize_with(index + 1, Choice::default);
        }
        &mut self.choices[index]
    }
}

/// OpenAI's own bound on `n`.
pub const MAX_CHOICES: usize = 128;

impl Choice {
    /// Why it ended, as a client is told: a choice with calls ends for their results, whatever the provider said, unless
    /// it was cut.
    #[must_use]
    pub fn reason(&self) -> Finish {
        match self.finish.unwrap_or_default() {
            Finish::Stop if !self.calls.is_empty() => Finish::ToolCalls,
            reason => reason,
        }
    }

    /// In what order its thinking, its text and its calls came.
    pub(crate) fn order(&self) -> Vec<Step> {
        order(self.details.iter().map(|d| (Some(d.index), d.place())), self.calls.len())
    }

    fn replay(&self, choice: u32, each: &mut dyn FnMut(Delta<'_>)) {
        // Where the blocks hold the whole of the text, each comes behind its own part of it.
        let by_block = self.reasoning.as_deref().is_some_and(|whole| self.details.iter().filter_map(|d| d.text.as_deref()).collect::<String>() == whole);
        if let Some(text) = self.reasoning.as_deref().filter(|_| !by_block) {
            each(Delta::Reasoning { choice, text });
        }
        let (mut details, mut calls) = (self.details.iter(), (0..).zip(&self.calls));
        let (mut rest, mut given) = (self.text.as_deref(), 0);
        for step in self.order() {
            match step {
                Step::Thinking => {
                    let Some(detail) = details.next() else { continue };
                    if let Some(text) = detail.text.as_deref().filter(|t| by_block && !t.is_empty()) {
                        each(Delta::Reasoning { choice, text });
                    }
                    each(Delta::Detail { choice, detail });
                }
                Step::Text(usize::MAX) => {
                    if let Some(text) = rest.take().filter(|text| !text.is_empty() || given == 0) {
                        each(Delta::Text { choice, text });
                    }
                    self.replay_beside(choice, each);
                }
                Step::Text(end) => {
                    let Some(text) = rest.filter(|_| end > given) else { continue };
                    let (head, tail) = text.split_at(text.char_indices().nth(end - given).map_or(text.len(), |(at, _)| at));
                    (rest, given) = (Some(tail), end);
                    if !head.is_empty() {
                        each(Delta::Text { choice, text: head });
                    }
                }
                Step::Call => {
                    let Some((index, call)) = calls.next() else { continue };
                    each(Delta::Call { choice, index, id: &call.id, name: &call.name });
                    each(Delta::Arguments { choice, index, json: &call.arguments });
                }
            }
        }
        each(Delta::Finish { choice, reason: self.reason() });
    }

    /// What comes behind the text, or belongs to it.
    fn replay_beside(&self, choice: u32, each: &mut dyn FnMut(Delta<'_>)) {
        if let Some(text) = &self.refusal {
            each(Delta::Refusal { choice, text });
        }
        for json in &self.annotations {
            each(Delta::Annotation { choice, json: json.get() });
        }
        for url in &self.images {
            each(Delta::Image { choice, url });
        }
        if let Some(json) = &self.logprobs {
            each(Delta::Logprobs { choice, json: json.get() });
        }
    }
}

/// Joins the `content` lists of two pieces of log probabilities.
fn join_logprobs(before: Option<Box<RawValue>>, json: &str) -> Option<Box<RawValue>> {
    let Some(before) = before else { return RawValue::from_string(json.to_owned()).ok() };
    let mut joined: serde_json::Value = serde_json::from_str(before.get()).ok()?;
    let mut next: serde_json::Value = serde_json::from_str(json).ok()?;
    for key in ["content", "refusal"] {
        if let (Some(list), Some(more)) = (joined[key].as_array_mut(), next[key].as_array_mut()) {
            list.append(more);
        }
    }
    serde_json::value::to_raw_value(&joined).ok()
}
