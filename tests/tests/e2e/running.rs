//! The running process: reload, drain, TLS, and what is wrong with a configuration.

use std::sync::Arc;

use serde_json::json;
use tests::client::{PATIENCE, chat, joined, request, streamed};
use tests::harness::said;
use tests::{Client, Connection, Gate, Mock, Running, Stream};
use tokio_rustls::TlsConnector;

const CHAT: &str = "/v1/chat/completions";
const DONE: &str = "data: [DONE]\n\n";

async fn start(yaml: &str) -> (Mock, Running) {
    let mock = Mock::start().await;
    let gateway = Running::start(yaml, &mock).await;
    (mock, gateway)
}

fn chunk(text: &str) -> String {
    format!("data: {}\n\n", json!({ "choices": [{ "index": 0, "delta": { "content": text }, "finish_reason": null }] }))
}

/// Reloads as SIGHUP does; the problems, if there are any.
async fn reload(gateway: &Running) -> Option<String> {
    let reloader = gateway.reloader.clone();
    tokio::task::spawn_blocking(move || reloader.reload().err().map(|problems| said(&problems))).await.unwrap()
}

#[tokio::test]
async fn a_good_configuration_swaps_and_a_bad_one_changes_nothing() {
    let (_mock, gateway) = start("models: { old: well/x }").await;
    gateway.client().chat("old").await.answer();
    gateway.rewrite("models: { new: well/x }");
    gateway.client().chat("new").await.fault(404, "model_not_found");
    assert_eq!(reload(&gateway).await, None);
    gateway.client().chat("new").await.answer();
    gateway.client().chat("old").await.fault(404, "model_not_found");

    for bad in ["models: { newer: nowhere/x }", "models: [", "modles: {}", "models: { newer: well/x }\nproviders: { x: { kind: unheard-of } }"] {
        gateway.rewrite(bad);
        assert!(reload(&gateway).await.is_some_and(|problems| !problems.is_empty()), "{bad}");
        gateway.client().chat("new").await.answer();
        gateway.client().chat("newer").await.fault(404, "model_not_found");
    }
    gateway.serves().await;
}

#[tokio::test]
async fn a_change_of_the_file_is_noticed() {
    let (_mock, gateway) = start("models: { old: well/x }").await;
    gateway.rewrite("models: { a-new-one: well/x }");
    let noticed = async {
        while gateway.client().chat("a-new-one").await.status != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, noticed).await.expect("the change is noticed");
}

#[tokio::test]
async fn a_stream_outlives_the_rules_it_began_under() {
    let (mock, gateway) =
        start("providers: { gone: { kind: openai, base_url: \"{{mock}}/v1\", api_key: sk-gone-secret } }\nmodels: { gone: gone/gone }\nprices: { gone/gone: { input: 1, output: 1 } }\n").await;
    let gate = Gate::new();
    let usage = format!("data: {}\n\n", json!({ "choices": [], "usage": { "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5 } }));
    mock.on("gone", [Stream::sse().send(chunk("before ")).wait(&gate).send(chunk("after")).send(usage).send(DONE).into()]);
    let mut events = gateway.client().stream(&streamed("gone")).await;
    assert_eq!(joined(&[events.data().await.unwrap()]), "before ");
    gateway.rewrite("models: { other: well/x }");
    assert_eq!(reload(&gateway).await, None);
    gateway.client().chat("gone").await.fault(404, "model_not_found");
    gate.open();
    let rest = events.rest().await;
    assert_eq!((joined(&rest).as_str(), rest.last().map(String::as_str)), ("after", Some("[DONE]")));
    let entries = gateway.entries(2).await;
    assert!(entries.iter().any(|e| e["model"] == "gone" && e["status"] == 200 && e["cost"] == json!(0.000005)), "{entries:?}");
}

#[tokio::test]
async fn what_is_known_of_targets_outlives_a_reload() {
    let (mock, gateway) = start("models: { fragile: { target: well/fragile, retry: { attempts: 1 }, breaker: { failures: 1, cooldown: 1h } } }").await;
    mock.on("fragile", [tests::Behaviour::error(500, "down")]);
    gateway.client().chat("fragile").await.fault(502, "");
    assert_eq!(reload(&gateway).await, None);
    gateway.client().chat("fragile").await.fault(503, "all_targets_down");
}

#[tokio::test]
async fn draining_finishes_streams_and_takes_no_more() {
    let (mock, mut gateway) = start("").await;
    let gate = Gate::new();
    mock.on("well", [Stream::sse().send(chunk("before ")).wait(&gate).send(chunk("after")).send(DONE).into(), tests::Behaviour::Usual]);
    let mut idle = gateway.client().connect().await;
    let mut events = gateway.client().stream(&streamed("well")).await;
    assert_eq!(joined(&[events.data().await.unwrap()]), "before ");
    // A connection that has served before and is kept.
    idle.write(&request("POST", CHAT, &[("content-type", "application/json")], chat("well").to_string().as_bytes())).await;
    idle.response().await.answer();

    gateway.drain();
    let draining = async {
        while gateway.admin_client().get("/readyz").await.status != 503 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, draining).await.expect("readiness goes off");
    assert_eq!(gateway.admin_client().get("/healthz").await.status, 200);
    assert!(tokio::net::TcpStream::connect(gateway.address).await.is_err(), "the listener is closed");
    idle.write(&request("POST", CHAT, &[("content-type", "application/json")], chat("well").to_string().as_bytes())).await;
    assert!(idle.try_head().await.is_none_or(|head| head.status == 503), "a kept connection takes no more requests");

    gate.open();
    let rest = events.rest().await;
    assert_eq!((joined(&rest).as_str(), rest.last().map(String::as_str)), ("after", Some("[DONE]")));
    drop(events);
    gateway.stopped().await;
    assert!(gateway.ledger(2).await.contains("\"stream\":true"), "what was in flight is in the ledger");
}

#[tokio::test]
async fn the_grace_time_ends() {
    let (mock, mut gateway) = start("drain: 300ms").await;
    mock.on("well", [Stream::sse().send(chunk("before ")).hang().into()]);
    let mut events = gateway.client().stream(&streamed("well")).await;
    events.data().await.unwrap();
    gateway.stopped().await;
}

/// Certificate and key for `localhost`, in PEM.
fn certificate(gateway_folder: &std::path::Path) -> rustls::pki_types::CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::create_dir_all(gateway_folder).unwrap();
    std::fs::write(gateway_folder.join("tls.crt"), made.cert.pem()).unwrap();
    std::fs::write(gateway_folder.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
    made.cert.der().clone()
}

async fn secured(client: &Client, root: &rustls::pki_types::CertificateDer<'static>) -> Result<Connection, std::io::Error> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(client.address()).await?;
    let stream = TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await?;
    Ok(client.over(stream))
}

#[tokio::test]
async fn tls_on_the_listener() {
    let folder = std::env::temp_dir().join(format!("trivium-tls-{}", std::process::id()));
    let first = certificate(&folder);
    let yaml = format!("tls: {{ cert: \"{0}/tls.crt\", key: \"{0}/tls.key\" }}", folder.display());
    let (_mock, gateway) = start(&yaml).await;
    let ask = request("POST", CHAT, &[("content-type", "application/json")], chat("well").to_string().as_bytes());
    let mut connection = secured(&gateway.client(), &first).await.unwrap();
    connection.write(&ask).await;
    connection.response().await.answer();
    // Without TLS nothing is served, and the next client is none the worse for it.
    let mut plain = gateway.client().connect().await;
    plain.write(&ask).await;
    assert!(plain.is_closed().await || plain.try_head().await.is_none());

    let second = certificate(&folder);
    assert_eq!(reload(&gateway).await, None);
    assert!(secured(&gateway.client(), &first).await.is_err(), "the certificate was renewed");
    let mut renewed = secured(&gateway.client(), &second).await.unwrap();
    renewed.write(&ask).await;
    renewed.response().await.answer();
    // The connection from before lives on.
    connection.write(&ask).await;
    connection.response().await.answer();
    let _ = std::fs::remove_dir_all(folder);
}

#[tokio::test]
async fn all_that_is_wrong_is_said_at_once() {
    let mock = Mock::start().await;
    let yaml = "
tls: { cert: /nowhere/tls.crt, key: /nowhere/tls.key }
providers:
  openai: { kind: openai, api_key: sk-openai-secret }
  odd: { kind: opnai }
  place: { kind: openai, base_url: \"not a url\", api_key: sk-place-secret }
models:
  fast: { targets: [openai/gpt-4o, anthropc/claude] }
  none: {}
  both: { target: openai/x, targets: [openai/y] }
  retry: { target: openai/x, retry: { on: [sometimes] } }
  prompt: { target: openai/x, prompt: { template: missing } }
prices: { unknown/x: { input: 1, output: 1 }, openai/prod: openai/gpt-4oo }
";
    let Err(problems) = Running::try_start(yaml, &mock).await else { panic!("accepted") };
    let text = said(&problems);
    for part in [
        "tls.cert: ",
        "providers.odd.kind: unknown kind \"opnai\"; did you mean `openai`? known: ",
        "providers.place.base_url: ",
        "models.fast.targets[1].model: no provider \"anthropc\"; known: odd, openai, place, well",
        "models.none: ",
        "models.both: ",
        "models.retry.retry.on[0]: ",
        "models.prompt.prompt.template: ",
        "prices.unknown/x: no provider",
        "prices.openai/prod: the built-in table has no \"openai/gpt-4oo\"",
        "nearest: openai/gpt-4o",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    assert!(!text.contains("secret"), "{text}");
    // Each problem is said once.
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    let count = lines.len();
    lines.dedup();
    assert_eq!(lines.len(), count, "{text}");
}

#[tokio::test]
async fn many_connections_wait_their_turn() {
    let (_mock, gateway) = start("limits: { connections: 2 }").await;
    let first = gateway.client().connect().await;
    let mut second = gateway.client().connect().await;
    let ask = request("POST", CHAT, &[("content-type", "application/json")], chat("well").to_string().as_bytes());
    second.write(&ask).await;
    second.response().await.answer();
    let mut third = gateway.client().connect().await;
    third.write(&ask).await;
    drop(first);
    third.response().await.answer();
}
