//! The response object: what the client asked for repeated, the output, and how it ended.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::item::Item;
use crate::answer::Finish;
use crate::chat::json;
use crate::door::Meta;
use crate::usage::Usage;
use crate::wire::Str;

/// What of the request the response repeats, and the names of its custom tools.
#[derive(Debug, Default)]
pub(super) struct Echo {
    /// `"instructions":…,"metadata":…` and so on, ready to be written.
    fields: Vec<u8>,
    custom: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Asked<'a> {
    #[serde(borrow)]
    instructions: Option<&'a RawValue>,
    #[serde(borrow)]
    max_output_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    max_tool_calls: Option<&'a RawValue>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    parallel_tool_calls: Option<&'a RawValue>,
    #[serde(borrow)]
    prompt_cache_key: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning: Option<AskedReasoning<'a>>,
    #[serde(borrow)]
    safety_identifier: Option<&'a RawValue>,
    #[serde(borrow)]
    service_tier: Option<&'a RawValue>,
    #[serde(borrow)]
    temperature: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<AskedText<'a>>,
    #[serde(borrow)]
    tool_choice: Option<&'a RawValue>,
    #[serde(borrow)]
    tools: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    top_logprobs: Option<&'a RawValue>,
    #[serde(borrow)]
    top_p: Option<&'a RawValue>,
    #[serde(borrow)]
    user: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AskedReasoning<'a> {
    #[serde(borrow)]
    effort: Option<&'a RawValue>,
    #[serde(borrow)]
    summary: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AskedText<'a> {
    #[serde(borrow)]
    format: Option<&'a RawValue>,
    #[serde(borrow)]
    verbosity: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct AskedTool<'a> {
    #[serde(rename = "type", borrow)]
    kind: Str<'a>,
    #[serde(borrow)]
    name: Option<Str<'a>>,
}

impl Echo {
    /// Reads what is to be repeated. Where the client said nothing, it is OpenAI's default; where the gateway does
    /// otherwise than the client asked (`store`, `truncation`), it is what was done.
    pub(super) fn new(request: &[u8]) -> Self {
        let asked: Asked<'_> = serde_json::from_slice(request).unwrap_or_default();
        let tools = asked.tools.unwrap_or_default();
        let custom = tools.iter().filter_map(|t| serde_json::from_str::<AskedTool<'_>>(t.get()).ok()).filter(|t| &*t.kind == "custom").filter_map(|t| t.name.map(|n| n.0.into_owned())).collect();
        let or = |raw: Option<&RawValue>, default: &'static str| raw.map(RawValue::get).filter(|r| *r != "null").unwrap_or(default).to_owned();
        let reasoning = asked.reasoning.unwrap_or_default();
        let text = asked.text.unwrap_or_default();
        let list = tools.iter().map(|t| t.get()).collect::<Vec<_>>().join(",");
        let fields = [
            ("background", "false".to_owned()),
            ("instructions", or(asked.instructions, "null")),
            ("max_output_tokens", or(asked.max_output_tokens, "null")),
            ("max_tool_calls", or(asked.max_tool_calls, "null")),
            ("metadata", or(asked.metadata, "{}")),
            ("parallel_tool_calls", or(asked.parallel_tool_calls, "true")),
            ("previous_response_id", "null".to_owned()),
            ("prompt_cache_key", or(asked.prompt_cache_key, "null")),
            ("reasoning", format!(r#"{{"effort":{},"summary":{}}}"#, or(reasoning.effort, "null"), or(reasoning.summary, "null"))),
            ("safety_identifier", or(asked.safety_identifier, "null")),
            ("service_tier", or(asked.service_tier, "\"auto\"")),
            ("store", "false".to_owned()),
            ("temperature", or(asked.temperature, "1.0")),
            ("text", format!(r#"{{"format":{},"verbosity":{}}}"#, or(text.format, r#"{"type":"text"}"#), or(text.verbosity, "\"medium\""))),
            ("tool_choice", or(asked.tool_choice, "\"auto\"")),
            ("tools", format!("[{list}]")),
            ("top_logprobs", or(asked.top_logprobs, "0")),
            ("top_p", or(asked.top_p, "1.0")),
            ("truncation", "\"disabled\"".to_owned()),
            ("user", or(asked.user, "null")),
        ];
        let mut out = Vec::with_capacity(512 + list.len());
        for (name, value) in fields {
            out.extend_from_slice(format!(",\"{name}\":{value}").as_bytes());
        }
        // The client's own line breaks, which can only stand between tokens, would end an event's line.
        out.retain(|b| !matches!(b, b'\n' | b'\r'));
        Echo { fields: out, custom }
    }

    /// Whether a tool takes free text.
    pub(super) fn is_custom(&self, tool: &str) -> bool {
        self.custom.iter().any(|name| name == tool)
    }
}

/// Everything that a response object is written from.
pub(super) struct Object<'a> {
    pub(super) meta: &'a Meta,
    pub(super) model: &'a str,
    pub(super) echo: &'a Echo,
    pub(super) status: &'static str,
    pub(super) error: Option<Failure<'a>>,
    /// `max_output_tokens` or `content_filter`.
    pub(super) incomplete: Option<&'static str>,
    pub(super) output: &'a [Item],
    pub(super) usage: Option<Usage>,
}

/// Why a response failed.
#[derive(Debug, Serialize)]
pub(super) struct Failure<'a> {
    pub(super) code: &'static str,
    pub(super) message: &'a str,
}

#[derive(Serialize)]
struct Reason {
    reason: &'static str,
}

impl Object<'_> {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"id\":");
        json(out, &format!("resp_{}", self.meta.id));
        out.extend_from_slice(format!(",\"object\":\"response\",\"created_at\":{},\"status\":\"{}\",\"error\":", self.meta.created, self.status).as_bytes());
        json(out, &self.error);
        out.extend_from_slice(b",\"incomplete_details\":");
        json(out, &self.incomplete.map(|reason| Reason { reason }));
        out.extend_from_slice(b",\"model\":");
        json::<str>(out, if self.model.is_empty() { &self.meta.model } else { self.model });
        out.extend_from_slice(b",\"output\":");
        json(out, self.output);
        out.extend_from_slice(b",\"usage\":");
        match &self.usage {
            Some(u) => out.extend_from_slice(
                format!(
                    r#"{{"input_tokens":{},"input_tokens_details":{{"cached_tokens":{},"cache_write_tokens":{}}},"output_tokens":{},"output_tokens_details":{{"reasoning_tokens":{}}},"total_tokens":{}}}"#,
                    u.prompt(),
                    u.cache_read,
                    u.cache_write + u.cache_write_1h,
                    u.completion(),
                    u.reasoning,
                    u.total()
                )
                .as_bytes(),
            ),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(&self.echo.fields);
        out.push(b'}');
    }
}

/// Status and reason of an answer that came to its end.
pub(super) fn ending(finish: Finish) -> (&'static str, Option<&'static str>) {
    match finish {
        Finish::Stop | Finish::ToolCalls => ("completed", None),
        Finish::Length => ("incomplete", Some("max_output_tokens")),
        Finish::ContentFilter => ("incomplete", Some("content_filter")),
    }
}
