//! Cohere's second version, Ollama's native routes, and Hugging Face's servers for text (TGI) and vectors (TEI).

use serde_json::{Value, json};

use super::{HELLO, INPUT, OUTPUT, Say, count, data, say, sse, typed, vectors, words};
use crate::mock::{Behaviour, Received, Stream};

pub(super) fn answer(request: &Received, path: &str) -> Option<Behaviour> {
    let body = request.json();
    let model = request.model();
    Some(match path {
        "/v2/chat" => cohere(&body),
        "/v2/embed" => {
            let texts = if body["texts"].is_array() { &body["texts"] } else { &body["inputs"] };
            Behaviour::json(
                &json!({ "id": "mock", "embeddings": { "float": vectors(count(texts)) }, "texts": body["texts"], "meta": { "api_version": { "version": "2" }, "billed_units": { "input_tokens": INPUT } } }),
            )
        }
        "/v2/rerank" => Behaviour::json(&json!({ "id": "mock", "results": ranking(&body["documents"], "relevance_score"), "meta": { "billed_units": { "search_units": 1 } } })),
        "/api/chat" => ollama(&body, &model),
        "/api/embed" => Behaviour::json(&json!({ "model": model, "embeddings": vectors(count(&body["input"])), "total_duration": 1000, "load_duration": 10, "prompt_eval_count": INPUT })),
        "/api/tags" => Behaviour::json(
            &json!({ "models": [{ "name": "llama3.3:latest", "model": "llama3.3:latest", "modified_at": "2026-11-01T00:00:00Z", "size": 1000, "digest": "abc", "details": { "family": "llama" } }] }),
        ),
        "/api/version" => Behaviour::json(&json!({ "version": "0.30.0" })),
        "/generate" => Behaviour::json(&json!({ "generated_text": HELLO, "details": { "finish_reason": "eos_token", "generated_tokens": OUTPUT, "prefill": [], "tokens": [], "seed": null } })),
        "/generate_stream" => tgi(),
        "/embed" => Behaviour::json(&json!(vectors(count(&body["inputs"])))),
        "/rerank" => Behaviour::json(&ranking(&body["texts"], "score")),
        "/info" => Behaviour::json(&json!({ "model_id": "mock", "version": "3.0.0" })),
        _ => return None,
    })
}

fn ranking(documents: &Value, score: &str) -> Value {
    (0..count(documents)).map(|i| json!({ "index": i, score: 0.9 / (i + 1) as f64 })).collect()
}

/// What an OpenAI-like list of tools and messages asks for.
fn asked(body: &Value, schema: Option<&Value>) -> Say {
    let function = &body["tools"][0]["function"];
    let tool = function["name"].as_str().filter(|_| body["tool_choice"] != "NONE").map(|n| (n.to_owned(), &function["parameters"]));
    let has_result = body["messages"].as_array().is_some_and(|m| m.iter().any(|m| m["role"] == "tool"));
    say(tool, has_result, schema)
}

fn cohere(body: &Value) -> Behaviour {
    let schema = (body["response_format"]["type"] == "json_object").then(|| body["response_format"].get("json_schema").or_else(|| body["response_format"].get("schema")).unwrap_or(&Value::Null));
    let say = asked(body, schema);
    let usage = json!({ "billed_units": { "input_tokens": INPUT, "output_tokens": OUTPUT }, "tokens": { "input_tokens": INPUT, "output_tokens": OUTPUT } });
    let finish = if matches!(say, Say::Text(_)) { "COMPLETE" } else { "TOOL_CALL" };
    let call = |name: &str, arguments: &str| json!({ "id": "call_1", "type": "function", "function": { "name": name, "arguments": arguments } });
    if body["stream"] != true {
        let message = match &say {
            Say::Text(text) => json!({ "role": "assistant", "content": [{ "type": "text", "text": text }] }),
            Say::Call { name, arguments } => json!({ "role": "assistant", "tool_plan": "I will look.", "tool_calls": [call(name, &arguments.to_string())] }),
        };
        return Behaviour::json(&json!({ "id": "mock", "finish_reason": finish, "message": message, "usage": usage }));
    }
    let mut events = vec![json!({ "type": "message-start", "id": "mock", "delta": { "message": { "role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": [] } } })];
    match &say {
        Say::Text(text) => {
            events.push(json!({ "type": "content-start", "index": 0, "delta": { "message": { "content": { "type": "text", "text": "" } } } }));
            events.extend(words(text).into_iter().map(|w| json!({ "type": "content-delta", "index": 0, "delta": { "message": { "content": { "text": w } } } })));
            events.push(json!({ "type": "content-end", "index": 0 }));
        }
        Say::Call { name, arguments } => {
            events.push(json!({ "type": "tool-plan-delta", "delta": { "message": { "tool_plan": "I will look." } } }));
            events.push(json!({ "type": "tool-call-start", "index": 0, "delta": { "message": { "tool_calls": call(name, "") } } }));
            let arguments = arguments.to_string();
            let (first, second) = arguments.split_at(arguments.len() / 2);
            events.extend([first, second].map(|part| json!({ "type": "tool-call-delta", "index": 0, "delta": { "message": { "tool_calls": { "function": { "arguments": part } } } } })));
            events.push(json!({ "type": "tool-call-end", "index": 0 }));
        }
    }
    events.push(json!({ "type": "message-end", "delta": { "finish_reason": finish, "usage": usage } }));
    sse(events.iter().map(typed))
}

fn ollama(body: &Value, model: &str) -> Behaviour {
    let schema = body.get("format").filter(|f| !f.is_null()).map(|f| if f.is_object() { f } else { &Value::Null });
    let say = asked(body, schema);
    let line = |message: Value| json!({ "model": model, "created_at": "2026-11-21T07:00:00Z", "message": message, "done": false });
    let end = |message: Value| json!({ "model": model, "created_at": "2026-11-21T07:00:01Z", "message": message, "done": true, "done_reason": "stop", "total_duration": 1000, "load_duration": 10, "prompt_eval_count": INPUT, "prompt_eval_duration": 10, "eval_count": OUTPUT, "eval_duration": 10 });
    let text = |text: &str| json!({ "role": "assistant", "content": text });
    let call = |name: &str, arguments: &Value| json!({ "role": "assistant", "content": "", "tool_calls": [{ "function": { "name": name, "arguments": arguments } }] });
    if body["stream"] == false {
        return Behaviour::json(&match &say {
            Say::Text(t) => end(text(t)),
            Say::Call { name, arguments } => end(call(name, arguments)),
        });
    }
    let mut lines: Vec<Value> = match &say {
        Say::Text(t) => words(t).into_iter().map(|w| line(text(w))).collect(),
        Say::Call { name, arguments } => vec![line(call(name, arguments))],
    };
    lines.push(end(text("")));
    Stream::new("application/x-ndjson").all(lines.iter().map(|l| format!("{l}\n"))).into()
}

fn tgi() -> Behaviour {
    let words = words(HELLO);
    let last = words.len() - 1;
    sse(words.iter().enumerate().map(|(i, word)| {
        let details = if i == last { json!({ "finish_reason": "eos_token", "generated_tokens": OUTPUT, "input_length": INPUT, "seed": null }) } else { Value::Null };
        data(
            &json!({ "index": i + 1, "token": { "id": i, "text": word, "logprob": -0.1, "special": false }, "generated_text": if i == last { json!(HELLO) } else { Value::Null }, "details": details }),
        )
    }))
}
