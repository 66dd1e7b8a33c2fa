//! The hub as a door: OpenAI's chat completions written out, whole and in chunks.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::answer::{Answer, Choice, Delta, Finish, OwnedDetail};
use crate::door::{ClientError, Door, Meta, Writer};
use crate::envelope::Envelope;
use crate::sse::one_line;
use crate::usage::Usage;
use crate::{Dialect, Error};

/// OpenAI's chat completions.
#[derive(Debug)]
pub struct Chat;

impl Door for Chat {
    fn dialect(&self) -> Dialect {
        Dialect::Chat
    }

    fn read(&self, request: &Envelope, _: &mut Vec<String>) -> Result<Vec<u8>, Error> {
        Ok(request.body().to_vec())
    }

    fn answer(&self, answer: &Answer, meta: &Meta) -> Vec<u8> {
        let mut out = Vec::with_capacity(1024);
        out.extend_from_slice(b"{\"id\":");
        text(&mut out, &completion_id(&answer.id, meta));
        out.extend_from_slice(format!(",\"object\":\"chat.completion\",\"created\":{},\"model\":", meta.created).as_bytes());
        text(&mut out, if answer.model.is_empty() { &meta.model } else { &answer.model });
        out.extend_from_slice(b",\"choices\":");
        json(&mut out, &answer.choices.iter().enumerate().map(|(index, c)| choice(index, c)).collect::<Vec<_>>());
        if let Some(usage) = &answer.usage {
            out.extend_from_slice(b",\"usage\":");
            out.extend_from_slice(usage.to_openai().as_bytes());
        }
        out.push(b'}');
        out
    }

    fn writer(&self, meta: Meta) -> Box<dyn Writer> {
        Box::new(ChunkWriter { meta, head: Vec::new(), choices: Vec::new(), usage: None })
    }

    fn error(&self, error: &ClientError) -> Vec<u8> {
        openai_error(error)
    }

    fn error_event(&self, error: &ClientError) -> Vec<u8> {
        error_chunk(error)
    }
}

/// OpenAI's error body.
#[must_use]
pub fn openai_error(error: &ClientError) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        message: &'a str,
        r#type: &'a str,
        param: Option<&'a str>,
        code: Option<&'a str>,
    }
    let mut out = Vec::with_capacity(200);
    out.extend_from_slice(b"{\"error\":");
    json(&mut out, &Body { message: &error.message, r#type: error.kind.openai_type(), param: error.param.as_deref(), code: error.code.as_deref().or(error.kind.openai_code()) });
    out.push(b'}');
    out
}

/// OpenAI's error as an event of a chat stream. No `[DONE]` follows it.
fn error_chunk(error: &ClientError) -> Vec<u8> {
    let mut out = b"data: ".to_vec();
    out.extend_from_slice(&openai_error(error));
    out.extend_from_slice(b"\n\n");
    out
}

#[derive(Serialize)]
struct ChoiceBody<'a> {
    index: usize,
    message: MessageBody<'a>,
    logprobs: Option<&'a RawValue>,
    finish_reason: &'static str,
}

#[derive(Serialize)]
struct MessageBody<'a> {
    role: &'static str,
    content: Option<&'a str>,
    refusal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    reasoning_details: &'a [OwnedDetail],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    annotations: &'a [Box<RawValue>],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    images: Vec<Image<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallBody<'a>>,
}

#[derive(Serialize)]
struct CallBody<'a> {
    id: &'a str,
    r#type: &'static str,
    function: FunctionBody<'a>,
}

#[derive(Serialize)]
struct FunctionBody<'a> {
    name: &'a str,
    arguments: &'a str,
}

#[derive(Serialize)]
struct Image<'a> {
    r#type: &'static str,
    image_url: Url<'a>,
}

#[derive(Serialize)]
struct Url<'a> {
    url: &'a str,
}

fn image(url: &str) -> Image<'_> {
    Image { r#type: "image_url", image_url: Url { url } }
}

fn choice(index: usize, c: &Choice) -> ChoiceBody<'_> {
    let tool_calls: Vec<_> = c
        .calls
        .iter()
        .map(|call| CallBody { id: &call.id, r#type: "function", function: FunctionBody { name: &call.name, arguments: if call.arguments.is_empty() { "{}" } else { &call.arguments } } })
        .collect();
    // An answer of nothing is an empty text; `null` says that calls or a refusal stand in its place.
    let content = c.text.as_deref().or(if tool_calls.is_empty() && c.refusal.is_none() { Some("") } else { None });
    ChoiceBody {
        index,
        message: MessageBody {
            role: "assistant",
            content,
            refusal: c.refusal.as_deref(),
            reasoning_content: c.reasoning.as_deref(),
            reasoning_details: &c.details,
            annotations: &c.annotations,
            images: c.images.iter().map(|url| image(url)).collect(),
            tool_calls,
        },
        logprobs: c.logprobs.as_deref(),
        finish_reason: c.reason().as_openai(),
    }
}

fn completion_id(id: &str, meta: &Meta) -> String {
    if id.is_empty() { format!("chatcmpl-{}", meta.id) } else { id.to_owned() }
}

/// Appends a JSON string.
pub(crate) fn text(out: &mut Vec<u8>, value: &str) {
    json(out, value);
}

/// Appends a value as JSON.
pub(crate) fn json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    // Writing into a Vec cannot fail, and nothing here has a map with keys that are not strings.
    let _ = serde_json::to_writer(out, value);
}

/// What a choice of a stream has had so far.
#[derive(Default)]
struct Progress {
    started: bool,
    calls: u32,
    /// Calls that have begun and have had no arguments yet.
    bare: Vec<u32>,
    finish: Option<Finish>,
}

/// Writes `chat.completion.chunk` events. Holds what clients rely on: the role in the first delta only, the finish once
/// and alone, the usage last with no choices, `[DONE]` only at a clean end.
struct ChunkWriter {
    meta: Meta,
    /// `data: {"id":…,"model":…,"choices":[` as every event begins.
    head: Vec<u8>,
    choices: Vec<Progress>,
    usage: Option<Usage>,
}

impl ChunkWriter {
    fn start(&mut self, id: &str, model: &str) {
        self.head.extend_from_slice(b"data: {\"id\":");
        text(&mut self.head, &completion_id(id, &self.meta));
        self.head.extend_from_slice(format!(",\"object\":\"chat.completion.chunk\",\"created\":{},\"model\":", self.meta.created).as_bytes());
        text(&mut self.head, if model.is_empty() { &self.meta.model } else { model });
        self.head.extend_from_slice(b",\"choices\":[");
    }

    fn head(&mut self, out: &mut Vec<u8>) {
        if self.head.is_empty() {
            self.start("", "");
        }
        out.extend_from_slice(&self.head);
    }

    fn tail(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.meta.include_usage { b"],\"usage\":null}\n\n" } else { b"]}\n\n" });
    }

    fn progress(&mut self, choice: u32) -> &mut Progress {
        let choice = (choice as usize).min(crate::answer::MAX_CHOICES - 1);
        if self.choices.len() <= choice {
            self.choices.resize_with(choice + 1, Progress::default);
        }
        &mut self.choices[choice]
    }

    /// One event whose delta is what `body` writes between the braces.
    fn event(&mut self, choice: u32, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
        self.role(choice, out);
        self.head(out);
        out.extend_from_slice(b"{\"index\":");
        number(out, choice);
        out.extend_from_slice(b",\"delta\":{");
        body(out);
        out.extend_from_slice(b"},\"finish_reason\":null}");
        self.tail(out);
    }

    /// The event that opens a choice.
    fn role(&mut self, choice: u32, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.progress(choice).started, true) {
            return;
        }
        self.head(out);
        out.extend_from_slice(b"{\"index\":");
        number(out, choice);
        out.extend_from_slice(b",\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}");
        self.tail(out);
    }

    /// Calls whose arguments never came take none: an empty object, so that what clients join is valid JSON. Only at the end is
    /// that known: the arguments of parallel calls may come in turns.
    fn close_calls(&mut self, choice: u32, out: &mut Vec<u8>) {
        for index in std::mem::take(&mut self.progress(choice).bare) {
            self.arguments(choice, index, "{}", out);
        }
    }

    fn arguments(&mut self, choice: u32, index: u32, json: &str, out: &mut Vec<u8>) {
        self.event(choice, out, |out| {
            out.extend_from_slice(b"\"tool_calls\":[{\"index\":");
            number(out, index);
            out.extend_from_slice(b",\"function\":{\"arguments\":");
            text(out, json);
            out.extend_from_slice(b"}}]");
        });
    }

    fn field(&mut self, choice: u32, out: &mut Vec<u8>, name: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        self.event(choice, out, |out| {
            out.push(b'"');
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"\":");
            text(out, value);
        });
    }

    fn list<T: Serialize + ?Sized>(&mut self, choice: u32, out: &mut Vec<u8>, name: &str, value: &T) {
        self.event(choice, out, |out| {
            out.push(b'"');
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"\":[");
            json(out, value);
            out.push(b']');
        });
    }
}

impl Writer for ChunkWriter {
    fn delta(&mut self, delta: &Delta<'_>, out: &mut Vec<u8>) {
        match *delta {
            Delta::Start { id, model } => {
                if self.head.is_empty() {
                    self.start(id, model);
                    self.role(0, out);
                }
            }
            Delta::Text { choice, text } => self.field(choice, out, "content", text),
            Delta::Refusal { choice, text } => self.field(choice, out, "refusal", text),
            Delta::Reasoning { choice, text } => self.field(choice, out, "reasoning_content", text),
            Delta::Detail { choice, detail } => self.list(choice, out, "reasoning_details", detail),
            Delta::Call { choice, index, id, name } => {
                let progress = self.progress(choice);
                progress.calls += 1;
                progress.bare.push(index);
                self.event(choice, out, |out| {
                    out.extend_from_slice(b"\"tool_calls\":[{\"index\":");
                    number(out, index);
                    out.extend_from_slice(b",\"id\":");
                    text(out, id);
                    out.extend_from_slice(b",\"type\":\"function\",\"function\":{\"name\":");
                    text(out, name);
                    out.extend_from_slice(b",\"arguments\":\"\"}}]");
                });
            }
            Delta::Arguments { choice, index, json } => {
                if !json.is_empty() {
                    self.progress(choice).bare.retain(|bare| *bare != index);
                    self.arguments(choice, index, json, out);
                }
            }
            Delta::Annotation { choice, json } => {
                if let Ok(raw) = serde_json::from_str::<&RawValue>(&one_line(json)) {
                    self.list(choice, out, "annotations", raw);
                }
            }
            Delta::Image { choice, url } => self.list(choice, out, "images", &image(url)),
            Delta::Logprobs { choice, json } => {
                self.role(choice, out);
                self.head(out);
                out.extend_from_slice(b"{\"index\":");
                number(out, choice);
                out.extend_from_slice(b",\"delta\":{},\"logprobs\":");
                out.extend_from_slice(one_line(json).as_bytes());
                out.extend_from_slice(b",\"finish_reason\":null}");
                self.tail(out);
            }
            Delta::Finish { choice, reason } => self.progress(choice).finish = Some(reason),
            Delta::Usage(usage) => self.usage = Some(usage),
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        if self.choices.is_empty() {
            self.role(0, out);
        }
        for choice in 0..self.choices.len() as u32 {
            self.role(choice, out);
            self.close_calls(choice, out);
            let progress = self.progress(choice);
            let reason = match progress.finish.unwrap_or_default() {
                Finish::Stop if progress.calls > 0 => Finish::ToolCalls,
                reason => reason,
            };
            self.head(out);
            out.extend_from_slice(b"{\"index\":");
            number(out, choice);
            out.extend_from_slice(b",\"delta\":{},\"finish_reason\":\"");
            out.extend_from_slice(reason.as_openai().as_bytes());
            out.extend_from_slice(b"\"}");
            self.tail(out);
        }
        if self.meta.include_usage {
            self.head(out);
            out.extend_from_slice(b"],\"usage\":");
            out.extend_from_slice(self.usage.unwrap_or_default().to_openai().as_bytes());
            out.extend_from_slice(b"}\n\n");
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn error(&mut self, error: &ClientError, out: &mut Vec<u8>) {
        out.extend_from_slice(&error_chunk(error));
    }
}

fn number(out: &mut Vec<u8>, value: u32) {
    if value < 10 {
        out.push(b'0' + value as u8);
    } else {
        out.extend_from_slice(value.to_string().as_bytes());
    }
}
