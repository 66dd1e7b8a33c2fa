//! What providers do not tell, or tell wrongly: it is estimated, by the same rule for whole answers and for streams, and under
//! a strict limit it costs what was reserved. Nobody is spared a cost by leaving, by waiting, or by asking in odd ways.

use std::time::Duration;

use serde_json::{Value, json};
use tests::client::{chat, request, streamed};
use tests::{Behaviour, Gate, Mock, Running, Stream};

const CHAT: &str = "/v1/chat/completions";
const BEARER: (&str, &str) = ("authorization", "Bearer key-of-alice");
const JSON: (&str, &str) = ("content-type", "application/json");

/// A gateway with alice, who has these limits.
async fn start(mock: &Mock, model: &str, limits: &str) -> Running {
    let yaml = format!(
        "models: {{ a: {{ target: well/a, {model} }} }}\nprices: {{ well/a: {{ input: 1, output: 1, max_output: 100 }} }}\nconsumers: {{ alice: {{ keys: [key-of-alice], limits: [{limits}] }} }}\nlimits: {{ write: 1s }}\ndata: \"{{{{folder}}}}\"\n"
    );
    Running::start(&yaml, mock).await
}

async fn ask(gateway: &Running, path: &str, body: &Value) -> tests::client::Response {
    gateway.client().send("POST", path, &[JSON, BEARER], body.to_string().as_bytes()).await
}

/// The first limit, as the consumer sees it.
async fn limit(gateway: &Running) -> Value {
    gateway.client().send("GET", "/v1/usage", &[BEARER], b"").await.json()["limits"][0].clone()
}

/// A completion that says this and tells this of usage.
fn whole(text: &str, usage: &Value) -> Behaviour {
    let mut body = json!({ "id": "x", "object": "chat.completion", "choices": [{ "index": 0, "message": { "role": "assistant", "content": text }, "finish_reason": "stop" }] });
    if !usage.is_null() {
        body["usage"] = usage.clone();
    }
    Behaviour::json(&body)
}

fn chunk(text: &str, finish: Option<&str>) -> String {
    format!("data: {}\n\n", json!({ "choices": [{ "index": 0, "finish_reason": finish, "delta": { "content": text } }] }))
}

#[tokio::test]
async fn an_answer_without_usage_costs_the_same_whole_and_streamed() {
    let mock = Mock::start().await;
    let gateway = start(&mock, "retry: { attempts: 1 }", "{ tokens: 1M, per: 1h }").await;
    let said = "word ".repeat(240);
    let (nought, none) = (json!({ "prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0 }), Value::Null);
    let prompt_only = json!({ "prompt_tokens": 9 });
    let mut count = 0;
    for usage in [&none, &nought, &json!({}), &json!("many"), &prompt_only] {
        mock.on("a", [whole(&said, usage)]);
        ask(&gateway, CHAT, &chat("a")).await.answer();
        let told = if usage.is_object() { format!("data: {}\n\n", json!({ "choices": [], "usage": usage })) } else { String::new() };
        mock.on("a", [Stream::sse().send(chunk(&said, None)).send(chunk("", Some("stop"))).send(format!("{told}data: [DONE]\n\n")).into()]);
        ask(&gateway, CHAT, &streamed("a")).await;
        count += 2;
        for entry in &gateway.entries(count).await[count - 2..] {
            assert_eq!((&entry["usage"]["output"], &entry["usage"]["estimated"]), (&json!(300), &json!(true)), "{usage}: {entry}");
            let prompt = entry["usage"]["input"].as_u64().unwrap();
            assert!(if *usage == prompt_only { prompt == 9 } else { prompt > 10 }, "{usage}: {entry}");
        }
    }
    // Figures as some hosts write them are figures.
    mock.on("a", [whole("x", &json!({ "prompt_tokens": 11.0, "completion_tokens": "7" }))]);
    ask(&gateway, CHAT, &chat("a")).await.answer();
    let entry = gateway.entries(count + 1).await.pop().unwrap();
    assert_eq!((&entry["usage"]["input"], &entry["usage"]["output"], &entry["usage"]["estimated"]), (&json!(11), &json!(7), &json!(false)), "{entry}");
}

#[tokio::test]
async fn calls_and_other_dialects_count_too() {
    let mock = Mock::start().await;
    let providers = "providers: { claude: { kind: anthropic, base_url: \"{{mock}}\", api_key: sk-claude-secret }, google: { kind: gemini, base_url: \"{{mock}}\", api_key: google-secret } }\n";
    let gateway = Running::start(&format!("{providers}models: {{ c: claude/c, g: google/g, r: well/r }}\n"), &mock).await;
    let long = "x".repeat(1200);
    mock.on(
        "c",
        [Behaviour::json(
            &json!({ "id": "m", "type": "message", "role": "assistant", "model": "c", "stop_reason": "tool_use", "content": [{ "type": "tool_use", "id": "t", "name": "f", "input": { "a": long } }] }),
        )],
    );
    mock.on("g", [Behaviour::json(&json!({ "candidates": [{ "finishReason": "STOP", "content": { "role": "model", "parts": [{ "functionCall": { "name": "f", "args": { "a": long } } }] } }] }))]);
    mock.on("r", [Behaviour::json(&json!({ "id": "resp_1", "object": "response", "status": "completed", "model": "r", "output": [{ "type": "function_call", "call_id": "c", "name": "f", "arguments": format!("{{\"a\":\"{long}\"}}") }] }))]);
    let client = gateway.client();
    client.post("/v1/messages", &json!({ "model": "c", "max_tokens": 10, "messages": [{ "role": "user", "content": "Hi" }] })).await;
    client.post("/v1beta/models/g:generateContent", &json!({ "contents": [{ "role": "user", "parts": [{ "text": "Hi" }] }] })).await;
    client.post("/v1/responses", &json!({ "model": "r", "input": "Hi" })).await;
    for entry in gateway.entries(3).await {
        assert!(entry["usage"]["output"].as_u64().is_some_and(|n| (300..310).contains(&n)), "{entry}");
    }
}

#[tokio::test]
async fn an_answer_in_the_background_is_refused() {
    let mock = Mock::start().await;
    let gateway = start(&mock, "retry: { attempts: 1 }", "{ tokens: 1M, per: 1h }").await;
    let body = json!({ "model": "a", "input": "Hi", "background": true });
    let message = ask(&gateway, "/v1/responses", &body).await.fault(400, "unsupported_parameter");
    assert!(message.contains("background") && mock.asked("a").is_empty(), "{message}");
}

#[tokio::test]
async fn words_that_look_like_the_end_are_words() {
    let mock = Mock::start().await;
    let gateway = start(&mock, "retry: { attempts: 1 }, breaker: { failures: 0 }", "{ tokens: 1M, per: 1h }").await;
    // Some hosts' chunks end with the text.
    let last = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"say [DONE]\"}}]}\n\n";
    mock.on("a", [Stream::sse().send(chunk("I ", None)).send(last).cut().into()]);
    let text = ask(&gateway, CHAT, &streamed("a")).await.text();
    assert!(text.contains("say [DONE]") && text.contains("\"error\"") && !text.contains("\ndata: [DONE]"), "{text}");
}

#[tokio::test]
async fn who_leaves_under_a_strict_limit_has_spent_what_was_reserved() {
    let mock = Mock::start().await;
    let gateway = start(&mock, "retry: { attempts: 1 }", "{ tokens: 100k, per: 1h, strict: true }").await;
    let mut body = streamed("a");
    body["max_tokens"] = json!(5000);
    let (gate, never) = (Gate::new(), Gate::new());
    // Hidden reasoning may stand behind a word.
    mock.on("a", [Stream::sse().send(chunk("Yes", None)).wait(&gate).send(chunk(".", None)).wait(&never).into()]);
    let mut events = gateway.client().events(CHAT, &[BEARER], &body).await;
    events.data().await.unwrap();
    let reserved = limit(&gateway).await["reserved"].as_u64().unwrap();
    gate.open();
    drop(events);
    gateway.entries(1).await;
    let after = limit(&gateway).await;
    assert!(reserved > 5000, "{reserved}");
    assert_eq!((after["used"].as_u64(), after["reserved"].as_u64()), (Some(reserved), Some(0)));
}

#[tokio::test]
async fn who_leaves_between_two_tries_owes_nothing() {
    let mock = Mock::start().await;
    let gateway = start(&mock, "retry: { attempts: 3 }, breaker: { failures: 0 }", "{ tokens: 1M, per: 1h }").await;
    mock.on("a", [Behaviour::error(503, "no").header("retry-after", "4")]);
    let mut connection = gateway.client().connect().await;
    connection.write(&request("POST", CHAT, &[JSON, BEARER], chat("a").to_string().as_bytes())).await;
    mock.until("the first try is made", |mock| mock.asked("a").len() == 1).await;
    // Long enough for the answer to be read.
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(connection);
    let entry = gateway.entries(1).await.remove(0);
    assert_eq!((&entry["client_left"], entry["tries"].as_array().map(Vec::len)), (&json!(true), Some(1)), "{entry}");
    assert_eq!(limit(&gateway).await["used"], json!(0));
}

#[tokio::test]
async fn who_does_not_read_is_given_up_and_who_reads_slowly_has_no_more_time() {
    let mock = Mock::start().await;
    let gateway = start(&mock, "retry: { attempts: 1 }, timeout: { total: 3s }", "{ tokens: 1000M, per: 1h }, { concurrent: 1 }").await;
    let flood = chunk(&"x".repeat(60_000), None);
    mock.on("a", [Stream::sse().flood(flood.clone(), 10_000).into()]);
    let mut connection = gateway.client().connect().await;
    connection.write(&request("POST", CHAT, &[JSON, BEARER], streamed("a").to_string().as_bytes())).await;
    // It never reads: after a second of that the request is over, and the place is free.
    let entry = gateway.entries(1).await.remove(0);
    assert_eq!(entry["client_left"], json!(true), "{entry}");
    let mut events = gateway.client().events(CHAT, &[BEARER], &streamed("a")).await;
    while events.data().await.is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let entry = gateway.entries(2).await.remove(1);
    assert!(entry["error"].as_str().is_some_and(|e| e.contains("not taken in time")), "{entry}");
    drop(connection);
}

#[tokio::test]
async fn what_failed_tries_have_told_is_owed() {
    let mock = Mock::start().await;
    let yaml = "providers: { claude: { kind: anthropic, base_url: \"{{mock}}\", api_key: sk-claude-secret } }
models: { a: { targets: [claude/one], fallback: [well/two], retry: { attempts: 1 }, breaker: { failures: 0 }, timeout: { first_token: 1s } } }
prices: { claude/one: { input: 1000, output: 1000 }, well/two: { input: 1, output: 1 } }
consumers: { alice: { keys: [key-of-alice], limits: [{ tokens: 100k, per: 1h }, { dollars: 10, per: 1h }] } }
data: \"{{folder}}\"
";
    let gateway = Running::start(yaml, &mock).await;
    let begins = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"role\":\"assistant\",\"model\":\"one\",\"content\":[],\"usage\":{\"input_tokens\":500,\"output_tokens\":1}}}\n\n";
    let overloaded = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"too much\"}}\n\n";
    let answer = || {
        let usage = format!("data: {}\n\n", json!({ "choices": [], "usage": { "prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25 } }));
        Stream::sse().send(chunk("Hi", None)).send(chunk("", Some("stop"))).send(format!("{usage}data: [DONE]\n\n"))
    };
    let never = Gate::new();
    let failing = [Stream::sse().send(begins).send(overloaded), Stream::sse().send(begins).cut(), Stream::sse().send(begins).wait(&never)];
    let mut count = 0;
    for stream in failing {
        mock.on("one", [stream.into()]);
        mock.on("two", [answer().into()]);
        ask(&gateway, CHAT, &streamed("a")).await;
        count += 1;
        let entry = gateway.entries(count).await.pop().unwrap();
        // 501 tokens at a thousand dollars for a million, and 25 at one.
        assert_eq!((&entry["usage"]["input"], &entry["usage"]["output"], &entry["cost"]), (&json!(520), &json!(6), &json!(0.501_025)), "{entry}");
        assert_eq!((&entry["tries"][0]["usage"]["input"], &entry["tries"][0]["cost"], &entry["tries"][1]["usage"]), (&json!(500), &json!(0.501), &Value::Null), "{entry}");
        assert_eq!(limit(&gateway).await["used"], json!(526 * count));
    }
    // Where nobody answers in the end, it is owed as well.
    mock.on("one", [Stream::sse().send(begins).send(overloaded).into()]);
    mock.on("two", [Behaviour::error(503, "no")]);
    ask(&gateway, CHAT, &streamed("a")).await;
    let entry = gateway.entries(count + 1).await.pop().unwrap();
    assert_eq!((&entry["usage"]["input"], &entry["cost"]), (&json!(500), &json!(0.501)), "{entry}");
    assert_eq!(limit(&gateway).await["used"], json!(526 * count + 501));
}

#[tokio::test]
async fn over_http2_too_who_does_not_read_is_given_up_and_the_others_go_on() {
    use http_body_util::{BodyExt as _, Full};
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let mock = Mock::start().await;
    let gateway = start(&mock, "retry: { attempts: 1 }", "{ tokens: 1000M, per: 1h }").await;
    mock.on("a", [Stream::sse().flood(chunk(&"x".repeat(60_000), None), 100).into(), Behaviour::Usual]);
    let stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
    let (mut client, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new()).initial_stream_window_size(100_000).handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let post = |body: Value| {
        let request = http::Request::post(format!("http://{}{CHAT}", gateway.address)).header(JSON.0, JSON.1).header(BEARER.0, BEARER.1);
        request.body(Full::new(bytes::Bytes::from(body.to_string()))).unwrap()
    };
    let stalled = client.send_request(post(streamed("a"))).await.unwrap();
    assert_eq!(stalled.status(), 200);
    let entry = gateway.entries(1).await.remove(0);
    assert_eq!((&entry["client_left"], &entry["usage"]["estimated"]), (&json!(true), &json!(true)), "{entry}");
    // What it has not read it may read now, and no end that is none.
    assert!(stalled.into_body().collect().await.is_err());
    let other = client.send_request(post(chat("a"))).await.unwrap();
    assert_eq!(other.status(), 200);
    assert!(other.into_body().collect().await.is_ok());
}
