//! Plays every answer of the fixtures back as the history of the next request, through every door and to every provider:
//! what this gateway gives out it must take back, whoever is asked next.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::collections::BTreeSet;

use bytes::Bytes;
use providers::door::{Meta, door};
use providers::envelope::Envelope;
use providers::sse::{Cutter, Framing};
use providers::{Dialect, Error, Settings, Target, Transcoder, answer::Answer, anthropic, carry, openai};
use serde_json::{Value, json};

use fixture::{TARGETS, folders, provider, root, sent};

const DOORS: &[Dialect] = &[Dialect::Chat, Dialect::Messages, Dialect::Responses, Dialect::Generate];

/// The next request in a door's words: the answer as its history, every call answered, and one more question.
fn next(dialect: Dialect, given: &Value) -> Value {
    let tool = |name: &Value| json!({ "type": "function", "function": { "name": name, "parameters": { "type": "object", "properties": {} } } });
    match dialect {
        Dialect::Messages => {
            let content = given["content"].as_array().unwrap();
            let calls: Vec<&Value> = content.iter().filter(|b| b["type"] == "tool_use").collect();
            let mut said: Vec<Value> = calls.iter().map(|c| json!({ "type": "tool_result", "tool_use_id": c["id"], "content": "18 °C" })).collect();
            said.push(json!({ "type": "text", "text": "And then?" }));
            let mut messages = vec![json!({ "role": "user", "content": "Hi" })];
            if !content.is_empty() {
                messages.push(json!({ "role": "assistant", "content": content }));
            }
            messages.push(json!({ "role": "user", "content": said }));
            let tools: Vec<Value> = names(calls.iter().map(|c| &c["name"])).iter().map(|n| json!({ "name": n, "input_schema": { "type": "object" } })).collect();
            json!({ "model": "m", "max_tokens": 2000, "messages": messages, "tools": tools })
        }
        Dialect::Responses => {
            let output = given["output"].as_array().unwrap();
            let calls: Vec<&Value> = output.iter().filter(|i| i["type"] == "function_call").collect();
            let mut input = vec![json!({ "role": "user", "content": "Hi" })];
            input.extend(output.iter().cloned());
            input.extend(calls.iter().map(|c| json!({ "type": "function_call_output", "call_id": c["call_id"], "output": "18 °C" })));
            input.push(json!({ "role": "user", "content": "And then?" }));
            let tools: Vec<Value> = names(calls.iter().map(|c| &c["name"])).iter().map(|n| json!({ "type": "function", "name": n, "parameters": { "type": "object" } })).collect();
            json!({ "model": "m", "input": input, "tools": tools })
        }
        Dialect::Generate => {
            let content = &given["candidates"][0]["content"];
            // The image of an answer is taken back by Gemini alone, which gets these bytes as they are.
            let parts: Vec<Value> = content["parts"].as_array().into_iter().flatten().filter(|p| p["inlineData"].is_null()).cloned().collect();
            let calls: Vec<&Value> = parts.iter().filter(|p| p["functionCall"].is_object()).map(|p| &p["functionCall"]).collect();
            let mut said: Vec<Value> = calls.iter().map(|c| json!({ "functionResponse": { "id": c["id"], "name": c["name"], "response": { "output": "18 °C" } } })).collect();
            said.push(json!({ "text": "And then?" }));
            let declarations: Vec<Value> = names(calls.iter().map(|c| &c["name"])).iter().map(|n| json!({ "name": n })).collect();
            json!({ "model": "m", "contents": [{ "role": "user", "parts": [{ "text": "Hi" }] }, { "role": "model", "parts": parts }, { "role": "user", "parts": said }], "tools": [{ "functionDeclarations": declarations }] })
        }
        _ => {
            let message = &given["choices"][0]["message"];
            let calls: Vec<&Value> = message["tool_calls"].as_array().into_iter().flatten().collect();
            let mut messages = vec![json!({ "role": "user", "content": "Hi" }), message.clone()];
            messages.extend(calls.iter().map(|c| json!({ "role": "tool", "tool_call_id": c["id"], "content": "18 °C" })));
            messages.push(json!({ "role": "user", "content": "And then?" }));
            let tools: Vec<Value> = names(calls.iter().map(|c| &c["function"]["name"])).iter().map(tool).collect();
            let mut request = json!({ "model": "m", "messages": messages, "max_tokens": 2000 });
            if !tools.is_empty() {
                request["tools"] = tools.into();
            }
            request
        }
    }
}

fn names<'v>(all: impl Iterator<Item = &'v Value>) -> Vec<Value> {
    all.filter_map(Value::as_str).collect::<BTreeSet<_>>().into_iter().map(Value::from).collect()
}

/// Every whole answer that the fixtures have, read into the hub.
fn answers() -> Vec<(String, Answer)> {
    let mut found = Vec::new();
    for group in folders(&root().join("providers")) {
        let kind = group.file_name().unwrap().to_str().unwrap().to_owned();
        for folder in folders(&group) {
            let Ok(body) = std::fs::read(folder.join("upstream.answer.json")) else { continue };
            let about: Value = std::fs::read(folder.join("case.json")).map(|b| serde_json::from_slice(&b).unwrap()).unwrap_or_default();
            let model = about["model"].as_str().unwrap_or("the-model");
            let settings = &about["settings"];
            let text = |name: &str| settings[name].as_str().map(str::to_owned);
            let settings = Settings {
                kind: kind.clone(),
                base_url: Some("http://127.0.0.1:1".into()),
                api_version: text("api_version"),
                project: text("project").or(Some("p".into())),
                region: text("region").or(Some("r".into())),
                ..Settings::default()
            };
            let provider = providers::build(&settings).unwrap();
            if let Ok(answer) = provider.answer(&body, &Target { model, info: None }) {
                found.push((format!("{kind}/{}", folder.file_name().unwrap().to_str().unwrap()), answer));
            }
        }
    }
    found
}

#[test]
fn what_is_given_out_is_taken_back_by_every_door_and_provider() {
    let answers = answers();
    assert!(answers.len() > 60, "there are only {} answers", answers.len());
    let mut wrong = Vec::new();
    for (case, answer) in &answers {
        for dialect in DOORS {
            let given: Value = serde_json::from_slice(&door(*dialect).answer(answer, &Meta { id: "ID".into(), model: "m".into(), ..Meta::default() })).unwrap();
            let request = next(*dialect, &given);
            for (kind, model) in TARGETS {
                let problem = match sent(&request, *dialect, kind, model) {
                    Err(e) => Some(format!("{e} ({e:?})")),
                    Ok((body, _)) => {
                        let text = String::from_utf8_lossy(&body).into_owned();
                        let strict = Envelope::read(body).err().map(|e| e.to_string());
                        strict.or_else(|| text.contains("~sig.").then(|| format!("a seal reaches the upstream: {text}")))
                    }
                };
                wrong.extend(problem.map(|p| format!("{case} by {dialect:?} to {kind}/{model}: {p}")));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), answers.len() * DOORS.len() * TARGETS.len(), wrong.join("\n"));
}

/// A stream of a door's, read back into the hub.
fn read_back(dialect: Dialect, stream: &[u8]) -> Answer {
    let mut reader: Box<dyn Transcoder> = match dialect {
        Dialect::Messages => Box::new(anthropic::Events::default()),
        Dialect::Generate => provider("gemini").transcoder(&Target { model: "m", info: None }),
        _ => Box::new(openai::Chunks::default()),
    };
    let (mut answer, mut cutter) = (Answer::default(), Cutter::new(Framing::Sse, 1 << 20));
    cutter.push::<Error>(stream, |event| reader.event(&event, &mut |delta| answer.apply(&delta))).unwrap();
    reader.end(&mut |delta| answer.apply(&delta)).unwrap();
    answer
}

fn facts(answer: &Answer) -> Value {
    let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_else(|_| text.into());
    let calls = |calls: &[providers::answer::Call]| calls.iter().map(|c| json!([c.id, c.name, parsed(&c.arguments)])).collect::<Vec<_>>();
    let choice = |c: &providers::answer::Choice| json!({ "text": c.text.clone().unwrap_or_default(), "refusal": c.refusal, "reasoning": c.reasoning, "details": c.details, "calls": calls(&c.calls), "annotations": c.annotations.len(), "images": c.images, "finish": c.reason().as_openai() });
    json!({ "choices": answer.choices.iter().map(choice).collect::<Vec<_>>(), "usage": answer.usage })
}

#[test]
fn every_door_s_stream_joined_is_its_whole_answer() {
    let mut wrong = Vec::new();
    for (case, answer) in answers() {
        for dialect in DOORS {
            let meta =
                Meta { id: "ID".into(), created: 1, model: "m".into(), include_usage: true, request: Bytes::from_static(br#"{"generationConfig":{"thinkingConfig":{"includeThoughts":true}}}"#) };
            let whole = door(*dialect).answer(&answer, &meta);
            let (mut writer, mut stream) = (door(*dialect).writer(meta), Vec::new());
            answer.replay(|delta| writer.delta(&delta, &mut stream));
            writer.end(&mut stream);
            let (a, b) = match dialect {
                Dialect::Responses => {
                    let last = std::str::from_utf8(&stream).unwrap().lines().rfind(|l| l.starts_with("data: ")).unwrap().to_owned();
                    let last: Value = serde_json::from_str(&last["data: ".len()..]).unwrap();
                    (serde_json::from_slice(&whole).unwrap(), last["response"].clone())
                }
                Dialect::Messages => (facts(&anthropic::read_answer(&whole).unwrap()), facts(&read_back(*dialect, &stream))),
                Dialect::Generate => (facts(&provider("gemini").answer(&whole, &Target { model: "m", info: None }).unwrap()), facts(&read_back(*dialect, &stream))),
                _ => (facts(&openai::read_answer(&whole).unwrap()), facts(&read_back(*dialect, &stream))),
            };
            // Its unsigned thinking cannot be told from the signed once both are one text; a stream has them apart.
            let mixed = case == "anthropic/answer-signature-only" && *dialect == Dialect::Messages;
            if a != b && !mixed {
                wrong.push(format!("{case} by {dialect:?}:\n  whole  {a}\n  stream {b}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

/// A block as it must come back: what it is, and all that it says.
fn block(b: &Value) -> Option<(&'static str, String)> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let reasoning = &b["reasoningContent"];
    let (kind, said) = match b["type"].as_str() {
        Some("thinking") if b["signature"] == "" => return None,
        Some("thinking") => ("thinking", format!("{} {}", text(&b["signature"]), text(&b["thinking"]))),
        Some("redacted_thinking") => ("thinking", text(&b["data"])),
        Some("text") => ("text", text(&b["text"])),
        Some("tool_use") => ("call", format!("{}{}", b["name"], b["input"])),
        Some(_) => return None,
        None if reasoning["redactedContent"].is_string() => ("thinking", text(&reasoning["redactedContent"])),
        None if reasoning.is_object() => ("thinking", format!("{} {}", text(&reasoning["reasoningText"]["signature"]), text(&reasoning["reasoningText"]["text"]))),
        None if b["toolUse"].is_object() => ("call", format!("{}{}", b["toolUse"]["name"], b["toolUse"]["input"])),
        None => ("text", text(&b["text"])),
    };
    // A blank text is refused.
    (!said.trim().is_empty()).then_some((kind, said))
}

/// A turn without the text of its thinking, which the ids of calls do not carry.
fn bare(turn: &[(&'static str, String)]) -> Vec<(&'static str, String)> {
    turn.iter().map(|(kind, said)| (*kind, if *kind == "thinking" { said.split(' ').next().unwrap_or_default().to_owned() } else { said.clone() })).collect()
}

/// Text that stands together is one.
fn joined(turn: impl Iterator<Item = (&'static str, String)>) -> Vec<(&'static str, String)> {
    let mut out: Vec<(&'static str, String)> = Vec::new();
    for (kind, said) in turn {
        match out.last_mut().filter(|(last, _)| kind == "text" && *last == kind) {
            Some((_, text)) => text.push_str(&said),
            None => out.push((kind, said)),
        }
    }
    out
}

/// An answer as a client of a door may have it: as it came whole, and as it came in a stream.
fn forms(dialect: Dialect, answer: &Answer) -> Vec<Value> {
    let meta = || Meta { id: "ID".into(), model: "m".into(), ..Meta::default() };
    let whole: Value = serde_json::from_slice(&door(dialect).answer(answer, &meta())).unwrap();
    let (mut writer, mut stream) = (door(dialect).writer(meta()), Vec::new());
    answer.replay(|delta| writer.delta(&delta, &mut stream));
    writer.end(&mut stream);
    let mut events = std::str::from_utf8(&stream).unwrap().lines().filter_map(|l| serde_json::from_str::<Value>(l.strip_prefix("data: ")?).ok());
    let streamed = match dialect {
        Dialect::Responses => events.next_back().unwrap()["response"].clone(),
        Dialect::Generate => {
            let parts: Vec<Value> = events.flat_map(|e| e["candidates"][0]["content"]["parts"].as_array().cloned().unwrap_or_default()).filter(|p| p["text"] != "").collect();
            json!({ "candidates": [{ "content": { "parts": parts } }] })
        }
        _ => serde_json::from_slice(&door(dialect).answer(&read_back(dialect, &stream), &meta())).unwrap(),
    };
    vec![whole, streamed]
}

#[test]
fn the_blocks_of_claude_s_turn_come_back_in_their_order() {
    let (mut wrong, mut between) = (Vec::new(), 0);
    for (case, answer) in answers().into_iter().filter(|(case, _)| ["anthropic/", "vertex/", "bedrock/"].iter().any(|kind| case.starts_with(kind))) {
        let body: Value = serde_json::from_slice(&std::fs::read(root().join("providers").join(&case).join("upstream.answer.json")).unwrap()).unwrap();
        let given = joined([&body["content"], &body["output"]["message"]["content"]].iter().flat_map(|c| c.as_array()).flatten().filter_map(block));
        let choice = &answer.choices[0];
        if !choice.details.iter().any(|d| d.format == carry::ANTHROPIC) || choice.refusal.is_some() {
            continue;
        }
        between += usize::from(given.iter().skip_while(|(kind, _)| *kind == "thinking").any(|(kind, _)| *kind == "thinking"));
        for dialect in DOORS {
            // Google's clients bring thinking back in the ids of calls, which cannot carry the text that Bedrock wants with it.
            if *dialect == Dialect::Generate && (choice.calls.is_empty() || case.starts_with("bedrock/")) {
                continue;
            }
            for form in forms(*dialect, &answer) {
                for (kind, model) in [("anthropic", "claude-opus-4-8"), ("vertex", "claude-sonnet-4-5"), ("bedrock", "anthropic.claude-opus-4-8-v1:0")] {
                    let (sent, _) = sent(&next(*dialect, &form), *dialect, kind, model).unwrap();
                    let sent: Value = serde_json::from_slice(&sent).unwrap();
                    let turn = sent["messages"].as_array().unwrap().iter().find(|m| m["role"] == "assistant").unwrap();
                    let back = joined(turn["content"].as_array().into_iter().flatten().filter_map(block));
                    if given != back && (*dialect != Dialect::Generate || bare(&given) != bare(&back)) {
                        wrong.push(format!("{case} by {dialect:?} to {kind}:\n  given {given:?}\n  back  {back:?}"));
                    }
                }
            }
        }
    }
    assert!(between >= 5, "only {between} answers think between other blocks");
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}
