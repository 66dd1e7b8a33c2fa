//! Gemini's answers into the hub. A whole answer and an event of a stream have the same shape, so one reader does both.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error;
use super::usage::UsageMetadata;
use crate::answer::{Answer, Delta, Finish, MAX_CHOICES, OwnedDetail};
use crate::error::{ErrorKind, UpstreamError};
use crate::sse::Event;
use crate::usage::Usage;
use crate::wire::Str;
use crate::{Error, Transcoder, broken_off, carry};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    #[serde(borrow)]
    candidates: Option<Vec<Candidate<'a>>>,
    #[serde(borrow)]
    prompt_feedback: Option<Feedback<'a>>,
    usage_metadata: Option<UsageMetadata>,
    #[serde(borrow)]
    model_version: Option<Str<'a>>,
    #[serde(borrow)]
    response_id: Option<Str<'a>>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Feedback<'a> {
    #[serde(borrow)]
    block_reason: Option<Str<'a>>,
    #[serde(borrow)]
    block_reason_message: Option<Str<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate<'a> {
    index: Option<u32>,
    #[serde(borrow)]
    content: Option<Content<'a>>,
    #[serde(borrow)]
    finish_reason: Option<Str<'a>>,
    #[serde(borrow)]
    finish_message: Option<Str<'a>>,
    #[serde(borrow)]
    logprobs_result: Option<LogprobsResult<'a>>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow)]
    parts: Option<Vec<Part<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part<'a> {
    #[serde(borrow)]
    text: Option<Str<'a>>,
    thought: Option<bool>,
    #[serde(borrow)]
    thought_signature: Option<Str<'a>>,
    #[serde(borrow)]
    function_call: Option<FunctionCall<'a>>,
    #[serde(borrow)]
    inline_data: Option<Blob<'a>>,
}

#[derive(Deserialize)]
struct FunctionCall<'a> {
    #[serde(borrow)]
    id: Option<Str<'a>>,
    #[serde(borrow)]
    name: Option<Str<'a>>,
    #[serde(borrow)]
    args: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Blob<'a> {
    #[serde(borrow)]
    mime_type: Option<Str<'a>>,
    #[serde(borrow)]
    data: Option<Str<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogprobsResult<'a> {
    #[serde(borrow)]
    chosen_candidates: Option<Vec<Token<'a>>>,
    #[serde(borrow)]
    top_candidates: Option<Vec<Top<'a>>>,
}

#[derive(Deserialize)]
struct Top<'a> {
    #[serde(borrow)]
    candidates: Option<Vec<Token<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Token<'a> {
    #[serde(borrow)]
    token: Option<Str<'a>>,
    log_probability: Option<f64>,
}

/// Reads a whole answer.
pub(crate) fn read(body: &[u8]) -> Result<Answer, Error> {
    // An answer is an object; an error may be in a list.
    if body.trim_ascii_start().starts_with(b"[") {
        return Err(error::read(200, body).into());
    }
    let response: Response<'_> = serde_json::from_slice(body).map_err(Error::answer)?;
    if response.error.is_some_and(|e| e.get() != "null") {
        return Err(error::read(200, body).into());
    }
    let mut answer = Answer::default();
    Reader::default().response(&response, &mut |delta| answer.apply(&delta))?;
    if answer.choices.is_empty() {
        return Err(Error::answer("it has no `candidates`, and does not say why"));
    }
    Ok(answer)
}

/// Reads responses one after the other.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    started: bool,
    /// The response's id, which the ids of calls are made from where Gemini gives them none.
    id: String,
    choices: Vec<State>,
}

#[derive(Debug, Default)]
struct State {
    calls: u32,
    details: u32,
    images: usize,
    finished: bool,
}

impl Transcoder for Reader {
    fn event(&mut self, event: &Event<'_>, out: &mut dyn FnMut(Delta<'_>)) -> Result<(), Error> {
        let data = event.data.trim();
        if data.is_empty() || data == "[DONE]" {
            return Ok(());
        }
        // An error in the middle may come as a list, as on other endpoints.
        if data.starts_with('[') {
            return Err(error::read(200, data.as_bytes()).into());
        }
        let response: Response<'_> = serde_json::from_str(data).map_err(Error::answer)?;
        if response.error.is_some_and(|e| e.get() != "null") {
            return Err(error::read(200, data.as_bytes()).into());
        }
        self.response(&response, out)
    }

    fn end(&mut self, _: &mut dyn FnMut(Delta<'_>)) -> Result<(), Error> {
        // Nothing marks the end but a reason for every candidate.
        if !self.choices.is_empty() && self.choices.iter().all(|c| c.finished) { Ok(()) } else { Err(broken_off()) }
    }
}

impl Reader {
    fn response(&mut self, response: &Response<'_>, out: &mut dyn FnMut(Delta<'_>)) -> Result<(), Error> {
        if !self.started {
            self.started = true;
            self.id = response.response_id.as_deref().unwrap_or_default().to_owned();
            out(Delta::Start { id: &self.id, model: response.model_version.as_deref().unwrap_or_default() });
        }
        // Usage comes before anything that may end in an error: it is billed all the same.
        if let Some(usage) = &response.usage_metadata {
            out(Delta::Usage(Usage::from(usage)));
        }
        for (position, candidate) in (0..).zip(response.candidates.iter().flatten()) {
            self.candidate(candidate.index.unwrap_or(position), candidate, out)?;
        }
        if let Some(reason) = response.prompt_feedback.as_ref().and_then(|f| f.block_reason.as_deref())
            && self.choices.is_empty()
        {
            let message = response.prompt_feedback.as_ref().and_then(|f| f.block_reason_message.as_deref());
            let text = message.map_or_else(|| format!("The prompt was blocked by the provider's filter ({reason})."), str::to_owned);
            self.state(0).finished = true;
            out(Delta::Refusal { choice: 0, text: &text });
            out(Delta::Finish { choice: 0, reason: Finish::ContentFilter });
        }
        Ok(())
    }

    fn state(&mut self, choice: u32) -> &mut State {
        let at = choice as usize;
        if self.choices.len() <= at {
            self.choices.resize_with(at + 1, State::default);
        }
        &mut self.choices[at]
    }

    fn candidate(&mut self, index: u32, candidate: &Candidate<'_>, out: &mut dyn FnMut(Delta<'_>)) -> Result<(), Error> {
        let choice = index.min(MAX_CHOICES as u32 - 1);
        self.state(choice);
        for part in candidate.content.iter().filter_map(|c| c.parts.as_ref()).flatten() {
            self.part(choice, part, out);
        }
        if let Some(json) = candidate.logprobs_result.as_ref().and_then(logprobs) {
            out(Delta::Logprobs { choice, json: &json });
        }
        let Some(word) = candidate.finish_reason.as_deref().filter(|w| !w.is_empty() && *w != "FINISH_REASON_UNSPECIFIED") else { return Ok(()) };
        let reason = finish(word).ok_or_else(|| malformed(word, candidate.finish_message.as_deref()))?;
        if !std::mem::replace(&mut self.state(choice).finished, true) {
            out(Delta::Finish { choice, reason });
        }
        Ok(())
    }

    fn part(&mut self, choice: u32, part: &Part<'_>, out: &mut dyn FnMut(Delta<'_>)) {
        if let Some(call) = &part.function_call {
            return self.call(choice, call, part.thought_signature.as_deref(), out);
        }
        if let Some(text) = part.text.as_deref().filter(|t| !t.is_empty()) {
            out(if part.thought == Some(true) { Delta::Reasoning { choice, text } } else { Delta::Text { choice, text } });
        }
        if let Some(Blob { mime_type: Some(mime), data: Some(data) }) = &part.inline_data
            && mime.starts_with("image/")
            && part.thought != Some(true)
        {
            let images = &mut self.state(choice).images;
            *images += 1;
            let id = carry::image_id(*images - 1);
            // Before the image, as a call's comes before the call: who writes it has to know.
            if let Some(signature) = part.thought_signature.as_deref() {
                self.detail(choice, Some(&id), signature, out);
            }
            out(Delta::Image { choice, url: &format!("data:{};base64,{}", &**mime, &**data) });
            return;
        }
        if let Some(signature) = part.thought_signature.as_deref() {
            self.detail(choice, None, signature, out);
        }
    }

    fn call(&mut self, choice: u32, call: &FunctionCall<'_>, signature: Option<&str>, out: &mut dyn FnMut(Delta<'_>)) {
        let index = self.state(choice).calls;
        self.state(choice).calls += 1;
        let id = match call.id.as_deref().filter(|id| !id.is_empty()) {
            Some(id) => id.to_owned(),
            None if choice == 0 => format!("call_{index}_{}", self.id).trim_end_matches('_').to_owned(),
            None => format!("call_{choice}_{index}_{}", self.id).trim_end_matches('_').to_owned(),
        };
        let sealed = signature.map(|signature| {
            self.detail(choice, Some(&id), signature, out);
            carry::seal(&id, carry::GEMINI, signature)
        });
        let name = call.name.as_deref().unwrap_or_default();
        out(Delta::Call { choice, index, id: sealed.as_deref().unwrap_or(&id), name });
        out(Delta::Arguments { choice, index, json: &compact(call.args.map_or("{}", RawValue::get)) });
    }

    fn detail(&mut self, choice: u32, id: Option<&str>, signature: &str, out: &mut dyn FnMut(Delta<'_>)) {
        let state = self.state(choice);
        let index = state.details;
        state.details += 1;
        let detail = OwnedDetail { kind: "reasoning.encrypted", format: carry::GEMINI, data: Some(signature.to_owned()), id: id.map(str::to_owned), index, ..OwnedDetail::default() };
        out(Delta::Detail { choice, detail: &detail });
    }
}

/// JSON without the white space that Google indents whole answers with: the same call reads the same from a stream. Numbers
/// and strings keep their bytes.
fn compact(json: &str) -> Cow<'_, str> {
    if !json.contains('\n') {
        return Cow::Borrowed(json);
    }
    let (mut in_string, mut escaped) = (false, false);
    let kept = json.chars().filter(|&c| {
        if in_string {
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
            return true;
        }
        in_string = c == '"';
        !c.is_ascii_whitespace()
    });
    Cow::Owned(kept.collect())
}

/// Gemini's word for why an answer ended; `None` where the model failed rather than ended.
fn finish(word: &str) -> Option<Finish> {
    Some(match word {
        "MAX_TOKENS" => Finish::Length,
        "SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" | "LANGUAGE" | "IMAGE_SAFETY" | "IMAGE_PROHIBITED_CONTENT" | "IMAGE_RECITATION" | "MODEL_ARMOR" => Finish::ContentFilter,
        "MALFORMED_FUNCTION_CALL" | "UNEXPECTED_TOOL_CALL" | "TOO_MANY_TOOL_CALLS" | "MISSING_THOUGHT_SIGNATURE" | "MALFORMED_RESPONSE" => return None,
        _ => Finish::Stop,
    })
}

/// The model wrote a call that is none: there is no answer, and another try may well give one.
fn malformed(word: &str, message: Option<&str>) -> Error {
    let message = message.map_or_else(|| format!("the model ended with {word}"), |m| format!("the model ended with {word}: {m}"));
    UpstreamError { kind: ErrorKind::Server, message, code: Some(word.to_owned()), param: None }.into()
}

/// Log probabilities in OpenAI's shape.
fn logprobs(result: &LogprobsResult<'_>) -> Option<String> {
    #[derive(Serialize)]
    struct Shape<'a> {
        content: Vec<Chosen<'a>>,
        refusal: Option<()>,
    }
    #[derive(Serialize)]
    struct Chosen<'a> {
        #[serde(flatten)]
        token: One<'a>,
        top_logprobs: Vec<One<'a>>,
    }
    #[derive(Serialize)]
    struct One<'a> {
        token: &'a str,
        logprob: f64,
        bytes: &'a [u8],
    }
    fn one<'t>(token: &'t Token<'_>) -> One<'t> {
        let text = token.token.as_deref().unwrap_or_default();
        // JSON has no minus infinity; OpenAI writes this for what is next to impossible.
        One { token: text, logprob: token.log_probability.unwrap_or(-9999.0), bytes: text.as_bytes() }
    }
    let chosen = result.chosen_candidates.as_ref().filter(|c| !c.is_empty())?;
    let tops = result.top_candidates.as_deref().unwrap_or_default();
    let content =
        chosen.iter().enumerate().map(|(at, token)| Chosen { token: one(token), top_logprobs: tops.get(at).and_then(|t| t.candidates.as_ref()).into_iter().flatten().map(one).collect() }).collect();
    serde_json::to_string(&Shape { content, refusal: None }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_for_an_end_has_its_meaning() {
        for word in ["SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "MODEL_ARMOR"] {
            assert_eq!(finish(word), Some(Finish::ContentFilter), "{word}");
        }
        for word in ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE", "MALFORMED_RESPONSE"] {
            assert_eq!(finish(word), None, "{word}");
        }
        assert_eq!((finish("MAX_TOKENS"), finish("STOP"), finish("OTHER"), finish("A_NEW_ONE")), (Some(Finish::Length), Some(Finish::Stop), Some(Finish::Stop), Some(Finish::Stop)));
    }

    #[test]
    fn arguments_lose_their_indentation_and_nothing_else() {
        let json = "{\n  \"a b\": \"x \\\" \\\\\",\n  \"n\" : 12345678901234567890123\n}";
        assert_eq!(compact(json), "{\"a b\":\"x \\\" \\\\\",\"n\":12345678901234567890123}");
    }
}
