//! A fixed mock of every dialect, on one port: the same short story told in each provider's own words. A request with tools
//! gets a call of the first of them until a result is there, a request with a schema gets an object that fits it, any other
//! a greeting. The model `status-429` (or any other status) answers with that error, the model `cut` breaks its streams off,
//! the model `hang` never answers.

mod anthropic;
mod bedrock;
mod gemini;
mod openai;
mod others;
mod responses;

use serde_json::{Map, Value, json};

use crate::mock::{Behaviour, Received, Stream};

/// What the mock says when nothing else is asked for.
pub const HELLO: &str = "Hello from the mock.";
/// Tokens of every prompt.
pub const INPUT: u64 = 9;
/// Tokens of every answer.
pub const OUTPUT: u64 = 5;
/// How long the mock's vectors are.
const DIMENSIONS: u64 = 8;

/// What is said, before a dialect puts it into its own words.
enum Say {
    Text(String),
    Call { name: String, arguments: Value },
}

/// The dialects, as far as paths tell them apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    OpenAi,
    Anthropic,
    Google,
    Bedrock,
    Cohere,
    Ollama,
    HuggingFace,
}

/// Answers a request in the dialect of its path.
#[must_use]
pub fn answer(request: &Received) -> Behaviour {
    let path = percent_decoded(request.route());
    let family = family(&path);
    let model = request.model();
    if let Some(status) = model.strip_prefix("status-").and_then(|s| s.parse().ok()) {
        return error(family, status, "the mock was asked for an error");
    }
    if model == "hang" {
        return Behaviour::Hang;
    }
    let answered = match family {
        Family::OpenAi => openai::answer(request, &path).or_else(|| responses::answer(request, &path)),
        Family::Anthropic => anthropic::answer(request, &path),
        Family::Google => gemini::answer(request, &path),
        Family::Bedrock => bedrock::answer(request, &path),
        Family::Cohere | Family::Ollama | Family::HuggingFace => others::answer(request, &path),
    };
    match answered {
        Some(Behaviour::Stream(stream)) if model == "cut" => stream.halved().cut().into(),
        Some(behaviour) => behaviour,
        None => error(family, 404, &format!("the mock has nothing at {} {}", request.method, request.route())),
    }
}

fn percent_decoded(path: &str) -> String {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..2).filter(|_| first == b'%').and_then(|h| u8::from_str_radix(std::str::from_utf8(h).ok()?, 16).ok());
        out.push(code.unwrap_or(first));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn family(path: &str) -> Family {
    match path {
        p if p.ends_with("/messages") || p.ends_with("/messages/count_tokens") || p.ends_with("rawPredict") || p.ends_with("RawPredict") => Family::Anthropic,
        p if p.contains(":generateContent") || p.contains(":streamGenerateContent") || p.contains(":countTokens") || p.contains("mbedContent") || p.ends_with(":predict") => Family::Google,
        p if p.starts_with("/model/") => Family::Bedrock,
        p if p.starts_with("/v2/") => Family::Cohere,
        p if p.starts_with("/api/") => Family::Ollama,
        "/generate" | "/generate_stream" | "/embed" | "/rerank" | "/info" => Family::HuggingFace,
        _ => Family::OpenAi,
    }
}

/// An error in a dialect's shape.
fn error(family: Family, status: u16, message: &str) -> Behaviour {
    let kind = match status {
        400 => ("invalid_request_error", "INVALID_ARGUMENT", "ValidationException"),
        401 => ("authentication_error", "UNAUTHENTICATED", "UnrecognizedClientException"),
        404 => ("not_found_error", "NOT_FOUND", "ResourceNotFoundException"),
        429 => ("rate_limit_error", "RESOURCE_EXHAUSTED", "ThrottlingException"),
        503 | 529 => ("overloaded_error", "UNAVAILABLE", "ServiceUnavailableException"),
        _ => ("server_error", "INTERNAL", "InternalServerException"),
    };
    let body = match family {
        Family::OpenAi => json!({ "error": { "message": message, "type": kind.0, "param": null, "code": null } }),
        Family::Anthropic => json!({ "type": "error", "error": { "type": kind.0, "message": message }, "request_id": "req_mock" }),
        Family::Google => json!({ "error": { "code": status, "message": message, "status": kind.1 } }),
        Family::Bedrock | Family::Cohere => json!({ "message": message }),
        Family::Ollama => json!({ "error": message }),
        Family::HuggingFace => json!({ "error": message, "error_type": "generation" }),
    };
    let answer = Behaviour::status(status, &body);
    let answer = if family == Family::Bedrock { answer.header("x-amzn-errortype", kind.2) } else { answer };
    if status == 429 { answer.header("retry-after", "1") } else { answer }
}

/// What to say: a call of the first tool while there is no result yet, an object where a schema asks for one, or the greeting.
fn say(tool: Option<(String, &Value)>, has_result: bool, schema: Option<&Value>) -> Say {
    match (tool.filter(|_| !has_result), schema) {
        (Some((name, parameters)), _) => Say::Call { name, arguments: example(parameters, parameters) },
        (None, Some(schema)) => Say::Text(example(schema, schema).to_string()),
        (None, None) => Say::Text(HELLO.to_owned()),
    }
}

/// A value that fits a schema.
fn example(schema: &Value, root: &Value) -> Value {
    if let Some(name) = schema["$ref"].as_str() {
        let target = root.pointer(name.trim_start_matches('#')).cloned().unwrap_or_default();
        return example(&target, root);
    }
    if let Some(first) = schema["enum"].get(0).or_else(|| schema.get("const")) {
        return first.clone();
    }
    if let Some(first) = schema["anyOf"].get(0).or_else(|| schema["oneOf"].get(0)) {
        return example(first, root);
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str()).unwrap_or("object").to_ascii_lowercase();
    match kind.as_str() {
        "string" => json!("Berlin"),
        "integer" => json!(7),
        "number" => json!(1.5),
        "boolean" => json!(true),
        "null" => Value::Null,
        "array" => json!([example(&schema["items"], root)]),
        _ => {
            let properties = schema["properties"].as_object().cloned().unwrap_or_default();
            Value::Object(properties.iter().map(|(name, s)| (name.clone(), example(s, root))).collect::<Map<_, _>>())
        }
    }
}

/// A text in the pieces of a stream.
fn words(text: &str) -> Vec<&str> {
    text.split_inclusive(' ').collect()
}

/// The vector of the nth text: the same every time, of length one.
fn vector(nth: usize) -> Vec<f64> {
    (0..DIMENSIONS).map(|i| if i == nth as u64 % DIMENSIONS { 1.0 } else { 0.0 }).collect()
}

fn vectors(texts: usize) -> Vec<Vec<f64>> {
    (0..texts).map(vector).collect()
}

/// How many texts a field holds: one, or a list of them.
fn count(field: &Value) -> usize {
    field.as_array().map_or(1, |list| if list.first().is_some_and(Value::is_number) { 1 } else { list.len() })
}

/// An event of nothing but data.
fn data(value: &Value) -> String {
    format!("data: {value}\n\n")
}

/// An event that is named as its type.
fn typed(value: &Value) -> String {
    format!("event: {}\ndata: {value}\n\n", value["type"].as_str().unwrap_or_default())
}

fn sse(events: impl IntoIterator<Item = String>) -> Behaviour {
    Stream::sse().all(events).into()
}
