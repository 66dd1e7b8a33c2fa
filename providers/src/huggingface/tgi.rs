//! TGI's native dialect: a prompt in, tokens out. The conversation becomes a plain prompt of role headers, since the server's
//! own chat template is only behind the compatible route; tools are for that route too. TGI leaves a stop sequence at the
//! end of the text; the client's own is not taken off, since an answer is read without its request.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::KIND;
use super::compatible::{Grammar, grammar};
use crate::answer::{Answer, Delta, Finish};
use crate::sse::Event;
use crate::usage::Usage;
use crate::wire::{ChatRequest, Content, Message, Str};
use crate::{Call, Error, Target, Transcoder, broken_off};

/// Where the model begins to speak for the user. It is told to stop there, and what it said of it is taken off.
const NEXT_TURN: &str = "\nUser:";
/// As many stop sequences as a server takes unless it was started otherwise.
const MOST_STOPS: usize = 4;

#[derive(Serialize)]
struct Body<'m> {
    inputs: String,
    parameters: Parameters<'m>,
}

#[derive(Serialize)]
struct Parameters<'m> {
    #[serde(skip_serializing_if = "Option::is_none")]
    max_new_tokens: Option<u64>,
    do_sample: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i64>,
    stop: Vec<&'m str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grammar: Option<Grammar<'m>>,
    /// For the finish reason and the count of tokens.
    details: bool,
    return_full_text: bool,
}

/// Writes the call.
pub(super) fn write(request: &ChatRequest<'_>) -> Result<Call, Error> {
    refuse(request)?;
    let mut warnings = Vec::new();
    let mut stop: Vec<&str> = request.stop.iter().flat_map(|s| &s.0).map(|s| &**s).collect();
    if stop.len() < MOST_STOPS {
        stop.push(NEXT_TURN);
    }
    // Sampling parameters must lie strictly inside their ranges; at the ends they mean the likeliest token, or nothing.
    let greedy = request.temperature.is_some_and(|t| t <= 0.0) || request.top_p.is_some_and(|p| p <= 0.0);
    let sampled = |value: Option<f64>| value.filter(|_| !greedy);
    let body = Body {
        inputs: prompt(request)?,
        parameters: Parameters {
            max_new_tokens: request.max_output(),
            do_sample: !greedy,
            temperature: sampled(request.temperature),
            top_p: sampled(request.top_p).filter(|p| *p < 1.0),
            top_k: request.top_k.filter(|k| !greedy && *k > 0),
            frequency_penalty: request.frequency_penalty,
            seed: request.seed.filter(|s| *s > 0),
            stop,
            grammar: grammar(request)?,
            details: true,
            return_full_text: false,
        },
    };
    dropped(request, &mut warnings);
    let mut call = Call::json(if request.streams() { "/generate_stream" } else { "/generate" }, &body);
    call.warnings = warnings;
    Ok(call)
}

fn refuse(request: &ChatRequest<'_>) -> Result<(), Error> {
    let asked = [
        ("n", request.n.is_some_and(|n| n > 1), "it gives one choice; ask as often as you need choices"),
        ("logprobs", request.logprobs == Some(true), "use the compatible route: leave `api_version` out of the provider's settings"),
        ("tools", request.functions().next().is_some() || request.tools.as_ref().is_some_and(|t| !t.is_empty()), "use the compatible route: leave `api_version` out of the provider's settings"),
        ("modalities", request.modalities.iter().flatten().any(|m| &**m != "text"), "it answers in text only"),
    ];
    match asked.into_iter().find(|(_, given, _)| *given) {
        Some((param, _, message)) => Err(Error::unsupported(KIND, param, message)),
        None => Ok(()),
    }
}

fn dropped(request: &ChatRequest<'_>, warnings: &mut Vec<String>) {
    let given = |raw: Option<&RawValue>| raw.is_some_and(|v| v.get() != "null");
    for (name, given) in [
        ("presence_penalty", request.presence_penalty.is_some_and(|p| p != 0.0)),
        ("seed", request.seed.is_some_and(|s| s <= 0)),
        ("logit_bias", given(request.logit_bias)),
        ("user", request.user.is_some()),
        ("metadata", given(request.metadata)),
        ("store", request.store.is_some()),
        ("service_tier", request.service_tier.is_some()),
        ("verbosity", request.verbosity.is_some()),
        ("reasoning_effort", request.reasoning_effort.is_some()),
        ("thinking", given(request.thinking)),
        ("prompt_cache_key", request.prompt_cache_key.is_some()),
    ] {
        if given {
            warnings.push(format!("dropped `{name}`: TGI's native route does not take it"));
        }
    }
    for (name, _) in request.extra.iter().filter(|(_, value)| value.get() != "null") {
        warnings.push(format!("dropped `{name}`: TGI's native route does not know it"));
    }
}

/// The conversation as one text: a header for each role, and the assistant's at the end for the model to go on from.
fn prompt(request: &ChatRequest<'_>) -> Result<String, Error> {
    let messages = request.messages.as_deref().unwrap_or_default();
    if messages.is_empty() {
        return Err(Error::invalid("messages", "`messages` must have at least one message"));
    }
    let mut out = String::new();
    for (at, message) in messages.iter().enumerate() {
        let header = match message.role.as_deref() {
            Some("system" | "developer") => "System",
            Some("user") => "User",
            Some("assistant") => "Assistant",
            Some("tool" | "function") => "Tool",
            _ => return Err(Error::invalid(format!("messages[{at}].role"), "`role` must be system, developer, user, assistant or tool")),
        };
        let _ = write!(out, "{header}: ");
        content(&mut out, at, message)?;
        // An assistant's last message is the beginning of the answer.
        if at + 1 < messages.len() || header != "Assistant" {
            out.push('\n');
        }
    }
    if messages.last().and_then(|m| m.role.as_deref()) != Some("assistant") {
        out.push_str("Assistant:");
    }
    Ok(out)
}

fn content(out: &mut String, at: usize, message: &Message<'_>) -> Result<(), Error> {
    match &message.content {
        None => {}
        Some(Content::Text(text)) => out.push_str(text),
        Some(Content::Parts(parts)) => {
            for (n, part) in parts.iter().enumerate() {
                match (part.kind.as_deref(), &part.image_url) {
                    (Some("text"), _) => out.push_str(part.text.as_deref().unwrap_or_default()),
                    // TGI's way to put an image into a prompt.
                    (Some("image_url"), Some(image)) => {
                        let _ = write!(out, "![]({})", image.url.as_deref().unwrap_or_default());
                    }
                    (other, _) => return Err(Error::unsupported(KIND, format!("messages[{at}].content[{n}]"), format!("it takes no parts of type `{}`", other.unwrap_or_default()))),
                }
            }
        }
    }
    // Calls of earlier turns, which another target made: the model should know of them.
    for call in message.tool_calls.iter().flatten().filter_map(|c| c.function.as_ref()) {
        let _ = write!(out, "{}({})", call.name.as_deref().unwrap_or_default(), call.arguments.as_ref().map_or("{}", |a| a.json()));
    }
    Ok(())
}

#[derive(Deserialize)]
struct Details<'a> {
    #[serde(borrow)]
    finish_reason: Option<Str<'a>>,
    generated_tokens: Option<u64>,
    /// In streams only.
    input_length: Option<u64>,
    /// The prompt's tokens, where they were asked for.
    #[serde(default)]
    prefill: Vec<serde::de::IgnoredAny>,
}

impl Details<'_> {
    fn finish(&self) -> Finish {
        match self.finish_reason.as_deref() {
            Some("length") => Finish::Length,
            _ => Finish::Stop,
        }
    }

    fn usage(&self) -> Usage {
        let prompt = self.input_length.or(Some(self.prefill.len() as u64).filter(|n| *n > 0));
        Usage { input: prompt.unwrap_or_default(), output: self.generated_tokens.unwrap_or_default(), estimated: prompt.is_none() || self.generated_tokens.is_none(), ..Usage::default() }
    }
}

#[derive(Deserialize)]
struct Generated<'a> {
    #[serde(borrow)]
    generated_text: Str<'a>,
    #[serde(borrow)]
    details: Option<Details<'a>>,
}

/// Reads a whole answer.
pub(super) fn read(body: &[u8], target: &Target<'_>) -> Result<Answer, Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either<'a> {
        #[serde(borrow)]
        One(Generated<'a>),
        // Inference Endpoints wrap it into a list.
        #[serde(borrow)]
        List([Generated<'a>; 1]),
    }
    let value: &RawValue = serde_json::from_slice(body).map_err(Error::answer)?;
    let generated = match serde_json::from_str(value.get()) {
        Ok(Either::One(generated) | Either::List([generated])) => generated,
        Err(_) if memchr::memmem::find(body, b"\"error\"").is_some() => return Err(super::read_error(200, body).into()),
        Err(e) => return Err(Error::answer(e)),
    };
    let mut answer = Answer { model: target.model.to_owned(), ..Answer::default() };
    let text = &*generated.generated_text;
    let text = text.strip_suffix(NEXT_TURN).unwrap_or(text);
    let choice = answer.choice(0);
    // The header ends in a colon, and the model begins with the space behind it.
    choice.text = Some(text.strip_prefix(' ').unwrap_or(text).to_owned());
    choice.finish = Some(generated.details.as_ref().map_or(Finish::Stop, Details::finish));
    answer.usage = generated.details.map(|d| d.usage());
    Ok(answer)
}

/// Reads a stream: a token in every event, the details in the last. There is no `[DONE]`.
#[derive(Debug)]
pub(super) struct Tokens {
    model: String,
    started: bool,
    done: bool,
    /// Text that may be the beginning of [`NEXT_TURN`].
    held: String,
    said: bool,
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow)]
    token: Option<Token<'a>>,
    #[serde(borrow)]
    generated_text: Option<Str<'a>>,
    #[serde(borrow)]
    details: Option<Details<'a>>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Token<'a> {
    #[serde(borrow)]
    text: Str<'a>,
    #[serde(default)]
    special: bool,
}

impl Tokens {
    pub(super) fn new(target: &Target<'_>) -> Self {
        Tokens { model: target.model.to_owned(), started: false, done: false, held: String::new(), said: false }
    }

    /// Gives out what is held but for its last `keep` bytes.
    fn give(&mut self, keep: usize, out: &mut dyn FnMut(Delta<'_>)) {
        let end = self.held.len() - keep;
        let text = &self.held[..end];
        let text = if self.said { text } else { text.strip_prefix(' ').unwrap_or(text) };
        if !text.is_empty() {
            out(Delta::Text { choice: 0, text });
        }
        self.said |= end > 0;
        self.held.drain(..end);
    }
}

impl Transcoder for Tokens {
    fn event(&mut self, event: &Event<'_>, out: &mut dyn FnMut(Delta<'_>)) -> Result<(), Error> {
        let data = event.data.trim();
        if data.is_empty() || data == "[DONE]" {
            return Ok(());
        }
        let frame: Frame<'_> = serde_json::from_str(data).map_err(Error::answer)?;
        if event.name == "error" || frame.error.is_some_and(|e| e.get() != "null") {
            return Err(super::read_error(200, data.as_bytes()).into());
        }
        if !std::mem::replace(&mut self.started, true) {
            out(Delta::Start { id: "", model: &self.model });
        }
        if let Some(token) = frame.token.filter(|t| !t.special) {
            self.held.push_str(&token.text);
            let keep = (0..=NEXT_TURN.len()).rev().find(|n| self.held.ends_with(&NEXT_TURN[..*n])).unwrap_or_default();
            self.give(keep, out);
        }
        if frame.details.is_some() || frame.generated_text.is_some() {
            if self.held == NEXT_TURN {
                self.held.clear();
            }
            self.give(0, out);
            self.done = true;
            out(Delta::Finish { choice: 0, reason: frame.details.as_ref().map_or(Finish::Stop, Details::finish) });
            if let Some(details) = &frame.details {
                out(Delta::Usage(details.usage()));
            }
        }
        Ok(())
    }

    fn end(&mut self, _: &mut dyn FnMut(Delta<'_>)) -> Result<(), Error> {
        if self.done { Ok(()) } else { Err(broken_off()) }
    }
}
