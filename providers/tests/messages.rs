//! The Messages door and the Anthropic provider together: what goes through the hub from one to the other keeps its
//! meaning, and what another provider thought comes back to it and to no other.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::Bytes;
use providers::answer::{Answer, Delta, OwnedDetail};
use providers::anthropic::{self, Events, Host};
use providers::door::{Door, Meta, door};
use providers::envelope::Envelope;
use providers::sse::{Cutter, Framing};
use providers::{Dialect, Operation, Provider, Settings, Target, Transcoder, carry};
use serde_json::{Value, json};

fn messages() -> &'static dyn Door {
    door(Dialect::Messages)
}

fn provider() -> Box<dyn Provider> {
    providers::build(&Settings { kind: "anthropic".into(), ..Settings::default() }).unwrap()
}

fn envelope(value: &Value) -> Envelope {
    Envelope::read(Bytes::from(value.to_string())).unwrap()
}

fn meta() -> Meta {
    Meta { id: "ID".into(), model: "asked".into(), ..Meta::default() }
}

/// Through the door into the hub, and out again in Anthropic's dialect.
fn through_the_hub(request: &Value, model: &str, host: &Host) -> (Value, Vec<String>) {
    let hub = Envelope::read(Bytes::from(messages().read(&envelope(request), &mut Vec::new()).unwrap())).unwrap();
    let chat = hub.chat().unwrap();
    let call = anthropic::write_request(&chat, &Target { model, info: None }, host, "/messages").unwrap();
    (serde_json::from_slice(&call.body.into_bytes()).unwrap(), call.warnings)
}

fn request() -> Value {
    json!({
        "model": "claude-sonnet-4-5", "max_tokens": 8000, "stream": true, "top_p": 0.96,
        "system": [{"type": "text", "text": "Rules."}, {"type": "text", "text": "Manual.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        "thinking": {"type": "enabled", "budget_tokens": 4000},
        "tools": [
            {"name": "weather", "description": "Tells the weather.", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}},
            {"name": "now", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}}
        ],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": true},
        "stop_sequences": ["END"], "metadata": {"user_id": "u-1"}, "service_tier": "standard_only",
        "messages": [
            {"role": "user", "content": [
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
                {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}, "title": "Report", "citations": {"enabled": true}, "cache_control": {"type": "ephemeral"}},
                {"type": "text", "text": "Weather?"}
            ]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "I need a tool.", "signature": "c2lnbmF0dXJl"},
                {"type": "redacted_thinking", "data": "cmVkYWN0ZWQ="},
                {"type": "text", "text": "Looking."},
                {"type": "tool_use", "id": "toolu_01", "name": "weather", "input": {"city": "Zürich"}, "cache_control": {"type": "ephemeral"}},
                {"type": "tool_use", "id": "toolu_02", "name": "now", "input": {}}
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "toolu_01", "content": [{"type": "text", "text": "rain"}, {"type": "image", "source": {"type": "url", "url": "https://example.com/sky.png"}}], "cache_control": {"type": "ephemeral"}},
                {"type": "tool_result", "tool_use_id": "toolu_02", "content": [{"type": "text", "text": "no clock"}], "is_error": true},
                {"type": "text", "text": "So?"}
            ]}
        ]
    })
}

#[test]
fn a_request_keeps_its_meaning_through_the_hub() {
    let (body, warnings) = through_the_hub(&request(), "claude-sonnet-4-5", &Host::ANTHROPIC);
    assert_eq!(body, request());
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn vertex_gets_its_version_in_the_body_and_no_model() {
    let plain = json!({"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]});
    let (body, _) = through_the_hub(&plain, "claude-sonnet-4-5@20250929", &Host::VERTEX);
    assert_eq!(body["anthropic_version"], "vertex-2023-10-16");
    assert!(body.get("model").is_none());

    let hub = Envelope::read(Bytes::from(messages().read(&envelope(&request()), &mut Vec::new()).unwrap())).unwrap();
    let refused = anthropic::write_request(&hub.chat().unwrap(), &Target { model: "claude-sonnet-4-5", info: None }, &Host::VERTEX, "").unwrap_err();
    assert!(refused.to_string().contains("fetches no URLs"), "{refused}");
}

/// An upstream stream, read and written as Messages again; the blocks joined.
fn restream(stream: &str) -> Vec<Value> {
    let (mut cutter, mut events, mut writer, mut bytes) = (Cutter::new(Framing::Sse, 1 << 20), Events::default(), messages().writer(meta()), Vec::new());
    cutter.push::<providers::Error>(stream.as_bytes(), |event| events.event(&event, &mut |delta| writer.delta(&delta, &mut bytes))).unwrap();
    events.end(&mut |delta| writer.delta(&delta, &mut bytes)).unwrap();
    writer.end(&mut bytes);
    joined(&bytes)
}

/// Joins the blocks of a Messages stream, as an SDK does, and checks that they begin and end in order.
fn joined(bytes: &[u8]) -> Vec<Value> {
    let mut blocks: Vec<Value> = Vec::new();
    let mut open = None;
    for line in std::str::from_utf8(bytes).unwrap().lines().filter_map(|l| l.strip_prefix("data: ")) {
        let event: Value = serde_json::from_str(line).unwrap();
        match event["type"].as_str().unwrap() {
            "content_block_start" => {
                assert_eq!((open, event["index"].as_u64()), (None, Some(blocks.len() as u64)));
                open = event["index"].as_u64();
                blocks.push(event["content_block"].clone());
            }
            "content_block_delta" => {
                assert_eq!(open, event["index"].as_u64());
                let (block, delta) = (blocks.last_mut().unwrap(), &event["delta"]);
                for (field, piece) in [("text", "text"), ("thinking", "thinking"), ("signature", "signature"), ("json", "partial_json")] {
                    if let Some(piece) = delta[piece].as_str() {
                        block[field] = (block[field].as_str().unwrap_or_default().to_owned() + piece).into();
                    }
                }
            }
            "content_block_stop" => assert_eq!(open.take(), event["index"].as_u64()),
            _ => {}
        }
    }
    for block in &mut blocks {
        if let Some(json) = block.as_object_mut().unwrap().remove("json") {
            block["input"] = serde_json::from_str(json.as_str().unwrap()).unwrap();
        }
    }
    blocks
}

const STREAM: &str = include_str!("../fixtures/providers/anthropic/answer-tools/upstream.sse");
const ANSWER: &str = include_str!("../fixtures/providers/anthropic/answer-tools/upstream.answer.json");

#[test]
fn an_answer_of_claude_comes_out_of_the_door_as_it_was() {
    let upstream: Value = serde_json::from_str(ANSWER).unwrap();
    assert_eq!(Value::Array(restream(STREAM)), upstream["content"]);

    let answer = anthropic::read_answer(ANSWER.as_bytes()).unwrap();
    let written: Value = serde_json::from_slice(&messages().answer(&answer, &meta())).unwrap();
    for field in ["id", "model", "content", "stop_reason"] {
        assert_eq!(written[field], upstream[field], "{field}");
    }
    for (field, value) in written["usage"].as_object().unwrap() {
        assert_eq!(*value, upstream["usage"][field], "{field}");
    }

    // A stored answer that is given out again as a stream has its blocks, too.
    let (mut writer, mut bytes) = (messages().writer(meta()), Vec::new());
    answer.replay(|delta| writer.delta(&delta, &mut bytes));
    writer.end(&mut bytes);
    assert_eq!(Value::Array(joined(&bytes)), upstream["content"]);
}

#[test]
fn several_signed_blocks_are_replayed_one_by_one() {
    let upstream = json!({"id": "msg_1", "model": "m", "stop_reason": "end_turn", "content": [
        {"type": "thinking", "thinking": "One.", "signature": "c2lnMQ=="}, {"type": "thinking", "thinking": "", "signature": "c2lnMg=="},
        {"type": "thinking", "thinking": "Three.", "signature": "c2lnMw=="}, {"type": "text", "text": "Done."}]});
    let answer = anthropic::read_answer(upstream.to_string().as_bytes()).unwrap();
    let (mut writer, mut bytes) = (messages().writer(meta()), Vec::new());
    answer.replay(|delta| writer.delta(&delta, &mut bytes));
    writer.end(&mut bytes);
    assert_eq!(Value::Array(joined(&bytes)), upstream["content"]);
}

fn gemini() -> OwnedDetail {
    OwnedDetail { kind: "reasoning.encrypted", format: carry::GEMINI, data: Some("Q2RhdGE=".into()), id: Some("call_1".into()), ..OwnedDetail::default() }
}

/// What the door makes of an answer of Gemini's.
fn foreign_turn() -> Vec<Value> {
    let (mut writer, mut bytes) = (messages().writer(meta()), Vec::new());
    let detail = gemini();
    let sealed = carry::seal("call_1", carry::GEMINI, "sig");
    for delta in [
        Delta::Start { id: "", model: "gemini" },
        Delta::Reasoning { choice: 0, text: "Hm." },
        Delta::Detail { choice: 0, detail: &detail },
        Delta::Reasoning { choice: 0, text: "Unsigned." },
        Delta::Call { choice: 0, index: 0, id: &sealed, name: "f" },
        Delta::Arguments { choice: 0, index: 0, json: "{}" },
    ] {
        writer.delta(&delta, &mut bytes);
    }
    writer.end(&mut bytes);
    joined(&bytes)
}

#[test]
fn what_another_provider_thought_comes_back_to_it() {
    let blocks = foreign_turn();
    let mut answer = Answer::default();
    answer.choice(0).reasoning = Some("Hm.".into());
    answer.choice(0).details = vec![gemini()];
    let whole: Value = serde_json::from_slice(&messages().answer(&answer, &meta())).unwrap();
    assert_eq!(whole["content"][0], blocks[0]);

    let id = blocks[2]["id"].clone();
    let next = json!({"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": blocks}, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": id, "content": "ok"}]}]});
    let hub: Value = serde_json::from_slice(&messages().read(&envelope(&next), &mut Vec::new()).unwrap()).unwrap();
    let turn = &hub["messages"][1];
    assert_eq!(turn["reasoning_details"], json!([{"type": "reasoning.encrypted", "format": carry::GEMINI, "data": "Q2RhdGE=", "id": "call_1", "index": 0}]));
    assert_eq!(turn["reasoning_content"], "Hm.Unsigned.");
    assert_eq!(carry::unseal(turn["tool_calls"][0]["id"].as_str().unwrap()), ("call_1", Some((carry::GEMINI, "sig".into()))));
    assert_eq!(hub["messages"][2]["tool_call_id"], turn["tool_calls"][0]["id"]);
}

/// A body that passes, as it reaches Anthropic.
fn passed(body: &Value) -> Bytes {
    let envelope = envelope(body);
    let mut edit = envelope.edit();
    provider().adapt(Operation::Chat(Dialect::Messages), &mut edit, &Target { model: "claude-x", info: None }).unwrap();
    edit.finish().into_bytes()
}

#[test]
fn what_another_provider_thought_does_not_reach_anthropic() {
    let own = json!({"type": "thinking", "thinking": "Mine.", "signature": "c2ln"});
    let mut blocks = foreign_turn();
    let id = blocks[2]["id"].clone();
    blocks.insert(0, own.clone());
    blocks.push(json!({"type": "text", "text": "x", "citations": [{"type": "web_search_result_location", "url": "u", "title": "", "encrypted_index": "", "cited_text": ""}]}));
    let body = json!({"model": "claude-x", "max_tokens": 10, "messages": [{"role": "assistant", "content": blocks}, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": id, "content": "ok", "new_field": 1}]}]});
    let sent: Value = serde_json::from_slice(&passed(&body)).unwrap();
    assert_eq!(
        sent["messages"],
        json!([
            {"role": "assistant", "content": [own, {"type": "tool_use", "id": "call_1", "name": "f", "input": {}}, {"type": "text", "text": "x"}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "ok", "new_field": 1}]}
        ])
    );
}

#[test]
fn a_body_that_holds_nothing_foreign_passes_as_it_came() {
    let mut body = request();
    body["model"] = "claude-x".into();
    assert_eq!(passed(&body), body.to_string().as_bytes());
    let target = Target { model: "claude-x", info: None };
    assert_eq!(provider().path(Operation::Chat(Dialect::Messages), &target, true).unwrap().as_deref(), Some("/messages"));
    assert_eq!(provider().path(Operation::CountMessages, &target, false).unwrap().as_deref(), Some("/messages/count_tokens"));
    assert_eq!(provider().path(Operation::Chat(Dialect::Chat), &target, false).unwrap(), None);
}
