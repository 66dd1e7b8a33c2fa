//! Who guesses keys learns nothing: whatever is wrong with one, the answer is the same to the byte.

use serde_json::json;
use tests::client::{Response, request};
use tests::{Mock, Running};

/// All of a response but its date.
fn seen(response: &Response) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let headers = response.head.headers.iter().filter(|(name, _)| name != "date").cloned().collect();
    (response.status, headers, response.body.to_vec())
}

#[tokio::test]
async fn wrong_keys_are_all_alike() {
    let mock = Mock::start().await;
    let yaml = "
consumers:
  alice: { keys: [tv-key-of-alice, { key: tv-key-of-yesterday, expires: 2020-01-01 }] }
  bob: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\", expires: \"2020-01-01T00:00:00Z\" }] }
";
    let gateway = Running::start(yaml, &mock).await;
    // Ended, nearly right, not at all, one character, very long, and something like a token.
    let keys = [
        "tv-key-of-yesterday",
        "test",
        "tv-key-of-alicf",
        "tv-key-of-alice2",
        "tv-key-of-alic",
        "nobody",
        "x",
        &"k".repeat(20_000),
        "eyJhbGciOiJub25lIn0.e30.",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    ];
    let body = json!({ "model": "well", "max_tokens": 5, "messages": [{ "role": "user", "content": "hi" }] }).to_string();
    let places = [
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/responses"),
        ("POST", "/v1/messages"),
        ("POST", "/v1beta/models/well:generateContent"),
        ("POST", "/v1/audio/transcriptions"),
        ("GET", "/v1/files"),
        ("GET", "/v1/models"),
        ("GET", "/v1/usage"),
    ];
    for (method, path) in places {
        for header in ["authorization", "x-api-key"] {
            let mut first = None;
            for key in keys {
                let value = if header == "authorization" { format!("Bearer {key}") } else { key.to_owned() };
                let headers = [("content-type", "application/json"), ("x-request-id", "the-same"), (header, &value)];
                let mut connection = gateway.client().connect().await;
                connection.write(&request(method, path, &headers, if method == "POST" { body.as_bytes() } else { b"" })).await;
                let response = connection.response().await;
                assert_eq!(response.status, 401, "{path}: {}", response.text());
                assert_eq!(response.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
                let seen = seen(&response);
                assert_eq!(*first.get_or_insert(seen.clone()), seen, "{path} with {key:.40}");
            }
        }
    }
    assert_eq!(mock.received().len(), 0);
    let bearer = [("authorization", "Bearer tv-key-of-alice"), ("content-type", "application/json")];
    assert_eq!(gateway.client().send("POST", "/v1/chat/completions", &bearer, body.as_bytes()).await.status, 200);
}
