//! Converse's content blocks, and how calls become such.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::KIND;
use super::tools;
use crate::place::Piece;
use crate::wire::{FunctionCall, ToolCall, data_url};
use crate::{Error, carry};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Block<'a> {
    Text(Cow<'a, str>),
    Image(Media<'a>),
    Video(Media<'a>),
    Audio(Media<'a>),
    Document(Document<'a>),
    ReasoningContent(Reasoning<'a>),
    ToolUse(ToolUse<'a>),
    ToolResult(ToolResult<'a>),
    CachePoint(CachePoint),
}

#[derive(Serialize)]
pub(super) struct Media<'a> {
    pub(super) format: &'static str,
    pub(super) source: Source<'a>,
}

#[derive(Serialize)]
pub(super) struct Source<'a> {
    pub(super) bytes: &'a str,
}

#[derive(Serialize)]
pub(super) struct Document<'a> {
    pub(super) format: &'static str,
    pub(super) name: String,
    pub(super) source: Source<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Reasoning<'a> {
    ReasoningText { text: &'a str, signature: Cow<'a, str> },
    RedactedContent(Cow<'a, str>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ToolUse<'a> {
    pub(super) tool_use_id: Cow<'a, str>,
    pub(super) name: Cow<'a, str>,
    pub(super) input: Cow<'a, RawValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ToolResult<'a> {
    pub(super) tool_use_id: Cow<'a, str>,
    pub(super) content: Vec<Block<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<&'static str>,
}

#[derive(Serialize)]
pub(super) struct CachePoint {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ttl: Option<&'static str>,
}

/// Anthropic's cache mark as Converse's block.
pub(super) fn cache_point(mark: &RawValue) -> CachePoint {
    #[derive(Deserialize)]
    struct Mark<'a> {
        #[serde(borrow)]
        ttl: Option<Cow<'a, str>>,
    }
    let ttl = serde_json::from_str::<Mark<'_>>(mark.get()).ok().and_then(|m| m.ttl);
    CachePoint { r#type: "default", ttl: if ttl.as_deref() == Some("1h") { Some("1h") } else { None } }
}

impl Block<'_> {
    /// Whether it is a text of which nothing can be seen.
    pub(super) fn is_blank(&self) -> bool {
        matches!(self, Block::Text(text) if text.trim().is_empty())
    }
}

impl<'a> Piece<'a> for Block<'a> {
    fn of(text: Cow<'a, str>) -> Self {
        Block::Text(text)
    }

    fn text(&mut self) -> Option<&mut Cow<'a, str>> {
        if let Block::Text(text) = self { Some(text) } else { None }
    }
}

/// A block of text, unless it is blank.
pub(super) fn written(text: &str) -> Option<Block<'_>> {
    if text.trim().is_empty() { None } else { Some(Block::Text(Cow::Borrowed(text))) }
}

pub(super) fn tool_use<'a>(param: &str, call: &'a ToolCall<'a>) -> Result<ToolUse<'a>, Error> {
    let id = match call.id.as_deref().map(|id| carry::unseal(id).0) {
        Some(id) if !id.is_empty() => call_id(id),
        _ => return Err(Error::invalid(format!("{param}.id"), format!("`{param}` must have an `id`"))),
    };
    if let Some(function) = &call.function {
        return function_use(&format!("{param}.function"), id, function);
    }
    let custom = call.custom.as_ref().ok_or_else(|| Error::invalid(param, format!("`{param}` must hold a `function`")))?;
    let input = serde_json::value::to_raw_value(&serde_json::json!({ "input": custom.input })).map_err(|_| Error::invalid(param, format!("`{param}.custom.input` must be a text")))?;
    Ok(ToolUse { tool_use_id: id, name: tools::name(Cow::Borrowed(custom.name.as_deref().unwrap_or_default()), &format!("{param}.custom.name"))?, input: Cow::Owned(input) })
}

pub(super) fn function_use<'a>(param: &str, id: Cow<'a, str>, function: &'a FunctionCall<'a>) -> Result<ToolUse<'a>, Error> {
    let json = function.arguments.as_ref().map_or("{}", |a| a.json());
    let input: &RawValue = serde_json::from_str(json)
        .ok()
        .filter(|raw: &&RawValue| raw.get().starts_with('{'))
        .ok_or_else(|| Error::invalid(format!("{param}.arguments"), format!("`{param}.arguments` must be the JSON text of an object")))?;
    Ok(ToolUse { tool_use_id: id, name: tools::name(Cow::Borrowed(function.name.as_deref().unwrap_or_default()), &format!("{param}.name"))?, input: Cow::Borrowed(input) })
}

/// A call id as Converse takes it. Call and result are rewritten alike, so that nobody has to read it back.
pub(super) fn call_id(id: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
    if id.len() <= 64 && id.chars().all(plain) {
        return Cow::Borrowed(id);
    }
    let kept: String = id.chars().filter(|c| plain(*c)).take(55).collect();
    Cow::Owned(format!("{kept}_{:08x}", crc32fast::hash(id.as_bytes())))
}

/// Media type and base64 of a data URL.
pub(super) fn inline<'a>(param: &str, url: &'a str) -> Result<(&'a str, &'a str), Error> {
    data_url(url).ok_or_else(|| Error::unsupported(KIND, param, "Bedrock fetches nothing; send a base64 `data:` URL"))
}

pub(super) fn one_of(word: Option<&str>, words: &[&'static str]) -> Option<&'static str> {
    words.iter().copied().find(|w| word == Some(*w))
}
