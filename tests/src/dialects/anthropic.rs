//! Anthropic's Messages, whole, streamed and counted; also Claude on Vertex.

use serde_json::{Value, json};

use super::{INPUT, OUTPUT, Say, say, sse, typed, words};
use crate::mock::{Behaviour, Received};

const THOUGHT: &str = "Let me think about it.";
const SIGNATURE: &str = "bW9jay1zaWduYXR1cmU=";

pub(super) fn answer(request: &Received, path: &str) -> Option<Behaviour> {
    let body = request.json();
    if path.ends_with("/count_tokens") || path.contains("/count-tokens:") {
        return Some(Behaviour::json(&json!({ "input_tokens": INPUT })));
    }
    let first = body["tools"].as_array().and_then(|tools| tools.iter().find(|t| t["input_schema"].is_object())).filter(|_| body["tool_choice"]["type"] != "none");
    let tool = first.and_then(|t| Some((t["name"].as_str()?.to_owned(), &t["input_schema"])));
    let is_result = |part: &Value| part["type"] == "tool_result";
    let has_result = body["messages"].as_array().is_some_and(|m| m.iter().any(|m| m["content"].as_array().is_some_and(|parts| parts.iter().any(is_result))));
    let format = if body["output_config"]["format"].is_object() { &body["output_config"]["format"] } else { &body["output_format"] };
    let schema = (format["type"] == "json_schema").then_some(&format["schema"]);
    let say = say(tool, has_result, schema);
    let streamed = body["stream"] == true || path.ends_with("streamRawPredict");
    let usage = |output: u64| json!({ "input_tokens": INPUT, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": output, "service_tier": "standard" });
    let message = |content: Value, reason: Value, output: u64| json!({ "id": "msg_mock", "type": "message", "role": "assistant", "model": request.model(), "content": content, "stop_reason": reason, "stop_sequence": null, "usage": usage(output) });
    let thinks = matches!(body["thinking"]["type"].as_str(), Some("enabled" | "adaptive"));
    if let Some(wrong) = forgotten(&body, thinks) {
        return Some(super::error(super::Family::Anthropic, 400, wrong));
    }
    let (block, reason) = match &say {
        Say::Text(text) => (json!({ "type": "text", "text": text }), "end_turn"),
        Say::Call { name, arguments } => (json!({ "type": "tool_use", "id": "toolu_mock", "name": name, "input": arguments }), "tool_use"),
    };
    let mut blocks = vec![block];
    if thinks {
        blocks.insert(0, json!({ "type": "thinking", "thinking": THOUGHT, "signature": SIGNATURE }));
    }
    if !streamed {
        return Some(Behaviour::json(&message(json!(blocks), json!(reason), OUTPUT)));
    }
    let mut events = vec![json!({ "type": "message_start", "message": message(json!([]), Value::Null, 1) }), json!({ "type": "ping" })];
    for (index, block) in blocks.iter().enumerate() {
        let (begun, deltas) = pieces(block);
        events.push(json!({ "type": "content_block_start", "index": index, "content_block": begun }));
        events.extend(deltas.into_iter().map(|delta| json!({ "type": "content_block_delta", "index": index, "delta": delta })));
        events.push(json!({ "type": "content_block_stop", "index": index }));
    }
    events.push(json!({ "type": "message_delta", "delta": { "stop_reason": reason, "stop_sequence": null }, "usage": { "output_tokens": OUTPUT } }));
    events.push(json!({ "type": "message_stop" }));
    Some(sse(events.iter().map(typed)))
}

/// A block as a stream begins it, and the deltas that complete it.
fn pieces(block: &Value) -> (Value, Vec<Value>) {
    let mut begun = block.clone();
    let deltas = match block["type"].as_str() {
        Some("thinking") => {
            begun["thinking"] = json!("");
            begun["signature"] = json!("");
            let mut deltas: Vec<Value> = words(THOUGHT).into_iter().map(|w| json!({ "type": "thinking_delta", "thinking": w })).collect();
            deltas.push(json!({ "type": "signature_delta", "signature": SIGNATURE }));
            deltas
        }
        Some("text") => {
            begun["text"] = json!("");
            words(block["text"].as_str().unwrap_or_default()).into_iter().map(|w| json!({ "type": "text_delta", "text": w })).collect()
        }
        _ => {
            begun["input"] = json!({});
            let arguments = block["input"].to_string();
            let (first, second) = arguments.split_at(arguments.len() / 2);
            ["", first, second].iter().map(|part| json!({ "type": "input_json_delta", "partial_json": part })).collect()
        }
    };
    (begun, deltas)
}

/// What Anthropic refuses in a history: a thought that is not the one it gave (its text may be gone, its signature not), and,
/// from a model that thinks, a call whose thought is gone.
fn forgotten(body: &Value, thinks: bool) -> Option<&'static str> {
    let turns = body["messages"].as_array().into_iter().flatten().filter(|m| m["role"] == "assistant");
    for blocks in turns.filter_map(|m| m["content"].as_array()) {
        let thought = blocks.iter().find(|b| b["type"] == "thinking");
        if thought.is_some_and(|t| (t["thinking"] != THOUGHT && t["thinking"] != "") || t["signature"] != SIGNATURE) {
            return Some("messages: Invalid `signature` in `thinking` block");
        }
        if thinks && thought.is_none() && blocks.iter().any(|b| b["type"] == "tool_use") {
            return Some("messages: Expected `thinking` or `redacted_thinking`, but found `tool_use`");
        }
    }
    None
}
