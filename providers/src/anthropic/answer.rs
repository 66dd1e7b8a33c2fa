//! Reads a whole answer of the Messages API, and what whole answers and streams have in common.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::tools::is_answer;
use super::usage::MessagesUsage;
use crate::answer::{Answer, Call, Choice, Finish, OwnedDetail};
use crate::place::Counter;
use crate::usage::Usage;
use crate::wire::Str;
use crate::{Error, carry};

/// A content block of an answer.
#[derive(Deserialize)]
pub(super) struct Block<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Str<'a>,
    #[serde(borrow)]
    pub(super) text: Option<Str<'a>>,
    #[serde(borrow)]
    pub(super) thinking: Option<Str<'a>>,
    #[serde(borrow)]
    pub(super) signature: Option<Str<'a>>,
    #[serde(borrow)]
    pub(super) data: Option<Str<'a>>,
    #[serde(borrow)]
    pub(super) id: Option<Str<'a>>,
    #[serde(borrow)]
    pub(super) name: Option<Str<'a>>,
    #[serde(borrow)]
    pub(super) input: Option<&'a RawValue>,
    #[serde(borrow)]
    citations: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    id: Option<Str<'a>>,
    #[serde(borrow)]
    model: Option<Str<'a>>,
    #[serde(borrow)]
    content: Option<Vec<Block<'a>>>,
    #[serde(borrow)]
    stop_reason: Option<Str<'a>>,
    #[serde(borrow)]
    stop_details: Option<StopDetails<'a>>,
    usage: Option<MessagesUsage>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// Why a request was refused.
#[derive(Deserialize)]
pub(super) struct StopDetails<'a> {
    #[serde(borrow)]
    pub(super) explanation: Option<Str<'a>>,
}

/// Reads a whole answer.
///
/// # Errors
/// When it is not one, or reports an error.
pub fn read(body: &[u8]) -> Result<Answer, Error> {
    let message: Body<'_> = serde_json::from_slice(body).map_err(Error::answer)?;
    if message.error.is_some_and(|e| e.get() != "null") {
        return Err(super::read_error(200, body).into());
    }
    let Some(blocks) = message.content else { return Err(Error::answer("it has no `content`")) };
    let mut choice = Choice::default();
    let mut seal = Seal::default();
    for block in blocks {
        read_block(block, &mut choice, &mut seal);
    }
    if let Some(reason) = message.stop_reason {
        choice.finish = Some(finish(&reason, !choice.calls.is_empty()));
        choice.refusal = message.stop_details.and_then(|d| d.explanation).filter(|_| choice.finish == Some(Finish::ContentFilter)).map(|e| e.0.into_owned());
    }
    let usage = message.usage.map(|u| {
        let mut usage = Usage::default();
        u.apply(&mut usage);
        usage
    });
    let owned = |text: Option<Str<'_>>| text.map(|t| t.0.into_owned()).unwrap_or_default();
    Ok(Answer { id: owned(message.id), model: owned(message.model), choices: vec![choice], usage })
}

fn read_block(block: Block<'_>, choice: &mut Choice, seal: &mut Seal) {
    match &*block.kind {
        "text" => {
            let text = choice.text.get_or_insert_default();
            let start = text.chars().count();
            text.push_str(block.text.as_deref().unwrap_or_default());
            let end = text.chars().count();
            seal.text(block.text.as_deref().unwrap_or_default());
            choice.annotations.extend(block.citations.iter().flatten().filter_map(|c| annotation(c.get(), start, end)));
        }
        "thinking" => {
            let thinking = block.thinking.as_deref().unwrap_or_default();
            if !thinking.is_empty() {
                choice.reasoning.get_or_insert_default().push_str(thinking);
            }
            choice.details.extend(seal.thinking(thinking.to_owned(), block.signature.as_deref().unwrap_or_default()));
        }
        "redacted_thinking" => choice.details.push(seal.redacted(block.data.as_deref().unwrap_or_default())),
        "tool_use" => {
            let arguments = block.input.map_or("{}", RawValue::get);
            let name = block.name.unwrap_or_default();
            if is_answer(&name) {
                choice.text.get_or_insert_default().push_str(arguments);
                seal.text(arguments);
                return;
            }
            let id = seal.id(block.id.as_deref().unwrap_or_default(), choice.calls.len());
            choice.calls.push(Call { id, name: name.0.into_owned(), arguments: arguments.to_owned() });
        }
        // What Anthropic's own tools did on its side; their outcome is in the text.
        _ => {}
    }
}

/// The hub's word for a `stop_reason`.
pub(super) fn finish(reason: &str, has_calls: bool) -> Finish {
    match reason {
        "max_tokens" | "model_context_window_exceeded" => Finish::Length,
        "refusal" => Finish::ContentFilter,
        // The call may have been the one whose input is the answer.
        "tool_use" if has_calls => Finish::ToolCalls,
        _ => Finish::Stop,
    }
}

/// Thinking blocks as they pass: numbered and placed for the client to hand back, and gathered to travel in the id of the call
/// behind them.
#[derive(Debug, Default)]
pub(super) struct Seal {
    blocks: u32,
    sealed: String,
    counter: Counter,
}

impl Seal {
    /// Text of the answer, which later blocks stand behind.
    pub(super) fn text(&mut self, text: &str) {
        self.counter.text(text);
    }

    /// Characters of text so far.
    pub(super) fn characters(&self) -> usize {
        self.counter.characters()
    }

    /// A block of thinking; one that is not signed cannot be handed back.
    pub(super) fn thinking(&mut self, text: String, signature: &str) -> Option<OwnedDetail> {
        if signature.is_empty() {
            return None;
        }
        let detail = self.block(false, signature);
        Some(OwnedDetail { kind: "reasoning.text", text: Some(text), signature: Some(signature.to_owned()), ..detail })
    }

    pub(super) fn redacted(&mut self, data: &str) -> OwnedDetail {
        let detail = self.block(true, data);
        OwnedDetail { kind: "reasoning.encrypted", data: Some(data.to_owned()), ..detail }
    }

    fn block(&mut self, redacted: bool, data: &str) -> OwnedDetail {
        let id = self.counter.place();
        carry::seal_block(&mut self.sealed, id.as_deref(), redacted, data);
        self.blocks += 1;
        OwnedDetail { format: carry::ANTHROPIC, id, index: self.blocks - 1, ..OwnedDetail::default() }
    }

    /// A call's id for the client, with what was thought since the call before it.
    pub(super) fn id(&mut self, id: &str, position: usize) -> String {
        self.counter.call();
        let id = if id.is_empty() { format!("toolu_{position}") } else { id.to_owned() };
        let sealed = std::mem::take(&mut self.sealed);
        if sealed.is_empty() { id } else { carry::seal(&id, carry::ANTHROPIC, &sealed) }
    }
}

/// A citation as one of OpenAI's annotations on the text from `start` to `end`, in characters. The API cites pages of
/// the web, as OpenAI does, and places in documents, for which OpenAI has no word in chat.
pub(super) fn annotation(citation: &str, start: usize, end: usize) -> Option<Box<RawValue>> {
    #[derive(Deserialize)]
    struct Citation<'a> {
        #[serde(borrow)]
        url: Option<Str<'a>>,
        #[serde(borrow)]
        source: Option<Str<'a>>,
        #[serde(borrow)]
        title: Option<Str<'a>>,
        #[serde(borrow)]
        document_title: Option<Str<'a>>,
        document_index: Option<u64>,
        #[serde(borrow)]
        cited_text: Option<Str<'a>>,
    }
    let c: Citation<'_> = serde_json::from_str(citation).ok()?;
    let value = match c.url.as_deref().or(c.source.as_deref()) {
        Some(url) => {
            serde_json::json!({ "type": "url_citation", "url_citation": { "url": url, "title": c.title.as_deref().unwrap_or_default(), "start_index": start, "end_index": end } })
        }
        None => serde_json::json!({ "type": "file_citation", "file_citation": {
            "filename": c.document_title.as_deref(), "index": c.document_index, "quote": c.cited_text.as_deref(), "start_index": start, "end_index": end } }),
    };
    serde_json::value::to_raw_value(&value).ok()
}
