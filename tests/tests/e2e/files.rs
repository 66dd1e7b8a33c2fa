//! Files and batches belong to the provider's account: who may use them, and in what form.

use serde_json::json;
use tests::client::Response;
use tests::{Mock, Running};

const JSON: (&str, &str) = ("content-type", "application/json");
const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=xx");
const UPLOAD: &[u8] = b"--xx\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--xx--\r\n";
const BATCH: &[u8] = br#"{"input_file_id":"file-1","endpoint":"/v1/chat/completions","completion_window":"24h"}"#;

const SEVERAL: &str = "
models: { a: well/a, b: { target: well/b, deny: [trusted] } }
consumers:
  plain: { keys: [key-of-plain] }
  filer: { keys: [key-of-filer], files: true, models: [well] }
  member: { keys: [key-of-member], groups: [ops] }
  free: { keys: [key-of-free1], files: true }
groups: { ops: { files: true } }
";

async fn ask(gateway: &Running, key: &str, method: &str, path: &str, content_type: (&str, &str), body: &[u8]) -> Response {
    let bearer = format!("Bearer {key}");
    gateway.client().send(method, path, &[content_type, ("authorization", &bearer)], body).await
}

#[tokio::test]
async fn who_may_not_use_files_sees_and_deletes_nobodys() {
    let mock = Mock::start().await;
    let gateway = Running::start(&SEVERAL.replace(", b: { target: well/b, deny: [trusted] }", ""), &mock).await;
    for (method, path, content_type, body) in [
        ("GET", "/v1/files", JSON, &b""[..]),
        ("GET", "/v1/files/file-1/content", JSON, b""),
        ("DELETE", "/v1/files/file-1", JSON, b""),
        ("POST", "/v1/files", FORM, UPLOAD),
        ("GET", "/v1/batches", JSON, b""),
        ("POST", "/v1/batches", JSON, BATCH),
        ("POST", "/v1/batches/batch_1/cancel", JSON, b""),
    ] {
        let message = ask(&gateway, "key-of-plain", method, path, content_type, body).await.fault(403, "files_not_allowed");
        assert!(message.contains("`files: true`"), "{message}");
        assert_eq!(mock.received().len(), 0, "{method} {path}");
    }
    for key in ["key-of-filer", "key-of-member", "key-of-free1"] {
        assert_eq!(ask(&gateway, key, "GET", "/v1/files", JSON, b"").await.status, 200, "{key}");
        assert_eq!(ask(&gateway, key, "POST", "/v1/files", FORM, UPLOAD).await.status, 200, "{key}");
    }
}

#[tokio::test]
async fn a_batch_may_name_any_model_and_so_is_not_for_who_may_use_some_only() {
    let mock = Mock::start().await;
    let gateway = Running::start(&SEVERAL.replace("trusted", "free"), &mock).await;
    let message = ask(&gateway, "key-of-filer", "POST", "/v1/batches", JSON, BATCH).await.fault(403, "batch_not_allowed");
    assert!(message.contains("any model"), "{message}");
    // A model that is denied to somebody restricts as well as a list of some.
    ask(&gateway, "key-of-free1", "POST", "/v1/batches", JSON, BATCH).await.fault(403, "batch_not_allowed");
    assert_eq!(mock.received().len(), 0);
    assert_eq!(ask(&gateway, "key-of-member", "POST", "/v1/batches", JSON, BATCH).await.status, 200);
    // Looking at batches and ending one names no model.
    assert_eq!(ask(&gateway, "key-of-filer", "GET", "/v1/batches/batch_1", JSON, b"").await.status, 200);
    assert_eq!(ask(&gateway, "key-of-filer", "POST", "/v1/batches/batch_1/cancel", JSON, b"").await.status, 200);
}

#[tokio::test]
async fn who_has_no_key_may_use_them_as_long_as_nobody_has_one() {
    let mock = Mock::start().await;
    let alone = Running::start("models: { a: well/a }\n", &mock).await;
    let client = alone.client();
    assert_eq!(client.get("/v1/files").await.status, 200);
    assert_eq!(client.send("POST", "/v1/files", &[FORM], UPLOAD).await.status, 200);
    assert_eq!(client.post_bytes("/v1/batches", BATCH).await.status, 200);
    let among = Running::start("models: { a: well/a }\nconsumers: { alice: { keys: [key-of-alice] } }\nauth: { anonymous: true }\n", &mock).await;
    among.client().get("/v1/files").await.fault(403, "files_not_allowed");
}

#[tokio::test]
async fn what_is_posted_is_in_the_form_that_the_path_takes() {
    let mock = Mock::start().await;
    let gateway = Running::start("models: { a: well/a }\n", &mock).await;
    for (path, content_type, body) in [
        ("/v1/batches", ("content-type", "text/plain"), BATCH),
        ("/v1/batches", FORM, BATCH),
        ("/v1/batches", ("x-none", "x"), BATCH),
        ("/v1/files", JSON, b"{}"),
        ("/v1/files", ("content-type", "application/x-www-form-urlencoded"), b"purpose=batch"),
    ] {
        gateway.client().send("POST", path, &[content_type], body).await.fault(415, "unsupported_media_type");
    }
    assert_eq!(mock.received().len(), 0);
    // What has no body has no form either.
    assert_eq!(gateway.client().send("POST", "/v1/batches/batch_1/cancel", &[], b"").await.status, 200);
    let list = json!({ "object": "list" });
    assert!(gateway.client().get("/v1/files").await.json()["object"] == list["object"]);
}
