//! Where nobody needs a key, any page in a browser on the same machine could spend: what such a page can send is refused.

use serde_json::json;
use tests::client::{Response, chat};
use tests::{Mock, Running};

const CHAT: &str = "/v1/chat/completions";
const JSON: (&str, &str) = ("content-type", "application/json");
const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=xx");
const EDIT: &[u8] = b"--xx\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nwell\r\n--xx--\r\n";

async fn post(gateway: &Running, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
    gateway.client().send("POST", path, headers, body).await
}

#[tokio::test]
async fn a_page_of_somebody_else_is_refused() {
    let mock = Mock::start().await;
    let gateway = Running::start("", &mock).await;
    let body = chat("well").to_string();
    for origin in ["http://evil.example", "https://evil.example:8443", "null", "http://localhost.evil.example", "http://127.0.0.1.evil.example", "http://10.0.0.1", "http://wiki.internal", "nonsense"]
    {
        let message = post(&gateway, CHAT, &[JSON, ("origin", origin)], body.as_bytes()).await.fault(403, "origin_not_allowed");
        assert!(message.contains("`consumers`"), "{message}");
        post(&gateway, "/v1/images/edits", &[FORM, ("origin", origin)], EDIT).await.fault(403, "origin_not_allowed");
        post(&gateway, "/v1/files", &[FORM, ("origin", origin)], EDIT).await.fault(403, "origin_not_allowed");
        assert_eq!(gateway.client().send("GET", "/v1/models", &[("origin", origin)], b"").await.status, 403);
        assert_eq!(gateway.client().send("GET", "/v1/usage", &[("origin", origin)], b"").await.status, 403);
    }
    assert_eq!(mock.received().len(), 0);
    // Told in the words of the door.
    let claude = json!({ "model": "well", "max_tokens": 5, "messages": [{ "role": "user", "content": "x" }] }).to_string();
    let refused = post(&gateway, "/v1/messages", &[JSON, ("origin", "http://evil.example")], claude.as_bytes()).await;
    assert_eq!((refused.status, &refused.json()["error"]["type"]), (403, &json!("permission_error")));
    for origin in ["http://localhost", "http://localhost:3000", "https://127.0.0.1:8443", "http://127.8.9.10", "http://[::1]:5173"] {
        post(&gateway, CHAT, &[JSON, ("origin", origin)], body.as_bytes()).await.answer();
    }
}

#[tokio::test]
async fn a_name_that_was_bent_to_this_machine_is_refused() {
    let mock = Mock::start().await;
    let gateway = Running::start("", &mock).await;
    let body = chat("well").to_string();
    for host in ["evil.example", "evil.example:8080", "localhost.evil.example", "printer.local:8080"] {
        let origins = [format!("http://{host}"), format!("https://{host}")];
        for (headers, code) in [
            (vec![JSON, ("host", host)], "host_not_allowed"),
            (vec![JSON, ("host", host), ("origin", &origins[0])], "origin_not_allowed"),
            (vec![JSON, ("host", host), ("origin", &origins[1])], "host_not_allowed"),
        ] {
            let message = post(&gateway, CHAT, &headers, body.as_bytes()).await.fault(403, code);
            assert!(message.contains("`consumers`"), "{message}");
        }
        assert_eq!(gateway.client().send("GET", "/v1/models", &[("host", host)], b"").await.status, 403);
        for path in ["/metrics", "/status"] {
            assert_eq!(gateway.admin_client().send("GET", path, &[("host", host)], b"").await.status, 403, "{path} {host}");
        }
        assert_eq!(gateway.admin_client().send("GET", "/healthz", &[("host", host)], b"").await.status, 200);
    }
    assert_eq!(mock.received().len(), 0);
    for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "127.9.9.9", "[::1]:8080", "10.0.0.1:8080", "host.docker.internal:8080"] {
        post(&gateway, CHAT, &[JSON, ("host", host)], body.as_bytes()).await.answer();
        assert_eq!(gateway.admin_client().send("GET", "/status", &[("host", host)], b"").await.status, 200, "{host}");
    }
}

#[tokio::test]
async fn who_shows_a_key_comes_from_where_it_likes() {
    let mock = Mock::start().await;
    let gateway = Running::start("models: { a: well/a }\nconsumers: { alice: { keys: [key-of-alice] } }\nauth: { anonymous: true }\n", &mock).await;
    let body = chat("a").to_string();
    let far = [JSON, ("host", "llm.example.com"), ("origin", "https://app.example.com")];
    post(&gateway, CHAT, &[&far[..], &[("authorization", "Bearer key-of-alice")]].concat(), body.as_bytes()).await.answer();
    post(&gateway, CHAT, &far, body.as_bytes()).await.fault(403, "origin_not_allowed");
}
