//! The ledger: one entry for each request however it ended, exact to the last digit, and nothing in it that is secret.

use serde_json::{Value, json};
use tests::client::{chat, streamed};
use tests::dialects::{HELLO, INPUT, OUTPUT};
use tests::{Behaviour, Gate, Mock, Running, Stream};

const CHAT: &str = "/v1/chat/completions";

/// Words of a prompt that must not be found anywhere.
const PRIVATE: &str = "the-patient-is-called-Rosalind";

async fn start(yaml: &str) -> (Mock, Running) {
    let mock = Mock::start().await;
    let gateway = Running::start(yaml, &mock).await;
    (mock, gateway)
}

#[tokio::test]
async fn an_answered_request_whole_and_streamed() {
    let (_mock, gateway) = start("models: { fast: well/gpt-x }\nprices: { well/gpt-x: { input: 0.15, output: 0.6 } }\n").await;
    let whole = gateway.client().chat("fast").await;
    // 9 tokens at $0.15 and 5 at $0.60 per million.
    assert_eq!(whole.header("x-trivium-cost"), Some("0.00000435"));
    gateway.client().stream(&streamed("fast")).await.rest().await;
    let text = gateway.ledger(2).await;
    assert_eq!(text.matches("\"cost\":0.00000435,").count(), 2, "{text}");
    for (entry, stream) in gateway.entries(2).await.iter().zip([false, true]) {
        let fields = ["operation", "model", "route", "provider", "provider_kind", "model_used", "stream", "finish", "status"].map(|f| entry[f].clone());
        assert_eq!(fields, [json!("chat"), json!("fast"), json!("fast"), json!("well"), json!("openai"), json!("gpt-x"), json!(stream), json!("stop"), json!(200)]);
        assert_eq!((&entry["usage"]["input"], &entry["usage"]["output"]), (&json!(INPUT), &json!(OUTPUT)));
        assert_eq!((entry["tries"].as_array().unwrap().len(), &entry["tries"][0]["outcome"]), (1, &json!("ok")));
        assert!(entry["time"].as_f64().unwrap() > 1.7e9 && entry["latency_ms"].as_f64().unwrap() > 0.0);
        assert_eq!((entry["first_token_ms"].is_number(), entry["token_ms"].is_number()), (stream, stream), "{entry}");
        assert_eq!((entry["trace_id"].as_str().unwrap().len(), entry["span_id"].as_str().unwrap().len()), (32, 16));
    }
    assert_eq!(gateway.entries(2).await[0]["request_id"].as_str(), whole.header("x-request-id"));
}

#[tokio::test]
async fn a_deployment_costs_what_the_model_does_that_it_is() {
    let (_mock, gateway) = start("models: { prod: well/our-prod }\nprices: { well/our-prod: openai/gpt-4o }\n").await;
    // 9 tokens at $2.50 and 5 at $10 per million.
    assert_eq!(gateway.client().chat("prod").await.header("x-trivium-cost"), Some("0.0000725"));
}

#[tokio::test]
async fn refused_failed_and_broken_requests_are_written_too() {
    let (mock, gateway) = start("models: { one: { target: well/one, retry: { attempts: 1 }, breaker: { failures: 0 } } }\nlimits: { body: 4KiB }\n").await;
    let client = gateway.client();
    client.post_bytes(CHAT, b"nonsense").await;
    client.chat("unknown").await;
    client.post_bytes(CHAT, &[b' '; 8192]).await;
    client.send("POST", CHAT, &[("content-type", "text/plain")], b"x").await;
    client.send("PUT", CHAT, &[], b"").await;
    mock.on("one", [Behaviour::error(500, "the engine died"), Stream::sse().send("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n").cut().into()]);
    client.chat("one").await;
    client.stream(&streamed("one")).await.rest().await;
    client.post("/v1/embeddings", &json!({ "model": "well", "input": "x" })).await;
    let entries = gateway.entries(8).await;
    let statuses: Vec<u64> = entries.iter().map(|e| e["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [400, 404, 413, 415, 405, 502, 200, 200]);
    assert!(entries[..7].iter().all(|e| e["error"].as_str().is_some_and(|m| !m.is_empty())), "{entries:#?}");
    assert_eq!((&entries[5]["error"], &entries[5]["tries"][0]["status"]), (&json!("the engine died"), &json!(500)));
    assert_eq!((&entries[6]["stream"], &entries[6]["usage"]["estimated"]), (&json!(true), &json!(true)));
    assert_eq!((&entries[7]["operation"], &entries[7]["usage"]["input"]), (&json!("embeddings"), &json!(INPUT)));
    assert_eq!(entries[1]["model"], "unknown");
    assert_eq!(entries[1].get("route"), None, "a name that is not configured is no route");
    let mut ids: Vec<&str> = entries.iter().map(|e| e["request_id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 8);
}

/// Sends the private words in every way there is, through good and bad answers.
async fn tell_secrets(mock: &Mock, gateway: &Running) -> usize {
    let private = |mut body: Value| {
        body["messages"][0]["content"] = json!(PRIVATE);
        body
    };
    let client = gateway.client();
    client.post(CHAT, &private(chat("well"))).await.answer();
    client.stream(&private(streamed("well"))).await.rest().await;
    client.post("/v1/embeddings", &json!({ "model": "well", "input": PRIVATE })).await;
    client.post_bytes(CHAT, format!("{{\"model\":\"well\",\"messages\":\"{PRIVATE}").as_bytes()).await.fault(400, "invalid_json");
    client.send("POST", CHAT, &[("content-type", "application/json"), ("authorization", "Bearer sk-of-the-client")], private(chat("well")).to_string().as_bytes()).await.answer();
    mock.on("well", [Behaviour::error(401, "Incorrect API key provided: sk-well-secret"), Behaviour::error(500, "key sk-well-secret is over its limit"), Behaviour::Usual]);
    client.post(CHAT, &private(chat("once"))).await.fault(502, "upstream_credential");
    client.post(CHAT, &private(chat("once"))).await.fault(502, "");
    // Errors of readers quote what they cannot read: here the prompt, and there the answer.
    client.post(CHAT, &json!({ "model": "local", "messages": PRIVATE })).await.fault(400, "");
    mock.on("well", [Behaviour::json(&json!({ "choices": PRIVATE }))]);
    client.chat("once").await.fault(502, "upstream_unreadable");
    let gate = Gate::new();
    mock.on(
        "well",
        [Stream::sse()
            .send(format!("data: {}\n\n", json!({ "choices": [{ "index": 0, "delta": { "content": "x" } }] })))
            .wait(&gate)
            .send(format!("data: {}\n\n", json!({ "choices": [], "usage": PRIVATE })))
            .into()],
    );
    client.stream(&streamed("once")).await.all_past(&gate).await;
    10
}

const ONCE: &str = "providers: { local: { kind: ollama, base_url: \"{{mock}}\" } }\nmodels: { local: local/x, once: { target: well/well, retry: { attempts: 1 }, breaker: { failures: 0 } } }\n";

#[tokio::test]
async fn no_prompt_and_no_key_anywhere() {
    let (mock, gateway) = start(ONCE).await;
    let requests = tell_secrets(&mock, &gateway).await;
    let ledger = gateway.ledger(requests).await;
    let metrics = gateway.admin_client().get("/metrics").await.text();
    let status = gateway.admin_client().get("/status").await.text();
    for (place, text) in [("ledger", ledger), ("metrics", metrics), ("status", status)] {
        for secret in [PRIVATE, HELLO, "sk-well-secret", "sk-of-the-client"] {
            assert!(!text.contains(secret), "{secret} is in the {place}: {text}");
        }
    }
    assert!(mock.received().iter().all(|r| r.header("authorization") == Some("Bearer sk-well-secret")), "the client's own key stays here");
}

#[tokio::test]
async fn content_is_written_where_that_is_said() {
    let (mock, gateway) = start(&format!("{ONCE}log: {{ content: true }}\n")).await;
    let requests = tell_secrets(&mock, &gateway).await;
    let entries = gateway.entries(requests).await;
    assert!(entries[0]["request"].as_str().unwrap().contains(PRIVATE) && entries[0]["answer"].as_str().unwrap().contains(HELLO));
    // A stream as the client was given it.
    let answer = entries[1]["answer"].as_str().unwrap();
    assert!(entries[1]["request"].as_str().unwrap().contains(PRIVATE) && answer.contains("Hello ") && answer.ends_with("data: [DONE]\n\n"), "{answer}");
    let text = gateway.ledger(requests).await;
    assert!(!text.contains("sk-well-secret") && !text.contains("sk-of-the-client"), "keys are never written: {text}");
}

#[tokio::test]
async fn metrics_have_bounded_labels() {
    let (_mock, gateway) = start("models: { \"open/*\": \"well/*\" }\n").await;
    let client = gateway.client();
    for n in 0..20 {
        client.chat(&format!("open/of-the-client-{n}")).await.answer();
        client.chat(&format!("unknown-{n}")).await.fault(404, "model_not_found");
    }
    client.stream(&streamed("well")).await.rest().await;
    gateway.entries(41).await;
    let answer = gateway.admin_client().get("/metrics").await;
    assert!(answer.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    let text = answer.text();
    assert!(!text.contains("of-the-client") && !text.contains("unknown-"), "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
    let line = |part: &[&str]| text.lines().find(|l| part.iter().all(|p| l.contains(p))).unwrap_or_else(|| panic!("{part:?} is not in\n{text}")).to_owned();
    assert!(line(&["trivium_requests_total{", "route=\"open/*\"", "status=\"200\""]).ends_with(" 20"));
    assert!(line(&["trivium_requests_total{", "route=\"\"", "status=\"404\""]).ends_with(" 20"));
    assert!(line(&["gen_ai_client_tokens_total{", "route=\"well\"", "type=\"output\""]).ends_with(&format!(" {OUTPUT}")));
    line(&["trivium_in_flight 0"]);
    line(&["trivium_ledger_dropped_total 0"]);
}

#[tokio::test]
async fn the_admin_port_says_how_it_is() {
    let (_mock, gateway) = start("").await;
    for (path, text) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        let answer = gateway.admin_client().get(path).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, text));
    }
    // What is the operator's is not on the clients' port.
    for path in ["/metrics", "/status", "/readyz"] {
        gateway.client().get(path).await.fault(404, "unknown_path");
    }
}
