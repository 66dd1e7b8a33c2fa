//! Providers behind a proxy: the mock plays the proxy, and the provider is a place that nobody knows.

use serde_json::json;
use tests::dialects::HELLO;
use tests::{Behaviour, Mock, Running};

const YAML: &str = "
providers:
  far: { kind: openai, base_url: \"http://provider.example:8000/v1\", api_key: sk-far-secret, proxy: \"{{proxy}}\" }
  dead: { kind: openai, base_url: \"http://provider.example/v1\", api_key: sk-dead-secret, proxy: \"{{dead}}\" }
models:
  far: far/far
  saved: { target: far/closed, retry: { attempts: 1 }, fallback: [well/well] }
  dead: { target: dead/x, retry: { attempts: 1 }, fallback: [well/well] }
";

fn answer() -> Behaviour {
    Behaviour::json(&json!({ "choices": [{ "index": 0, "message": { "role": "assistant", "content": HELLO }, "finish_reason": "stop" }] }))
}

#[tokio::test]
async fn a_provider_is_asked_through_its_proxy() {
    let mock = Mock::start().await;
    let proxy = mock.url().replace("http://", "http://user:pass-word@");
    let gateway = Running::start(&YAML.replace("{{proxy}}", &proxy), &mock).await;
    mock.on("far", [answer()]);
    for _ in 0..2 {
        assert_eq!(gateway.client().chat("far").await.answer(), HELLO);
    }
    let asked = mock.asked("far");
    assert!(asked.iter().all(|r| r.path == "http://provider.example:8000/v1/chat/completions" && r.header("host") == Some("provider.example:8000")), "{asked:?}");
    // base64 of `user:pass-word`; the provider's own key goes along.
    assert_eq!((asked[0].header("proxy-authorization"), asked[0].header("authorization")), (Some("Basic dXNlcjpwYXNzLXdvcmQ="), Some("Bearer sk-far-secret")));
    assert_eq!(asked[0].connection, asked[1].connection, "the connection to the proxy is used again");
    // Files go the same way.
    gateway.client().send("GET", "/v1/files", &[("x-trivium-provider", "far")], b"").await;
    assert_eq!(mock.last().path, "http://provider.example:8000/v1/files");
}

#[tokio::test]
async fn a_proxy_that_fails_is_a_failed_connection_and_what_it_was_shown_is_told_to_nobody() {
    let mock = Mock::start().await;
    let proxy = mock.url().replace("http://", "http://user:pass-word@");
    let gateway = Running::start(&YAML.replace("{{proxy}}", &proxy), &mock).await;
    mock.on("closed", [Behaviour::bytes(407, "text/html", "who are you?")]);
    for model in ["saved", "dead"] {
        let answer = gateway.client().chat(model).await;
        assert_eq!((answer.answer().as_str(), answer.header("x-trivium-provider")), (HELLO, Some("well")), "{model}");
    }
    mock.on("far", [Behaviour::bytes(407, "text/html", "who are you?")]);
    let refused = gateway.client().chat("far").await;
    refused.fault(502, "upstream_unreachable");
    let entries = gateway.entries(3).await;
    assert_eq!((&entries[0]["tries"][0]["outcome"], &entries[1]["tries"][0]["outcome"]), (&json!("connect"), &json!("connect")));
    assert!(entries[2]["detail"].as_str().is_some_and(|d| d.contains("the proxy 127.0.0.1:") && d.contains("407")), "{}", entries[2]);
    assert!(!gateway.ledger(3).await.contains("pass-word"));
}
