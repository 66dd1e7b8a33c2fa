//! What hosts do to OpenAI's answers beyond what every reader of them knows: probabilities in columns, errors beside the
//! choices, errors inside errors.

use memchr::memmem;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Oddity, Preset};
use crate::answer::{Answer, Delta};
use crate::error::{ErrorKind, UpstreamError};
use crate::sse::Event;
use crate::wire::Str;
use crate::{Error, Transcoder, openai};

/// Reads a whole answer.
pub(super) fn read(preset: &Preset, body: &[u8]) -> Result<Answer, Error> {
    if preset.has(Oddity::ErrorAside)
        && let Some(error) = std::str::from_utf8(body).ok().and_then(error_aside)
    {
        return Err(error);
    }
    let mut answer = openai::read_answer(body).map_err(|e| retold(e, body))?;
    if preset.has(Oddity::CountedLogprobs) {
        for choice in &mut answer.choices {
            choice.logprobs = choice.logprobs.take().and_then(|raw| logprobs(raw.get(), "")).and_then(|json| RawValue::from_string(json).ok());
        }
    }
    Ok(answer)
}

/// Reads a stream.
pub(super) struct Chunks {
    preset: &'static Preset,
    inner: openai::Chunks,
}

impl Chunks {
    pub(super) fn new(preset: &'static Preset) -> Self {
        Chunks { preset, inner: openai::Chunks::default() }
    }
}

impl Transcoder for Chunks {
    fn event(&mut self, event: &Event<'_>, out: &mut dyn FnMut(Delta<'_>)) -> Result<(), Error> {
        if self.preset.has(Oddity::ErrorAside)
            && let Some(error) = error_aside(&event.data)
        {
            return Err(error);
        }
        let read = if self.preset.has(Oddity::CountedLogprobs) {
            // A probability of a stream belongs to the text that came with it.
            let mut said = String::new();
            self.inner.event(event, &mut |delta| match delta {
                Delta::Logprobs { choice, json } => {
                    if let Some(json) = logprobs(json, &said) {
                        out(Delta::Logprobs { choice, json: &json });
                    }
                }
                Delta::Text { text, .. } | Delta::Reasoning { text, .. } => {
                    text.clone_into(&mut said);
                    out(delta);
                }
                _ => out(delta),
            })
        } else {
            self.inner.event(event, out)
        };
        read.map_err(|e| retold(e, event.data.as_bytes()))
    }

    fn end(&mut self, out: &mut dyn FnMut(Delta<'_>)) -> Result<(), Error> {
        self.inner.end(out)
    }
}

/// What a host says of an answer that it broke off: Groq in `x_groq`, DeepSeek by a finish of its own.
fn error_aside(data: &str) -> Option<Error> {
    #[derive(Deserialize)]
    struct Chunk<'a> {
        #[serde(borrow)]
        x_groq: Option<Aside<'a>>,
        #[serde(borrow)]
        choices: Option<Vec<Choice<'a>>>,
    }
    #[derive(Deserialize)]
    struct Aside<'a> {
        #[serde(borrow)]
        error: Option<Str<'a>>,
    }
    #[derive(Deserialize)]
    struct Choice<'a> {
        #[serde(borrow)]
        finish_reason: Option<Str<'a>>,
    }
    const FINISH: &str = "insufficient_system_resource";
    // Most chunks are deltas: they are not worth parsing twice.
    if !["\"x_groq\"", FINISH].iter().any(|words| memmem::find(data.as_bytes(), words.as_bytes()).is_some()) {
        return None;
    }
    let chunk = serde_json::from_str::<Chunk<'_>>(data).ok()?;
    if let Some(message) = chunk.x_groq.and_then(|x| x.error) {
        return Some(UpstreamError::new(ErrorKind::Server, &*message).sharpened().into());
    }
    let cut = chunk.choices.iter().flatten().any(|c| c.finish_reason.as_deref() == Some(FINISH));
    cut.then(|| UpstreamError::new(ErrorKind::Overloaded, "the upstream broke off the answer: it has not enough resources at the moment").into())
}

/// OpenAI's log probabilities from columns, or from a bare number for `said`.
fn logprobs(json: &str, said: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Columns {
        tokens: Vec<String>,
        token_logprobs: Vec<Option<Value>>,
        #[serde(default)]
        top_logprobs: Value,
    }
    let entry = |token: &str, logprob: &Value, tops: &Value| {
        let tops: Vec<Value> = tops.as_object().into_iter().flatten().map(|(token, logprob)| serde_json::json!({ "token": token, "logprob": logprob, "bytes": token.as_bytes() })).collect();
        serde_json::json!({ "token": token, "logprob": logprob, "bytes": token.as_bytes(), "top_logprobs": tops })
    };
    let value: Value = serde_json::from_str(json).ok()?;
    let content: Vec<Value> = if value.is_number() {
        vec![entry(said, &value, &Value::Null)]
    } else if value["content"].is_array() {
        return Some(json.to_owned());
    } else {
        let columns: Columns = serde_json::from_value(value).ok()?;
        let rows = columns.tokens.iter().zip(&columns.token_logprobs).enumerate();
        rows.filter_map(|(at, (token, logprob))| Some(entry(token, logprob.as_ref()?, &columns.top_logprobs[at]))).collect()
    };
    Some(serde_json::json!({ "content": content, "refusal": null }).to_string())
}

/// Reads an error answer.
pub(super) fn error(status: u16, body: &[u8]) -> UpstreamError {
    sharpened(openai::read_error(status, body), status, body)
}

/// An error that stood in an answer or a stream, with what the host says of it in its own way.
fn retold(error: Error, body: &[u8]) -> Error {
    match error {
        Error::Upstream(error) => sharpened(error, 200, body).into(),
        other => other,
    }
}

/// What a host says of an error in its own way: in codes, or in the error of a server behind it, which it hands on as text.
fn sharpened(mut error: UpstreamError, status: u16, body: &[u8]) -> UpstreamError {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let inner = [&value["error"], &value["choices"][0]["error"]].into_iter().find(|e| e.is_object()).unwrap_or(&value);
    if let Some(said) = inner["metadata"]["raw"].as_str().and_then(behind) {
        // OpenRouter's own words are "Provider returned error".
        error.message = format!("{}: {said}", error.message.trim_end_matches('.'));
        error = error.sharpened();
    } else if let Some(said) = Some(&*error.message).filter(|m| m.starts_with('{')).and_then(behind) {
        error.message = said;
        error = error.sharpened();
    }
    let words = [&inner["code"], &inner["type"], &inner["metadata"]["error_type"]];
    let says = |known: &[&str]| words.iter().any(|w| w.as_str().is_some_and(|w| known.contains(&w)));
    if says(&["context_length_exceeded", "token_limit_exceeded"]) {
        error.kind = ErrorKind::ContextLength;
    } else if says(&["DataInspectionFailed", "data_inspection_failed", "content_policy_violation"]) || status == 403 && inner["metadata"]["flagged_input"].is_string() {
        error.kind = ErrorKind::ContentFilter;
    } else if says(&["Arrearage", "payment_required", "AllocationQuota.FreeTierOnly"]) {
        error.kind = ErrorKind::Quota;
    } else if says(&["provider_overloaded", "provider_unavailable"]) || status == 498 {
        // 498 is Groq's status for a tier that is full.
        error.kind = ErrorKind::Overloaded;
    }
    error
}

/// What an error of a server behind the host says. It may be JSON of any shape, or a line of text.
fn behind(raw: &str) -> Option<String> {
    let text = match serde_json::from_str::<Value>(raw) {
        Ok(value) => [&value["error"]["message"], &value["message"], &value["error"], &value["detail"]].into_iter().find_map(Value::as_str)?.to_owned(),
        Err(_) => raw.to_owned(),
    };
    let text = text.trim();
    if text.is_empty() { None } else { Some(text.chars().take(500).collect()) }
}
