//! Writes a stream as Messages events: blocks one after the other, each begun and ended.

use serde::Serialize;

use super::answer::{Citation, citation, image};
use super::{Messages, UsageBody, call_id, message_id, sealed, stop_reason};
use crate::answer::{Delta, Finish, OwnedDetail};
use crate::carry;
use crate::chat::json;
use crate::door::{ClientError, Door, Meta, Writer};
use crate::usage::Usage;

/// The block that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    None,
    Text,
    /// Whether any of its text has come.
    Thinking(bool),
    Call(u32),
}

/// Writes one stream.
pub(super) struct Events {
    meta: Meta,
    started: bool,
    open: Open,
    /// How much text the thinking that is open has, in bytes.
    thought: usize,
    /// Blocks begun so far.
    blocks: u32,
    /// Where each call's block stands.
    calls: Vec<u32>,
    finish: Option<Finish>,
    usage: Usage,
}

#[derive(Serialize)]
struct MessageStart<'a> {
    r#type: &'static str,
    message: Message<'a>,
}

#[derive(Serialize)]
struct Message<'a> {
    id: String,
    r#type: &'static str,
    role: &'static str,
    model: &'a str,
    content: [(); 0],
    stop_reason: Option<()>,
    stop_sequence: Option<()>,
    usage: UsageBody,
}

#[derive(Serialize)]
struct BlockStart<'a> {
    r#type: &'static str,
    index: u32,
    content_block: Begin<'a>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Begin<'a> {
    Text { text: &'static str },
    Thinking { thinking: &'static str, signature: &'static str },
    RedactedThinking { data: &'a str },
    ToolUse { id: &'a str, name: &'a str, input: Nothing },
}

/// `{}`.
#[derive(Serialize)]
struct Nothing {}

#[derive(Serialize)]
struct BlockDelta<'a> {
    r#type: &'static str,
    index: u32,
    delta: Piece<'a>,
}

#[derive(Serialize)]
#[serde(tag = "type")]
enum Piece<'a> {
    #[serde(rename = "text_delta")]
    Text { text: &'a str },
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: &'a str },
    #[serde(rename = "signature_delta")]
    Signature { signature: &'a str },
    #[serde(rename = "input_json_delta")]
    Input { partial_json: &'a str },
    #[serde(rename = "citations_delta")]
    Citation { citation: Citation },
}

#[derive(Serialize)]
struct BlockStop {
    r#type: &'static str,
    index: u32,
}

#[derive(Serialize)]
struct MessageDelta {
    r#type: &'static str,
    delta: Stop,
    usage: UsageBody,
}

#[derive(Serialize)]
struct Stop {
    stop_reason: &'static str,
    stop_sequence: Option<()>,
}

fn event(out: &mut Vec<u8>, name: &str, body: &impl Serialize) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    json(out, body);
    out.extend_from_slice(b"\n\n");
}

impl Events {
    pub(super) fn new(meta: Meta) -> Self {
        Events { meta, started: false, open: Open::None, thought: 0, blocks: 0, calls: Vec::new(), finish: None, usage: Usage::default() }
    }

    fn start(&mut self, id: &str, model: &str, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        let message = Message {
            id: message_id(id, &self.meta),
            r#type: "message",
            role: "assistant",
            model: if model.is_empty() { &self.meta.model } else { model },
            content: [],
            stop_reason: None,
            stop_sequence: None,
            // Usually not known yet; the event before the last one puts it right.
            usage: self.usage.into(),
        };
        event(out, "message_start", &MessageStart { r#type: "message_start", message });
    }

    fn begin(&mut self, open: Open, block: Begin<'_>, out: &mut Vec<u8>) {
        self.start("", "", out);
        self.close(out);
        event(out, "content_block_start", &BlockStart { r#type: "content_block_start", index: self.blocks, content_block: block });
        self.blocks += 1;
        self.thought = 0;
        self.open = open;
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.open, Open::None) != Open::None {
            event(out, "content_block_stop", &BlockStop { r#type: "content_block_stop", index: self.blocks - 1 });
        }
    }

    /// A piece of the block that is open.
    fn piece(&self, delta: Piece<'_>, out: &mut Vec<u8>) {
        event(out, "content_block_delta", &BlockDelta { r#type: "content_block_delta", index: self.blocks.saturating_sub(1), delta });
    }

    fn text(&mut self, text: &str, out: &mut Vec<u8>) {
        if text.is_empty() {
            return;
        }
        self.need_text(out);
        self.piece(Piece::Text { text }, out);
    }

    fn need_text(&mut self, out: &mut Vec<u8>) {
        if self.open != Open::Text {
            self.begin(Open::Text, Begin::Text { text: "" }, out);
        }
    }

    fn thinking(&mut self, thinking: &str, out: &mut Vec<u8>) {
        if thinking.is_empty() {
            return;
        }
        if !matches!(self.open, Open::Thinking(_)) {
            self.begin(Open::Thinking(true), Begin::Thinking { thinking: "", signature: "" }, out);
        }
        self.open = Open::Thinking(true);
        self.thought += thinking.len();
        self.piece(Piece::Thinking { thinking }, out);
    }

    /// What completes the thinking before it, or is a block by itself.
    fn detail(&mut self, detail: &OwnedDetail, out: &mut Vec<u8>) {
        let own = detail.format == carry::ANTHROPIC;
        if let (true, Some(data)) = (own, &detail.data) {
            self.begin(Open::Thinking(true), Begin::RedactedThinking { data }, out);
            return self.close(out);
        }
        // A signature is over its own text: what else was thought before it is a block apart.
        let other = own && self.thought != detail.text.as_ref().map_or(0, String::len) && self.thought > 0;
        if other || !matches!(self.open, Open::Thinking(_)) {
            self.begin(Open::Thinking(false), Begin::Thinking { thinking: "", signature: "" }, out);
        }
        if let (Open::Thinking(false), true, Some(text)) = (self.open, own, &detail.text) {
            self.thinking(text, out);
        }
        let sealed = if own { None } else { Some(sealed(detail)) };
        if let Some(signature) = sealed.as_deref().or(detail.signature.as_deref()) {
            self.piece(Piece::Signature { signature }, out);
        }
        self.close(out);
    }

    fn arguments(&mut self, index: u32, partial_json: &str, out: &mut Vec<u8>) {
        let Some(block) = self.calls.get(index as usize) else { return };
        if partial_json.is_empty() {
            return;
        }
        // A piece for a call before the last one still says which block it belongs to, and that is what clients go by.
        event(out, "content_block_delta", &BlockDelta { r#type: "content_block_delta", index: *block, delta: Piece::Input { partial_json } });
    }
}

impl Writer for Events {
    fn delta(&mut self, delta: &Delta<'_>, out: &mut Vec<u8>) {
        match *delta {
            Delta::Start { id, model } => self.start(id, model, out),
            Delta::Text { choice: 0, text } | Delta::Refusal { choice: 0, text } => self.text(text, out),
            Delta::Reasoning { choice: 0, text } => self.thinking(text, out),
            Delta::Detail { choice: 0, detail } => self.detail(detail, out),
            Delta::Call { choice: 0, id, name, .. } => {
                self.begin(Open::Call(self.calls.len() as u32), Begin::ToolUse { id: call_id(id), name, input: Nothing {} }, out);
                self.calls.push(self.blocks - 1);
            }
            Delta::Arguments { choice: 0, index, json } => self.arguments(index, json, out),
            Delta::Annotation { choice: 0, json } => {
                if let Some(citation) = citation(json) {
                    self.need_text(out);
                    self.piece(Piece::Citation { citation }, out);
                }
            }
            Delta::Image { choice: 0, url } => self.text(&image(url), out),
            Delta::Finish { choice: 0, reason } => self.finish = Some(reason),
            Delta::Usage(usage) => self.usage = usage,
            // Anthropic knows one choice, and no log probabilities.
            _ => {}
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        self.start("", "", out);
        self.close(out);
        let finish = match self.finish.unwrap_or_default() {
            Finish::Stop if !self.calls.is_empty() => Finish::ToolCalls,
            finish => finish,
        };
        let delta = Stop { stop_reason: stop_reason(finish), stop_sequence: None };
        event(out, "message_delta", &MessageDelta { r#type: "message_delta", delta, usage: self.usage.into() });
        out.extend_from_slice(b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
    }

    fn error(&mut self, error: &ClientError, out: &mut Vec<u8>) {
        out.extend_from_slice(&Messages.error_event(error));
    }
}
