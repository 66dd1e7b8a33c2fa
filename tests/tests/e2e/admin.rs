//! The admin API: who may use it, the life of a key as a client meets it, the configuration without its secrets, and loading it
//! anew.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::client::{PATIENCE, chat};
use tests::harness::said;
use tests::redis::Server;
use tests::{Behaviour, Client, Mock, Response, Running};

const CHAT: &str = "/v1/chat/completions";
const TWO: &str = "models: { a: well/a }\nconsumers: { alice: { keys: [key-of-alice], groups: [g] }, bob: {} }\ngroups: { g: { limits: [{ requests: 9, per: 1h }] } }\n";

/// A chat with a key.
pub(crate) async fn ask(gateway: &Running, key: &str, model: &str) -> Response {
    let bearer = format!("Bearer {key}");
    gateway.client().send("POST", CHAT, &[("content-type", "application/json"), ("authorization", &bearer)], chat(model).to_string().as_bytes()).await
}

/// Asserts that this is a refusal of the admin port with this status and code, and returns its message.
pub(crate) fn refusal(response: &Response, status: u16, code: &str) -> String {
    assert_eq!(response.status, status, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/json"));
    let body = response.json();
    assert_eq!(body["error"]["code"], code, "{body}");
    let message = body["error"]["message"].as_str().unwrap_or_default();
    assert!(!message.is_empty(), "a refusal without a message");
    message.to_owned()
}

async fn made(gateway: &Running, consumer: &str, wish: Value) -> Value {
    let response = gateway.admin_ask("POST", &format!("/admin/consumers/{consumer}/keys"), Some(&wish)).await;
    assert_eq!((response.status, response.header("cache-control")), (201, Some("no-store")), "{}", response.text());
    response.json()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

#[tokio::test]
async fn nobody_comes_in_without_the_token() {
    let mock = Mock::start().await;
    let gateway = Running::start(TWO, &mock).await;
    let admin = gateway.admin_client();
    for path in ["/healthz", "/readyz", "/metrics", "/status", "/"] {
        assert_eq!(admin.get(path).await.status, 200, "{path}");
    }
    let file = gateway.folder().join("data/admin.token");
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    let token = gateway.token();
    // What is there is nobody's business either.
    for path in ["/admin", "/admin/", "/admin/consumers", "/admin/limits", "/admin/config", "/admin/openapi.json", "/admin/nothing/here"] {
        for headers in
            [&[][..], &[("authorization", "Bearer tv-of-somebody-else")], &[("authorization", "Basic dXNlcjpwYXNz")], &[("x-api-key", "key-of-alice")], &[("authorization", "Bearer key-of-alice")]]
        {
            let response = admin.send("GET", path, headers, b"").await;
            assert!(response.status == 401 && response.header("www-authenticate") == Some("Bearer"), "{path} with {headers:?}: {}", response.text());
            assert!(!response.text().contains("alice"), "{}", response.text());
        }
    }
    refusal(&admin.send("POST", "/admin/reload", &[], b"").await, 401, "no_token_shown");
    refusal(&admin.send("GET", "/admin/consumers", &[("authorization", &format!("Bearer {token}x"))], b"").await, 401, "wrong_token");
    let response = admin.send("GET", "/admin/consumers", &[("authorization", &format!("bearer  {token}"))], b"").await;
    assert_eq!((response.status, response.header("cache-control")), (200, Some("no-store")));
    // With it, what is not there is said not to be.
    assert!(refusal(&gateway.admin_ask("GET", "/admin/nothing/here", None).await, 404, "unknown_path").contains("/admin/nothing/here"));
    refusal(&admin.get("/nothing").await, 404, "unknown_path");
    refusal(&gateway.admin_ask("PUT", "/admin/consumers", None).await, 405, "method_not_allowed");
}

#[tokio::test]
async fn a_key_is_made_used_replaced_and_revoked() {
    let mock = Mock::start().await;
    let gateway = Running::start(TWO, &mock).await;
    ask(&gateway, "key-of-alice", "a").await.answer();
    let first = made(&gateway, "alice", json!({ "name": "laptop", "expires": "30d" })).await;
    let (key, id) = (text(&first["key"]), text(&first["id"]));
    assert_eq!((&first["consumer"], &first["name"], &first["state"]), (&json!("alice"), &json!("laptop"), &json!("active")));
    ask(&gateway, key, "a").await.answer();
    let entries = gateway.entries(2).await;
    assert_eq!(entries[1]["consumer"], "alice");

    // The key is in no other answer.
    for path in ["/admin/consumers", "/admin/consumers/alice", "/admin/consumers/alice/keys", "/admin/keys", "/admin/config", "/admin/limits"] {
        let said = gateway.admin_ask("GET", path, None).await.text();
        assert!(!said.contains(key) && !said.contains("key-of-alice"), "{path}: {said}");
    }
    let keys = gateway.admin_ask("GET", "/admin/consumers/alice/keys", None).await.json()["keys"].clone();
    let sources: Vec<&str> = keys.as_array().unwrap().iter().map(|k| text(&k["source"])).collect();
    assert_eq!((sources, &keys[1]["id"], &keys[0]["id"]), (vec!["configuration", "run_time"], &json!(id), &Value::Null));
    assert!(text(&keys[1]["ends"]) > text(&keys[1]["created"]));

    // Both live through the grace; without one the old ends at once.
    let second = gateway.admin_ask("POST", &format!("/admin/keys/{id}/rotate"), Some(&json!({ "grace": "1h" }))).await.json();
    ask(&gateway, key, "a").await.answer();
    ask(&gateway, text(&second["key"]), "a").await.answer();
    let third = gateway.admin_ask("POST", &format!("/admin/keys/{}/rotate", text(&second["id"])), None).await;
    assert_eq!(third.status, 201);
    let third = third.json();
    ask(&gateway, text(&second["key"]), "a").await.fault(401, "invalid_api_key");
    ask(&gateway, text(&third["key"]), "a").await.answer();
    assert_eq!(third["name"], "laptop");

    let revoked = gateway.admin_ask("DELETE", &format!("/admin/keys/{}", text(&third["id"])), None).await;
    assert_eq!((revoked.status, &revoked.json()["state"]), (200, &json!("revoked")));
    let told = ask(&gateway, text(&third["key"]), "a").await.fault(401, "invalid_api_key");
    assert_eq!(told, ask(&gateway, "tv-never-made", "a").await.fault(401, "invalid_api_key"), "an ended key and an unknown one are told the same");
    refusal(&gateway.admin_ask("POST", &format!("/admin/keys/{}/rotate", text(&third["id"])), None).await, 409, "key_has_ended");
    assert_eq!(gateway.admin_ask("GET", "/admin/consumers", None).await.json()["consumers"][0]["active_keys"], 2, "the one of the configuration, and the one in its grace");
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_a_message() {
    let mock = Mock::start().await;
    let gateway = Running::start(TWO, &mock).await;
    let keys = "/admin/consumers/alice/keys";
    assert!(refusal(&gateway.admin_ask("POST", "/admin/consumers/nobody/keys", Some(&json!({}))).await, 404, "unknown_consumer").contains("\"nobody\""));
    refusal(&gateway.admin_ask("GET", "/admin/consumers/nobody", None).await, 404, "unknown_consumer");
    refusal(&gateway.admin_ask("DELETE", "/admin/keys/key_none", None).await, 404, "unknown_key");
    for (body, code, part) in [
        (json!({ "expires": "2020-01-01" }), "invalid_expires", "has passed"),
        (json!({ "expires": "soon" }), "invalid_expires", "30d"),
        (json!({ "expires": 30 }), "invalid_body", "expires"),
        (json!({ "nme": "x" }), "invalid_body", "unknown field `nme`"),
        (json!({ "name": "x".repeat(200) }), "invalid_name", "100 characters"),
        (json!([]), "invalid_body", "an object"),
    ] {
        let said = refusal(&gateway.admin_ask("POST", keys, Some(&body)).await, 422, code);
        assert!(said.contains(part), "{body}: {said}");
    }
    let bearer = format!("Bearer {}", gateway.token());
    let send = |kind: &'static str, body: Vec<u8>| {
        let (client, bearer): (Client, String) = (gateway.admin_client(), bearer.clone());
        async move { client.send("POST", keys, &[("authorization", &bearer), ("content-type", kind)], &body).await }
    };
    refusal(&send("application/json", b"{\"name\": \"x\"".to_vec()).await, 400, "invalid_json");
    refusal(&send("application/json", b"{} {}".to_vec()).await, 400, "invalid_json");
    refusal(&send("text/plain", b"name=x".to_vec()).await, 415, "not_json");
    refusal(&send("application/json", vec![b' '; 70_000]).await, 413, "body_too_large");
    assert_eq!(gateway.admin_ask("GET", "/admin/keys", None).await.json()["keys"], json!([]), "nothing came of it");
    gateway.client().chat("well").await.fault(401, "invalid_api_key");
}

#[tokio::test]
async fn keys_outlive_a_restart_and_their_consumer_does_not_outlive_the_configuration() {
    let mock = Mock::start().await;
    let mut first = Running::start(&format!("{TWO}# kept\n"), &mock).await;
    let one = made(&first, "alice", json!({})).await;
    let two = made(&first, "bob", json!({})).await;
    assert_eq!(first.admin_ask("DELETE", &format!("/admin/keys/{}", text(&two["id"])), None).await.status, 200);
    let data = first.folder().join("data");
    let moved = std::env::temp_dir().join(format!("trivium-keys-{}", std::process::id()));
    first.stopped().await;
    std::fs::rename(&data, &moved).unwrap();
    drop(first);
    let mut second = Running::start(&format!("{TWO}data: \"{}\"\n", moved.display()), &mock).await;
    ask(&second, text(&one["key"]), "a").await.answer();
    ask(&second, text(&two["key"]), "a").await.fault(401, "invalid_api_key");

    // The consumer is taken out of the file: the key is still known, and lets nobody in.
    second.rewrite(&format!("models: {{ a: well/a }}\nconsumers: {{ bob: {{}} }}\nauth: {{ anonymous: false }}\ndata: \"{}\"\n", moved.display()));
    let reloader = second.reloader.clone();
    tokio::task::spawn_blocking(move || reloader.reload().map_err(|p| said(&p)).unwrap()).await.unwrap();
    ask(&second, text(&one["key"]), "a").await.fault(401, "invalid_api_key");
    second.stopped().await;
    drop(second);

    std::fs::write(moved.join("keys.json"), "{ half").unwrap();
    let Err(problems) = Running::try_start(&format!("{TWO}data: \"{}\"\n", moved.display()), &mock).await else { panic!("a broken file was accepted") };
    assert!(said(&problems).contains("keys.json is damaged") && said(&problems).starts_with("data: "), "{}", said(&problems));
    let _ = std::fs::remove_dir_all(moved);
}

#[tokio::test]
async fn where_anyone_is_served_a_key_says_who_one_is() {
    let mock = Mock::start().await;
    let gateway = Running::start("models: { a: well/a }\nconsumers: { alice: {} }\nauth: { anonymous: true }\n", &mock).await;
    let key = made(&gateway, "alice", json!({})).await;
    ask(&gateway, text(&key["key"]), "a").await.answer();
    ask(&gateway, "none", "a").await.answer();
    assert_eq!(gateway.admin_ask("DELETE", &format!("/admin/keys/{}", text(&key["id"])), None).await.status, 200);
    ask(&gateway, text(&key["key"]), "a").await.fault(401, "invalid_api_key");
    ask(&gateway, "none", "a").await.answer();
    let consumers: Vec<String> = gateway.entries(4).await.iter().map(|e| text(&e["consumer"]).to_owned()).take(2).collect();
    assert_eq!(consumers, ["alice", "anonymous"]);
}

/// Asks with a key until the gateway answers with this status.
async fn until(gateway: &Running, key: &str, status: u16) {
    let began = Instant::now();
    while ask(gateway, key, "a").await.status != status {
        assert!(began.elapsed() < PATIENCE, "the other replica does not hear of it");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn replicas_on_one_redis_know_each_other_s_keys() {
    let (mock, server) = (Mock::start().await, Server::forgetful());
    let yaml = format!("{TWO}redis: {{ url: \"{}\", timeout: 2s }}\n", server.url());
    let (one, two) = (Running::start(&yaml, &mock).await, Running::start(&yaml, &mock).await);
    let key = made(&one, "alice", json!({})).await;
    ask(&one, text(&key["key"]), "a").await.answer();
    until(&two, text(&key["key"]), 200).await;
    // Each can end what the other has made.
    assert_eq!(two.admin_ask("DELETE", &format!("/admin/keys/{}", text(&key["id"])), None).await.status, 200);
    ask(&two, text(&key["key"]), "a").await.fault(401, "invalid_api_key");
    until(&one, text(&key["key"]), 401).await;
    assert!(!one.folder().join("data/keys.json").exists(), "with Redis nothing is kept on disk");
    // One that starts later knows what there is.
    let kept = made(&one, "bob", json!({})).await;
    let three = Running::start(&yaml, &mock).await;
    ask(&three, text(&kept["key"]), "a").await.answer();
}

#[tokio::test]
async fn while_redis_is_away_the_keys_hold_and_none_is_made() {
    let (mock, mut server) = (Mock::start().await, Server::forgetful());
    let gateway = Running::start(&format!("{TWO}redis: {{ url: \"{}\" }}\n", server.url()), &mock).await;
    let key = made(&gateway, "bob", json!({})).await;
    server.stop();
    ask(&gateway, text(&key["key"]), "a").await.answer();
    refusal(&gateway.admin_ask("POST", "/admin/consumers/bob/keys", None).await, 503, "keys_unavailable");
}

#[tokio::test]
async fn the_configuration_is_shown_without_its_secrets() {
    let mock = Mock::start().await;
    let yaml = "
providers:
  one: { kind: openai, base_url: \"http://user:hush-one@127.0.0.1:1/v1\", api_key: hush-two-secret, headers: { X-Team: hush-three, Authorization: Bearer hush-four } }
  two: { kind: bedrock, region: eu-central-1, aws: { access_key_id: AKIAEXAMPLE, secret_access_key: hush-five-secret, session_token: hush-six-secret } }
  three: { kind: azure, base_url: \"https://acme.openai.azure.com\", azure: { tenant_id: t, client_id: c, client_secret: hush-seven-secret } }
models: { m: { target: one/x, retry: { attempts: 3, on: [429] }, defaults: { api_token: hush-eight, temperature: 0.5 } } }
consumers: { alice: { keys: [hush-nine-key, { key: hush-ten-key, expires: 2099-01-31 }, { sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }], limits: [{ dollars: 2.5, per: 1d }] } }
telemetry: { otlp: \"http://127.0.0.1:1\", headers: { authorization: hush-eleven } }
";
    let gateway = Running::start(yaml, &mock).await;
    let response = gateway.admin_ask("GET", "/admin/config", None).await;
    let (text, body) = (response.text(), response.json());
    assert!(!text.contains("hush") && !text.contains("9f86d0") && !text.contains("sk-well-secret") && !text.contains(&gateway.token()), "{text}");
    let config = &body["config"];
    assert_eq!(config["providers"]["one"]["base_url"], "http://***@127.0.0.1:1/v1");
    assert_eq!(config["providers"]["one"]["headers"], json!({ "X-Team": "***", "Authorization": "***" }));
    assert_eq!(config["providers"]["two"]["aws"], json!({ "access_key_id": "AKIAEXAMPLE", "secret_access_key": "***", "session_token": "***" }));
    assert_eq!(config["models"]["m"], json!({ "target": "one/x", "retry": { "attempts": 3, "on": [429] }, "defaults": { "api_token": "***", "temperature": 0.5 } }));
    assert_eq!(config["consumers"]["alice"]["keys"], json!(["***", { "key": "***", "expires": "2099-01-31" }, { "sha256": "***" }]));
    assert_eq!(config["providers"]["well"]["api_key"], "***", "the other file is in it too");
    assert!(body["source"].as_str().is_some_and(|source| source.ends_with("config")), "{body}");
}

#[tokio::test]
async fn it_is_loaded_anew_and_a_bad_one_changes_nothing() {
    let mock = Mock::start().await;
    let gateway = Running::start("models: { old: well/x }", &mock).await;
    gateway.rewrite("models: { new: well/x }");
    assert_eq!(gateway.admin_ask("POST", "/admin/reload", None).await.json(), json!({ "reloaded": true }));
    gateway.client().chat("new").await.answer();
    assert!(gateway.admin_ask("GET", "/admin/config", None).await.json()["config"]["models"]["new"].is_string());

    gateway.rewrite("models: { newer: nowhere/x, odd: {} }");
    let response = gateway.admin_ask("POST", "/admin/reload", None).await;
    refusal(&response, 422, "invalid_configuration");
    let problems = response.json()["error"]["problems"].clone();
    let paths: Vec<&str> = problems.as_array().unwrap().iter().map(|p| text(&p["path"])).collect();
    assert_eq!(paths, ["models.newer.target", "models.odd"], "{problems}");
    gateway.client().chat("new").await.answer();
    assert!(gateway.admin_ask("GET", "/admin/config", None).await.json()["config"]["models"]["new"].is_string(), "what is shown is what is in force");
}

#[tokio::test]
async fn a_token_of_one_s_own_holds_from_the_reload_on() {
    let mock = Mock::start().await;
    let (first, second) = ("first-token-of-the-operator", "second-token-of-the-operator");
    let yaml = |token: &str| format!("consumers: {{}}\n# {token}\n");
    let gateway = Running::start(&yaml("none"), &mock).await;
    let with = |token: &'static str| {
        let client = gateway.admin_client();
        async move { client.send("POST", "/admin/reload", &[("authorization", &format!("Bearer {token}"))], b"").await.status }
    };
    assert_eq!((with(first).await, gateway.admin_ask("POST", "/admin/reload", None).await.status), (401, 200));
    let configure = |token: &str| {
        gateway.write("00-harness.yaml", &format!("listen: 127.0.0.1:0\nadmin: {{ listen: 127.0.0.1:0, token: {token} }}\ndata: \"{{{{folder}}}}/data\"\nproviders: {{ well: {{ kind: openai, base_url: \"{{{{mock}}}}/v1\", api_key: sk-well-secret }} }}\nmodels: {{ well: well/well }}\n"))
    };
    configure(first);
    assert_eq!(gateway.admin_ask("POST", "/admin/reload", None).await.status, 200);
    assert_eq!((with(first).await, gateway.admin_ask("POST", "/admin/reload", None).await.status), (200, 401), "the token that was made holds no more");
    configure(second);
    assert_eq!(with(first).await, 200);
    assert_eq!((with(first).await, with(second).await), (401, 200));
    configure("short");
    let response = gateway.admin_client().send("POST", "/admin/reload", &[("authorization", &format!("Bearer {second}"))], b"").await;
    assert_eq!((response.status, &response.json()["error"]["problems"][0]["path"]), (422, &json!("admin.token")));
}

#[tokio::test]
async fn without_a_file_the_api_is_closed_and_says_what_to_do() {
    let config = gateway::config::from_text("listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nproviders: { echo: { kind: echo } }\nlog: { audit: off }\ndata: /nowhere/at/all\n", &|_| None).unwrap();
    let gateway = gateway::serve::Gateway::bind(&config, None).await.map_err(|p| said(&p)).unwrap();
    let client = Client::new(gateway.admin_address().unwrap(), Arc::default());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(gateway.run(async { drop(stopped.await) }));
    let said = refusal(&client.send("GET", "/admin/consumers", &[("authorization", "Bearer anything-at-all-here")], b"").await, 503, "no_token");
    assert!(said.contains("trivium.yaml"), "{said}");
    assert_eq!((client.get("/").await.status, client.get("/healthz").await.status), (200, 200));
    drop(stop);
    running.await.unwrap();
}

#[tokio::test]
async fn a_breaker_is_seen_and_closed_by_hand() {
    let mock = Mock::start().await;
    let gateway =
        Running::start("models: { fragile: { target: well/fragile, fallback: [well/spare], retry: { attempts: 1 }, breaker: { failures: 1, cooldown: 1h } }, \"any-*\": \"well/any-*\" }", &mock).await;
    mock.on("fragile", [Behaviour::error(500, "down"), Behaviour::Usual]);
    gateway.client().chat("fragile").await.answer();
    let targets = gateway.admin_ask("GET", "/admin/targets", None).await.json()["targets"].clone();
    let line = |to: &str| targets.as_array().unwrap().iter().find(|t| t["to"] == to).unwrap().clone();
    let (fragile, spare) = (line("well/fragile"), line("well/spare"));
    assert_eq!((&fragile["breaker"], &fragile["fallback"], &spare["breaker"], &spare["fallback"]), (&json!("open"), &json!(false), &json!("closed"), &json!(true)));
    assert!(
        fragile["open_for_ms"].as_u64().is_some_and(|ms| ms > 3_000_000) && spare["latency_ms"].as_f64().is_some_and(|ms| ms > 0.0) && spare["tokens"].as_u64().is_some_and(|n| n > 0),
        "{targets}"
    );
    gateway.client().chat("fragile").await.answer();
    assert_eq!(mock.asked("fragile").len(), 1, "it is left alone");
    gateway.client().chat("any-one").await.answer();
    let any = gateway.admin_ask("GET", "/admin/targets", None).await.json()["targets"].as_array().unwrap().iter().find(|t| t["to"] == "well/any-*").unwrap().clone();
    assert_eq!((&any["models"][0]["model"], &any["models"][0]["breaker"], &any["tokens"]), (&json!("one"), &json!("closed"), &any["models"][0]["tokens"]));

    let closed = gateway.admin_ask("POST", "/admin/targets/close", Some(&json!({ "target": fragile["target"] }))).await;
    assert_eq!((closed.status, &closed.json()["breaker"]), (200, &json!("closed")));
    gateway.client().chat("fragile").await.answer();
    assert_eq!(mock.asked("fragile").len(), 2, "it is asked again at once");
    refusal(&gateway.admin_ask("POST", "/admin/targets/close", Some(&json!({ "target": "no → where" }))).await, 404, "unknown_target");
    refusal(&gateway.admin_ask("POST", "/admin/targets/close", None).await, 422, "invalid_body");
}

#[tokio::test]
async fn the_description_tells_of_everything_that_is_there() {
    let mock = Mock::start().await;
    let gateway = Running::start(TWO, &mock).await;
    let api = gateway.admin_ask("GET", "/admin/openapi.json", None).await.json();
    let paths = api["paths"].as_object().unwrap();
    assert!(paths.len() >= 12, "{:?}", paths.keys());
    for (path, operations) in paths {
        for (method, operation) in operations.as_object().unwrap() {
            assert!(operation["responses"]["401"].is_object() && operation["summary"].is_string(), "{method} {path}");
            let real = path.replace("{name}", "alice").replace("{id}", "key_none");
            let response = gateway.admin_ask(&method.to_uppercase(), &real, None).await;
            assert!(operation["responses"][response.status.to_string()].is_object(), "{method} {path} answers {}, which is not described: {}", response.status, response.text());
        }
    }
    // What it names is in it.
    let whole = api.to_string();
    for name in whole.split("#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(api["components"]["schemas"][name].is_object(), "{name} is named and not described");
    }
    assert_eq!(api["components"]["securitySchemes"]["token"]["scheme"], "bearer");
}

#[tokio::test]
async fn the_pages_ask_nobody_else_for_anything() {
    let mock = Mock::start().await;
    let gateway = Running::start("", &mock).await;
    let page = gateway.admin_client().get("/").await;
    let (policy, html) = (page.header("content-security-policy").unwrap().to_owned(), page.text());
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-") && !policy.contains("unsafe"), "{policy}");
    assert_eq!((page.header("x-content-type-options"), page.header("referrer-policy")), (Some("nosniff"), Some("no-referrer")));
    assert!(html.contains("<script>\"use strict\";") && !html.contains("/* script */") && !html.contains("/* style */"));
    for elsewhere in ["src=\"", "href=\"http", "@import", "innerHTML", "insertAdjacentHTML", "eval("] {
        assert!(!html.contains(elsewhere), "{elsewhere}");
    }
    let docs = gateway.admin_client().get("/docs/").await;
    assert!(docs.status == 200 && docs.header("content-security-policy").is_some_and(|p| p.contains("default-src 'none'")));
    for part in ["swagger-ui-bundle.js", "swagger-initializer.js", "swagger-ui.css"] {
        assert_eq!(gateway.admin_client().get(&format!("/docs/{part}")).await.status, 200, "{part}");
    }
    refusal(&gateway.admin_client().get("/docs/nothing.js").await, 404, "unknown_path");
    assert_eq!(gateway.admin_client().get("/docs").await.header("location"), Some("/docs/"));
}
