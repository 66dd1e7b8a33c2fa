//! The history of usage: what a consumer is told of its own, over a restart and a reload, and where there is none.

use serde_json::{Value, json};
use tests::client::{chat, streamed};
use tests::dialects::{INPUT, OUTPUT};
use tests::{Behaviour, Mock, Running};

const CHAT: &str = "/v1/chat/completions";
const YAML: &str = "models: { a: { target: well/x, retry: { attempts: 1 } }, \"b-*\": \"well/*\" }\nprices: { well/x: { input: 1000, output: 2000 } }\nconsumers: { alice: { keys: [key-of-alice], groups: [staff] }, bob: { keys: [key-of-bob-1] } }\ngroups: { staff: {} }\n";

async fn ask(gateway: &Running, key: &str, body: &Value) -> tests::client::Response {
    let bearer = format!("Bearer {key}");
    gateway.client().send("POST", CHAT, &[("content-type", "application/json"), ("authorization", &bearer)], body.to_string().as_bytes()).await
}

async fn usage(gateway: &Running, key: &str, query: &str) -> Value {
    gateway.client().send("GET", &format!("/v1/usage{query}"), &[("x-api-key", key)], b"").await.json()
}

/// The rows of a consumer, once they tell of so many requests: the ledger is a tenth of a second behind.
async fn rows(gateway: &Running, key: &str, requests: u64) -> Vec<Value> {
    for _ in 0..500 {
        let usage = usage(gateway, key, "?days=1").await;
        let rows = usage["history"]["rows"].as_array().unwrap_or_else(|| panic!("no history in {usage}")).clone();
        let have: u64 = rows.iter().map(|row| row["requests"].as_u64().unwrap()).sum();
        assert!(have <= requests, "{have} requests, and there were {requests}: {rows:?}");
        if have == requests {
            return rows;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{requests} requests have not been counted in 10 s");
}

#[tokio::test]
async fn a_consumer_is_told_what_it_has_used_and_nobody_elses() {
    let mock = Mock::start().await;
    let gateway = Running::start(YAML, &mock).await;
    ask(&gateway, "key-of-alice", &chat("a")).await.answer();
    ask(&gateway, "key-of-alice", &streamed("a")).await;
    ask(&gateway, "key-of-alice", &chat("b-y")).await.answer();
    mock.on("x", [Behaviour::error(500, "no"), Behaviour::Usual]);
    assert_eq!(ask(&gateway, "key-of-alice", &chat("a")).await.status, 502);
    ask(&gateway, "key-of-bob-1", &chat("a")).await.answer();
    ask(&gateway, "key-of-nobody", &chat("a")).await.fault(401, "invalid_api_key");
    let found = rows(&gateway, "key-of-alice", 4).await;
    let day = found[0]["day"].clone();
    let cost = (2 * INPUT * 1000 + 2 * OUTPUT * 2000) as f64 / 1e6;
    assert_eq!(found[0], json!({ "day": day, "model": "a", "requests": 3, "failed": 1, "usage": { "input": 2 * INPUT, "output": 2 * OUTPUT }, "cost": cost }));
    assert_eq!(found[1], json!({ "day": day, "model": "b-*", "requests": 1, "failed": 0, "usage": { "input": INPUT, "output": OUTPUT }, "cost": 0 }));
    assert_eq!(rows(&gateway, "key-of-bob-1", 1).await.len(), 1);
    let all = usage(&gateway, "key-of-alice", "").await;
    assert_eq!((&all["history"]["to"], &all["history"]["complete"], &all["groups"]), (&day, &json!(true), &json!(["staff"])));
    for query in ["?days=0", "?days=91", "?days=x"] {
        let refused = gateway.client().send("GET", &format!("/v1/usage{query}"), &[("x-api-key", "key-of-alice")], b"").await;
        refused.fault(400, "");
    }
    // The entries say who was in which groups, too.
    let entries = gateway.entries(6).await;
    assert_eq!((&entries[0]["groups"], entries[4].get("groups")), (&json!(["staff"]), None));
}

#[tokio::test]
async fn a_restart_forgets_nothing() {
    let mock = Mock::start().await;
    let folder = std::env::temp_dir().join(format!("trivium-history-{}", std::process::id()));
    let yaml = format!("{YAML}data: \"{}\"\n", folder.display());
    for run in 1..=3 {
        let mut gateway = Running::start(&yaml, &mock).await;
        ask(&gateway, "key-of-alice", &chat("a")).await.answer();
        // Not waited for: what ends with the process is written at its end.
        gateway.drain();
        gateway.stopped().await;
        drop(gateway);
        let gateway = Running::start(&yaml, &mock).await;
        rows(&gateway, "key-of-alice", run).await;
        let mut gateway = gateway;
        gateway.stopped().await;
    }
    let _ = std::fs::remove_dir_all(&folder);
}

#[tokio::test]
async fn a_reload_begins_and_ends_it() {
    let mock = Mock::start().await;
    let gateway = Running::start("", &mock).await;
    let folder = gateway.folder().join("data/usage");
    let reload = |yaml: &str| {
        gateway.rewrite(yaml);
        let reloader = gateway.reloader.clone();
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || {
            let _guard = runtime.enter();
            reloader.reload()
        })
    };
    gateway.client().chat("well").await.answer();
    assert_eq!(usage(&gateway, "any", "").await.get("history"), None);
    assert!(!folder.exists(), "who only tries the gateway finds no files");
    reload(YAML).await.unwrap().unwrap();
    ask(&gateway, "key-of-bob-1", &chat("a")).await.answer();
    rows(&gateway, "key-of-bob-1", 1).await;
    assert!(folder.exists());
    reload(&format!("{YAML}usage: off\n")).await.unwrap().unwrap();
    assert_eq!(usage(&gateway, "key-of-bob-1", "").await.get("history"), None);
}

#[tokio::test]
async fn who_has_no_key_is_not_told_what_all_the_others_do() {
    let mock = Mock::start().await;
    let gateway = Running::start("usage: { keep: 30d }\n", &mock).await;
    gateway.client().chat("well").await.answer();
    gateway.entries(1).await;
    assert_eq!(gateway.client().get("/v1/usage").await.json().get("history"), None);
    let history = gateway.state.ledger.history().unwrap();
    let query = || gateway::history::Query { from: history.today().before(1), to: history.today(), by: vec![gateway::history::By::Consumer], consumer: None };
    for _ in 0..500 {
        let report = history.report(query()).await.unwrap();
        if let Some(row) = report.rows.first() {
            assert_eq!((row.of(gateway::history::By::Consumer), row.sums.requests), (Some("anonymous"), 1));
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("nothing was counted in 10 s");
}
