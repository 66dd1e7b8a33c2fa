//! Tools whose names a provider does not take, from every door to every kind of provider: what is sent fits, means one tool
//! each, and comes back under the client's own name.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::collections::BTreeSet;

use providers::answer::{Answer, Delta};
use providers::names::Renamed;
use providers::sse::Event;
use providers::{Dialect, Error, Transcoder};
use serde_json::{Value, json};

use fixture::{TARGETS, sent};

/// What every name here begins with, so that it is found again in any dialect.
const MARK: &str = "mcp__";

fn tools() -> Vec<String> {
    let long = format!("{MARK}{}", "a_server_with_a_long_name__".repeat(6));
    vec![format!("{long}read"), format!("{long}write"), format!("{MARK}files.read"), format!("{MARK}größe"), format!("{MARK}now")]
}

/// A request that offers the tools, has called each, and demands the first.
fn request(dialect: Dialect, tools: &[String]) -> Value {
    let schema = json!({ "type": "object", "properties": { "name": { "type": "string" } } });
    let each = |make: &dyn Fn(usize, &String) -> Value| tools.iter().enumerate().map(|(n, name)| make(n, name)).collect::<Vec<_>>();
    let first = &tools[0];
    match dialect {
        Dialect::Messages => json!({ "model": "m", "max_tokens": 2000, "messages": [{ "role": "user", "content": "Hi" },
            { "role": "assistant", "content": each(&|n, name| json!({ "type": "tool_use", "id": format!("toolu_{n}"), "name": name, "input": {} })) },
            { "role": "user", "content": each(&|n, _| json!({ "type": "tool_result", "tool_use_id": format!("toolu_{n}"), "content": "done" })) }],
            "tools": each(&|_, name| json!({ "name": name, "input_schema": schema })), "tool_choice": { "type": "tool", "name": first } }),
        Dialect::Responses => {
            let mut input = vec![json!({ "role": "user", "content": "Hi" })];
            input.extend(each(&|n, name| json!({ "type": "function_call", "call_id": format!("call_{n}"), "name": name, "arguments": "{}" })));
            input.extend(each(&|n, _| json!({ "type": "function_call_output", "call_id": format!("call_{n}"), "output": "done" })));
            json!({ "model": "m", "input": input, "tools": each(&|_, name| json!({ "type": "function", "name": name, "parameters": schema })),
                "tool_choice": { "type": "allowed_tools", "mode": "required", "tools": [{ "type": "function", "name": first }] } })
        }
        Dialect::Generate => json!({ "model": "m", "contents": [{ "role": "user", "parts": [{ "text": "Hi" }] },
            { "role": "model", "parts": each(&|_, name| json!({ "functionCall": { "name": name, "args": {} } })) },
            { "role": "user", "parts": each(&|_, name| json!({ "functionResponse": { "name": name, "response": { "output": "done" } } })) }],
            "tools": [{ "functionDeclarations": each(&|_, name| json!({ "name": name, "parametersJsonSchema": schema })) }],
            "toolConfig": { "functionCallingConfig": { "mode": "ANY", "allowedFunctionNames": [first] } } }),
        _ => {
            let mut messages = vec![json!({ "role": "user", "content": "Hi" })];
            messages.push(json!({ "role": "assistant", "content": null, "tool_calls": each(&|n, name| json!({ "id": format!("call_{n}"), "type": "function", "function": { "name": name, "arguments": "{}" } })) }));
            messages.extend(each(&|n, _| json!({ "role": "tool", "tool_call_id": format!("call_{n}"), "content": "done" })));
            json!({ "model": "m", "max_tokens": 2000, "messages": messages, "tools": each(&|_, name| json!({ "type": "function", "function": { "name": name, "parameters": schema } })),
                "tool_choice": { "type": "function", "function": { "name": first } } })
        }
    }
}

/// Every string of a value that is one of the names.
fn found<'v>(value: &'v Value, into: &mut Vec<&'v str>) {
    match value {
        Value::String(text) if text.starts_with(MARK) => into.push(text),
        Value::Array(list) => list.iter().for_each(|v| found(v, into)),
        Value::Object(fields) => fields.values().for_each(|v| found(v, into)),
        _ => {}
    }
}

/// Calls one tool.
struct Calls(String);

impl Transcoder for Calls {
    fn event(&mut self, _: &Event<'_>, out: &mut dyn FnMut(Delta<'_>)) -> Result<(), Error> {
        out(Delta::Call { choice: 0, index: 0, id: "call_1", name: &self.0 });
        Ok(())
    }

    fn end(&mut self, _: &mut dyn FnMut(Delta<'_>)) -> Result<(), Error> {
        Ok(())
    }
}

/// What a client is told when a tool of this name is called.
fn told(renamed: &Renamed, name: &str) -> String {
    let mut answer = Answer::default();
    renamed.transcoder(Box::new(Calls(name.to_owned()))).event(&Event { name: "", data: "".into() }, &mut |delta| answer.apply(&delta)).unwrap();
    let streamed = answer.choices[0].calls[0].name.clone();
    answer.choices[0].calls[0].name = name.to_owned();
    assert_eq!(renamed.answer(answer).choices[0].calls[0].name, streamed);
    streamed
}

#[test]
fn every_name_fits_and_comes_back() {
    let all_tools = tools();
    let tools: BTreeSet<&str> = all_tools.iter().map(String::as_str).collect();
    for dialect in [Dialect::Chat, Dialect::Messages, Dialect::Responses, Dialect::Generate] {
        for (kind, model) in TARGETS {
            let at = format!("{dialect:?} to {kind}/{model}");
            let (body, renamed): (Value, _) = match sent(&request(dialect, &all_tools), dialect, kind, model) {
                Ok((body, renamed)) => (serde_json::from_slice(&body).unwrap(), renamed),
                // Not every model can be made to call a tool.
                Err(Error::Unsupported { param, .. }) if param == "tool_choice" => continue,
                Err(e) => panic!("{at}: {e}"),
            };
            let mut all = Vec::new();
            found(&body, &mut all);
            let longest = if matches!((*kind, *model), ("anthropic", _) | ("vertex", "claude-sonnet-4-5")) { 128 } else { 64 };
            let odd = |c: char| !(c.is_ascii_alphanumeric() || "_-".contains(c) || *kind != "cohere" && matches!(*kind, "gemini" | "vertex") && ".:".contains(c));
            if let Some(wrong) = all.iter().find(|name| name.len() > longest || name.contains(odd)) {
                panic!("{at}: {wrong} is sent");
            }
            let distinct: BTreeSet<&str> = all.iter().copied().collect();
            let own: Vec<String> = distinct.iter().map(|name| told(&renamed, name)).collect();
            let own: BTreeSet<&str> = own.iter().map(String::as_str).collect();
            assert_eq!(own.len(), distinct.len(), "{at}: names meet");
            assert!(own.is_subset(&tools) && own.contains(&*all_tools[0]), "{at}: {own:?}");
            // In the history each tool stands under the name that it is offered by.
            assert!(distinct.len() == tools.len() || distinct.len() == 1, "{at}: {distinct:?}");
        }
    }
}
