//! The conversation as Converse wants it: system texts apart, turns that alternate and begin with the user, no blank text,
//! every tool call answered in the turn behind it.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::Serialize;
use serde_json::value::RawValue;

use super::KIND;
use super::blocks::{Block, Document, Media, Reasoning, Source, ToolResult, cache_point, call_id, function_use, inline, one_of, tool_use, written};
use super::model::Model;
use crate::door::once;
use crate::place::{Thought, weave};
use crate::wire::{ChatRequest, Content, Message, Part, ToolCall};
use crate::{Error, carry};

/// Converse's bound on the documents of a message.
const DOCUMENTS: usize = 5;
/// What stands in for a user who has not spoken yet.
const OPENING: &str = "Go on.";

#[derive(Serialize)]
pub(super) struct Turn<'a> {
    role: &'static str,
    content: Vec<Block<'a>>,
}

/// The messages of a request, read.
pub(super) struct Conversation<'a> {
    pub(super) system: Vec<Block<'a>>,
    pub(super) turns: Vec<Turn<'a>>,
    /// Whether there are tool calls in it.
    pub(super) tools: bool,
    /// Whether the assistant's last turn has tool calls and lacks the reasoning that led to them.
    pub(super) unsigned: bool,
    /// Names given to documents so far.
    documents: Vec<String>,
    /// The id of the legacy function call that awaits its result.
    legacy: Option<String>,
    /// The calls of the assistant's last message.
    open: Vec<Call<'a>>,
    /// Every call's id: Claude wants each only once.
    used: HashSet<String>,
    /// Images of the assistant's own: only the user can show any.
    shown: Vec<Block<'a>>,
    caches: bool,
}

/// A call that awaits its result.
struct Call<'a> {
    /// Its id as the client knows it.
    known: Cow<'a, str>,
    /// Its id as it is sent.
    sent: Cow<'a, str>,
    answered: bool,
}

/// Reads the messages.
pub(super) fn read<'a>(request: &'a ChatRequest<'a>, model: &Model, warnings: &mut Vec<String>) -> Result<Conversation<'a>, Error> {
    let mut talk = Conversation {
        system: Vec::new(),
        turns: Vec::new(),
        tools: false,
        unsigned: false,
        documents: Vec::new(),
        legacy: None,
        open: Vec::new(),
        used: HashSet::new(),
        shown: Vec::new(),
        caches: model.caches(),
    };
    let mut named = false;
    for (i, message) in request.messages.iter().flatten().enumerate() {
        let role = message.role.as_deref().unwrap_or_default();
        named |= message.name.is_some() && role != "function";
        match role {
            "system" | "developer" => {
                if !talk.turns.is_empty() {
                    once(warnings, "moved a system message to the head: Bedrock's instructions stand there");
                }
                talk.system(i, message)?;
            }
            "user" => talk.user(i, message, model, warnings)?,
            "assistant" => talk.assistant(i, message, model, warnings)?,
            "tool" | "function" => talk.result(i, message, model)?,
            _ => return Err(Error::invalid(format!("messages[{i}].role"), format!("`messages[{i}].role` must be system, developer, user, assistant or tool"))),
        }
    }
    if named {
        warnings.push("dropped `name` of messages: Converse has no place for it".into());
    }
    talk.close(warnings)?;
    // A mark on the whole request stands for one on its last block.
    let mark = request.extra.iter().find(|(key, _)| &**key == "cache_control").and_then(|(_, raw)| talk.mark(Some(raw)));
    if let Some(last) = talk.turns.last_mut().filter(|t| !matches!(t.content.last(), Some(Block::CachePoint(_)))) {
        last.content.extend(mark);
    }
    Ok(talk)
}

impl<'a> Conversation<'a> {
    /// The turn of this role that is open, or a new one.
    fn turn(&mut self, role: &'static str) -> &mut Vec<Block<'a>> {
        if self.turns.last().is_none_or(|t| t.role != role) {
            self.turns.push(Turn { role, content: Vec::new() });
        }
        let last = self.turns.len() - 1;
        &mut self.turns[last].content
    }

    fn mark(&self, mark: Option<&RawValue>) -> Option<Block<'a>> {
        mark.filter(|m| self.caches && m.get() != "null").map(|m| Block::CachePoint(cache_point(m)))
    }

    fn system(&mut self, i: usize, message: &'a Message<'a>) -> Result<(), Error> {
        let texts = texts(i, message)?;
        let before = self.system.len();
        for (text, mark) in texts {
            if !text.trim().is_empty() {
                self.system.push(Block::Text(Cow::Borrowed(text)));
                self.system.extend(self.mark(mark));
            }
        }
        if self.system.len() > before {
            self.system.extend(self.mark(message.cache_control));
        }
        Ok(())
    }

    fn user(&mut self, i: usize, message: &'a Message<'a>, model: &Model, warnings: &mut Vec<String>) -> Result<(), Error> {
        let mut blocks = Vec::new();
        match &message.content {
            None => {}
            Some(Content::Text(text)) => blocks.extend(written(text)),
            Some(Content::Parts(parts)) => {
                for (j, part) in parts.iter().enumerate() {
                    self.part(&format!("messages[{i}].content[{j}]"), part, model, &mut blocks)?;
                }
            }
        }
        let documents = blocks.iter().filter(|b| matches!(b, Block::Document(_))).count();
        if documents > DOCUMENTS {
            return Err(Error::unsupported(KIND, format!("messages[{i}].content"), format!("a message can have at most {DOCUMENTS} documents")));
        }
        if documents > 0 && !blocks.iter().any(|b| matches!(b, Block::Text(_))) {
            blocks.push(Block::Text("See the document.".into()));
            warnings.push(format!("added a text to `messages[{i}]`: Converse takes no document without one"));
        }
        let mut shown = std::mem::take(&mut self.shown);
        if !blocks.is_empty() || !shown.is_empty() {
            blocks.extend(self.mark(message.cache_control));
            let turn = self.turn("user");
            turn.append(&mut shown);
            turn.append(&mut blocks);
        }
        Ok(())
    }

    /// One part of the user's message or of a tool's result.
    fn part(&mut self, param: &str, part: &'a Part<'a>, model: &Model, blocks: &mut Vec<Block<'a>>) -> Result<(), Error> {
        let block = match part.kind.as_deref().unwrap_or("text") {
            "text" => part.text.as_deref().and_then(written),
            "image_url" => {
                let url = part.image_url.as_ref().and_then(|u| u.url.as_deref()).unwrap_or_default();
                let (media, bytes) = inline(&format!("{param}.image_url"), url)?;
                let format = match media {
                    "image/png" => "png",
                    "image/jpeg" | "image/jpg" => "jpeg",
                    "image/gif" => "gif",
                    "image/webp" => "webp",
                    _ => return Err(Error::unsupported(KIND, format!("{param}.image_url"), "an image must be PNG, JPEG, GIF or WebP")),
                };
                Some(Block::Image(Media { format, source: Source { bytes } }))
            }
            "video_url" if !model.claude() => {
                let url = part.video_url.as_ref().and_then(|u| u.url.as_deref()).unwrap_or_default();
                let (media, bytes) = inline(&format!("{param}.video_url"), url)?;
                let format = one_of(media.strip_prefix("video/"), &["mkv", "mov", "mp4", "webm", "flv", "mpeg", "mpg", "wmv"]);
                let format = format.or(match media {
                    "video/quicktime" => Some("mov"),
                    "video/x-matroska" => Some("mkv"),
                    "video/3gpp" => Some("three_gp"),
                    _ => None,
                });
                let format = format.ok_or_else(|| Error::unsupported(KIND, format!("{param}.video_url"), format!("it does not take `{media}`")))?;
                Some(Block::Video(Media { format, source: Source { bytes } }))
            }
            "input_audio" if !model.claude() => {
                let audio = part.input_audio.as_ref();
                let format = one_of(audio.and_then(|a| a.format.as_deref()), &["mp3", "wav", "opus", "aac", "flac", "ogg", "m4a", "pcm", "webm", "mp4"]);
                let format = format.ok_or_else(|| Error::invalid(format!("{param}.input_audio.format"), "`input_audio.format` must name a format that Bedrock takes, such as wav or mp3"))?;
                Some(Block::Audio(Media { format, source: Source { bytes: audio.and_then(|a| a.data.as_deref()).unwrap_or_default() } }))
            }
            "file" => Some(self.document(param, part)?),
            kind => return Err(Error::unsupported(KIND, param, format!("this model takes no part of type `{kind}`"))),
        };
        if let Some(block) = block {
            blocks.push(block);
            blocks.extend(self.mark(part.cache_control));
        }
        Ok(())
    }

    fn document(&mut self, param: &str, part: &'a Part<'a>) -> Result<Block<'a>, Error> {
        let file = part.file.as_ref();
        let param = format!("{param}.file");
        let Some(url) = file.and_then(|f| f.file_data.as_deref()) else {
            return Err(Error::unsupported(KIND, param, "send the file itself in `file_data`: Bedrock knows no uploaded files"));
        };
        let (media, bytes) = inline(&param, url)?;
        let filename = file.and_then(|f| f.filename.as_deref()).unwrap_or_default();
        let (stem, extension) = filename.rsplit_once('.').unwrap_or((filename, ""));
        let format = match media {
            "application/pdf" => Some("pdf"),
            "text/csv" => Some("csv"),
            "application/msword" => Some("doc"),
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document" => Some("docx"),
            "application/vnd.ms-excel" => Some("xls"),
            "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet" => Some("xlsx"),
            "text/html" => Some("html"),
            "text/markdown" => Some("md"),
            "text/plain" if extension != "md" => Some("txt"),
            _ => one_of(Some(&extension.to_ascii_lowercase()), &["pdf", "csv", "doc", "docx", "xls", "xlsx", "html", "txt", "md"]),
        };
        let format = format.ok_or_else(|| Error::unsupported(KIND, param, "a document must be PDF, CSV, Word, Excel, HTML, Markdown or plain text"))?;
        Ok(Block::Document(Document { format, name: self.name_document(stem), source: Source { bytes } }))
    }

    /// A name that Converse takes (letters, digits, single spaces, hyphens, brackets) and that no other document has.
    fn name_document(&mut self, stem: &str) -> String {
        let mut name = String::new();
        for c in stem.chars().take(150) {
            match c {
                'a'..='z' | 'A'..='Z' | '0'..='9' | '(' | ')' | '[' | ']' => name.push(c),
                c if c.is_whitespace() && name.ends_with(' ') => {}
                c if c.is_whitespace() => name.push(' '),
                _ => name.push('-'),
            }
        }
        let name = name.trim();
        let name = if name.is_empty() { "document" } else { name };
        let mut unique = name.to_owned();
        let mut n = 2;
        while self.documents.contains(&unique) {
            unique = format!("{name} ({n})");
            n += 1;
        }
        self.documents.push(unique.clone());
        unique
    }

    /// What the assistant said, blank texts too. Its images are kept for the user to show.
    fn said(&mut self, i: usize, message: &'a Message<'a>, model: &Model, blocks: &mut Vec<Block<'a>>, warnings: &mut Vec<String>) -> Result<(), Error> {
        match &message.content {
            None => {}
            Some(Content::Text(text)) => blocks.push(Block::Text(Cow::Borrowed(text))),
            Some(Content::Parts(parts)) => {
                for (j, part) in parts.iter().enumerate() {
                    match part.text.as_deref().or(part.refusal.as_deref()) {
                        Some(text) => {
                            blocks.push(Block::Text(Cow::Borrowed(text)));
                            blocks.extend(self.mark(part.cache_control.filter(|_| !text.trim().is_empty())));
                        }
                        None => {
                            let mut shown = std::mem::take(&mut self.shown);
                            self.part(&format!("messages[{i}].content[{j}]"), part, model, &mut shown)?;
                            self.shown = shown;
                        }
                    }
                }
            }
        }
        if message.extra.iter().any(|(key, _)| &**key == "images") {
            once(warnings, "dropped `images` of the assistant's messages: on Bedrock only the user can show images");
        }
        Ok(())
    }

    fn assistant(&mut self, i: usize, message: &'a Message<'a>, model: &Model, warnings: &mut Vec<String>) -> Result<(), Error> {
        let (mut said, mut called) = (Vec::new(), Vec::new());
        self.open.clear();
        let calls = message.tool_calls.as_deref().unwrap_or_default();
        self.said(i, message, model, &mut said, warnings)?;
        said.extend(message.refusal.as_deref().and_then(written));
        for (j, call) in calls.iter().enumerate() {
            let mut call = tool_use(&format!("messages[{i}].tool_calls[{j}]"), call)?;
            call.tool_use_id = self.open(call.tool_use_id);
            called.push(Block::ToolUse(call));
        }
        if let Some(call) = &message.function_call {
            let id = format!("function_{i}");
            called.push(Block::ToolUse(function_use(&format!("messages[{i}].function_call"), Cow::Owned(id.clone()), call)?));
            self.legacy = Some(id);
        }
        let mut blocks = weave(reasoning(message, calls, model), said, called);
        blocks.retain(|block| !block.is_blank());
        // A turn that ends with reasoning is refused, even if the model itself was cut there.
        blocks.truncate(blocks.iter().rposition(|b| !matches!(b, Block::ReasoningContent(_))).map_or(0, |last| last + 1));
        if !blocks.is_empty() {
            let calls = blocks.iter().any(|b| matches!(b, Block::ToolUse(_)));
            self.tools |= calls;
            self.unsigned = calls && !blocks.iter().take_while(|b| !matches!(b, Block::ToolUse(_))).any(|b| matches!(b, Block::ReasoningContent(_)));
            blocks.extend(self.mark(message.cache_control));
            self.turn("assistant").append(&mut blocks);
        }
        Ok(())
    }

    fn result(&mut self, i: usize, message: &'a Message<'a>, model: &Model) -> Result<(), Error> {
        let id = match (message.tool_call_id.as_deref(), self.legacy.take()) {
            (Some(id), _) => self.answer(call_id(carry::unseal(id).0)),
            (None, Some(id)) if message.role.as_deref() == Some("function") => Cow::Owned(id),
            (None, _) => return Err(Error::invalid(format!("messages[{i}].tool_call_id"), format!("`messages[{i}]` must say in `tool_call_id` which call it answers"))),
        };
        let mut content = Vec::new();
        match &message.content {
            None => {}
            Some(Content::Text(text)) => content.extend(written(text)),
            Some(Content::Parts(parts)) => {
                for (j, part) in parts.iter().enumerate() {
                    self.part(&format!("messages[{i}].content[{j}]"), part, model, &mut content)?;
                }
            }
        }
        // Converse has no cache marks inside a result: they go behind it.
        let mark = message.cache_control.or_else(|| last_mark(message)).and_then(|m| self.mark(Some(m)));
        content.retain(|b| !matches!(b, Block::CachePoint(_)));
        if content.is_empty() {
            content.push(Block::Text("(no output)".into()));
        }
        let status = if message.is_error == Some(true) && model.takes_status() { Some("error") } else { None };
        let turn = self.turn("user");
        // Of two results for one call the later counts.
        turn.retain(|b| !matches!(b, Block::ToolResult(r) if r.tool_use_id == id));
        turn.push(Block::ToolResult(ToolResult { tool_use_id: id, content, status }));
        turn.extend(mark);
        Ok(())
    }

    /// Has the user speak last, where the assistant's own words cannot be continued.
    pub(super) fn end_with_the_user(&mut self, warnings: &mut Vec<String>) {
        if self.turns.last().is_some_and(|t| t.role == "assistant") {
            warnings.push(format!("added the user's message \"{OPENING}\" behind the last: this model does not continue its own words here"));
            self.turns.push(Turn { role: "user", content: vec![Block::Text(OPENING.into())] });
        }
    }

    /// An id that no call had before: some hosts begin anew with `call_0` in every answer.
    fn open(&mut self, id: Cow<'a, str>) -> Cow<'a, str> {
        let mut sent = id.clone();
        let mut n = 2;
        while !self.used.insert(sent.to_string()) {
            sent = Cow::Owned(format!("{id:.58}_{n}"));
            n += 1;
        }
        self.open.push(Call { known: id, sent: sent.clone(), answered: false });
        sent
    }

    /// Under which id a result answers its call: of several with one id the first that waits, or else the last.
    fn answer(&mut self, id: Cow<'a, str>) -> Cow<'a, str> {
        let waiting = self.open.iter().position(|c| c.known == id && !c.answered).or_else(|| self.open.iter().rposition(|c| c.known == id));
        match waiting {
            Some(at) => {
                self.open[at].answered = true;
                self.open[at].sent.clone()
            }
            None => id,
        }
    }

    /// Puts right what is only seen at the end.
    fn close(&mut self, warnings: &mut Vec<String>) -> Result<(), Error> {
        for turn in self.turns.iter_mut().filter(|t| t.role == "user") {
            turn.content.sort_by_key(|b| !matches!(b, Block::ToolResult(_)));
        }
        if self.turns.first().is_none_or(|t| t.role != "user") {
            if self.turns.is_empty() && self.system.is_empty() {
                return Err(Error::invalid("messages", "`messages` must hold at least one message with content"));
            }
            self.turns.insert(0, Turn { role: "user", content: vec![Block::Text(OPENING.into())] });
            warnings.push(format!("put the user's message \"{OPENING}\" before the first: a conversation on Bedrock begins with the user"));
        }
        if let Some(turn) = self.turns.last_mut().filter(|t| t.role == "assistant")
            && let Some(Block::Text(text)) = turn.content.last_mut()
        {
            // Claude refuses a last word that ends in white space.
            *text = Cow::Owned(text.trim_end().to_owned());
        }
        for (i, turn) in self.turns.iter().enumerate() {
            let asked: Vec<&str> = turn.content.iter().filter_map(|b| if let Block::ToolUse(u) = b { Some(&*u.tool_use_id) } else { None }).collect();
            let results = |turn: &Turn<'a>| -> Vec<String> { turn.content.iter().filter_map(|b| if let Block::ToolResult(r) = b { Some(r.tool_use_id.to_string()) } else { None }).collect() };
            let answered = self.turns.get(i + 1).map(results).unwrap_or_default();
            if let Some(id) = asked.iter().find(|id| !answered.iter().any(|a| a == *id)) {
                return Err(Error::invalid("messages", format!("the tool call `{id}` has no answer: a message of role `tool` with this `tool_call_id` must follow it")));
            }
            let stray = answered.iter().find(|id| !asked.contains(&id.as_str())).cloned().or_else(|| if i == 0 { results(turn).into_iter().next() } else { None });
            if let Some(id) = stray {
                return Err(Error::invalid("messages", format!("a message of role `tool` answers the call `{id}`, which the assistant's turn before it does not hold")));
            }
        }
        Ok(())
    }
}

/// The texts of a message that may have nothing else, with their cache marks.
fn texts<'a>(i: usize, message: &'a Message<'a>) -> Result<Vec<(&'a str, Option<&'a RawValue>)>, Error> {
    match &message.content {
        None => Ok(Vec::new()),
        Some(Content::Text(text)) => Ok(vec![(text, None)]),
        Some(Content::Parts(parts)) => parts
            .iter()
            .enumerate()
            .map(|(j, part)| match part.text.as_deref().or(part.refusal.as_deref()) {
                Some(text) => Ok((text, part.cache_control)),
                None => Err(Error::invalid(format!("messages[{i}].content[{j}]"), format!("`messages[{i}].content[{j}]` must be a text: only users and tools can send anything else"))),
            })
            .collect(),
    }
}

fn last_mark<'a>(message: &'a Message<'a>) -> Option<&'a RawValue> {
    match &message.content {
        Some(Content::Parts(parts)) => parts.iter().rev().find_map(|p| p.cache_control),
        _ => None,
    }
}

/// The reasoning that this model gave out earlier. What is unsigned or another provider's is left behind.
fn reasoning<'a>(message: &'a Message<'a>, calls: &'a [ToolCall<'a>], model: &Model) -> Vec<Thought<'a, Block<'a>>> {
    let mut found = Vec::new();
    for detail in message.reasoning_details.iter().flatten().filter(|d| d.format.as_deref() == Some(model.format())) {
        let block = match (detail.data.as_deref(), detail.signature.as_deref()) {
            (Some(data), _) => Reasoning::RedactedContent(Cow::Borrowed(data)),
            (None, Some(signature)) => Reasoning::ReasoningText { text: detail.text.as_deref().unwrap_or_default(), signature: Cow::Borrowed(signature) },
            (None, None) => continue,
        };
        found.push(Thought { block: Block::ReasoningContent(block), index: detail.index, id: detail.id.as_deref().map(Cow::Borrowed) });
    }
    if message.reasoning_details.as_deref().is_none_or(<[_]>::is_empty) && model.format() == carry::ANTHROPIC {
        for sealed in carry::sealed_blocks(calls) {
            let data = Cow::Owned(sealed.data);
            let block = if sealed.redacted { Reasoning::RedactedContent(data) } else { Reasoning::ReasoningText { text: "", signature: data } };
            found.push(Thought { block: Block::ReasoningContent(block), index: Some(sealed.index), id: sealed.place.map(Cow::Owned) });
        }
    }
    found
}
