//! The hub's answers as `GenerateContentResponse`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::answer::{Answer, Call, Choice, Finish, OwnedDetail};
use crate::chat::json;
use crate::door::Meta;
use crate::usage::{Usage, sum};
use crate::wire::{Str, data_url};
use crate::{carry, json as strict};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Response<'a> {
    pub(super) candidates: Vec<Candidate<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usage_metadata: Option<UsageMetadata>,
    pub(super) model_version: &'a str,
    pub(super) response_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Candidate<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content: Option<Content<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) finish_reason: Option<&'static str>,
    pub(super) index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) logprobs_result: Option<LogprobsResult>,
}

#[derive(Serialize)]
pub(super) struct Content<'a> {
    parts: Vec<Part<'a>>,
    role: &'static str,
}

impl<'a> Content<'a> {
    pub(super) fn of(parts: Vec<Part<'a>>) -> Self {
        Content { parts, role: "model" }
    }
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Part<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thought: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inline_data: Option<Blob<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function_call: Option<FunctionCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thought_signature: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Blob<'a> {
    mime_type: &'a str,
    data: &'a str,
}

#[derive(Serialize)]
struct FunctionCall<'a> {
    id: &'a str,
    name: &'a str,
    args: &'a RawValue,
}

impl<'a> Part<'a> {
    pub(super) fn text(text: &'a str, thought: bool) -> Self {
        Part { text: Some(text), thought: thought.then_some(true), ..Part::default() }
    }
}

/// `usageMetadata`: the prompt holds what was cached, thoughts stand beside the candidates.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UsageMetadata {
    prompt_token_count: u64,
    candidates_token_count: u64,
    total_token_count: u64,
    #[serde(skip_serializing_if = "is_zero")]
    cached_content_token_count: u64,
    #[serde(skip_serializing_if = "is_zero")]
    thoughts_token_count: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    prompt_tokens_details: Vec<Modality>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    candidates_tokens_details: Vec<Modality>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Modality {
    modality: &'static str,
    token_count: u64,
}

// serde hands out references.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Told apart only where there is something to tell apart.
fn modalities(text: u64, audio: u64) -> Vec<Modality> {
    let told = [("TEXT", text), ("AUDIO", audio)];
    if audio == 0 { Vec::new() } else { told.into_iter().filter(|(_, n)| *n > 0).map(|(modality, token_count)| Modality { modality, token_count }).collect() }
}

impl From<Usage> for UsageMetadata {
    fn from(u: Usage) -> Self {
        UsageMetadata {
            prompt_token_count: u.prompt(),
            candidates_token_count: sum([u.output, u.output_audio]),
            total_token_count: u.total(),
            cached_content_token_count: u.cache_read,
            thoughts_token_count: u.reasoning,
            prompt_tokens_details: modalities(u.prompt() - u.input_audio, u.input_audio),
            candidates_tokens_details: modalities(u.output, u.output_audio),
        }
    }
}

/// Whether the client wants to see thoughts. Google gives none that were not asked for, and older clients take every text
/// part for the answer.
pub(super) fn wants_thoughts(request: &[u8]) -> bool {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Asked {
        #[serde(alias = "generation_config")]
        generation_config: Generation,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Generation {
        #[serde(alias = "thinking_config")]
        thinking_config: Thinking,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Thinking {
        #[serde(alias = "include_thoughts")]
        include_thoughts: bool,
    }
    serde_json::from_slice::<Asked>(request).is_ok_and(|a| a.generation_config.thinking_config.include_thoughts)
}

/// Writes a whole answer.
pub(super) fn write(answer: &Answer, meta: &Meta) -> Vec<u8> {
    let thoughts = wants_thoughts(&meta.request);
    let response = Response {
        candidates: (0..).zip(&answer.choices).map(|(index, choice)| candidate(index, choice, thoughts)).collect(),
        usage_metadata: answer.usage.map(UsageMetadata::from),
        model_version: if answer.model.is_empty() { &meta.model } else { &answer.model },
        response_id: if answer.id.is_empty() { &meta.id } else { &answer.id },
    };
    let mut out = Vec::with_capacity(1024);
    json(&mut out, &response);
    out
}

fn candidate(index: u32, choice: &Choice, thoughts: bool) -> Candidate<'_> {
    let mut parts = Vec::new();
    if let Some(text) = choice.reasoning.as_deref().filter(|t| thoughts && !t.is_empty()) {
        parts.push(Part::text(text, true));
    }
    let first = parts.len();
    for text in [&choice.text, &choice.refusal].into_iter().flatten().filter(|t| !t.is_empty()) {
        parts.push(Part::text(text, false));
    }
    if let Some(signature) = choice.details.iter().filter(|d| d.id.is_none()).filter_map(own_signature).next_back() {
        match parts.get_mut(first..).and_then(<[_]>::last_mut) {
            Some(part) => part.thought_signature = Some(Cow::Borrowed(signature)),
            None => parts.push(signature_alone(signature)),
        }
    }
    for (position, url) in choice.images.iter().enumerate() {
        let id = carry::image_id(position);
        let signature = choice.details.iter().find(|d| d.id.as_deref() == Some(&id)).and_then(own_signature);
        parts.extend(image(url, signature.map(Cow::Borrowed)));
    }
    let mut broken = false;
    for c in &choice.calls {
        match call(c, |id| choice.details.iter().find(|d| d.id.as_deref() == Some(id)).and_then(own_signature)) {
            Some(part) => parts.push(part),
            None => broken = true,
        }
    }
    Candidate { content: Some(Content::of(parts)), finish_reason: Some(finish_reason(choice.reason(), broken)), index, logprobs_result: choice.logprobs.as_deref().and_then(|raw| logprobs(raw.get())) }
}

/// A signature that Gemini can read back.
pub(super) fn own_signature(detail: &OwnedDetail) -> Option<&str> {
    detail.data.as_deref().filter(|_| detail.format == carry::GEMINI)
}

/// A part that holds nothing but a signature, as Gemini itself sends it.
pub(super) fn signature_alone(signature: &str) -> Part<'_> {
    Part { text: Some(""), thought_signature: Some(Cow::Borrowed(signature)), ..Part::default() }
}

pub(super) fn image<'a>(url: &'a str, thought_signature: Option<Cow<'a, str>>) -> Option<Part<'a>> {
    let (mime_type, data) = data_url(url)?;
    Some(Part { inline_data: Some(Blob { mime_type, data }), thought_signature, ..Part::default() })
}

/// A call as a part; none if its arguments are not an object, which a cut answer may leave behind. The seal of another
/// provider stays on the id: a client of this door has no other place for it.
pub(super) fn call<'a>(call: &'a Call, detail: impl FnOnce(&str) -> Option<&'a str>) -> Option<Part<'a>> {
    let text = if call.arguments.trim().is_empty() { "{}" } else { &call.arguments };
    strict::scan(text.as_bytes()).ok()?;
    let args = serde_json::from_str(text).ok()?;
    let (bare, seal) = carry::unseal(&call.id);
    let (id, sealed) = match seal {
        Some((carry::GEMINI, signature)) => (bare, Some(Cow::Owned(signature))),
        Some(_) => (&*call.id, None),
        None => (bare, None),
    };
    let thought_signature = sealed.or_else(|| detail(bare).map(Cow::Borrowed));
    Some(Part { function_call: Some(FunctionCall { id, name: &call.name, args }), thought_signature, ..Part::default() })
}

/// Gemini's word. It says `STOP` where calls wait for their results.
pub(super) fn finish_reason(reason: Finish, broken_call: bool) -> &'static str {
    match reason {
        Finish::Length => "MAX_TOKENS",
        Finish::ContentFilter => "SAFETY",
        Finish::Stop | Finish::ToolCalls if broken_call => "MALFORMED_FUNCTION_CALL",
        Finish::Stop | Finish::ToolCalls => "STOP",
    }
}

/// `logprobsResult`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LogprobsResult {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    top_candidates: Vec<Top>,
    chosen_candidates: Vec<Token>,
}

#[derive(Serialize)]
struct Top {
    candidates: Vec<Token>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Token {
    token: String,
    log_probability: f64,
}

/// OpenAI's log probabilities as Gemini's.
pub(super) fn logprobs(json: &str) -> Option<LogprobsResult> {
    #[derive(Deserialize)]
    struct Shape<'a> {
        #[serde(borrow)]
        content: Option<Vec<One<'a>>>,
    }
    #[derive(Deserialize)]
    struct One<'a> {
        #[serde(borrow)]
        token: Str<'a>,
        logprob: f64,
        #[serde(borrow, default)]
        top_logprobs: Vec<One<'a>>,
    }
    fn token(one: &One<'_>) -> Token {
        Token { token: one.token.to_string(), log_probability: one.logprob }
    }
    let content = serde_json::from_str::<Shape<'_>>(json).ok()?.content.filter(|c| !c.is_empty())?;
    let tops = content.iter().any(|one| !one.top_logprobs.is_empty());
    Some(LogprobsResult {
        top_candidates: content.iter().filter(|_| tops).map(|one| Top { candidates: one.top_logprobs.iter().map(token).collect() }).collect(),
        chosen_candidates: content.iter().map(token).collect(),
    })
}
