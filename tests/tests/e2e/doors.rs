//! What belongs to a door and to no provider: how Google's streams are framed, and what a client is told was left out.

use serde_json::{Value, json};
use tests::client::request;
use tests::dialects::HELLO;
use tests::{Behaviour, Gate, Mock, Running, Stream};

const GEMINI: &str = "
providers:
  gemini: { kind: gemini, base_url: \"{{mock}}/v1beta\", api_key: gemini-secret }
  anthropic: { kind: anthropic, base_url: \"{{mock}}\", api_key: sk-ant-secret }
  openai: { kind: openai, base_url: \"{{mock}}/v1\", api_key: sk-openai-secret }
  echo: { kind: echo }
models:
  gemini: gemini/gemini-2.5-flash
  anthropic: anthropic/claude-sonnet-4-5
  openai: openai/gpt-4o
  echo: echo/echo
  both: { targets: [openai/gpt-4o], retry: { attempts: 1 }, fallback: [anthropic/claude-sonnet-4-5] }
";

fn hello() -> Value {
    json!({ "contents": [{ "role": "user", "parts": [{ "text": "Say hello." }] }] })
}

fn text_of(list: &Value) -> String {
    list.as_array().unwrap().iter().filter_map(|e| e["candidates"][0]["content"]["parts"][0]["text"].as_str()).collect()
}

/// Without `alt=sse` Google streams one JSON array, whoever answers behind the gateway.
#[tokio::test]
async fn a_google_stream_without_events_is_an_array() {
    let mock = Mock::start().await;
    let gateway = Running::start(GEMINI, &mock).await;
    for model in ["gemini", "anthropic", "openai"] {
        let answer = gateway.client().post(&format!("/v1beta/models/{model}:streamGenerateContent?key=x"), &hello()).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json; charset=UTF-8")), "{model}");
        assert!(answer.text().starts_with("[{") && answer.text().contains("},\r\n{") && answer.text().ends_with("}]"), "{model}: {}", answer.text());
        let list = answer.json();
        assert_eq!(text_of(&list), HELLO, "{model}: {list}");
        assert_eq!(list.as_array().unwrap().last().unwrap()["candidates"][0]["finishReason"], "STOP", "{model}: {list}");
    }
    let answer = gateway.client().post("/v1beta/models/echo:streamGenerateContent", &hello()).await;
    assert!(text_of(&answer.json()).contains("hello"), "{}", answer.text());
    let refused = gateway.client().post("/v1beta/models/nothing:streamGenerateContent", &hello()).await;
    assert_eq!((refused.status, &refused.json()[0]["error"]["status"]), (404, &json!("NOT_FOUND")));
}

#[tokio::test]
async fn each_element_of_the_array_goes_out_while_the_upstream_is_silent() {
    let mock = Mock::start().await;
    let gateway = Running::start(GEMINI, &mock).await;
    let event =
        |text: &str, finish: Option<&str>| format!("data: {}\n\n", json!({ "candidates": [{ "content": { "parts": [{ "text": text }], "role": "model" }, "index": 0, "finishReason": finish }] }));
    let gate = Gate::new();
    mock.on("gemini-2.5-flash", [Stream::sse().send(event("one", None)).wait(&gate).send(event("two", Some("STOP"))).into()]);
    let mut connection = gateway.client().connect().await;
    connection.write(&request("POST", "/v1beta/models/gemini:streamGenerateContent", &[("content-type", "application/json")], hello().to_string().as_bytes())).await;
    assert_eq!(connection.head().await.status, 200);
    let first = connection.piece().await.unwrap().unwrap();
    assert!(first.starts_with(b"[{") && first.ends_with(b"}"), "{first:?}");
    gate.open();
    let mut rest = Vec::new();
    while let Ok(Some(piece)) = connection.piece().await {
        rest.extend_from_slice(&piece);
    }
    let list: Value = serde_json::from_slice(&[&first[..], &rest].concat()).unwrap();
    assert_eq!(text_of(&list), "onetwo");
}

#[tokio::test]
async fn an_array_that_breaks_off_ends_with_an_error() {
    let mock = Mock::start().await;
    let gateway = Running::start(GEMINI, &mock).await;
    let half = format!("data: {}\n\n", json!({ "candidates": [{ "content": { "parts": [{ "text": "half" }], "role": "model" }, "index": 0 }] }));
    mock.on("gemini-2.5-flash", [Stream::sse().send(half).into()]);
    let answer = gateway.client().post("/v1beta/models/gemini:streamGenerateContent", &hello()).await;
    let list = answer.json();
    assert_eq!((list.as_array().unwrap().len(), text_of(&list)), (2, "half".to_owned()), "{list}");
    assert!(list[1]["error"]["message"].is_string(), "{list}");
}

/// What a door leaves out is told, but only where the answer came through the hub.
#[tokio::test]
async fn what_a_door_leaves_out_is_told_with_the_answer_that_it_concerns() {
    let mock = Mock::start().await;
    let gateway = Running::start(GEMINI, &mock).await;
    let body = json!({ "model": "both", "max_tokens": 100, "context_management": { "edits": [] }, "messages": [{ "role": "user", "content": "Say hello." }] });
    let translated = gateway.client().post("/v1/messages", &body).await;
    assert_eq!(translated.header("x-trivium-warning"), Some("dropped `context_management`: only Anthropic's own API has it"));
    mock.on("gpt-4o", [Behaviour::error(500, "no"), Behaviour::Usual]);
    let passed = gateway.client().post("/v1/messages", &body).await;
    assert_eq!((passed.status, passed.header("x-trivium-provider"), passed.header("x-trivium-warning")), (200, Some("anthropic"), None), "{}", passed.text());
    let google =
        gateway.client().post("/v1beta/models/openai:generateContent", &json!({ "contents": [{ "parts": [{ "text": "hi" }] }], "safetySettings": [], "generationConfig": { "topK": 3 } })).await;
    let told = google.header("x-trivium-warning").unwrap_or_default();
    assert!(told.contains("dropped `safetySettings`") && told.contains("dropped `top_k`"), "{told}");
    let responses = gateway.client().post("/v1/responses", &json!({ "model": "anthropic", "input": "hi", "truncation": "auto" })).await;
    assert!(responses.header("x-trivium-warning").is_some_and(|w| w.contains("truncation")), "{}", responses.text());
}
