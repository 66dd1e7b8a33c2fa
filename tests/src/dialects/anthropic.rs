//! Anthropic's Messages, whole, streamed and counted; also Claude on Vertex.

use serde_json::{Value, json};

use super::{INPUT, OUTPUT, Say, say, sse, typed, words};
use crate::mock::{Behaviour, Received};

pub(super) fn answer(request: &Received, path: &str) -> Option<Behaviour> {
    let body = request.json();
    if path.ends_with("/count_tokens") {
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
    let (block, reason) = match &say {
        Say::Text(text) => (json!({ "type": "text", "text": text }), "end_turn"),
        Say::Call { name, arguments } => (json!({ "type": "tool_use", "id": "toolu_mock", "name": name, "input": arguments }), "tool_use"),
    };
    if !streamed {
        return Some(Behaviour::json(&message(json!([block]), json!(reason), OUTPUT)));
    }
    let mut begun = block.clone();
    let deltas: Vec<Value> = match &say {
        Say::Text(text) => {
            begun["text"] = json!("");
            words(text).into_iter().map(|w| json!({ "type": "text_delta", "text": w })).collect()
        }
        Say::Call { arguments, .. } => {
            begun["input"] = json!({});
            let arguments = arguments.to_string();
            let (first, second) = arguments.split_at(arguments.len() / 2);
            ["", first, second].iter().map(|part| json!({ "type": "input_json_delta", "partial_json": part })).collect()
        }
    };
    let mut events = vec![json!({ "type": "message_start", "message": message(json!([]), Value::Null, 1) }), json!({ "type": "content_block_start", "index": 0, "content_block": begun }), json!({ "type": "ping" })];
    events.extend(deltas.into_iter().map(|delta| json!({ "type": "content_block_delta", "index": 0, "delta": delta })));
    events.push(json!({ "type": "content_block_stop", "index": 0 }));
    events.push(json!({ "type": "message_delta", "delta": { "stop_reason": reason, "stop_sequence": null }, "usage": { "output_tokens": OUTPUT } }));
    events.push(json!({ "type": "message_stop" }));
    Some(sse(events.iter().map(typed)))
}
