//! Tiers, and hosts behind a provider, that the price table does not know: refused to who is held to dollars, and never written down at the standard price.

use serde_json::{Value, json};
use tests::client::{Response, chat};
use tests::dialects::{INPUT, OUTPUT};
use tests::{Behaviour, Mock, Running, Stream};

const CHAT: &str = "/v1/chat/completions";
const RESPONSES: &str = "/v1/responses";
const MESSAGES: &str = "/v1/messages";

const YAML: &str = "
providers:
  claude: { kind: anthropic, base_url: \"{{mock}}/v1\", api_key: sk-claude-secret }
  groq: { kind: groq, base_url: \"{{mock}}/openai/v1\", api_key: sk-groq-secret }
  gemini: { kind: gemini, base_url: \"{{mock}}/v1beta\", api_key: sk-gemini-secret }
  router: { kind: openrouter, base_url: \"{{mock}}/v1\", api_key: sk-router-secret }
  bedrock: { kind: bedrock, base_url: \"{{mock}}\", api_key: sk-bedrock-secret, region: eu-central-1 }
models:
  a: well/a
  claude: claude/c
  groq: groq/g
  router: router/r
  gemini: gemini/g
  bedrock: bedrock/b
  flexible: { target: well/f, defaults: { service_tier: flex } }
  unpriced: { target: well/gpt-4o, defaults: { service_tier: flex } }
prices: { well/a: P, claude/c: P, groq/g: P, router/r: P, gemini/g: P, bedrock/b: P, well/f: P }
consumers:
  alice: { keys: [key-of-alice], limits: [{ dollars: 10, per: 1d }] }
  bob: { keys: [key-of-bob-1] }
";

async fn start(mock: &Mock, more: &str) -> Running {
    Running::start(&format!("{}{more}data: \"{{{{folder}}}}\"\n", YAML.replace(": P", ": { input: 1, output: 2, max_output: 100 }")), mock).await
}

async fn ask(gateway: &Running, key: &str, path: &str, body: &Value) -> Response {
    let bearer = format!("Bearer {key}");
    gateway.client().send("POST", path, &[("content-type", "application/json"), ("authorization", &bearer)], body.to_string().as_bytes()).await
}

fn with(mut body: Value, field: &str, value: impl Into<Value>) -> Value {
    body[field] = value.into();
    body
}

fn claude() -> Value {
    json!({ "model": "claude", "max_tokens": 10, "messages": [{ "role": "user", "content": "x" }] })
}

fn generate() -> Value {
    json!({ "contents": [{ "parts": [{ "text": "x" }] }] })
}

fn usual() -> Option<f64> {
    Some((INPUT + 2 * OUTPUT) as f64 / 1e6)
}

#[tokio::test]
async fn who_is_held_to_dollars_has_the_standard_tier() {
    let mock = Mock::start().await;
    let gateway = start(&mock, "").await;
    let generate_path = "/v1beta/models/gemini:generateContent";
    for (path, body, field) in [
        (CHAT, with(chat("a"), "service_tier", "priority"), "service_tier"),
        (CHAT, with(chat("a"), "service_tier", "flex"), "service_tier"),
        (CHAT, with(chat("a"), "service_tier", "fast"), "service_tier"),
        (CHAT, with(chat("groq"), "service_tier", "performance"), "service_tier"),
        (CHAT, with(chat("bedrock"), "service_tier", "priority"), "service_tier"),
        (CHAT, with(chat("bedrock"), "performanceConfig", json!({ "latency": "optimized" })), "performanceConfig"),
        (CHAT, with(chat("router"), "provider", json!({ "order": ["dear"] })), "provider"),
        ("/v1/embeddings", json!({ "model": "router", "input": "x", "provider": { "sort": "throughput" } }), "provider"),
        (CHAT, chat("unpriced"), "service_tier"),
        (RESPONSES, json!({ "model": "a", "input": "x", "tools": [{ "type": "image_generation" }] }), "tools"),
        (RESPONSES, json!({ "model": "a", "input": "x", "service_tier": "priority" }), "service_tier"),
        (MESSAGES, with(claude(), "speed", "fast"), "speed"),
        (MESSAGES, with(claude(), "inference_geo", "us"), "inference_geo"),
        (MESSAGES, with(with(claude(), "model", "a"), "service_tier", "priority"), "service_tier"),
        (generate_path, with(generate(), "serviceTier", "PRIORITY"), "serviceTier"),
        (generate_path, with(generate(), "service_tier", "SERVICE_TIER_FLEX"), "service_tier"),
    ] {
        let refused = ask(&gateway, "key-of-alice", path, &body).await;
        assert!(refused.status == 403 && refused.text().contains(&format!("`{field}`")), "{path} {body}: {}", refused.text());
    }
    ask(&gateway, "key-of-alice", CHAT, &with(chat("a"), "service_tier", "priority")).await.fault(403, "unknown_price");
    assert_eq!(mock.received().len(), 0);
    for (path, body) in [
        (CHAT, with(chat("a"), "service_tier", "auto")),
        (CHAT, with(chat("a"), "service_tier", "default")),
        (CHAT, with(chat("a"), "service_tier", Value::Null)),
        (CHAT, with(chat("router"), "provider", json!({}))),
        (CHAT, with(chat("groq"), "service_tier", "flex")),
        (CHAT, with(chat("groq"), "service_tier", "on_demand")),
        // Gemini is not told of a tier in OpenAI's words, and Claude has none that costs more.
        (CHAT, with(chat("gemini"), "service_tier", "priority")),
        (CHAT, with(chat("claude"), "service_tier", "priority")),
        // The operator has asked for it, and has priced it.
        (CHAT, chat("flexible")),
        (MESSAGES, with(claude(), "service_tier", "standard_only")),
        (MESSAGES, with(with(claude(), "speed", "standard"), "inference_geo", "global")),
        (generate_path, with(generate(), "serviceTier", "STANDARD")),
    ] {
        let answer = ask(&gateway, "key-of-alice", path, &body).await;
        assert_eq!(answer.status, 200, "{path} {body}: {}", answer.text());
        assert!(answer.header("x-trivium-cost").is_some(), "{path} {body}");
    }
}

#[tokio::test]
async fn a_bound_on_the_cost_cannot_be_held_for_a_tier_without_a_price() {
    let mock = Mock::start().await;
    let gateway = start(&mock, "").await;
    let body = with(with(chat("a"), "service_tier", "priority"), "max_cost", 5);
    let refused = ask(&gateway, "key-of-bob-1", CHAT, &body).await;
    assert!(refused.fault(402, "unknown_price").contains("`service_tier`"));
    assert!(refused.header("x-trivium-cost-estimate").is_none(), "no estimate is better than a wrong one");
    assert_eq!(mock.received().len(), 0);
    assert_eq!(ask(&gateway, "key-of-bob-1", CHAT, &with(chat("a"), "max_cost", 5)).await.status, 200);
}

#[tokio::test]
async fn what_was_billed_is_what_the_answer_says() {
    let mock = Mock::start().await;
    let gateway = start(&mock, "").await;
    let answer = |tier: &str| {
        json!({ "id": "x", "object": "chat.completion", "created": 1, "model": "a", "service_tier": tier, "metadata": { "service_tier": "default" },
            "choices": [{ "index": 0, "message": { "role": "assistant", "content": "\"service_tier\":\"default\"" }, "finish_reason": "stop" }],
            "usage": { "prompt_tokens": INPUT, "completion_tokens": OUTPUT, "total_tokens": INPUT + OUTPUT } })
    };
    let stream = |tier: &str| {
        let mut chunk = answer(tier);
        chunk["choices"] = json!([{ "index": 0, "delta": { "content": "hi" }, "finish_reason": "stop" }]);
        Behaviour::from(Stream::sse().send(format!("data: {chunk}\n\ndata: [DONE]\n\n")))
    };
    let response = |tier: &str| {
        let whole = json!({ "id": "r", "object": "response", "status": "completed", "service_tier": tier, "metadata": { "service_tier": "default" }, "output": [], "usage": { "input_tokens": INPUT, "output_tokens": OUTPUT, "total_tokens": INPUT + OUTPUT } });
        let delta = json!({ "type": "response.output_text.delta", "delta": "hi", "item_id": "i", "output_index": 0, "content_index": 0 });
        let done = json!({ "type": "response.completed", "response": whole });
        (Behaviour::json(&whole), Behaviour::from(Stream::sse().send(format!("event: response.output_text.delta\ndata: {delta}\n\nevent: response.completed\ndata: {done}\n\n"))))
    };
    let message = |usage: Value| {
        let mut usage = usage;
        (usage["input_tokens"], usage["output_tokens"]) = (json!(INPUT), json!(OUTPUT));
        let whole = json!({ "id": "m", "type": "message", "role": "assistant", "model": "c", "content": [{ "type": "text", "text": "hi" }], "stop_reason": "end_turn", "usage": usage });
        let mut begun = whole.clone();
        begun["content"] = json!([]);
        let events = [
            json!({ "type": "message_start", "message": begun }),
            json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } }),
            json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": "hi" } }),
            json!({ "type": "content_block_stop", "index": 0 }),
            json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn" }, "usage": { "output_tokens": OUTPUT } }),
            json!({ "type": "message_stop" }),
        ];
        let text: String = events.iter().map(|e| format!("event: {}\ndata: {e}\n\n", e["type"].as_str().unwrap())).collect();
        (Behaviour::json(&whole), Behaviour::from(Stream::sse().send(text)))
    };
    let (fast, slow) = (message(json!({ "speed": "fast", "service_tier": "standard" })), message(json!({ "speed": "standard", "service_tier": "standard" })));
    let (dear, plain) = (response("priority"), response("default"));
    let prior = |body: Value| with(body, "service_tier", "priority");
    let asked = |model: &str| json!({ "model": model, "input": "x" });
    let mut count = 0;
    for (path, model, body, behaviour, cost) in [
        (CHAT, "a", prior(chat("a")), Behaviour::json(&answer("priority")), None),
        (CHAT, "a", prior(chat("a")), Behaviour::json(&answer("default")), usual()),
        (CHAT, "a", with(chat("a"), "service_tier", "flex"), Behaviour::json(&answer("flex")), None),
        (CHAT, "a", with(prior(chat("a")), "stream", true), stream("priority"), None),
        (CHAT, "a", with(prior(chat("a")), "stream", true), stream("default"), usual()),
        (CHAT, "a", chat("a"), Behaviour::json(&answer("default")), usual()),
        (RESPONSES, "a", prior(asked("a")), dear.0, None),
        (RESPONSES, "a", prior(asked("a")), plain.0, usual()),
        (RESPONSES, "a", with(prior(asked("a")), "stream", true), dear.1, None),
        (RESPONSES, "a", with(prior(asked("a")), "stream", true), plain.1, usual()),
        (MESSAGES, "c", with(claude(), "speed", "fast"), fast.0, None),
        (MESSAGES, "c", with(claude(), "speed", "fast"), slow.0.clone(), usual()),
        (MESSAGES, "c", with(with(claude(), "speed", "fast"), "stream", true), fast.1, None),
        (MESSAGES, "c", with(with(claude(), "speed", "fast"), "stream", true), slow.1, usual()),
        (MESSAGES, "c", with(with(claude(), "speed", "fast"), "inference_geo", "us"), slow.0, None),
    ] {
        mock.on(model, [behaviour]);
        let answer = ask(&gateway, "key-of-bob-1", path, &body).await;
        assert_eq!(answer.status, 200, "{path} {body}: {}", answer.text());
        count += 1;
        let entry = gateway.entries(count).await.pop().unwrap();
        assert_eq!((entry["cost"].as_f64(), entry["usage"]["input"].as_u64().is_some()), (cost, true), "{path} {body}: {entry}");
        assert_eq!(answer.header("x-trivium-cost").is_some(), cost.is_some() && body["stream"] != true, "{path} {body}");
    }
}

#[tokio::test]
async fn an_operator_who_lets_unknown_prices_pass_lets_tiers_pass() {
    let mock = Mock::start().await;
    let gateway = start(&mock, "unknown_price: allow\n").await;
    let answer = json!({ "id": "x", "object": "chat.completion", "created": 1, "model": "a", "service_tier": "priority",
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": "hi" }, "finish_reason": "stop" }], "usage": { "prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2 } });
    mock.on("a", [Behaviour::json(&answer)]);
    ask(&gateway, "key-of-alice", CHAT, &with(chat("a"), "service_tier", "priority")).await.answer();
    assert_eq!(gateway.entries(1).await[0]["cost"], Value::Null);
}
