//! What passes, passes as it came: bytes of requests and answers, and the headers that carry a trace.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::client::{chat, request, streamed};
use tests::{Behaviour, Mock, Running, Stream};

const CHAT: &str = "/v1/chat/completions";
const JSON: (&str, &str) = ("content-type", "application/json");

async fn start(yaml: &str) -> (Mock, Running) {
    let mock = Mock::start().await;
    let gateway = Running::start(yaml, &mock).await;
    (mock, gateway)
}

#[tokio::test]
async fn a_body_arrives_byte_for_byte_except_the_model() {
    let (mock, gateway) = start("models: { fast: well/gpt-4o-mini-2024-07-18 }\n").await;
    // Odd spaces, escapes, numbers, unknown fields, and an order that nobody would choose.
    let odd = "{ \"zebra\" : 1.0e+2,\r\n\t\"messages\":[{\"content\":\"h\\u00e9llo \\ud83d\\ude00 \\/ é\",\"role\":\"user\"}] , \"model\" : \"MODEL\",\"big\":12345678901234567890123,\"n\":null,\"nested\":{\"b\":1,\"a\":[ ]},\"empty\":\"\" }";
    for (asked, arrives) in [("well", "well"), ("fast", "gpt-4o-mini-2024-07-18")] {
        gateway.client().post_bytes(CHAT, odd.replace("MODEL", asked).as_bytes()).await.answer();
        let got = String::from_utf8(mock.last().body.to_vec()).unwrap();
        if asked == arrives {
            assert_eq!(got, odd.replace("MODEL", asked));
        } else {
            // The field is written anew; all that stands around it is as it was.
            let (before, after) = odd.split_once("\"model\" : \"MODEL\"").unwrap();
            let (got_before, got_after) = got.split_once(&format!("\"model\":\"{arrives}\"")).unwrap();
            let inner = |s: &str| s.trim_matches(|c: char| c.is_whitespace() || matches!(c, ',' | '{' | '}')).to_owned();
            assert_eq!((inner(got_before), inner(got_after)), (inner(before), inner(after)));
        }
    }
}

#[tokio::test]
async fn an_answer_goes_back_byte_for_byte() {
    let (mock, gateway) = start("").await;
    let odd = "{\r\n \"choices\" : [ {\"index\":0,\"finish_reason\":\"stop\",\"message\":{\"content\":\"\\u00e9\",\"role\":\"assistant\",\"vendor\":{\"x\":1.0}}} ],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1,\"total_tokens\":2,\"cost\":1e-7},\"zebra\":12345678901234567890 }\n";
    mock.on("well", [Behaviour::bytes(200, "application/json", odd)]);
    assert_eq!(gateway.client().chat("well").await.text(), odd);
    let odd = ": hello\n\nid: 1\nretry: 10\ndata:{\"choices\" : [{\"index\":0,\"delta\":{\"content\":\"\\u00e9\"}}] }\n\ndata: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"x\":1.0}\n\ndata: [DONE]\n\n";
    for size in [1, 5, 1000] {
        mock.on("well", [Stream::sse().all(odd.as_bytes().chunks(size).map(<[u8]>::to_vec)).into()]);
        let bytes = gateway.client().stream(&streamed("well")).await.bytes().await;
        assert_eq!(String::from_utf8(bytes).unwrap(), odd);
    }
}

#[tokio::test]
async fn traces_and_ids_go_through() {
    let (mock, gateway) = start("").await;
    let body = chat("well").to_string();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{trace}-b7ad6b7169203331-01");
    let headers = [JSON, ("traceparent", parent.as_str()), ("tracestate", "vendor=1"), ("x-request-id", "req-of-the-client")];
    let answer = gateway.client().send("POST", CHAT, &headers, body.as_bytes()).await;
    assert_eq!(answer.header("x-request-id"), Some("req-of-the-client"));
    let sent = mock.last();
    let upstream = sent.header("traceparent").unwrap();
    assert!(upstream.starts_with(&format!("00-{trace}-")) && upstream.ends_with("-01") && !upstream.contains("b7ad6b7169203331"), "{upstream}");
    assert_eq!(sent.header("tracestate"), Some("vendor=1"));
    let entry = gateway.entries(1).await.remove(0);
    assert_eq!((entry["trace_id"].as_str(), entry["request_id"].as_str()), (Some(trace), Some("req-of-the-client")));

    // Without one, or with one that is not fit to be repeated, the gateway makes its own.
    for given in ["", "with space", &"x".repeat(200), "ünïcode"] {
        let answer = gateway.client().send("POST", CHAT, &[JSON, ("x-request-id", given)], body.as_bytes()).await;
        let id = answer.header("x-request-id").unwrap();
        assert!(id != given && id.len() == 24, "{id}");
    }
    // On errors too.
    let answer = gateway.client().send("POST", CHAT, &[JSON, ("x-request-id", "mine")], b"{").await;
    assert_eq!(answer.header("x-request-id"), Some("mine"));
}

#[tokio::test]
async fn only_the_headers_that_are_meant_for_the_upstream_reach_it() {
    let (mock, gateway) = start("").await;
    let headers = [
        JSON,
        ("authorization", "Bearer sk-of-the-client"),
        ("cookie", "session=1"),
        ("x-api-key", "sk-of-the-client"),
        ("x-forwarded-for", "10.0.0.1"),
        ("openai-beta", "assistants=v2"),
        ("user-agent", "OpenAI/Python"),
        ("x-stainless-lang", "python"),
        ("connection", "keep-alive"),
    ];
    gateway.client().send("POST", CHAT, &headers, chat("well").to_string().as_bytes()).await.answer();
    let sent = mock.last();
    let mut names: Vec<&str> = sent.headers.iter().map(|(n, _)| n.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["authorization", "content-length", "content-type", "host", "openai-beta", "traceparent", "user-agent"]);
    assert_eq!(sent.header("authorization"), Some("Bearer sk-well-secret"));
    assert!(sent.header("user-agent").unwrap().starts_with("trivium/"));
}

#[tokio::test]
async fn answers_say_who_gave_them() {
    let (_mock, gateway) = start("models: { fast: well/gpt-x }\n").await;
    let answer = gateway.client().chat("fast").await;
    assert_eq!((answer.header("x-trivium-provider"), answer.header("x-trivium-model")), (Some("well"), Some("gpt-x")));
    let timing = answer.header("server-timing").unwrap();
    assert!(timing.contains("gateway;dur=") && timing.contains("upstream;dur="), "{timing}");
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let (mock, gateway) = start("").await;
    let mut connection = gateway.client().connect().await;
    for _ in 0..10 {
        connection.write(&request("POST", CHAT, &[JSON], chat("well").to_string().as_bytes())).await;
        connection.response().await.answer();
        connection.write(&request("POST", CHAT, &[JSON], b"nonsense")).await;
        connection.response().await.fault(400, "invalid_json");
    }
    assert!(mock.received().iter().all(|r| r.connection == 0), "ten requests in a row need one connection to the upstream");
}

/// With Nagle's algorithm a small event waits for the acknowledgement of the one before, which a client on a connection that
/// has been used before delays by 40 ms. The shortest of many gaps tells the two apart on the slowest machine.
#[tokio::test]
async fn small_events_do_not_wait_for_each_other() {
    let (mock, gateway) = start("").await;
    let event = format!("data: {}\n\n", json!({ "choices": [{ "index": 0, "delta": { "content": "x" }, "finish_reason": null }] }));
    mock.on("well", [Stream::sse().send(event.clone()).pause(Duration::from_millis(3)).send(event).pause(Duration::from_millis(3)).send("data: [DONE]\n\n").into()]);
    let mut connection = gateway.client().connect().await;
    let mut shortest = Duration::MAX;
    for turn in 0..40 {
        connection.write(&request("POST", CHAT, &[JSON], streamed("well").to_string().as_bytes())).await;
        connection.head().await;
        connection.piece().await.unwrap().unwrap();
        let began = Instant::now();
        if connection.piece().await.unwrap().is_none() {
            // They came in one piece: a busy machine, which tells nothing either.
            continue;
        }
        // A young connection is acknowledged at once: its first turns tell nothing.
        if turn >= 20 {
            shortest = shortest.min(began.elapsed());
        }
        while connection.piece().await.unwrap().is_some() {}
    }
    assert!(shortest == Duration::MAX || shortest < Duration::from_millis(25), "each event waits {shortest:?} for the one before");
}
