//! Reads a whole answer of the Messages API, and what whole answers and streams have in common.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::tools::is_answer;
use super::usage::MessagesUsage;
use crate::answer::{Answer, Call, Choice, Finish, OwnedDetail};
use crate::usage::Usage;
use crate::wire::Str;
use crate::{Error, carry};

/// What marks a redacted block among the blocks sealed into a call's id; no letter of base64.
pub(super) const REDACTED: char = '~';

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

/// Thinking blocks as they pass: numbered for the client to hand back, and gathered to travel in the first call's id.
#[derive(Debug, Default)]
pub(super) struct Seal {
    blocks: u32,
    sealed: String,
}

impl Seal {
    /// A block of thinking; one that is not signed cannot be handed back.
    pub(super) fn thinking(&mut self, text: String, signature: &str) -> Option<OwnedDetail> {
        if signature.is_empty() {
            return None;
        }
        self.gather(None, signature);
        Some(OwnedDetail { kind: "reasoning.text", format: carry::ANTHROPIC, text: Some(text), signature: Some(signature.to_owned()), index: self.next(), ..OwnedDetail::default() })
    }

    pub(super) fn redacted(&mut self, data: &str) -> OwnedDetail {
        self.gather(Some(REDACTED), data);
        OwnedDetail { kind: "reasoning.encrypted", format: carry::ANTHROPIC, data: Some(data.to_owned()), index: self.next(), ..OwnedDetail::default() }
    }

    fn gather(&mut self, mark: Option<char>, text: &str) {
        if !self.sealed.is_empty() {
            self.sealed.push('\n');
        }
        self.sealed.extend(mark);
        self.sealed.push_str(text);
    }

    fn next(&mut self) -> u32 {
        self.blocks += 1;
        self.blocks - 1
    }

    /// A call's id for the client; the first of an answer carries what was thought before it.
    pub(super) fn id(&self, id: &str, position: usize) -> String {
        let id = if id.is_empty() { format!("toolu_{position}") } else { id.to_owned() };
        if position == 0 && !self.sealed.is_empty() { carry::seal(&id, carry::ANTHROPIC, &self.sealed) } else { id }
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
