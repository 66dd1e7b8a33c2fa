//! Consumers and their limits: who comes in, what a limit holds back and how it is told, and that it holds under concurrency
//! and over a restart.

use std::sync::Arc;

use serde_json::{Value, json};
use tests::client::{chat, streamed};
use tests::dialects::{INPUT, OUTPUT};
use tests::{Behaviour, Gate, Mock, Running, Stream};

const CHAT: &str = "/v1/chat/completions";

async fn ask(gateway: &Running, key: &str, body: &Value) -> tests::client::Response {
    let bearer = format!("Bearer {key}");
    gateway.client().send("POST", CHAT, &[("content-type", "application/json"), ("authorization", &bearer)], body.to_string().as_bytes()).await
}

async fn used(gateway: &Running, key: &str) -> Value {
    let bearer = format!("Bearer {key}");
    gateway.client().send("GET", "/v1/usage", &[("authorization", &bearer)], b"").await.json()
}

#[tokio::test]
async fn strangers_stay_out_and_models_are_for_whom_they_are() {
    let mock = Mock::start().await;
    let gateway = Running::start(
        "models: { a: well/a, b: { target: well/b, deny: [bob] } }\nconsumers: { alice: { keys: [key-of-alice] }, bob: { keys: [key-of-bob-1], models: [a, b] } }\nauth: { anonymous: false }\n",
        &mock,
    )
    .await;
    let client = gateway.client();
    client.chat("a").await.fault(401, "invalid_api_key");
    ask(&gateway, "key-of-nobody", &chat("a")).await.fault(401, "invalid_api_key");
    ask(&gateway, "key-of-alice", &chat("b")).await.answer();
    ask(&gateway, "key-of-bob-1", &chat("a")).await.answer();
    ask(&gateway, "key-of-bob-1", &chat("b")).await.fault(403, "model_not_allowed");
    let list = client.send("GET", "/v1/models", &[("x-api-key", "key-of-bob-1")], b"").await.json();
    let names: Vec<&str> = list["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
    assert!(names.contains(&"a") && !names.contains(&"b"), "{names:?}");
    let message = ask(&gateway, "key-of-bob-1", &chat("bb")).await.fault(404, "model_not_found");
    assert!(message.ends_with("; nearest: a"), "what somebody may not use is not hinted at: {message}");
}

#[tokio::test]
async fn behind_a_wildcard_the_models_are_listed_that_are_known() {
    let yaml = "models: { \"gpt-*\": \"well/gpt-*\", \"deep/*\": \"up/*\", \"e-*\": { target: \"well/text-embedding-3-*\", kind: embedding } }\nproviders: { up: { kind: vllm, base_url: \"{{mock}}/v1\" } }\n\
                consumers: { alice: { keys: [key-of-alice] }, bob: { keys: [key-of-bob-1], models: [\"gpt-4o-mini-2*\"] } }\nauth: { anonymous: false }\n";
    let gateway = Running::start(yaml, &Mock::start().await).await;
    let client = gateway.client();
    let listed = async |key: &'static str| -> Vec<String> {
        let list = client.send("GET", "/v1/models", &[("x-api-key", key)], b"").await.json();
        list["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap().to_owned()).collect()
    };
    let names = listed("key-of-alice").await;
    for name in ["gpt-4o", "gpt-4o-mini", "deep/*", "e-small", "e-large", "well"] {
        assert!(names.iter().any(|n| n == name), "{name} is missing in {names:?}");
    }
    assert!(!names.iter().any(|n| n == "gpt-*" || n == "e-*"), "{names:?}");
    assert_eq!(listed("key-of-bob-1").await, ["gpt-4o-mini-2024-07-18"]);
}

#[tokio::test]
async fn a_limit_of_requests_is_told_with_when_to_come_again() {
    let mock = Mock::start().await;
    let gateway = Running::start("models: { a: well/a }\nconsumers: { alice: { keys: [key-of-alice], limits: [{ requests: 2, per: 1h }] } }\ndata: \"{{folder}}\"\n", &mock).await;
    let first = ask(&gateway, "key-of-alice", &chat("a")).await;
    assert_eq!((first.header("x-ratelimit-limit-requests"), first.header("x-ratelimit-remaining-requests")), (Some("2"), Some("1")));
    assert_eq!(first.header("x-ratelimit-reset-requests"), Some("3600s"));
    ask(&gateway, "key-of-alice", &streamed("a")).await;
    let third = ask(&gateway, "key-of-alice", &chat("a")).await;
    third.fault(429, "rate_limit_exceeded");
    let after: u64 = third.header("retry-after").unwrap().parse().unwrap();
    assert!((3000..=3700).contains(&after), "{after}");
    assert_eq!(
        (third.header("x-ratelimit-limit-requests"), third.header("x-ratelimit-remaining-requests"), third.header("x-ratelimit-reset-requests")),
        (Some("2"), Some("0"), Some(format!("{after}s").as_str()))
    );
    assert_eq!(mock.asked("a").len(), 2, "a refused request costs nothing");
    let usage = used(&gateway, "key-of-alice").await;
    assert_eq!((&usage["limits"][0]["used"], &usage["limits"][0]["left"]), (&json!(2), &json!(0)));
}

#[tokio::test]
async fn dollars_are_settled_to_what_was_really_used() {
    let mock = Mock::start().await;
    let prices = "prices: { well/a: { input: 1000, output: 2000, max_output: 100 } }\n";
    let gateway =
        Running::start(&format!("models: {{ a: well/a }}\n{prices}consumers: {{ alice: {{ keys: [key-of-alice], limits: [{{ dollars: 1, per: 1d }}] }} }}\ndata: \"{{{{folder}}}}\"\n"), &mock).await;
    ask(&gateway, "key-of-alice", &chat("a")).await.answer();
    let usage = used(&gateway, "key-of-alice").await;
    let cost = (INPUT * 1000 + OUTPUT * 2000) as f64 / 1e6;
    assert_eq!((usage["limits"][0]["used"].as_f64(), &usage["limits"][0]["reserved"]), (Some(cost), &json!(0)));
    // A failed request gives everything back.
    mock.on("a", [Behaviour::error(400, "no"), Behaviour::error(400, "no")]);
    ask(&gateway, "key-of-alice", &chat("a")).await;
    assert_eq!(used(&gateway, "key-of-alice").await["limits"][0]["used"].as_f64(), Some(cost));
    // So dear that the client's own bound refuses it.
    let bearer = [("content-type", "application/json"), ("authorization", "Bearer key-of-alice"), ("x-trivium-max-cost", "0.0001")];
    let refused = gateway.client().send("POST", CHAT, &bearer, chat("a").to_string().as_bytes()).await;
    refused.fault(402, "max_cost_exceeded");
    assert!(refused.header("x-trivium-cost-estimate").is_some_and(|cost| cost.parse::<f64>().unwrap() > 0.0001));
}

#[tokio::test]
async fn a_budget_holds_while_many_requests_are_under_way() {
    let mock = Mock::start().await;
    // The worst case of a request: its body's bytes and ten tokens; fifty together are far more than the cap.
    let gateway =
        Arc::new(Running::start("models: { a: well/a }\nconsumers: { alice: { keys: [key-of-alice], limits: [{ tokens: 600, per: 1h, strict: true }] } }\ndata: \"{{folder}}\"\n", &mock).await);
    let gate = Gate::new();
    mock.on("a", (0..50).map(|_| Stream::sse().wait(&gate).send("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":90,\"completion_tokens\":10,\"total_tokens\":100}}\n\ndata: [DONE]\n\n").into()));
    let mut body = streamed("a");
    body["max_tokens"] = json!(10);
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let (gateway, body) = (gateway.clone(), body.clone());
            tokio::spawn(async move { ask(&gateway, "key-of-alice", &body).await.status })
        })
        .collect();
    // Everyone is either refused by now or waits for the upstream.
    let refused = async {
        let mut tasks = tasks;
        let mut statuses = Vec::new();
        while tasks.iter().any(|t| t.is_finished()) || statuses.is_empty() {
            let (done, left): (Vec<_>, Vec<_>) = tasks.into_iter().partition(|t| t.is_finished());
            for task in done {
                statuses.push(task.await.unwrap());
            }
            tasks = left;
            if statuses.len() + mock.asked("a").len() == 50 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        (tasks, statuses)
    };
    let (tasks, statuses) = refused.await;
    gate.open();
    let mut served = 0;
    for task in tasks {
        served += u64::from(task.await.unwrap() == 200);
    }
    served += statuses.iter().filter(|s| **s == 200).count() as u64;
    let usage = used(&gateway, "key-of-alice").await;
    let spent = usage["limits"][0]["used"].as_u64().unwrap();
    assert_eq!((spent, &usage["limits"][0]["reserved"]), (served * 100, &json!(0)), "{usage}");
    assert!(spent <= 600 && served >= 1, "{spent} tokens by {served} requests");
}

#[tokio::test]
async fn a_restart_does_not_refill_a_budget() {
    let mock = Mock::start().await;
    let folder = std::env::temp_dir().join(format!("trivium-purse-{}", std::process::id()));
    let yaml = format!("models: {{ a: well/a }}\nconsumers: {{ alice: {{ keys: [key-of-alice], limits: [{{ requests: 2, per: 1h }}] }} }}\ndata: \"{}\"\n", folder.display());
    let mut first = Running::start(&yaml, &mock).await;
    ask(&first, "key-of-alice", &chat("a")).await.answer();
    ask(&first, "key-of-alice", &chat("a")).await.answer();
    first.drain();
    first.stopped().await;
    // The folder belongs to one process at a time.
    drop(first);
    let second = Running::start(&yaml, &mock).await;
    ask(&second, "key-of-alice", &chat("a")).await.fault(429, "rate_limit_exceeded");
    drop(second);
    let _ = std::fs::remove_dir_all(&folder);
}

#[tokio::test]
async fn a_model_without_a_price_is_no_way_around_a_limit_of_dollars() {
    let mock = Mock::start().await;
    let yaml = |policy: &str| format!("models: {{ a: well/a }}\n{policy}consumers: {{ alice: {{ keys: [key-of-alice], limits: [{{ dollars: 1, per: 1d }}] }} }}\ndata: \"{{{{folder}}}}\"\n");
    let closed = Running::start(&yaml(""), &mock).await;
    ask(&closed, "key-of-alice", &chat("a")).await.fault(403, "unknown_price");
    let open = Running::start(&yaml("unknown_price: allow\n"), &mock).await;
    ask(&open, "key-of-alice", &chat("a")).await.answer();
    assert_eq!(mock.asked("a").len(), 1);
}

#[tokio::test]
async fn who_leaves_a_working_provider_is_charged_what_was_reserved() {
    let mock = Mock::start().await;
    let gateway = Arc::new(Running::start("models: { a: well/a }\nconsumers: { alice: { keys: [key-of-alice], limits: [{ tokens: 100k, per: 1h }] } }\ndata: \"{{folder}}\"\n", &mock).await);
    let gate = Gate::new();
    mock.on("a", [Stream::new("application/json").wait(&gate).into()]);
    let mut body = chat("a");
    body["max_tokens"] = json!(500);
    let leaving = {
        let gateway = gateway.clone();
        tokio::spawn(async move { ask(&gateway, "key-of-alice", &body).await.status })
    };
    mock.until("the request is at the upstream", |mock| mock.asked("a").len() == 1).await;
    let held = used(&gateway, "key-of-alice").await["limits"][0]["reserved"].as_u64().unwrap();
    assert!(held > 500, "{held}");
    leaving.abort();
    let entry = gateway.entries(1).await.remove(0);
    assert_eq!((&entry["client_left"], &entry["status"]), (&json!(true), &json!(499)));
    let usage = used(&gateway, "key-of-alice").await;
    assert_eq!((&usage["limits"][0]["used"], &usage["limits"][0]["reserved"]), (&json!(held), &json!(0)));
}

#[tokio::test]
async fn who_has_no_key_has_the_limits_and_models_of_anonymous() {
    let mock = Mock::start().await;
    let yaml = "models: { a: well/a, b: well/b }\nconsumers: { alice: { keys: [key-of-alice], limits: [{ requests: 1, per: 1h }] }, anonymous: { groups: [guests], limits: [{ requests: 2, per: 1h }] } }\n\
                groups: { guests: { models: [a] } }\nauth: { anonymous: true }\n";
    let gateway = Running::start(yaml, &mock).await;
    ask(&gateway, "key-of-alice", &chat("b")).await.answer();
    ask(&gateway, "key-of-alice", &chat("b")).await.fault(429, "rate_limit_exceeded");
    // Without the key there is no more than anybody has without one.
    let client = gateway.client();
    client.chat("b").await.fault(403, "model_not_allowed");
    client.chat("a").await.answer();
    client.chat("a").await.answer();
    client.chat("a").await.fault(429, "rate_limit_exceeded");
    let usage = client.get("/v1/usage").await.json();
    assert_eq!((&usage["consumer"], &usage["limits"][0]["used"], usage.get("history")), (&json!("anonymous"), &json!(2), None));
    let entry = gateway.entries(6).await.remove(3);
    assert_eq!((&entry["consumer"], &entry["groups"]), (&json!("anonymous"), &json!(["guests"])));
    let refused = gateway.admin_ask("POST", "/admin/consumers/anonymous/keys", Some(&json!({ "name": "x" }))).await;
    assert!(refused.status == 422 && refused.text().contains("without a key"), "{}", refused.text());
}

#[tokio::test]
async fn what_cannot_hold_is_refused_when_it_is_loaded() {
    let mock = Mock::start().await;
    let refused = async |yaml: &str| Running::try_start(yaml, &mock).await.err().map(|problems| tests::harness::said(&problems)).unwrap_or_default();
    for (yaml, parts) in [
        ("consumers: { alice: { keys: [key-of-alice], limits: [{ requests: 10, per: 1h }, { requests: 20, per: 1h }] } }\n", ["consumers.alice.limits[1]: ", "limits[0]", "only the smaller"]),
        (
            "consumers: { a: { groups: [g] }, b: { groups: [g] } }\ngroups: { g: { limits: [{ tokens: 1, per: 1m }, { dollars: 1, per: 28d, window: fixed }, { dollars: 2, per: 31d, window: fixed }] } }\n",
            ["groups.g.limits[2]: ", "limits[1]", "only the smaller"],
        ),
        ("prices: { well/well: { input: -1, output: 2 } }\n", ["prices.well/well: ", "`input`", "less than nothing"]),
        ("prices: { well/well: { input: 1, output: 2, cache_read: -0.5 } }\n", ["prices.well/well: ", "`cache_read`", "less than nothing"]),
        ("consumers: { anonymous: { keys: [key-of-nobody] } }\nauth: { anonymous: true }\n", ["consumers.anonymous.keys: ", "without a key", ""]),
    ] {
        let said = refused(yaml).await;
        assert!(parts.iter().all(|part| said.contains(part)) && said.matches(parts[0]).count() == 1, "{yaml}: {said}");
    }
}
