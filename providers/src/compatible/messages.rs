//! The messages as a host takes them. They are written anew only where they hold something that it refuses or that this
//! gateway put there for another.

use memchr::memmem;
use serde_json::value::{RawValue, to_raw_value};

use super::{Oddity, Preset, Thinking};
use crate::envelope::Edit;
use crate::wire::{ChatRequest, Content, Message, Part, Str, ToolCall, data_url};
use crate::{Error, carry};

/// Keys that answers have and requests do not, and those that other doors put there.
const FOREIGN: &[&str] = &["\"refusal\"", "\"annotations\"", "\"audio\"", "\"images\"", "\"cache_control\"", "\"is_error\"", "\"reasoning\""];

/// Changes the messages where that is needed.
pub(super) fn adapt(preset: &Preset, edit: &mut Edit<'_>, warnings: &mut Vec<String>) -> Result<(), Error> {
    let envelope = edit.envelope();
    let Some(raw) = envelope.get("messages") else { return Ok(()) };
    let has = |words: &str| memmem::find(raw.as_bytes(), words.as_bytes()).is_some();
    let foreign = !preset.message.is_empty() && FOREIGN.iter().any(|key| has(key));
    if !foreign && !worth_a_look(preset, has) && !carry::request_may_carry(envelope) {
        return Ok(());
    }
    // What is written in a shape of the host's own: it has to outlive the messages, which borrow it.
    let files = if preset.has(Oddity::FileUrls) { files(preset, &envelope.chat()?)? } else { Vec::new() };
    let mut messages: Vec<Message<'_>> = envelope.chat()?.messages.unwrap_or_default();
    let mut pass = Pass { preset, changed: foreign, named: false, legacy: None, files: files.iter() };
    let texts = messages.iter_mut().enumerate().map(|(at, message)| pass.message(at, message)).collect::<Result<Vec<_>, _>>()?;
    if pass.named {
        warnings.push(format!("dropped `name` of messages: {} has no place for it", preset.kind));
    }
    if pass.changed {
        edit.set("messages", format!("[{}]", texts.join(",")));
    }
    Ok(())
}

fn worth_a_look(preset: &Preset, has: impl Fn(&str) -> bool) -> bool {
    // Every serialiser writes a key and its value with one space between them, or none.
    let role = |role: &str| has(&format!("\"role\":\"{role}\"")) || has(&format!("\"role\": \"{role}\""));
    preset.thinking == Thinking::Demanded && role("assistant")
        || !preset.developer && role("developer")
        || has("\"function_call\"")
        || role("function")
        || !preset.message.is_empty() && !preset.message.contains(&"name") && has("\"name\"")
        || preset.has(Oddity::FileUrls) && has("\"file\"")
}

/// A file as the host has it: its place, and its name.
type File = (Box<RawValue>, Option<Box<RawValue>>);

fn files(preset: &Preset, request: &ChatRequest<'_>) -> Result<Vec<File>, Error> {
    let mut all = Vec::new();
    for (at, message) in request.messages.iter().flatten().enumerate() {
        let Some(Content::Parts(parts)) = &message.content else { continue };
        for (n, file) in parts.iter().enumerate().filter_map(|(n, part)| Some((n, part.file.as_ref()?))) {
            let Some(data) = file.file_data.as_deref() else {
                return Err(Error::unsupported(preset.kind, format!("messages[{at}].content[{n}].file"), "it has no files of its own; send the file itself in `file_data`"));
            };
            let url = data_url(data).map_or(data, |(_, base64)| base64);
            let place = to_raw_value(&serde_json::json!({ "url": url })).map_err(Error::answer)?;
            let name = file.filename.as_deref().map(to_raw_value).transpose().map_err(Error::answer)?;
            all.push((place, name));
        }
    }
    Ok(all)
}

/// What is seen and kept on the way through the messages.
struct Pass<'p> {
    preset: &'p Preset,
    changed: bool,
    /// Whether a participant's name had to go.
    named: bool,
    /// The id of the older form's call that waits for its result.
    legacy: Option<String>,
    files: std::slice::Iter<'p, File>,
}

impl<'p> Pass<'p> {
    /// A message as the host takes it.
    fn message(&mut self, at: usize, message: &mut Message<'p>) -> Result<String, Error> {
        let mut beside = Vec::new();
        if message.role.as_deref() == Some("developer") && !self.preset.developer {
            message.role = Some("system".into());
            self.changed = true;
        }
        self.ids(message);
        self.legacy(at, message);
        if message.role.as_deref() == Some("assistant") {
            self.thinking(message, &mut beside);
        }
        if self.preset.has(Oddity::FileUrls) {
            self.files(message);
        }
        if !self.preset.message.is_empty() {
            self.known(message);
        }
        if message.role.as_deref() == Some("assistant") && message.content.is_none() {
            // Some hosts insist on the key.
            beside.push(("content", "null".to_owned()));
        }
        let mut text = serde_json::to_string(message).map_err(Error::answer)?;
        for (name, json) in beside {
            text.pop();
            text.push_str(&format!(",\"{name}\":{json}}}"));
        }
        Ok(text)
    }

    fn ids(&mut self, message: &mut Message<'_>) {
        let calls = message.tool_calls.iter_mut().flatten().filter_map(|call| call.id.as_mut());
        for id in message.tool_call_id.iter_mut().chain(calls) {
            let bare = carry::bare(id);
            self.changed |= bare != *id;
            *id = bare;
        }
    }

    /// The older form of a call, and of its result, in the present one.
    fn legacy(&mut self, at: usize, message: &mut Message<'_>) {
        if let Some(function) = message.function_call.take() {
            let id = format!("function_{at}");
            self.legacy = Some(id.clone());
            message.tool_calls.get_or_insert_default().push(ToolCall { id: Some(id.into()), kind: Some("function".into()), function: Some(function), ..ToolCall::default() });
            self.changed = true;
        }
        if message.role.as_deref() == Some("function") {
            message.role = Some("tool".into());
            let name = message.name.take();
            message.tool_call_id = self.legacy.take().map(Str::from).or(name);
            self.changed = true;
        }
    }

    fn thinking(&mut self, message: &mut Message<'_>, beside: &mut Vec<(&'static str, String)>) {
        if self.preset.thinking != Thinking::Blocks {
            self.changed |= message.reasoning_details.take().is_some();
        }
        match self.preset.thinking {
            Thinking::Content | Thinking::Blocks => {}
            Thinking::Dropped => self.changed |= message.reasoning_content.take().is_some(),
            Thinking::Demanded => {
                self.changed |= message.reasoning_content.is_none();
                message.reasoning_content.get_or_insert_default();
            }
            Thinking::Reasoning => {
                let given = message.extra.iter().any(|(name, _)| &**name == "reasoning");
                if let Some(text) = message.reasoning_content.take() {
                    self.changed = true;
                    if !given {
                        beside.push(("reasoning", serde_json::Value::from(&*text).to_string()));
                    }
                }
            }
        }
    }

    fn files(&mut self, message: &mut Message<'p>) {
        let Some(Content::Parts(parts)) = &mut message.content else { return };
        for part in parts.iter_mut().filter(|part| part.file.is_some()) {
            let Some((place, name)) = self.files.next() else { return };
            let mut extra = vec![("file_url".into(), &**place)];
            extra.extend(name.as_deref().map(|name| ("file_name".into(), name)));
            *part = Part { kind: Some("file_url".into()), extra, ..Part::default() };
            self.changed = true;
        }
    }

    /// Takes out what the host does not know.
    fn known(&mut self, message: &mut Message<'_>) {
        if let (Some(refusal), None) = (message.refusal.take(), &message.content) {
            message.content = Some(Content::Text(refusal));
        }
        message.audio = None;
        message.is_error = None;
        message.cache_control = None;
        if let Some(Content::Parts(parts)) = &mut message.content {
            parts.iter_mut().for_each(|part| part.cache_control = None);
        }
        if !self.preset.message.contains(&"name") && message.name.take().is_some() {
            // A tool is known by the call's id, a participant by nothing else.
            self.named |= message.role.as_deref() != Some("tool");
            self.changed = true;
        }
        message.extra.retain(|(key, _)| self.preset.message.contains(&&**key));
    }
}
