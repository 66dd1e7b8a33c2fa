//! What a strict limit reckons with: the bound that the provider will read, what only the provider sees, and text that is
//! dressed as something lighter; and what the dearest tokens of a request may cost.

use serde_json::{Value, json};
use tests::client::{Response, chat};
use tests::{Mock, Running};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";
const MESSAGES: &str = "/v1/messages";
const RESPONSES: &str = "/v1/responses";
const GENERATE: &str = "/v1beta/models/g:generateContent";
const HEADERS: [(&str, &str); 2] = [("content-type", "application/json"), ("authorization", "Bearer key-of-alice")];

/// The message of a limit that a request alone is more than.
const TOO_MUCH: &str = "this request alone is more than a limit allows";

/// A gateway with a model behind each of some dialects, and alice, who has these limits.
async fn start(mock: &Mock, limits: &str) -> Running {
    let yaml = format!(
        "providers:
  google: {{ kind: gemini, base_url: \"{{{{mock}}}}/v1beta\", api_key: sk-google-secret }}
  claude: {{ kind: anthropic, base_url: \"{{{{mock}}}}/v1\", api_key: sk-claude-secret }}
  llama: {{ kind: llama_cpp, base_url: \"{{{{mock}}}}/v1\" }}
  xai: {{ kind: xai, base_url: \"{{{{mock}}}}/v1\", api_key: sk-xai-secret }}
  qwen: {{ kind: dashscope, base_url: \"{{{{mock}}}}/v1\", api_key: sk-qwen-secret }}
models: {{ a: well/a, g: google/g, c: claude/c, l: llama/l, q: qwen/q, x: xai/x, free: llama/free }}
prices:
  well/a: {{ context: 18000, input: 1, output: 10, input_audio: 100, output_audio: 80, reasoning: 20, input_over_200k: 2, output_over_200k: 15, max_output: 100000 }}
  google/g: {{ input: 1, output: 1, max_output: 100000 }}
  claude/c: {{ input: 1, output: 1, max_output: 100000 }}
  llama/l: {{ input: 1, output: 1, max_output: 100000 }}
  xai/x: {{ input: 1, output: 1, max_output: 100000 }}
  qwen/q: {{ input: 1, output: 1, max_output: 100000, supports: [reasoning] }}
consumers: {{ alice: {{ keys: [key-of-alice], limits: [{limits}] }} }}
data: \"{{{{folder}}}}\"
"
    );
    Running::start(&yaml, mock).await
}

async fn ask(gateway: &Running, path: &str, body: &Value) -> Response {
    gateway.client().send("POST", path, &HEADERS, body.to_string().as_bytes()).await
}

const STRICT: &str = "{ tokens: 20000, per: 30d, strict: true }";

/// A body with these fields more.
fn and(mut body: Value, more: &Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn with(model: &str, more: Value) -> Value {
    and(chat(model), &more)
}

fn generate(more: Value) -> Value {
    and(json!({ "contents": [{ "role": "user", "parts": [{ "text": "hi" }] }] }), &more)
}

#[tokio::test]
async fn the_bound_that_is_reserved_is_the_one_that_the_provider_reads() {
    let mock = Mock::start().await;
    let gateway = start(&mock, STRICT).await;
    let texts: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
    let ids: Vec<Vec<u32>> = (0..1000).map(|n| vec![n]).collect();
    for (path, body) in [
        (COMPLETIONS, json!({ "model": "a", "prompt": texts, "max_tokens": 1000 })),
        (COMPLETIONS, json!({ "model": "a", "prompt": ids, "max_tokens": 1000 })),
        (COMPLETIONS, json!({ "model": "a", "prompt": "x", "max_tokens": 2000, "best_of": 20 })),
        (COMPLETIONS, json!({ "model": "a", "prompt": ["x", "y"], "max_tokens": 2000, "n": 4, "best_of": 6 })),
        (CHAT, with("a", json!({ "max_tokens": 1000, "n": 100.0 }))),
        (CHAT, with("a", json!({ "max_tokens": 1000, "n": 1e2 }))),
        (CHAT, with("a", json!({ "max_tokens": 10, "max_completion_tokens": 100_000.0 }))),
        (CHAT, with("a", json!({ "max_tokens": "100000" }))),
        (CHAT, with("a", json!({ "max_tokens": -1 }))),
        (CHAT, with("a", json!({ "max_output_tokens": 1 }))),
        (CHAT, with("g", json!({ "max_output_tokens": 1 }))),
        (CHAT, with("l", json!({ "max_tokens": 10, "n_predict": 100_000 }))),
        (CHAT, with("l", json!({ "max_tokens": 10, "n_predict": -1 }))),
        (CHAT, with("l", json!({ "max_tokens": 1000, "n_cmpl": 30 }))),
        (CHAT, with("l", json!({ "max_tokens": 10, "options": { "num_predict": 100_000 } }))),
        (CHAT, with("q", json!({ "max_tokens": 10, "thinking_budget": 50_000 }))),
        (CHAT, with("q", json!({ "max_tokens": 10 }))),
        (CHAT, with("q", json!({ "max_tokens": 10, "reasoning_effort": "none", "enable_thinking": true }))),
        (RESPONSES, json!({ "model": "q", "input": "x", "max_output_tokens": 10, "thinking_budget": 1 })),
        (RESPONSES, json!({ "model": "l", "input": "x", "max_output_tokens": 10, "n_predict": 100_000 })),
        (CHAT, with("x", json!({ "max_tokens": 10 }))),
        (RESPONSES, json!({ "model": "a", "input": "x", "max_tokens": 1 })),
        (MESSAGES, json!({ "model": "c", "max_tokens": 60_000, "max_completion_tokens": 1, "messages": [{ "role": "user", "content": "x" }] })),
        (GENERATE, generate(json!({ "max_tokens": 1, "generationConfig": { "maxOutputTokens": 60_000 } }))),
        (GENERATE, generate(json!({ "max_tokens": 1, "generation_config": { "max_output_tokens": "60000" } }))),
        (GENERATE, generate(json!({ "generationConfig": { "maxOutputTokens": 1 }, "generation_config": { "max_output_tokens": 60_000 } }))),
        (GENERATE, generate(json!({ "generationConfig": { "maxOutputTokens": 4000, "candidateCount": 8 } }))),
        ("/v1/images/generations", json!({ "model": "a", "prompt": "x", "n": 10.0 })),
    ] {
        let answer = ask(&gateway, path, &body).await;
        let shown: String = body.to_string().chars().take(200).collect();
        assert_eq!(answer.status, 429, "{path} {shown}: {}", answer.text());
        assert!(answer.text().contains(TOO_MUCH), "{}", answer.text());
    }
    for (path, body) in [
        (CHAT, with("a", json!({ "max_tokens": 1000, "n": "many" }))),
        (CHAT, with("a", json!({ "max_tokens": 1000, "n": 1.5 }))),
        (COMPLETIONS, json!({ "model": "a", "prompt": "x", "max_tokens": 10, "best_of": true })),
    ] {
        assert_eq!(ask(&gateway, path, &body).await.status, 400, "{body}");
    }
    // A key in disguise is no way around.
    for body in [r#"{"model":"l","max_tokens":10,"n_pr\u0065dict":100000,"messages":[]}"#, r#"{"model":"a","max_tokens":10,"\u006e":100,"messages":[]}"#] {
        assert_eq!(gateway.client().send("POST", CHAT, &HEADERS, body.as_bytes()).await.status, 400, "{body}");
    }
    assert!(["a", "g", "c", "l", "q", "x"].iter().all(|model| mock.asked(model).is_empty()));
    // What is within passes, the older and the newer name, and text beside the bound.
    for (path, body) in [
        (CHAT, with("a", json!({ "max_tokens": 100.0, "n": 2 }))),
        (CHAT, with("a", json!({ "max_tokens": null, "max_completion_tokens": 100 }))),
        (CHAT, with("q", json!({ "max_tokens": 10, "enable_thinking": false }))),
        (GENERATE, generate(json!({ "generationConfig": { "maxOutputTokens": 100, "candidateCount": 2 } }))),
        (RESPONSES, json!({ "model": "a", "input": "x", "max_output_tokens": 100 })),
        (MESSAGES, json!({ "model": "c", "max_tokens": 100, "messages": [{ "role": "user", "content": "x" }] })),
    ] {
        assert_eq!(ask(&gateway, path, &body).await.status, 200, "{body}");
    }
}

#[tokio::test]
async fn what_only_the_provider_sees_is_refused_by_its_name() {
    let mock = Mock::start().await;
    let gateway = start(&mock, STRICT).await;
    let message = |content: Value| json!({ "model": "c", "max_tokens": 10, "messages": [{ "role": "user", "content": [content] }] });
    let said = |part: Value| with("a", json!({ "max_tokens": 10, "messages": [{ "role": "user", "content": [part] }] }));
    let more = |field: Value| and(with("a", json!({ "max_tokens": 10 })), &field);
    let claude = |field: Value| and(json!({ "model": "c", "max_tokens": 10, "messages": [{ "role": "user", "content": "x" }] }), &field);
    let google = |field: Value| and(generate(json!({ "generationConfig": { "maxOutputTokens": 10 } })), &field);
    for (path, body, name) in [
        (GENERATE, google(json!({ "cachedContent": "cachedContents/1" })), "cachedContent"),
        (GENERATE, google(json!({ "tools": [{ "googleSearch": {} }] })), "googleSearch"),
        (GENERATE, google(json!({ "tools": { "functionDeclarations": [], "urlContext": {} } })), "urlContext"),
        (GENERATE, google(json!({ "contents": [{ "parts": [{ "fileData": { "mimeType": "video/mp4", "fileUri": "gs://a" } }] }] })), "fileData"),
        (GENERATE, google(json!({ "contents": [{ "parts": [{ "inlineData": { "mimeType": "video/mp4", "data": "AAAA" } }] }] })), "video"),
        (CHAT, more(json!({ "extra_body": { "google": { "cached_content": "cachedContents/1" } } })), "cached_content"),
        (CHAT, more(json!({ "cached_content": "cachedContents/1" })), "cached_content"),
        (CHAT, more(json!({ "web_search_options": {} })), "web_search_options"),
        (CHAT, more(json!({ "plugins": [{ "id": "web" }] })), "plugins"),
        (CHAT, more(json!({ "connectors": [{ "id": "web-search" }] })), "connectors"),
        (CHAT, more(json!({ "documents": ["x"] })), "documents"),
        (CHAT, more(json!({ "tools": [{ "googleSearch": {} }] })), "googleSearch"),
        (CHAT, more(json!({ "messages": [{ "role": "assistant", "audio": { "id": "audio_1" } }] })), "audio"),
        (CHAT, said(json!({ "type": "video_url", "video_url": { "url": "https://example.com/a.mp4" } })), "video_url"),
        (CHAT, said(json!({ "type": "document_url", "document_url": "https://example.com/a.pdf" })), "document_url"),
        (CHAT, said(json!({ "type": "input_audio", "input_audio": { "data": "https://example.com/a.wav", "format": "wav" } })), "input_audio"),
        (CHAT, said(json!({ "type": "file", "file": { "file_id": "file-1" } })), "file_id"),
        (CHAT, said(json!({ "type": "mystery", "mystery": 1 })), "mystery"),
        (RESPONSES, json!({ "model": "a", "input": "x", "max_output_tokens": 10, "prompt": { "id": "pmpt_1" } }), "prompt"),
        (RESPONSES, json!({ "model": "a", "input": "x", "max_output_tokens": 10, "tools": [{ "type": "web_search" }] }), "web_search"),
        (RESPONSES, json!({ "model": "a", "input": [{ "type": "item_reference", "id": "msg_1" }], "max_output_tokens": 10 }), "item_reference"),
        (MESSAGES, message(json!({ "type": "document", "source": { "type": "url", "url": "https://example.com/a.pdf" } })), "source"),
        (MESSAGES, message(json!({ "type": "document", "source": { "type": "file", "file_id": "file_1" } })), "file_id"),
        (MESSAGES, message(json!({ "type": "container_upload", "file_id": "file_1" })), "file_id"),
        (MESSAGES, claude(json!({ "tools": [{ "type": "web_search_20250305", "name": "web_search" }] })), "web_search_20250305"),
        (MESSAGES, claude(json!({ "mcp_servers": [{ "type": "url", "url": "https://example.com", "name": "x" }] })), "mcp_servers"),
        (MESSAGES, claude(json!({ "container": "container_1" })), "container"),
    ] {
        let answer = ask(&gateway, path, &body).await;
        assert!(answer.status == 403 && answer.text().contains(&format!("{name}`")), "{path} {body}: {} {}", answer.status, answer.text());
        assert!(path != CHAT || answer.fault(403, "unbounded_request").contains("strict"), "{}", answer.text());
    }
    assert!(["a", "g", "c"].iter().all(|model| mock.asked(model).is_empty()));
    // What a client runs itself, and what says nothing, passes.
    for (path, body) in [
        (
            CHAT,
            more(
                json!({ "tools": [{ "type": "function", "function": { "name": "f", "parameters": { "type": "object", "properties": { "file_id": { "type": "string" } } } } }], "web_search_options": null, "plugins": [] }),
            ),
        ),
        (GENERATE, google(json!({ "tools": [{ "functionDeclarations": [{ "name": "f" }] }] }))),
        (MESSAGES, claude(json!({ "tools": [{ "name": "f", "input_schema": { "type": "object" } }, { "type": "custom", "name": "g", "input_schema": { "type": "object" } }] }))),
        (MESSAGES, message(json!({ "type": "document", "source": { "type": "text", "media_type": "text/plain", "data": "words" } }))),
    ] {
        let answer = ask(&gateway, path, &body).await;
        assert_eq!(answer.status, 200, "{body}: {}", answer.text());
    }
}

#[tokio::test]
async fn text_is_text_whatever_it_looks_like_and_a_small_picture_is_a_picture() {
    let mock = Mock::start().await;
    let gateway = start(&mock, STRICT).await;
    let dressed = format!("audio{}{}", "A".repeat(200), "word after word ".repeat(9000));
    let dressed = format!("{}{}", &dressed[..dressed.len() - 300], "A".repeat(300));
    let pure = "AAAA".repeat(36_000);
    let said = |content: Value| with("a", json!({ "max_tokens": 10, "messages": [{ "role": "user", "content": content }] }));
    let google = |part: Value| generate(json!({ "generationConfig": { "maxOutputTokens": 10 }, "contents": [{ "parts": [part] }] }));
    for (path, body) in [
        (CHAT, said(json!(dressed))),
        (CHAT, said(json!(pure))),
        (CHAT, said(json!(format!("data:audio/wav;base64,{pure}")))),
        (CHAT, said(json!([{ "type": "text", "text": pure }, { "type": "text", "text": "image" }]))),
        (CHAT, said(json!([{ "type": "input_audio", "input_audio": { "data": dressed, "format": "wav" } }]))),
        (GENERATE, google(json!({ "text": pure }))),
        (GENERATE, google(json!({ "functionResponse": { "name": "f", "response": { "inlineData": { "mimeType": "audio/wav", "data": pure } } } }))),
        (GENERATE, google(json!({ "functionCall": { "name": "f", "args": { "image_url": format!("data:audio/wav;base64,{pure}") } } }))),
        (
            MESSAGES,
            json!({ "model": "c", "max_tokens": 10, "messages": [{ "role": "assistant", "content": [{ "type": "tool_use", "id": "t", "name": "f", "input": { "source": { "media_type": "audio/wav", "data": pure } } }] }] }),
        ),
    ] {
        let answer = ask(&gateway, path, &body).await;
        assert!(answer.status == 429 && answer.text().contains(TOO_MUCH), "{}: {}", &body.to_string()[..200], answer.text());
    }
    let pictures: Vec<Value> = (0..100).map(|_| json!({ "inlineData": { "mimeType": "image/png", "data": "iVBORw0KGgo=" } })).collect();
    let many = generate(json!({ "generationConfig": { "maxOutputTokens": 10 }, "contents": [{ "parts": pictures }] }));
    assert_eq!(ask(&gateway, GENERATE, &many).await.status, 429);
    assert!(mock.asked("a").is_empty() && mock.asked("g").is_empty() && mock.asked("c").is_empty());
    // Sound that is sound.
    let sound = said(json!([{ "type": "input_audio", "input_audio": { "data": format!("UklGR{}", &pure[5..]), "format": "wav" } }]));
    ask(&gateway, CHAT, &sound).await.answer();
    // What is packed weighs what the model's context holds, and nothing is known of that of another.
    let packed = |model: &str| {
        with(model, json!({ "max_tokens": 10, "messages": [{ "role": "user", "content": [{ "type": "file", "file": { "filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA" } }] }] }))
    };
    ask(&gateway, CHAT, &packed("a")).await.answer();
    let message = ask(&gateway, CHAT, &packed("l")).await.fault(403, "unbounded_request");
    assert!(message.contains("context"), "{message}");
    let linked = |model: &str| with(model, json!({ "max_tokens": 10, "messages": [{ "role": "user", "content": [{ "type": "image_url", "image_url": { "url": "https://example.com/a.mp4" } }] }] }));
    ask(&gateway, CHAT, &linked("g")).await.fault(403, "unbounded_request");
}

#[tokio::test]
async fn money_is_held_at_the_dearest_price_that_a_token_can_have() {
    let mock = Mock::start().await;
    let gateway = start(&mock, "{ dollars: 1, per: 30d, strict: true }").await;
    // 20,000 tokens of sound would be 1.60 dollars, of text 0.20, of reasoning 0.40.
    ask(&gateway, CHAT, &with("a", json!({ "max_tokens": 20_000, "modalities": ["text", "audio"], "audio": { "voice": "alloy", "format": "wav" } }))).await.fault(429, "insufficient_quota");
    let estimate = |response: &Response| response.header("x-trivium-cost-estimate").unwrap().parse::<f64>().unwrap();
    let thought = ask(&gateway, CHAT, &with("a", json!({ "max_tokens": 20_000 }))).await;
    thought.answer();
    assert!((0.400..0.401).contains(&estimate(&thought)), "{}", estimate(&thought));
    // 16 bytes to a token: 135,000 bytes of sound at a hundred dollars for a million.
    let sound = json!([{ "type": "input_audio", "input_audio": { "data": "AAAA".repeat(45_000), "format": "wav" } }]);
    let heard = ask(&gateway, CHAT, &with("a", json!({ "max_tokens": 10, "messages": [{ "role": "user", "content": sound }] }))).await;
    heard.fault(429, "insufficient_quota");
    // The usual estimate takes the likely price.
    let usual = start(&mock, "{ dollars: 1, per: 30d }").await;
    ask(&usual, CHAT, &with("a", json!({ "max_tokens": 20_000 }))).await.answer();
    ask(&usual, CHAT, &with("a", json!({ "max_tokens": 90_000 }))).await.answer();
}

#[tokio::test]
async fn a_bound_on_the_cost_is_not_passed_over_where_the_cost_is_not_known() {
    let mock = Mock::start().await;
    let gateway = start(&mock, "{ requests: 100, per: 1h }").await;
    let message = ask(&gateway, CHAT, &with("free", json!({ "max_cost": 0.05 }))).await.fault(402, "unknown_price");
    assert!(message.contains("llama/free") && message.contains("max_cost"), "{message}");
    let message = ask(&gateway, CHAT, &with("a", json!({ "max_cost": 0.9, "web_search_options": {} }))).await.fault(402, "unbounded_request");
    assert!(message.contains("web_search_options"), "{message}");
    let filer = Running::start("models: { a: well/a }\nconsumers: { bob: { keys: [key-of-bob-1], files: true } }\n", &mock).await;
    let bounded = [HEADERS[0], ("authorization", "Bearer key-of-bob-1"), ("x-trivium-max-cost", "0.05")];
    filer.client().send("POST", "/v1/batches", &bounded, br#"{"input_file_id":"file-1"}"#).await.fault(402, "batch_not_counted");
    assert!(mock.asked("free").is_empty() && mock.asked("a").is_empty());
    ask(&gateway, CHAT, &with("free", json!({}))).await.answer();
}
