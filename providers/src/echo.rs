//! The provider that needs no upstream: answers with what it was asked, calls the tools it is told to call, fills in the
//! schema it is given, and makes vectors out of words. For trying the gateway out, and for tests of clients.

use serde_json::{Map, Value, json};

use crate::answer::{Answer, Call, Choice, Finish};
use crate::embed::{self, Embeddings};
use crate::usage::Usage;
use crate::wire::{self, ChatRequest};
use crate::{Auth, Error, Operation, Provider, Target};

/// How long its vectors are unless the client says otherwise.
const DIMENSIONS: u32 = 256;

/// The echo provider.
#[derive(Debug)]
pub struct Echo;

impl Provider for Echo {
    fn kind(&self) -> &'static str {
        "echo"
    }

    fn base_url(&self) -> &'static str {
        ""
    }

    fn auth(&self) -> Auth {
        Auth::None
    }

    fn path(&self, _: Operation, _: &Target<'_>, _: bool) -> Result<Option<String>, Error> {
        Ok(None)
    }

    fn offline(&self, request: &ChatRequest<'_>) -> Option<Result<Answer, Error>> {
        Some(answer(request))
    }

    fn offline_embeddings(&self, request: &embed::Request<'_>) -> Option<Result<Embeddings, Error>> {
        Some(embeddings(request))
    }
}

fn answer(request: &ChatRequest<'_>) -> Result<Answer, Error> {
    let messages = request.messages.as_deref().unwrap_or_default();
    if messages.is_empty() {
        return Err(Error::invalid("messages", "`messages` must have at least one message"));
    }
    let choices = request.n.unwrap_or(1);
    if choices == 0 || choices as usize > crate::answer::MAX_CHOICES {
        return Err(Error::invalid("n", "`n` must be between 1 and 128"));
    }
    let mut choice = Choice { finish: Some(Finish::Stop), ..Choice::default() };
    if let Some(tool) = tool_to_call(request)? {
        choice.calls = vec![tool];
        choice.finish = Some(Finish::ToolCalls);
    } else {
        let text = match schema(request) {
            Some(schema) => example(&schema, &schema, 0).to_string(),
            None => said(messages),
        };
        let (text, cut) = cut(text, request.max_output());
        choice.finish = Some(if cut { Finish::Length } else { Finish::Stop });
        choice.text = Some(text);
    }
    let words = |text: &str| (text.len() as u64).div_ceil(4);
    let prompt: u64 = messages.iter().map(|m| 3 + m.content.as_ref().map_or(0, |c| words(&c.text()))).sum();
    let said = choice.text.as_deref().map_or(0, words) + choice.calls.iter().map(|c| words(&c.arguments)).sum::<u64>();
    Ok(Answer {
        id: String::new(),
        model: request.model.as_deref().unwrap_or("echo").to_owned(),
        choices: vec![choice; choices as usize],
        usage: Some(Usage { input: prompt, output: said * u64::from(choices), ..Usage::default() }),
    })
}

/// The last words of the user, or the result of the last tool.
fn said(messages: &[wire::Message<'_>]) -> String {
    let last = messages.iter().rev().find(|m| matches!(m.role.as_deref(), Some("user" | "tool" | "function"))).or(messages.last());
    let text = last.and_then(|m| m.content.as_ref()).map(|c| c.text().into_owned()).unwrap_or_default();
    if text.is_empty() { "(nothing was said)".into() } else { text }
}

/// Cuts an answer to a number of tokens of about four bytes.
fn cut(text: String, tokens: Option<u64>) -> (String, bool) {
    let most = tokens.map_or(usize::MAX, |t| usize::try_from(t.saturating_mul(4)).unwrap_or(usize::MAX));
    if text.len() <= most {
        return (text, false);
    }
    let end = text.floor_char_boundary(most);
    (text[..end].to_owned(), true)
}

/// Calls a tool once, if there are tools and the last word is not already a tool's result.
fn tool_to_call(request: &ChatRequest<'_>) -> Result<Option<Call>, Error> {
    let answered = request.messages.iter().flatten().next_back().is_some_and(|m| matches!(m.role.as_deref(), Some("tool" | "function")));
    let choice = request.choice()?;
    let wanted = match &choice {
        Some(wire::Choice::None) => return Ok(None),
        Some(wire::Choice::Named(name)) => Some(&**name),
        Some(wire::Choice::Allowed { names, .. }) => names.first().map(|n| &**n),
        Some(wire::Choice::Required | wire::Choice::Auto) | None => None,
    };
    if answered && !matches!(choice, Some(wire::Choice::Named(_) | wire::Choice::Required)) {
        return Ok(None);
    }
    let tool = match wanted {
        None => request.functions().next(),
        Some(name) => match request.functions().find(|f| f.name.as_deref() == Some(name)) {
            Some(tool) => Some(tool),
            None => return Err(Error::invalid("tool_choice", format!("`tool_choice` names `{name}`, which is not among `tools`"))),
        },
    };
    Ok(tool.map(|f| {
        let schema: Value = f.parameters.and_then(|p| serde_json::from_str(p.get()).ok()).unwrap_or(Value::Null);
        let name = f.name.as_deref().unwrap_or_default().to_owned();
        Call { id: format!("call_echo_{name}"), arguments: example(&schema, &schema, 0).to_string(), name }
    }))
}

fn schema(request: &ChatRequest<'_>) -> Option<Value> {
    let format = request.response_format.as_ref()?;
    match format.kind.as_deref()? {
        "json_schema" => serde_json::from_str(format.json_schema.as_ref()?.schema?.get()).ok(),
        "json_object" => Some(json!({ "type": "object" })),
        _ => None,
    }
}

/// The plainest value that a schema allows.
fn example(schema: &Value, root: &Value, depth: usize) -> Value {
    if depth > 8 {
        return Value::Null;
    }
    let next = |s: &Value| example(s, root, depth + 1);
    if let Some(found) = schema["$ref"].as_str().and_then(|r| root.pointer(r.strip_prefix('#')?)) {
        return next(found);
    }
    if let Some(value) = schema.get("const").or_else(|| schema["enum"].get(0)).or_else(|| schema.get("default")) {
        return value.clone();
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        if let Some(first) = schema[key].as_array().and_then(|list| list.iter().find(|s| s["type"] != "null")) {
            return next(first);
        }
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"].as_array()?.iter().filter_map(Value::as_str).find(|t| *t != "null"));
    match kind {
        Some("string") => json!("echo"),
        Some("integer") => schema["minimum"].as_i64().map_or(json!(1), Value::from),
        Some("number") => schema["minimum"].as_f64().map_or(json!(1.5), Value::from),
        Some("boolean") => json!(true),
        Some("null") => Value::Null,
        Some("array") => Value::Array(vec![next(&schema["items"]); schema["minItems"].as_u64().unwrap_or(1).min(16) as usize]),
        _ => {
            let empty = Map::new();
            let properties = schema["properties"].as_object().unwrap_or(&empty);
            Value::Object(properties.iter().map(|(name, s)| (name.clone(), next(s))).collect())
        }
    }
}

/// Vectors of hashed words: texts that share words are near, and the same text gives the same vector everywhere.
fn embeddings(request: &embed::Request<'_>) -> Result<Embeddings, Error> {
    let length = request.dimensions.unwrap_or(DIMENSIONS);
    if length == 0 || length > 8192 {
        return Err(Error::invalid("dimensions", "`dimensions` must be between 1 and 8192"));
    }
    let texts = request.texts("echo")?;
    let vectors = texts
        .iter()
        .map(|text| {
            let mut vector = vec![0f32; length as usize];
            for word in text.split_whitespace() {
                let word = word.to_lowercase();
                let hash = crc32fast::hash(word.trim_matches(|c: char| !c.is_alphanumeric()).as_bytes());
                vector[hash as usize % length as usize] += if hash & 0x8000_0000 == 0 { 1.0 } else { -1.0 };
            }
            let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
            if norm > 0.0 {
                vector.iter_mut().for_each(|x| *x /= norm);
            } else {
                vector[0] = 1.0;
            }
            vector
        })
        .collect();
    let input = texts.iter().map(|t| (t.len() as u64).div_ceil(4)).sum();
    Ok(Embeddings { vectors, usage: Some(Usage { input, ..Usage::default() }) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(body: &str) -> Answer {
        answer(&serde_json::from_str(body).unwrap()).unwrap()
    }

    #[test]
    fn says_what_was_said_up_to_the_bound() {
        let a = ask(r#"{"messages":[{"role":"system","content":"x"},{"role":"user","content":[{"type":"text","text":"héllo"}]}]}"#);
        assert_eq!(a.choices[0].text.as_deref(), Some("héllo"));
        let a = ask(r#"{"max_tokens":1,"messages":[{"role":"user","content":"abcé1"}]}"#);
        assert_eq!((a.choices[0].text.as_deref(), a.choices[0].reason()), (Some("abc"), Finish::Length));
    }

    #[test]
    fn calls_a_tool_once_and_fills_in_schemas() {
        let tools = r#""tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"a":{"type":"integer"},"b":{"enum":["x"]}}}}}]"#;
        let a = ask(&format!(r#"{{{tools},"messages":[{{"role":"user","content":"go"}}]}}"#));
        assert_eq!(a.choices[0].calls[0].arguments, r#"{"a":1,"b":"x"}"#);
        let a = ask(&format!(r#"{{{tools},"messages":[{{"role":"tool","content":"42"}}]}}"#));
        assert_eq!(a.choices[0].text.as_deref(), Some("42"));
        let a = ask(
            r##"{"messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_schema","json_schema":{"schema":{"$defs":{"p":{"type":"string"}},"type":"object","properties":{"q":{"$ref":"#/$defs/p"}}}}}}"##,
        );
        assert_eq!(a.choices[0].text.as_deref(), Some(r#"{"q":"echo"}"#));
    }

    #[test]
    fn near_texts_have_near_vectors() {
        let e = embeddings(&serde_json::from_str(r#"{"input":["the cat sat","The cat sat!","dogs bark"]}"#).unwrap()).unwrap();
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
        assert!((dot(&e.vectors[0], &e.vectors[1]) - 1.0).abs() < 1e-6);
        assert!(dot(&e.vectors[0], &e.vectors[2]).abs() < 0.5);
    }
}
