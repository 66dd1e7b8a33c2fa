//! Cohere's answers, whole and as a stream of named events.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::answer::{Answer, Call, Choice, Delta, Finish};
use crate::error::{ErrorKind, UpstreamError};
use crate::sse::Event;
use crate::usage::Usage;
use crate::wire::Str;
use crate::{Error, Target, Transcoder, broken_off, openai};

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow)]
    id: Option<Str<'a>>,
    #[serde(borrow)]
    finish_reason: Option<Str<'a>>,
    #[serde(borrow)]
    message: Option<Message<'a>>,
    usage: Option<CohereUsage>,
    #[serde(borrow, default)]
    logprobs: Option<Vec<Logprob<'a>>>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    content: Option<Vec<Content<'a>>>,
    #[serde(borrow)]
    tool_plan: Option<Str<'a>>,
    #[serde(borrow, default)]
    tool_calls: Option<Vec<ToolCall<'a>>>,
    #[serde(borrow, default)]
    citations: Option<Vec<Citation<'a>>>,
}

/// A content block, or the piece of one.
#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow)]
    text: Option<Str<'a>>,
    #[serde(borrow)]
    thinking: Option<Str<'a>>,
}

#[derive(Deserialize)]
struct ToolCall<'a> {
    #[serde(borrow)]
    id: Option<Str<'a>>,
    #[serde(borrow)]
    function: Option<Function<'a>>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow)]
    name: Option<Str<'a>>,
    #[serde(borrow)]
    arguments: Option<Str<'a>>,
}

#[derive(Deserialize)]
struct Citation<'a> {
    start: Option<u64>,
    end: Option<u64>,
    #[serde(borrow)]
    text: Option<Str<'a>>,
    #[serde(borrow, default)]
    sources: Vec<Source<'a>>,
    /// What it cites: the text, the plan or the thinking.
    #[serde(borrow, rename = "type")]
    kind: Option<Str<'a>>,
}

#[derive(Deserialize)]
struct Source<'a> {
    #[serde(borrow)]
    id: Option<Str<'a>>,
    document: Option<serde_json::Map<String, serde_json::Value>>,
    tool_output: Option<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Deserialize)]
struct Logprob<'a> {
    #[serde(borrow)]
    text: Option<Str<'a>>,
    #[serde(default)]
    logprobs: Vec<f64>,
}

#[derive(Deserialize)]
struct CohereUsage {
    billed_units: Option<Tokens>,
    tokens: Option<Tokens>,
    cached_tokens: Option<f64>,
}

#[derive(Deserialize)]
struct Tokens {
    input_tokens: Option<f64>,
    output_tokens: Option<f64>,
}

impl From<CohereUsage> for Usage {
    /// `tokens` counts Cohere's own preamble too, which nobody pays for: the bill is `billed_units`. What was cached is a part
    /// of `tokens`, mostly that preamble, and says nothing of what is billed.
    fn from(u: CohereUsage) -> Self {
        let count = |n: Option<f64>| n.unwrap_or_default().max(0.0) as u64;
        let cached = u.cached_tokens.filter(|_| u.billed_units.is_none());
        let (input, output) = u.billed_units.or(u.tokens).map(|t| (count(t.input_tokens), count(t.output_tokens))).unwrap_or_default();
        let cache_read = count(cached).min(input);
        Usage { input: input - cache_read, cache_read, output, ..Usage::default() }
    }
}

/// Why the answer ended; an error where it did not end well.
fn finish(reason: &str, message: Option<&str>) -> Result<Finish, Error> {
    let failed = |kind, message: Option<&str>| {
        let mut error = UpstreamError::new(kind, message.unwrap_or("Cohere failed in the middle of its answer; send the request again")).sharpened();
        error.code = Some(reason.to_owned());
        Err(error.into())
    };
    match reason {
        "MAX_TOKENS" => Ok(Finish::Length),
        "TOOL_CALL" => Ok(Finish::ToolCalls),
        "ERROR_TOXIC" => Ok(Finish::ContentFilter),
        "TIMEOUT" => failed(ErrorKind::Timeout, message),
        "ERROR" => failed(ErrorKind::Server, message),
        _ => Ok(Finish::Stop),
    }
}

/// A citation as OpenAI's annotations, one for each of its sources. Places are counted in the answer's text, so that
/// citations of the plan or of the thinking have none.
fn annotations(citation: &Citation<'_>, mut each: impl FnMut(&str)) {
    #[derive(Serialize)]
    struct Url<'a> {
        start_index: u64,
        end_index: u64,
        url: &'a str,
        title: &'a str,
    }
    #[derive(Serialize)]
    struct File<'a> {
        start_index: u64,
        end_index: u64,
        file_id: &'a str,
        quote: &'a str,
    }
    #[derive(Serialize)]
    #[serde(tag = "type", rename_all = "snake_case")]
    enum Annotation<'a> {
        UrlCitation { url_citation: Url<'a> },
        FileCitation { file_citation: File<'a> },
    }
    if citation.kind.as_deref().is_some_and(|k| k != "TEXT_CONTENT") {
        return;
    }
    let (start_index, end_index) = (citation.start.unwrap_or_default(), citation.end.unwrap_or_default());
    for source in &citation.sources {
        let field = |name: &str| source.document.as_ref().or(source.tool_output.as_ref()).and_then(|d| d.get(name)?.as_str());
        let annotation = match field("url") {
            Some(url) => Annotation::UrlCitation { url_citation: Url { start_index, end_index, url, title: field("title").unwrap_or_default() } },
            None => Annotation::FileCitation { file_citation: File { start_index, end_index, file_id: source.id.as_deref().unwrap_or_default(), quote: citation.text.as_deref().unwrap_or_default() } },
        };
        let mut json = Vec::new();
        crate::chat::json(&mut json, &annotation);
        if let Ok(json) = std::str::from_utf8(&json) {
            each(json);
        }
    }
}

/// OpenAI's log probabilities. Cohere groups tokens to a piece of text: the piece's probability is the product of theirs.
fn logprobs(list: &[Logprob<'_>]) -> String {
    #[derive(Serialize)]
    struct Token<'a> {
        token: &'a str,
        logprob: f64,
        bytes: &'a [u8],
        top_logprobs: [(); 0],
    }
    #[derive(Serialize)]
    struct Body<'a> {
        content: Vec<Token<'a>>,
        refusal: Option<()>,
    }
    let content = list.iter().map(|l| {
        let token = l.text.as_deref().unwrap_or_default();
        Token { token, logprob: l.logprobs.iter().sum(), bytes: token.as_bytes(), top_logprobs: [] }
    });
    serde_json::to_string(&Body { content: content.collect(), refusal: None }).unwrap_or_default()
}

/// What stands for the arguments of a call that takes none.
const NO_ARGUMENTS: &str = "null";

/// Reads a whole answer.
pub(super) fn read(body: &[u8], target: &Target<'_>) -> Result<Answer, Error> {
    let response: Response<'_> = serde_json::from_slice(body).map_err(Error::answer)?;
    let reason = finish(response.finish_reason.as_deref().unwrap_or_default(), None)?;
    let Some(message) = response.message else { return Err(Error::answer("it has no `message`")) };
    let mut choice = Choice { finish: Some(reason), ..Choice::default() };
    for content in message.content.into_iter().flatten() {
        if let Some(text) = content.thinking.filter(|t| !t.is_empty()) {
            choice.reasoning.get_or_insert_default().push_str(&text);
        }
        if let Some(text) = content.text {
            choice.text.get_or_insert_default().push_str(&text);
        }
    }
    if let Some(plan) = message.tool_plan.filter(|p| !p.is_empty()) {
        choice.reasoning.get_or_insert_default().push_str(&plan);
    }
    for (position, call) in message.tool_calls.into_iter().flatten().enumerate() {
        let (name, arguments) = call.function.map(|f| (f.name.unwrap_or_default(), f.arguments.filter(|a| **a != *NO_ARGUMENTS).unwrap_or_default())).unwrap_or_default();
        let id = call.id.map_or_else(|| format!("call_{position}"), |id| id.0.into_owned());
        choice.calls.push(Call { id, name: name.0.into_owned(), arguments: arguments.0.into_owned() });
    }
    for citation in message.citations.iter().flatten() {
        annotations(citation, |json| choice.annotations.extend(RawValue::from_string(json.to_owned())));
    }
    if let Some(list) = &response.logprobs {
        choice.logprobs = RawValue::from_string(logprobs(list)).ok();
    }
    Ok(Answer { id: response.id.unwrap_or_default().0.into_owned(), model: target.model.to_owned(), choices: vec![choice], usage: response.usage.map(Usage::from) })
}

/// Reads a stream of events.
pub(super) struct Events {
    model: String,
    started: bool,
    ended: bool,
    /// Cohere's index of each call, and whether it has had arguments; the position is the index given out.
    calls: Vec<(u32, bool)>,
}

#[derive(Deserialize)]
struct Piece<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Str<'a>>,
    #[serde(borrow)]
    id: Option<Str<'a>>,
    index: Option<u32>,
    #[serde(borrow)]
    delta: Option<PieceDelta<'a>>,
    #[serde(borrow)]
    logprobs: Option<Logprob<'a>>,
}

#[derive(Deserialize)]
struct PieceDelta<'a> {
    #[serde(borrow)]
    message: Option<MessageDelta<'a>>,
    #[serde(borrow)]
    finish_reason: Option<Str<'a>>,
    #[serde(borrow)]
    error: Option<Str<'a>>,
    usage: Option<CohereUsage>,
}

/// What is a list in a whole message is one item in its pieces, and an empty list where there is none.
#[derive(Deserialize)]
struct MessageDelta<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_plan: Option<Str<'a>>,
    #[serde(borrow)]
    tool_calls: Option<&'a RawValue>,
    #[serde(borrow)]
    citations: Option<&'a RawValue>,
}

fn item<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>) -> Result<Option<T>, Error> {
    match raw.map(RawValue::get).filter(|json| json.starts_with('{')) {
        Some(json) => serde_json::from_str(json).map(Some).map_err(Error::answer),
        None => Ok(None),
    }
}

impl Events {
    pub(super) fn new(target: &Target<'_>) -> Self {
        Events { model: target.model.to_owned(), started: false, ended: false, calls: Vec::new() }
    }

    fn call(&mut self, index: u32, call: &ToolCall<'_>, out: &mut dyn FnMut(Delta<'_>)) {
        let at = self.calls.iter().position(|(i, _)| *i == index).unwrap_or_else(|| {
            let at = self.calls.len();
            self.calls.push((index, false));
            let id = call.id.as_deref().map_or_else(|| format!("call_{at}"), str::to_owned);
            out(Delta::Call { choice: 0, index: at as u32, id: &id, name: call.function.as_ref().and_then(|f| f.name.as_deref()).unwrap_or_default() });
            at
        });
        let begun = self.calls[at].1;
        if let Some(json) = call.function.as_ref().and_then(|f| f.arguments.as_deref()).filter(|a| !a.is_empty() && (begun || *a != NO_ARGUMENTS)) {
            self.calls[at].1 = true;
            out(Delta::Arguments { choice: 0, index: at as u32, json });
        }
    }

    fn message(&mut self, index: u32, message: &MessageDelta<'_>, out: &mut dyn FnMut(Delta<'_>)) -> Result<(), Error> {
        if let Some(text) = message.tool_plan.as_deref().filter(|t| !t.is_empty()) {
            out(Delta::Reasoning { choice: 0, text });
        }
        if let Some(content) = item::<Content<'_>>(message.content)? {
            if let Some(text) = content.thinking.as_deref().filter(|t| !t.is_empty()) {
                out(Delta::Reasoning { choice: 0, text });
            }
            if let Some(text) = content.text.as_deref().filter(|t| !t.is_empty()) {
                out(Delta::Text { choice: 0, text });
            }
        }
        if let Some(call) = item::<ToolCall<'_>>(message.tool_calls)? {
            self.call(index, &call, out);
        }
        if let Some(citation) = item::<Citation<'_>>(message.citations)? {
            annotations(&citation, |json| out(Delta::Annotation { choice: 0, json }));
        }
        Ok(())
    }
}

impl Transcoder for Events {
    fn event(&mut self, event: &Event<'_>, out: &mut dyn FnMut(Delta<'_>)) -> Result<(), Error> {
        let data = event.data.trim();
        if data.is_empty() || data == "[DONE]" {
            return Ok(());
        }
        let piece: Piece<'_> = serde_json::from_str(data).map_err(Error::answer)?;
        let Some(kind) = piece.kind.as_deref() else { return Err(openai::read_error(200, data.as_bytes()).into()) };
        if !self.started {
            self.started = true;
            out(Delta::Start { id: piece.id.as_deref().unwrap_or_default(), model: &self.model });
        }
        let Some(delta) = piece.delta else { return Ok(()) };
        if let Some(message) = &delta.message {
            self.message(piece.index.unwrap_or_default(), message, out)?;
        }
        if let Some(item) = piece.logprobs {
            out(Delta::Logprobs { choice: 0, json: &logprobs(&[item]) });
        }
        if kind == "message-end" {
            let reason = finish(delta.finish_reason.as_deref().unwrap_or_default(), delta.error.as_deref())?;
            self.ended = true;
            out(Delta::Finish { choice: 0, reason });
            if let Some(usage) = delta.usage {
                out(Delta::Usage(usage.into()));
            }
        }
        Ok(())
    }

    fn end(&mut self, _: &mut dyn FnMut(Delta<'_>)) -> Result<(), Error> {
        if self.ended { Ok(()) } else { Err(broken_off()) }
    }
}
