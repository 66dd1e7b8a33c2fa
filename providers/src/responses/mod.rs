//! OpenAI's Responses as a door, for targets that do not speak it themselves: requests become hub chat requests, answers
//! become response objects and their typed events. Nothing is kept between requests, so whatever refers to something kept
//! is refused.

mod input;
mod item;
mod object;
pub mod request;
mod seal;
mod stream;
mod tools;

use std::borrow::Cow;

use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::answer::Answer;
use crate::door::{ClientError, Door, Meta, Writer};
use crate::envelope::Envelope;
use crate::order::InOrder;
use crate::usage::{OpenAiUsage, Usage};
use crate::wire::Str;
use crate::{Dialect, Error, ErrorKind, carry, chat};

/// OpenAI's Responses.
#[derive(Debug)]
pub struct Responses;

impl Door for Responses {
    fn dialect(&self) -> Dialect {
        Dialect::Responses
    }

    fn read(&self, request: &Envelope, warnings: &mut Vec<String>) -> Result<Vec<u8>, Error> {
        request::read(request.body(), warnings)
    }

    fn answer(&self, answer: &Answer, meta: &Meta) -> Vec<u8> {
        stream::EventWriter::answer(answer, meta)
    }

    fn writer(&self, meta: Meta) -> Box<dyn Writer> {
        Box::new(InOrder::new(stream::EventWriter::new(meta)))
    }

    fn error(&self, error: &ClientError) -> Vec<u8> {
        chat::openai_error(error)
    }

    fn error_event(&self, error: &ClientError) -> Vec<u8> {
        // The documented event is flat; OpenAI's servers nest it, and its SDKs raise on what is nested. It is said both ways.
        let mut out = b"event: error\ndata: {\"type\":\"error\",\"sequence_number\":0,\"code\":".to_vec();
        chat::json(&mut out, &error.kind.code_for(error.code.as_deref()));
        out.extend_from_slice(b",\"message\":");
        chat::text(&mut out, &error.message);
        out.extend_from_slice(b",\"param\":");
        chat::json(&mut out, &error.param);
        out.push(b',');
        out.extend_from_slice(&chat::openai_error(error)[1..]);
        out.extend_from_slice(b"\n\n");
        out
    }
}

/// The code of a failed response. Two of the words that OpenAI sends are missing from its own schema, but clients act on
/// them: they shorten the conversation, or stop trying.
fn failure_code(error: &ClientError) -> &'static str {
    match error.kind {
        ErrorKind::ContextLength => "context_length_exceeded",
        ErrorKind::Quota => "insufficient_quota",
        ErrorKind::RateLimit => "rate_limit_exceeded",
        ErrorKind::InvalidRequest | ErrorKind::ContentFilter | ErrorKind::TooLarge => "invalid_prompt",
        _ => "server_error",
    }
}

/// The `input` of a request that passes to a target which speaks Responses itself, without what this gateway put there for
/// others: reasoning items that were made here go, call ids become bare. `None` where there is nothing of the kind.
#[must_use]
pub fn clean_input(request: &Envelope) -> Option<String> {
    #[derive(Deserialize)]
    struct Sealed<'a> {
        #[serde(borrow)]
        id: Option<Str<'a>>,
        #[serde(borrow)]
        encrypted_content: Option<Str<'a>>,
        #[serde(borrow)]
        call_id: Option<Str<'a>>,
    }
    let holds = |raw: &str, words: &str| memmem::find(raw.as_bytes(), words.as_bytes()).is_some();
    // A reasoning item is told by its id; a reference to one has nothing else.
    let worth_a_look = |raw: &&str| holds(raw, "\"rs_") || request.met().may_carry() && (holds(raw, "\"encrypted_content\"") || carry::may_carry(raw.as_bytes()));
    let raw = request.get("input").filter(worth_a_look)?;
    let items: Vec<&RawValue> = serde_json::from_str(raw).ok()?;
    let mut changed = false;
    let mut kept: Vec<Cow<'_, str>> = Vec::with_capacity(items.len());
    for item in items {
        let Ok(sealed) = serde_json::from_str::<Sealed<'_>>(item.get()) else {
            kept.push(item.get().into());
            continue;
        };
        let made_here = match sealed.encrypted_content.filter(|c| !c.is_empty()) {
            Some(content) => seal::open(&content).is_some(),
            None => sealed.id.is_some_and(|id| id.starts_with("rs_") && item::is_ours(&id)),
        };
        if made_here {
            changed = true;
            continue;
        }
        match sealed.call_id.as_deref().map(|id| (id, carry::unseal(id).0)) {
            Some((id, bare)) if id != bare => {
                changed = true;
                // A sealed id is plain ASCII between quotes, so that it stands in the item as it is.
                kept.push(item.get().replace(id, bare).into());
            }
            _ => kept.push(item.get().into()),
        }
    }
    changed.then(|| format!("[{}]", kept.join(",")))
}

/// Reads the usage of a Responses stream that passes through byte for byte. Only its last event has one; `into` is
/// replaced and `true` returned when this is it.
#[must_use]
pub fn tap_usage(event_json: &str, into: &mut Usage) -> bool {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
        response: Option<Whole>,
    }
    // Most events are deltas: they are not worth parsing.
    if memmem::find(event_json.as_bytes(), b"\"usage\"").is_none() {
        return false;
    }
    let Ok(event) = serde_json::from_str::<Event<'_>>(event_json) else { return false };
    if !matches!(event.kind, "response.completed" | "response.incomplete" | "response.failed") {
        return false;
    }
    match event.response.and_then(|r| r.usage) {
        Some(usage) => {
            *into = usage.into();
            true
        }
        None => false,
    }
}

/// Reads the usage of a whole answer in OpenAI's dialects (responses, chat, completions, embeddings).
#[must_use]
pub fn read_answer_usage(body: &[u8]) -> Option<Usage> {
    serde_json::from_slice::<Whole>(body).ok()?.usage.map(Usage::from)
}

#[derive(Deserialize)]
struct Whole {
    usage: Option<OpenAiUsage>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_from_the_last_event_only() {
        let mut usage = Usage::default();
        assert!(!tap_usage(r#"{"type":"response.output_text.delta","delta":"\"usage\""}"#, &mut usage));
        assert!(!tap_usage(r#"{"type":"response.created","response":{"usage":null}}"#, &mut usage));
        assert!(!tap_usage(r#"{"type":"response.failed","response":{"usage":null}}"#, &mut usage));
        let last = r#"{"type":"response.completed","sequence_number":9,"response":{"id":"resp_1","output":[],"usage":{"input_tokens":75,"input_tokens_details":{"cached_tokens":32,"cache_write_tokens":3},"output_tokens":1186,"output_tokens_details":{"reasoning_tokens":1024},"total_tokens":1261}}}"#;
        assert!(tap_usage(last, &mut usage));
        assert_eq!((usage.input, usage.cache_read, usage.cache_write, usage.output, usage.reasoning), (40, 32, 3, 162, 1024));
        assert!(tap_usage(r#"{"response":{"usage":{"input_tokens":1,"output_tokens":2}},"type":"response.incomplete"}"#, &mut usage));
        assert_eq!((usage.prompt(), usage.completion()), (1, 2));
        assert!(!tap_usage("{\"usage\"", &mut usage));
    }

    #[test]
    fn what_was_sealed_here_does_not_reach_a_target_that_speaks_responses() {
        let block = crate::answer::OwnedDetail { kind: "reasoning.text", format: carry::ANTHROPIC, text: Some("hm".into()), ..Default::default() };
        let ours = seal::seal(&[block]);
        let id = carry::seal("call_1", carry::GEMINI, "sig");
        let read = |input: String| clean_input(&Envelope::read(format!(r#"{{"model":"m","input":{input}}}"#).into()).unwrap());
        let cleaned = read(format!(
            r#"[{{"type":"reasoning","summary":[],"encrypted_content":"gAAAA"}},{{"type":"reasoning","summary":[],"encrypted_content":"{ours}"}},{{"type":"function_call","call_id":"{id}","name":"f","arguments":"{{}}"}}, {{"role":"user","content":"x"}}]"#
        ));
        assert_eq!(
            cleaned.as_deref(),
            Some(r#"[{"type":"reasoning","summary":[],"encrypted_content":"gAAAA"},{"type":"function_call","call_id":"call_1","name":"f","arguments":"{}"},{"role":"user","content":"x"}]"#)
        );
        assert_eq!(read(r#"[{"type":"reasoning","summary":[],"encrypted_content":"gAAAA"}]"#.into()), None);
        assert_eq!(read(r#""hi""#.into()), None);
        // Thinking without a seal, and a reference to it, are known by the ids that were given out here.
        assert_eq!(
            read(r#"[{"type":"reasoning","id":"rs_9f_0","summary":[{"type":"summary_text","text":"hm"}]},{"type":"item_reference","id":"rs_9f_1"},{"type":"item_reference","id":"rs_68a1"},{"role":"user","content":"x"}]"#.into()).as_deref(),
            Some(r#"[{"type":"item_reference","id":"rs_68a1"},{"role":"user","content":"x"}]"#)
        );
        assert_eq!(read(r#"[{"type":"reasoning","id":"rs_68a1","summary":[]}]"#.into()), None);
    }

    #[test]
    fn usage_of_a_whole_answer() {
        let read = |text: &str| read_answer_usage(text.as_bytes());
        assert_eq!(read(r#"{"object":"response","usage":{"input_tokens":3,"output_tokens":4}}"#).map(|u| u.total()), Some(7));
        assert_eq!(read(r#"{"object":"chat.completion","usage":{"prompt_tokens":3,"completion_tokens":4}}"#).map(|u| u.total()), Some(7));
        assert_eq!(read(r#"{"usage":null}"#), None);
        assert_eq!(read("no JSON"), None);
    }

    #[test]
    fn an_error_in_a_stream_that_passes_is_told_in_both_shapes() {
        let error = ClientError { status: 502, kind: ErrorKind::Server, message: "broke \"off\"".into(), param: None, code: None };
        let text = String::from_utf8(Responses.error_event(&error)).unwrap();
        let data: serde_json::Value = serde_json::from_str(text.strip_prefix("event: error\ndata: ").unwrap()).unwrap();
        assert_eq!(data["type"], "error");
        assert_eq!(data["message"], data["error"]["message"]);
        assert!(text.ends_with("\n\n"));
    }
}
