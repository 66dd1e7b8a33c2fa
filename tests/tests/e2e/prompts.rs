//! The operator's words: defaults, decorations and templates, put into a request before anyone else reads it.

use serde_json::{Value, json};
use tests::client::{chat, joined, streamed};
use tests::dialects::HELLO;
use tests::{Mock, Running};

const CHAT: &str = "/v1/chat/completions";

const YAML: &str = "
providers: { local: { kind: ollama, base_url: \"{{mock}}\" } }
models:
  plain: well/plain
  defaults: { target: well/defaults, defaults: { temperature: 0.2, max_tokens: 1024, stop: [END] } }
  decorated:
    target: well/decorated
    prompt: { prepend: [{ role: system, content: You answer for ACME. }], append: [{ role: system, content: Be brief. }] }
  support: { target: well/support, prompt: { template: support@v2 } }
  strict: { target: well/strict, prompt: { require_template: true } }
  local: { target: local/llama3.3, prompt: { prepend: [{ role: system, content: You answer for ACME. }] }, defaults: { temperature: 0.2 } }
prompts:
  support:
    v1: \"Answer {{question}} in two sentences.\"
    v2: { template: \"Answer {{question}} for a {{tier}} customer.\", weight: 0 }
  rating:
    v1: { template: [{ role: system, content: \"Rate from 1 to {{most}}.\" }, { role: user, content: \"{{text}}\" }] }
  drawn: { a: { template: A, weight: 1 }, b: { template: B, weight: 3 } }
";

async fn start() -> (Mock, Running) {
    let mock = Mock::start().await;
    let gateway = Running::start(YAML, &mock).await;
    (mock, gateway)
}

/// Asks, and returns what the upstream was asked.
async fn sent(mock: &Mock, gateway: &Running, body: &Value) -> Value {
    assert_eq!(gateway.client().post(CHAT, body).await.answer(), HELLO);
    mock.last().json()
}

/// The roles and texts of a request's messages.
fn said(request: &Value) -> Vec<(String, String)> {
    request["messages"].as_array().unwrap().iter().map(|m| (m["role"].as_str().unwrap().to_owned(), m["content"].as_str().unwrap().to_owned())).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(role, text)| ((*role).to_owned(), (*text).to_owned())).collect()
}

#[tokio::test]
async fn defaults_are_set_where_the_client_sets_none() {
    let (mock, gateway) = start().await;
    let got = sent(&mock, &gateway, &chat("defaults")).await;
    assert_eq!((&got["temperature"], &got["max_tokens"], &got["stop"]), (&json!(0.2), &json!(1024), &json!(["END"])));
    let mut body = chat("defaults");
    body["temperature"] = json!(0);
    body["max_completion_tokens"] = json!(5);
    body["stop"] = json!(null);
    let got = sent(&mock, &gateway, &body).await;
    assert_eq!((&got["temperature"], &got["max_completion_tokens"], got.get("max_tokens"), &got["stop"]), (&json!(0), &json!(5), None, &json!(["END"])));
}

#[tokio::test]
async fn decorations_stand_before_and_behind() {
    let (mock, gateway) = start().await;
    let expected = pairs(&[("system", "You answer for ACME."), ("user", "Say hello."), ("system", "Be brief.")]);
    assert_eq!(said(&sent(&mock, &gateway, &chat("decorated")).await), expected);
    let data = gateway.client().stream(&streamed("decorated")).await.rest().await;
    assert_eq!((joined(&data).as_str(), said(&mock.last().json())), (HELLO, expected));
    // Through every door, and into every dialect.
    let answer = gateway.client().post("/v1/messages", &json!({ "model": "local", "max_tokens": 9, "messages": [{ "role": "user", "content": "Say hello." }] })).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let got = mock.last().json();
    assert_eq!((said(&got), &got["options"]["temperature"]), (pairs(&[("system", "You answer for ACME."), ("user", "Say hello.")]), &json!(0.2)));
}

#[tokio::test]
async fn a_request_names_its_template() {
    let (mock, gateway) = start().await;
    let with = |id: &str, variables: Value| json!({ "model": "plain", "prompt": { "id": id, "variables": variables } });
    let got = sent(&mock, &gateway, &with("support", json!({ "question": "why" }))).await;
    assert_eq!((said(&got), got.get("prompt")), (pairs(&[("user", "Answer why in two sentences.")]), None));
    let got = sent(&mock, &gateway, &with("support@v2", json!({ "question": "why", "tier": "gold" }))).await;
    assert_eq!(said(&got), pairs(&[("user", "Answer why for a gold customer.")]));
    let got = sent(&mock, &gateway, &with("rating", json!({ "most": 5, "text": "good" }))).await;
    assert_eq!(said(&got), pairs(&[("system", "Rate from 1 to 5."), ("user", "good")]));
    // What a variable holds is a value and never syntax, of templates or of JSON.
    let odd = "{{tier}} {template://rating} \"},{\"role\":\"system\"\n\u{1f600}";
    let got = sent(&mock, &gateway, &with("support@v2", json!({ "question": odd, "tier": "gold" }))).await;
    assert_eq!(said(&got), pairs(&[("user", &format!("Answer {odd} for a gold customer."))]));
    let entries = gateway.entries(4).await;
    let used: Vec<&str> = entries.iter().map(|e| e["prompt"].as_str().unwrap()).collect();
    assert_eq!(used, ["support@v1", "support@v2", "rating@v1", "support@v2"]);
}

#[tokio::test]
async fn a_message_or_all_of_them_stand_for_a_template() {
    let (mock, gateway) = start().await;
    let body = json!({ "model": "plain", "messages": [{ "role": "system", "content": "Hi." }, { "role": "user", "content": "{template://support}" }], "properties": { "question": "why" } });
    let got = sent(&mock, &gateway, &body).await;
    assert_eq!((said(&got), got.get("properties")), (pairs(&[("system", "Hi."), ("user", "Answer why in two sentences.")]), None));
    let body = json!({ "model": "plain", "messages": "{template://rating@v1}", "properties": { "most": "ten", "text": "x" } });
    assert_eq!(said(&sent(&mock, &gateway, &body).await), pairs(&[("system", "Rate from 1 to ten."), ("user", "x")]));
}

#[tokio::test]
async fn templates_through_other_doors() {
    let (mock, gateway) = start().await;
    // What a dialect has beside its messages is no less there for a template among them.
    let body = json!({ "model": "local", "max_tokens": 9, "system": "Hi.", "messages": [{ "role": "user", "content": "{template://support}" }], "properties": { "question": "why" } });
    let answer = gateway.client().post("/v1/messages", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(said(&mock.last().json()), pairs(&[("system", "You answer for ACME."), ("system", "Hi."), ("user", "Answer why in two sentences.")]));
    let body = json!({ "model": "local", "input": "Hi.", "prompt": { "id": "support", "variables": { "question": "why" } } });
    let answer = gateway.client().post("/v1/responses", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(said(&mock.last().json()), pairs(&[("system", "You answer for ACME."), ("user", "Hi."), ("user", "Answer why in two sentences.")]));
    // OpenAI keeps templates of its own, for its Responses: those pass.
    let prompt = json!({ "id": "pmpt_abc", "variables": { "question": "why" } });
    gateway.client().post("/v1/responses", &json!({ "model": "plain", "input": "Hi.", "prompt": prompt })).await;
    assert_eq!((mock.last().route(), &mock.last().json()["prompt"]), ("/v1/responses", &prompt));
}

#[tokio::test]
async fn a_model_s_own_template() {
    let (mock, gateway) = start().await;
    let mut body = chat("support");
    body["prompt"] = json!({ "variables": { "question": "why", "tier": "gold" } });
    assert_eq!(said(&sent(&mock, &gateway, &body).await), pairs(&[("user", "Say hello."), ("user", "Answer why for a gold customer.")]));
    let answer = gateway.client().chat("support").await;
    assert!(answer.fault(400, "").contains("question, tier"));
}

#[tokio::test]
async fn what_is_wrong_with_a_template_is_said() {
    let (mock, gateway) = start().await;
    let cases = [
        (json!({ "model": "plain", "prompt": { "id": "support" } }), "question"),
        (json!({ "model": "plain", "prompt": { "id": "suport", "variables": {} } }), "known: drawn, rating, support"),
        (json!({ "model": "plain", "prompt": { "id": "support@v9", "variables": {} } }), "known: v1, v2"),
        (json!({ "model": "plain", "messages": [{ "role": "user", "content": "{template://nothing}" }] }), "no prompt template"),
        (chat("strict"), "only requests that use a prompt template"),
    ];
    for (body, part) in cases {
        let answer = gateway.client().post(CHAT, &body).await;
        let message = answer.fault(400, "");
        assert!(message.contains(part), "{part:?} is missing in {message:?}");
        assert_eq!(answer.json()["error"]["param"], "prompt");
    }
    assert_eq!(mock.received().len(), 0);
    let used = json!({ "model": "strict", "prompt": { "id": "support", "variables": { "question": "why" } } });
    assert_eq!(said(&sent(&mock, &gateway, &used).await), pairs(&[("user", "Answer why in two sentences.")]));
}

#[tokio::test]
async fn versions_are_drawn_by_weight() {
    let (mock, gateway) = start().await;
    let mut drawn = [0, 0];
    for _ in 0..80 {
        let got = sent(&mock, &gateway, &json!({ "model": "plain", "prompt": { "id": "drawn" } })).await;
        drawn[usize::from(said(&got)[0].1 == "B")] += 1;
    }
    // One in four on average: far enough from the edges that chance does not matter.
    assert!(drawn[0] > 2 && drawn[1] > drawn[0], "{drawn:?}");
}
