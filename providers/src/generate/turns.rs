//! Gemini's turns as the hub's messages.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::request::Many;
use crate::door::once;
use crate::wire::{Arguments, Content as HubContent, FilePart, FunctionCall as HubCall, ImageUrl, InputAudio, Message, Part as HubPart, Str, ToolCall};
use crate::{Error, carry};

#[derive(Deserialize)]
pub(super) struct Content<'a> {
    #[serde(borrow)]
    role: Option<Str<'a>>,
    #[serde(borrow)]
    parts: Option<Many<Part<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part<'a> {
    #[serde(borrow)]
    text: Option<Str<'a>>,
    thought: Option<bool>,
    #[serde(borrow, alias = "thought_signature")]
    thought_signature: Option<Str<'a>>,
    #[serde(borrow, alias = "inline_data")]
    inline_data: Option<Blob<'a>>,
    #[serde(borrow, alias = "file_data")]
    file_data: Option<FileData<'a>>,
    #[serde(borrow, alias = "function_call")]
    function_call: Option<FunctionCall<'a>>,
    #[serde(borrow, alias = "function_response")]
    function_response: Option<FunctionResponse<'a>>,
    /// Which part of a video is meant.
    #[serde(borrow, alias = "video_metadata")]
    video_metadata: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Blob<'a> {
    #[serde(borrow, alias = "mime_type")]
    mime_type: Str<'a>,
    #[serde(borrow)]
    data: Str<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileData<'a> {
    #[serde(borrow, alias = "mime_type")]
    mime_type: Option<Str<'a>>,
    #[serde(borrow, alias = "file_uri")]
    file_uri: Str<'a>,
}

#[derive(Deserialize)]
struct FunctionCall<'a> {
    #[serde(borrow)]
    id: Option<Str<'a>>,
    #[serde(borrow)]
    name: Str<'a>,
    #[serde(borrow)]
    args: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct FunctionResponse<'a> {
    #[serde(borrow)]
    id: Option<Str<'a>>,
    #[serde(borrow)]
    name: Str<'a>,
    #[serde(borrow)]
    response: Option<&'a RawValue>,
    #[serde(borrow)]
    parts: Option<Vec<Part<'a>>>,
}

/// A call that waits for its result.
struct Pending<'a> {
    id: Str<'a>,
    name: &'a str,
}

struct Reader<'a> {
    messages: Vec<Message<'a>>,
    pending: Vec<Pending<'a>>,
    calls: usize,
}

/// Reads the system instruction and the turns.
pub(super) fn read<'a>(system: Option<&'a Content<'_>>, contents: &'a [Content<'_>], warnings: &mut Vec<String>) -> Result<Vec<Message<'a>>, Error> {
    if system.into_iter().chain(contents).flat_map(Content::parts).any(|p| p.video_metadata.is_some()) {
        once(warnings, "dropped `videoMetadata`: only Gemini looks at a part of a video");
    }
    let mut reader = Reader { messages: Vec::with_capacity(contents.len() + 1), pending: Vec::new(), calls: 0 };
    if let Some(system) = system {
        let parts = reader.parts(system.parts(), "systemInstruction")?;
        reader.say("system", parts);
    }
    for (at, content) in contents.iter().enumerate() {
        let path = format!("contents[{at}]");
        match content.role.as_deref().unwrap_or("user").to_ascii_lowercase().as_str() {
            "user" | "function" | "tool" => reader.user(content, &path)?,
            "model" => reader.model(content, &path)?,
            other => return Err(Error::invalid(format!("{path}.role"), format!("`{other}` is not a role; use user or model"))),
        }
    }
    if contents.is_empty() {
        return Err(Error::invalid("contents", "`contents` must not be empty"));
    }
    Ok(reader.messages)
}

impl<'a> Content<'a> {
    fn parts(&self) -> &[Part<'a>] {
        self.parts.as_ref().map_or(&[], |p| &p.0)
    }
}

impl<'a> Reader<'a> {
    fn say(&mut self, role: &'static str, parts: Vec<HubPart<'a>>) {
        if !parts.is_empty() {
            self.messages.push(Message { role: Some(Str::from(role)), content: Some(joined(parts)), ..Message::default() });
        }
    }

    /// Results come first, as messages of their own: OpenAI wants them right behind their calls.
    fn user(&mut self, content: &'a Content<'_>, path: &str) -> Result<(), Error> {
        let mut rest = Vec::new();
        for (at, part) in content.parts().iter().enumerate() {
            let path = format!("{path}.parts[{at}]");
            match &part.function_response {
                Some(response) => self.result(response, &path)?,
                None => rest.extend(hub_part(part, &path)?),
            }
        }
        self.say("user", rest);
        Ok(())
    }

    fn parts(&self, parts: &'a [Part<'_>], path: &str) -> Result<Vec<HubPart<'a>>, Error> {
        let mut out = Vec::with_capacity(parts.len());
        for (at, part) in parts.iter().enumerate() {
            out.extend(hub_part(part, &format!("{path}.parts[{at}]"))?);
        }
        Ok(out)
    }

    fn model(&mut self, content: &'a Content<'_>, path: &str) -> Result<(), Error> {
        let mut message = Message { role: Some(Str::from("assistant")), ..Message::default() };
        let (mut said, mut thoughts, mut calls, mut details) = (String::new(), String::new(), Vec::new(), Vec::new());
        self.pending.clear();
        for (at, part) in content.parts().iter().enumerate() {
            let mut id = None;
            if let Some(call) = &part.function_call {
                id = Some(self.call(call, &mut calls));
            } else if let Some(text) = part.text.as_deref() {
                if part.thought == Some(true) { &mut thoughts } else { &mut said }.push_str(text);
            } else if part.thought_signature.is_none() {
                return Err(Error::invalid(format!("{path}.parts[{at}]"), "in a model's turn, the provider that this request goes to takes text and function calls only"));
            }
            if let Some(signature) = part.thought_signature.as_deref() {
                details.push(carry::Detail {
                    kind: Some(Str::from("reasoning.encrypted")),
                    format: Some(Str::from(carry::GEMINI)),
                    data: Some(Str::from(signature)),
                    id,
                    index: Some(details.len() as u32),
                    ..carry::Detail::default()
                });
            }
        }
        if said.is_empty() && calls.is_empty() && thoughts.is_empty() {
            return Ok(());
        }
        // Where there are calls only, OpenAI wants no text at all.
        message.content = (!said.is_empty() || calls.is_empty()).then(|| HubContent::Text(Str::from(said)));
        message.reasoning_content = (!thoughts.is_empty()).then(|| Str::from(thoughts));
        message.tool_calls = (!calls.is_empty()).then_some(calls);
        message.reasoning_details = (!details.is_empty()).then_some(details);
        self.messages.push(message);
        Ok(())
    }

    /// Adds a call; returns its bare id.
    fn call(&mut self, call: &'a FunctionCall<'_>, calls: &mut Vec<ToolCall<'a>>) -> Str<'a> {
        let id = match call.id.as_deref().filter(|id| !id.is_empty()) {
            Some(id) => Str::from(id),
            None => Str::from(format!("call_{}", self.calls)),
        };
        self.calls += 1;
        let arguments = Arguments(Cow::Borrowed(call.args.map_or("{}", RawValue::get)));
        let function = HubCall { name: Some(Str::from(&*call.name)), arguments: Some(arguments), ..HubCall::default() };
        calls.push(ToolCall { id: Some(id.clone()), kind: Some(Str::from("function")), function: Some(function), ..ToolCall::default() });
        let bare = carry::bare(&id);
        self.pending.push(Pending { id, name: &call.name });
        bare
    }

    fn result(&mut self, response: &'a FunctionResponse<'_>, path: &str) -> Result<(), Error> {
        let path = format!("{path}.functionResponse");
        // Clients of older models have no ids: names in order, then.
        let by_id = response.id.as_deref().and_then(|id| self.pending.iter().position(|p| &*p.id == id));
        let Some(at) = by_id.or_else(|| self.pending.iter().position(|p| p.name == &*response.name)) else {
            return Err(Error::invalid(path, format!("`{}` answers no function call of the model's turn before it", &*response.name)));
        };
        let id = self.pending.remove(at).id;
        let mut parts = vec![text_part(outcome(response.response.map_or("{}", RawValue::get)))];
        for (at, part) in response.parts.iter().flatten().enumerate() {
            parts.extend(hub_part(part, &format!("{path}.parts[{at}]"))?);
        }
        self.messages.push(Message { role: Some(Str::from("tool")), tool_call_id: Some(id), content: Some(joined(parts)), ..Message::default() });
        Ok(())
    }
}

/// What a tool said. Gemini wants an object around it, which many clients make of a plain text: it is taken off again.
fn outcome(object: &str) -> Str<'_> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Plain<'a> {
        #[serde(borrow, alias = "result")]
        output: Str<'a>,
    }
    serde_json::from_str::<Plain<'_>>(object).map_or_else(|_| Str::from(object), |plain| plain.output)
}

fn text_part(text: Str<'_>) -> HubPart<'_> {
    HubPart { kind: Some(Str::from("text")), text: Some(text), ..HubPart::default() }
}

/// A single text stands for itself.
fn joined(mut parts: Vec<HubPart<'_>>) -> HubContent<'_> {
    match parts.as_mut_slice() {
        [only] if only.text.is_some() => HubContent::Text(only.text.take().unwrap_or_default()),
        _ => HubContent::Parts(parts),
    }
}

/// A part of a user's turn. None for what holds nothing.
fn hub_part<'a>(part: &'a Part<'_>, path: &str) -> Result<Option<HubPart<'a>>, Error> {
    if let Some(text) = part.text.as_deref() {
        return Ok((!text.is_empty()).then(|| text_part(Str::from(text))));
    }
    if let Some(blob) = &part.inline_data {
        return Ok(Some(inline(blob)));
    }
    if let Some(file) = &part.file_data {
        return by_uri(file, path).map(Some);
    }
    Err(Error::invalid(path, "the provider that this request goes to takes text, `inlineData` and `fileData` only"))
}

fn typed(kind: &'static str) -> HubPart<'static> {
    HubPart { kind: Some(Str::from(kind)), ..HubPart::default() }
}

fn url<'a>(url: Str<'a>) -> Option<ImageUrl<'a>> {
    Some(ImageUrl { url: Some(url), ..ImageUrl::default() })
}

fn inline<'a>(blob: &'a Blob<'_>) -> HubPart<'a> {
    let data = || Str::from(format!("data:{};base64,{}", &*blob.mime_type, &*blob.data));
    match blob.mime_type.split_once('/') {
        Some(("image", _)) => HubPart { image_url: url(data()), ..typed("image_url") },
        Some(("video", _)) => HubPart { video_url: url(data()), ..typed("video_url") },
        Some(("audio", format)) => {
            let format = match format {
                "mpeg" | "mp3" => "mp3",
                "x-wav" | "wave" => "wav",
                other => other,
            };
            HubPart { input_audio: Some(InputAudio { data: Some(Str::from(&*blob.data)), format: Some(Str::from(format)), ..InputAudio::default() }), ..typed("input_audio") }
        }
        _ => {
            let filename = format!("file.{}", blob.mime_type.rsplit('/').next().unwrap_or("bin"));
            HubPart { file: Some(FilePart { file_data: Some(data()), filename: Some(Str::from(filename)), ..FilePart::default() }), ..typed("file") }
        }
    }
}

fn by_uri<'a>(file: &'a FileData<'_>, path: &str) -> Result<HubPart<'a>, Error> {
    let uri = &*file.file_uri;
    if !uri.starts_with("https://") && !uri.starts_with("http://") || uri.starts_with("https://generativelanguage.googleapis.com/") {
        return Err(Error::invalid(format!("{path}.fileData.fileUri"), "only Google can read this file; send it as `inlineData` or by a public https: URL"));
    }
    match file.mime_type.as_deref().and_then(|m| m.split_once('/')).map(|(kind, _)| kind) {
        Some("image") => Ok(HubPart { image_url: url(Str::from(uri)), ..typed("image_url") }),
        Some("video") => Ok(HubPart { video_url: url(Str::from(uri)), ..typed("video_url") }),
        _ => Err(Error::invalid(format!("{path}.fileData.mimeType"), "only images and videos can be given by URL here; send other files as `inlineData`")),
    }
}
