//! OpenAI's own dialect: the defaults of [`Provider`], and the readers that every compatible host shares.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::answer::{Answer, Call, Choice, Delta, Finish};
use crate::envelope::Edit;
use crate::error::{ErrorKind, UpstreamError};
use crate::oddities::{Details, sources};
use crate::sse::Event;
use crate::usage::{OpenAiUsage, Usage};
use crate::wire::{Arguments, ChatRequest, Str};
use crate::{Dialect, Error, Operation, Provider, Settings, Target, Transcoder, broken_off, carry, responses};

/// OpenAI, or any host that speaks exactly as it does.
#[derive(Debug)]
pub struct OpenAi {
    base_url: String,
}

impl OpenAi {
    /// OpenAI itself unless the settings name another place.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        OpenAi { base_url: settings.base_url_or("https://api.openai.com/v1") }
    }
}

impl Provider for OpenAi {
    fn kind(&self) -> &'static str {
        "openai"
    }

    fn base_url(&self) -> &str {
        &self.base_url
    }

    fn path(&self, operation: Operation, _: &Target<'_>, _: bool) -> Result<Option<String>, Error> {
        Ok(operation.openai_path().map(str::to_owned))
    }

    fn adapt(&self, operation: Operation, edit: &mut Edit<'_>, target: &Target<'_>) -> Result<Vec<String>, Error> {
        adapt(operation, edit, target)
    }

    fn forwards(&self) -> &'static [&'static str] {
        &["openai-beta", "openai-organization", "openai-project", "idempotency-key"]
    }
}

/// What every body that passes to OpenAI's dialect needs: the target's model, usage in streams, and nothing in the history
/// that this gateway sealed there for another provider.
///
/// # Errors
/// When the history cannot be read.
pub fn adapt(operation: Operation, edit: &mut Edit<'_>, target: &Target<'_>) -> Result<Vec<String>, Error> {
    let envelope = edit.envelope();
    if envelope.model() != target.model {
        edit.set_text("model", target.model);
    }
    if matches!(operation, Operation::Chat(Dialect::Chat | Dialect::Completions)) && envelope.stream() {
        ask_for_usage(edit)?;
    }
    if operation == Operation::Chat(Dialect::Chat) && carry::request_may_carry(envelope) {
        edit.set("messages", clean_history(&envelope.chat()?, History::Bare));
    }
    if operation == Operation::Chat(Dialect::Responses)
        && let Some(input) = responses::clean_input(envelope)
    {
        edit.set("input", input);
    }
    Ok(Vec::new())
}

/// Sees to it that a stream ends with its usage, whether the client asked for that or not.
///
/// # Errors
/// When `stream_options` is not an object.
pub fn ask_for_usage(edit: &mut Edit<'_>) -> Result<(), Error> {
    let envelope = edit.envelope();
    let mut options: serde_json::Map<String, serde_json::Value> = envelope.parse::<Option<_>>("stream_options")?.flatten().unwrap_or_default();
    if options.get("include_usage") != Some(&serde_json::Value::Bool(true)) {
        options.insert("include_usage".into(), true.into());
        edit.set("stream_options", serde_json::Value::Object(options).to_string());
    }
    Ok(())
}

/// What of earlier reasoning a host wants to see again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// Nothing.
    Bare,
    /// The text, and with every turn of calls: it answers 400 where one has none.
    Text,
    /// The blocks.
    Blocks,
}

/// The messages with bare call ids and of their reasoning what the host wants.
pub(crate) fn clean_history(request: &ChatRequest<'_>, keep: History) -> String {
    let mut messages = request.messages.clone().unwrap_or_default();
    clean(&mut messages, keep);
    serde_json::to_string(&messages).unwrap_or_default()
}

/// Takes out of the messages what this gateway put there: reasoning blocks, and the seals on call ids.
pub(crate) fn clean(messages: &mut [crate::wire::Message<'_>], keep: History) {
    for message in messages {
        bare_ids(message);
        if keep == History::Bare {
            message.reasoning_content = None;
        }
        if keep != History::Blocks {
            message.reasoning_details = None;
        }
        if keep == History::Text && message.tool_calls.is_some() {
            message.reasoning_content.get_or_insert_default();
        }
    }
}

/// Takes the seals off a message's call ids.
pub(crate) fn bare_ids(message: &mut crate::wire::Message<'_>) {
    if let Some(id) = &mut message.tool_call_id {
        *id = carry::bare(id);
    }
    for call in message.tool_calls.iter_mut().flatten() {
        if let Some(id) = &mut call.id {
            *id = carry::bare(id);
        }
    }
}

/// OpenAI's error body, and the shapes that compatible hosts make of it: `{"error": "text"}`, `{"message": …}`,
/// `{"detail": …}`, an array around it, or no JSON at all.
#[must_use]
pub fn read_error(status: u16, body: &[u8]) -> UpstreamError {
    let kind = ErrorKind::from_status(status);
    let Ok(mut value) = serde_json::from_slice::<serde_json::Value>(body) else {
        let text = String::from_utf8_lossy(body);
        let text = text.trim();
        // A proxy's HTML page helps nobody; a line of text may.
        let message = if text.is_empty() || text.starts_with('<') { format!("the upstream answered with status {status} and no readable error") } else { text.chars().take(500).collect() };
        return UpstreamError::new(kind, message).sharpened();
    };
    if let Some(first) = value.as_array_mut().and_then(|list| list.first_mut()) {
        value = first.take();
    }
    let inner = if value["error"].is_object() { &value["error"] } else { &value };
    let text = |v: &serde_json::Value| v.as_str().filter(|s| !s.is_empty()).map(str::to_owned);
    let detail = || {
        let list = value["detail"].as_array()?;
        let parts: Vec<String> = list
            .iter()
            .filter_map(|d| {
                Some(format!(
                    "{}: {}",
                    d["loc"].as_array().map(|l| l.iter().filter_map(|s| s.as_str().map(str::to_owned).or_else(|| s.as_u64().map(|n| n.to_string()))).collect::<Vec<_>>().join(".")).unwrap_or_default(),
                    d["msg"].as_str()?
                ))
            })
            .collect();
        if parts.is_empty() { None } else { Some(parts.join("; ")) }
    };
    let message = text(&inner["message"])
        .or_else(|| text(&value["error"]))
        .or_else(|| text(&value["detail"]))
        .or_else(detail)
        .or_else(|| text(&value["message"]))
        .unwrap_or_else(|| format!("the upstream answered with status {status}"));
    let code = text(&inner["code"]);
    let kind = match (code.as_deref(), inner["type"].as_str()) {
        (Some("context_length_exceeded"), _) | (_, Some("exceed_context_size_error")) => ErrorKind::ContextLength,
        (Some("content_filter" | "content_policy_violation"), _) => ErrorKind::ContentFilter,
        (Some("insufficient_quota"), _) | (_, Some("insufficient_quota")) => ErrorKind::Quota,
        // An error inside an answer of status 200 has only its own words.
        (Some("rate_limit_exceeded"), _) | (_, Some("rate_limit_error")) if status < 400 => ErrorKind::RateLimit,
        (_, Some("invalid_request_error")) if status < 400 => ErrorKind::InvalidRequest,
        (_, Some("overloaded_error")) => ErrorKind::Overloaded,
        _ if status < 400 => ErrorKind::from_status(inner["code"].as_u64().or_else(|| inner["status"].as_u64()).and_then(|n| u16::try_from(n).ok()).filter(|n| *n >= 400).unwrap_or(500)),
        _ => kind,
    };
    UpstreamError { kind, message, code, param: text(&inner["param"]) }.sharpened()
}

/// A text, or a list of typed pieces of which some are thinking (Mistral).
#[derive(Deserialize)]
#[serde(untagged)]
enum Body<'a> {
    #[serde(borrow)]
    Text(Str<'a>),
    #[serde(borrow)]
    Pieces(Vec<Piece<'a>>),
}

#[derive(Deserialize)]
struct Piece<'a> {
    #[serde(borrow)]
    text: Option<Str<'a>>,
    #[serde(borrow)]
    thinking: Option<Vec<ThinkingPiece<'a>>>,
    /// Databricks' name for the same.
    #[serde(borrow)]
    summary: Option<Vec<ThinkingPiece<'a>>>,
}

#[derive(Deserialize)]
struct ThinkingPiece<'a> {
    #[serde(borrow)]
    text: Option<Str<'a>>,
}

impl Body<'_> {
    fn each(&self, mut text: impl FnMut(&str), mut thinking: impl FnMut(&str)) {
        match self {
            Body::Text(t) => text(t),
            Body::Pieces(pieces) => {
                for piece in pieces {
                    if let Some(t) = &piece.text {
                        text(t);
                    }
                    for t in piece.thinking.iter().chain(&piece.summary).flatten().filter_map(|t| t.text.as_deref()) {
                        thinking(t);
                    }
                }
            }
        }
    }
}

/// `message` of an answer and `delta` of a chunk, as hosts really send them.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Message<'a> {
    #[serde(borrow)]
    content: Option<Body<'a>>,
    #[serde(borrow)]
    refusal: Option<Str<'a>>,
    #[serde(borrow)]
    reasoning_content: Option<Str<'a>>,
    #[serde(borrow)]
    reasoning: Option<Str<'a>>,
    #[serde(borrow)]
    tool_calls: Option<Vec<ToolCall<'a>>>,
    #[serde(borrow)]
    function_call: Option<Function<'a>>,
    #[serde(borrow)]
    annotations: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    reasoning_details: Option<&'a RawValue>,
    #[serde(borrow)]
    images: Option<Vec<Image<'a>>>,
}

#[derive(Deserialize)]
struct Image<'a> {
    #[serde(borrow)]
    image_url: Option<Url<'a>>,
}

#[derive(Deserialize)]
struct Url<'a> {
    #[serde(borrow)]
    url: Str<'a>,
}

impl Message<'_> {
    fn image_urls(&self) -> impl Iterator<Item = &str> {
        self.images.iter().flatten().filter_map(|i| Some(&*i.image_url.as_ref()?.url))
    }
}

#[derive(Deserialize)]
struct ToolCall<'a> {
    index: Option<u32>,
    #[serde(borrow)]
    id: Option<Str<'a>>,
    #[serde(borrow)]
    function: Option<Function<'a>>,
    #[serde(borrow)]
    custom: Option<Custom<'a>>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow)]
    name: Option<Str<'a>>,
    #[serde(borrow)]
    arguments: Option<Arguments<'a>>,
}

#[derive(Deserialize)]
struct Custom<'a> {
    #[serde(borrow)]
    name: Option<Str<'a>>,
    #[serde(borrow)]
    input: Option<Str<'a>>,
}

#[derive(Deserialize)]
struct Part<'a> {
    index: Option<u32>,
    #[serde(borrow)]
    message: Option<Message<'a>>,
    /// Perplexity sends `message` beside it: all that came so far, once more.
    #[serde(borrow)]
    delta: Option<Message<'a>>,
    /// Legacy completions.
    #[serde(borrow)]
    text: Option<Str<'a>>,
    #[serde(borrow)]
    finish_reason: Option<Str<'a>>,
    #[serde(borrow)]
    logprobs: Option<&'a RawValue>,
    /// OpenRouter's place for an error of the host behind it.
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

impl Part<'_> {
    /// An error that is told in the place of a choice, or by its finish alone.
    fn failure(&self) -> Option<Error> {
        match self.error.filter(real) {
            Some(error) => Some(read_error(200, format!("{{\"error\":{}}}", error.get()).as_bytes()).into()),
            None if self.finish_reason.as_deref() == Some("error") => Some(UpstreamError::new(ErrorKind::Server, "the upstream ended the answer with an error").into()),
            None => None,
        }
    }
}

#[derive(Deserialize)]
struct Completion<'a> {
    /// `error` where vLLM's older versions fail.
    #[serde(borrow)]
    object: Option<Str<'a>>,
    #[serde(borrow)]
    id: Option<Str<'a>>,
    #[serde(borrow)]
    model: Option<Str<'a>>,
    #[serde(borrow)]
    choices: Option<Vec<Part<'a>>>,
    usage: Option<OpenAiUsage>,
    /// Groq's place for it in streams.
    x_groq: Option<Groq>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    search_results: Option<&'a RawValue>,
    #[serde(borrow)]
    citations: Option<&'a RawValue>,
}

impl Completion<'_> {
    fn failed(&self) -> bool {
        self.error.filter(real).is_some() || self.object.as_deref() == Some("error")
    }
}

#[derive(Deserialize)]
struct Groq {
    usage: Option<OpenAiUsage>,
}

fn real(raw: &&RawValue) -> bool {
    raw.get() != "null"
}

/// Reads a whole chat completion (or a legacy completion).
///
/// # Errors
/// When it is not one, or reports an error.
pub fn read_answer(body: &[u8]) -> Result<Answer, Error> {
    let completion: Completion<'_> = serde_json::from_slice(body).map_err(Error::answer)?;
    if completion.failed() {
        return Err(read_error(200, body).into());
    }
    let mut sources = sources(completion.search_results, completion.citations);
    let Some(parts) = completion.choices else { return Err(Error::answer("it has no `choices`")) };
    let mut answer = Answer { id: owned(completion.id), model: owned(completion.model), choices: Vec::new(), usage: completion.usage.or(completion.x_groq.and_then(|g| g.usage)).map(Usage::from) };
    for (position, part) in (0..).zip(parts) {
        if let Some(error) = part.failure() {
            return Err(error);
        }
        let index = part.index.unwrap_or(position);
        *answer.choice(index) = read_choice(part);
    }
    if let Some(first) = answer.choices.first_mut().filter(|c| c.annotations.is_empty()) {
        first.annotations.append(&mut sources);
    }
    Ok(answer)
}

fn owned(text: Option<Str<'_>>) -> String {
    text.map(|t| t.0.into_owned()).unwrap_or_default()
}

fn read_choice(part: Part<'_>) -> Choice {
    let message = part.message.or(part.delta).unwrap_or_default();
    let mut choice = Choice {
        text: part.text.map(|t| t.0.into_owned()),
        images: message.image_urls().map(str::to_owned).collect(),
        refusal: message.refusal.map(|t| t.0.into_owned()),
        reasoning: message.reasoning_content.or(message.reasoning).filter(|t| !t.is_empty()).map(|t| t.0.into_owned()),
        annotations: message.annotations.into_iter().flatten().map(ToOwned::to_owned).collect(),
        logprobs: part.logprobs.filter(real).map(ToOwned::to_owned),
        finish: part.finish_reason.map(|f| Finish::from_openai(&f)),
        ..Choice::default()
    };
    if let Some(raw) = message.reasoning_details {
        let mut details = Details::default();
        details.take(raw, |d| choice.details.push(d));
        details.finish(|d| choice.details.push(d));
    }
    if let Some(content) = message.content {
        let (mut text, mut thinking) = (String::new(), String::new());
        content.each(|t| text.push_str(t), |t| thinking.push_str(t));
        choice.text = Some(text);
        if !thinking.is_empty() {
            choice.reasoning = Some(thinking);
        }
    }
    let legacy = message.function_call.map(|function| ToolCall { index: None, id: None, function: Some(function), custom: None });
    for (position, call) in message.tool_calls.into_iter().flatten().chain(legacy).enumerate() {
        let (name, arguments) = match (call.function, call.custom) {
            (Some(f), _) => (owned(f.name), f.arguments.unwrap_or_default().json().to_owned()),
            (None, Some(c)) => (owned(c.name), owned(c.input)),
            (None, None) => continue,
        };
        let id = call.id.filter(|id| !id.is_empty()).map_or_else(|| format!("call_{position}"), |id| id.0.into_owned());
        choice.calls.push(Call { id, name, arguments });
    }
    choice
}

/// Reads chat chunks, tolerant of what compatible hosts make of them: calls without an index, names repeated in every
/// piece, usage on every chunk, no `[DONE]`.
#[derive(Debug, Default)]
pub struct Chunks {
    started: bool,
    done: bool,
    choices: Vec<ChunkState>,
    /// A search's sources: they come with every chunk, and are given out once.
    sources: Vec<Box<RawValue>>,
}

#[derive(Debug, Default, Clone)]
struct ChunkState {
    /// The upstream's index and id of each call, in the order they began; the position is the index given out.
    calls: Vec<(Option<u32>, String)>,
    details: Details,
    annotated: bool,
    finished: bool,
}

impl Transcoder for Chunks {
    fn event(&mut self, event: &Event<'_>, out: &mut dyn FnMut(Delta<'_>)) -> Result<(), Error> {
        let data = event.data.trim();
        if data == "[DONE]" {
            self.done = true;
            return Ok(());
        }
        if data.is_empty() {
            return Ok(());
        }
        let chunk: Completion<'_> = serde_json::from_str(data).map_err(Error::answer)?;
        if event.name == "error" || chunk.failed() {
            return Err(read_error(200, data.as_bytes()).into());
        }
        let choices = chunk.choices.unwrap_or_default();
        if let Some(error) = choices.iter().find_map(Part::failure) {
            return Err(error);
        }
        if chunk.search_results.or(chunk.citations).is_some() {
            self.sources = sources(chunk.search_results, chunk.citations);
        }
        // Azure's first chunk has no choices and an empty id; the id and the model come with the next one.
        if !self.started && (!choices.is_empty() || chunk.id.as_deref().is_some_and(|id| !id.is_empty())) {
            self.started = true;
            out(Delta::Start { id: chunk.id.as_deref().unwrap_or_default(), model: chunk.model.as_deref().unwrap_or_default() });
        }
        for part in choices {
            self.part(part, out);
        }
        // xAI tells its sources only after the finish.
        if self.choices.first().is_some_and(|c| c.finished) {
            self.give_sources(out);
        }
        if let Some(usage) = chunk.usage.or(chunk.x_groq.and_then(|g| g.usage)) {
            out(Delta::Usage(usage.into()));
        }
        Ok(())
    }

    fn end(&mut self, _: &mut dyn FnMut(Delta<'_>)) -> Result<(), Error> {
        // Some hosts never send `[DONE]`; a finish for every choice is as good.
        if self.done || !self.choices.is_empty() && self.choices.iter().all(|c| c.finished) { Ok(()) } else { Err(broken_off()) }
    }
}

impl Chunks {
    /// Gives out a search's sources once, unless the message had annotations of its own.
    fn give_sources(&mut self, out: &mut dyn FnMut(Delta<'_>)) {
        if let Some(first) = self.choices.first_mut().filter(|c| !c.annotated && !self.sources.is_empty()) {
            first.annotated = true;
            self.sources.drain(..).for_each(|json| out(Delta::Annotation { choice: 0, json: json.get() }));
        }
    }

    fn part(&mut self, part: Part<'_>, out: &mut dyn FnMut(Delta<'_>)) {
        let choice = part.index.unwrap_or(0).min(crate::answer::MAX_CHOICES as u32 - 1);
        if self.choices.len() <= choice as usize {
            self.choices.resize(choice as usize + 1, ChunkState::default());
        }
        let message = part.delta.or(part.message).unwrap_or_default();
        if let Some(text) = message.reasoning_content.as_deref().or(message.reasoning.as_deref()).filter(|t| !t.is_empty()) {
            out(Delta::Reasoning { choice, text });
        }
        let details = &mut self.choices[choice as usize].details;
        match message.reasoning_details {
            Some(raw) if raw.get() != "[]" => details.take(raw, |detail| out(Delta::Detail { choice, detail: &detail })),
            // What follows the reasoning completes it.
            _ => details.finish(|detail| out(Delta::Detail { choice, detail: &detail })),
        }
        if let Some(content) = &message.content {
            // Two closures cannot both hold `out`: thinking comes first in every host that sends both.
            content.each(|_| (), |text| out(Delta::Reasoning { choice, text }));
            content.each(
                |text| {
                    if !text.is_empty() {
                        out(Delta::Text { choice, text })
                    }
                },
                |_| (),
            );
        }
        if let Some(text) = part.text.as_deref().filter(|t| !t.is_empty()) {
            out(Delta::Text { choice, text });
        }
        if let Some(text) = message.refusal.as_deref() {
            out(Delta::Refusal { choice, text });
        }
        for annotation in message.annotations.iter().flatten() {
            self.choices[choice as usize].annotated = true;
            out(Delta::Annotation { choice, json: annotation.get() });
        }
        for url in message.image_urls() {
            out(Delta::Image { choice, url });
        }
        let legacy = message.function_call.map(|function| ToolCall { index: Some(0), id: None, function: Some(function), custom: None });
        for call in message.tool_calls.into_iter().flatten().chain(legacy) {
            self.call(choice, &call, out);
        }
        if let Some(logprobs) = part.logprobs.filter(real) {
            out(Delta::Logprobs { choice, json: logprobs.get() });
        }
        if let Some(reason) = part.finish_reason.filter(|r| !r.is_empty()) {
            let state = &mut self.choices[choice as usize];
            state.details.finish(|detail| out(Delta::Detail { choice, detail: &detail }));
            if choice == 0 {
                self.give_sources(out);
            }
            if !std::mem::replace(&mut self.choices[choice as usize].finished, true) {
                out(Delta::Finish { choice, reason: Finish::from_openai(&reason) });
            }
        }
    }

    fn call(&mut self, choice: u32, call: &ToolCall<'_>, out: &mut dyn FnMut(Delta<'_>)) {
        let (name, arguments) = match (&call.function, &call.custom) {
            (Some(f), _) => (f.name.as_deref(), f.arguments.as_ref().map(|a| &*a.0)),
            (None, Some(c)) => (c.name.as_deref(), c.input.as_deref()),
            (None, None) => (None, None),
        };
        let calls = &mut self.choices[choice as usize].calls;
        let id = call.id.as_deref().filter(|id| !id.is_empty());
        let known = match (call.index, id) {
            // A host that gives every call the index 0 still gives each its own id.
            (Some(index), Some(id)) => calls.iter().rposition(|(i, known)| *i == Some(index) && known == id),
            (Some(index), None) => calls.iter().rposition(|(i, _)| *i == Some(index)),
            (None, Some(id)) => calls.iter().position(|(_, known)| known == id),
            (None, None) if name.is_some_and(|n| !n.is_empty()) => None,
            (None, None) => calls.len().checked_sub(1),
        };
        let index = match known {
            Some(at) => at as u32,
            None => {
                let at = calls.len() as u32;
                let id = id.map_or_else(|| format!("call_{at}"), str::to_owned);
                out(Delta::Call { choice, index: at, id: &id, name: name.unwrap_or_default() });
                calls.push((call.index, id));
                at
            }
        };
        if let Some(json) = arguments.filter(|a| !a.is_empty()) {
            out(Delta::Arguments { choice, index, json });
        }
    }
}
