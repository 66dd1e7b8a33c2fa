//! Bad input from either side: each kind gets a clear error, and the gateway serves on as if nothing had been.

use std::time::Duration;

use serde_json::{Value, json};
use tests::client::{chat, request, streamed};
use tests::{Behaviour, Gate, Mock, Running, Stream};

const CHAT: &str = "/v1/chat/completions";

async fn start(yaml: &str) -> (Mock, Running) {
    let mock = Mock::start().await;
    let gateway = Running::start(yaml, &mock).await;
    (mock, gateway)
}

#[tokio::test]
async fn bodies_that_are_no_good_json() {
    let (mock, gateway) = start("").await;
    let deep = format!(r#"{{"model":"well","messages":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    let deep_objects = format!(r#"{{"model":"well","x":{}1{}}}"#, r#"{"a":"#.repeat(10_000), "}".repeat(10_000));
    let cases: &[(&[u8], &str)] = &[
        (b"", "empty"),
        (b"hello", "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (br#"{"model":"well","messages":["#, "ends in the middle"),
        (br#"{"model":"well""#, "ends in the middle"),
        (br#"{"model":"well"} x"#, "not valid JSON"),
        (br#"{"model":"well","model":"other","messages":[]}"#, "`model` occurs twice"),
        (br#"{"model":"well","messages":[{"role":"user","role":"system","content":"x"}]}"#, "`role` occurs twice"),
        (b"{\"model\":\"well\",\"mod\\u0065l\":\"other\"}", "written as they are"),
        (br#"{"model":"well","messages":[],"\u006e":100}"#, "written as they are"),
        (br#"{"model":"well","messages":[],"strea\u006d":true}"#, "written as they are"),
        (br#"{"model":"well","temperature":NaN}"#, "not valid JSON"),
        (br#"{"model":"well","temperature":Infinity}"#, "not valid JSON"),
        (br#"{"model":"well","temperature":01}"#, "not valid JSON"),
        (br#"{"model":"well","messages":[{"role":"user","content":"\ud800"}]}"#, "lone surrogate"),
        (br#"{"model":"well","messages":[{"role":"user","content":"\udc00\ud800"}]}"#, "lone surrogate"),
        (b"{\"model\":\"well\",\"messages\":[{\"role\":\"user\",\"content\":\"\xff\xfe\"}]}", "not valid UTF-8"),
        (b"{\"model\":\"well\",\"messages\":[{\"role\":\"user\",\"content\":\"a\nb\"}]}", "not valid JSON"),
        (b"\xef\xbb\xbf{\"model\":\"well\"}", "not valid JSON"),
        (deep.as_bytes(), "nested deeper"),
        (deep_objects.as_bytes(), "nested deeper"),
    ];
    for (body, part) in cases {
        let answer = gateway.client().post_bytes(CHAT, body).await;
        let message = answer.fault(400, "invalid_json");
        assert!(message.contains(part), "{part:?} is missing in {message:?}");
    }
    assert_eq!(mock.received().len(), 0, "nothing of this reaches an upstream");
    gateway.serves().await;
}

#[tokio::test]
async fn errors_have_the_shape_of_the_door() {
    let (_mock, gateway) = start("").await;
    let anthropic = gateway.client().post_bytes("/v1/messages", b"nonsense").await;
    assert_eq!((anthropic.status, anthropic.json()["type"].as_str()), (400, Some("error")));
    assert_eq!(anthropic.json()["error"]["type"], "invalid_request_error");
    let gemini = gateway.client().post_bytes("/v1beta/models/well:generateContent", b"nonsense").await;
    assert_eq!((gemini.status, gemini.json()["error"]["status"].as_str()), (400, Some("INVALID_ARGUMENT")));
    gateway.serves().await;
}

#[tokio::test]
async fn fields_of_the_wrong_type_are_named() {
    let (_mock, gateway) = start("providers: { local: { kind: ollama, base_url: \"{{mock}}\" } }\nmodels: { local: local/llama3.3 }\n").await;
    let cases: &[(Value, &str)] = &[
        (json!({ "model": 7, "messages": [] }), "model"),
        (json!({ "model": null, "messages": [] }), "model"),
        (json!({ "model": ["well"], "messages": [] }), "model"),
        (json!({ "model": "local", "stream": "yes", "messages": [] }), "stream"),
        (json!({ "model": "local", "messages": "hello" }), "messages"),
        (json!({ "model": "local", "messages": [{ "role": "user", "content": 7 }] }), "messages[0].content"),
        (json!({ "model": "local", "messages": [7] }), "messages[0]"),
        (json!({ "model": "local", "messages": [{ "role": "user", "content": "x" }], "temperature": "hot" }), "temperature"),
        (json!({ "model": "local", "messages": [{ "role": "user", "content": "x" }], "tools": {} }), "tools"),
        (json!({ "model": "local", "messages": [{ "role": "user", "content": "x" }], "max_tokens": -1 }), "max_tokens"),
        (json!({ "model": "local", "messages": [{ "role": "user", "content": "x" }], "max_tokens": 1.5 }), "max_tokens"),
    ];
    for (body, param) in cases {
        let answer = gateway.client().post(CHAT, body).await;
        assert_eq!(answer.status, 400, "{body} → {}", answer.text());
        assert_eq!(answer.json()["error"]["param"], *param, "{body} → {}", answer.text());
        answer.fault(400, "");
    }
    gateway.serves().await;
}

#[tokio::test]
async fn models_that_are_missing_or_unknown() {
    let (_mock, gateway) = start("models: { gpt-4o: well/gpt-4o, gpt-4o-mini: well/gpt-4o-mini }").await;
    gateway.client().post(CHAT, &json!({ "messages": [] })).await.fault(400, "missing_model");
    gateway.client().post(CHAT, &json!({ "model": "", "messages": [] })).await.fault(400, "missing_model");
    let message = gateway.client().chat("gpt4o").await.fault(404, "model_not_found");
    assert!(message.contains("`gpt4o`") && message.contains("gpt-4o"), "{message}");
    let endless = "x".repeat(1 << 20);
    let message = gateway.client().chat(&endless).await.fault(404, "model_not_found");
    assert!(message.len() < 1000, "a name of a megabyte is not repeated");
    gateway.serves().await;
}

#[tokio::test]
async fn bodies_over_the_limit() {
    let (mock, gateway) = start("limits: { body: 4KiB }").await;
    let big = json!({ "model": "well", "messages": [{ "role": "user", "content": "x".repeat(8192) }] }).to_string();
    gateway.client().post_bytes(CHAT, big.as_bytes()).await.fault(413, "body_too_large");
    // Without a length it is seen only while it is read.
    let mut chunked = format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n").into_bytes();
    for piece in big.as_bytes().chunks(1000) {
        chunked.extend_from_slice(format!("{:x}\r\n{}\r\n", piece.len(), std::str::from_utf8(piece).unwrap()).as_bytes());
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    gateway.client().raw(&chunked).await.fault(413, "body_too_large");
    // A length that only claims to be large is refused before anything of it is read.
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 99999999999\r\n\r\n");
    gateway.client().raw(head.as_bytes()).await.fault(413, "body_too_large");
    assert_eq!(mock.received().len(), 0);
    gateway.serves().await;
}

#[tokio::test]
async fn content_types_and_methods() {
    let (_mock, gateway) = start("").await;
    let body = chat("well").to_string();
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonx"] {
        gateway.client().send("POST", CHAT, &[("content-type", kind)], body.as_bytes()).await.fault(415, "unsupported_media_type");
    }
    gateway.client().send("POST", CHAT, &[], body.as_bytes()).await.fault(415, "unsupported_media_type");
    gateway.client().send("POST", CHAT, &[("content-type", "application/json"), ("content-encoding", "gzip")], body.as_bytes()).await.fault(415, "unsupported_encoding");
    for method in ["GET", "PUT", "DELETE", "PATCH"] {
        gateway.client().send(method, CHAT, &[], b"").await.fault(405, "method_not_allowed");
    }
    gateway.client().send("POST", "/v1/models", &[], b"").await.fault(405, "method_not_allowed");
    for kind in ["application/json; charset=utf-8", "Application/JSON", "application/vnd.acme+json"] {
        assert_eq!(gateway.client().send("POST", CHAT, &[("content-type", kind)], body.as_bytes()).await.status, 200, "{kind}");
    }
    gateway.serves().await;
}

#[tokio::test]
async fn unknown_paths_and_odd_requests() {
    let (_mock, gateway) = start("").await;
    for path in ["/v1/nothing", "/v2/chat/completions", "/v1/chat/completions/", "/v1//chat/completions", "/favicon.ico", "/v1/../v1/chat/completions", "/%00", "/v1/chat%2fcompletions"] {
        gateway.client().get(path).await.fault(404, "unknown_path");
        gateway.client().post(path, &chat("well")).await.fault(404, "unknown_path");
    }
    let long = format!("/{}", "x".repeat(5000));
    assert!(gateway.client().get(&long).await.fault(404, "unknown_path").len() < 1000);
    for bytes in [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..], b"GET\r\n\r\n", b"hello there\r\n\r\n", b"POST / HTTP/9.9\r\n\r\n"] {
        let mut connection = gateway.client().connect().await;
        connection.write(bytes).await;
        // Whatever is said to this, it is an error or the end.
        assert!(connection.try_head().await.is_none_or(|head| head.status >= 400), "{bytes:?}");
    }
    // Two lengths, or a length beside chunks, are the way requests are smuggled: what comes behind must not be served.
    let smuggled = request("POST", CHAT, &[("content-type", "application/json"), ("content-length", "5")], chat("well").to_string().as_bytes());
    assert!(gateway.client().raw(&smuggled).await.status >= 400);
    gateway.serves().await;
}

#[tokio::test]
async fn headers_that_are_too_large() {
    let (mock, gateway) = start("limits: { headers: 16KiB }").await;
    let body = chat("well").to_string();
    let big = "x".repeat(20_000);
    let answer = gateway.client().send("POST", CHAT, &[("content-type", "application/json"), ("x-big", &big)], body.as_bytes()).await;
    assert_eq!(answer.status, 431);
    let many: Vec<(String, String)> = (0..500).map(|i| (format!("x-{i}"), "y".to_owned())).collect();
    let mut headers: Vec<(&str, &str)> = many.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    headers.push(("content-type", "application/json"));
    assert_eq!(gateway.client().send("POST", CHAT, &headers, body.as_bytes()).await.status, 431);
    assert_eq!(mock.received().len(), 0);
    gateway.serves().await;
}

#[tokio::test]
async fn clients_that_are_too_slow() {
    let (mock, gateway) = start("limits: { read: 300ms }").await;
    // A head that never ends.
    let mut slow = gateway.client().connect().await;
    slow.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n").await;
    assert!(slow.try_head().await.is_none_or(|head| head.status == 408));
    // A body that never ends.
    let mut slow = gateway.client().connect().await;
    slow.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"model\":").await;
    slow.response().await.fault(408, "request_timeout");
    // A body that breaks off.
    let mut gone = gateway.client().connect().await;
    gone.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"model\":").await;
    drop(gone);
    assert_eq!(mock.received().len(), 0);
    gateway.serves().await;
}

#[tokio::test]
async fn model_names_that_would_travel_in_a_path() {
    let yaml = "
providers:
  bedrock: { kind: bedrock, base_url: \"{{mock}}\", api_key: bedrock-secret }
  dated: { kind: azure, base_url: \"{{mock}}\", api_version: \"2024-10-21\", api_key: azure-secret }
  open: { kind: openai, base_url: \"{{mock}}/v1\", api_key: sk-open-secret }
models: { \"bedrock/*\": \"bedrock/*\", \"dated/*\": \"dated/*\", \"open/*\": \"open/*\" }
";
    let (mock, gateway) = start(yaml).await;
    for family in ["bedrock", "dated", "open"] {
        for name in ["..", ".", "../../admin", "a/../b", "a/./b", "..\\..\\x", "a\nb", "a\r\nX-Injected: 1", "a\u{0}b", "a\u{7f}b", "\u{85}"] {
            let answer = gateway.client().chat(&format!("{family}/{name}")).await;
            answer.fault(400, "");
            assert_eq!(answer.json()["error"]["param"], "model", "{family}/{name:?}");
        }
    }
    assert_eq!(mock.received().len(), 0, "nothing of this reaches an upstream");
    // What a name may hold stays one segment of the path.
    for (name, path) in [
        ("bedrock/arn:aws:bedrock:eu:1:inference-profile/x", "/model/arn%3Aaws%3Abedrock%3Aeu%3A1%3Ainference-profile%2Fx/converse"),
        ("bedrock/a?b#c%2e", "/model/a%3Fb%23c%252e/converse"),
        ("dated/my deployment", "/openai/deployments/my%20deployment/chat/completions?api-version=2024-10-21"),
        ("dated/%2e%2e", "/openai/deployments/%252e%252e/chat/completions?api-version=2024-10-21"),
    ] {
        let answer = gateway.client().chat(name).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        assert_eq!(mock.last().path, path);
    }
    gateway.serves().await;
}

/// Upstreams that answer nonsense: what they do, the status and code that the client gets, whole and streamed.
#[tokio::test]
async fn upstreams_that_answer_nonsense() {
    let one = |name: &str| format!("  {name}: {{ target: bad/{name}, retry: {{ attempts: 1 }}, breaker: {{ failures: 0 }} }}\n");
    let html = "<html><body>502 Bad Gateway nginx</body></html>";
    let gzip = gzip(br#"{"choices":[{"index":0,"message":{"role":"assistant","content":"x"},"finish_reason":"stop"}]}"#);
    let overloaded = json!({ "error": { "message": "the model is overloaded", "type": "overloaded_error", "code": 503 } });
    let answers: Vec<(&str, Behaviour, u16, &str)> = vec![
        ("html", Behaviour::bytes(200, "text/html", html), 502, "upstream_unreadable"),
        ("html-502", Behaviour::bytes(502, "text/html", html), 502, ""),
        ("empty", Behaviour::bytes(200, "application/json", ""), 502, "upstream_unreadable"),
        ("empty-500", Behaviour::bytes(500, "application/json", ""), 502, ""),
        ("no-content", Behaviour::bytes(204, "application/json", ""), 502, "upstream_unreadable"),
        ("gzip", Behaviour::bytes(200, "application/json", gzip.clone()).header("content-encoding", "gzip"), 502, "upstream_unreadable"),
        ("gzip-unsaid", Behaviour::bytes(200, "application/json", gzip), 502, "upstream_unreadable"),
        ("error-200", Behaviour::json(&overloaded), 503, ""),
        ("error-200-bare", Behaviour::json(&json!({ "object": "error", "message": "no GPU is free", "code": 50000 })), 502, ""),
        ("no-choices", Behaviour::json(&json!({ "id": "x", "object": "chat.completion" })), 502, ""),
        ("truncated", Behaviour::bytes(200, "application/json", r#"{"id":"x","choices":[{"#), 502, "upstream_unreadable"),
        ("array", Behaviour::bytes(200, "application/json", "[1,2]"), 502, "upstream_unreadable"),
        ("not-utf8", Behaviour::bytes(200, "application/json", &b"{\"id\":\"\xff\"}"[..]), 502, "upstream_unreadable"),
        ("redirect", Behaviour::bytes(302, "text/html", "").header("location", "http://127.0.0.1:1/elsewhere"), 502, "upstream_redirect"),
        ("redirect-308", Behaviour::bytes(308, "text/html", "").header("location", "/v1/chat/completions"), 502, "upstream_redirect"),
        ("close", Behaviour::Close, 502, "upstream_unreachable"),
        ("odd-status", Behaviour::bytes(799, "text/plain", "what?"), 502, ""),
    ];
    let yaml = format!("providers: {{ bad: {{ kind: openai, base_url: \"{{{{mock}}}}/v1\", api_key: sk-bad-secret }} }}\nmodels:\n{}", answers.iter().map(|(name, ..)| one(name)).collect::<String>());
    let (mock, gateway) = start(&yaml).await;
    for (name, behaviour, status, code) in answers {
        mock.on(name, [behaviour]);
        let whole = gateway.client().chat(name).await;
        let message = whole.fault(status, code);
        assert!(!message.contains('<'), "{name}: a page is not repeated: {message}");
        let streamed = gateway.client().post(CHAT, &streamed(name)).await;
        assert_eq!(streamed.status, status, "{name}, streamed: {}", streamed.text());
        // A connection that closes without a word may have been closed while it waited: it is asked once more over a new one.
        let most = if name == "close" { 4 } else { 2 };
        assert!((2..=most).contains(&mock.asked(name).len()), "{name}: no more is asked than needed, and nothing is followed");
        gateway.serves().await;
    }
}

#[tokio::test]
async fn events_that_are_no_good() {
    let good = |text: &str| format!("data: {}\n\n", json!({ "id": "c", "object": "chat.completion.chunk", "choices": [{ "index": 0, "delta": { "content": text }, "finish_reason": null }] }));
    let yaml = "
limits: { answer: 4MiB }
providers: { bad: { kind: openai, base_url: \"{{mock}}/v1\", api_key: sk-bad-secret } }
models:
  huge: { target: bad/huge, retry: { attempts: 1 } }
  huge-later: { target: bad/huge-later, retry: { attempts: 1 } }
  half: { target: bad/half, retry: { attempts: 1 } }
  split: { target: bad/split, retry: { attempts: 1 } }
  no-json: { target: bad/no-json, retry: { attempts: 1 } }
  whole: { target: bad/whole, retry: { attempts: 1 } }
  endless: { target: bad/endless, retry: { attempts: 1 } }
";
    let (mock, gateway) = start(yaml).await;
    let huge = "x".repeat(10 << 20);
    mock.on("huge", [Stream::sse().send(good(&huge)).send("data: [DONE]\n\n").into()]);
    gateway.client().post(CHAT, &streamed("huge")).await.fault(502, "upstream_unreadable");
    mock.on("endless", [Behaviour::bytes(200, "application/json", format!("{{\"a\":\"{huge}\"}}"))]);
    gateway.client().chat("endless").await.fault(502, "upstream_unreadable");

    let gate = Gate::new();
    mock.on("huge-later", [Stream::sse().send(good("a")).wait(&gate).send(good(&huge)).send("data: [DONE]\n\n").into()]);
    let data = gateway.client().stream(&streamed("huge-later")).await.all_past(&gate).await;
    broken(&data, "a");

    // Half a character and nothing more: never passed on as text, never a clean end.
    let gate = Gate::new();
    let mut half = good("b\u{e9}").into_bytes();
    let at = half.iter().position(|b| *b == 0xc3).unwrap();
    half.remove(at + 1);
    mock.on("half", [Stream::sse().send(good("a")).wait(&gate).send(half).send("data: [DONE]\n\n").into()]);
    broken(&gateway.client().stream(&streamed("half")).await.all_past(&gate).await, "a");

    // A character that is split over two pieces is none of that.
    let event = good("\u{1f600}");
    let at = event.find('\u{1f600}').unwrap() + 2;
    mock.on("split", [Stream::sse().send(event.as_bytes()[..at].to_vec()).pause(Duration::from_millis(20)).send(event.as_bytes()[at..].to_vec()).send("data: [DONE]\n\n").into()]);
    let data = gateway.client().stream(&streamed("split")).await.rest().await;
    assert_eq!((tests::client::joined(&data).as_str(), data.last().map(String::as_str)), ("\u{1f600}", Some("[DONE]")));

    mock.on("no-json", [Stream::sse().send("data: hello\n\n").into()]);
    gateway.client().post(CHAT, &streamed("no-json")).await.fault(502, "upstream_unreadable");

    // A host that does not stream answers whole: the client gets its stream all the same.
    mock.on(
        "whole",
        [Behaviour::json(
            &json!({ "id": "x", "object": "chat.completion", "model": "m", "choices": [{ "index": 0, "message": { "role": "assistant", "content": "all at once" }, "finish_reason": "stop" }] }),
        )],
    );
    let data = gateway.client().stream(&streamed("whole")).await.rest().await;
    assert_eq!((tests::client::joined(&data).as_str(), data.last().map(String::as_str)), ("all at once", Some("[DONE]")));
    gateway.serves().await;
}

/// A stream that said something and then broke: its last event is an error, and there is no `[DONE]`.
fn broken(data: &[String], said: &str) {
    assert_eq!(tests::client::joined(data), said);
    assert!(data.iter().all(|d| d != "[DONE]"), "{data:?}");
    let last: Value = serde_json::from_str(data.last().unwrap()).unwrap();
    assert!(last["error"]["message"].as_str().is_some_and(|m| !m.is_empty()), "{last}");
}

/// A gzip member with one stored block.
fn gzip(data: &[u8]) -> Vec<u8> {
    let length = data.len() as u16;
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(!length).to_le_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(&crc32fast::hash(data).to_le_bytes());
    out.extend_from_slice(&u32::from(length).to_le_bytes());
    out
}
