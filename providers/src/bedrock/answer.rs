//! Converse's answers, whole and as a stream of frames.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::error;
use super::model::Model;
use super::tools::{ANSWER, PLACEHOLDER};
use crate::answer::{Answer, Call, Choice, Delta, Finish, OwnedDetail};
use crate::error::{ErrorKind, UpstreamError};
use crate::place::Counter;
use crate::sse::Event;
use crate::usage::{Usage, sum};
use crate::wire::Str;
use crate::{Error, Target, Transcoder, broken_off, carry};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    #[serde(borrow)]
    output: Option<Output<'a>>,
    #[serde(borrow)]
    stop_reason: Option<Str<'a>>,
    usage: Option<TokenUsage>,
}

#[derive(Deserialize)]
struct Output<'a> {
    #[serde(borrow)]
    message: Option<Message<'a>>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    content: Vec<Block<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Block<'a> {
    #[serde(borrow)]
    text: Option<Str<'a>>,
    #[serde(borrow)]
    tool_use: Option<ToolUse<'a>>,
    #[serde(borrow)]
    reasoning_content: Option<Reasoning<'a>>,
    #[serde(borrow)]
    citations_content: Option<Cited<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToolUse<'a> {
    #[serde(borrow)]
    tool_use_id: Str<'a>,
    #[serde(borrow)]
    name: Str<'a>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reasoning<'a> {
    #[serde(borrow)]
    reasoning_text: Option<ReasoningText<'a>>,
    #[serde(borrow)]
    redacted_content: Option<Str<'a>>,
}

#[derive(Deserialize)]
struct ReasoningText<'a> {
    #[serde(borrow)]
    text: Option<Str<'a>>,
    #[serde(borrow)]
    signature: Option<Str<'a>>,
}

#[derive(Deserialize)]
struct Cited<'a> {
    #[serde(borrow, default)]
    content: Vec<CitedText<'a>>,
}

#[derive(Deserialize)]
struct CitedText<'a> {
    #[serde(borrow)]
    text: Option<Str<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct TokenUsage {
    input_tokens: u64,
    output_tokens: u64,
    cache_read_input_tokens: Option<u64>,
    cache_write_input_tokens: Option<u64>,
    cache_details: Option<Vec<CacheDetail>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CacheDetail {
    ttl: String,
    input_tokens: u64,
}

impl From<TokenUsage> for Usage {
    /// Bedrock counts what was read from and written to the cache beside `inputTokens`, and reasoning inside `outputTokens`.
    fn from(u: TokenUsage) -> Self {
        let written = u.cache_write_input_tokens.unwrap_or_default();
        let hour = sum(u.cache_details.iter().flatten().filter(|d| d.ttl == "1h").map(|d| d.input_tokens));
        let hour = hour.min(written);
        Usage { input: u.input_tokens, cache_read: u.cache_read_input_tokens.unwrap_or_default(), cache_write: written - hour, cache_write_1h: hour, output: u.output_tokens, ..Usage::default() }
    }
}

/// Why the answer ended; an error where the model failed in the middle of it.
fn finish(reason: &str, calls: bool) -> Result<Finish, Error> {
    Ok(match reason {
        "max_tokens" | "model_context_window_exceeded" => Finish::Length,
        "guardrail_intervened" | "content_filtered" | "refusal" => Finish::ContentFilter,
        // The tool that was called may have been the answer itself.
        "tool_use" if calls => Finish::ToolCalls,
        "malformed_model_output" | "malformed_tool_use" => {
            let mut error = UpstreamError::new(ErrorKind::Server, "the model's answer came out malformed; send the request again");
            error.code = Some(reason.to_owned());
            return Err(error.into());
        }
        _ => Finish::Stop,
    })
}

/// A reasoning block that is complete. `None` if nobody has to hand it back.
fn detail(model: &Model, index: u32, counter: &mut Counter, text: &str, signature: &str, data: &str) -> Option<OwnedDetail> {
    let given = |s: &str| if s.is_empty() { None } else { Some(s.to_owned()) };
    if data.is_empty() && signature.is_empty() {
        return None;
    }
    let detail = OwnedDetail { format: model.format(), index, id: counter.place(), ..OwnedDetail::default() };
    Some(if !data.is_empty() {
        OwnedDetail { kind: "reasoning.encrypted", data: given(data), ..detail }
    } else {
        OwnedDetail { kind: "reasoning.text", text: given(text), signature: given(signature), ..detail }
    })
}

/// The signature that may travel in a call's id: only one that covers no text, for the id cannot carry the text.
fn sealable(detail: &OwnedDetail) -> Option<String> {
    let signature = detail.signature.as_deref().filter(|_| detail.text.is_none() && detail.format == carry::ANTHROPIC)?;
    let mut sealed = String::new();
    carry::seal_block(&mut sealed, detail.id.as_deref(), false, signature);
    Some(sealed)
}

fn seal(id: &str, signature: Option<String>) -> String {
    signature.map_or_else(|| id.to_owned(), |s| carry::seal(id, carry::ANTHROPIC, &s))
}

/// Reads a whole answer.
pub(super) fn read(body: &[u8], target: &Target<'_>) -> Result<Answer, Error> {
    let response: Response<'_> = serde_json::from_slice(body).map_err(Error::answer)?;
    let Some(message) = response.output.and_then(|o| o.message) else { return Err(Error::answer("it has no `output.message`")) };
    let model = Model::of(target);
    let mut choice = Choice::default();
    let mut signature = None;
    let mut answered = false;
    let mut counter = Counter::default();
    for block in message.content {
        if let Some(text) = block.text {
            counter.text(&text);
            choice.text.get_or_insert_default().push_str(&text);
        }
        for text in block.citations_content.into_iter().flat_map(|c| c.content).filter_map(|c| c.text) {
            counter.text(&text);
            choice.text.get_or_insert_default().push_str(&text);
        }
        if let Some(reasoning) = block.reasoning_content {
            let (text, signed) = reasoning.reasoning_text.map(|r| (r.text.unwrap_or_default(), r.signature.unwrap_or_default())).unwrap_or_default();
            if !text.is_empty() {
                choice.reasoning.get_or_insert_default().push_str(&text);
            }
            if let Some(detail) = detail(&model, choice.details.len() as u32, &mut counter, &text, &signed, &reasoning.redacted_content.unwrap_or_default()) {
                signature = sealable(&detail);
                choice.details.push(detail);
            }
        }
        if let Some(call) = block.tool_use {
            let arguments = call.input.map_or("{}", RawValue::get);
            match &*call.name {
                PLACEHOLDER => {}
                ANSWER if std::mem::replace(&mut answered, true) => {}
                ANSWER => {
                    counter.text(arguments);
                    choice.text.get_or_insert_default().push_str(arguments);
                }
                name => {
                    counter.call();
                    choice.calls.push(Call { id: seal(&call.tool_use_id, signature.take()), name: name.to_owned(), arguments: arguments.to_owned() });
                }
            }
        }
    }
    choice.finish = Some(finish(response.stop_reason.as_deref().unwrap_or_default(), !choice.calls.is_empty())?);
    Ok(Answer { id: String::new(), model: target.model.to_owned(), choices: vec![choice], usage: response.usage.map(Usage::from) })
}

/// What a content block of a stream is, as far as is known.
enum Open {
    /// A call, and whether any of its input has come.
    Call(u32, bool),
    /// The answer as a tool's input.
    Answer,
    Ignored,
    Reasoning {
        text: String,
        signature: String,
        data: String,
    },
}

/// Reads a stream of events. Text blocks begin without a start, and `contentBlockIndex` counts blocks of every sort.
pub(super) struct Events {
    name: String,
    model: Model,
    started: bool,
    stopped: bool,
    open: Vec<(u32, Open)>,
    calls: u32,
    details: u32,
    counter: Counter,
    answered: bool,
    signature: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BlockEvent<'a> {
    #[serde(default)]
    content_block_index: u32,
    #[serde(borrow)]
    start: Option<Start<'a>>,
    #[serde(borrow)]
    delta: Option<BlockDelta<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Start<'a> {
    #[serde(borrow)]
    tool_use: Option<ToolUse<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BlockDelta<'a> {
    #[serde(borrow)]
    text: Option<Str<'a>>,
    #[serde(borrow)]
    tool_use: Option<InputDelta<'a>>,
    #[serde(borrow)]
    reasoning_content: Option<ReasoningDelta<'a>>,
}

#[derive(Deserialize)]
struct InputDelta<'a> {
    #[serde(borrow)]
    input: Option<Str<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReasoningDelta<'a> {
    #[serde(borrow)]
    text: Option<Str<'a>>,
    #[serde(borrow)]
    signature: Option<Str<'a>>,
    #[serde(borrow)]
    redacted_content: Option<Str<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StopEvent<'a> {
    #[serde(borrow)]
    stop_reason: Option<Str<'a>>,
}

#[derive(Deserialize)]
struct Metadata {
    usage: Option<TokenUsage>,
}

impl Events {
    pub(super) fn new(target: &Target<'_>) -> Self {
        Events {
            name: target.model.to_owned(),
            model: Model::of(target),
            started: false,
            stopped: false,
            open: Vec::new(),
            calls: 0,
            details: 0,
            counter: Counter::default(),
            answered: false,
            signature: None,
        }
    }

    fn opened(&mut self, index: u32) -> Option<&mut Open> {
        self.open.iter_mut().find(|(i, _)| *i == index).map(|(_, open)| open)
    }

    fn start(&mut self, event: &BlockEvent<'_>, out: &mut dyn FnMut(Delta<'_>)) {
        let Some(call) = event.start.as_ref().and_then(|s| s.tool_use.as_ref()) else { return };
        let open = match &*call.name {
            PLACEHOLDER => Open::Ignored,
            ANSWER if std::mem::replace(&mut self.answered, true) => Open::Ignored,
            ANSWER => Open::Answer,
            name => {
                let index = self.calls;
                self.calls += 1;
                self.counter.call();
                let id = seal(&call.tool_use_id, self.signature.take());
                out(Delta::Call { choice: 0, index, id: &id, name });
                Open::Call(index, false)
            }
        };
        self.open.push((event.content_block_index, open));
    }

    fn delta(&mut self, event: &BlockEvent<'_>, out: &mut dyn FnMut(Delta<'_>)) {
        let Some(delta) = &event.delta else { return };
        if let Some(text) = delta.text.as_deref().filter(|t| !t.is_empty()) {
            self.counter.text(text);
            out(Delta::Text { choice: 0, text });
        }
        if let Some(json) = delta.tool_use.as_ref().and_then(|t| t.input.as_deref()).filter(|j| !j.is_empty()) {
            match self.opened(event.content_block_index) {
                Some(Open::Call(index, came)) => {
                    *came = true;
                    out(Delta::Arguments { choice: 0, index: *index, json });
                }
                Some(Open::Answer) => {
                    self.counter.text(json);
                    out(Delta::Text { choice: 0, text: json });
                }
                _ => {}
            }
        }
        if let Some(piece) = &delta.reasoning_content {
            let index = event.content_block_index;
            if self.opened(index).is_none() {
                self.open.push((index, Open::Reasoning { text: String::new(), signature: String::new(), data: String::new() }));
            }
            if let Some(Open::Reasoning { text, signature, data }) = self.opened(index) {
                if let Some(piece) = piece.text.as_deref().filter(|t| !t.is_empty()) {
                    text.push_str(piece);
                    out(Delta::Reasoning { choice: 0, text: piece });
                }
                signature.push_str(piece.signature.as_deref().unwrap_or_default());
                data.push_str(piece.redacted_content.as_deref().unwrap_or_default());
            }
        }
    }

    fn stop(&mut self, index: u32, out: &mut dyn FnMut(Delta<'_>)) {
        let Some(at) = self.open.iter().position(|(i, _)| *i == index) else { return };
        match self.open.swap_remove(at).1 {
            Open::Reasoning { text, signature, data } => {
                if let Some(detail) = detail(&self.model, self.details, &mut self.counter, &text, &signature, &data) {
                    self.details += 1;
                    self.signature = sealable(&detail);
                    out(Delta::Detail { choice: 0, detail: &detail });
                }
            }
            Open::Call(index, false) => out(Delta::Arguments { choice: 0, index, json: "{}" }),
            Open::Call(..) | Open::Answer | Open::Ignored => {}
        }
    }
}

impl Transcoder for Events {
    fn event(&mut self, event: &Event<'_>, out: &mut dyn FnMut(Delta<'_>)) -> Result<(), Error> {
        if event.name == "exception" {
            return Err(error::read_exception(&event.data).into());
        }
        if !self.started {
            self.started = true;
            out(Delta::Start { id: "", model: &self.name });
        }
        let data = &*event.data;
        match event.name {
            "contentBlockStart" => self.start(&serde_json::from_str(data).map_err(Error::answer)?, out),
            "contentBlockDelta" => self.delta(&serde_json::from_str(data).map_err(Error::answer)?, out),
            "contentBlockStop" => self.stop(serde_json::from_str::<BlockEvent<'_>>(data).map_err(Error::answer)?.content_block_index, out),
            "messageStop" => {
                let stop: StopEvent<'_> = serde_json::from_str(data).map_err(Error::answer)?;
                let reason = finish(stop.stop_reason.as_deref().unwrap_or_default(), self.calls > 0)?;
                self.stopped = true;
                out(Delta::Finish { choice: 0, reason });
            }
            "metadata" => {
                if let Some(usage) = serde_json::from_str::<Metadata>(data).map_err(Error::answer)?.usage {
                    out(Delta::Usage(usage.into()));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, _: &mut dyn FnMut(Delta<'_>)) -> Result<(), Error> {
        if self.stopped { Ok(()) } else { Err(broken_off()) }
    }
}
