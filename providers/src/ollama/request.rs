//! Writes a hub request as Ollama's `/api/chat`: texts as strings, images as bare base64, arguments as objects.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::KIND;
use crate::wire::{self, ChatRequest, Choice, Content, Message, Part, Str, data_url};
use crate::{Call, Error, Target, carry};

/// Options of a model that clients send beside OpenAI's parameters.
const OPTIONS: &[&str] = &[
    "num_ctx",
    "num_keep",
    "num_batch",
    "num_gpu",
    "main_gpu",
    "use_mmap",
    "num_thread",
    "draft_num_predict",
    "min_p",
    "typical_p",
    "repeat_last_n",
    "repeat_penalty",
    "mirostat",
    "mirostat_eta",
    "mirostat_tau",
    "tfs_z",
    "penalize_newline",
];

/// Ollama's own fields beside `options`.
const OWN: &[&str] = &["think", "keep_alive", "truncate", "shift", "options"];

#[derive(Serialize)]
struct Body<'m> {
    model: &'m str,
    messages: Vec<Turn<'m>>,
    /// Always said: Ollama streams unless told otherwise.
    stream: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'m>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<Format<'m>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    think: Option<Think<'m>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_alive: Option<&'m RawValue>,
    truncate: &'m RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    shift: Option<&'m RawValue>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    logprobs: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_logprobs: Option<u32>,
    #[serde(skip_serializing_if = "Options::is_empty")]
    options: Options<'m>,
}

#[derive(Serialize)]
struct Turn<'m> {
    role: &'static str,
    content: Cow<'m, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<&'m str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    images: Vec<&'m str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall<'m>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_name: Option<&'m str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'m str>,
}

#[derive(Serialize)]
struct ToolCall<'m> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'m str>,
    function: Function<'m>,
}

#[derive(Serialize)]
struct Function<'m> {
    index: usize,
    name: &'m str,
    arguments: &'m RawValue,
}

#[derive(Serialize)]
struct Tool<'m> {
    r#type: &'static str,
    function: Definition<'m>,
}

#[derive(Serialize)]
struct Definition<'m> {
    name: &'m str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'m str>,
    parameters: &'m RawValue,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Format<'m> {
    Json(&'static str),
    Schema(&'m RawValue),
}

#[derive(Serialize)]
#[serde(untagged)]
enum Think<'m> {
    Switch(bool),
    Level(&'static str),
    Own(&'m RawValue),
}

/// What a model's `options` take from OpenAI's parameters, and what the client named in Ollama's own words.
struct Options<'m> {
    request: &'m ChatRequest<'m>,
    own: BTreeMap<Str<'m>, &'m RawValue>,
}

impl Options<'_> {
    fn is_empty(&self) -> bool {
        let r = self.request;
        self.own.is_empty()
            && r.max_output().is_none()
            && r.stop.is_none()
            && r.seed.is_none()
            && r.top_k.is_none()
            && r.temperature.or(r.top_p).or(r.presence_penalty).or(r.frequency_penalty).is_none()
    }
}

impl Serialize for Options<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let r = self.request;
        let mut map = s.serialize_map(None)?;
        let own = |name: &str| self.own.keys().any(|key| &**key == name);
        // What the client said in Ollama's own words stands.
        macro_rules! option {
            ($($name:literal: $value:expr,)*) => {
                $(if let Some(value) = $value && !own($name) {
                    map.serialize_entry($name, &value)?;
                })*
            };
        }
        option! {
            "num_predict": r.max_output(),
            "temperature": r.temperature,
            "top_p": r.top_p,
            "top_k": r.top_k,
            "seed": r.seed,
            "stop": r.stop.as_ref(),
            "presence_penalty": r.presence_penalty,
            "frequency_penalty": r.frequency_penalty,
        }
        for (key, value) in &self.own {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// Writes the call.
pub(super) fn write(request: &ChatRequest<'_>, target: &Target<'_>) -> Result<Call, Error> {
    let messages = request.messages.as_deref().unwrap_or_default();
    if messages.is_empty() {
        // Ollama would load the model and answer with nothing.
        return Err(Error::invalid("messages", "`messages` must have at least one message"));
    }
    if request.n.is_some_and(|n| n > 1) {
        return Err(Error::unsupported(KIND, "n", "it gives one choice; ask as often as you need choices"));
    }
    if request.modalities.iter().flatten().any(|m| &**m != "text") {
        return Err(Error::unsupported(KIND, "modalities", "it answers in text only"));
    }
    let mut warnings = Vec::new();
    let own = |name: &str| extra(request, name);
    let body = Body {
        model: target.model,
        messages: messages.iter().enumerate().map(|(at, m)| turn(at, m, messages)).collect::<Result<_, _>>()?,
        stream: request.streams(),
        tools: tools(request)?,
        format: format(request)?,
        think: think(request, &mut warnings)?,
        keep_alive: own("keep_alive"),
        // Ollama cuts the prompt to its context in silence unless it is told not to.
        truncate: own("truncate").unwrap_or(RawValue::FALSE),
        shift: own("shift"),
        logprobs: request.logprobs == Some(true),
        top_logprobs: request.top_logprobs,
        options: Options { request, own: options(request)? },
    };
    dropped(request, &mut warnings);
    let mut call = Call::json("/api/chat", &body);
    call.warnings = warnings;
    Ok(call)
}

fn extra<'m>(request: &'m ChatRequest<'m>, name: &str) -> Option<&'m RawValue> {
    request.extra.iter().find(|(key, value)| &**key == name && value.get() != "null").map(|(_, value)| *value)
}

/// Options in Ollama's own words: flat beside OpenAI's parameters, or in an object `options`.
fn options<'m>(request: &'m ChatRequest<'m>) -> Result<BTreeMap<Str<'m>, &'m RawValue>, Error> {
    let mut all: BTreeMap<Str<'m>, &'m RawValue> = match extra(request, "options") {
        Some(raw) => serde_json::from_str(raw.get()).map_err(|_| Error::invalid("options", "`options` must be an object of ollama's options"))?,
        None => BTreeMap::new(),
    };
    all.extend(request.extra.iter().filter(|(key, value)| OPTIONS.contains(&&**key) && value.get() != "null").map(|(key, value)| (key.clone(), *value)));
    Ok(all)
}

fn dropped(request: &ChatRequest<'_>, warnings: &mut Vec<String>) {
    for (name, given) in [
        ("logit_bias", request.logit_bias.is_some_and(|v| v.get() != "null")),
        ("user", request.user.is_some()),
        ("metadata", request.metadata.is_some_and(|v| v.get() != "null")),
        ("store", request.store.is_some()),
        ("service_tier", request.service_tier.is_some()),
        ("verbosity", request.verbosity.is_some()),
        ("prompt_cache_key", request.prompt_cache_key.is_some()),
        ("parallel_tool_calls", request.parallel_tool_calls == Some(false)),
    ] {
        if given {
            warnings.push(format!("dropped `{name}`: ollama does not take it"));
        }
    }
    for (name, value) in &request.extra {
        if value.get() != "null" && !OPTIONS.contains(&&**name) && !OWN.contains(&&**name) {
            warnings.push(format!("dropped `{name}`: ollama does not know it"));
        }
    }
}

fn think<'m>(request: &'m ChatRequest<'m>, warnings: &mut Vec<String>) -> Result<Option<Think<'m>>, Error> {
    if let Some(own) = extra(request, "think") {
        return Ok(Some(Think::Own(own)));
    }
    if let Some(effort) = request.reasoning_effort.as_deref() {
        return Ok(Some(match effort {
            "none" => Think::Switch(false),
            "minimal" | "low" => Think::Level("low"),
            "medium" => Think::Level("medium"),
            "high" => Think::Level("high"),
            "xhigh" | "max" => {
                // Only the latest servers know a level above it, and the others refuse the request.
                warnings.push(format!("lowered `reasoning_effort` from {effort} to high; ask for more with `think`"));
                Think::Level("high")
            }
            _ => return Err(Error::invalid("reasoning_effort", "`reasoning_effort` must be none, minimal, low, medium, high or xhigh")),
        }));
    }
    #[derive(serde::Deserialize)]
    struct Thinking<'a> {
        r#type: Option<&'a str>,
    }
    let thinking = request.thinking.filter(|raw| raw.get() != "null").map(|raw| serde_json::from_str::<Thinking<'_>>(raw.get()));
    match thinking {
        None => Ok(None),
        Some(Ok(thinking)) => Ok(thinking.r#type.map(|kind| Think::Switch(kind != "disabled"))),
        Some(Err(_)) => Err(Error::invalid("thinking", "`thinking` must be an object with a `type`")),
    }
}

fn format<'m>(request: &'m ChatRequest<'m>) -> Result<Option<Format<'m>>, Error> {
    let Some(format) = &request.response_format else { return Ok(None) };
    match format.kind.as_deref() {
        Some("text") | None => Ok(None),
        Some("json_object") => Ok(Some(Format::Json("json"))),
        Some("json_schema") => match format.json_schema.as_ref().and_then(|s| s.schema) {
            Some(schema) => Ok(Some(Format::Schema(schema))),
            None => Err(Error::invalid("response_format.json_schema.schema", "`response_format` of type json_schema needs a `schema`")),
        },
        Some(other) => Err(Error::unsupported(KIND, "response_format", format!("it knows json_object and json_schema, not `{other}`"))),
    }
}

fn tools<'m>(request: &'m ChatRequest<'m>) -> Result<Vec<Tool<'m>>, Error> {
    if let Some(at) = request.tools.iter().flatten().position(|t| t.function.is_none()) {
        return Err(Error::unsupported(KIND, format!("tools[{at}]"), "it knows functions only"));
    }
    let only = match request.choice()? {
        Some(Choice::None) => return Ok(Vec::new()),
        Some(Choice::Auto) | None => None,
        Some(Choice::Allowed { names, required: false }) => Some(names),
        Some(Choice::Required | Choice::Named(_) | Choice::Allowed { required: true, .. }) => {
            return Err(Error::unsupported(KIND, "tool_choice", "it cannot be made to call a tool; use \"auto\", or ask for JSON with `response_format`"));
        }
    };
    let wanted = |name: &str| only.as_ref().is_none_or(|names| names.iter().any(|n| &**n == name));
    Ok(request
        .functions()
        .filter(|f| wanted(f.name.as_deref().unwrap_or_default()))
        .map(|f| Tool {
            r#type: "function",
            function: Definition { name: f.name.as_deref().unwrap_or_default(), description: f.description.as_deref(), parameters: f.parameters.unwrap_or_else(|| wire::no_parameters()) },
        })
        .collect())
}

fn turn<'m>(at: usize, message: &'m Message<'m>, all: &'m [Message<'m>]) -> Result<Turn<'m>, Error> {
    let role = match message.role.as_deref() {
        Some("system" | "developer") => "system",
        Some("user") => "user",
        Some("assistant") => "assistant",
        Some("tool" | "function") => "tool",
        _ => return Err(Error::invalid(format!("messages[{at}].role"), "`role` must be system, developer, user, assistant or tool")),
    };
    let (mut content, mut images) = (Cow::Borrowed(""), Vec::new());
    match &message.content {
        None => content = Cow::Borrowed(message.refusal.as_deref().unwrap_or_default()),
        Some(Content::Text(text)) => content = Cow::Borrowed(text),
        Some(Content::Parts(parts)) => {
            for (n, part) in parts.iter().enumerate() {
                match read_part(at, n, part)? {
                    Piece::Text(text) if content.is_empty() => content = Cow::Borrowed(text),
                    Piece::Text(text) => content.to_mut().push_str(text),
                    Piece::Media(data) => images.push(data),
                }
            }
        }
    }
    let mut tool_calls = Vec::new();
    for (index, call) in message.tool_calls.iter().flatten().enumerate() {
        let Some(function) = &call.function else {
            return Err(Error::unsupported(KIND, format!("messages[{at}].tool_calls[{index}]"), "it knows calls of functions only"));
        };
        let id = call.id.as_deref().map(|id| carry::unseal(id).0);
        tool_calls.push(ToolCall { id, function: self::function(format!("messages[{at}].tool_calls[{index}].function"), index, function)? });
    }
    if let Some(function) = &message.function_call {
        tool_calls.push(ToolCall { id: None, function: self::function(format!("messages[{at}].function_call"), tool_calls.len(), function)? });
    }
    let tool_call_id = message.tool_call_id.as_deref().map(|id| carry::unseal(id).0).filter(|_| role == "tool");
    let tool_name = match message.name.as_deref() {
        _ if role != "tool" => None,
        Some(name) => Some(name),
        None => tool_call_id.and_then(|id| called(id, &all[..at])),
    };
    // Thinking in the history is plain text, whoever thought it.
    let thinking = message.reasoning_content.as_deref().filter(|t| role == "assistant" && !t.is_empty());
    Ok(Turn { role, content, thinking, images, tool_calls, tool_name, tool_call_id })
}

/// The name of the function that a call was for; the last call of this id before its result.
fn called<'m>(id: &str, before: &'m [Message<'m>]) -> Option<&'m str> {
    before
        .iter()
        .rev()
        .flat_map(|m| m.tool_calls.iter().flatten())
        .find(|call| call.id.as_deref().is_some_and(|other| carry::unseal(other).0 == id))
        .and_then(|call| call.function.as_ref()?.name.as_deref())
}

fn function<'m>(param: String, index: usize, function: &'m wire::FunctionCall<'m>) -> Result<Function<'m>, Error> {
    let json = function.arguments.as_ref().map_or("{}", |a| a.json());
    let arguments: &RawValue = serde_json::from_str(json)
        .ok()
        .filter(|raw: &&RawValue| raw.get().starts_with('{'))
        .ok_or_else(|| Error::invalid(format!("{param}.arguments"), "`arguments` must be the text of a JSON object"))?;
    Ok(Function { index, name: function.name.as_deref().unwrap_or_default(), arguments })
}

enum Piece<'m> {
    Text(&'m str),
    /// Base64 without its media type: images, and audio for the models that hear, go the same way.
    Media(&'m str),
}

fn read_part<'m>(at: usize, n: usize, part: &'m Part<'m>) -> Result<Piece<'m>, Error> {
    let param = |what: &str| format!("messages[{at}].content[{n}].{what}");
    match part.kind.as_deref() {
        Some("text") => Ok(Piece::Text(part.text.as_deref().unwrap_or_default())),
        Some("refusal") => Ok(Piece::Text(part.refusal.as_deref().unwrap_or_default())),
        Some("image_url") => {
            let url = part.image_url.as_ref().and_then(|i| i.url.as_deref()).ok_or_else(|| Error::invalid(param("image_url.url"), "this part needs a `url`"))?;
            match data_url(url) {
                Some((_, data)) => Ok(Piece::Media(data)),
                None => Err(Error::unsupported(KIND, param("image_url"), "it fetches no URLs; send the image itself as a base64 data: URL")),
            }
        }
        Some("input_audio") => part.input_audio.as_ref().and_then(|a| a.data.as_deref()).map(Piece::Media).ok_or_else(|| Error::invalid(param("input_audio.data"), "this part needs `data`")),
        other => Err(Error::unsupported(KIND, format!("messages[{at}].content[{n}]"), format!("it takes no parts of type `{}`", other.unwrap_or_default()))),
    }
}
