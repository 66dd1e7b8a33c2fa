//! Streams: token by token, never buffered, never ended cleanly when they broke; and clients that leave or do not read.

use std::time::Duration;

use serde_json::{Value, json};
use tests::client::{joined, streamed};
use tests::dialects::{HELLO, INPUT, OUTPUT};
use tests::{Behaviour, Gate, Mock, Running, Stream};

const CHAT: &str = "/v1/chat/completions";

fn chunk(text: &str) -> String {
    format!("data: {}\n\n", json!({ "id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [{ "index": 0, "delta": { "content": text }, "finish_reason": null }] }))
}

fn finish() -> String {
    format!("data: {}\n\n", json!({ "id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }] }))
}

fn usage() -> String {
    format!("data: {}\n\n", json!({ "id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [], "usage": { "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5 } }))
}

/// How a stream ends.
type End = fn(Stream) -> Stream;

const DONE: &str = "data: [DONE]\n\n";

const LOCAL: &str = "providers: { local: { kind: ollama, base_url: \"{{mock}}\" } }\nmodels: { local: local/llama3.3 }\n";

async fn start(yaml: &str) -> (Mock, Running) {
    let mock = Mock::start().await;
    let gateway = Running::start(yaml, &mock).await;
    (mock, gateway)
}

/// Asserts that the last event is an error and that nothing looks like a clean end.
fn broken(data: &[String]) {
    assert!(data.iter().all(|d| d != "[DONE]"), "{data:?}");
    let last: Value = serde_json::from_str(data.last().expect("an event")).unwrap();
    let error = &last["error"];
    assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()) && error["type"].is_string(), "{data:?}");
}

#[tokio::test]
async fn each_event_goes_out_while_the_upstream_is_silent() {
    let (mock, gateway) = start(LOCAL).await;
    let line = |text: &str, done: bool| {
        format!("{}\n", json!({ "model": "llama3.3", "message": { "role": "assistant", "content": text }, "done": done, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 2 }))
    };
    for model in ["well", "local"] {
        let gates = [Gate::new(), Gate::new(), Gate::new()];
        let stream = match model {
            "well" => Stream::sse().send(chunk("one ")).wait(&gates[0]).send(chunk("two ")).wait(&gates[1]).send(chunk("three")).wait(&gates[2]).send(finish() + DONE),
            _ => {
                Stream::new("application/x-ndjson").send(line("one ", false)).wait(&gates[0]).send(line("two ", false)).wait(&gates[1]).send(line("three", false)).wait(&gates[2]).send(line("", true))
            }
        };
        mock.on(if model == "well" { "well" } else { "llama3.3" }, [stream.into(), Behaviour::Usual]);
        // The head comes with the first event, while the second is still behind its gate.
        let mut events = gateway.client().stream(&streamed(model)).await;
        assert_eq!((events.head.status, events.head.header("content-type")), (200, Some("text/event-stream; charset=utf-8")));
        for (word, gate) in ["one ", "two ", "three"].iter().zip(&gates) {
            loop {
                let text = joined(&[events.data().await.expect("an event")]);
                if !text.is_empty() {
                    assert_eq!(text, *word, "{model}");
                    break;
                }
            }
            gate.open();
        }
        assert_eq!(events.rest().await.last().unwrap(), "[DONE]");
    }
    gateway.serves().await;
}

#[tokio::test]
async fn a_client_that_leaves_takes_the_upstream_along_and_is_written_down() {
    let (mock, gateway) = start("").await;
    // In the middle of the stream.
    mock.on("well", [Stream::sse().send(chunk("one ")).hang().into()]);
    let mut events = gateway.client().stream(&streamed("well")).await;
    assert_eq!(joined(&[events.data().await.unwrap()]), "one ");
    drop(events);
    mock.until("the gateway closes the stream", |m| m.left() == 1).await;
    // Before the first event.
    mock.on("well", [Behaviour::Hang]);
    for (n, body) in [streamed("well"), tests::client::chat("well")].iter().enumerate() {
        let mut connection = gateway.client().connect().await;
        connection.write(&tests::client::request("POST", CHAT, &[("content-type", "application/json")], body.to_string().as_bytes())).await;
        mock.until("the request arrives", |m| m.received().len() == n + 2).await;
        drop(connection);
        mock.until("the gateway closes the request", |m| m.left() == n + 2).await;
    }
    let entries = gateway.entries(3).await;
    assert!(entries.iter().all(|e| e["client_left"] == true), "{entries:?}");
    let statuses: Vec<_> = entries.iter().map(|e| e["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [200, 499, 499]);
    assert_eq!((&entries[0]["stream"], &entries[0]["usage"]["estimated"]), (&json!(true), &json!(true)), "{}", entries[0]);
    assert_eq!(gateway.state.serving.load(std::sync::atomic::Ordering::Relaxed), 0);
    mock.on("well", [Behaviour::Usual]);
    gateway.serves().await;
}

#[tokio::test]
async fn a_stream_that_breaks_off_never_ends_cleanly() {
    let (mock, gateway) = start("models: { one: { target: well/well, retry: { attempts: 1 }, breaker: { failures: 0 } } }").await;
    let cases: [(&str, End); 6] = [
        ("cut after an event", Stream::cut),
        ("cut in an event", |s| s.send("data: {\"id\":\"c\",\"choi").cut()),
        ("ended without a finish", |s| s),
        ("ended in an event", |s| s.send("data: {\"id\":\"c\",\"choi")),
        ("an error event", |s| s.send("data: {\"error\":{\"message\":\"the engine died\",\"type\":\"server_error\"}}\n\n").send(DONE)),
        ("a named error event", |s| s.send("event: error\ndata: {\"message\":\"the engine died\"}\n\n")),
    ];
    let count = cases.len();
    for (what, end) in cases {
        let gate = Gate::new();
        mock.on("well", [end(Stream::sse().send(chunk("one ")).wait(&gate)).into()]);
        let data = gateway.client().stream(&streamed("one")).await.all_past(&gate).await;
        assert_eq!(joined(&data), "one ", "{what}");
        broken(&data);
    }
    let entries = gateway.entries(count).await;
    assert!(entries.iter().all(|e| e["error"].is_string() && e["client_left"].is_null()), "{entries:?}");
    // Before the first event nothing has been said yet: it is an ordinary error.
    mock.on("well", [Stream::sse().send(": ping\n\n").cut().into()]);
    gateway.client().post(CHAT, &streamed("one")).await.fault(502, "");
    mock.on("well", [Behaviour::Usual]);
    gateway.serves().await;
}

#[tokio::test]
async fn a_broken_stream_of_a_translated_dialect() {
    let (mock, gateway) = start(LOCAL).await;
    let line = "{\"model\":\"llama3.3\",\"message\":{\"role\":\"assistant\",\"content\":\"one \"},\"done\":false}\n";
    let cases: [End; 4] = [Stream::cut, |s| s, |s| s.send("{\"model\":\"llama"), |s| s.send("{\"error\":\"out of memory\"}\n")];
    for end in cases {
        let gate = Gate::new();
        mock.on("llama3.3", [end(Stream::new("application/x-ndjson").send(line).wait(&gate)).into()]);
        let data = gateway.client().stream(&streamed("local")).await.all_past(&gate).await;
        assert_eq!(joined(&data), "one ");
        broken(&data);
    }
    gateway.serves().await;
}

#[tokio::test]
async fn usage_is_asked_for_and_given_only_to_those_who_asked() {
    let (mock, gateway) = start(LOCAL).await;
    for model in ["well", "local"] {
        let data = gateway.client().stream(&streamed(model)).await.rest().await;
        assert_eq!(joined(&data), HELLO);
        assert!(data.iter().all(|d| !d.contains("prompt_tokens")), "{model}: {data:?}");
        for options in [json!({ "include_usage": false }), json!(null), json!({})] {
            let mut request = streamed(model);
            request["stream_options"] = options;
            let data = gateway.client().stream(&request).await.rest().await;
            assert!(data.iter().all(|d| !d.contains("prompt_tokens")), "{model}: {data:?}");
        }
        let mut request = streamed(model);
        request["stream_options"] = json!({ "include_usage": true });
        let data = gateway.client().stream(&request).await.rest().await;
        let with: Vec<Value> = data.iter().filter(|d| d.contains("prompt_tokens")).map(|d| serde_json::from_str(d).unwrap()).collect();
        assert_eq!(with.len(), 1, "{model}: {data:?}");
        assert_eq!((&with[0]["choices"], &with[0]["usage"]["prompt_tokens"], &with[0]["usage"]["completion_tokens"]), (&json!([]), &json!(INPUT), &json!(OUTPUT)));
    }
    for request in mock.asked("well") {
        assert_eq!(request.json()["stream_options"]["include_usage"], true);
    }
    let entries = gateway.entries(10).await;
    for entry in entries {
        assert_eq!((entry["usage"]["input"].as_u64(), entry["usage"]["output"].as_u64()), (Some(INPUT), Some(OUTPUT)), "{entry}");
    }
}

#[tokio::test]
async fn usage_is_stripped_however_the_pieces_fall() {
    let (mock, gateway) = start("").await;
    let whole = [chunk("one "), chunk("two"), finish(), usage(), DONE.to_owned()].concat();
    let expected = [chunk("one "), chunk("two"), finish(), DONE.to_owned()].concat();
    for size in [1, 7, 64, 100_000] {
        mock.on("well", [Stream::sse().all(whole.as_bytes().chunks(size).map(<[u8]>::to_vec)).into()]);
        let bytes = gateway.client().stream(&streamed("well")).await.bytes().await;
        assert_eq!(String::from_utf8(bytes).unwrap(), expected, "in pieces of {size}");
    }
}

#[tokio::test]
async fn comments_pings_and_odd_line_ends_pass() {
    let (mock, gateway) = start("").await;
    let stream = format!(": OPENROUTER PROCESSING\r\n\r\nevent: chunk\r\nid: 7\r\n{}\r\n\r\n: ping\n\n{}{}{DONE}", chunk("one ").trim_end(), chunk("two"), finish());
    mock.on("well", [Stream::sse().send(stream.clone()).into()]);
    let bytes = gateway.client().stream(&streamed("well")).await.bytes().await;
    assert_eq!(String::from_utf8(bytes).unwrap(), stream);
}

#[tokio::test]
async fn a_host_that_forgets_the_terminator_is_completed() {
    let (mock, gateway) = start("").await;
    mock.on("well", [Stream::sse().send(chunk("one")).send(finish()).into()]);
    let data = gateway.client().stream(&streamed("well")).await.rest().await;
    assert_eq!((joined(&data).as_str(), data.last().map(String::as_str)), ("one", Some("[DONE]")));
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_upstream() {
    let (mock, gateway) = start("").await;
    const PIECE: usize = 64 << 10;
    const TIMES: usize = 4096;
    let piece = chunk(&"x".repeat(PIECE));
    let all = piece.len() as u64 * TIMES as u64;
    mock.on("well", [Stream::sse().flood(piece, TIMES).send(finish()).send(DONE).into(), Behaviour::Usual]);
    let mut events = gateway.client().stream(&streamed("well")).await;
    // Sockets take some, the gateway next to nothing: after a while nothing more is written.
    let mut before = u64::MAX;
    while before != mock.written() {
        before = mock.written();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(before < all / 4, "{before} of {all} bytes were taken from the upstream for a client that reads nothing");
    // When it reads again, all of it comes.
    let mut read = 0;
    while let Some(piece) = events.connection.piece().await.unwrap() {
        read += piece.len() as u64;
    }
    assert_eq!(read, all + (finish().len() + DONE.len()) as u64);
    gateway.serves().await;
}

#[tokio::test]
async fn many_streams_at_once_do_not_mix() {
    let (mock, gateway) = start("models: { \"own-*\": \"well/own-*\" }").await;
    let mut all = Vec::new();
    for n in 0..40 {
        let model = format!("own-{n}");
        mock.on(&model, [Stream::sse().all((0..20).map(|i| chunk(&format!("{n}.{i} ")))).send(finish()).send(DONE).into()]);
        let client = gateway.client();
        all.push(tokio::spawn(async move { joined(&client.stream(&streamed(&model)).await.rest().await) }));
    }
    for (n, task) in all.into_iter().enumerate() {
        let expected: String = (0..20).map(|i| format!("{n}.{i} ")).collect();
        assert_eq!(task.await.unwrap(), expected);
    }
}
