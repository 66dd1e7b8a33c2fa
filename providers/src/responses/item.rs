//! Output items of a response, as the whole object and the events of a stream both write them.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use super::seal;
use crate::answer::OwnedDetail;
use crate::json::scan;
use crate::wire::Str;

/// An item that is in progress, done, or was cut.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) id: String,
    /// `in_progress`, `completed`, `incomplete`.
    pub(super) status: &'static str,
    pub(super) body: Body,
}

#[derive(Debug)]
pub(super) enum Body {
    Reasoning { summary: String, details: Vec<OwnedDetail> },
    Message(Vec<Part>),
    Call { call_id: String, name: String, arguments: String, custom: bool },
    Image { url: String },
}

impl Body {
    /// The prefix of the item's id.
    fn prefix(&self) -> &'static str {
        match self {
            Body::Reasoning { .. } => "rs",
            Body::Message(_) => "msg",
            Body::Call { custom: false, .. } => "fc",
            Body::Call { custom: true, .. } => "ctc",
            Body::Image { .. } => "ig",
        }
    }

    /// How an item ended that others follow, in an answer that ended with `status`. What was cut is the last of it, except
    /// where calls were written in turns: then it is each whose arguments are not whole.
    pub(super) fn status(&self, status: &'static str) -> &'static str {
        match self {
            Body::Call { arguments, custom: false, .. } if !arguments.is_empty() && scan(arguments.as_bytes()).is_err() => status,
            _ => "completed",
        }
    }
}

/// Whether an item's id was given out here: OpenAI's have no place behind them.
pub(super) fn is_ours(id: &str) -> bool {
    let place = id.split_once('_').and_then(|(_, rest)| rest.rsplit_once('_'));
    place.is_some_and(|(_, place)| !place.is_empty() && place.bytes().all(|b| b.is_ascii_digit()))
}

impl Item {
    /// An item at its place in the output, which its id is made of.
    pub(super) fn new(answer: &str, index: usize, status: &'static str, body: Body) -> Self {
        Item { id: format!("{}_{answer}_{index}", body.prefix()), status, body }
    }
}

impl Serialize for Item {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(None)?;
        map.serialize_entry("id", &self.id)?;
        match &self.body {
            Body::Reasoning { summary, details } => {
                map.serialize_entry("type", "reasoning")?;
                let part = SummaryText::new(summary);
                map.serialize_entry("summary", if summary.is_empty() { &[][..] } else { std::slice::from_ref(&part) })?;
                if self.status != "in_progress" {
                    map.serialize_entry("encrypted_content", &seal::seal(details))?;
                }
            }
            Body::Message(parts) => {
                map.serialize_entry("type", "message")?;
                map.serialize_entry("status", self.status)?;
                map.serialize_entry("role", "assistant")?;
                map.serialize_entry("content", parts)?;
            }
            Body::Call { call_id, name, arguments, custom } => {
                map.serialize_entry("type", if *custom { "custom_tool_call" } else { "function_call" })?;
                map.serialize_entry("status", self.status)?;
                map.serialize_entry("call_id", call_id)?;
                map.serialize_entry("name", name)?;
                map.serialize_entry(if *custom { "input" } else { "arguments" }, arguments)?;
            }
            Body::Image { url } => {
                // An image comes whole or not at all, so that it is never cut.
                let done = self.status != "in_progress";
                map.serialize_entry("type", "image_generation_call")?;
                map.serialize_entry("status", if done { "completed" } else { self.status })?;
                let (media, data) = crate::wire::data_url(url).unwrap_or(("", url));
                map.serialize_entry("result", &done.then_some(data))?;
                if let Some(format @ ("png" | "jpeg" | "webp" | "gif")) = media.strip_prefix("image/") {
                    map.serialize_entry("output_format", format)?;
                }
            }
        }
        map.end()
    }
}

/// A part of a reasoning item's summary.
#[derive(Debug, Serialize)]
pub(super) struct SummaryText<'a> {
    r#type: &'static str,
    text: &'a str,
}

impl<'a> SummaryText<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        SummaryText { r#type: "summary_text", text }
    }
}

/// A part of a message.
#[derive(Debug, Serialize)]
#[serde(tag = "type")]
pub(super) enum Part {
    #[serde(rename = "output_text")]
    Text { annotations: Vec<Box<RawValue>>, logprobs: Vec<Box<RawValue>>, text: String },
    #[serde(rename = "refusal")]
    Refusal { refusal: String },
}

impl Part {
    /// A text that is yet to come.
    pub(super) fn text() -> Self {
        Part::Text { annotations: Vec::new(), logprobs: Vec::new(), text: String::new() }
    }
}

/// Chat's annotation as Responses has it: flat, and with every field that its schema demands. `None` for what it does not
/// know.
pub(super) fn annotation(json: &str) -> Option<Box<RawValue>> {
    let value: serde_json::Value = serde_json::from_str(json).ok()?;
    let field = |of: &'static str| value[of].as_object();
    let number = |of: &serde_json::Map<String, serde_json::Value>, name: &str| of.get(name).and_then(serde_json::Value::as_u64).unwrap_or_default();
    let text = |of: &serde_json::Map<String, serde_json::Value>, name: &str| of.get(name).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    let flat = if let Some(url) = field("url_citation") {
        serde_json::json!({
            "type": "url_citation", "start_index": number(url, "start_index"), "end_index": number(url, "end_index"), "url": text(url, "url"), "title": text(url, "title"),
        })
    } else {
        let file = field("file_citation")?;
        serde_json::json!({ "type": "file_citation", "file_id": text(file, "file_id"), "filename": text(file, "filename"), "index": number(file, "end_index") })
    };
    to_raw_value(&flat).ok()
}

/// Chat's log probabilities as Responses has them: one list, and bytes for every token.
pub(super) fn logprobs(json: &str) -> Vec<Box<RawValue>> {
    #[derive(serde::Deserialize)]
    struct Lists<'a> {
        #[serde(borrow)]
        content: Option<Vec<Token<'a>>>,
    }
    #[derive(serde::Deserialize, Serialize)]
    struct Token<'a> {
        #[serde(borrow)]
        token: Str<'a>,
        /// As it was written: it is a float, and nothing is computed from it.
        #[serde(borrow)]
        logprob: &'a RawValue,
        bytes: Option<Vec<u8>>,
        // Some hosts say `null` where there are none.
        #[serde(borrow)]
        top_logprobs: Option<Vec<Top<'a>>>,
    }
    #[derive(serde::Deserialize, Serialize)]
    struct Top<'a> {
        #[serde(borrow)]
        token: Str<'a>,
        #[serde(borrow)]
        logprob: &'a RawValue,
        bytes: Option<Vec<u8>>,
    }
    let Ok(lists) = serde_json::from_str::<Lists<'_>>(json) else { return Vec::new() };
    let mut tokens = lists.content.unwrap_or_default();
    for token in &mut tokens {
        token.bytes.get_or_insert_with(|| token.token.as_bytes().to_vec());
        for top in token.top_logprobs.get_or_insert_default() {
            top.bytes.get_or_insert_with(|| top.token.as_bytes().to_vec());
        }
    }
    tokens.iter().filter_map(|t| to_raw_value(t).ok()).collect()
}
