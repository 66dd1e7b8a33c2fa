//! Reads a Messages stream into the hub.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::{Block, Seal, StopDetails, annotation, finish};
use super::tools::is_answer;
use super::usage::MessagesUsage;
use crate::answer::{Delta, Finish};
use crate::sse::Event;
use crate::usage::Usage;
use crate::wire::Str;
use crate::{Error, Transcoder, broken_off};

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Str<'a>>,
    #[serde(borrow)]
    message: Option<Start<'a>>,
    #[serde(borrow)]
    content_block: Option<Block<'a>>,
    #[serde(borrow)]
    delta: Option<Piece<'a>>,
    usage: Option<MessagesUsage>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Start<'a> {
    #[serde(borrow)]
    id: Option<Str<'a>>,
    #[serde(borrow)]
    model: Option<Str<'a>>,
    usage: Option<MessagesUsage>,
}

/// `delta` of a block and of the message.
#[derive(Deserialize)]
struct Piece<'a> {
    #[serde(borrow)]
    text: Option<Str<'a>>,
    #[serde(borrow)]
    partial_json: Option<Str<'a>>,
    #[serde(borrow)]
    thinking: Option<Str<'a>>,
    #[serde(borrow)]
    signature: Option<Str<'a>>,
    #[serde(borrow)]
    citation: Option<&'a RawValue>,
    #[serde(borrow)]
    stop_reason: Option<Str<'a>>,
    #[serde(borrow)]
    stop_details: Option<StopDetails<'a>>,
}

/// The block that is being streamed; they come one after the other.
#[derive(Debug, Default)]
enum Open {
    /// None, or one that is not for the client: what Anthropic's own tools do on its side.
    #[default]
    Other,
    Text {
        start: usize,
        citations: Vec<String>,
    },
    Thinking {
        text: String,
        signature: String,
    },
    Call {
        index: u32,
        input: Input,
    },
    /// The tool whose input is the answer's text.
    Answer {
        input: Input,
    },
}

/// A call's input: usually in pieces, from some hosts whole at the beginning, and in no piece at all where there is none.
#[derive(Debug, Default)]
struct Input {
    whole: Option<String>,
    came: bool,
}

impl Input {
    fn new(block: &Block<'_>) -> Self {
        Input { whole: block.input.map(|raw| raw.get().to_owned()).filter(|json| json.len() > 2), came: false }
    }

    /// What has to be given out when the block ends without a piece.
    fn rest(self) -> Option<String> {
        if self.came { None } else { Some(self.whole.unwrap_or_else(|| "{}".to_owned())) }
    }
}

/// Reads the events of a Messages stream, whoever frames them.
#[derive(Debug, Default)]
pub struct Events {
    started: bool,
    done: bool,
    open: Open,
    seal: Seal,
    calls: u32,
    finish: Option<Finish>,
    usage: Usage,
}

impl Transcoder for Events {
    fn event(&mut self, event: &Event<'_>, out: &mut dyn FnMut(Delta<'_>)) -> Result<(), Error> {
        if event.data.trim().is_empty() {
            return Ok(());
        }
        let body: Body<'_> = serde_json::from_str(&event.data).map_err(Error::answer)?;
        if event.name == "error" || body.error.is_some_and(|e| e.get() != "null") {
            return Err(super::read_error(200, event.data.as_bytes()).into());
        }
        match body.kind.as_deref().unwrap_or(event.name) {
            "message_start" => self.start(body.message, out),
            "content_block_start" => {
                if let Some(block) = body.content_block {
                    self.stop_block(out);
                    self.start_block(&block, out);
                }
            }
            "content_block_delta" => {
                if let Some(piece) = body.delta {
                    self.piece(&piece, out);
                }
            }
            "content_block_stop" => self.stop_block(out),
            "message_delta" => self.message_delta(body.delta, body.usage, out),
            "message_stop" => self.stop(out),
            // `ping`, and what is yet to be invented.
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, out: &mut dyn FnMut(Delta<'_>)) -> Result<(), Error> {
        // A reason to stop is the answer's end, even if the last event got lost behind it.
        if !self.done && self.finish.is_some() {
            self.stop(out);
        }
        if self.done { Ok(()) } else { Err(broken_off()) }
    }
}

impl Events {
    fn start(&mut self, message: Option<Start<'_>>, out: &mut dyn FnMut(Delta<'_>)) {
        let Some(message) = message else { return };
        if !std::mem::replace(&mut self.started, true) {
            out(Delta::Start { id: message.id.as_deref().unwrap_or_default(), model: message.model.as_deref().unwrap_or_default() });
        }
        // Provisional, but all there is if the stream breaks.
        if let Some(usage) = message.usage {
            usage.apply(&mut self.usage);
            out(Delta::Usage(self.usage));
        }
    }

    fn start_block(&mut self, block: &Block<'_>, out: &mut dyn FnMut(Delta<'_>)) {
        self.open = match &*block.kind {
            "text" => Open::Text { start: self.seal.characters(), citations: Vec::new() },
            "thinking" => Open::Thinking { text: String::new(), signature: block.signature.as_deref().unwrap_or_default().to_owned() },
            "redacted_thinking" => {
                let detail = self.seal.redacted(block.data.as_deref().unwrap_or_default());
                out(Delta::Detail { choice: 0, detail: &detail });
                Open::Other
            }
            "tool_use" => {
                let name = block.name.clone().unwrap_or_default();
                if is_answer(&name) {
                    Open::Answer { input: Input::new(block) }
                } else {
                    let index = self.calls;
                    self.calls += 1;
                    out(Delta::Call { choice: 0, index, id: &self.seal.id(block.id.as_deref().unwrap_or_default(), index as usize), name: &name });
                    Open::Call { index, input: Input::new(block) }
                }
            }
            _ => Open::Other,
        };
        if let Some(text) = block.text.as_deref() {
            self.text(text, out);
        }
        if let Some(text) = block.thinking.as_deref() {
            self.thinking(text, out);
        }
    }

    fn piece(&mut self, piece: &Piece<'_>, out: &mut dyn FnMut(Delta<'_>)) {
        if let Some(text) = piece.text.as_deref() {
            self.text(text, out);
        }
        if let Some(text) = piece.thinking.as_deref() {
            self.thinking(text, out);
        }
        match &mut self.open {
            Open::Thinking { signature, .. } => signature.push_str(piece.signature.as_deref().unwrap_or_default()),
            Open::Text { citations, .. } => citations.extend(piece.citation.map(|c| c.get().to_owned())),
            Open::Call { index, input } => {
                if let Some(json) = piece.partial_json.as_deref().filter(|j| !j.is_empty()) {
                    input.came = true;
                    out(Delta::Arguments { choice: 0, index: *index, json });
                }
            }
            Open::Answer { input } => {
                if let Some(text) = piece.partial_json.as_deref().filter(|j| !j.is_empty()) {
                    input.came = true;
                    self.seal.text(text);
                    out(Delta::Text { choice: 0, text });
                }
            }
            Open::Other => {}
        }
    }

    fn text(&mut self, text: &str, out: &mut dyn FnMut(Delta<'_>)) {
        if matches!(self.open, Open::Text { .. }) && !text.is_empty() {
            self.seal.text(text);
            out(Delta::Text { choice: 0, text });
        }
    }

    fn thinking(&mut self, piece: &str, out: &mut dyn FnMut(Delta<'_>)) {
        if let Open::Thinking { text, .. } = &mut self.open
            && !piece.is_empty()
        {
            text.push_str(piece);
            out(Delta::Reasoning { choice: 0, text: piece });
        }
    }

    fn stop_block(&mut self, out: &mut dyn FnMut(Delta<'_>)) {
        match std::mem::take(&mut self.open) {
            Open::Thinking { text, signature } => {
                if let Some(detail) = self.seal.thinking(text, &signature) {
                    out(Delta::Detail { choice: 0, detail: &detail });
                }
            }
            Open::Text { start, citations } => {
                for json in citations.iter().filter_map(|c| annotation(c, start, self.seal.characters())) {
                    out(Delta::Annotation { choice: 0, json: json.get() });
                }
            }
            Open::Call { index, input } => {
                if let Some(json) = input.rest() {
                    out(Delta::Arguments { choice: 0, index, json: &json });
                }
            }
            Open::Answer { input } => {
                if let Some(text) = input.rest() {
                    self.seal.text(&text);
                    out(Delta::Text { choice: 0, text: &text });
                }
            }
            Open::Other => {}
        }
    }

    fn message_delta(&mut self, delta: Option<Piece<'_>>, usage: Option<MessagesUsage>, out: &mut dyn FnMut(Delta<'_>)) {
        if let Some(usage) = usage {
            usage.apply(&mut self.usage);
            out(Delta::Usage(self.usage));
        }
        let Some(delta) = delta else { return };
        if let Some(reason) = delta.stop_reason {
            let reason = finish(&reason, self.calls > 0);
            self.finish = Some(reason);
            if let (Finish::ContentFilter, Some(text)) = (reason, delta.stop_details.and_then(|d| d.explanation)) {
                out(Delta::Refusal { choice: 0, text: &text });
            }
        }
    }

    fn stop(&mut self, out: &mut dyn FnMut(Delta<'_>)) {
        self.stop_block(out);
        if !std::mem::replace(&mut self.done, true) {
            out(Delta::Finish { choice: 0, reason: self.finish.unwrap_or_default() });
        }
    }
}
