//! OpenAI's chat, legacy completions, embeddings and the smaller paths; also Azure's, Mistral's and every compatible host's.

use base64::Engine as _;
use serde_json::{Value, json};

use super::{HELLO, INPUT, OUTPUT, Say, count, data, say, sse, vector, words};
use crate::mock::{Behaviour, Received};

const CREATED: u64 = 1_790_000_000;

pub(super) fn answer(request: &Received, path: &str) -> Option<Behaviour> {
    let body = request.json();
    let ends = |end: &str| path.ends_with(end);
    Some(match () {
        () if ends("/chat/completions") => chat(&body, &request.model()),
        () if ends("/completions") => completions(&body),
        () if ends("/embeddings") => embeddings(&body),
        () if ends("/models") => {
            let model = |id: &str| json!({ "id": id, "object": "model", "created": CREATED, "owned_by": "mock" });
            Behaviour::json(&json!({ "object": "list", "data": [model("gpt-4o"), model("gpt-4o-mini"), model("text-embedding-3-small")] }))
        }
        () if ends("/moderations") => Behaviour::json(
            &json!({ "id": "modr-1", "model": "omni-moderation-latest", "results": [{ "flagged": false, "categories": { "violence": false }, "category_scores": { "violence": 0.01 } }] }),
        ),
        () if ends("/images/generations") || ends("/images/edits") => Behaviour::json(&json!({ "created": CREATED, "data": [{ "b64_json": "iVBORw0KGgo=" }] })),
        () if ends("/audio/speech") => Behaviour::bytes(200, "audio/mpeg", vec![0xff, 0xfb, 0x90, 0x00, 0x01, 0x02, 0x03, 0x04]),
        () if ends("/audio/transcriptions") || ends("/audio/translations") => Behaviour::json(&json!({ "text": HELLO })),
        () if ends("/v1/rerank") => rerank(&body),
        () if path.contains("/files") => file(request, path),
        () if path.contains("/batches") => Behaviour::json(
            &json!({ "id": "batch_1", "object": "batch", "endpoint": "/v1/chat/completions", "status": "validating", "input_file_id": "file-1", "completion_window": "24h", "created_at": CREATED }),
        ),
        () => return None,
    })
}

fn usage() -> Value {
    json!({ "prompt_tokens": INPUT, "completion_tokens": OUTPUT, "total_tokens": INPUT + OUTPUT, "prompt_tokens_details": { "cached_tokens": 0 }, "completion_tokens_details": { "reasoning_tokens": 0 } })
}

fn chat(body: &Value, model: &str) -> Behaviour {
    let tool = body["tools"][0]["function"]["name"].as_str().filter(|_| body["tool_choice"] != "none").map(|n| (n.to_owned(), &body["tools"][0]["function"]["parameters"]));
    let has_result = body["messages"].as_array().is_some_and(|m| m.iter().any(|m| m["role"] == "tool"));
    let schema = match body["response_format"]["type"].as_str() {
        Some("json_schema") => Some(&body["response_format"]["json_schema"]["schema"]),
        // TGI's way to say it.
        Some("json") => Some(&body["response_format"]["value"]),
        Some("json_object") => Some(&Value::Null),
        _ => None,
    };
    let say = say(tool, has_result, schema);
    if body["stream"] == true {
        return sse(chunks(body, model, &say));
    }
    let (message, finish) = match &say {
        Say::Text(text) => (json!({ "role": "assistant", "content": text, "refusal": null, "annotations": [] }), "stop"),
        Say::Call { name, arguments } => (
            json!({ "role": "assistant", "content": null, "refusal": null, "tool_calls": [{ "id": "call_1", "type": "function", "function": { "name": name, "arguments": arguments.to_string() } }] }),
            "tool_calls",
        ),
    };
    Behaviour::json(&json!({
        "id": "chatcmpl-mock", "object": "chat.completion", "created": CREATED, "model": model,
        "choices": [{ "index": 0, "message": message, "logprobs": null, "finish_reason": finish }],
        "usage": usage(), "service_tier": "default", "system_fingerprint": "fp_mock"
    }))
}

fn chunks(body: &Value, model: &str, say: &Say) -> Vec<String> {
    let asked = body["stream_options"]["include_usage"] == true;
    // Mistral takes no `stream_options`: its last chunk has the usage unasked.
    let mistral = model.contains("mistral");
    let event = |choices: Value, used: Value| {
        let mut chunk =
            json!({ "id": "chatcmpl-mock", "object": "chat.completion.chunk", "created": CREATED, "model": model, "service_tier": "default", "system_fingerprint": "fp_mock", "choices": choices });
        if asked {
            chunk["usage"] = used;
        }
        data(&chunk)
    };
    let delta = |delta: Value, finish: Value| event(json!([{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish }]), Value::Null);
    let mut out = Vec::new();
    match say {
        Say::Text(text) => {
            out.push(delta(json!({ "role": "assistant", "content": "", "refusal": null }), Value::Null));
            out.extend(words(text).into_iter().map(|w| delta(json!({ "content": w }), Value::Null)));
            out.push(delta(json!({}), json!("stop")));
        }
        Say::Call { name, arguments } => {
            let arguments = arguments.to_string();
            out.push(delta(
                json!({ "role": "assistant", "content": null, "tool_calls": [{ "index": 0, "id": "call_1", "type": "function", "function": { "name": name, "arguments": "" } }] }),
                Value::Null,
            ));
            let (first, second) = arguments.split_at(arguments.len() / 2);
            out.extend([first, second].map(|part| delta(json!({ "tool_calls": [{ "index": 0, "function": { "arguments": part } }] }), Value::Null)));
            out.push(delta(json!({}), json!("tool_calls")));
        }
    }
    if mistral && let Some(last) = out.last_mut() {
        *last = last.replacen("data: {", &format!("data: {{\"usage\":{},", usage()), 1);
    }
    if asked {
        out.push(event(json!([]), usage()));
    }
    out.push("data: [DONE]\n\n".to_owned());
    out
}

fn completions(body: &Value) -> Behaviour {
    let whole = |text: &str, finish: Value| json!({ "id": "cmpl-mock", "object": "text_completion", "created": CREATED, "model": body["model"], "choices": [{ "index": 0, "text": text, "logprobs": null, "finish_reason": finish }] });
    if body["stream"] != true {
        let mut answer = whole(HELLO, json!("stop"));
        answer["usage"] = usage();
        return Behaviour::json(&answer);
    }
    let mut events: Vec<String> = words(HELLO).into_iter().map(|w| data(&whole(w, Value::Null))).collect();
    events.push(data(&whole("", json!("stop"))));
    if body["stream_options"]["include_usage"] == true {
        events.push(data(&json!({ "id": "cmpl-mock", "object": "text_completion", "created": CREATED, "model": body["model"], "choices": [], "usage": usage() })));
    }
    events.push("data: [DONE]\n\n".to_owned());
    sse(events)
}

fn embeddings(body: &Value) -> Behaviour {
    let base64 = body["encoding_format"] == "base64";
    let items: Vec<Value> = (0..count(&body["input"]))
        .map(|i| {
            let floats = vector(i);
            let embedding = if base64 {
                let bytes: Vec<u8> = floats.iter().flat_map(|f| (*f as f32).to_le_bytes()).collect();
                json!(base64::engine::general_purpose::STANDARD.encode(bytes))
            } else {
                json!(floats)
            };
            json!({ "object": "embedding", "index": i, "embedding": embedding })
        })
        .collect();
    Behaviour::json(&json!({ "object": "list", "data": items, "model": body["model"], "usage": { "prompt_tokens": INPUT, "total_tokens": INPUT } }))
}

fn rerank(body: &Value) -> Behaviour {
    let results: Vec<Value> = (0..count(&body["documents"])).map(|i| json!({ "index": i, "relevance_score": 0.9 / (i + 1) as f64 })).collect();
    Behaviour::json(&json!({ "id": "rerank-mock", "model": body["model"], "results": results, "usage": { "total_tokens": INPUT } }))
}

fn file(request: &Received, path: &str) -> Behaviour {
    let file = json!({ "id": "file-1", "object": "file", "bytes": 12, "created_at": CREATED, "filename": "lines.jsonl", "purpose": "batch" });
    match request.method.as_str() {
        "DELETE" => Behaviour::json(&json!({ "id": "file-1", "object": "file", "deleted": true })),
        "GET" if path.ends_with("/content") => Behaviour::bytes(200, "application/octet-stream", "{\"a\": 1}\n"),
        "GET" if path.ends_with("/files") => Behaviour::json(&json!({ "object": "list", "data": [file], "has_more": false })),
        _ => Behaviour::json(&file),
    }
}
