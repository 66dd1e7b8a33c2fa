//! The conversation: from OpenAI's flat list of messages to Anthropic's alternating turns, in which the results of tools
//! stand first in the user's turn right behind the calls.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::Serialize;
use serde_json::value::RawValue;

use super::Host;
use super::content::{Block, blocks, every_block, extra};
use super::tools;
use crate::door::once;
use crate::json::scan;
use crate::place::{Thought, weave};
use crate::wire::{Arguments, ChatRequest, Message, ToolCall};
use crate::{Error, carry};

/// What stands in for the result of a call that the client left unanswered.
const NO_RESULT: &str = "(no result was given for this call)";

/// What the user says where somebody has to.
const GO_ON: &str = "Go on.";

/// One turn.
#[derive(Debug, Serialize)]
pub(super) struct Turn<'a> {
    pub(super) role: &'static str,
    pub(super) content: Vec<Block<'a>>,
}

/// A conversation in Anthropic's order.
#[derive(Debug, Default)]
pub(super) struct History<'a> {
    pub(super) system: Vec<Block<'a>>,
    pub(super) turns: Vec<Turn<'a>>,
    pub(super) warnings: Vec<String>,
    /// The last assistant turn's calls.
    open: Vec<OpenCall>,
    /// Every id that was sent: some hosts begin anew with `call_0` in every answer, and Anthropic wants ids only once.
    ids: HashSet<String>,
    /// How many results stand first in the last turn.
    results: usize,
    /// Images of the assistant's own: only the user can show any.
    shown: Vec<Block<'a>>,
}

/// A call that waits for its answer.
#[derive(Debug)]
struct OpenCall {
    /// Its id as the client knows it.
    known: String,
    /// Its id as it is sent.
    sent: String,
    answered: bool,
}

/// Reads the messages of a request.
pub(super) fn read<'a>(request: &'a ChatRequest<'_>, host: &Host) -> Result<History<'a>, Error> {
    let mut history = History::default();
    for (index, message) in request.messages.iter().flatten().enumerate() {
        let at = format!("messages[{index}]");
        match message.role.as_deref() {
            Some("system" | "developer") => history.instruct(message, &at, host)?,
            Some("user") => history.user(message, &at, host)?,
            Some("assistant") => history.assistant(message, index, &at, host)?,
            Some("tool" | "function") => history.result(message, &at, host)?,
            Some(other) => return Err(Error::invalid(format!("{at}.role"), format!("`{other}` is not a role; it must be system, developer, user, assistant or tool"))),
            None => return Err(Error::invalid(format!("{at}.role"), "every message needs a `role`")),
        }
    }
    history.close_calls();
    history.finish()
}

impl<'a> History<'a> {
    /// All instructions go to the head, their borders kept: most models have no other place for them.
    fn instruct(&mut self, message: &'a Message<'_>, at: &str, host: &Host) -> Result<(), Error> {
        if !self.turns.is_empty() {
            self.warnings.push(format!("moved the {} message at `{at}` to the head: Claude's instructions stand there", message.role.as_deref().unwrap_or("system")));
        }
        let start = self.system.len();
        if let Some(content) = &message.content {
            blocks(content, at, host, &mut self.system)?;
        }
        if self.system[start..].iter().any(|b| !matches!(b, Block::Text { .. })) {
            return Err(Error::unsupported(host.kind, at, "instructions are text; send images and files in a user message"));
        }
        mark(&mut self.system[start..], message);
        Ok(())
    }

    fn user(&mut self, message: &'a Message<'_>, at: &str, host: &Host) -> Result<(), Error> {
        let mut content = Vec::new();
        if let Some(c) = &message.content {
            blocks(c, at, host, &mut content)?;
        }
        if message.name.is_some() {
            self.warnings.push(format!("dropped `{at}.name`: Claude's turns have no names"));
        }
        mark(&mut content, message);
        let shown = std::mem::take(&mut self.shown);
        self.append("user", shown);
        self.append("user", content);
        Ok(())
    }

    fn assistant(&mut self, message: &'a Message<'_>, index: usize, at: &str, host: &Host) -> Result<(), Error> {
        self.close_calls();
        let mut said = message.content.as_ref().map(|c| every_block(c, at, host)).transpose()?.unwrap_or_default();
        self.shown.extend(said.extract_if(.., |block| matches!(block, Block::Image { .. } | Block::Document { .. })));
        if message.extra.iter().any(|(key, _)| &**key == "images") {
            once(&mut self.warnings, "dropped `images` of the assistant's messages: only the user can show images to Claude");
        }
        if let Some(refusal) = message.refusal.as_deref().filter(|r| !r.trim().is_empty()) {
            said.push(Block::text(refusal));
        }
        if message.audio.is_some() {
            self.warnings.push(format!("dropped `{at}.audio`: Claude does not hear audio"));
        }
        let (mut open, mut calls) = (Vec::new(), Vec::new());
        for (position, call) in message.tool_calls.iter().flatten().enumerate() {
            let path = format!("{at}.tool_calls[{position}]");
            let id = call.id.as_deref().map(wire_id).filter(|id| !id.is_empty()).ok_or_else(|| Error::invalid(format!("{path}.id"), "every tool call needs an `id`"))?;
            let sent = self.unique(&id);
            calls.push(self.call(call, sent.clone(), &path)?);
            open.push(OpenCall { known: id, sent, answered: false });
        }
        if let Some(call) = &message.function_call {
            let name = call.name.as_deref().ok_or_else(|| Error::invalid(format!("{at}.function_call.name"), "a function call needs a `name`"))?;
            let name = tools::name(name, &format!("{at}.function_call.name"))?;
            let sent = self.unique(&format!("call_{index}"));
            calls.push(Block::ToolUse { id: sent.clone(), name, input: self.input(call.arguments.as_ref(), at), cache_control: None });
            open.push(OpenCall { known: String::new(), sent, answered: false });
        }
        let mut content = weave(thinking(message), said, calls);
        content.retain(|block| !block.is_blank());
        // A turn that ends with thinking is refused, even if Claude itself was cut there.
        content.truncate(content.iter().rposition(|block| !block.is_thinking()).map_or(0, |last| last + 1));
        mark(&mut content, message);
        self.append("assistant", content);
        self.open = open;
        Ok(())
    }

    fn unique(&mut self, id: &str) -> String {
        let mut sent = id.to_owned();
        let mut number = 1;
        while !self.ids.insert(sent.clone()) {
            number += 1;
            sent = format!("{id}_{number}");
        }
        sent
    }

    fn call(&mut self, call: &'a ToolCall<'_>, id: String, at: &str) -> Result<Block<'a>, Error> {
        let cache_control = extra(&call.extra, "cache_control");
        if let Some(custom) = &call.custom {
            let name = custom.name.as_deref().ok_or_else(|| Error::invalid(format!("{at}.custom.name"), "a call needs a `name`"))?;
            let name = tools::name(name, &format!("{at}.custom.name"))?;
            return Ok(Block::ToolUse { id, name, input: wrap("input", custom.input.as_deref().unwrap_or_default()), cache_control });
        }
        let function = call.function.as_ref().ok_or_else(|| Error::invalid(format!("{at}.function"), "a tool call needs a `function`"))?;
        let name = function.name.as_deref().ok_or_else(|| Error::invalid(format!("{at}.function.name"), "a call needs a `name`"))?;
        let name = tools::name(name, &format!("{at}.function.name"))?;
        Ok(Block::ToolUse { id, name, input: self.input(function.arguments.as_ref(), at), cache_control })
    }

    /// A call's arguments as the object they must be. Models do write broken JSON, and clients hand it back with the
    /// error that it caused: it is shown to the model as what it wrote.
    fn input(&mut self, arguments: Option<&'a Arguments<'_>>, at: &str) -> Cow<'a, RawValue> {
        let json = arguments.map_or("{}", Arguments::json).trim();
        match serde_json::from_str::<&RawValue>(json) {
            Ok(raw) if scan(json.as_bytes()).is_ok() => Cow::Borrowed(raw),
            _ => {
                self.warnings.push(format!("the arguments at `{at}` are not a JSON object; sent as the field `arguments` of one"));
                wrap("arguments", json)
            }
        }
    }

    fn result(&mut self, message: &'a Message<'_>, at: &str, host: &Host) -> Result<(), Error> {
        let mut content = Vec::new();
        if let Some(c) = &message.content {
            blocks(c, at, host, &mut content)?;
        }
        let waiting = |id: &str, again: bool| self.open.iter().position(|c| c.known == id && (again || !c.answered));
        let position = match message.tool_call_id.as_deref().map(wire_id) {
            Some(id) => waiting(&id, false)
                .or_else(|| waiting(&id, true))
                .ok_or_else(|| Error::invalid(format!("{at}.tool_call_id"), format!("`{id}` answers no call of the assistant's message before it; keep calls and their answers together")))?,
            // The legacy form has one call at a time and no ids.
            None if message.role.as_deref() == Some("function") && !self.open.is_empty() => self.open.len() - 1,
            None => return Err(Error::invalid(format!("{at}.tool_call_id"), "a tool message needs the `tool_call_id` that it answers")),
        };
        let id = self.open[position].sent.clone();
        let block = Block::ToolResult { tool_use_id: id.clone(), content, is_error: message.is_error == Some(true), cache_control: message.cache_control };
        if std::mem::replace(&mut self.open[position].answered, true) {
            self.warnings.push(format!("`{at}` answers a call for the second time; the last answer is sent"));
            let turn = self.user_turn();
            if let Some(first) = turn.content.iter_mut().find(|b| matches!(b, Block::ToolResult { tool_use_id, .. } if *tool_use_id == id)) {
                *first = block;
            }
            return Ok(());
        }
        let at = self.results;
        self.user_turn().content.insert(at, block);
        self.results += 1;
        Ok(())
    }

    /// Before the conversation goes on every call has its answer, in the calls' order.
    fn close_calls(&mut self) {
        let open = std::mem::take(&mut self.open);
        if open.is_empty() {
            self.results = 0;
            return;
        }
        for OpenCall { sent: id, .. } in open.iter().filter(|c| !c.answered) {
            self.warnings.push(format!("the call `{id}` has no answer; said so to the model"));
            let at = self.results;
            self.user_turn().content.insert(at, Block::ToolResult { tool_use_id: id.clone(), content: vec![Block::text(NO_RESULT)], is_error: true, cache_control: None });
            self.results += 1;
        }
        let results = std::mem::take(&mut self.results);
        let rank = |block: &Block<'_>| match block {
            Block::ToolResult { tool_use_id, .. } => open.iter().position(|c| c.sent == *tool_use_id),
            _ => None,
        };
        self.user_turn().content[..results].sort_by_key(|b| rank(b));
    }

    fn user_turn(&mut self) -> &mut Turn<'a> {
        self.turn("user")
    }

    fn turn(&mut self, role: &'static str) -> &mut Turn<'a> {
        if self.turns.last().is_none_or(|t| t.role != role) {
            self.turns.push(Turn { role, content: Vec::new() });
        }
        let last = self.turns.len() - 1;
        &mut self.turns[last]
    }

    /// Turns of the same role become one; nothing makes no turn.
    fn append(&mut self, role: &'static str, mut content: Vec<Block<'a>>) {
        if !content.is_empty() {
            self.turn(role).content.append(&mut content);
        }
    }

    fn finish(mut self) -> Result<Self, Error> {
        if self.turns.is_empty() {
            // Instructions alone are a prompt for OpenAI; here somebody has to say it.
            let content = std::mem::take(&mut self.system);
            if content.is_empty() {
                return Err(Error::invalid("messages", "`messages` must have at least one message with content"));
            }
            self.turns.push(Turn { role: "user", content });
        }
        if self.turns[0].role == "assistant" {
            self.turns.insert(0, Turn { role: "user", content: vec![Block::text("(The assistant begins.)")] });
        }
        // An answer that is to be continued must not end in white space.
        if let Some(Block::Text { text, .. }) = self.turns.last_mut().filter(|t| t.role == "assistant").and_then(|t| t.content.last_mut()) {
            let end = text.trim_end().len();
            match text {
                Cow::Borrowed(borrowed) => *borrowed = &borrowed[..end],
                Cow::Owned(owned) => owned.truncate(end),
            }
        }
        Ok(self)
    }

    /// Has the user speak last, where the assistant's own words cannot be continued.
    pub(super) fn end_with_the_user(&mut self, warnings: &mut Vec<String>) {
        if self.turns.last().is_some_and(|t| t.role == "assistant") {
            warnings.push(format!("added the user's message \"{GO_ON}\" behind the last: Claude does not continue its own words here"));
            self.append("user", vec![Block::text(GO_ON)]);
        }
    }

    /// Whether the model is in the middle of a round of tool calls that it began without thinking, or whose thinking is
    /// lost: with a budget to think it would refuse to go on.
    pub(super) fn lost_its_thinking(&self) -> bool {
        let answers = |turn: &Turn<'_>| turn.role == "user" && turn.content.iter().any(|b| matches!(b, Block::ToolResult { .. }));
        if !self.turns.last().is_some_and(answers) {
            return false;
        }
        let began = self.turns.iter().rposition(|t| t.role == "user" && !answers(t)).map_or(0, |at| at + 1);
        let thought = |turn: &Turn<'_>| turn.content.iter().take_while(|b| !matches!(b, Block::ToolUse { .. })).any(Block::is_thinking);
        self.turns[began..].iter().find(|t| t.role == "assistant").is_some_and(|t| !thought(t))
    }
}

/// A mark on a message stands for one on its last block.
fn mark<'a>(content: &mut [Block<'a>], message: &Message<'a>) {
    if let (Some(mark), Some(last)) = (message.cache_control, content.last_mut()) {
        last.mark(mark);
    }
}

/// The signed thinking of a message: as the client kept it, or else as it travelled in the ids of the calls.
fn thinking<'a>(message: &'a Message<'_>) -> Vec<Thought<'a, Block<'a>>> {
    let mut found = Vec::new();
    for detail in message.reasoning_details.iter().flatten().filter(|d| d.format.as_deref() == Some(carry::ANTHROPIC)) {
        let filled = |field: &'a Option<crate::wire::Str<'_>>| field.as_deref().filter(|f| !f.is_empty());
        let block = match (filled(&detail.signature), filled(&detail.data)) {
            (Some(signature), _) => Block::Thinking { thinking: detail.text.as_deref().unwrap_or_default(), signature: signature.into() },
            (None, Some(data)) => Block::RedactedThinking { data: data.into() },
            (None, None) => continue,
        };
        found.push(Thought { block, index: detail.index, id: detail.id.as_deref().map(Cow::Borrowed) });
    }
    if !found.is_empty() {
        return found;
    }
    let sealed = carry::sealed_blocks(message.tool_calls.as_deref().unwrap_or_default());
    sealed.into_iter().map(|sealed| Thought { index: Some(sealed.index), id: sealed.place.clone().map(Cow::Owned), block: unsealed(sealed, message) }).collect()
}

/// A block that travelled in a call's id. Its text is only for people to read: the model reads the signature.
fn unsealed<'a>(sealed: carry::SealedBlock, message: &'a Message<'_>) -> Block<'a> {
    if sealed.redacted {
        return Block::RedactedThinking { data: sealed.data.into() };
    }
    Block::Thinking { thinking: message.reasoning_content.as_deref().filter(|_| sealed.index == 0).unwrap_or_default(), signature: sealed.data.into() }
}

/// A call's id without its seal, in the letters that Anthropic takes.
fn wire_id(id: &str) -> String {
    carry::unseal(id).0.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' }).collect()
}

fn wrap<'a>(field: &str, text: &str) -> Cow<'a, RawValue> {
    let json = serde_json::json!({ field: text }).to_string();
    match RawValue::from_string(json) {
        Ok(raw) => Cow::Owned(raw),
        Err(_) => Cow::Borrowed(RawValue::NULL),
    }
}
