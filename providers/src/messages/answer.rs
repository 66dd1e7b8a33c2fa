//! Writes a whole answer as a message.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use super::{UsageBody, call_id, message_id, sealed, stop_reason};
use crate::answer::{Answer, Choice, Finish};
use crate::chat::json;
use crate::door::Meta;
use crate::json::scan;
use crate::place::{Piece, Thought, weave};
use crate::{answer, carry};

#[derive(Serialize)]
struct Message<'a> {
    id: String,
    r#type: &'static str,
    role: &'static str,
    model: &'a str,
    content: Vec<Block<'a>>,
    stop_reason: &'static str,
    stop_sequence: Option<&'a str>,
    usage: UsageBody,
}

/// A content block as an answer carries it.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Block<'a> {
    Thinking {
        thinking: &'a str,
        signature: Cow<'a, str>,
    },
    RedactedThinking {
        data: &'a str,
    },
    Text {
        text: Cow<'a, str>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        citations: Vec<Citation>,
    },
    ToolUse {
        id: &'a str,
        name: &'a str,
        input: Cow<'a, RawValue>,
    },
}

/// A page of the web that the text rests on.
#[derive(Serialize)]
pub(super) struct Citation {
    r#type: &'static str,
    url: String,
    title: String,
    encrypted_index: &'static str,
    cited_text: &'static str,
}

/// Writes the answer; its first choice, for Anthropic knows no other.
pub(super) fn write(answer: &Answer, meta: &Meta) -> Vec<u8> {
    let none = Choice::default();
    let choice = answer.choices.first().unwrap_or(&none);
    let message = Message {
        id: message_id(&answer.id, meta),
        r#type: "message",
        role: "assistant",
        model: if answer.model.is_empty() { &meta.model } else { &answer.model },
        content: content(choice),
        stop_reason: stop_reason(choice.reason()),
        stop_sequence: None,
        usage: answer.usage.unwrap_or_default().into(),
    };
    let mut out = Vec::with_capacity(1024);
    json(&mut out, &message);
    out
}

fn content(choice: &Choice) -> Vec<Block<'_>> {
    let mut text: Cow<'_, str> = choice.text.as_deref().unwrap_or_default().into();
    if let Some(refusal) = &choice.refusal {
        text.to_mut().push_str(refusal);
    }
    for url in &choice.images {
        text.to_mut().push_str(&image(url));
    }
    let citations: Vec<Citation> = choice.annotations.iter().filter_map(|a| citation(a.get())).collect();
    let said = if text.is_empty() && citations.is_empty() { Vec::new() } else { vec![Block::Text { text, citations }] };
    let calls = choice.calls.iter().map(|call| Block::ToolUse { id: call_id(&call.id), name: &call.name, input: input(&call.arguments, choice.finish) });
    weave(thinking(choice), said, calls.collect())
}

impl<'a> Piece<'a> for Block<'a> {
    fn of(text: Cow<'a, str>) -> Self {
        Block::Text { text, citations: Vec::new() }
    }

    fn text(&mut self) -> Option<&mut Cow<'a, str>> {
        if let Block::Text { text, .. } = self { Some(text) } else { None }
    }
}

/// Claude's thinking in its own blocks; another's as the text to be read and, one block each, what has to come back.
fn thinking(choice: &Choice) -> Vec<Thought<'_, Block<'_>>> {
    let mut blocks = Vec::new();
    let mut text = choice.reasoning.as_deref().filter(|_| !choice.details.iter().any(|d| d.format == carry::ANTHROPIC));
    for detail in &choice.details {
        let block = match detail {
            answer::OwnedDetail { format: carry::ANTHROPIC, data: Some(data), .. } => Block::RedactedThinking { data },
            answer::OwnedDetail { format: carry::ANTHROPIC, .. } => {
                Block::Thinking { thinking: detail.text.as_deref().unwrap_or_default(), signature: detail.signature.as_deref().unwrap_or_default().into() }
            }
            foreign => Block::Thinking { thinking: text.take().unwrap_or_default(), signature: sealed(foreign).into() },
        };
        blocks.push(Thought { block, index: Some(detail.index), id: detail.place().map(Cow::Borrowed) });
    }
    if let Some(thinking) = text {
        blocks.push(Thought { block: Block::Thinking { thinking, signature: "".into() }, index: Some(blocks.len() as u32), id: None });
    }
    blocks
}

/// Messages have no images of the assistant's: Markdown at least shows it.
pub(super) fn image(url: &str) -> String {
    format!("![image]({url})")
}

/// An annotation as a citation; only pages of the web have one in common.
pub(super) fn citation(annotation: &str) -> Option<Citation> {
    let value: serde_json::Value = serde_json::from_str(annotation).ok()?;
    let page = &value["url_citation"];
    Some(Citation { r#type: "web_search_result_location", url: page["url"].as_str()?.to_owned(), title: page["title"].as_str().unwrap_or_default().to_owned(), encrypted_index: "", cited_text: "" })
}

/// A call's input must be an object: text that is none is wrapped, unless the answer was cut in the middle of it.
fn input(arguments: &str, finish: Option<Finish>) -> Cow<'_, RawValue> {
    let empty = || RawValue::from_string("{}".to_owned()).map_or(Cow::Borrowed(RawValue::NULL), Cow::Owned);
    match serde_json::from_str::<&RawValue>(arguments) {
        Ok(raw) if scan(arguments.as_bytes()).is_ok() => Cow::Borrowed(raw),
        _ if arguments.trim().is_empty() || finish == Some(Finish::Length) => empty(),
        _ => RawValue::from_string(serde_json::json!({ "arguments": arguments }).to_string()).map_or_else(|_| empty(), Cow::Owned),
    }
}
