//! What would lead around the operator: fields by which a host takes another model than was asked for, headers that pick whose
//! budget is spent.

use serde_json::{Value, json};
use tests::client::chat;
use tests::{Mock, Running};

const CHAT: &str = "/v1/chat/completions";
const JSON: (&str, &str) = ("content-type", "application/json");

const HOSTS: &str = "
providers:
  router: { kind: openrouter, base_url: \"{{mock}}/v1\", api_key: sk-router-secret }
  groq: { kind: groq, base_url: \"{{mock}}/openai/v1\", api_key: sk-groq-secret }
  together: { kind: together, base_url: \"{{mock}}/v1\", api_key: sk-together-secret }
  llama: { kind: llama_cpp, base_url: \"{{mock}}/v1\" }
  claude: { kind: anthropic, base_url: \"{{mock}}/v1\", api_key: sk-claude-secret }
models:
  router: router/m
  groq: groq/m
  together: together/m
  llama: llama/m
  claude: claude/claude-haiku-4-5
  searching: { target: router/m, defaults: { plugins: [{ id: web }] } }
";

#[tokio::test]
async fn a_body_names_one_model_and_no_other() {
    let mock = Mock::start().await;
    let gateway = Running::start(HOSTS, &mock).await;
    for (model, field, value) in [
        ("router", "models", json!(["anthropic/claude-opus-4"])),
        ("router", "route", json!("fallback")),
        ("router", "plugins", json!([{ "id": "web" }])),
        ("router", "preset", json!("dear")),
        ("router", "tools", json!([{ "type": "openrouter:advisor", "parameters": { "model": "anthropic/claude-opus-4" } }])),
        ("router", "tools", json!([{ "type": "openrouter:web_search" }])),
        ("groq", "compound_custom", json!({ "models": { "answering_model": "other" } })),
        ("together", "safety_model", json!("meta-llama/Llama-Guard-4-12B")),
        ("llama", "lora", json!([{ "id": 0, "scale": 1.0 }])),
        ("well", "models", json!(["other"])),
        ("well", "fallbacks", json!(["other"])),
        ("well", "lora_path", json!("other")),
        ("well", "providerOptions", json!({ "gateway": { "models": ["other"] } })),
        ("well", "MODEL", json!("other")),
        ("well", "tools", json!([{ "type": "image_generation", "model": "other" }])),
    ] {
        let mut body = chat(model);
        body[field] = value;
        let refused = gateway.client().post(CHAT, &body).await;
        let message = refused.fault(400, "unsupported_parameter");
        assert!(message.contains(&format!("`{field}`")), "{message}");
        assert_eq!(refused.json()["error"]["param"], json!(field));
        if matches!(field, "models" | "route" | "fallbacks") {
            assert!(message.contains("`fallback`"), "{message}");
        }
    }
    for (field, value) in [("fallbacks", json!([{ "model": "claude-opus-4-5" }])), ("tools", json!([{ "type": "advisor_20260301", "name": "advisor", "model": "claude-opus-4-5" }]))] {
        let mut body = json!({ "model": "claude", "max_tokens": 10, "messages": [{ "role": "user", "content": "x" }] });
        body[field] = value;
        let refused = gateway.client().post("/v1/messages", &body).await;
        assert!(refused.status == 400 && refused.text().contains(&format!("`{field}`")), "{}", refused.text());
    }
    assert_eq!(mock.received().len(), 0);
    // The same for the other doors and paths that pass.
    assert_eq!(gateway.client().post("/v1/completions", &json!({ "model": "router", "prompt": "x", "models": ["other"] })).await.status, 400);
    assert_eq!(gateway.client().post("/v1/embeddings", &json!({ "model": "router", "input": "x", "models": ["other"] })).await.status, 400);
    assert_eq!(mock.received().len(), 0);
}

#[tokio::test]
async fn what_names_nothing_passes_and_the_operator_s_own_words_too() {
    let mock = Mock::start().await;
    let gateway = Running::start(HOSTS, &mock).await;
    let mut body = chat("router");
    body["models"] = Value::Null;
    body["plugins"] = json!([]);
    body["tools"] = json!([{ "type": "function", "function": { "name": "route", "description": "openrouter:advisor \u{e9}", "parameters": { "type": "object" } } }]);
    assert_eq!(gateway.client().post(CHAT, &body).await.status, 200);
    gateway.client().chat("searching").await.answer();
    assert_eq!(mock.last().json()["plugins"], json!([{ "id": "web" }]));
    let mut own = chat("searching");
    own["plugins"] = json!([{ "id": "other" }]);
    gateway.client().post(CHAT, &own).await.fault(400, "unsupported_parameter");
}

#[tokio::test]
async fn the_operator_s_headers_stand_and_the_client_picks_nobody_s_budget() {
    let mock = Mock::start().await;
    let yaml = "
providers:
  own: { kind: openai, base_url: \"{{mock}}/v1\", api_key: sk-own-secret, headers: { OpenAI-Project: proj_operator, OpenAI-Organization: org_operator, OpenAI-Beta: operators, User-Agent: operator/1 } }
  vertex: { kind: vertex, base_url: \"{{mock}}\", api_key: sk-vertex-secret }
  azure: { kind: azure, base_url: \"{{mock}}\", api_key: sk-azure-secret }
models: { own: own/m, gemini: vertex/gemini-2.5-flash, azure: azure/m }
";
    let gateway = Running::start(yaml, &mock).await;
    let headers = [
        JSON,
        ("openai-project", "proj_client"),
        ("openai-organization", "org_client"),
        ("openai-beta", "clients"),
        ("x-ms-oai-image-generation-deployment", "dear"),
        ("x-vertex-ai-llm-request-type", "shared"),
        ("x-vertex-ai-llm-shared-request-type", "priority"),
    ];
    gateway.client().send("POST", CHAT, &headers, chat("own").to_string().as_bytes()).await.answer();
    let seen = |names: [&str; 4]| names.map(|name| mock.last().header(name).map(str::to_owned));
    let operators = ["proj_operator", "org_operator", "operators", "operator/1"].map(|v| Some(v.to_owned()));
    assert_eq!(seen(["openai-project", "openai-organization", "openai-beta", "user-agent"]), operators);
    gateway.client().send("GET", "/v1/files", &[&headers[..], &[("x-trivium-provider", "own")]].concat(), b"").await;
    assert_eq!(seen(["openai-project", "openai-organization", "openai-beta", "user-agent"]), operators);
    for model in ["well", "gemini", "azure"] {
        gateway.client().send("POST", CHAT, &headers, chat(model).to_string().as_bytes()).await.answer();
        for name in headers.map(|(name, _)| name).iter().filter(|name| !matches!(**name, "content-type" | "openai-beta")) {
            assert_eq!(mock.last().header(name), None, "{model}: {name}");
        }
    }
}
