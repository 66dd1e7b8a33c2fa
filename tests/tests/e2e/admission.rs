//! What a request is reckoned with before it goes out: the operator's words and defaults, pictures apart from text, what cannot
//! be counted, and the client's own bound.

use serde_json::{Value, json};
use tests::client::{chat, streamed};
use tests::dialects::{INPUT, OUTPUT};
use tests::{Behaviour, Gate, Mock, Running, Stream};

const CHAT: &str = "/v1/chat/completions";
const BEARER: (&str, &str) = ("authorization", "Bearer key-of-alice");
const JSON: (&str, &str) = ("content-type", "application/json");

/// A gateway with alice, who has these limits.
async fn start(mock: &Mock, models: &str, limits: &str) -> Running {
    let yaml = format!(
        "models: {{ {models} }}\nprices: {{ well/a: {{ input: 1, output: 1, max_output: 100 }} }}\nconsumers: {{ alice: {{ keys: [key-of-alice], files: true, limits: [{limits}] }} }}\ndata: \"{{{{folder}}}}\"\n"
    );
    Running::start(&yaml, mock).await
}

async fn ask(gateway: &Running, path: &str, body: &Value) -> tests::client::Response {
    gateway.client().send("POST", path, &[JSON, BEARER], body.to_string().as_bytes()).await
}

/// What is reserved in the first limit while a request is under way.
async fn reserved(mock: &Mock, gateway: &Running, body: &Value) -> u64 {
    let gate = Gate::new();
    mock.on("a", [Stream::sse().wait(&gate).into()]);
    let mut connection = gateway.client().connect().await;
    let before = mock.asked("a").len();
    connection.write(&tests::client::request("POST", CHAT, &[JSON, BEARER], body.to_string().as_bytes())).await;
    mock.until("the request is at the upstream", |mock| mock.asked("a").len() == before + 1).await;
    let usage = gateway.client().send("GET", "/v1/usage", &[BEARER], b"").await.json();
    gate.open();
    drop(connection);
    usage["limits"][0]["reserved"].as_u64().unwrap()
}

#[tokio::test]
async fn the_operators_words_and_defaults_are_reckoned_with() {
    let mock = Mock::start().await;
    let words = "word ".repeat(400);
    let models = format!("a: {{ target: well/a, defaults: {{ max_tokens: 7 }}, prompt: {{ prepend: [{{ role: system, content: \"{words}\" }}] }} }}");
    let gateway = start(&mock, &models, "{ tokens: 100k, per: 1h, strict: true }").await;
    let body = streamed("a");
    let held = reserved(&mock, &gateway, &body).await;
    let sent = mock.last().body.len() as u64;
    // A token for every byte of what goes out, but for what a stream and the target's name add or take, and the seven of the default.
    assert!(held >= 2000 + 7 && held.abs_diff(sent + 7) < 60, "{held} for {sent} bytes");
}

#[tokio::test]
async fn a_picture_counts_as_one_and_not_by_its_bytes() {
    let mock = Mock::start().await;
    let gateway = start(&mock, "a: well/a", "{ tokens: 20k, per: 1h }").await;
    let mut body = streamed("a");
    body["max_tokens"] = json!(10);
    let data = "iVBORw0KGgoAAAANSUhEUgAA".repeat(20_000);
    body["messages"] = json!([{ "role": "user", "content": [{ "type": "text", "text": "What is this?" }, { "type": "image_url", "image_url": { "url": format!("data:image/png;base64,{data}") } }] }]);
    let held = reserved(&mock, &gateway, &body).await;
    assert!((1_000..3_000).contains(&held), "{held}");
}

#[tokio::test]
async fn text_is_counted_as_the_target_has_counted_it_before() {
    let mock = Mock::start().await;
    let gateway = start(&mock, "a: well/a", "{ prompt_tokens: 1M, per: 1h }").await;
    let mut body = streamed("a");
    body["messages"][0]["content"] = json!("字".repeat(2000));
    let bytes = body.to_string().len() as u64;
    assert!(reserved(&mock, &gateway, &body).await.abs_diff(bytes.div_ceil(4)) < 40);
    // The provider says two tokens for each of these characters of three bytes.
    let answer = json!({ "id": "x", "object": "chat.completion", "created": 1, "model": "a", "choices": [{ "index": 0, "message": { "role": "assistant", "content": "ok" }, "finish_reason": "stop" }], "usage": { "prompt_tokens": 4000, "completion_tokens": 1, "total_tokens": 4001 } });
    mock.on("a", [Behaviour::json(&answer)]);
    let mut whole = body.clone();
    whole["stream"] = json!(false);
    ask(&gateway, CHAT, &whole).await.answer();
    let held = reserved(&mock, &gateway, &body).await;
    assert!(held.abs_diff(4000) < 60, "{held}");
}

#[tokio::test]
async fn what_cannot_be_counted_is_refused_to_who_is_held_to_a_count() {
    let mock = Mock::start().await;
    let strict = start(&mock, "a: well/a", "{ tokens: 100k, per: 1h, strict: true }").await;
    let mut body = chat("a");
    body["messages"] = json!([{ "role": "user", "content": [{ "type": "file", "file": { "file_id": "file-1" } }] }]);
    ask(&strict, CHAT, &body).await.fault(403, "unbounded_request");
    ask(&strict, "/v1/responses", &json!({ "model": "a", "input": "x", "previous_response_id": "resp_1" })).await.fault(403, "unbounded_request");
    ask(&strict, "/v1/batches", &json!({ "input_file_id": "file-1", "endpoint": CHAT, "completion_window": "24h" })).await.fault(403, "batch_not_counted");
    let counted = start(&mock, "a: well/a", "{ requests: 10, per: 1h }").await;
    mock.on("/v1/batches", [Behaviour::json(&json!({ "id": "batch_1" }))]);
    let answer = counted.client().send("POST", "/v1/batches", &[JSON, BEARER, ("x-trivium-provider", "well")], br#"{"input_file_id":"file-1"}"#).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(mock.asked("a").is_empty());
}

#[tokio::test]
async fn a_requests_own_bound_on_its_cost_is_held_and_shown_to_nobody() {
    let mock = Mock::start().await;
    let gateway = start(&mock, "a: well/a", "{ requests: 10, per: 1h }").await;
    let mut body = chat("a");
    body["max_cost"] = json!(0.000001);
    ask(&gateway, CHAT, &body).await.fault(402, "max_cost_exceeded");
    body["max_cost"] = json!(0.01);
    ask(&gateway, CHAT, &body).await.answer();
    assert_eq!(mock.last().json().get("max_cost"), None);
    // In every dialect that a client speaks.
    let messages = json!({ "model": "a", "max_tokens": 10, "max_cost": 0.01, "messages": [{ "role": "user", "content": "x" }] });
    assert_eq!(ask(&gateway, "/v1/messages", &messages).await.status, 200);
    assert_eq!(mock.last().json().get("max_cost"), None);
    for wrong in [json!("a lot"), json!(-1), json!(null)] {
        body["max_cost"] = wrong;
        ask(&gateway, CHAT, &body).await.fault(400, "");
    }
}

#[tokio::test]
async fn an_answer_without_usage_is_not_free() {
    let mock = Mock::start().await;
    let gateway = start(&mock, "a: well/a", "{ tokens: 10k, per: 1h }").await;
    mock.on("a", [Behaviour::json(&json!({ "object": "list", "data": [{ "object": "embedding", "index": 0, "embedding": [0.5] }], "model": "a" }))]);
    ask(&gateway, "/v1/embeddings", &json!({ "model": "a", "input": "some words to be embedded, and some more of them" })).await;
    mock.on("a", [Behaviour::bytes(200, "audio/mpeg", b"sound".to_vec())]);
    ask(&gateway, "/v1/audio/speech", &json!({ "model": "a", "voice": "alloy", "input": "some words to be said" })).await;
    let entries = gateway.entries(2).await;
    assert!(entries.iter().all(|e| e["usage"]["estimated"] == true && e["usage"]["input"].as_u64() > Some(10)), "{entries:?}");
    assert!(entries[1]["usage"]["output_audio"].as_u64() > Some(20), "{entries:?}");
    let usage = gateway.client().send("GET", "/v1/usage", &[BEARER], b"").await.json();
    assert!(usage["limits"][0]["used"].as_u64() > Some(50), "{usage}");
}

/// A chunk of a stream, and its usage and end.
fn piece(text: &str) -> String {
    format!("data: {}\n\n", json!({ "id": "x", "choices": [{ "index": 0, "delta": { "content": text }, "finish_reason": null }] }))
}

fn end() -> String {
    let (stop, usage) = (
        json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }] }),
        json!({ "choices": [], "usage": { "prompt_tokens": INPUT, "completion_tokens": OUTPUT, "total_tokens": INPUT + OUTPUT } }),
    );
    format!("data: {stop}\n\ndata: {usage}\n\ndata: [DONE]\n\n")
}

#[tokio::test]
async fn who_leaves_pays_for_what_was_said_and_not_for_its_frames() {
    let mock = Mock::start().await;
    let gateway = start(&mock, "a: well/a, c: claude/c }\nproviders: { claude: { kind: anthropic, base_url: \"{{mock}}/v1\", api_key: sk-claude-secret }", "{ tokens: 100k, per: 1h }").await;
    // Forty bytes of text, about ten tokens, however the provider frames them.
    let text = "word ".repeat(8);
    for (n, pieces) in [vec![text.clone()], text.split_inclusive(' ').map(str::to_owned).collect()].into_iter().enumerate() {
        mock.on("a", [Stream::sse().send(pieces.iter().map(|p| piece(p)).collect::<String>()).hang().into()]);
        let mut events = gateway.client().events(CHAT, &[BEARER], &streamed("a")).await;
        events.data().await.unwrap();
        drop(events);
        let entry = gateway.entries(n + 1).await.remove(n);
        assert_eq!((&entry["client_left"], &entry["usage"]["output"], &entry["usage"]["estimated"]), (&json!(true), &json!(10), &json!(true)), "{entry}");
    }
    // What Anthropic tells at the beginning is the prompt's, and hardly anything of the answer.
    let begun = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"c\",\"content\":[],\"usage\":{\"input_tokens\":33,\"output_tokens\":1}}}\n\n";
    let said = format!("event: content_block_delta\ndata: {}\n\n", json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": text } }));
    mock.on("c", [Stream::sse().send(format!("{begun}{said}")).hang().into()]);
    let body = json!({ "model": "c", "max_tokens": 100, "stream": true, "messages": [{ "role": "user", "content": "x" }] });
    let mut events = gateway.client().events("/v1/messages", &[BEARER], &body).await;
    events.data().await.unwrap();
    drop(events);
    let entry = gateway.entries(3).await.remove(2);
    assert_eq!((&entry["client_left"], &entry["usage"]["input"], &entry["usage"]["output"]), (&json!(true), &json!(33), &json!(11)), "{entry}");
}

#[tokio::test]
async fn an_answer_is_read_on_without_its_client_where_that_is_said() {
    let mock = Mock::start().await;
    let gateway = start(&mock, "a: { target: well/a, on_disconnect: drain }, b: well/b", "{ tokens: 100k, per: 1h }").await;
    // A stream that the client leaves in its middle.
    let gate = Gate::new();
    mock.on("a", [Stream::sse().send(piece("one ")).wait(&gate).send(piece("two ")).send(end()).into()]);
    let mut events = gateway.client().events(CHAT, &[BEARER], &streamed("a")).await;
    events.data().await.unwrap();
    drop(events);
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    gate.open();
    let entry = gateway.entries(1).await.remove(0);
    assert_eq!((&entry["client_left"], &entry["drained"], &entry["usage"]["input"], &entry["usage"]["output"]), (&json!(true), &json!(true), &json!(INPUT), &json!(OUTPUT)));
    assert_eq!(mock.left(), 0, "the upstream was not cut off");
    // A whole answer that the client does not wait for.
    let gate = Gate::new();
    let answer = json!({ "id": "x", "choices": [{ "index": 0, "message": { "role": "assistant", "content": "ok" }, "finish_reason": "stop" }], "usage": { "prompt_tokens": 50, "completion_tokens": 5, "total_tokens": 55 } });
    mock.on("a", [Stream::new("application/json").wait(&gate).send(answer.to_string()).into()]);
    let mut connection = gateway.client().connect().await;
    connection.write(&tests::client::request("POST", CHAT, &[JSON, BEARER], chat("a").to_string().as_bytes())).await;
    mock.until("the request is at the upstream", |m| m.asked("a").len() == 2).await;
    drop(connection);
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    gate.open();
    let entry = gateway.entries(2).await.remove(1);
    assert_eq!((&entry["client_left"], &entry["drained"], &entry["usage"]["input"]), (&json!(true), &json!(true), &json!(50)));
    let usage = gateway.client().send("GET", "/v1/usage", &[BEARER], b"").await.json();
    assert_eq!((&usage["limits"][0]["used"], &usage["limits"][0]["reserved"]), (&json!(INPUT + OUTPUT + 55), &json!(0)));
    // Another model of the same gateway is cut off as ever.
    mock.on("b", [Behaviour::Hang]);
    let mut connection = gateway.client().connect().await;
    connection.write(&tests::client::request("POST", CHAT, &[JSON, BEARER], chat("b").to_string().as_bytes())).await;
    mock.until("the request is at the upstream", |m| m.asked("b").len() == 1).await;
    drop(connection);
    mock.until("the gateway closes the request", |m| m.left() == 1).await;
    let entry = gateway.entries(3).await.remove(2);
    assert_eq!((&entry["client_left"], &entry["drained"]), (&json!(true), &Value::Null));
}
