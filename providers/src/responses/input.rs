//! Input items as messages: what one model turn was cut into (reasoning, text, calls) becomes one assistant message again.

use super::request::{Item, Part, Parts, TARGET, TextFormat, Tool};
use super::seal;
use crate::Error;
use crate::carry::{self, Detail};
use crate::door::once;
use crate::place::is_place;
use crate::wire::{self, Content, CustomCall, FilePart, FunctionCall, ImageUrl, Message, Str, ToolCall};

pub(super) fn message<'a>(role: &'static str, content: Content<'a>) -> Message<'a> {
    Message { role: Some(role.into()), content: Some(content), ..Message::default() }
}

/// The messages so far, and the assistant's turn that is still being put together.
pub(super) struct Conversation<'a> {
    pub(super) messages: Vec<Message<'a>>,
    turn: Option<Message<'a>>,
    /// Whether the turn has thinking that came in the middle of it: then its messages are one text.
    one_text: bool,
    pub(super) tools: Vec<Tool<'a>>,
    /// The last word of the conversation on the effort and on the format, which stands above the request's own.
    pub(super) effort: Option<Str<'a>>,
    pub(super) format: Option<TextFormat<'a>>,
}

impl<'a> Conversation<'a> {
    /// No messages yet; `tools` are those of the request itself.
    pub(super) fn new(tools: Vec<Tool<'a>>) -> Self {
        Conversation { messages: Vec::new(), turn: None, one_text: false, tools, effort: None, format: None }
    }

    pub(super) fn item(&mut self, item: Item<'a>, at: usize, warnings: &mut Vec<String>) -> Result<(), Error> {
        let kind = match item.kind.as_deref() {
            Some(kind) => kind.to_owned(),
            None if item.role.is_some() => "message".to_owned(),
            None if item.id.is_some() => "item_reference".to_owned(),
            None => return Err(Error::invalid(format!("input[{at}].type"), format!("`input[{at}].type` is missing"))),
        };
        match kind.as_str() {
            "message" => self.message(item, at)?,
            "reasoning" => self.reasoning(item),
            "function_call" | "custom_tool_call" => self.call(item, at)?,
            "function_call_output" | "custom_tool_call_output" => self.result(item, at)?,
            "image_generation_call" => self.image(item),
            "additional_tools" => self.tools.extend(item.tools.into_iter().flatten()),
            "configuration_update" => self.configure(item),
            // Vercel's SDK refers to reasoning by default. What a provider must have back of it travels in the ids of the calls too.
            "item_reference" if item.id.as_deref().is_some_and(|id| id.starts_with("rs_")) => {
                once(warnings, "left out reasoning that is only referred to: items are not stored here; send it with its `encrypted_content`");
            }
            "item_reference" => {
                let id = item.id.as_deref().unwrap_or_default();
                return Err(Error::invalid(
                    format!("input[{at}]"),
                    format!(
                        "items are not stored here, so `{}` cannot be referred to; send the item itself. Vercel's AI SDK does so with `providerOptions: {{ openai: {{ store: false }} }}`, or use its `openai.chat(…)`",
                        id.escape_default()
                    ),
                ));
            }
            other => {
                let why = format!("items of type `{}` belong to OpenAI's built-in tools; leave them out, or choose a model that speaks the Responses API", other.escape_default());
                return Err(Error::unsupported(TARGET, format!("input[{at}]"), why));
            }
        }
        Ok(())
    }

    fn configure(&mut self, item: Item<'a>) {
        if let Some(effort) = item.reasoning.and_then(|r| r.effort) {
            self.effort = Some(effort);
        }
        if let Some(format) = item.text.and_then(|t| t.format) {
            self.format = Some(format);
        }
    }

    fn message(&mut self, item: Item<'a>, at: usize) -> Result<(), Error> {
        let Some(role) = item.role else { return Err(Error::invalid(format!("input[{at}].role"), format!("`input[{at}].role` is missing"))) };
        let Some(parts) = item.content else { return Err(Error::invalid(format!("input[{at}].content"), format!("`input[{at}].content` is missing"))) };
        let content = content(parts, &format!("input[{at}].content"))?;
        if &*role != "assistant" {
            if !matches!(&*role, "user" | "system" | "developer") {
                return Err(Error::invalid(format!("input[{at}].role"), format!("`{}` is not a role; use `user`, `assistant`, `system` or `developer`", role.escape_default())));
            }
            self.end_turn();
            self.messages.push(Message { role: Some(role), content: Some(content), ..Message::default() });
            return Ok(());
        }
        // Calls must be followed by their results, so text that comes behind a call joins the call's message.
        if !self.one_text && self.turn.as_ref().is_some_and(|t| t.content.is_some() && t.tool_calls.is_none()) {
            self.end_turn();
        }
        let turn = self.turn();
        turn.content = Some(match turn.content.take() {
            None => content,
            Some(before) => Content::Parts(parts_of(before).into_iter().chain(parts_of(content)).collect()),
        });
        Ok(())
    }

    fn reasoning(&mut self, item: Item<'a>) {
        let said: Vec<Str<'a>> = match item.content {
            Some(Parts::Text(text)) => vec![text],
            Some(Parts::List(parts)) => parts.into_iter().filter_map(|p| p.text).collect(),
            None => Vec::new(),
        };
        let said = if said.is_empty() { item.summary.into_iter().flatten().filter_map(|p| p.text).collect() } else { said };
        let content = item.encrypted_content.filter(|c| !c.is_empty());
        let opened = content.as_deref().and_then(seal::open);
        // Blocks that were sealed here and say that they stood in the middle of a turn, or have no text, belong to it.
        let placed = opened.iter().flatten().any(|d| d.id.as_deref().is_some_and(is_place));
        let joins = placed || opened.is_some() && said.is_empty();
        self.one_text |= placed;
        if !joins && self.turn.as_ref().is_some_and(|t| t.content.is_some() && t.tool_calls.is_none()) {
            self.end_turn();
        }
        let details = opened.unwrap_or_else(|| {
            let foreign = content.map(|data| Detail { kind: Some("reasoning.encrypted".into()), format: Some(carry::OPENAI.into()), data: Some(data), id: item.id, ..Detail::default() });
            foreign.into_iter().collect()
        });
        let turn = self.turn();
        for text in said.into_iter().filter(|t| !t.is_empty()) {
            turn.reasoning_content = Some(match turn.reasoning_content.take() {
                None => text,
                Some(before) => format!("{before}\n\n{text}").into(),
            });
        }
        if !details.is_empty() {
            turn.reasoning_details.get_or_insert_default().extend(details);
        }
    }

    fn call(&mut self, item: Item<'a>, at: usize) -> Result<(), Error> {
        let (Some(id), Some(name)) = (item.call_id, item.name) else {
            return Err(Error::invalid(format!("input[{at}]"), format!("`input[{at}]` must have `call_id` and `name`")));
        };
        let mut call = ToolCall { id: Some(id), ..ToolCall::default() };
        if item.kind.as_deref() == Some("custom_tool_call") {
            call.kind = Some("custom".into());
            call.custom = Some(CustomCall { name: Some(name), input: Some(item.input.unwrap_or_default()), ..CustomCall::default() });
        } else {
            call.kind = Some("function".into());
            call.function = Some(FunctionCall { name: Some(name), arguments: Some(item.arguments.unwrap_or_default()), ..FunctionCall::default() });
        }
        self.turn().tool_calls.get_or_insert_default().push(call);
        Ok(())
    }

    fn result(&mut self, item: Item<'a>, at: usize) -> Result<(), Error> {
        let Some(id) = item.call_id else { return Err(Error::invalid(format!("input[{at}].call_id"), format!("`input[{at}].call_id` is missing: it says which call this answers"))) };
        let Some(output) = item.output else { return Err(Error::invalid(format!("input[{at}].output"), format!("`input[{at}].output` is missing"))) };
        self.end_turn();
        let content = content(output, &format!("input[{at}].output"))?;
        self.messages.push(Message { tool_call_id: Some(id), ..message("tool", content) });
        Ok(())
    }

    /// An image that the model made in an earlier turn, in the form that this door gave it.
    fn image(&mut self, item: Item<'a>) {
        let Some(data) = item.result.filter(|r| !r.is_empty()) else { return };
        let url = if data.contains(':') { data } else { format!("data:image/{};base64,{data}", item.output_format.as_deref().unwrap_or("png")).into() };
        let part = wire::Part { kind: Some("image_url".into()), image_url: Some(ImageUrl { url: Some(url), ..ImageUrl::default() }), ..wire::Part::default() };
        let turn = self.turn();
        let mut parts = turn.content.take().map(parts_of).unwrap_or_default();
        parts.push(part);
        turn.content = Some(Content::Parts(parts));
    }

    fn turn(&mut self) -> &mut Message<'a> {
        self.turn.get_or_insert_with(|| Message { role: Some("assistant".into()), ..Message::default() })
    }

    /// Puts the assistant's turn where it belongs. Reasoning that nothing came of belongs to the message before it (a
    /// signature may come last), and to nothing if there is none.
    pub(super) fn end_turn(&mut self) {
        self.one_text = false;
        let Some(turn) = self.turn.take() else { return };
        if turn.content.is_some() || turn.tool_calls.is_some() {
            self.messages.push(turn);
        } else if let Some(last) = self.messages.last_mut().filter(|m| m.role.as_deref() == Some("assistant")) {
            if let Some(details) = turn.reasoning_details {
                last.reasoning_details.get_or_insert_default().extend(details);
            }
            if last.reasoning_content.is_none() {
                last.reasoning_content = turn.reasoning_content;
            }
        }
    }
}

fn text_part(text: Str<'_>) -> wire::Part<'_> {
    wire::Part { kind: Some("text".into()), text: Some(text), ..wire::Part::default() }
}

fn parts_of(content: Content<'_>) -> Vec<wire::Part<'_>> {
    match content {
        Content::Text(text) => vec![text_part(text)],
        Content::Parts(parts) => parts,
    }
}

fn content<'a>(parts: Parts<'a>, path: &str) -> Result<Content<'a>, Error> {
    let list = match parts {
        Parts::Text(text) => return Ok(Content::Text(text)),
        Parts::List(list) => list,
    };
    let mut parts = list.into_iter().enumerate().map(|(at, p)| part(p, &format!("{path}[{at}]"))).collect::<Result<Vec<_>, _>>()?;
    Ok(match parts.as_mut_slice() {
        [] => Content::Text("".into()),
        [one] if one.cache_control.is_none() && one.text.is_some() => Content::Text(one.text.take().unwrap_or_default()),
        _ => Content::Parts(parts),
    })
}

fn part<'a>(p: Part<'a>, path: &str) -> Result<wire::Part<'a>, Error> {
    let missing = |field: &str| Error::invalid(format!("{path}.{field}"), format!("`{path}.{field}` is missing"));
    let by_id = |what: &str, field: &str| Error::invalid(format!("{path}.file_id"), format!("files are not stored here: send the {what} itself in `{field}`"));
    let mut out = match p.kind.as_deref() {
        Some("input_text" | "output_text" | "text" | "summary_text") => text_part(p.text.ok_or_else(|| missing("text"))?),
        Some("refusal") => wire::Part { kind: Some("refusal".into()), refusal: Some(p.refusal.ok_or_else(|| missing("refusal"))?), ..wire::Part::default() },
        Some("input_image") => match (p.image_url, p.file_id) {
            (Some(url), _) => {
                // Chat knows no `original`.
                let detail = p.detail.map(|d| if &*d == "original" { "high".into() } else { d });
                wire::Part { kind: Some("image_url".into()), image_url: Some(ImageUrl { url: Some(url), detail, ..ImageUrl::default() }), ..wire::Part::default() }
            }
            (None, Some(_)) => return Err(by_id("image", "image_url")),
            (None, None) => return Err(missing("image_url")),
        },
        Some("input_file") => match (p.file_data, p.file_url, p.file_id) {
            (Some(data), ..) => {
                let file = FilePart { file_data: Some(data), filename: p.filename, ..FilePart::default() };
                wire::Part { kind: Some("file".into()), file: Some(file), ..wire::Part::default() }
            }
            (None, Some(_), _) => return Err(Error::unsupported(TARGET, format!("{path}.file_url"), "files are not fetched here; send the file itself in `file_data`")),
            (None, None, Some(_)) => return Err(by_id("file", "file_data")),
            (None, None, None) => return Err(missing("file_data")),
        },
        Some("input_audio") => wire::Part { kind: Some("input_audio".into()), input_audio: Some(p.input_audio.ok_or_else(|| missing("input_audio"))?), ..wire::Part::default() },
        Some(other) => return Err(Error::unsupported(TARGET, format!("{path}.type"), format!("parts of type `{}` are not known", other.escape_default()))),
        None => return Err(missing("type")),
    };
    out.cache_control = p.cache_control;
    Ok(out)
}
