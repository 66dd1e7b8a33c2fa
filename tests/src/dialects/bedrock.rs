//! Amazon Bedrock: Converse whole and as a stream of binary frames, and InvokeModel for vectors.

use providers::eventstream;
use serde_json::{Value, json};

use super::{INPUT, OUTPUT, Say, count, say, vector, vectors, words};
use crate::mock::{Behaviour, Received, Stream};

pub(super) fn answer(request: &Received, path: &str) -> Option<Behaviour> {
    let body = request.json();
    if path.ends_with("/invoke") {
        return Some(Behaviour::json(&embedding(&body)).header("x-amzn-bedrock-input-token-count", &INPUT.to_string()));
    }
    let spec = &body["toolConfig"]["tools"][0]["toolSpec"];
    let tool = spec["name"].as_str().map(|n| (n.to_owned(), &spec["inputSchema"]["json"]));
    let is_result = |part: &Value| part["toolResult"].is_object();
    let has_result = body["messages"].as_array().is_some_and(|m| m.iter().any(|m| m["content"].as_array().is_some_and(|parts| parts.iter().any(is_result))));
    let native: Option<Value> = body["outputConfig"]["textFormat"]["structure"]["jsonSchema"]["schema"].as_str().and_then(|s| serde_json::from_str(s).ok());
    let say = say(tool, has_result, native.as_ref());
    match path {
        p if p.ends_with("/converse") => Some(Behaviour::json(&whole(&say))),
        p if p.ends_with("/converse-stream") => Some(Stream::new("application/vnd.amazon.eventstream").all(frames(&say)).into()),
        _ => None,
    }
}

fn usage() -> Value {
    json!({ "inputTokens": INPUT, "outputTokens": OUTPUT, "totalTokens": INPUT + OUTPUT })
}

fn whole(say: &Say) -> Value {
    let (block, reason) = match say {
        Say::Text(text) => (json!({ "text": text }), "end_turn"),
        Say::Call { name, arguments } => (json!({ "toolUse": { "toolUseId": "tooluse_mock", "name": name, "input": arguments } }), "tool_use"),
    };
    json!({ "output": { "message": { "role": "assistant", "content": [block] } }, "stopReason": reason, "usage": usage(), "metrics": { "latencyMs": 12 } })
}

fn frames(say: &Say) -> Vec<Vec<u8>> {
    let frame = |name: &str, payload: Value| eventstream::write("event", name, payload.to_string().as_bytes());
    let mut out = vec![frame("messageStart", json!({ "role": "assistant" }))];
    let reason = match say {
        Say::Text(text) => {
            out.extend(words(text).into_iter().map(|w| frame("contentBlockDelta", json!({ "contentBlockIndex": 0, "delta": { "text": w } }))));
            "end_turn"
        }
        Say::Call { name, arguments } => {
            out.push(frame("contentBlockStart", json!({ "contentBlockIndex": 0, "start": { "toolUse": { "toolUseId": "tooluse_mock", "name": name } } })));
            let arguments = arguments.to_string();
            let (first, second) = arguments.split_at(arguments.len() / 2);
            out.extend([first, second].map(|part| frame("contentBlockDelta", json!({ "contentBlockIndex": 0, "delta": { "toolUse": { "input": part } } }))));
            "tool_use"
        }
    };
    out.push(frame("contentBlockStop", json!({ "contentBlockIndex": 0 })));
    out.push(frame("messageStop", json!({ "stopReason": reason })));
    out.push(frame("metadata", json!({ "usage": usage(), "metrics": { "latencyMs": 12 } })));
    out
}

/// Titan takes one text, Cohere several, Nova one in a structure of its own.
fn embedding(body: &Value) -> Value {
    if body["texts"].is_array() {
        return json!({ "id": "mock", "response_type": "embeddings_by_type", "texts": body["texts"], "embeddings": { "float": vectors(count(&body["texts"])) } });
    }
    if body["singleEmbeddingParams"].is_object() {
        return json!({ "embeddings": [{ "embeddingType": "TEXT", "embedding": vector(0) }] });
    }
    json!({ "embedding": vector(0), "inputTextTokenCount": INPUT })
}
