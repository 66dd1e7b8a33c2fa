//! OpenAI's Responses, whole and with the full sequence of events.

use serde_json::{Value, json};

use super::{INPUT, OUTPUT, Say, say, sse, typed, words};
use crate::mock::{Behaviour, Received};

pub(super) fn answer(request: &Received, path: &str) -> Option<Behaviour> {
    if !path.ends_with("/responses") {
        return None;
    }
    let body = request.json();
    let function = body["tools"].as_array().and_then(|tools| tools.iter().find(|t| t["type"] == "function")).filter(|_| body["tool_choice"] != "none");
    let tool = function.and_then(|t| Some((t["name"].as_str()?.to_owned(), &t["parameters"])));
    let has_result = body["input"].as_array().is_some_and(|items| items.iter().any(|i| i["type"] == "function_call_output"));
    let schema = match body["text"]["format"]["type"].as_str() {
        Some("json_schema") => Some(&body["text"]["format"]["schema"]),
        Some("json_object") => Some(&Value::Null),
        _ => None,
    };
    let say = say(tool, has_result, schema);
    let item = item(&say, "completed");
    if body["stream"] != true {
        return Some(Behaviour::json(&response(&body, "completed", &json!([item]))));
    }
    let mut events = vec![
        json!({ "type": "response.created", "response": response(&body, "in_progress", &json!([])) }),
        json!({ "type": "response.in_progress", "response": response(&body, "in_progress", &json!([])) }),
    ];
    let mut begun = item.clone();
    begun["status"] = json!("in_progress");
    match &say {
        Say::Text(text) => {
            begun["content"] = json!([]);
            events.push(json!({ "type": "response.output_item.added", "output_index": 0, "item": begun }));
            let part = |text: &str| json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] });
            let at = |kind: &str| json!({ "type": kind, "item_id": "msg_mock", "output_index": 0, "content_index": 0 });
            let with = |mut event: Value, name: &str, value: Value| {
                event[name] = value;
                event
            };
            events.push(with(at("response.content_part.added"), "part", part("")));
            events.extend(words(text).into_iter().map(|w| with(with(at("response.output_text.delta"), "delta", json!(w)), "logprobs", json!([]))));
            events.push(with(with(at("response.output_text.done"), "text", json!(text)), "logprobs", json!([])));
            events.push(with(at("response.content_part.done"), "part", part(text)));
        }
        Say::Call { arguments, .. } => {
            begun["arguments"] = json!("");
            events.push(json!({ "type": "response.output_item.added", "output_index": 0, "item": begun }));
            let arguments = arguments.to_string();
            let (first, second) = arguments.split_at(arguments.len() / 2);
            events.extend([first, second].map(|part| json!({ "type": "response.function_call_arguments.delta", "item_id": "fc_mock", "output_index": 0, "delta": part })));
            events.push(json!({ "type": "response.function_call_arguments.done", "item_id": "fc_mock", "output_index": 0, "arguments": arguments }));
        }
    }
    events.push(json!({ "type": "response.output_item.done", "output_index": 0, "item": item }));
    events.push(json!({ "type": "response.completed", "response": response(&body, "completed", &json!([item])) }));
    Some(sse(events.into_iter().enumerate().map(|(n, mut event)| {
        event["sequence_number"] = json!(n);
        typed(&event)
    })))
}

fn item(say: &Say, status: &str) -> Value {
    match say {
        Say::Text(text) => {
            json!({ "id": "msg_mock", "type": "message", "role": "assistant", "status": status, "content": [{ "type": "output_text", "text": text, "annotations": [], "logprobs": [] }] })
        }
        Say::Call { name, arguments } => json!({ "id": "fc_mock", "type": "function_call", "call_id": "call_1", "name": name, "arguments": arguments.to_string(), "status": status }),
    }
}

fn response(body: &Value, status: &str, output: &Value) -> Value {
    let usage = if status == "completed" {
        json!({ "input_tokens": INPUT, "input_tokens_details": { "cached_tokens": 0, "cache_write_tokens": 0 }, "output_tokens": OUTPUT, "output_tokens_details": { "reasoning_tokens": 0 }, "total_tokens": INPUT + OUTPUT })
    } else {
        Value::Null
    };
    let or = |name: &str, default: Value| body.get(name).cloned().unwrap_or(default);
    json!({
        "id": "resp_mock", "object": "response", "created_at": 1_790_000_000, "status": status, "background": false, "error": null,
        "incomplete_details": null, "instructions": or("instructions", Value::Null), "max_output_tokens": null, "model": body["model"], "output": output,
        "parallel_tool_calls": true, "previous_response_id": null, "reasoning": { "effort": null, "summary": null }, "store": false, "temperature": 1.0,
        "text": or("text", json!({ "format": { "type": "text" } })), "tool_choice": or("tool_choice", json!("auto")), "tools": or("tools", json!([])),
        "top_p": 1.0, "truncation": "disabled", "usage": usage, "metadata": {}
    })
}
