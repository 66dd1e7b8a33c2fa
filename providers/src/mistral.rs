//! Mistral: nearly OpenAI's dialect, but strict, so that every field it does not know is an error. Top-level fields are edited
//! in the passing body; the messages are written anew only where they hold what Mistral refuses: foreign call ids, names,
//! reasoning, other roles, parts of other shapes, or a user directly after a tool.

use std::borrow::Cow;

use serde::Serialize;

use crate::envelope::{Edit, Envelope};
use crate::error::UpstreamError;
use crate::wire::{Arguments, ChatRequest, Choice, Content, FunctionDef, Message, Part, Str, Tool};
use crate::{Dialect, Error, Operation, Provider, Settings, Target, carry, openai};

const KIND: &str = "mistral";

/// OpenAI's parameters (and this gateway's) that Mistral refuses and that may go with a warning.
const DROPS: &[&str] = &["user", "logit_bias", "store", "verbosity", "thinking", "safety_identifier", "prompt_cache_retention", "prompt_cache_options"];

/// The highest temperature it takes.
const HOTTEST: f64 = 1.5;

/// Mistral's platform, or a server of the same dialect.
#[derive(Debug)]
pub struct Mistral {
    base_url: String,
}

impl Mistral {
    /// Mistral itself unless the settings name another place.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Mistral { base_url: settings.base_url_or("https://api.mistral.ai/v1") }
    }
}

impl Provider for Mistral {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn base_url(&self) -> &str {
        &self.base_url
    }

    fn path(&self, operation: Operation, _: &Target<'_>, _: bool) -> Result<Option<String>, Error> {
        let known = matches!(operation, Operation::Chat(Dialect::Chat) | Operation::Embeddings | Operation::Transcriptions);
        Ok(operation.openai_path().filter(|_| known).map(str::to_owned))
    }

    fn other_rates(&self, _: Operation, _: &Envelope) -> Vec<&'static str> {
        // It is told of none.
        Vec::new()
    }

    fn adapt(&self, operation: Operation, edit: &mut Edit<'_>, target: &Target<'_>) -> Result<Vec<String>, Error> {
        if edit.envelope().model() != target.model {
            edit.set_text("model", target.model);
        }
        let mut warnings = Vec::new();
        match operation {
            Operation::Chat(Dialect::Chat) => chat(edit, &mut warnings)?,
            Operation::Embeddings => {
                edit.rename("dimensions", "output_dimension");
                drop_fields(edit, &["user", "input_type"], &mut warnings);
            }
            _ => {}
        }
        Ok(warnings)
    }

    fn verbatim(&self, operation: Operation) -> bool {
        // Its answers hold thinking in lists of pieces, which OpenAI's clients cannot read.
        operation != Operation::Chat(Dialect::Chat)
    }

    fn error(&self, status: u16, body: &[u8]) -> UpstreamError {
        // `detail` is often wrapped into `message`, as an object or as its text.
        let message = serde_json::from_slice(body).map(|mut value: serde_json::Value| value["message"].take()).unwrap_or_default();
        let inner = match message {
            serde_json::Value::Object(_) => Some(message.to_string()),
            serde_json::Value::String(text) if text.starts_with('{') => Some(text),
            _ => None,
        };
        openai::read_error(status, inner.as_deref().map_or(body, str::as_bytes))
    }
}

fn drop_fields(edit: &mut Edit<'_>, names: &[&str], warnings: &mut Vec<String>) {
    for name in names {
        if let Some(value) = edit.envelope().get(name) {
            edit.remove(name);
            if value != "null" {
                warnings.push(format!("dropped `{name}`: mistral does not take it"));
            }
        }
    }
}

fn chat(edit: &mut Edit<'_>, warnings: &mut Vec<String>) -> Result<(), Error> {
    let envelope = edit.envelope();
    let request = envelope.chat()?;
    refuse(&request)?;
    drop_fields(edit, DROPS, warnings);
    for name in ["modalities", "stream_options"] {
        // Usage comes with the last chunk, asked for or not; the other is only left where it says what is the case anyway.
        edit.remove(name);
    }
    // The one word of OpenAI's that it knows, and its own.
    if request.service_tier.as_deref().is_some_and(|tier| !matches!(tier, "auto" | "standard_only")) {
        drop_fields(edit, &["service_tier"], warnings);
    }
    match request.max_tokens {
        Some(_) => edit.remove("max_completion_tokens"),
        None if request.max_completion_tokens.is_some() => {
            edit.remove("max_tokens");
            edit.rename("max_completion_tokens", "max_tokens");
        }
        None => edit.remove("max_completion_tokens"),
    }
    if envelope.get("random_seed").is_some() {
        edit.remove("seed");
    } else {
        edit.rename("seed", "random_seed");
    }
    if let Some(temperature) = request.temperature.filter(|t| *t > HOTTEST) {
        edit.set("temperature", HOTTEST.to_string());
        warnings.push(format!("lowered `temperature` from {temperature} to {HOTTEST}, the highest that mistral takes"));
    }
    tools(edit, &request)?;
    if let Some(messages) = &request.messages {
        let raw = envelope.get("messages").unwrap_or_default();
        if !passes(messages, raw) {
            let rewritten = history(messages, warnings)?;
            edit.set("messages", serde_json::to_string(&rewritten).map_err(Error::answer)?);
        }
    }
    Ok(())
}

/// What would change the answer's meaning if it were dropped.
fn refuse(request: &ChatRequest<'_>) -> Result<(), Error> {
    if request.modalities.iter().flatten().any(|m| &**m != "text") {
        return Err(Error::unsupported(KIND, "modalities", "it answers in text only"));
    }
    if let Some((name, _)) = request.extra.iter().find(|(name, value)| matches!(&**name, "audio" | "web_search_options") && value.get() != "null") {
        return Err(Error::unsupported(KIND, name.to_string(), "it has no such output or tool; leave it out"));
    }
    if let Some(tool) = request.tools.iter().flatten().position(|t| t.custom.is_some()) {
        return Err(Error::unsupported(KIND, format!("tools[{tool}]"), "it has no freeform tools; give the tool as a function with one string parameter"));
    }
    Ok(())
}

fn tools(edit: &mut Edit<'_>, request: &ChatRequest<'_>) -> Result<(), Error> {
    let choice = request.choice()?;
    let legacy = request.functions.is_some() || request.function_call.is_some();
    let mut tools: Vec<Tool<'_>> = request.tools.clone().unwrap_or_default();
    tools.extend(request.functions.iter().flatten().map(|f| Tool { kind: Some("function".into()), function: Some(f.clone()), ..Tool::default() }));
    let mut changed = legacy;
    if let Some(Choice::Allowed { names, .. }) = &choice {
        tools.retain(|t| t.function.as_ref().and_then(|f| f.name.as_ref()).is_some_and(|name| names.contains(name)));
        changed = true;
    }
    for tool in &mut tools {
        changed |= tool.cache_control.take().is_some();
        if let Some(FunctionDef { parameters: parameters @ None, .. }) = &mut tool.function {
            *parameters = Some(crate::wire::no_parameters());
            changed = true;
        }
    }
    if tools.is_empty() {
        // An empty list is refused, and so is a choice among nothing.
        ["tools", "tool_choice", "parallel_tool_calls"].iter().for_each(|name| edit.remove(name));
    } else if changed {
        edit.set("tools", serde_json::to_string(&tools).map_err(Error::answer)?);
    }
    if legacy {
        edit.remove("functions");
        edit.remove("function_call");
    }
    if tools.is_empty() {
        return Ok(());
    }
    match choice {
        Some(Choice::Required | Choice::Allowed { required: true, .. }) => edit.set_text("tool_choice", "any"),
        Some(Choice::Allowed { required: false, .. }) => edit.set_text("tool_choice", "auto"),
        Some(Choice::None) if legacy => edit.set_text("tool_choice", "none"),
        Some(Choice::Named(name)) => {
            #[derive(Serialize)]
            struct Named<'a> {
                name: &'a str,
            }
            #[derive(Serialize)]
            struct ByName<'a> {
                r#type: &'static str,
                function: Named<'a>,
            }
            edit.set("tool_choice", serde_json::to_string(&ByName { r#type: "function", function: Named { name: &name } }).map_err(Error::answer)?);
        }
        Some(Choice::None | Choice::Auto) | None => {}
    }
    Ok(())
}

/// Keys of a message that Mistral refuses even where they are `null`, as clients leave them that send back what they got.
const FORBIDDEN: &[&str] = &["\"refusal\"", "\"audio\"", "\"function_call\"", "\"annotations\"", "\"reasoning", "\"cache_control\"", "\"is_error\"", "\"images\""];

/// Whether the messages may go as they are.
fn passes(messages: &[Message<'_>], raw: &str) -> bool {
    let plain = |message: &Message<'_>| {
        let role = message.role.as_deref().unwrap_or_default();
        matches!(role, "system" | "user" | "assistant" | "tool")
            && (message.name.is_none() || role == "tool")
            && message.extra.iter().all(|(name, _)| &**name == "prefix")
            && message.tool_call_id.iter().chain(message.tool_calls.iter().flatten().filter_map(|c| c.id.as_ref())).all(|id| is_id(id))
            && message.tool_calls.iter().flatten().all(|c| c.id.is_some() && c.function.as_ref().is_some_and(|f| f.arguments.as_ref().is_some_and(|a| !a.0.trim().is_empty())))
            && match &message.content {
                Some(Content::Parts(parts)) => parts.iter().all(|p| matches!(p.kind.as_deref(), Some("text" | "image_url"))),
                Some(Content::Text(_)) => true,
                None => role == "assistant",
            }
    };
    messages.iter().all(plain)
        && !messages.windows(2).any(|pair| breaks_off(&pair[0], &pair[1]))
        && messages.last().is_none_or(|m| m.role.as_deref() != Some("assistant") || has_prefix(m))
        && !FORBIDDEN.iter().any(|key| memchr::memmem::find(raw.as_bytes(), key.as_bytes()).is_some())
}

/// Whether someone else speaks where only the assistant may: after the results of tools.
fn breaks_off(before: &Message<'_>, after: &Message<'_>) -> bool {
    matches!(before.role.as_deref(), Some("tool" | "function")) && matches!(after.role.as_deref(), Some("user" | "system" | "developer"))
}

fn has_prefix(message: &Message<'_>) -> bool {
    message.extra.iter().any(|(name, value)| &**name == "prefix" && value.get() == "true")
}

fn is_id(id: &str) -> bool {
    id.len() == 9 && id.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// The id as Mistral takes it. It has to agree inside one request only: the client keeps its own.
fn call_id(id: &str) -> Cow<'_, str> {
    let bare = carry::unseal(id).0;
    if is_id(bare) { Cow::Borrowed(bare) } else { Cow::Owned(carry::short_id(bare)) }
}

#[derive(Serialize)]
struct Turn<'m> {
    role: &'static str,
    content: Option<Body<'m>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call<'m>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<Cow<'m, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'m str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    prefix: bool,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Body<'m> {
    Text(&'m str),
    Pieces(Vec<Piece<'m>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Piece<'m> {
    Text {
        text: &'m str,
    },
    ImageUrl {
        image_url: &'m crate::wire::ImageUrl<'m>,
    },
    InputAudio {
        input_audio: &'m str,
    },
    File {
        file_id: &'m str,
    },
    DocumentUrl {
        document_url: &'m str,
        #[serde(skip_serializing_if = "Option::is_none")]
        document_name: Option<&'m str>,
    },
}

#[derive(Serialize)]
struct Call<'m> {
    id: Cow<'m, str>,
    r#type: &'static str,
    function: Function<'m>,
}

#[derive(Serialize)]
struct Function<'m> {
    name: &'m str,
    arguments: &'m str,
}

/// The messages as Mistral takes them.
fn history<'m>(messages: &'m [Message<'m>], warnings: &mut Vec<String>) -> Result<Vec<Turn<'m>>, Error> {
    let mut turns: Vec<Turn<'m>> = Vec::with_capacity(messages.len() + 1);
    for (at, message) in messages.iter().enumerate() {
        if at > 0 && breaks_off(&messages[at - 1], message) {
            turns.push(Turn { role: "assistant", content: Some(Body::Text("OK")), tool_calls: Vec::new(), tool_call_id: None, name: None, prefix: false });
            warnings.push(format!("put an assistant's \"OK\" before `messages[{at}]`: mistral takes nobody else directly after a tool"));
        }
        turns.push(turn(at, message)?);
    }
    if let (Some(turn), Some(message)) = (turns.last_mut(), messages.last()) {
        // It answers an assistant's message only where that is marked as its own beginning.
        turn.prefix = message.role.as_deref() == Some("assistant");
    }
    Ok(turns)
}

fn turn<'m>(at: usize, message: &'m Message<'m>) -> Result<Turn<'m>, Error> {
    let role = match message.role.as_deref() {
        Some("system" | "developer") => "system",
        Some("user") => "user",
        Some("assistant") => "assistant",
        Some("tool" | "function") => "tool",
        _ => return Err(Error::invalid(format!("messages[{at}].role"), "`role` must be system, developer, user, assistant or tool")),
    };
    let content = match &message.content {
        None if role == "assistant" => message.refusal.as_deref().map(Body::Text),
        None => Some(Body::Text("")),
        Some(Content::Text(text)) => Some(Body::Text(text)),
        Some(Content::Parts(parts)) => Some(Body::Pieces(parts.iter().enumerate().map(|(n, p)| piece(at, n, p)).collect::<Result<_, _>>()?)),
    };
    let mut tool_calls = Vec::new();
    for (n, call) in message.tool_calls.iter().flatten().enumerate() {
        let Some(function) = &call.function else {
            return Err(Error::unsupported(KIND, format!("messages[{at}].tool_calls[{n}]"), "it knows calls of functions only"));
        };
        let id = call.id.as_deref().ok_or_else(|| Error::invalid(format!("messages[{at}].tool_calls[{n}].id"), "a tool call needs an `id`"))?;
        tool_calls.push(Call { id: call_id(id), r#type: "function", function: Function { name: function.name.as_deref().unwrap_or_default(), arguments: arguments(function.arguments.as_ref()) } });
    }
    // The older form has one call and no id: the function's name connects the two ends.
    if let Some(function) = &message.function_call {
        let name = function.name.as_deref().unwrap_or_default();
        tool_calls.push(Call { id: call_id(name), r#type: "function", function: Function { name, arguments: arguments(function.arguments.as_ref()) } });
    }
    let answered = message.tool_call_id.as_deref().or(message.name.as_deref()).filter(|_| role == "tool");
    Ok(Turn { role, content, tool_calls, tool_call_id: answered.map(call_id), name: message.name.as_deref().filter(|_| role == "tool"), prefix: false })
}

fn arguments<'m>(arguments: Option<&'m Arguments<'m>>) -> &'m str {
    arguments.map_or("{}", Arguments::json)
}

fn piece<'m>(at: usize, n: usize, part: &'m Part<'m>) -> Result<Piece<'m>, Error> {
    let missing = |what: &str| Error::invalid(format!("messages[{at}].content[{n}].{what}"), format!("this part needs `{what}`"));
    let text = |text: &'m Option<Str<'m>>, what: &str| text.as_deref().ok_or_else(|| missing(what));
    Ok(match part.kind.as_deref() {
        Some("text") => Piece::Text { text: text(&part.text, "text")? },
        Some("refusal") => Piece::Text { text: text(&part.refusal, "refusal")? },
        Some("image_url") => Piece::ImageUrl { image_url: part.image_url.as_ref().ok_or_else(|| missing("image_url"))? },
        Some("input_audio") => Piece::InputAudio { input_audio: part.input_audio.as_ref().and_then(|a| a.data.as_deref()).ok_or_else(|| missing("input_audio"))? },
        Some("file") => {
            let file = part.file.as_ref().ok_or_else(|| missing("file"))?;
            match (&file.file_data, &file.file_id) {
                (Some(data), _) => Piece::DocumentUrl { document_url: data, document_name: file.filename.as_deref() },
                (None, Some(id)) => Piece::File { file_id: id },
                (None, None) => return Err(missing("file")),
            }
        }
        other => return Err(Error::unsupported(KIND, format!("messages[{at}].content[{n}]"), format!("it takes no parts of type `{}`", other.unwrap_or_default()))),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::envelope::Envelope;

    #[test]
    fn what_mistral_takes_keeps_its_bytes() {
        let body = r#"{"model":"m","messages":[{"role":"user","content":"caf\u00e9"},{"role":"assistant","tool_calls":[{"id":"D681PevKs","type":"function","function":{"name":"f","arguments":"{\"a\": 1}"}}]},{"role":"tool","tool_call_id":"D681PevKs","content":"\"audio\""}],"seed":7}"#;
        let envelope = Envelope::read(bytes::Bytes::from(body)).unwrap();
        let mut edit = envelope.edit();
        let warnings = Mistral::new(&Settings::default()).adapt(Operation::Chat(Dialect::Chat), &mut edit, &Target { model: "m", info: None }).unwrap();
        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!(edit.finish().into_bytes(), body.replace("\"seed\"", "\"random_seed\"").as_bytes());
    }
}
