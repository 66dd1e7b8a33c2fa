//! Gemini's generateContent, its stream, token counts and embeddings; also Vertex' `predict` for vectors.

use serde_json::{Value, json};

use super::{INPUT, OUTPUT, Say, count, data, say, sse, vector, words};
use crate::mock::{Behaviour, Received};

pub(super) fn answer(request: &Received, path: &str) -> Option<Behaviour> {
    let body = request.json();
    let (_, method) = path.rsplit_once(':')?;
    Some(match method {
        "countTokens" => Behaviour::json(&json!({ "totalTokens": INPUT, "promptTokensDetails": [{ "modality": "TEXT", "tokenCount": INPUT }] })),
        "embedContent" => Behaviour::json(&json!({ "embedding": { "values": vector(0) }, "usageMetadata": { "promptTokenCount": INPUT } })),
        "batchEmbedContents" => {
            let all: Vec<Value> = (0..count(&body["requests"])).map(|i| json!({ "values": vector(i) })).collect();
            Behaviour::json(&json!({ "embeddings": all, "usageMetadata": { "promptTokenCount": INPUT } }))
        }
        "predict" => {
            let all: Vec<Value> = (0..count(&body["instances"])).map(|i| json!({ "embeddings": { "values": vector(i), "statistics": { "truncated": false, "token_count": INPUT } } })).collect();
            Behaviour::json(&json!({ "predictions": all }))
        }
        "generateContent" => Behaviour::json(&response(&request.model(), &parts(&body), "STOP")),
        "streamGenerateContent" => stream(request, &body),
        _ => return None,
    })
}

fn parts(body: &Value) -> Value {
    let function = &body["tools"][0]["functionDeclarations"][0];
    // Google takes names in both cases, and its Python SDK writes this one in the other.
    let parameters = ["parametersJsonSchema", "parameters_json_schema"].iter().map(|n| &function[*n]).find(|s| s.is_object()).unwrap_or(&function["parameters"]);
    let tool = function["name"].as_str().filter(|_| body["toolConfig"]["functionCallingConfig"]["mode"] != "NONE").map(|n| (n.to_owned(), parameters));
    let is_result = |part: &Value| part["functionResponse"].is_object();
    let has_result = body["contents"].as_array().is_some_and(|c| c.iter().any(|c| c["parts"].as_array().is_some_and(|p| p.iter().any(is_result))));
    let config = &body["generationConfig"];
    let schema = ["responseJsonSchema", "responseSchema"].iter().map(|n| &config[*n]).find(|s| s.is_object()).or((config["responseMimeType"] == "application/json").then_some(&Value::Null));
    match say(tool, has_result, schema) {
        Say::Text(text) => json!([{ "text": text }]),
        Say::Call { name, arguments } => json!([{ "functionCall": { "name": name, "args": arguments }, "thoughtSignature": "bW9jaw==" }]),
    }
}

fn response(model: &str, parts: &Value, finish: &str) -> Value {
    let mut candidate = json!({ "content": { "parts": parts, "role": "model" }, "index": 0 });
    if !finish.is_empty() {
        candidate["finishReason"] = json!(finish);
    }
    json!({
        "candidates": [candidate],
        "usageMetadata": { "promptTokenCount": INPUT, "candidatesTokenCount": OUTPUT, "totalTokenCount": INPUT + OUTPUT, "promptTokensDetails": [{ "modality": "TEXT", "tokenCount": INPUT }] },
        "modelVersion": model, "responseId": "mock"
    })
}

fn stream(request: &Received, body: &Value) -> Behaviour {
    let (model, parts) = (request.model(), parts(body));
    let pieces: Vec<Value> = match parts[0]["text"].as_str() {
        Some(text) => words(text).into_iter().map(|w| json!([{ "text": w }])).collect(),
        None => vec![parts],
    };
    let last = pieces.len() - 1;
    let events: Vec<Value> = pieces.iter().enumerate().map(|(i, p)| response(&model, p, if i == last { "STOP" } else { "" })).collect();
    if request.path.contains("alt=sse") {
        return sse(events.iter().map(data));
    }
    Behaviour::json(&Value::Array(events))
}
