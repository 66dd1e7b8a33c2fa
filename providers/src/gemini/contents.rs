//! The hub's messages as Gemini's turns: system texts apart, turns of one role merged, tool results as objects in the order
//! of their calls, and each signature back on the part that it came with.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Host;
use super::model::Model;
use crate::door::once;
use crate::wire::{ChatRequest, Content as HubContent, Message, ToolCall, data_url};
use crate::{Error, carry, json};

/// What stands in for a signature on calls that another model made, as Google documents it.
pub(super) const FOREIGN_SIGNATURE: &str = "skip_thought_signature_validator";

/// A turn.
#[derive(Debug, Serialize)]
pub(super) struct Content<'a> {
    role: &'static str,
    parts: Vec<Part<'a>>,
}

/// A part of a turn.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Part<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inline_data: Option<Blob<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_data: Option<FileData<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function_call: Option<FunctionCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function_response: Option<FunctionResponse<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thought_signature: Option<Cow<'a, str>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Blob<'a> {
    mime_type: Cow<'a, str>,
    data: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FileData<'a> {
    mime_type: &'a str,
    file_uri: &'a str,
}

#[derive(Debug, Serialize)]
struct FunctionCall<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    name: &'a str,
    args: &'a RawValue,
}

#[derive(Debug, Serialize)]
struct FunctionResponse<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    name: &'a str,
    response: Outcome<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parts: Vec<Part<'a>>,
}

/// What a tool gave back: always an object.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Outcome<'a> {
    Object(Cow<'a, RawValue>),
    Output { output: Cow<'a, str> },
    Error { error: Cow<'a, str> },
}

/// All turns of a request.
#[derive(Debug, Default)]
pub(super) struct Contents<'a> {
    pub(super) system: Vec<Part<'a>>,
    pub(super) turns: Vec<Content<'a>>,
}

/// A call that waits for its result.
struct Pending<'a> {
    id: &'a str,
    name: &'a str,
    result: Option<FunctionResponse<'a>>,
}

struct Writer<'a, 'w> {
    host: &'w Host,
    model: Model<'a>,
    out: Contents<'a>,
    pending: Vec<Pending<'a>>,
    /// Where the pending calls stand, for the error that they are not answered.
    asked_at: usize,
    /// Images of tool results, for models that take them only beside the results.
    media: Vec<Part<'a>>,
    warnings: &'w mut Vec<String>,
}

/// Writes the messages of a request.
pub(super) fn write<'a>(request: &'a ChatRequest<'_>, host: &Host, model: Model<'a>, warnings: &mut Vec<String>) -> Result<Contents<'a>, Error> {
    let messages = request.messages.as_deref().unwrap_or_default();
    let mut w = Writer { host, model, out: Contents::default(), pending: Vec::new(), asked_at: 0, media: Vec::new(), warnings };
    for (at, message) in messages.iter().enumerate() {
        w.message(at, message)?;
    }
    // A request that ends with calls is for the model to judge; one that answers half of them is not.
    if w.pending.iter().any(|p| p.result.is_some()) {
        w.settle()?;
    }
    let mut out = w.out;
    if out.turns.is_empty() {
        if out.system.is_empty() {
            return Err(Error::invalid("messages", "`messages` must hold at least one message with content"));
        }
        once(warnings, "the system message was sent as the user's: Gemini answers nothing else");
        out.turns.push(Content { role: "user", parts: std::mem::take(&mut out.system) });
    }
    Ok(out)
}

impl<'a> Writer<'a, '_> {
    fn message(&mut self, at: usize, message: &'a Message<'_>) -> Result<(), Error> {
        if message.name.is_some() && message.role.as_deref() != Some("function") {
            once(self.warnings, "dropped `name` of a message: Gemini's turns have no names");
        }
        match message.role.as_deref().unwrap_or_default() {
            "system" | "developer" => self.system(at, message),
            "user" => {
                self.settle()?;
                let parts = self.parts(at, message)?;
                self.turn("user", parts);
                Ok(())
            }
            "assistant" => {
                self.settle()?;
                self.assistant(at, message)
            }
            "tool" | "function" => self.result(at, message),
            other => Err(Error::invalid(format!("messages[{at}].role"), format!("`{other}` is not a role; use system, developer, user, assistant or tool"))),
        }
    }

    fn system(&mut self, at: usize, message: &'a Message<'_>) -> Result<(), Error> {
        if !self.out.turns.is_empty() || !self.pending.is_empty() {
            once(self.warnings, "a system message in the middle was moved to the beginning: Gemini has one system instruction");
        }
        let parts = self.parts(at, message)?;
        if parts.iter().any(|p| p.text.is_none()) {
            return Err(Error::unsupported(self.host.kind, format!("messages[{at}].content"), "a system message can hold text only"));
        }
        self.out.system.extend(parts);
        Ok(())
    }

    /// Adds parts to the last turn, or begins one. A turn must not be empty.
    fn turn(&mut self, role: &'static str, parts: Vec<Part<'a>>) {
        if parts.is_empty() {
            return;
        }
        match self.out.turns.last_mut() {
            Some(last) if last.role == role => last.parts.extend(parts),
            _ => self.out.turns.push(Content { role, parts }),
        }
    }

    fn parts(&mut self, at: usize, message: &'a Message<'_>) -> Result<Vec<Part<'a>>, Error> {
        let mut out = Vec::new();
        match &message.content {
            None => {}
            Some(HubContent::Text(content)) => out.extend(text(content)),
            Some(HubContent::Parts(parts)) => {
                for (index, part) in parts.iter().enumerate() {
                    let path = || format!("messages[{at}].content[{index}]");
                    match part.kind.as_deref().unwrap_or("text") {
                        "text" => out.extend(text(part.text.as_deref().unwrap_or_default())),
                        "refusal" => out.extend(text(part.refusal.as_deref().unwrap_or_default())),
                        _ => out.push(self.media(part, path)?),
                    }
                }
            }
        }
        Ok(out)
    }

    fn media(&mut self, part: &'a crate::wire::Part<'_>, path: impl Fn() -> String) -> Result<Part<'a>, Error> {
        let missing = |field: &str| Error::invalid(format!("{}.{field}", path()), format!("`{field}` is missing"));
        match part.kind.as_deref().unwrap_or_default() {
            "image_url" => {
                let image = part.image_url.as_ref().ok_or_else(|| missing("image_url"))?;
                if image.detail.as_deref().is_some_and(|d| d != "auto") {
                    once(self.warnings, "dropped `detail` of an image: Gemini decides by itself");
                }
                by_url(image.url.as_deref().ok_or_else(|| missing("image_url.url"))?, "image/jpeg", || format!("{}.image_url.url", path()))
            }
            "video_url" => {
                let url = part.video_url.as_ref().and_then(|v| v.url.as_deref()).ok_or_else(|| missing("video_url.url"))?;
                by_url(url, "video/mp4", || format!("{}.video_url.url", path()))
            }
            "input_audio" => {
                let audio = part.input_audio.as_ref().ok_or_else(|| missing("input_audio"))?;
                let mime = Cow::Owned(format!("audio/{}", audio.format.as_deref().unwrap_or("wav")));
                Ok(inline(mime, audio.data.as_deref().ok_or_else(|| missing("input_audio.data"))?))
            }
            "file" => {
                let file = part.file.as_ref().ok_or_else(|| missing("file"))?;
                let mime = mime_of(file.filename.as_deref().unwrap_or_default()).unwrap_or("application/pdf");
                match (file.file_data.as_deref(), file.file_id.as_deref()) {
                    (Some(data), _) if data.contains(':') => by_url(data, mime, || format!("{}.file.file_data", path())),
                    (Some(data), _) => Ok(inline(Cow::Borrowed(mime), data)),
                    (None, Some(id)) if id.starts_with("https://") || id.starts_with("gs://") => by_url(id, mime, || format!("{}.file.file_id", path())),
                    (None, Some(_)) => Err(Error::unsupported(self.host.kind, format!("{}.file.file_id", path()), "it knows only its own files, by their URI; send the file as `file_data`")),
                    (None, None) => Err(missing("file.file_data")),
                }
            }
            other => Err(Error::unsupported(self.host.kind, path(), format!("it takes no parts of type `{other}`"))),
        }
    }

    fn assistant(&mut self, at: usize, message: &'a Message<'_>) -> Result<(), Error> {
        let mut parts = self.parts(at, message)?;
        if let Some(refusal) = message.refusal.as_deref() {
            parts.extend(text(refusal));
        }
        if message.audio.is_some() {
            once(self.warnings, "dropped `audio` of an assistant's message: Gemini does not know it");
        }
        if let Some((_, images)) = message.extra.iter().find(|(key, _)| &**key == "images") {
            let first = parts.len();
            self.own_images(at, images, &mut parts)?;
            for (position, part) in parts[first..].iter_mut().enumerate() {
                let id = carry::image_id(position);
                part.thought_signature = self.own_details(message).find(|d| d.id.as_deref() == Some(&id)).and_then(|d| d.data.as_deref()).map(Cow::Borrowed);
            }
        }
        // A signature of no call belongs to the text, or to nothing but itself.
        if let Some(signature) = self.own_details(message).filter(|d| d.id.is_none()).filter_map(|d| d.data.as_deref()).last() {
            match parts.iter_mut().rfind(|p| p.inline_data.is_none() && p.file_data.is_none()) {
                Some(part) => part.thought_signature = Some(Cow::Borrowed(signature)),
                None => parts.push(Part { text: Some(Cow::Borrowed("")), thought_signature: Some(Cow::Borrowed(signature)), ..Part::default() }),
            }
        }
        self.asked_at = at;
        let first = parts.len();
        for (index, call) in message.tool_calls.iter().flatten().enumerate() {
            let part = self.call(at, index, message, call)?;
            parts.push(part);
        }
        if let Some(call) = message.function_call.as_ref().filter(|_| message.tool_calls.is_none()) {
            let name = call.name.as_deref().unwrap_or_default();
            let args = arguments(call.arguments.as_ref(), || format!("messages[{at}].function_call.arguments"))?;
            parts.push(Part { function_call: Some(FunctionCall { id: None, name, args }), ..Part::default() });
            self.pending.push(Pending { id: "", name, result: None });
        }
        // Of parallel calls only the first is signed. A turn without any signature is another model's.
        if self.model.wants_signatures()
            && parts[first..].iter().all(|p| p.thought_signature.is_none())
            && let Some(call) = parts.get_mut(first)
        {
            call.thought_signature = Some(Cow::Borrowed(FOREIGN_SIGNATURE));
        }
        self.turn("model", parts);
        Ok(())
    }

    fn own_details<'m>(&self, message: &'m Message<'m>) -> impl Iterator<Item = &'m carry::Detail<'m>> + use<'m> {
        message.reasoning_details.iter().flatten().filter(|d| d.format.as_deref() == Some(carry::GEMINI))
    }

    /// Images that the model drew in an earlier turn, in the shape that answers give them out in.
    fn own_images(&mut self, at: usize, raw: &'a RawValue, parts: &mut Vec<Part<'a>>) -> Result<(), Error> {
        let path = || format!("messages[{at}].images");
        let images: Vec<crate::wire::Part<'a>> = serde_json::from_str(raw.get()).map_err(|_| Error::invalid(path(), "`images` must be a list of `image_url` parts"))?;
        for image in images {
            // The part is gone at the end of this loop; its URL lives in the request only where it has no escapes.
            if let Some(Cow::Borrowed(url)) = image.image_url.and_then(|i| i.url).map(|u| u.0) {
                parts.push(by_url(url, "image/png", path)?);
            }
        }
        Ok(())
    }

    fn call(&mut self, at: usize, index: usize, message: &'a Message<'_>, call: &'a ToolCall<'_>) -> Result<Part<'a>, Error> {
        let path = || format!("messages[{at}].tool_calls[{index}]");
        let Some(function) = &call.function else {
            return Err(Error::unsupported(self.host.kind, path(), "it knows calls of functions only"));
        };
        let name = function.name.as_deref().filter(|n| !n.is_empty()).ok_or_else(|| Error::invalid(format!("{}.function.name", path()), "a call needs the name of its function"))?;
        let args = arguments(function.arguments.as_ref(), || format!("{}.function.arguments", path()))?;
        let (id, sealed) = carry::unseal(call.id.as_deref().unwrap_or_default());
        let signature = match sealed {
            Some((carry::GEMINI, signature)) => Some(Cow::Owned(signature)),
            _ => {
                let detail =
                    message.reasoning_details.iter().flatten().find(|d| d.format.as_deref() == Some(carry::GEMINI) && d.id.as_deref().is_some_and(|of| !of.is_empty() && carry::unseal(of).0 == id));
                detail.and_then(|d| d.data.as_deref()).map(Cow::Borrowed).or_else(|| call.extra_content.and_then(shim_signature).map(Cow::Owned))
            }
        };
        self.pending.push(Pending { id, name, result: None });
        let id = self.shown(id);
        Ok(Part { function_call: Some(FunctionCall { id, name, args }), thought_signature: signature, ..Part::default() })
    }

    /// The id, where this host and model have ids for calls.
    fn shown(&self, id: &'a str) -> Option<&'a str> {
        Some(id).filter(|id| !id.is_empty() && (self.host.call_ids || self.model.wants_signatures()))
    }

    fn result(&mut self, at: usize, message: &'a Message<'_>) -> Result<(), Error> {
        let legacy = message.role.as_deref() == Some("function");
        let (param, wanted) = if legacy { ("name", message.name.as_deref()) } else { ("tool_call_id", message.tool_call_id.as_deref()) };
        let path = format!("messages[{at}].{param}");
        let wanted = wanted.map(|id| carry::unseal(id).0).ok_or_else(|| Error::invalid(&*path, format!("`{param}` is missing: it says which call is answered")))?;
        let of = |p: &Pending<'_>| if legacy { p.name == wanted } else { p.id == wanted };
        let Some(slot) = self.pending.iter().position(|p| of(p) && p.result.is_none()) else {
            if self.pending.iter().any(of) {
                once(self.warnings, "a second result for the same tool call was dropped");
                return Ok(());
            }
            return Err(Error::invalid(path, format!("`{wanted}` is not a call of the assistant's message before it")));
        };
        let mut media = Vec::new();
        if let Some(HubContent::Parts(parts)) = &message.content {
            for (index, part) in parts.iter().enumerate().filter(|(_, p)| p.kind.as_deref().unwrap_or("text") != "text") {
                media.push(self.media(part, || format!("messages[{at}].content[{index}]"))?);
            }
        }
        let response = outcome(message);
        if !self.model.takes_media_in_results() {
            self.media.append(&mut media);
        }
        let id = self.shown(self.pending[slot].id);
        let name = self.pending[slot].name;
        self.pending[slot].result = Some(FunctionResponse { id, name, response, parts: media });
        Ok(())
    }

    /// Writes the results of the pending calls, in the order of the calls.
    fn settle(&mut self) -> Result<(), Error> {
        let mut parts = Vec::with_capacity(self.pending.len());
        for (index, pending) in self.pending.drain(..).enumerate() {
            let Some(result) = pending.result else {
                let path = format!("messages[{}].tool_calls[{index}]", self.asked_at);
                return Err(Error::invalid(path, format!("the call `{}` of `{}` has no result: add a `tool` message for it", pending.id, pending.name)));
            };
            parts.push(Part { function_response: Some(result), ..Part::default() });
        }
        parts.append(&mut self.media);
        self.turn("user", parts);
        Ok(())
    }
}

/// A text part; none for no text, which Gemini refuses.
fn text(text: &str) -> Option<Part<'_>> {
    (!text.is_empty()).then(|| Part { text: Some(Cow::Borrowed(text)), ..Part::default() })
}

fn inline<'a>(mime_type: Cow<'a, str>, data: &'a str) -> Part<'a> {
    Part { inline_data: Some(Blob { mime_type, data }), ..Part::default() }
}

fn by_url<'a>(url: &'a str, otherwise: &'a str, path: impl Fn() -> String) -> Result<Part<'a>, Error> {
    if let Some((mime, data)) = data_url(url) {
        return Ok(inline(Cow::Borrowed(if mime.is_empty() { otherwise } else { mime }), data));
    }
    if !["https://", "http://", "gs://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(Error::invalid(path(), "it must be an https:, gs: or base64 data: URL"));
    }
    let file = url.split(['?', '#']).next().unwrap_or_default();
    Ok(Part { file_data: Some(FileData { mime_type: mime_of(file).unwrap_or(otherwise), file_uri: url }), ..Part::default() })
}

/// A media type by a file's ending: Vertex insists on one.
fn mime_of(file: &str) -> Option<&'static str> {
    Some(match file.rsplit_once('.')?.1.to_ascii_lowercase().as_str() {
        "jpg" | "jpeg" => "image/jpeg",
        "png" => "image/png",
        "webp" => "image/webp",
        "gif" => "image/gif",
        "heic" => "image/heic",
        "heif" => "image/heif",
        "pdf" => "application/pdf",
        "txt" => "text/plain",
        "md" => "text/markdown",
        "csv" => "text/csv",
        "html" | "htm" => "text/html",
        "json" => "application/json",
        "mp4" => "video/mp4",
        "mov" => "video/mov",
        "webm" => "video/webm",
        "mp3" => "audio/mp3",
        "wav" => "audio/wav",
        "flac" => "audio/flac",
        "ogg" => "audio/ogg",
        _ => return None,
    })
}

/// A call's arguments as the object that Gemini wants, byte for byte.
fn arguments<'a>(arguments: Option<&'a crate::wire::Arguments<'_>>, path: impl Fn() -> String) -> Result<&'a RawValue, Error> {
    let text = arguments.map_or("{}", |a| a.json());
    let object = json::scan(text.as_bytes()).ok().and_then(|_| serde_json::from_str(text).ok());
    object.ok_or_else(|| Error::invalid(path(), "the arguments of a call must be a JSON object in a string"))
}

fn outcome<'a>(message: &'a Message<'_>) -> Outcome<'a> {
    let text = message.content.as_ref().map(HubContent::text).unwrap_or_default();
    if message.is_error == Some(true) {
        return Outcome::Error { error: text };
    }
    let object = || {
        json::scan(text.as_bytes()).ok()?;
        match &text {
            Cow::Borrowed(text) => serde_json::from_str::<&RawValue>(text).ok().map(Cow::Borrowed),
            Cow::Owned(text) => serde_json::from_str::<Box<RawValue>>(text).ok().map(Cow::Owned),
        }
    };
    match object() {
        Some(object) => Outcome::Object(object),
        None => Outcome::Output { output: text },
    }
}

/// The signature as Google's own OpenAI shim hands it out.
fn shim_signature(raw: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Extra {
        google: Google,
    }
    #[derive(Deserialize)]
    struct Google {
        thought_signature: Option<String>,
    }
    serde_json::from_str::<Extra>(raw.get()).ok()?.google.thought_signature
}
