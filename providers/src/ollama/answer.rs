//! Reads Ollama's answers, whole and line by line. Calls come whole, their arguments as objects and often without an id; the
//! prompt's tokens may be missing where the prompt was cached, and then the usage says that it is an estimate.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::answer::{Answer, Delta, Finish};
use crate::sse::Event;
use crate::usage::Usage;
use crate::wire::{Arguments, Str};
use crate::{Error, Transcoder, broken_off, carry, openai};

/// A whole answer, or a line of a stream: they are the same thing.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    model: Option<Str<'a>>,
    #[serde(borrow)]
    created_at: Option<Str<'a>>,
    #[serde(borrow)]
    message: Option<Message<'a>>,
    #[serde(default)]
    done: bool,
    #[serde(borrow)]
    done_reason: Option<Str<'a>>,
    #[serde(borrow)]
    logprobs: Option<&'a RawValue>,
    prompt_eval_count: Option<u64>,
    eval_count: Option<u64>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    content: Option<Str<'a>>,
    #[serde(borrow)]
    thinking: Option<Str<'a>>,
    #[serde(borrow)]
    tool_calls: Option<Vec<Call<'a>>>,
}

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow)]
    id: Option<Str<'a>>,
    #[serde(borrow)]
    function: Function<'a>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow)]
    name: Str<'a>,
    #[serde(borrow, default)]
    arguments: Arguments<'a>,
}

/// Reads a whole answer.
pub(super) fn read(body: &[u8]) -> Result<Answer, Error> {
    let text = std::str::from_utf8(body).map_err(Error::answer)?;
    let (mut lines, mut answer) = (Lines::default(), Answer::default());
    lines.line(text, &mut |delta| answer.apply(&delta))?;
    lines.end(&mut |_| ())?;
    answer.choice(0).text.get_or_insert_default();
    Ok(answer)
}

/// Reads a stream.
#[derive(Debug, Default)]
pub(super) struct Lines {
    started: bool,
    done: bool,
    calls: u32,
    /// Bytes of what was said, to estimate by where the server does not count.
    said: u64,
}

impl Transcoder for Lines {
    fn event(&mut self, event: &Event<'_>, out: &mut dyn FnMut(Delta<'_>)) -> Result<(), Error> {
        if event.data.trim().is_empty() { Ok(()) } else { self.line(&event.data, out) }
    }

    fn end(&mut self, _: &mut dyn FnMut(Delta<'_>)) -> Result<(), Error> {
        if self.done { Ok(()) } else { Err(broken_off()) }
    }
}

impl Lines {
    fn line(&mut self, text: &str, out: &mut dyn FnMut(Delta<'_>)) -> Result<(), Error> {
        let line: Line<'_> = serde_json::from_str(text).map_err(Error::answer)?;
        if line.error.is_some_and(|e| e.get() != "null") {
            return Err(openai::read_error(200, text.as_bytes()).into());
        }
        if !std::mem::replace(&mut self.started, true) {
            out(Delta::Start { id: "", model: line.model.as_deref().unwrap_or_default() });
        }
        if let Some(message) = &line.message {
            self.message(message, line.created_at.as_deref().unwrap_or_default(), out);
        }
        if let Some(raw) = line.logprobs.filter(|raw| raw.get() != "null") {
            out(Delta::Logprobs { choice: 0, json: &format!("{{\"content\":{}}}", raw.get()) });
        }
        if line.done {
            self.done = true;
            // `load` and `unload` end an answer of nothing.
            out(Delta::Finish { choice: 0, reason: Finish::from_openai(line.done_reason.as_deref().unwrap_or_default()) });
            out(Delta::Usage(Usage {
                input: line.prompt_eval_count.unwrap_or_default(),
                output: line.eval_count.unwrap_or_else(|| self.said.div_ceil(4)),
                estimated: line.prompt_eval_count.is_none() || line.eval_count.is_none(),
                ..Usage::default()
            }));
        }
        Ok(())
    }

    fn message(&mut self, message: &Message<'_>, created: &str, out: &mut dyn FnMut(Delta<'_>)) {
        if let Some(text) = message.thinking.as_deref().filter(|t| !t.is_empty()) {
            self.said += text.len() as u64;
            out(Delta::Reasoning { choice: 0, text });
        }
        if let Some(text) = message.content.as_deref().filter(|t| !t.is_empty()) {
            self.said += text.len() as u64;
            out(Delta::Text { choice: 0, text });
        }
        for call in message.tool_calls.iter().flatten() {
            let index = self.calls;
            self.calls += 1;
            let json = call.function.arguments.json();
            self.said += (call.function.name.len() + json.len()) as u64;
            // The time makes the id another in every turn of a conversation, the index in every call of an answer.
            let id = call.id.as_deref().filter(|id| !id.is_empty()).map_or_else(|| format!("call_{}", carry::short_id(&format!("{created} {index} {} {json}", &*call.function.name))), str::to_owned);
            out(Delta::Call { choice: 0, index, id: &id, name: &call.function.name });
            out(Delta::Arguments { choice: 0, index, json });
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_counted_is_said_to_be_an_estimate() {
        let usage = |counts: &str| read(format!(r#"{{"model":"m","message":{{"content":"four and four"}},"done":true,"done_reason":"stop"{counts}}}"#).as_bytes()).unwrap().usage.unwrap();
        assert_eq!(usage(r#","prompt_eval_count":5,"eval_count":6"#), Usage { input: 5, output: 6, ..Usage::default() });
        assert_eq!(usage(r#","eval_count":6"#), Usage { output: 6, estimated: true, ..Usage::default() });
        assert_eq!(usage(""), Usage { output: 4, estimated: true, ..Usage::default() });
    }

    #[test]
    fn calls_without_an_id_get_one_that_no_other_turn_has() {
        let id = |created: &str| {
            let body = format!(r#"{{"created_at":"{created}","message":{{"tool_calls":[{{"function":{{"name":"f","arguments":{{}}}}}},{{"function":{{"name":"f"}}}}]}},"done":true}}"#);
            let calls = &read(body.as_bytes()).unwrap().choices[0].calls.clone();
            assert_ne!(calls[0].id, calls[1].id);
            assert_eq!((&*calls[0].arguments, &*calls[1].arguments), ("{}", "{}"));
            calls[0].id.clone()
        };
        assert_ne!(id("2026-11-21T07:00:00.1Z"), id("2026-11-21T07:00:00.2Z"));
    }
}
