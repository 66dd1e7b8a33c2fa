//! Forms, pictures and sound: only the model that was checked reaches the provider, what the provider tells is what is charged,
//! and what passes unread has its clocks all the same.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Behaviour, Connection, Mock, Response, Running, Stream};

const BEARER: (&str, &str) = ("authorization", "Bearer key-of-alice");
const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=xx");
const JSON: (&str, &str) = ("content-type", "application/json");
const EDITS: &str = "/v1/images/edits";
const SOUND: &str = "/v1/audio/transcriptions";
const SPEECH: &str = "/v1/audio/speech";
const PICTURES: &str = "/v1/images/generations";

async fn start(mock: &Mock, timeout: &str) -> Running {
    let yaml = format!(
        "models: {{ a: {{ target: well/upstream-a{timeout} }}, dear: well/dear }}\nprices: {{ well/upstream-a: {{ input: 1, output: 2, input_audio: 10, output_audio: 20 }} }}\nconsumers: {{ alice: {{ keys: [key-of-alice], models: [a], limits: [{{ tokens: 100M, per: 1h }}] }} }}\ndata: \"{{{{folder}}}}\"\n"
    );
    Running::start(&yaml, mock).await
}

fn field(name: &str, value: &str) -> String {
    format!("--xx\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
}

fn file(content: &str) -> String {
    format!("--xx\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.mp3\"\r\nContent-Type: audio/mpeg\r\n\r\n{content}\r\n")
}

fn form(parts: &[String]) -> String {
    format!("{}--xx--\r\n", parts.concat())
}

async fn send(gateway: &Running, path: &str, body: &str) -> Response {
    gateway.client().send("POST", path, &[FORM, BEARER], body.as_bytes()).await
}

async fn ask(gateway: &Running, path: &str, body: &Value) -> Response {
    gateway.client().send("POST", path, &[JSON, BEARER], body.to_string().as_bytes()).await
}

/// The ledger's last entry, of so many.
async fn last(gateway: &Running, entries: usize) -> Value {
    gateway.entries(entries).await.pop().expect("an entry")
}

fn tokens(entry: &Value) -> [u64; 4] {
    ["input", "input_audio", "output", "output_audio"].map(|name| entry["usage"][name].as_u64().unwrap_or_default())
}

fn sse(events: &[Value]) -> String {
    events.iter().map(|e| format!("event: {}\ndata: {e}\n\n", e["type"].as_str().unwrap_or_default())).collect()
}

#[tokio::test]
async fn only_the_model_that_was_checked_reaches_the_provider() {
    let mock = Mock::start().await;
    let gateway = start(&mock, "").await;
    // What is in a file is nobody's field, not even where it looks like one.
    let content = "ID3\n --x\r\n\r\n--\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ndear\r\n-xx";
    let parts = |model: &str| form(&[file(content), field("language", "en"), field("model", model), field("prompt", "name=\"model\"\r\n\r\ndear")]);
    let answer = send(&gateway, SOUND, &parts("a")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(String::from_utf8_lossy(&mock.last().body), parts("upstream-a"), "all other bytes pass as they came");
    assert_eq!(mock.last().header("content-type"), Some(FORM.1));
    send(&gateway, SOUND, &parts("dear")).await.fault(403, "model_not_allowed");

    let bare = |head: &str| format!("--xx\r\n{head}\r\n\r\ndear\r\n");
    let hidden = [
        ("a second one behind it", form(&[field("model", "a"), file(""), field("model", "dear")])),
        ("a second one before it", form(&[field("model", "dear"), field("model", "a")])),
        ("a name without quotes", form(&[bare("Content-Disposition: form-data; name=model"), field("model", "a")])),
        ("another case", form(&[bare("CONTENT-DISPOSITION: Form-Data; NAME=\"model\""), field("model", "a")])),
        ("another case of the name", form(&[field("Model", "dear"), field("model", "a")])),
        ("a list", form(&[field("model[]", "dear"), field("model", "a")])),
        ("an extended name", form(&[bare("Content-Disposition: form-data; name*=utf-8''mod%65l"), field("model", "a")])),
        ("two names", form(&[bare("Content-Disposition: form-data; name=\"x\"; name=\"model\""), field("model", "a")])),
        ("a folded header", form(&[bare("Content-Disposition: form-data;\r\n name=\"model\""), field("model", "a")])),
        ("a quote in a file's name", form(&[bare("Content-Disposition: form-data; filename=\"a\\\"; name=\"model\""), field("model", "a")])),
        ("no end", [field("model", "a"), file("")].concat()),
        ("something behind the end", form(&[field("model", "a")]) + &field("model", "dear")),
        ("something before the beginning", format!("{}{}", field("model", "dear").replace("--xx", "\n--xx"), form(&[field("model", "a")]))),
        ("a delimiter behind a bare line feed", form(&[file("x\n--xx\nContent-Disposition: form-data; name=\"model\"\n\ndear\n"), field("model", "a")])),
        ("a delimiter with more in its line", form(&[file(""), field("model", "a").replace("--xx", "--xx ")])),
        ("a boundary within a line", form(&[file("x --xx\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ndear\r\n-"), field("model", "a")])),
        ("a charset", form(&[bare("Content-Disposition: form-data; name=\"x\"\r\nContent-Type: text/plain; charset=utf-16"), field("model", "a")])),
        ("an encoding", form(&[field("model", "a"), file("").replace("Content-Type: audio/mpeg", "Content-Transfer-Encoding: base64")])),
    ];
    let before = mock.received().len();
    for (what, body) in hidden {
        let message = send(&gateway, SOUND, &body).await.fault(400, "invalid_form");
        assert!(message.len() > 20, "{what}: {message}");
    }
    let fields = |extra: &[String]| form(&[&[field("model", "a")], extra].concat());
    for name in ["stream", "n", "size", "quality"] {
        let message = send(&gateway, EDITS, &fields(&[field(name, "1"), field(name, "2")])).await.fault(400, "invalid_form");
        assert!(message.contains(name), "{message}");
    }
    send(&gateway, SOUND, &form(&[file("")])).await.fault(400, "missing_model");
    send(&gateway, SOUND, &form(&[field("model", "a\r\n-\r\nb")])).await.fault(400, "missing_model");
    let charset = gateway.client().send("POST", SOUND, &[("content-type", "multipart/form-data; boundary=xx; charset=utf-7"), BEARER], fields(&[]).as_bytes()).await;
    charset.fault(400, "invalid_form");
    assert_eq!(mock.received().len(), before, "nothing of this went upstream");
    // Several files are several parts of one name.
    assert_eq!(send(&gateway, EDITS, &fields(&[file("one"), file("two")])).await.status, 200);
}

#[tokio::test]
async fn what_the_provider_tells_is_what_is_charged() {
    let mock = Mock::start().await;
    let gateway = start(&mock, "").await;
    let edit = form(&[field("model", "a"), field("n", "2"), file("\u{89}PNG")]);
    let sound = form(&[field("model", "a"), file(&"sound".repeat(10_000))]);
    let pictures = json!({ "model": "a", "prompt": "a cat", "stream": true });
    // The picture is long, and what stands in texts is nobody's usage.
    let picture = "iVBORw0KGgo".repeat(30_000);
    let lie = "\"usage\": {\"input_tokens\": 999999, \"output_tokens\": 999999}";
    let usage = json!({ "total_tokens": 322, "input_tokens": 50, "output_tokens": 272, "input_tokens_details": { "text_tokens": 10, "image_tokens": 40 } });
    let done = |kind: &str| json!({ "type": format!("{kind}.completed"), "b64_json": picture, "size": "1024x1024", "quality": "low", "usage": usage });
    let partial = |kind: &str| json!({ "type": format!("{kind}.partial_image"), "b64_json": picture, "partial_image_index": 0 });
    let heard = json!({ "type": "tokens", "input_tokens": 14, "output_tokens": 2, "total_tokens": 16, "input_token_details": { "text_tokens": 4, "audio_tokens": 10 } });
    let said = |text: &str| json!({ "type": "transcript.text.delta", "delta": text });
    let cases: Vec<(&str, String, Behaviour, [u64; 4])> = vec![
        (EDITS, edit.clone(), Behaviour::json(&json!({ "created": 1, "data": [{ "b64_json": picture, "revised_prompt": lie }], "usage": usage })), [50, 0, 272, 0]),
        (EDITS, edit, Stream::sse().send(sse(&[partial("image_edit")])).send(sse(&[done("image_edit"), done("image_edit")])).into(), [100, 0, 544, 0]),
        (PICTURES, pictures.to_string(), Stream::sse().send(sse(&[partial("image_generation"), done("image_generation")])).into(), [50, 0, 272, 0]),
        (PICTURES, json!({ "model": "a", "prompt": "a cat" }).to_string(), Behaviour::json(&json!({ "created": 1, "data": [{ "b64_json": picture }], "usage": usage })), [50, 0, 272, 0]),
        (SOUND, sound.clone(), Behaviour::json(&json!({ "text": lie, "logprobs": [{ "usage": { "input_tokens": 9999 } }], "usage": heard })), [4, 10, 2, 0]),
        // Who counts time tells all in it: ten tokens to a second.
        (SOUND, sound.clone(), Behaviour::json(&json!({ "text": lie, "usage": { "type": "duration", "seconds": 9 } })), [0, 90, 0, 0]),
        (SOUND, sound, Stream::sse().send(sse(&[said(lie), said(" word")])).send(sse(&[json!({ "type": "transcript.text.done", "text": lie, "usage": heard })])).into(), [4, 10, 2, 0]),
        (
            SPEECH,
            json!({ "model": "a", "input": "Hello", "voice": "alloy", "stream_format": "sse" }).to_string(),
            Stream::sse()
                .send(sse(&[json!({ "type": "speech.audio.delta", "audio": "AAAA" }), json!({ "type": "speech.audio.done", "usage": { "input_tokens": 3, "output_tokens": 40, "total_tokens": 43 } })]))
                .into(),
            [3, 0, 0, 40],
        ),
    ];
    for (n, (path, body, behaviour, wanted)) in cases.into_iter().enumerate() {
        mock.on(path, [behaviour]);
        let kind = if body.starts_with('{') { JSON } else { FORM };
        let answer = gateway.client().send("POST", path, &[kind, BEARER], body.as_bytes()).await;
        assert!(answer.status == 200 && !answer.broken, "{}", answer.text());
        let entry = last(&gateway, n + 1).await;
        assert_eq!((tokens(&entry), entry["usage"]["estimated"].as_bool(), entry["client_left"].as_bool()), (wanted, Some(false), None), "{path}, case {n}: {entry}");
        let dollars = (wanted[0] + 10 * wanted[1] + 2 * wanted[2] + 20 * wanted[3]) as f64 / 1e6;
        assert!((entry["cost"].as_f64().unwrap() - dollars).abs() < 1e-12, "{entry}");
    }
}

#[tokio::test]
async fn what_nobody_tells_is_charged_by_what_came_and_not_by_its_bound() {
    let mock = Mock::start().await;
    let gateway = start(&mock, "").await;
    let sound = |parts: &[String]| form(&[&[field("model", "a")], parts].concat());
    let mp3 = sound(&[file(&"s".repeat(40_000))]);
    // Two seconds at 16,128 samples of two bytes.
    let wav = file(&format!("RIFF\0\0\0\0WAVEfmt \u{10}\0\0\0\u{1}\0\u{1}\0\0?\0\0\0~\0\0\u{2}\0\u{10}\0data\0\0\0\0{}", "s".repeat(64_512)));
    let two = sound(&[wav.clone(), file(&"s".repeat(40_000))]);
    let wav = sound(&[wav]);
    let text = "twelve bytes".repeat(10);
    let srt = format!("1\n00:00:00,000 --> 00:00:03,500\n{text}\n\n2\n00:00:03,500 --> 00:00:12,000\n{text}\n");
    let edit = |parts: &[String]| form(&[&[field("model", "a"), file("\u{89}PNG")], parts].concat());
    let picture = json!({ "created": 1, "data": [{ "url": "http://x" }, { "url": "http://y" }] });
    let one = |prompt: Value| json!({ "model": "a", "prompt": "a cat" }).as_object().unwrap().iter().chain(prompt.as_object().unwrap()).map(|(k, v)| (k.clone(), v.clone())).collect::<Value>();
    let cases: Vec<(&str, String, Behaviour, [u64; 4])> = vec![
        // The text that came out: four bytes to a token. The sound that went in: ten tokens to a second, where that is told.
        (SOUND, mp3.clone(), Behaviour::json(&json!({ "task": "transcribe", "duration": 9.5, "text": text, "segments": [{ "id": 0, "text": text }] })), [0, 95, 30, 0]),
        (SOUND, mp3.clone(), Behaviour::json(&json!({ "text": text })), [0, 100, 30, 0]),
        (SOUND, wav, Behaviour::json(&json!({ "text": text })), [0, 20, 30, 0]),
        // Which of two files is heard, only the provider knows.
        (SOUND, two, Behaviour::json(&json!({ "text": text })), [0, 262, 30, 0]),
        // A bad figure is none, and no reason to lose the answer.
        (SOUND, mp3.clone(), Behaviour::json(&json!({ "text": text, "usage": { "type": "tokens", "input_tokens": 14, "output_tokens": "many" } })), [0, 14, 30, 0]),
        (PICTURES, one(json!({ "n": 1 })).to_string(), Behaviour::json(&json!({ "data": picture["data"], "usage": { "input_tokens": -1, "output_tokens": 544 } })), [10, 0, 544, 0]),
        (SOUND, mp3.clone(), Behaviour::bytes(200, "text/plain; charset=utf-8", text.clone()), [0, 100, 30, 0]),
        (SOUND, mp3.clone(), Behaviour::bytes(200, "text/plain; charset=utf-8", srt), [0, 120, 61, 0]),
        (EDITS, edit(&[]), Behaviour::json(&picture), [1_600, 0, 2 * 1_056, 0]),
        (EDITS, edit(&[field("quality", "low"), field("size", "1024x1536")]), Behaviour::json(&picture), [1_600, 0, 2 * 1_584, 0]),
        (PICTURES, one(json!({})).to_string(), Behaviour::json(&picture), [8, 0, 2 * 1_056, 0]),
        (PICTURES, one(json!({ "quality": "hd", "size": "1024x1024" })).to_string(), Behaviour::json(&picture), [19, 0, 2 * 4_160, 0]),
        (SPEECH, json!({ "model": "a", "input": "x".repeat(300), "voice": "alloy" }).to_string(), Behaviour::bytes(200, "audio/mpeg", vec![0xff; 5000]), [85, 0, 0, 400]),
    ];
    for (n, (path, body, behaviour, wanted)) in cases.into_iter().enumerate() {
        mock.on(path, [behaviour]);
        let kind = if body.starts_with('{') { JSON } else { FORM };
        let answer = gateway.client().send("POST", path, &[kind, BEARER], body.as_bytes()).await;
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        let entry = last(&gateway, n + 1).await;
        let near = tokens(&entry).iter().zip(wanted).all(|(a, b)| a.abs_diff(b) <= 3);
        assert!(near && entry["usage"]["estimated"] == true, "{path}, case {n}, wanted {wanted:?}: {entry}");
    }
}

/// The head of an answer, and its connection, whose next pieces are the body's.
async fn begun(gateway: &Running, path: &str, body: &Value) -> Connection {
    let mut connection = gateway.client().connect().await;
    connection.write(&tests::client::request("POST", path, &[JSON, BEARER], body.to_string().as_bytes())).await;
    assert_eq!(connection.head().await.status, 200);
    connection
}

#[tokio::test]
async fn who_has_read_all_has_not_left_and_who_leaves_has() {
    let mock = Mock::start().await;
    let gateway = start(&mock, "").await;
    let speech = json!({ "model": "a", "input": "Hello", "voice": "alloy" });
    // With a length, hyper asks for nothing behind the last byte.
    mock.on(SPEECH, [Behaviour::bytes(200, "audio/mpeg", vec![0xff; 300_000])]);
    assert_eq!(ask(&gateway, SPEECH, &speech).await.body.len(), 300_000);
    assert_eq!(last(&gateway, 1).await["client_left"], Value::Null);
    mock.on(SPEECH, [Stream::new("audio/mpeg").send(vec![0xff; 1000]).pause(Duration::from_millis(30)).send(vec![0xff; 1000]).into()]);
    assert_eq!(ask(&gateway, SPEECH, &speech).await.body.len(), 2000);
    assert_eq!(last(&gateway, 2).await["client_left"], Value::Null);
    mock.on(SPEECH, [Stream::new("audio/mpeg").send(vec![0xff; 1000]).hang().into()]);
    let mut connection = begun(&gateway, SPEECH, &speech).await;
    connection.piece().await.unwrap();
    drop(connection);
    mock.until("the gateway closes the request", |mock| mock.left() == 1).await;
    let entry = last(&gateway, 3).await;
    assert_eq!((&entry["client_left"], &entry["usage"]["estimated"]), (&json!(true), &json!(true)), "{entry}");
    // Behind the last event there is nothing to wait for.
    let done = json!({ "type": "image_generation.completed", "b64_json": "iVBO", "usage": { "input_tokens": 50, "output_tokens": 272 } });
    mock.on(PICTURES, [Stream::sse().send(sse(&[done])).hang().into()]);
    let mut connection = begun(&gateway, PICTURES, &json!({ "model": "a", "prompt": "a cat", "stream": true })).await;
    connection.piece().await.unwrap();
    drop(connection);
    let entry = last(&gateway, 4).await;
    assert_eq!((&entry["client_left"], tokens(&entry)), (&Value::Null, [50, 0, 272, 0]), "{entry}");
}

#[tokio::test]
async fn what_passes_unread_has_its_clocks() {
    let mock = Mock::start().await;
    let gateway = start(&mock, ", timeout: { total: 600ms, idle: 300ms }").await;
    let speech = json!({ "model": "a", "input": "Hello", "voice": "alloy" });
    let drip = (0..50).fold(Stream::new("audio/mpeg"), |stream, _| stream.send(vec![0xff; 100]).pause(Duration::from_millis(50)));
    let still = Stream::new("audio/mpeg").send(vec![0xff; 100]).hang();
    let silent = Stream::new("application/json").hang();
    for (n, (path, stream, why)) in [(SPEECH, drip, "not complete in time"), (SPEECH, still, "stood still"), (SOUND, silent, "stood still")].into_iter().enumerate() {
        mock.on(path, [stream.into()]);
        let answer = if path == SPEECH { ask(&gateway, path, &speech).await } else { send(&gateway, path, &form(&[field("model", "a"), file("ID3")])).await };
        assert!(answer.broken && answer.body.len() < 5000, "the connection is cut, and not closed as if that were all");
        let entry = last(&gateway, n + 1).await;
        assert!(entry["error"].as_str().is_some_and(|error| error.contains(why)), "{entry}");
        assert!(entry["client_left"].is_null() && entry["latency_ms"].as_f64() < Some(2000.0), "{entry}");
    }
    // Nor does a client that takes its time have more of it.
    mock.on(SPEECH, [Stream::new("audio/mpeg").flood(vec![0xff; 1 << 16], 2000).into()]);
    let mut connection = begun(&gateway, SPEECH, &speech).await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    while connection.piece().await.is_ok_and(|piece| piece.is_some()) {}
    let entry = last(&gateway, 4).await;
    assert!(entry["error"].as_str().is_some_and(|error| error.contains("in time")), "{entry}");
    mock.until("all were cut off", |mock| mock.left() == 4).await;
}

#[tokio::test]
async fn what_passes_unread_is_read_on_without_its_client_where_that_is_said() {
    let mock = Mock::start().await;
    let gateway = start(&mock, ", on_disconnect: drain").await;
    let usage = json!({ "input_tokens": 50, "output_tokens": 272, "total_tokens": 322 });
    let event = |kind: &str, usage: &Value| sse(&[json!({ "type": kind, "b64_json": "iVBO", "usage": usage })]);
    let gate = tests::Gate::new();
    mock.on(PICTURES, [Stream::sse().send(event("image_generation.partial_image", &Value::Null)).wait(&gate).send(event("image_generation.completed", &usage)).into()]);
    let mut connection = begun(&gateway, PICTURES, &json!({ "model": "a", "prompt": "a cat", "stream": true })).await;
    connection.piece().await.unwrap();
    drop(connection);
    tokio::time::sleep(Duration::from_millis(100)).await;
    gate.open();
    let entry = last(&gateway, 1).await;
    assert_eq!((&entry["client_left"], &entry["drained"], tokens(&entry)), (&json!(true), &json!(true), [50, 0, 272, 0]), "{entry}");
}
