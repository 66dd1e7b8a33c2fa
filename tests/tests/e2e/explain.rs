//! `explain` says what would be sent: held against what is really sent, door by door.

use bytes::Bytes;
use gateway::explain::{Question, explain};
use serde_json::{Value, json};
use tests::client::chat;
use tests::{Mock, Running};

const YAML: &str = "
providers:
  open: { kind: openai, base_url: \"{{mock}}/v1\", api_key: sk-open-secret }
  claude: { kind: anthropic, base_url: \"{{mock}}\", api_key: anthropic-secret }
  google: { kind: gemini, base_url: \"{{mock}}/v1beta\", api_key: gemini-secret }
  local: { kind: ollama, base_url: \"{{mock}}\" }
  cohere: { kind: cohere, base_url: \"{{mock}}\", api_key: cohere-secret }
  demo: { kind: echo }
models:
  \"open/*\": \"open/*\"
  \"claude/*\": \"claude/*\"
  \"google/*\": \"google/*\"
  \"local/*\": \"local/*\"
  \"cohere/*\": \"cohere/*\"
  \"demo/*\": \"demo/*\"
  support:
    target: local/llama3.3
    prompt: { template: support, prepend: [{ role: system, content: You answer for ACME. }], append: [{ role: system, content: Be brief. }] }
    defaults: { temperature: 0.2, max_tokens: 100 }
  weighted: { balance: weighted, targets: [{ model: open/a, weight: 80 }, { model: open/b, weight: 20 }], fallback: [local/llama3.3] }
  cheap: { balance: lowest_cost, targets: [open/dear, open/fair] }
  priced: { target: open/fair, prompt: { prepend: [{ role: system, content: You answer for ACME. }] } }
  user: { balance: consistent_hash, targets: [open/a, open/b, open/c] }
  mixed: { balance: priority, targets: [{ model: cohere/command-r, priority: 1 }, { model: open/gpt-4o, priority: 2 }] }
  picky: { target: cohere/command-r }
  vectors: { target: open/text-embedding-3-small, kind: embedding }
prompts: { support: { v1: \"Answer {{question}} in two sentences.\" } }
prices: { open/dear: { input: 2.0, output: 2.0 }, open/fair: { input: 1.0, output: 4.0, max_output: 500 } }
auth: { anonymous: true }
consumers:
  alice: { keys: [key-of-alice], groups: [research] }
  bob: { keys: [key-of-bob-1], models: [vectors], limits: [{ concurrent: 3 }] }
groups: { research: { limits: [{ dollars: 25, per: 1d }, { requests: 60, per: 1m, models: [cheap], strict: true }] } }
data: \"{{folder}}\"
";

async fn start() -> (Mock, Running) {
    let mock = Mock::start().await;
    let gateway = Running::start(YAML, &mock).await;
    (mock, gateway)
}

fn question(path: &str, body: &Value) -> Question {
    Question { path: path.to_owned(), headers: Default::default(), consumer: None, body: Bytes::from(body.to_string()) }
}

fn ask(gateway: &Running, question: &Question) -> Result<Value, Value> {
    explain(&gateway.state.rules().unwrap(), question)
}

#[tokio::test]
async fn what_is_explained_is_what_is_sent() {
    let (mock, gateway) = start().await;
    let hello = json!([{ "role": "user", "content": "Hello" }]);
    let messages = |model: &str| json!({ "model": model, "max_tokens": 9, "system": "Be brief.", "messages": hello });
    let generate = json!({ "contents": [{ "role": "user", "parts": [{ "text": "Hello" }] }], "generationConfig": { "maxOutputTokens": 9 } });
    let mut cases = Vec::new();
    for provider in ["open", "claude", "google", "local", "cohere"] {
        let model = format!("{provider}/some-model");
        cases.push(("/v1/chat/completions".to_owned(), json!({ "model": model, "temperature": 0.5, "messages": hello }), ""));
        cases.push(("/v1/completions".to_owned(), json!({ "model": model, "prompt": "Hello" }), ""));
        cases.push(("/v1/responses".to_owned(), json!({ "model": model, "input": "Hello", "max_output_tokens": 20 }), ""));
        cases.push(("/v1/messages".to_owned(), messages(&model), ""));
        cases.push((format!("/v1beta/models/{model}:generateContent"), generate.clone(), ""));
        cases.push((format!("/v1beta/models/{model}:streamGenerateContent"), generate.clone(), "?alt=sse"));
    }
    for provider in ["open", "google", "local", "cohere"] {
        cases.push(("/v1/embeddings".to_owned(), json!({ "model": format!("{provider}/some-model"), "input": ["a", "b"] }), ""));
        cases.push((format!("/v1beta/models/{provider}/some-model:embedContent"), json!({ "content": { "parts": [{ "text": "a" }] } }), ""));
    }
    cases.push(("/v1/messages/count_tokens".to_owned(), json!({ "model": "claude/some-model", "messages": hello }), ""));
    cases.push(("/v1beta/models/google/some-model:countTokens".to_owned(), json!({ "contents": [{ "role": "user", "parts": [{ "text": "a" }] }] }), ""));
    for provider in ["open", "cohere"] {
        cases.push(("/v1/rerank".to_owned(), json!({ "model": format!("{provider}/some-model"), "query": "q", "documents": ["a", "b"] }), ""));
    }
    cases.push(("/v1/moderations".to_owned(), json!({ "model": "open/some-model", "input": "Hello" }), ""));
    cases.push(("/v1/images/generations".to_owned(), json!({ "model": "open/some-model", "prompt": "a cat" }), ""));
    cases.push(("/v1/audio/speech".to_owned(), json!({ "model": "open/some-model", "input": "Hello", "voice": "alloy" }), ""));
    cases.push(("/v1/chat/completions".to_owned(), json!({ "model": "support", "messages": hello, "prompt": { "variables": { "question": "why" } } }), ""));
    cases.push(("/v1/messages".to_owned(), json!({ "model": "support", "max_tokens": 9, "messages": hello, "prompt": { "variables": { "question": "why" } } }), ""));
    cases.push(("/v1/chat/completions".to_owned(), json!({ "model": "open/some-model", "messages": "{template://support@v1}", "properties": { "question": "why" } }), ""));
    for (path, body, query) in cases {
        let path = format!("{path}{query}");
        let before = mock.received().len();
        let explained = ask(&gateway, &question(&path, &body)).unwrap_or_else(|e| panic!("{path} {body}: {e}"));
        let target = &explained["targets"][0];
        let call = if target["calls"].is_array() { &target["calls"][0] } else { &target["call"] };
        gateway.client().post(&path, &body).await;
        let received = mock.received().get(before).cloned().unwrap_or_else(|| panic!("{path} {body}: nothing was sent, and explained was {explained}"));
        assert_eq!(call["url"], format!("{}{}", mock.url(), received.path), "{path} {body}");
        assert_eq!(call["body"], received.json(), "{path} {body}");
    }
}

#[tokio::test]
async fn the_plan_and_its_reason() {
    let (_mock, gateway) = start().await;
    let explained = ask(&gateway, &question("/v1/chat/completions", &chat("weighted"))).unwrap();
    assert_eq!(explained["plan"]["fallback"], json!(["local/llama3.3"]));
    assert!(explained["plan"]["why"].as_str().unwrap().contains("open/a has weight 80, open/b has weight 20"), "{explained}");
    assert_eq!(explained["targets"].as_array().unwrap().len(), 3);

    let explained = ask(&gateway, &question("/v1/chat/completions", &chat("cheap"))).unwrap();
    assert_eq!(explained["plan"]["order"], json!(["open/dear", "open/fair"]), "0.004 for the one, 0.005 for the other");
    assert!(explained["plan"]["why"].as_str().unwrap().contains("open/dear costs $0.004, open/fair costs $0.005"), "{explained}");
    // Four bytes to a token, and the longest answer by the request or by the model.
    let fair = &explained["targets"][1]["estimate"];
    assert_eq!((&fair["answer_tokens_at_most"], fair["rests_on"].as_str().unwrap().contains("longest answer that the model gives")), (&json!(500), true), "{fair}");
    let mut bounded = chat("cheap");
    (bounded["max_tokens"], bounded["n"]) = (json!(10), json!(3));
    let explained = ask(&gateway, &question("/v1/chat/completions", &bounded)).unwrap();
    let (bytes, fair) = (bounded.to_string().len() as u64, &explained["targets"][1]["estimate"]);
    let expected = json!([bytes.div_ceil(4), bytes, 30, providers::prices::Nanodollars(bytes * 1000 + 30 * 4000).to_string()]);
    assert_eq!(json!([fair["prompt_tokens"], fair["prompt_tokens_at_most"], fair["answer_tokens_at_most"], fair["dollars_at_most"]]), expected, "{fair}");
    // What admission reckons with is what is said here.
    for (path, body) in [
        ("/v1/chat/completions", json!({ "model": "priced", "messages": [{ "role": "user", "content": "Hello" }] })),
        ("/v1/messages", json!({ "model": "priced", "max_tokens": 7, "messages": [{ "role": "user", "content": "Hello" }] })),
    ] {
        let explained = ask(&gateway, &question(path, &body)).unwrap();
        let answer = gateway.client().post(path, &body).await;
        assert_eq!(explained["targets"][0]["estimate"]["dollars_at_most"].as_str(), answer.header("x-trivium-cost-estimate"), "{path}: {explained}");
    }

    // A hash leads where the road leads.
    for user in ["a", "b", "c", "d"] {
        let mut body = chat("user");
        body["user"] = json!(user);
        let explained = ask(&gateway, &question("/v1/chat/completions", &body)).unwrap();
        let answer = gateway.client().post("/v1/chat/completions", &body).await;
        assert_eq!(explained["plan"]["order"][0], format!("open/{}", answer.header("x-trivium-model").unwrap()), "{user}");
    }
    let explained = ask(&gateway, &question("/v1/chat/completions", &chat("demo/x"))).unwrap();
    assert_eq!((&explained["wildcard"], &explained["targets"][0]["answers"]), (&json!("x"), &json!("by itself, offline")));
    let explained = ask(&gateway, &question("/v1/chat/completions", &json!({ "model": "support", "messages": [], "prompt": { "variables": { "question": "why" } } }))).unwrap();
    assert_eq!((&explained["template"], &explained["rewritten"]["temperature"]), (&json!("support@v1"), &json!(0.2)));
}

#[tokio::test]
async fn who_asks_and_what_would_hold() {
    let (_mock, gateway) = start().await;
    let by = |consumer: &str, model: &str| Question { consumer: Some(consumer.into()), ..question("/v1/chat/completions", &chat(model)) };
    let explained = ask(&gateway, &by("alice", "cheap")).unwrap();
    assert_eq!(explained["consumer"]["groups"], json!(["research"]));
    let limits = json!(["25 dollars per 1d, of each member of group research", "60 requests per 1m for cheap, of each member of group research (strict)"]);
    assert_eq!((&explained["consumer"]["limits"], &explained["consumer"]["note"]), (&limits, &Value::Null));
    // Other models are not counted by it, and a price that is not known is said.
    let explained = ask(&gateway, &by("alice", "weighted")).unwrap();
    assert_eq!(explained["consumer"]["limits"], json!(["25 dollars per 1d, of each member of group research"]));
    assert!(explained["consumer"]["note"].as_str().unwrap().contains("unknown_price"), "{explained}");
    let refused = ask(&gateway, &by("bob", "cheap")).unwrap_err();
    assert_eq!((&refused["error"]["status"], &refused["error"]["code"]), (&json!(403), &json!("model_not_allowed")));
    let refused = ask(&gateway, &by("carol", "cheap")).unwrap_err();
    assert!(refused["error"]["message"].as_str().unwrap().contains("known: alice, bob"), "{refused}");
}

#[tokio::test]
async fn what_the_client_would_be_told() {
    let (mock, gateway) = start().await;
    let mut two = chat("picky");
    two["n"] = json!(2);
    let cases = [
        ("/v1/chat/completions", chat("suport")),
        ("/v1/chat/completions", json!({ "messages": [] })),
        ("/v1/chat/completions", chat("vectors")),
        ("/v1/chat/completions", json!({ "model": "local/x", "messages": [{ "role": "user", "content": 7 }] })),
        ("/v1/chat/completions", chat("support")),
        ("/v1/chat/completions", two.clone()),
        ("/v1/messages", json!({ "model": "local/x", "max_tokens": 9, "messages": [] })),
        ("/v1/messages", json!({ "model": 7 })),
        ("/v1beta/models/nothing:generateContent", json!({ "contents": [] })),
        ("/v1/moderations", json!({ "model": "local/x", "input": "Hello" })),
    ];
    for (path, body) in cases {
        let explained = ask(&gateway, &question(path, &body)).expect_err(&format!("{path} {body}"));
        let answer = gateway.client().post(path, &body).await;
        assert_eq!((&explained["error"]["status"], &explained["error"]["body"]), (&json!(answer.status), &answer.json()), "{path} {body}");
        let told = &explained["error"]["message"];
        assert!(answer.text().contains(told.as_str().unwrap().split('"').next().unwrap()), "{told}: {}", answer.text());
    }
    assert_eq!(mock.received().len(), 0);
    // The body as it is, not as JSON may be guessed from it.
    let twice = Question { body: Bytes::from_static(b"{\"model\":\"a\",\"model\":\"b\"}"), ..question("/v1/chat/completions", &json!({})) };
    assert_eq!(ask(&gateway, &twice).unwrap_err()["error"]["code"], "invalid_json");
    // A target that cannot do it gives way to one that can.
    two["model"] = json!("mixed");
    let explained = ask(&gateway, &question("/v1/chat/completions", &two)).unwrap();
    assert_eq!((&explained["targets"][0]["refused"]["code"], &explained["targets"][1]["call"]["body"]["n"]), (&json!("unsupported_parameter"), &json!(2)), "{explained}");
    for path in ["/v1/models", "/v1/files", "/nowhere"] {
        assert_eq!(ask(&gateway, &question(path, &json!({}))).unwrap_err()["error"]["code"], "unknown_path", "{path}");
    }
    assert!(ask(&gateway, &question("/v1/images/edits", &json!({}))).unwrap_err()["error"]["message"].as_str().unwrap().contains("forms"));
}
