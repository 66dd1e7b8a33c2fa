//! OpenAI's legacy completions as a door, for targets that only chat: the prompt becomes what the user says, and the
//! answer's text comes back as the completion.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::answer::{Answer, Delta, Finish, MAX_CHOICES};
use crate::chat::{self, json};
use crate::door::{ClientError, Door, Meta, Writer};
use crate::envelope::{Envelope, parse_body};
use crate::usage::Usage;
use crate::wire::{ChatRequest, Content, Message, Str, open};
use crate::{Dialect, Error};

/// What stands in for the provider's name in refusals.
const TARGET: &str = "models that only chat";

/// OpenAI's legacy completions.
#[derive(Debug)]
pub struct Completions;

open! {
    /// A legacy completion request. What is not named here means the same in chat and passes as it stands. A bound on
    /// tokens that is not given is the model's own, not the 16 of the legacy models.
    Request {
        /// What to complete.
        "prompt" prompt: &'a RawValue,
        /// What comes behind the completion.
        "suffix" suffix: Str<'a>,
        /// Whether the prompt is repeated before the completion.
        "echo" echo: bool,
        /// How many to make of which the best `n` are given.
        "best_of" best_of: u32,
        /// Number of choices.
        "n" n: u32,
        /// How many alternatives per token.
        "logprobs" logprobs: u32,
        /// Most tokens to produce.
        "max_tokens" max_tokens: u64,
    }
}

impl Request<'_> {
    /// The prompt's one text.
    fn text(&self) -> Result<Str<'_>, Error> {
        let wrong = || Error::invalid("prompt", "`prompt` must be a string, or a list of one string");
        let raw = self.prompt.ok_or_else(|| Error::invalid("prompt", "`prompt` is missing"))?.get();
        if raw.starts_with('"') {
            return serde_json::from_str(raw).map_err(|_| wrong());
        }
        let list: Vec<&RawValue> = serde_json::from_str(raw).map_err(|_| wrong())?;
        match list.as_slice() {
            [one] if one.get().starts_with('"') => serde_json::from_str(one.get()).map_err(|_| wrong()),
            [first, ..] if !first.get().starts_with('"') => Err(Error::unsupported(TARGET, "prompt", "token ids mean nothing to another model; send the prompt as text")),
            [_, _, ..] => Err(Error::unsupported(TARGET, "prompt", "one prompt at a time; send a request for each")),
            _ => Err(wrong()),
        }
    }
}

impl Door for Completions {
    fn dialect(&self) -> Dialect {
        Dialect::Completions
    }

    fn read(&self, request: &Envelope, _: &mut Vec<String>) -> Result<Vec<u8>, Error> {
        read(request.body())
    }

    fn answer(&self, answer: &Answer, meta: &Meta) -> Vec<u8> {
        let echo = echoed(&meta.request);
        let mut out = Vec::with_capacity(512);
        head(&mut out, &answer.id, &answer.model, meta);
        let choices: Vec<ChoiceBody<'_>> = (0..)
            .zip(&answer.choices)
            .map(|(index, c)| {
                let text = c.text.as_deref().or(c.refusal.as_deref()).unwrap_or_default();
                let logprobs = c.logprobs.as_ref().and_then(|l| Logprobs::read(l.get(), &mut 0));
                ChoiceBody { text: format!("{echo}{text}"), index, logprobs, finish_reason: Some(finish(c.finish.unwrap_or_default())) }
            })
            .collect();
        json(&mut out, &choices);
        if let Some(usage) = &answer.usage {
            out.extend_from_slice(b",\"usage\":");
            out.extend_from_slice(usage.to_openai().as_bytes());
        }
        out.push(b'}');
        out
    }

    fn writer(&self, meta: Meta) -> Box<dyn Writer> {
        let echo = echoed(&meta.request);
        Box::new(ChunkWriter { meta, echo, head: Vec::new(), choices: Vec::new(), usage: None })
    }

    fn error(&self, error: &ClientError) -> Vec<u8> {
        chat::openai_error(error)
    }

    fn error_event(&self, error: &ClientError) -> Vec<u8> {
        chat::Chat.error_event(error)
    }
}

fn read(body: &[u8]) -> Result<Vec<u8>, Error> {
    let request: Request<'_> = parse_body(body)?;
    let prompt = request.text()?;
    if request.suffix.as_deref().is_some_and(|s| !s.is_empty()) {
        return Err(Error::unsupported(TARGET, "suffix", "say in the prompt what comes behind the gap"));
    }
    if request.best_of.is_some_and(|b| b > request.n.unwrap_or(1)) {
        return Err(Error::unsupported(TARGET, "best_of", "ask for as many with `n` and choose among them"));
    }
    if request.echo == Some(true) && request.logprobs.is_some() {
        return Err(Error::unsupported(TARGET, "echo", "there are no log probabilities of the prompt; leave out `echo` or `logprobs`"));
    }
    if request.max_tokens == Some(0) {
        return Err(Error::unsupported(TARGET, "max_tokens", "the prompt cannot be scored without an answer; ask for one token at least"));
    }
    if let Some((name, _)) = request.extra.iter().find(|(name, _)| matches!(&**name, "messages" | "max_completion_tokens" | "top_logprobs")) {
        return Err(Error::invalid(&**name, format!("`{name}` belongs to chat completions; this is the legacy completions API")));
    }
    let hub = ChatRequest {
        messages: Some(vec![Message { role: Some("user".into()), content: Some(Content::Text(prompt)), ..Message::default() }]),
        max_completion_tokens: request.max_tokens,
        n: request.n,
        logprobs: request.logprobs.map(|_| true),
        top_logprobs: request.logprobs.filter(|n| *n > 0),
        extra: request.extra.clone(),
        ..ChatRequest::default()
    };
    let mut out = Vec::with_capacity(body.len() + 64);
    json(&mut out, &hub);
    Ok(out)
}

/// The prompt, if the client wants it repeated.
fn echoed(request: &[u8]) -> String {
    let Ok(request) = parse_body::<Request<'_>>(request) else { return String::new() };
    if request.echo == Some(true) { request.text().map(|t| t.0.into_owned()).unwrap_or_default() } else { String::new() }
}

/// `{"id":…,"choices":`
fn head(out: &mut Vec<u8>, id: &str, model: &str, meta: &Meta) {
    out.extend_from_slice(b"{\"id\":");
    if id.is_empty() {
        json(out, &format!("cmpl-{}", meta.id))
    } else {
        json(out, id)
    }
    out.extend_from_slice(format!(",\"object\":\"text_completion\",\"created\":{},\"model\":", meta.created).as_bytes());
    json::<str>(out, if model.is_empty() { &meta.model } else { model });
    out.extend_from_slice(b",\"choices\":");
}

fn finish(reason: Finish) -> &'static str {
    match reason {
        Finish::ToolCalls => Finish::Stop.as_openai(),
        other => other.as_openai(),
    }
}

#[derive(Serialize)]
struct ChoiceBody<'a> {
    text: String,
    index: u32,
    logprobs: Option<Logprobs<'a>>,
    finish_reason: Option<&'static str>,
}

/// Log probabilities as the legacy API has them: columns.
#[derive(Serialize)]
struct Logprobs<'a> {
    tokens: Vec<Str<'a>>,
    token_logprobs: Vec<&'a RawValue>,
    top_logprobs: Option<Vec<Alternatives<'a>>>,
    text_offset: Vec<usize>,
}

struct Alternatives<'a>(Vec<(Str<'a>, &'a RawValue)>);

impl Serialize for Alternatives<'_> {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(self.0.iter().map(|(token, logprob)| (token, logprob)))
    }
}

impl<'a> Logprobs<'a> {
    /// Reads chat's. `offset` is where the next token begins in the text, in characters.
    fn read(chat: &'a str, offset: &mut usize) -> Option<Self> {
        #[derive(Deserialize)]
        struct Lists<'a> {
            #[serde(borrow)]
            content: Option<Vec<Token<'a>>>,
        }
        #[derive(Deserialize)]
        struct Token<'a> {
            #[serde(borrow)]
            token: Str<'a>,
            #[serde(borrow)]
            logprob: &'a RawValue,
            // Some hosts say `null` where there are none.
            #[serde(borrow)]
            top_logprobs: Option<Vec<Token<'a>>>,
        }
        let tokens = serde_json::from_str::<Lists<'_>>(chat).ok()?.content?;
        let mut out = Logprobs { tokens: Vec::new(), token_logprobs: Vec::new(), top_logprobs: None, text_offset: Vec::new() };
        let some = tokens.iter().any(|t| t.top_logprobs.as_ref().is_some_and(|top| !top.is_empty()));
        let mut tops = Vec::new();
        for t in tokens {
            out.text_offset.push(*offset);
            *offset += t.token.chars().count();
            out.tokens.push(t.token);
            out.token_logprobs.push(t.logprob);
            let mut top: Vec<(Str<'a>, &RawValue)> = Vec::new();
            for t in t.top_logprobs.into_iter().flatten() {
                // Two tokens may look the same when their bytes are not whole characters; a key cannot stand twice.
                if top.iter().all(|(known, _)| *known != t.token) {
                    top.push((t.token, t.logprob));
                }
            }
            tops.push(Alternatives(top));
        }
        out.top_logprobs = some.then_some(tops);
        Some(out)
    }
}

#[derive(Default)]
struct Progress {
    started: bool,
    offset: usize,
    finish: Option<Finish>,
}

/// Writes `text_completion` chunks.
struct ChunkWriter {
    meta: Meta,
    echo: String,
    /// `data: {"id":…,"choices":[` as every event begins.
    head: Vec<u8>,
    choices: Vec<Progress>,
    usage: Option<Usage>,
}

impl ChunkWriter {
    fn start(&mut self, id: &str, model: &str) {
        if self.head.is_empty() {
            self.head.extend_from_slice(b"data: ");
            head(&mut self.head, id, model, &self.meta);
            self.head.push(b'[');
        }
    }

    fn progress(&mut self, choice: u32) -> &mut Progress {
        let choice = (choice as usize).min(MAX_CHOICES - 1);
        if self.choices.len() <= choice {
            self.choices.resize_with(choice + 1, Progress::default);
        }
        &mut self.choices[choice]
    }

    fn chunk(&mut self, body: &ChoiceBody<'_>, out: &mut Vec<u8>) {
        self.start("", "");
        out.extend_from_slice(&self.head);
        json(out, body);
        out.extend_from_slice(if self.meta.include_usage { b"],\"usage\":null}\n\n" } else { b"]}\n\n" });
    }

    fn text(&mut self, index: u32, text: &str, out: &mut Vec<u8>) {
        let first = !std::mem::replace(&mut self.progress(index).started, true);
        let text = if first { format!("{}{text}", self.echo) } else { text.to_owned() };
        if !text.is_empty() {
            self.chunk(&ChoiceBody { text, index, logprobs: None, finish_reason: None }, out);
        }
    }
}

impl Writer for ChunkWriter {
    fn delta(&mut self, delta: &Delta<'_>, out: &mut Vec<u8>) {
        match *delta {
            Delta::Start { id, model } => self.start(id, model),
            Delta::Text { choice, text } | Delta::Refusal { choice, text } => self.text(choice, text, out),
            Delta::Logprobs { choice, json } => {
                let mut offset = self.progress(choice).offset;
                if let Some(logprobs) = Logprobs::read(json, &mut offset).filter(|l| !l.tokens.is_empty()) {
                    self.progress(choice).offset = offset;
                    self.chunk(&ChoiceBody { text: String::new(), index: choice, logprobs: Some(logprobs), finish_reason: None }, out);
                }
            }
            Delta::Finish { choice, reason } => self.progress(choice).finish = Some(reason),
            Delta::Usage(usage) => self.usage = Some(usage),
            // No tools, annotations or images can be asked for here, and reasoning is no part of a completion.
            Delta::Reasoning { .. } | Delta::Detail { .. } | Delta::Call { .. } | Delta::Arguments { .. } | Delta::Annotation { .. } | Delta::Image { .. } => {}
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        self.progress(0);
        for index in 0..self.choices.len() as u32 {
            self.text(index, "", out);
            let reason = finish(self.progress(index).finish.unwrap_or_default());
            self.chunk(&ChoiceBody { text: String::new(), index, logprobs: None, finish_reason: Some(reason) }, out);
        }
        if self.meta.include_usage {
            out.extend_from_slice(&self.head);
            out.extend_from_slice(b"],\"usage\":");
            out.extend_from_slice(self.usage.unwrap_or_default().to_openai().as_bytes());
            out.extend_from_slice(b"}\n\n");
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn error(&mut self, error: &ClientError, out: &mut Vec<u8>) {
        out.extend_from_slice(&Completions.error_event(error));
    }
}
