//! Tries and breakers at their edges: what is asked again and when, whose failure is whose, and what one dead model does to
//! the others.

use std::time::Duration;

use serde_json::{Value, json};
use tests::client::{Response, chat, joined, streamed};
use tests::dialects::HELLO;
use tests::{Behaviour, Gate, Mock, Running, Stream};
use tokio::time::Instant;

const CHAT: &str = "/v1/chat/completions";

async fn start(rest: &str) -> (Mock, Running) {
    let mock = Mock::start().await;
    let providers = "providers:\n  up: { kind: openai, base_url: \"{{mock}}/v1\", api_key: sk-up-secret }\n  cohere: { kind: cohere, base_url: \"{{mock}}\", api_key: cohere-secret }\n";
    let gateway = Running::start(&format!("{providers}{rest}"), &mock).await;
    (mock, gateway)
}

fn chunk(text: &str) -> String {
    format!("data: {}\n\n", json!({ "choices": [{ "index": 0, "delta": { "role": "assistant", "content": text }, "finish_reason": null }] }))
}

/// What `/status` says of a target.
async fn status(gateway: &Running, target: &str) -> Value {
    let status = gateway.admin_client().get("/status").await.json();
    status["targets"].as_array().unwrap().iter().find(|t| t["target"] == target).unwrap_or_else(|| panic!("{target} is missing in {status}")).clone()
}

/// The outcomes of the last request's tries.
fn outcomes(entries: &[Value]) -> Vec<(String, String)> {
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    entries.last().unwrap()["tries"].as_array().unwrap().iter().map(|t| (text(&t["target"]), text(&t["outcome"]))).collect()
}

#[tokio::test]
async fn one_dead_model_behind_a_wildcard_leaves_the_others_alone() {
    let (mock, gateway) = start("models: { \"open/*\": { target: \"up/*\", retry: { attempts: 1 }, breaker: { failures: 2, cooldown: 60s } } }\n").await;
    mock.on("dead", [Behaviour::error(500, "down")]);
    for _ in 0..2 {
        gateway.client().chat("open/dead").await.fault(502, "");
    }
    gateway.client().chat("open/dead").await.fault(503, "all_targets_down");
    for _ in 0..3 {
        assert_eq!(gateway.client().chat("open/well").await.answer(), HELLO);
    }
    assert_eq!((mock.asked("dead").len(), mock.asked("well").len()), (2, 3));
    // The figures are those of configured names, with as many models below as are in use; names that never answered are not told.
    let standing = status(&gateway, "open/* → up/*").await;
    assert!(standing["open_for_ms"].as_u64().is_some_and(|ms| ms > 0), "{standing}");
    let models: Vec<&String> = standing["models"].as_object().unwrap().keys().collect();
    assert_eq!(models, ["well"]);
    assert!(standing["models"]["well"]["open_for_ms"].is_null() && standing["models"]["well"]["latency_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{standing}");
    let metrics = gateway.admin_client().get("/metrics").await.text();
    let open: Vec<&str> = metrics.lines().filter(|l| l.starts_with("trivium_target_open{target=\"open/")).collect();
    assert_eq!(open, ["trivium_target_open{target=\"open/* → up/*\"} 1"]);
}

#[tokio::test]
async fn endless_names_cost_bounded_memory_and_push_out_nobody() {
    let (mock, gateway) = start("models: { \"open/*\": { target: \"up/*\", retry: { attempts: 1 }, breaker: { failures: 1, cooldown: 60s } } }\n").await;
    gateway.client().chat("open/well").await.answer();
    for n in 0..500 {
        mock.on(&format!("made-up-{n}"), [Behaviour::error(404, "no such model")]);
    }
    for n in 0..300 {
        gateway.client().chat(&format!("open/made-up-{n}")).await.fault(404, "model_not_found");
    }
    let standing = status(&gateway, "open/* → up/*").await;
    assert_eq!(standing["models"].as_object().unwrap().len(), 1, "{standing}");
    assert!(standing["open_for_ms"].is_null(), "a model that is not there is no failure: {standing}");
    // Whatever names come: the state of one in use is kept.
    mock.on("well", [Behaviour::error(500, "down")]);
    gateway.client().chat("open/well").await.fault(502, "");
    for n in 300..500 {
        gateway.client().chat(&format!("open/made-up-{n}")).await;
    }
    gateway.client().chat("open/well").await.fault(503, "all_targets_down");
}

#[tokio::test]
async fn a_stream_that_breaks_or_stalls_is_a_failure_and_a_client_that_leaves_is_none() {
    let model = |name: &str| format!("  {name}: {{ target: up/{name}, retry: {{ attempts: 1 }}, timeout: {{ idle: 200ms }}, breaker: {{ failures: 2, window: 60s, cooldown: 60s }} }}\n");
    let names = ["cut", "stalls", "error", "left", "filtered"];
    let (mock, gateway) = start(&format!("models:\n{}", names.map(model).concat())).await;
    let gate = Gate::new();
    let filtered = "data: {\"error\":{\"message\":\"the prompt is too long\",\"code\":\"context_length_exceeded\",\"type\":\"invalid_request_error\"}}\n\n";
    let behaviours: [(&str, Behaviour, bool); 5] = [
        ("cut-it", Stream::sse().send(chunk("one")).pause(Duration::from_millis(20)).cut().into(), true),
        ("stalls", Stream::sse().send(chunk("one")).hang().into(), true),
        ("error", Stream::sse().send(chunk("one")).pause(Duration::from_millis(20)).send("data: {\"error\":{\"message\":\"overloaded\",\"code\":503}}\n\n").into(), true),
        ("left", Stream::sse().send(chunk("one")).wait(&gate).into(), false),
        // The client's own doing is no failure of the target.
        ("filtered", Stream::sse().send(chunk("one")).pause(Duration::from_millis(20)).send(filtered).into(), false),
    ];
    for (name, behaviour, fails) in behaviours {
        // `cut` is a name that the mock knows by itself.
        let name = if name == "cut-it" { "cut" } else { name };
        mock.on(name, [behaviour]);
        for _ in 0..2 {
            let mut events = gateway.client().stream(&streamed(name)).await;
            let first = events.data().await.unwrap();
            assert!(first.contains("one"), "{name}: {first}");
            if name == "left" {
                drop(events);
            } else {
                let rest = events.rest().await;
                assert!(rest.last().unwrap().contains("\"error\""), "{name}: {rest:?}");
            }
        }
        mock.until("who has left is noticed", |m| name != "left" || m.left() >= 2).await;
        mock.on(name, [Behaviour::Usual]);
        let answer = gateway.client().chat(name).await;
        let standing = status(&gateway, &format!("{name} → up/{name}")).await;
        let latency = standing["latency_ms"].as_f64().unwrap();
        if fails {
            answer.fault(503, "all_targets_down");
            assert!(latency >= 5000.0, "{name}: what fails is not fast: {standing}");
        } else {
            assert_eq!(answer.answer(), HELLO, "{name}");
            assert!(latency < 5000.0, "{name}: {standing}");
        }
    }
    gate.open();
}

#[tokio::test]
async fn a_probe_whose_stream_breaks_opens_the_breaker_again() {
    let (mock, gateway) = start("models: { fragile: { target: up/fragile, retry: { attempts: 1 }, breaker: { failures: 3, window: 60s, cooldown: 300ms } } }\n").await;
    mock.on("fragile", [Behaviour::error(500, "down"), Behaviour::error(500, "down"), Behaviour::error(500, "down"), Stream::sse().send(chunk("x")).cut().into(), Behaviour::Usual]);
    for _ in 0..3 {
        gateway.client().chat("fragile").await.fault(502, "");
    }
    gateway.client().chat("fragile").await.fault(503, "all_targets_down");
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert_eq!(joined(&gateway.client().stream(&streamed("fragile")).await.rest().await), "x");
    gateway.client().chat("fragile").await.fault(503, "all_targets_down");
    // A target that answers, if only that the client is wrong, is there.
    tokio::time::sleep(Duration::from_millis(350)).await;
    mock.on("fragile", [Behaviour::error(400, "`temperature` must be below 2"), Behaviour::Usual]);
    gateway.client().chat("fragile").await.fault(400, "");
    gateway.client().chat("fragile").await.answer();
    assert!(status(&gateway, "fragile → up/fragile").await["open_for_ms"].is_null());
}

#[tokio::test]
async fn with_all_targets_open_the_fallback_serves() {
    let models = "models:\n  m: { targets: [up/a, up/b], retry: { attempts: 2, backoff: 1ms }, breaker: { failures: 1, cooldown: 60s }, fallback: [up/spare] }\n";
    let (mock, gateway) = start(models).await;
    mock.on("a", [Behaviour::error(500, "down")]);
    mock.on("b", [Behaviour::error(500, "down")]);
    for _ in 0..3 {
        assert_eq!(gateway.client().chat("m").await.answer(), HELLO);
    }
    assert_eq!((mock.asked("a").len(), mock.asked("b").len(), mock.asked("spare").len()), (1, 1, 3));
    let told = outcomes(&gateway.entries(3).await);
    let outcome = |target: &str| told.iter().find(|(t, _)| t == target).map(|(_, o)| o.as_str());
    assert_eq!((outcome("up/a"), outcome("up/b"), outcome("up/spare")), (Some("open"), Some("open"), Some("ok")));
    // With the fallback open too, the client hears when to come again, and that it may.
    mock.on("spare", [Behaviour::error(500, "down")]);
    let failed = gateway.client().chat("m").await;
    failed.fault(502, "");
    assert_eq!(failed.header("x-should-retry"), Some("false"));
    let refused = gateway.client().chat("m").await;
    refused.fault(503, "all_targets_down");
    let after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((50..=60).contains(&after), "{after}");
    assert_eq!(refused.header("x-should-retry"), Some("true"));
}

#[tokio::test]
async fn a_retry_after_holds_for_the_target_that_said_it_alone() {
    let models = "models:
  two: { balance: priority, targets: [{ model: up/a, priority: 1 }, { model: up/b, priority: 2 }], retry: { attempts: 3, backoff: 1ms }, breaker: { failures: 0 } }
  one: { target: up/one, retry: { attempts: 3, backoff: 1ms } }
  spared: { target: up/spared, retry: { attempts: 3, backoff: 1ms }, fallback: [up/spare] }
  key: { balance: priority, targets: [{ model: up/key, priority: 1 }, { model: up/shaky, priority: 2 }], retry: { attempts: 4, backoff: 1ms }, breaker: { failures: 0 } }
";
    let (mock, gateway) = start(models).await;
    let busy = |seconds: &str| Behaviour::error(429, "slow down").header("retry-after", seconds);
    // `b` wants to be left alone for a minute: `a` does not wait for that.
    mock.on("a", [Behaviour::error(500, "down"), Behaviour::Usual]);
    mock.on("b", [busy("60")]);
    let began = Instant::now();
    assert_eq!(gateway.client().chat("two").await.answer(), HELLO);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!((mock.asked("a").len(), mock.asked("b").len()), (2, 1));
    // The only target's word is a floor, each time it says it.
    mock.on("one", [busy("0.3"), busy("0.3"), Behaviour::Usual]);
    let began = Instant::now();
    assert_eq!(gateway.client().chat("one").await.answer(), HELLO);
    assert!(began.elapsed() >= Duration::from_millis(600), "{:?}", began.elapsed());
    // Where there is a fallback, nobody waits.
    mock.on("spared", [busy("5")]);
    let began = Instant::now();
    assert_eq!(gateway.client().chat("spared").await.answer(), HELLO);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!((mock.asked("spared").len(), mock.asked("spare").len()), (1, 1));
    // A key that was refused is not shown to the same place again, whatever another place says meanwhile.
    mock.on("key", [Behaviour::error(401, "Incorrect API key provided: sk-up-secret")]);
    mock.on("shaky", [Behaviour::error(500, "down"), Behaviour::Usual]);
    assert_eq!(gateway.client().chat("key").await.answer(), HELLO);
    assert_eq!((mock.asked("key").len(), mock.asked("shaky").len()), (1, 2));
}

#[tokio::test]
async fn nobody_sleeps_past_the_deadline_and_nobody_is_blamed_for_another_s_time() {
    let models = "models:
  short: { target: up/short, retry: { attempts: 5, backoff: 400ms }, timeout: { total: 700ms }, breaker: { failures: 0 } }
  slow: { balance: priority, targets: [{ model: up/slow, priority: 1 }, { model: up/innocent, priority: 2 }], retry: { attempts: 2 }, timeout: { total: 400ms }, breaker: { failures: 1, cooldown: 60s } }
  late: { balance: priority, targets: [{ model: up/first, priority: 1 }, { model: up/second, priority: 2 }], retry: { attempts: 2, backoff: 1ms }, timeout: { total: 2s }, breaker: { failures: 1, cooldown: 60s } }
  stands: { target: up/stands, retry: { attempts: 1 }, timeout: { idle: 300ms }, fallback: [up/spare] }
";
    let (mock, gateway) = start(models).await;
    mock.on("short", [Behaviour::error(500, "down")]);
    let began = Instant::now();
    gateway.client().chat("short").await.fault(502, "");
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    assert!(mock.asked("short").len() <= 2);
    mock.on("slow", [Behaviour::Hang]);
    gateway.client().chat("slow").await.fault(504, "upstream_timeout");
    assert!(status(&gateway, "slow → up/slow").await["open_for_ms"].is_u64());
    assert!(status(&gateway, "slow → up/innocent").await["open_for_ms"].is_null(), "it was never asked in earnest");
    assert_eq!(mock.asked("innocent").len(), 0);
    // Who is asked when most of the time is gone has had no fair chance.
    mock.on("first", [Stream::new("application/json").pause(Duration::from_millis(1200)).cut().into()]);
    mock.on("second", [Behaviour::Hang]);
    gateway.client().chat("late").await.fault(504, "upstream_timeout");
    assert_eq!((mock.asked("first").len(), mock.asked("second").len()), (1, 1));
    assert!(status(&gateway, "late → up/first").await["open_for_ms"].is_u64());
    assert!(status(&gateway, "late → up/second").await["open_for_ms"].is_null());
    // A whole answer that stands still is no better than a stream that does.
    mock.on("stands", [Stream::new("application/json").send("{\"choices\":").hang().into()]);
    let began = Instant::now();
    assert_eq!(gateway.client().chat("stands").await.answer(), HELLO);
    assert!(began.elapsed() < Duration::from_secs(5) && mock.last().model() == "spare", "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_fallback_that_cannot_do_what_is_asked_does_not_hide_the_failure() {
    let (mock, gateway) = start("models: { m: { target: up/m, retry: { attempts: 1 }, fallback: [cohere/command-r] } }\n").await;
    mock.on("m", [Behaviour::error(503, "overloaded")]);
    let mut body = chat("m");
    body["n"] = json!(2);
    let answer: Response = gateway.client().post(CHAT, &body).await;
    assert!(answer.fault(503, "").contains("overloaded"), "{}", answer.text());
    let told = outcomes(&gateway.entries(1).await);
    assert_eq!(told, [("up/m".to_owned(), "status".to_owned()), ("cohere/command-r".to_owned(), "unsupported".to_owned())]);
}

#[tokio::test]
async fn a_conversation_is_of_its_tenant_and_spills_when_its_target_is_busy() {
    let yaml = "models: { sticky: { sticky: prompt_prefix, targets: [up/a, up/b, up/c, up/d] } }\nconsumers: { alice: { keys: [key-of-alice] }, bob: { keys: [key-of-bob-1] } }\n";
    let (mock, gateway) = start(yaml).await;
    let ask = |key: &'static str, text: String, stream: bool| {
        let body = json!({ "model": "sticky", "stream": stream, "messages": [{ "role": "user", "content": text }] });
        let client = gateway.client();
        async move { client.events(CHAT, &[("content-type", "application/json"), ("x-api-key", key)], &body).await }
    };
    // The same words of two tenants lead to two targets, sooner or later: prompt caches are apart too.
    let mut apart = false;
    for n in 0..20 {
        let mut homes = Vec::new();
        for key in ["key-of-alice", "key-of-bob-1", "key-of-alice"] {
            ask(key, format!("Question {n}"), true).await.rest().await;
            homes.push(mock.last().model());
        }
        assert_eq!(homes[0], homes[2], "a tenant's conversation stays");
        apart |= homes[0] != homes[1];
    }
    assert!(apart, "twenty conversations of two tenants went the same ways");
    // While its target has much more to do than the others, a conversation goes elsewhere, and comes back afterwards.
    ask("key-of-alice", "Home?".into(), true).await.rest().await;
    let home = mock.last().model();
    let gate = Gate::new();
    let held = || Behaviour::from(Stream::sse().send(chunk("x")).wait(&gate).send("data: [DONE]\n\n"));
    for model in ["a", "b", "c", "d"] {
        mock.on(model, [held()]);
    }
    let mut open = Vec::new();
    for _ in 0..8 {
        let mut events = ask("key-of-alice", "Home?".into(), true).await;
        events.data().await.unwrap();
        open.push((mock.last().model(), events));
    }
    let at_home = open.iter().filter(|(model, _)| *model == home).count();
    assert!((4..8).contains(&at_home), "{at_home} of 8 stayed at {home}");
    gate.open();
    for (_, mut events) in open {
        events.rest().await;
    }
    mock.on(&home, [Behaviour::Usual]);
    ask("key-of-alice", "Home?".into(), true).await.rest().await;
    assert_eq!(mock.last().model(), home);
}

#[tokio::test]
async fn the_cheapest_behind_a_wildcard_is_reckoned_by_the_model_it_stands_for() {
    let yaml = "models: { \"m-*\": { balance: lowest_cost, targets: [\"up/dear-*\", \"well/fair-*\"] } }\nprices: { up/dear-x: { input: 2.0, output: 2.0 }, well/fair-x: { input: 1.0, output: 1.0 }, up/dear-y: { input: 0.5, output: 0.5 }, well/fair-y: { input: 1.0, output: 1.0 } }\n";
    let (mock, gateway) = start(yaml).await;
    for _ in 0..5 {
        gateway.client().chat("m-x").await.answer();
        gateway.client().chat("m-y").await.answer();
    }
    assert_eq!(["dear-x", "fair-x", "dear-y", "fair-y"].map(|m| mock.asked(m).len()), [0, 5, 5, 0]);
}
