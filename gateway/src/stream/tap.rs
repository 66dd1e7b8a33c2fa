//! A stream whose bytes pass: what there is to know of it is read along, mostly without parsing.

use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use memchr::memmem::Finder;
use providers::answer::Finish;
use providers::sse::{Event, SseError, end_of_event, end_of_events, read};
use providers::usage::{OpenAiUsage, Usage};
use providers::{Dialect, Error, broken_off};

use super::Seen;

/// Reads along without changing anything, except that a usage chunk is taken out that the client did not ask for.
pub(super) struct Tap {
    pub(super) dialect: Dialect,
    /// Whether the chunk with nothing but usage is kept from the client.
    strip_usage: bool,
    /// An event that has not come whole yet.
    rest: BytesMut,
    /// Bytes of an event that are not text, as the last one that was read had them.
    frame: u64,
    /// Whether the terminator has been passed on.
    terminated: bool,
    usage: Usage,
}

/// Words that are looked for in passing bytes; an event is parsed only if one of them is in it.
static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"usage\""));
static ERROR: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"error"));
static FINISH: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"finish_reason\""));

impl Tap {
    pub(super) fn new(dialect: Dialect, strip_usage: bool) -> Self {
        Tap { dialect, strip_usage, rest: BytesMut::new(), frame: 0, terminated: false, usage: Usage::default() }
    }

    pub(super) fn push(&mut self, frame: Bytes, seen: &mut Seen, limit: usize) -> Result<Bytes, Error> {
        let bytes = if self.rest.is_empty() {
            frame
        } else {
            self.rest.extend_from_slice(&frame);
            self.rest.split().freeze()
        };
        let end = end_of_events(&bytes);
        if end < bytes.len() {
            if bytes.len() - end > limit {
                return Err(Error::answer(format!("an event of its stream is longer than {limit} bytes")));
            }
            self.rest.extend_from_slice(&bytes[end..]);
        }
        if end == 0 {
            return Ok(Bytes::new());
        }
        self.complete(bytes.slice(..end), seen)
    }

    /// Whole events. Most of the time none of them is of interest and they pass as they are.
    fn complete(&mut self, events: Bytes, seen: &mut Seen) -> Result<Bytes, Error> {
        if !self.is_of_interest(&events, seen) {
            self.pass(&events, seen)?;
            return Ok(events);
        }
        let mut kept: Option<BytesMut> = None;
        let mut at = 0;
        while at < events.len() {
            let end = end_of_event(&events[at..]).map_or(events.len(), |n| at + n);
            let raw = &events[at..end];
            let keep = if self.is_of_interest(raw, seen) {
                match read(raw).map_err(Error::answer)? {
                    Some(event) => self.event(&event, seen)?,
                    None => true,
                }
            } else {
                self.pass(raw, seen)?;
                true
            };
            match (&mut kept, keep) {
                (None, false) => kept = Some(BytesMut::from(&events[..at])),
                (Some(kept), true) => kept.extend_from_slice(raw),
                _ => {}
            }
            at = end;
        }
        Ok(kept.map_or(events, BytesMut::freeze))
    }

    /// Whether events have to be read. Of a chat that has begun it is few: those that tell usage, an end or an error.
    fn is_of_interest(&self, events: &[u8], seen: &Seen) -> bool {
        !seen.content || !matches!(self.dialect, Dialect::Chat | Dialect::Completions) || has_value(&USAGE, events) || has_value(&FINISH, events) || ERROR.find(events).is_some()
    }

    /// Events that pass unread.
    fn pass(&mut self, events: &[u8], seen: &mut Seen) -> Result<(), Error> {
        // Half a character would pass for text, and every client reads it differently.
        std::str::from_utf8(events).map_err(|_| Error::answer(SseError::NotUtf8))?;
        // Each event ends in two line ends, and there are no others in it; what is not its frame is text.
        let count = memchr::memchr_iter(b'\n', events).count() as u64 / 2;
        seen.text += (events.len() as u64).saturating_sub(count * self.frame);
        self.note_done(events, seen);
        Ok(())
    }

    fn note_done(&mut self, events: &[u8], seen: &mut Seen) {
        // A line of its own: an answer may say these words too.
        let line = events.trim_ascii_end().rsplit(|b| *b == b'\n').next().and_then(|line| line.strip_prefix(b"data:"));
        if line.is_some_and(|data| data.trim_ascii() == b"[DONE]") {
            self.terminated = true;
            seen.done = true;
        }
    }

    /// Reads one event along; tells whether the client gets it.
    fn event(&mut self, event: &Event<'_>, seen: &mut Seen) -> Result<bool, Error> {
        let data = event.data.trim();
        match self.dialect {
            Dialect::Chat | Dialect::Completions => self.chunk(event.name, data, seen),
            Dialect::Messages => {
                let kind = if event.name.is_empty() { kind_of(data) } else { event.name };
                match kind {
                    "error" => return Err(providers::openai::read_error(200, data.as_bytes()).into()),
                    "message_start" | "ping" => {}
                    "message_stop" => {
                        seen.done = true;
                        self.terminated = true;
                    }
                    "message_delta" => seen.finish = seen.finish.or(Some(Finish::from_openai(&between(data, "\"stop_reason\":\"")))),
                    _ => {
                        seen.content = true;
                        seen.text += text_of(data, &["text", "thinking", "partial_json"]);
                    }
                }
                if memchr::memmem::find(data.as_bytes(), b"\"usage\"").is_some() && providers::anthropic::tap_usage(data, &mut self.usage) {
                    seen.tells(self.usage);
                }
                Ok(true)
            }
            Dialect::Responses => self.responses(event, data, seen),
            Dialect::Generate => {
                if event.name == "error" || data.starts_with("{\"error\"") || data.starts_with("[{\"error\"") || data.starts_with("{\n  \"error\"") {
                    return Err(providers::openai::read_error(200, data.as_bytes()).into());
                }
                seen.content = true;
                seen.text += text_of(data, &["text"]);
                if providers::gemini::tap_usage(data, &mut self.usage) {
                    seen.tells(self.usage);
                }
                if memchr::memmem::find(data.as_bytes(), b"\"finishReason\"").is_some() || memchr::memmem::find(data.as_bytes(), b"\"blockReason\"").is_some() {
                    seen.finish = Some(Finish::Stop);
                    seen.done = true;
                    self.terminated = true;
                }
                Ok(true)
            }
        }
    }

    fn responses(&mut self, event: &Event<'_>, data: &str, seen: &mut Seen) -> Result<bool, Error> {
        let kind = if event.name.is_empty() { kind_of(data) } else { event.name };
        match kind {
            "error" => return Err(providers::openai::read_error(200, data.as_bytes()).into()),
            "response.created" | "response.in_progress" | "response.queued" => {}
            "response.completed" | "response.incomplete" | "response.failed" => {
                // A failure before anything was shown is one that another target may not have.
                if kind == "response.failed" && !seen.content {
                    return Err(providers::openai::read_error(200, failure(data).as_bytes()).into());
                }
                seen.finish = Some(if kind == "response.incomplete" { Finish::Length } else { Finish::Stop });
                seen.done = true;
                self.terminated = true;
                if providers::responses::tap_usage(data, &mut self.usage) {
                    seen.tells(self.usage);
                }
            }
            _ => {
                seen.content = true;
                if kind.ends_with(".delta") {
                    seen.text += text_of(data, &["delta"]);
                }
            }
        }
        Ok(true)
    }

    fn chunk(&mut self, name: &str, data: &str, seen: &mut Seen) -> Result<bool, Error> {
        if data == "[DONE]" {
            seen.done = true;
            self.terminated = true;
            return Ok(true);
        }
        #[derive(serde::Deserialize)]
        struct Head<'a> {
            #[serde(borrow)]
            choices: Option<Vec<ChoiceHead<'a>>>,
            #[serde(borrow)]
            usage: Option<&'a serde_json::value::RawValue>,
            #[serde(borrow)]
            error: Option<&'a serde_json::value::RawValue>,
        }
        #[derive(serde::Deserialize)]
        struct ChoiceHead<'a> {
            #[serde(borrow)]
            finish_reason: Option<std::borrow::Cow<'a, str>>,
            #[serde(borrow)]
            delta: Option<&'a serde_json::value::RawValue>,
            #[serde(borrow)]
            text: Option<&'a serde_json::value::RawValue>,
        }
        let head: Head<'_> = serde_json::from_str(data).map_err(Error::answer)?;
        if name == "error" || head.error.is_some_and(|e| e.get() != "null") {
            return Err(providers::openai::read_error(200, data.as_bytes()).into());
        }
        let text = text_of(data, CHUNK);
        if text > 0 {
            seen.text += text;
            // With what stands around the data: `data: ` and two line ends.
            self.frame = (data.len() as u64 + 8).saturating_sub(text);
        }
        let choices = head.choices.unwrap_or_default();
        let bare = choices.is_empty();
        for choice in &choices {
            if let Some(reason) = choice.finish_reason.as_deref().filter(|r| !r.is_empty()) {
                seen.finish = Some(Finish::from_openai(reason));
                seen.content = true;
            }
            // The first chunk says who speaks and nothing more: an error may still come in its place.
            seen.content |= choice.text.is_some() || choice.delta.is_some_and(|d| has_content(d.get()));
        }
        if let Some(usage) = head.usage.filter(|u| u.get() != "null") {
            // What is no usage by its shape is none; the answer is as good.
            if let Ok(usage) = serde_json::from_str::<OpenAiUsage>(usage.get()) {
                seen.tells(usage.into());
            }
            return Ok(!(bare && self.strip_usage));
        }
        Ok(true)
    }

    pub(super) fn end(&mut self, seen: &mut Seen) -> Result<Bytes, Error> {
        let mut out = Bytes::new();
        if !self.rest.is_empty() {
            // An event that lacks only its blank line.
            self.rest.extend_from_slice(b"\n\n");
            let rest = self.rest.split().freeze();
            out = self.complete(rest, seen)?;
        }
        if self.terminated {
            return Ok(out);
        }
        if matches!(self.dialect, Dialect::Chat | Dialect::Completions) && seen.finish.is_some() {
            // A host that never says `[DONE]`: clients that wait for it should not.
            seen.done = true;
            return Ok([out, Bytes::from_static(b"data: [DONE]\n\n")].concat().into());
        }
        Err(broken_off())
    }
}

/// How many bytes a whole answer says, arguments of calls included.
#[must_use]
pub fn said(dialect: Dialect, answer: &str) -> u64 {
    let names: &[&str] = match dialect {
        Dialect::Messages => &["text", "thinking", "input"],
        Dialect::Responses => &["text", "arguments", "input", "refusal"],
        Dialect::Generate => &["text", "args"],
        Dialect::Chat | Dialect::Completions => CHUNK,
    };
    text_of(answer, names)
}

/// Where a chunk of OpenAI's has text.
const CHUNK: &[&str] = &["content", "reasoning_content", "reasoning", "arguments", "refusal", "text"];

/// How many bytes of text stand in the fields of these names: in strings, and in objects where one may be (`input`, `args`).
fn text_of(data: &str, names: &[&str]) -> u64 {
    let mut text = 0;
    let mut at = 0;
    while let Some((open, close)) = string_from(data, at) {
        at = close + 1;
        let Some(value) = data[at..].trim_start().strip_prefix(':').map(str::trim_start) else { continue };
        let start = data.len() - value.len();
        let name = &data[open..close];
        if value.starts_with('"') {
            let Some((from, to)) = string_from(data, start) else { break };
            if names.contains(&name) {
                text += (to - from) as u64;
            }
            at = to + 1;
        } else if value.starts_with('{') && matches!(name, "input" | "args") && names.contains(&name) {
            let Some(Ok(object)) = serde_json::Deserializer::from_str(value).into_iter::<&serde_json::value::RawValue>().next() else { break };
            text += object.get().len() as u64;
            at = start + object.get().len();
        }
    }
    text
}

/// Where the next string begins and ends, without its quotes.
fn string_from(data: &str, at: usize) -> Option<(usize, usize)> {
    let open = at + memchr::memchr(b'"', data.as_bytes().get(at..)?)? + 1;
    let mut close = open;
    loop {
        close += memchr::memchr2(b'"', b'\\', data.as_bytes().get(close..)?)?;
        if data.as_bytes()[close] == b'"' {
            return Some((open, close));
        }
        close += 2;
    }
}

/// Whether a field stands in these bytes with a value other than `null`.
fn has_value(field: &Finder<'_>, bytes: &[u8]) -> bool {
    field.find_iter(bytes).any(|at| {
        let rest = bytes[at + field.needle().len()..].trim_ascii_start();
        rest.strip_prefix(b":").is_some_and(|value| !value.trim_ascii_start().starts_with(b"null"))
    })
}

/// Whether a chunk's delta has anything but a role and empty texts.
fn has_content(delta: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Greeting<'a> {
        #[serde(borrow)]
        content: Option<&'a serde_json::value::RawValue>,
        tool_calls: Option<serde::de::IgnoredAny>,
        function_call: Option<serde::de::IgnoredAny>,
        reasoning_content: Option<serde::de::IgnoredAny>,
        reasoning: Option<serde::de::IgnoredAny>,
        refusal: Option<serde::de::IgnoredAny>,
        audio: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_str::<Greeting<'_>>(delta).is_ok_and(|g| {
        g.tool_calls.is_some()
            || g.function_call.is_some()
            || g.reasoning_content.is_some()
            || g.reasoning.is_some()
            || g.refusal.is_some()
            || g.audio.is_some()
            || g.content.is_some_and(|c| c.get() != "\"\"")
    })
}

/// What a failed response of the Responses API says, in the shape of an error body.
fn failure(data: &str) -> String {
    let event: serde_json::Value = serde_json::from_str(data).unwrap_or_default();
    serde_json::json!({ "error": event["response"]["error"] }).to_string()
}

/// The `type` of an event whose SSE name is missing.
fn kind_of(data: &str) -> &str {
    let start = data.find("\"type\":\"").map_or(data.len(), |at| at + 8);
    let rest = &data[start..];
    &rest[..rest.find('"').unwrap_or(0)]
}

/// The text between a prefix and the next quote.
fn between(data: &str, prefix: &str) -> String {
    data.split_once(prefix).and_then(|(_, rest)| rest.split_once('"')).map(|(text, _)| text.to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::Flow;
    use super::*;

    const STREAM: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}],\"usage\":null}\n\ndata: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hé\"},\"finish_reason\":null}],\"usage\":null}\n\n: ping\n\ndata: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":null}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5}}\n\ndata: [DONE]\n\n";

    #[test]
    fn what_was_said_is_measured_in_every_dialect_and_any_frames() {
        let chunk = |text: &str| format!("data: {{\"id\":\"chatcmpl-1\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":null}}]}}\n\n");
        let words = ["Three", " roads", " meet", " \\\"here\\\"", " and each has a gate"];
        let said: u64 = words.iter().map(|w| w.len() as u64).sum();
        let stream: String = words.iter().map(|w| chunk(w)).collect();
        for size in [1, 7, 200, stream.len()] {
            let mut flow = Flow::pass(Dialect::Chat, false, 1 << 20);
            for piece in stream.as_bytes().chunks(size) {
                flow.push(Bytes::copy_from_slice(piece)).unwrap();
            }
            assert_eq!(flow.seen.text, said, "in pieces of {size}");
        }
        for (dialect, event) in [
            (Dialect::Messages, "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"twelve bytes\"}}\n\n"),
            (Dialect::Responses, "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\": \"twelve bytes\"}\n\n"),
            (Dialect::Generate, "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\": \"twelve bytes\"}]}}]}\n\n"),
        ] {
            let mut flow = Flow::pass(dialect, false, 1 << 20);
            flow.push(Bytes::from_static(event.as_bytes())).unwrap();
            assert_eq!(flow.seen.text, 12, "{dialect:?}");
        }
    }

    fn run(stream: &str, strip: bool, size: usize) -> (String, Seen, Result<(), Error>) {
        let mut flow = Flow::pass(Dialect::Chat, strip, 4096);
        let mut out = Vec::new();
        let mut result = Ok(());
        for piece in stream.as_bytes().chunks(size) {
            match flow.push(Bytes::copy_from_slice(piece)) {
                Ok(bytes) => out.extend_from_slice(&bytes),
                Err(e) => {
                    result = Err(e);
                    break;
                }
            }
        }
        if result.is_ok() {
            match flow.end() {
                Ok(bytes) => out.extend_from_slice(&bytes),
                Err(e) => result = Err(e),
            }
        }
        (String::from_utf8(out).unwrap(), flow.seen, result)
    }

    #[test]
    fn bytes_pass_as_they_came_and_usage_is_read_along() {
        for size in [1, 7, 100, 10_000] {
            let (out, seen, result) = run(STREAM, false, size);
            assert_eq!(out, STREAM, "in pieces of {size}");
            assert!(result.is_ok());
            assert_eq!((seen.usage.map(|u| u.total()), seen.finish, seen.content, seen.done), (Some(5), Some(Finish::Stop), true, true));
        }
    }

    #[test]
    fn usage_that_was_not_asked_for_is_taken_out() {
        for size in [1, 7, 100, 10_000] {
            let (out, seen, _) = run(STREAM, true, size);
            assert!(!out.contains("prompt_tokens") && out.ends_with("data: [DONE]\n\n"), "{out}");
            assert_eq!(seen.usage.map(|u| u.total()), Some(5));
        }
    }

    #[test]
    fn a_stream_that_breaks_off_never_ends_well() {
        let cut = STREAM.find(": ping").unwrap();
        assert!(run(&STREAM[..cut], false, 10_000).2.is_err());
        assert!(run("", false, 1).2.is_err());
        // With a finish, only the terminator is missing: it is added.
        let (out, _, result) = run(&STREAM[..STREAM.find("data: [DONE]").unwrap()], false, 10_000);
        assert!(result.is_ok() && out == STREAM);
    }

    #[test]
    fn errors_in_the_stream_and_endless_events_are_errors() {
        let error = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\"}}]}\n\ndata: {\"error\":{\"message\":\"overloaded\",\"code\":503}}\n\n";
        let (_, seen, result) = run(error, false, 10_000);
        assert!(matches!(result, Err(Error::Upstream(_))) && !seen.content);
        assert!(run(&format!("data: {}", "x".repeat(10_000)), false, 100).2.is_err());
    }
}
