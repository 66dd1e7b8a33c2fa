//! Limits by the admin API: how they stand, and that a reset and a top-up are what a client meets.

use serde_json::{Value, json};
use tests::client::chat;
use tests::{Gate, Mock, Running, Stream};

use crate::admin::{ask, refusal};

/// The limits of a gateway, by what they say.
async fn limits(gateway: &Running) -> Vec<Value> {
    gateway.admin_ask("GET", "/admin/limits", None).await.json()["limits"].as_array().unwrap().clone()
}

fn labelled(limits: &[Value], part: &str) -> Value {
    limits.iter().find(|limit| limit["label"].as_str().unwrap().contains(part)).unwrap_or_else(|| panic!("no limit {part} in {limits:?}")).clone()
}

#[tokio::test]
async fn a_reset_and_a_top_up_are_what_a_client_meets() {
    let mock = Mock::start().await;
    let gateway = Running::start("models: { a: well/a }\nconsumers: { alice: { keys: [key-of-alice], limits: [{ requests: 2, per: 1h }] } }\n", &mock).await;
    let full = async |fits: usize| {
        for _ in 0..fits {
            ask(&gateway, "key-of-alice", "a").await.answer();
        }
        ask(&gateway, "key-of-alice", "a").await.fault(429, "rate_limit_exceeded");
    };
    full(2).await;
    let limit = limits(&gateway).await.remove(0);
    assert_eq!(
        (&limit["cap"], &limit["used"], &limit["reserved"], &limit["left"], &limit["unit"], &limit["consumers"]),
        (&json!(2), &json!(2), &json!(0), &json!(0), &json!("requests"), &json!(["alice"]))
    );
    assert!(limit["resets_in_seconds"].as_u64().is_some_and(|s| (3000..=3700).contains(&s)), "{limit}");

    let reset = gateway.admin_ask("POST", "/admin/limits/reset", Some(&json!({ "limit": limit["limit"] }))).await;
    assert_eq!((reset.status, &reset.json()["used"], &reset.json()["left"], &reset.json()["resets_in_seconds"]), (200, &json!(0), &json!(2), &Value::Null));
    full(2).await;
    let topped = gateway.admin_ask("POST", "/admin/limits/top-up", Some(&json!({ "limit": limit["limit"], "amount": 3 }))).await;
    assert_eq!((topped.status, &topped.json()["left"]), (200, &json!(3)));
    full(3).await;
    // The consumer's own view is the same.
    let own = gateway.admin_ask("GET", "/admin/consumers/alice", None).await.json();
    assert_eq!((&own["limits"][0]["left"], &own["models"]), (&json!(0), &json!(["a", "well"])));
}

#[tokio::test]
async fn dollars_are_decimal_and_exact() {
    let mock = Mock::start().await;
    let yaml = "models: { a: well/a }\nprices: { well/a: { input: 1000, output: 2000, max_output: 100 } }\nconsumers: { alice: { keys: [key-of-alice], limits: [{ dollars: 0.01, per: 1d }] } }\n";
    let gateway = Running::start(yaml, &mock).await;
    // One request costs 0.019.
    ask(&gateway, "key-of-alice", "a").await.answer();
    ask(&gateway, "key-of-alice", "a").await.fault(429, "insufficient_quota");
    let limit = limits(&gateway).await.remove(0);
    assert_eq!((&limit["cap"], &limit["unit"], &limit["used"], &limit["left"]), (&json!(0.01), &json!("dollars"), &json!(0.019), &json!(0)));
    let topped = gateway.admin_ask("POST", "/admin/limits/top-up", Some(&json!({ "limit": limit["limit"], "amount": 0.1 }))).await.json();
    assert_eq!(topped["left"], json!(0.091), "{topped}");
    gateway.admin_ask("POST", "/admin/limits/top-up", Some(&json!({ "limit": limit["limit"], "amount": "0.000000001" }))).await;
    assert_eq!(limits(&gateway).await[0]["left"], json!(0.091000001));
    ask(&gateway, "key-of-alice", "a").await.answer();
    for amount in [json!(0), json!(-1), json!("much"), json!(null), json!(1e12)] {
        refusal(&gateway.admin_ask("POST", "/admin/limits/top-up", Some(&json!({ "limit": limit["limit"], "amount": amount }))).await, 422, "invalid_amount");
    }
}

#[tokio::test]
async fn every_purse_is_listed_once_with_what_is_reserved() {
    let mock = Mock::start().await;
    let yaml = "models: { a: well/a }\nconsumers: { alice: { keys: [key-of-alice], groups: [g] }, bob: { keys: [key-of-bob-1], groups: [g], limits: [{ concurrent: 3 }] } }\n\
                groups: { g: { limits: [{ tokens: 100k, per: 1h, each: group }, { requests: 9, per: 1m }] } }\n";
    let gateway = Running::start(yaml, &mock).await;
    let all = limits(&gateway).await;
    assert_eq!(all.len(), 4, "{all:?}");
    let gate = Gate::new();
    mock.on("a", [Stream::sse().wait(&gate).send("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n").into()]);
    let mut body = chat("a");
    body["stream"] = json!(true);
    body["max_tokens"] = json!(500);
    let client = gateway.client();
    let asking =
        tokio::spawn(async move { client.send("POST", "/v1/chat/completions", &[("content-type", "application/json"), ("authorization", "Bearer key-of-bob-1")], body.to_string().as_bytes()).await });
    mock.until("the request is at the upstream", |mock| mock.asked("a").len() == 1).await;
    let all = limits(&gateway).await;
    let (group, busy) = (labelled(&all, "of group g"), labelled(&all, "at the same time"));
    assert!(group["reserved"].as_u64().is_some_and(|n| n > 500) && group["consumers"] == json!(["alice", "bob"]), "{group}");
    assert_eq!((&busy["reserved"], &busy["left"], &busy["resets_in_seconds"]), (&json!(1), &json!(2), &Value::Null));
    // Nothing is used there that could be forgotten or given.
    refusal(&gateway.admin_ask("POST", "/admin/limits/reset", Some(&json!({ "limit": busy["limit"] }))).await, 422, "nothing_used");
    refusal(&gateway.admin_ask("POST", "/admin/limits/top-up", Some(&json!({ "limit": busy["limit"], "amount": 1 }))).await, 422, "nothing_used");
    refusal(&gateway.admin_ask("POST", "/admin/limits/reset", Some(&json!({ "limit": "group:g" }))).await, 404, "unknown_limit");
    gate.open();
    asking.await.unwrap();
    assert_eq!(labelled(&limits(&gateway).await, "of group g")["reserved"], json!(0));
}
