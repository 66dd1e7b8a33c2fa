//! Routing: which target a request goes to, and what happens when that fails before anything was sent.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};
use tests::client::{chat, joined, streamed};
use tests::dialects::HELLO;
use tests::{Behaviour, Gate, Mock, Running, Stream};
use tokio::time::Instant;

const CHAT: &str = "/v1/chat/completions";

/// A gateway whose provider `up` is the mock, and `dead` a place where nobody listens.
async fn start(models: &str) -> (Mock, Running) {
    let mock = Mock::start().await;
    let yaml = format!(
        "providers:\n  up: {{ kind: openai, base_url: \"{{{{mock}}}}/v1\", api_key: sk-up-secret }}\n  dead: {{ kind: openai, base_url: \"{{{{dead}}}}/v1\", api_key: sk-dead-secret }}\n  local: {{ kind: ollama, base_url: \"{{{{mock}}}}\" }}\n  cloud: {{ kind: bedrock, base_url: \"{{{{mock}}}}\", api_key: bedrock-secret }}\nmodels:\n{models}"
    );
    let gateway = Running::start(&yaml, &mock).await;
    (mock, gateway)
}

/// How often each model was asked.
fn shares<const N: usize>(mock: &Mock, models: [&str; N]) -> [usize; N] {
    models.map(|m| mock.asked(m).len())
}

fn chunk(text: &str) -> String {
    format!("data: {}\n\n", json!({ "choices": [{ "index": 0, "delta": { "role": "assistant", "content": text }, "finish_reason": null }] }))
}

#[tokio::test]
async fn in_turn_and_by_weight() {
    let models = "
  turn: { targets: [up/a, up/b, up/c] }
  weighted: { balance: weighted, targets: [{ model: up/d, weight: 80 }, { model: up/e, weight: 20 }, { model: up/f, weight: 0 }] }
";
    let (mock, gateway) = start(models).await;
    for _ in 0..30 {
        gateway.client().chat("turn").await.answer();
    }
    assert_eq!(shares(&mock, ["a", "b", "c"]), [10, 10, 10]);
    for _ in 0..100 {
        gateway.client().chat("weighted").await.answer();
    }
    let [d, e, f] = shares(&mock, ["d", "e", "f"]);
    assert!((77..=83).contains(&d) && d + e == 100 && f == 0, "{d} {e} {f}");
}

#[tokio::test]
async fn the_same_user_or_header_goes_to_the_same_target() {
    let models = "
  user: { balance: consistent_hash, targets: [up/a, up/b, up/c] }
  header: { balance: consistent_hash, hash_on: x-tenant, targets: [up/d, up/e, up/f] }
";
    let (mock, gateway) = start(models).await;
    let mut used = HashSet::new();
    for user in 0..12 {
        let before = mock.received().len();
        for _ in 0..3 {
            let mut body = chat("user");
            body["user"] = json!(format!("user-{user}"));
            gateway.client().post(CHAT, &body).await.answer();
        }
        let models: HashSet<String> = mock.received()[before..].iter().map(tests::mock::Received::model).collect();
        assert_eq!(models.len(), 1, "user {user} was sent to {models:?}");
        used.extend(models);
    }
    assert!(used.len() > 1, "twelve users share one target");
    for _ in 0..5 {
        gateway.client().send("POST", CHAT, &[("content-type", "application/json"), ("x-tenant", "acme")], chat("header").to_string().as_bytes()).await.answer();
    }
    let mut shares = shares(&mock, ["d", "e", "f"]);
    shares.sort_unstable();
    assert_eq!(shares, [0, 0, 5]);
}

#[tokio::test]
async fn the_least_busy_the_cheapest_the_least_used_the_first() {
    let models = "
  busy: { balance: least_connections, targets: [up/a, up/b] }
  cheap: { balance: lowest_cost, targets: [up/dear, up/fair] }
  used: { balance: lowest_usage, targets: [up/c, up/d] }
  first: { balance: priority, targets: [{ model: up/second, priority: 2 }, { model: up/first, priority: 1 }], retry: { attempts: 2, backoff: 1ms }, breaker: { failures: 0 } }
prices: { up/dear: { input: 2.0, output: 2.0 }, up/fair: { input: 1.0, output: 1.0 } }
";
    let (mock, gateway) = start(models).await;
    // One stream holds `a` or `b`: until it ends, all others go to the other one.
    let gate = Gate::new();
    for model in ["a", "b"] {
        mock.on(model, [Stream::sse().send(chunk("x")).wait(&gate).send("data: [DONE]\n\n").into(), Behaviour::Usual]);
    }
    let mut held = gateway.client().stream(&streamed("busy")).await;
    held.data().await.unwrap();
    let holding = mock.last().model();
    let other = if holding == "a" { "b" } else { "a" };
    mock.on(other, [Behaviour::Usual]);
    for _ in 0..6 {
        gateway.client().chat("busy").await.answer();
    }
    assert_eq!((mock.asked(&holding).len(), mock.asked(other).len()), (1, 6));
    gate.open();

    for _ in 0..10 {
        gateway.client().chat("cheap").await.answer();
        gateway.client().chat("used").await.answer();
    }
    assert_eq!(shares(&mock, ["dear", "fair"]), [0, 10]);
    assert_eq!(shares(&mock, ["c", "d"]), [5, 5]);

    for _ in 0..5 {
        gateway.client().chat("first").await.answer();
    }
    assert_eq!(shares(&mock, ["first", "second"]), [5, 0]);
    mock.on("first", [Behaviour::error(500, "down")]);
    gateway.client().chat("first").await.answer();
    assert_eq!(shares(&mock, ["first", "second"]), [6, 1]);
}

#[tokio::test]
async fn the_fastest() {
    let (mock, gateway) = start("  fast: { balance: lowest_latency, targets: [up/slow, up/quick] }\n").await;
    let answer = || Stream::sse().send(chunk("x")).send("data: [DONE]\n\n");
    let slow = Stream::sse().pause(Duration::from_millis(400)).send(chunk("x")).send("data: [DONE]\n\n");
    mock.on("slow", [slow.into()]);
    mock.on("quick", [answer().into()]);
    for _ in 0..40 {
        gateway.client().stream(&streamed("fast")).await.rest().await;
    }
    // The slow one is asked once to learn how slow it is, and now and then again.
    let [slow, quick] = shares(&mock, ["slow", "quick"]);
    assert!(slow >= 1 && quick >= 30, "{slow} slow, {quick} quick");
}

#[tokio::test]
async fn a_conversation_stays_where_its_prompt_is_cached() {
    let (mock, gateway) = start("  sticky: { sticky: prompt_prefix, targets: [up/a, up/b, up/c] }\n").await;
    let mut used = HashSet::new();
    for n in 0..10 {
        let before = mock.received().len();
        let mut messages = vec![json!({ "role": "system", "content": "Be brief." }), json!({ "role": "user", "content": format!("Question {n}") })];
        for turn in 0..3 {
            gateway.client().post(CHAT, &json!({ "model": "sticky", "messages": messages })).await.answer();
            messages.push(json!({ "role": "assistant", "content": HELLO }));
            messages.push(json!({ "role": "user", "content": format!("And {turn}?") }));
        }
        let targets: HashSet<String> = mock.received()[before..].iter().map(tests::mock::Received::model).collect();
        assert_eq!(targets.len(), 1, "conversation {n} went to {targets:?}");
        used.extend(targets);
    }
    assert!(used.len() > 1, "ten conversations share one target");
    // With its target down, a conversation goes elsewhere all the same.
    gateway.client().chat("sticky").await.answer();
    let home = mock.last().model();
    mock.on(&home, [Behaviour::error(500, "down"), Behaviour::Usual]);
    gateway.client().chat("sticky").await.answer();
    assert_ne!(mock.last().model(), home);
}

#[tokio::test]
async fn what_is_tried_again_and_what_is_not() {
    let models = "
  again: { target: up/again, retry: { attempts: 3, backoff: 100ms }, breaker: { failures: 0 } }
  never: { target: up/never, retry: { attempts: 3, on: [connect], backoff: 1ms }, breaker: { failures: 0 } }
  teapot: { target: up/teapot, retry: { attempts: 2, on: [\"418\"], backoff: 1ms } }
  wrong: { targets: [up/wrong, up/other], retry: { attempts: 3, backoff: 1ms }, fallback: [up/spare] }
";
    let (mock, gateway) = start(models).await;
    mock.on("again", [Behaviour::error(500, "down"), Behaviour::error(429, "slow down"), Behaviour::Usual]);
    let began = Instant::now();
    assert_eq!(gateway.client().chat("again").await.answer(), HELLO);
    // Three quarters of 100 ms, then of twice that: the jitter's lower ends.
    assert!(began.elapsed() >= Duration::from_millis(225), "{:?}", began.elapsed());
    assert_eq!(mock.asked("again").len(), 3);

    mock.on("again", [Behaviour::error(503, "down")]);
    let answer = gateway.client().chat("again").await;
    answer.fault(503, "");
    assert_eq!(answer.header("x-should-retry"), Some("false"), "the tries have been made here already");
    assert_eq!(mock.asked("again").len(), 6);

    mock.on("never", [Behaviour::error(500, "down"), Behaviour::Usual]);
    gateway.client().chat("never").await.fault(502, "");
    assert_eq!(mock.asked("never").len(), 1);
    mock.on("teapot", [Behaviour::error(418, "teapot"), Behaviour::Usual]);
    assert_eq!(gateway.client().chat("teapot").await.answer(), HELLO);

    // The client's own mistake is a mistake everywhere.
    mock.on("wrong", [Behaviour::error(400, "`temperature` must be below 2")]);
    mock.on("other", [Behaviour::error(400, "`temperature` must be below 2")]);
    let answer = gateway.client().chat("wrong").await;
    assert!(answer.fault(400, "").contains("temperature"));
    assert_eq!(answer.header("x-should-retry"), None);
    assert_eq!(shares(&mock, ["wrong", "other", "spare"]).iter().sum::<usize>(), 1);
}

#[tokio::test]
async fn retry_after_is_a_floor_and_is_passed_on() {
    let models = "
  patient: { target: up/patient, retry: { attempts: 2, backoff: 1ms } }
  too-long: { target: up/too-long, retry: { attempts: 2, backoff: 1ms } }
  date: { target: up/date, retry: { attempts: 1 } }
  two: { targets: [up/two-a, up/two-b], retry: { attempts: 2, backoff: 1ms } }
";
    let (mock, gateway) = start(models).await;
    let limited = || Behaviour::error(429, "slow down").header("x-ratelimit-remaining-requests", "0").header("x-ratelimit-reset-requests", "2m");
    mock.on("patient", [limited().header("retry-after-ms", "700"), Behaviour::Usual]);
    let began = Instant::now();
    assert_eq!(gateway.client().chat("patient").await.answer(), HELLO);
    assert!(began.elapsed() >= Duration::from_millis(700), "{:?}", began.elapsed());

    // Nobody is kept waiting for two minutes: the client is told instead, with the provider's own words.
    mock.on("too-long", [limited().header("retry-after", "120")]);
    let answer = gateway.client().chat("too-long").await;
    answer.fault(429, "rate_limit_exceeded");
    assert_eq!((answer.header("retry-after"), answer.header("retry-after-ms")), (Some("120"), Some("120000")));
    assert_eq!((answer.header("x-ratelimit-remaining-requests"), answer.header("x-ratelimit-reset-requests")), (Some("0"), Some("2m")));
    assert_eq!(mock.asked("too-long").len(), 1);

    mock.on("date", [limited().header("retry-after", "Fri, 01 Jan 2100 00:00:00 GMT")]);
    let answer = gateway.client().chat("date").await;
    assert!(answer.header("retry-after").and_then(|v| v.parse::<u64>().ok()).is_some_and(|s| s > 1_000_000_000), "{:?}", answer.head);

    // A target that asked to be left alone is left alone, while the other one serves.
    mock.on("two-a", [limited().header("retry-after", "60")]);
    for _ in 0..6 {
        assert_eq!(gateway.client().chat("two").await.answer(), HELLO);
    }
    assert_eq!(shares(&mock, ["two-a", "two-b"]), [1, 6]);
    // Rate limits of a good answer are passed on too.
    mock.on(
        "patient",
        [Behaviour::json(&json!({ "choices": [{ "index": 0, "message": { "role": "assistant", "content": "x" }, "finish_reason": "stop" }] }))
            .header("x-ratelimit-remaining-tokens", "7")
            .header("set-cookie", "a=b")
            .header("x-internal", "c")],
    );
    let answer = gateway.client().chat("patient").await;
    assert_eq!((answer.status, answer.header("x-ratelimit-remaining-tokens")), (200, Some("7")));
}

#[tokio::test]
async fn fallback_crosses_dialects() {
    let models = "
  broken: { target: up/broken, retry: { attempts: 1 }, fallback: [local/llama3.3, cloud/anthropic.claude-sonnet-4-5], breaker: { failures: 0 } }
  unreachable: { target: dead/x, retry: { attempts: 1 }, fallback: [cloud/anthropic.claude-sonnet-4-5] }
  refused: { target: up/refused, retry: { attempts: 3, backoff: 1ms }, fallback: [local/llama3.3] }
";
    let (mock, gateway) = start(models).await;
    mock.on("broken", [Behaviour::error(500, "down")]);
    let whole = gateway.client().chat("broken").await;
    assert_eq!(whole.answer(), HELLO);
    assert_eq!((whole.header("x-trivium-provider"), whole.header("x-trivium-model")), (Some("local"), Some("llama3.3")));
    let mut events = gateway.client().stream(&streamed("broken")).await;
    assert_eq!(events.head.header("x-trivium-provider"), Some("local"));
    assert_eq!(joined(&events.rest().await), HELLO);

    mock.on("llama3.3", [Behaviour::Close]);
    let answer = gateway.client().chat("broken").await;
    assert_eq!((answer.answer().as_str(), answer.header("x-trivium-provider")), (HELLO, Some("cloud")));
    let tries: Vec<Value> = gateway.entries(3).await.pop().unwrap()["tries"].as_array().unwrap().clone();
    let seen: Vec<_> = tries.iter().map(|t| (t["target"].as_str().unwrap(), t["outcome"].as_str().unwrap(), t["status"].as_u64())).collect();
    assert_eq!(seen, [("up/broken", "status", Some(500)), ("local/llama3.3", "connect", None), ("cloud/anthropic.claude-sonnet-4-5", "ok", Some(200))]);

    let mut events = gateway.client().stream(&streamed("unreachable")).await;
    assert_eq!(joined(&events.rest().await), HELLO);
    // A credential that is refused is not shown again to the same place, but another place may serve.
    mock.on("refused", [Behaviour::error(401, "Incorrect API key provided: sk-up-secret")]);
    mock.on("llama3.3", [Behaviour::Usual]);
    assert_eq!(gateway.client().chat("refused").await.answer(), HELLO);
    assert_eq!(mock.asked("refused").len(), 1);
}

#[tokio::test]
async fn an_error_inside_the_first_events_falls_back() {
    let model = |name: &str| format!("  {name}: {{ target: up/{name}, retry: {{ attempts: 1 }}, breaker: {{ failures: 0 }}, timeout: {{ first_token: 1s }}, fallback: [up/spare] }}\n");
    let names = ["error", "cut", "greeting-cut", "greeting-hang", "hang", "empty", "html", "json-error", "burst"];
    let (mock, gateway) = start(&names.map(model).concat()).await;
    let greeting = chunk("");
    let behaviours: [Behaviour; 9] = [
        Stream::sse().send(greeting.clone()).send("data: {\"error\":{\"message\":\"overloaded\",\"code\":503}}\n\n").into(),
        Stream::sse().cut().into(),
        Stream::sse().send(greeting.clone()).cut().into(),
        Stream::sse().send(greeting).hang().into(),
        Behaviour::Hang,
        Stream::sse().into(),
        Behaviour::bytes(200, "text/html", "<html>"),
        Behaviour::json(&json!({ "error": { "message": "overloaded", "code": 503 } })),
        // What came in one piece with its error has not been sent either.
        Stream::sse().send(chunk("x") + "data: {\"error\":{\"message\":\"overloaded\"}}\n\n").into(),
    ];
    for (name, behaviour) in names.iter().zip(behaviours) {
        mock.on(name, [behaviour]);
        let mut events = gateway.client().stream(&streamed(name)).await;
        assert_eq!(events.head.status, 200, "{name}");
        let data = events.rest().await;
        assert_eq!(joined(&data), HELLO, "{name}: {data:?}");
        assert_eq!(mock.last().model(), "spare", "{name}");
    }
    // After the first event an error is an error: nothing is said twice.
    mock.on("error", [Stream::sse().send(chunk("one")).cut().into()]);
    let data = gateway.client().stream(&streamed("error")).await.rest().await;
    assert_eq!(joined(&data), "one");
    assert!(data.last().unwrap().contains("\"error\""), "{data:?}");
}

#[tokio::test]
async fn the_breaker_opens_probes_once_and_closes() {
    let models = "  fragile: { target: up/fragile, retry: { attempts: 1 }, breaker: { failures: 2, window: 60s, cooldown: 2s } }\n";
    let (mock, gateway) = start(models).await;
    mock.on("fragile", [Behaviour::error(500, "down")]);
    for _ in 0..2 {
        gateway.client().chat("fragile").await.fault(502, "");
    }
    let opened = Instant::now();
    let refused = gateway.client().chat("fragile").await;
    refused.fault(503, "all_targets_down");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=2).contains(&wait), "{wait}");
    assert_eq!(mock.asked("fragile").len(), 2, "an open breaker asks nothing");
    assert!(gateway.admin_client().get("/metrics").await.text().contains("trivium_target_open{target=\"fragile → up/fragile\"} 1"));

    // The cooldown over, one request goes there, and until it is answered no second one.
    tokio::time::sleep_until(opened + Duration::from_millis(2100)).await;
    let gate = Gate::new();
    mock.on("fragile", [Stream::sse().wait(&gate).send(chunk("x")).send("data: [DONE]\n\n").into(), Behaviour::Usual]);
    let client = gateway.client();
    let probe = tokio::spawn(async move { client.stream(&streamed("fragile")).await.rest().await });
    mock.until("the probe arrives", |m| m.asked("fragile").len() == 3).await;
    gateway.client().chat("fragile").await.fault(503, "all_targets_down");
    gate.open();
    probe.await.unwrap();
    for _ in 0..3 {
        gateway.client().chat("fragile").await.answer();
    }
    assert_eq!(mock.asked("fragile").len(), 6);
    gateway.serves().await;
}

#[tokio::test]
async fn a_probe_whose_client_leaves_does_not_lock_the_target() {
    let (mock, gateway) = start("  fragile: { target: up/fragile, retry: { attempts: 1 }, breaker: { failures: 1, cooldown: 100ms } }\n").await;
    mock.on("fragile", [Behaviour::error(500, "down"), Behaviour::Hang]);
    gateway.client().chat("fragile").await.fault(502, "");
    tokio::time::sleep(Duration::from_millis(150)).await;
    let mut probe = gateway.client().connect().await;
    probe.write(&tests::client::request("POST", CHAT, &[("content-type", "application/json")], chat("fragile").to_string().as_bytes())).await;
    mock.until("the probe arrives", |m| m.asked("fragile").len() == 2).await;
    drop(probe);
    mock.until("the probe is left", |m| m.left() == 1).await;
    mock.on("fragile", [Behaviour::Usual]);
    gateway.client().chat("fragile").await.answer();
}

#[tokio::test]
async fn timeouts_of_every_kind() {
    let models = "
  first: { target: up/first, retry: { attempts: 1 }, timeout: { first_token: 300ms } }
  total: { target: up/total, retry: { attempts: 1 }, timeout: { total: 300ms } }
  idle: { target: up/idle, retry: { attempts: 1 }, timeout: { idle: 300ms } }
  endless: { target: up/endless, retry: { attempts: 1 }, timeout: { total: 1500ms } }
  twice: { targets: [up/first, up/total], retry: { attempts: 2, backoff: 1ms }, timeout: { total: 300ms }, breaker: { failures: 0 } }
";
    let (mock, gateway) = start(models).await;
    mock.on("first", [Behaviour::Hang]);
    mock.on("total", [Behaviour::Hang]);
    gateway.client().post(CHAT, &streamed("first")).await.fault(504, "upstream_timeout");
    gateway.client().chat("total").await.fault(504, "upstream_timeout");
    gateway.client().chat("twice").await.fault(504, "upstream_timeout");
    mock.until("hung requests are given up", |m| m.left() >= 3).await;

    mock.on("idle", [Stream::sse().send(chunk("one")).hang().into()]);
    let slow = (0..100).fold(Stream::sse().send(chunk("one")), |s, _| s.pause(Duration::from_millis(50)).send(chunk("")));
    mock.on("endless", [slow.into()]);
    for (model, words) in [("idle", "stood still"), ("endless", "not complete in time")] {
        let data = gateway.client().stream(&streamed(model)).await.rest().await;
        assert_eq!(joined(&data), "one", "{model}");
        let last: Value = serde_json::from_str(data.last().unwrap()).unwrap();
        assert!(last["error"]["message"].as_str().is_some_and(|m| m.contains(words)), "{model}: {last}");
    }
    gateway.serves().await;
}

#[tokio::test]
async fn a_connection_that_cannot_be_made_in_time() {
    // A listener whose queue is full answers no more connections.
    let full = tokio::net::TcpSocket::new_v4().unwrap();
    full.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = full.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut held = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(200), tokio::net::TcpStream::connect(address)).await {
        held.push(stream);
        assert!(held.len() < 100, "the queue never fills");
    }
    let mock = Mock::start().await;
    let yaml = format!(
        "providers: {{ full: {{ kind: openai, base_url: \"http://{address}/v1\", api_key: sk-full-secret }} }}\nmodels: {{ full: {{ target: full/x, retry: {{ attempts: 1 }}, timeout: {{ connect: 300ms }}, fallback: [well/well] }} }}\n"
    );
    let gateway = Running::start(&yaml, &mock).await;
    let answer = gateway.client().chat("full").await;
    assert_eq!((answer.answer().as_str(), answer.header("x-trivium-provider")), (HELLO, Some("well")));
    assert_eq!(gateway.entries(1).await[0]["tries"][0]["outcome"], "connect");
}
