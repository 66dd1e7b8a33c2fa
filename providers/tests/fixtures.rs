//! Walks `fixtures/`: what every dialect makes of requests, answers, streams and errors. See `fixtures/README.md`.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use providers::answer::{Answer, Delta, Finish, OwnedDetail};
use providers::door::{ClientError, Door, Meta, door};
use providers::envelope::Envelope;
use providers::names::{self, Renamed};
use providers::sse::{Cutter, Framing};
use providers::usage::Usage;
use providers::{Call, Dialect, Error, Operation, Provider, Settings, Target, Transcoder, UpstreamError, openai, prices};
use serde_json::{Value, json};

use fixture::{folders, frames, root};

struct Case {
    folder: PathBuf,
    failures: Vec<String>,
}

impl Case {
    fn read(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.folder.join(name)).ok()
    }

    fn json(&self, name: &str) -> Option<Value> {
        self.read(name).map(|b| serde_json::from_slice(&b).unwrap_or_else(|e| panic!("{}/{name}: {e}", self.folder.display())))
    }

    fn expect(&mut self, name: &str, actual: &str) {
        let path = self.folder.join(name);
        if std::env::var_os("BLESS").is_some() {
            fs::write(&path, actual).unwrap();
            return;
        }
        match fs::read_to_string(&path) {
            Ok(expected) if expected == actual => {}
            Ok(expected) => self.fail(name, &format!("expected\n{expected}\ngot\n{actual}")),
            Err(_) => self.fail(name, &format!("is missing; computed\n{actual}")),
        }
    }

    fn fail(&mut self, name: &str, why: &str) {
        self.failures.push(format!("{}/{name}: {why}", self.folder.strip_prefix(root()).unwrap().display()));
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap() + "\n"
}

/// JSON text with serde's indentation, its numbers and strings as they stand: what was written must be seen byte for byte.
fn indented(json: &[u8]) -> String {
    let mut text = std::str::from_utf8(json).unwrap().chars().peekable();
    let (mut out, mut depth, mut in_string) = (String::new(), 0, false);
    let line = |out: &mut String, depth: usize| write!(out, "\n{:1$}", "", depth * 2).unwrap();
    while let Some(c) = text.next() {
        if in_string {
            out.push(c);
            match c {
                '\\' => out.push(text.next().unwrap()),
                '"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match c {
            '{' | '[' => {
                out.push(c);
                while text.next_if(|c| c.is_ascii_whitespace()).is_some() {}
                if let Some(end) = text.next_if(|c| matches!(c, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth -= 1;
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => {
                in_string = c == '"';
                out.push(c);
            }
        }
    }
    out.push('\n');
    out
}

fn meta() -> Meta {
    Meta { id: "ID".into(), created: 1_700_000_000, model: "asked-model".into(), include_usage: true, request: Bytes::new() }
}

fn error_json(error: &Error) -> Value {
    match error {
        Error::Invalid { param, message } => json!({ "invalid": param, "message": message }),
        Error::Unsupported { param, message, .. } => json!({ "unsupported": param, "message": message }),
        Error::Json(e) => json!({ "json": e.to_string() }),
        Error::Upstream(e) => json!({ "upstream": upstream_json(e) }),
        Error::Answer(why) => json!({ "answer": why }),
        Error::Settings(why) => json!({ "settings": why }),
    }
}

fn upstream_json(e: &UpstreamError) -> Value {
    json!({ "kind": format!("{:?}", e.kind), "message": e.message, "code": e.code, "param": e.param })
}

fn calls_text(calls: &[Call]) -> String {
    let mut out = String::new();
    for call in calls {
        writeln!(out, "POST {}", call.path).unwrap();
        for (name, value) in &call.headers {
            writeln!(out, "{name}: {value}").unwrap();
        }
        for warning in &call.warnings {
            writeln!(out, "! {warning}").unwrap();
        }
        let body = call.body.clone().into_bytes();
        out.push('\n');
        out.push_str(&indented(&body));
        Envelope::read(body).expect("an upstream body must pass the strict scan");
    }
    out
}

/// Owned deltas, adjacent texts joined: what must be the same however the bytes arrive.
fn note(log: &mut Vec<String>, delta: &Delta<'_>) {
    log.push(format!("{delta:?}"));
}

struct Fed {
    log: Vec<String>,
    answer: Answer,
    text: String,
    error: Option<Error>,
}

fn feed(stream: &[u8], framing: Framing, size: usize, transcoder: &mut dyn Transcoder, out: &dyn Door, meta: Meta) -> Fed {
    let mut cutter = Cutter::new(framing, 1 << 20);
    let mut writer = out.writer(meta);
    let mut fed = Fed { log: Vec::new(), answer: Answer::default(), text: String::new(), error: None };
    let mut bytes = Vec::new();
    let result = {
        let mut sink = |delta: Delta<'_>| {
            note(&mut fed.log, &delta);
            fed.answer.apply(&delta);
            writer.delta(&delta, &mut bytes);
        };
        let mut run = || -> Result<(), Error> {
            for piece in stream.chunks(size) {
                cutter.push(piece, |event| transcoder.event(&event, &mut sink))?;
            }
            cutter.end(|event| transcoder.event(&event, &mut sink))?;
            transcoder.end(&mut sink)
        };
        run()
    };
    match result {
        Ok(()) => writer.end(&mut bytes),
        Err(error) => {
            let told = match &error {
                Error::Upstream(e) => ClientError { status: e.kind.status(), kind: e.kind, message: e.message.clone(), param: e.param.clone(), code: e.code.clone() },
                other => ClientError { status: 502, kind: providers::ErrorKind::Server, message: other.to_string(), param: None, code: None },
            };
            writer.error(&told, &mut bytes);
            fed.error = Some(error);
        }
    }
    fed.text = String::from_utf8(bytes).unwrap();
    fed
}

fn answer_facts(answer: &Answer) -> Value {
    let choices: Vec<Value> = answer
        .choices
        .iter()
        .map(|c| {
            json!({
                "text": c.text.clone().filter(|t| !t.is_empty()),
                "refusal": c.refusal, "reasoning": c.reasoning,
                "details": c.details.iter().map(|d: &OwnedDetail| serde_json::to_value(d).unwrap()).collect::<Vec<_>>(),
                "calls": c.calls.iter().map(|k| json!({ "id": k.id, "name": k.name, "arguments": serde_json::from_str::<Value>(if k.arguments.is_empty() { "{}" } else { &k.arguments }).ok() })).collect::<Vec<_>>(),
                "annotations": c.annotations.len(), "images": c.images, "finish": c.reason().as_openai(),
            })
        })
        .collect();
    json!({ "choices": choices, "usage": answer.usage })
}

fn check_answer(case: &mut Case, name: &str, answer: &Answer) {
    for (choice, call) in answer.choices.iter().flat_map(|c| c.calls.iter().map(move |call| (c, call))) {
        if call.id.is_empty() || call.name.is_empty() {
            case.fail(name, &format!("a call without id or name: {call:?}"));
        }
        // An answer that reached its bound may be cut in the middle of a call.
        if !call.arguments.is_empty() && choice.finish != Some(Finish::Length) && serde_json::from_str::<Value>(&call.arguments).is_err() {
            case.fail(name, &format!("arguments that are not JSON: {}", call.arguments));
        }
    }
    if let Some(usage) = answer.usage {
        let Usage { input, cache_read, cache_write, cache_write_1h, input_audio, output, reasoning, output_audio, .. } = usage;
        if input + cache_read + cache_write + cache_write_1h + input_audio + output + reasoning + output_audio != usage.total() {
            case.fail(name, "usage buckets do not sum up");
        }
    }
}

/// Feeds a stream whole, byte by byte and in sevens; compares, and returns the whole.
fn stream(case: &mut Case, name: &str, bytes: &[u8], framing: Framing, make: &dyn Fn() -> Box<dyn Transcoder>, out: &dyn Door, meta: &Meta) -> Fed {
    let whole = feed(bytes, framing, bytes.len().max(1), &mut *make(), out, meta.clone());
    for size in [1, 7] {
        let other = feed(bytes, framing, size, &mut *make(), out, meta.clone());
        if other.log != whole.log || other.text != whole.text {
            case.fail(name, &format!("differs when fed in pieces of {size}"));
        }
    }
    if whole.error.is_none() {
        check_answer(case, name, &whole.answer);
        // A line break of the upstream's JSON would cut an event in two.
        if let Some(line) = whole.text.lines().find(|l| !l.is_empty() && !l.starts_with("data: ") && !l.starts_with("event: ")) {
            case.fail(name, &format!("writes a line that is no field: {line}"));
        }
    }
    whole
}

fn settings(kind: &str, value: &Value) -> Settings {
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    Settings {
        kind: kind.into(),
        base_url: text("base_url"),
        api_version: text("api_version"),
        project: text("project"),
        location: text("location"),
        region: text("region"),
        has_key: value["has_key"].as_bool().unwrap_or(false),
    }
}

/// An operation whose bodies are JSON and may pass, by OpenAI's path for it.
fn operation(path: &str) -> Operation {
    [Operation::Chat(Dialect::Completions), Operation::Chat(Dialect::Responses), Operation::Embeddings, Operation::ImageGenerations, Operation::Speech, Operation::Moderations]
        .into_iter()
        .find(|o| o.openai_path() == Some(path))
        .unwrap_or_else(|| panic!("no operation has the path {path}"))
}

fn provider_case(kind: &str, case: &mut Case) {
    let about = case.json("case.json").unwrap_or_default();
    let provider: Box<dyn Provider> = providers::build(&settings(kind, &about["settings"])).unwrap_or_else(|e| panic!("{kind}: {e}"));
    let info: Option<prices::Model> = about.get("info").map(|i| serde_json::from_value(i.clone()).unwrap());
    let target = Target { model: about["model"].as_str().unwrap_or("the-model"), info: info.as_ref() };

    let mut renamed = Renamed::default();
    if let Some(body) = case.read("client.json") {
        let result = Envelope::read(Bytes::from(body)).and_then(|mut e| {
            let operation = about["operation"].as_str().map_or(Operation::Chat(Dialect::Chat), operation);
            // Where the bytes pass, so do the names; `translated` says that they came through another door.
            if matches!(operation, Operation::Chat(Dialect::Chat)) && (about["translated"] == true || provider.path(operation, &target, e.stream())?.is_none() || !provider.verbatim(operation)) {
                (e, renamed) = names::fit(&*provider, &target, e)?;
            }
            match provider.path(operation, &target, e.stream())? {
                Some(path) => {
                    let mut edit = e.edit();
                    let warnings = provider.adapt(operation, &mut edit, &target)?;
                    Ok(Call { path, headers: provider.headers(), body: edit.finish(), warnings })
                }
                None => provider.chat(&e.chat()?, &target).map(|mut call| {
                    call.headers.splice(0..0, provider.headers());
                    call
                }),
            }
        });
        match result {
            Ok(call) => case.expect("upstream.http", &calls_text(&[call])),
            Err(e) => case.expect("error.json", &pretty(&error_json(&e))),
        }
    }

    let mut whole = None;
    if let Some(body) = case.read("upstream.answer.json") {
        match provider.answer(&body, &target).map(|answer| renamed.answer(answer)) {
            Ok(answer) => {
                check_answer(case, "upstream.answer.json", &answer);
                let text = door(Dialect::Chat).answer(&answer, &meta());
                case.expect("client.answer.json", &indented(&text));
                whole = Some(answer);
            }
            Err(e) => case.expect("answer.error.json", &pretty(&error_json(&e))),
        }
    }

    for (name, framing) in [("upstream.sse", Framing::Sse), ("upstream.ndjson", Framing::Ndjson), ("upstream.frames", Framing::EventStream)] {
        let Some(bytes) = case.read(name) else { continue };
        assert_eq!(framing, provider.framing(), "{name} is not how {kind} frames its streams");
        let bytes = if framing == Framing::EventStream { frames(std::str::from_utf8(&bytes).unwrap()) } else { bytes };
        let fed = stream(case, name, &bytes, framing, &|| renamed.transcoder(provider.transcoder(&target)), door(Dialect::Chat), &meta());
        case.expect("client.sse", &fed.text);
        // What was written is read back by the hub's own reader: the chunks joined are the same answer.
        if fed.error.is_none() {
            let again = feed(fed.text.as_bytes(), Framing::Sse, fed.text.len(), &mut openai::Chunks::default(), door(Dialect::Chat), meta());
            assert!(again.error.is_none(), "{}: {:?}", case.folder.display(), again.error);
            let strip = |a: &Answer| {
                let mut facts = answer_facts(a);
                facts["usage"] = json!([a.usage.map(|u| (u.prompt(), u.completion(), u.cache_read, u.reasoning))]);
                facts["choices"].as_array_mut().unwrap().iter_mut().for_each(|c| ["details", "images"].iter().for_each(|k| c[*k] = Value::Null));
                facts
            };
            if again.answer.usage.is_some() && strip(&again.answer) != strip(&fed.answer) && fed.answer.usage.is_some() {
                case.fail(name, &format!("the chunks joined are another answer:\n{}\n{}", pretty(&strip(&fed.answer)), pretty(&strip(&again.answer))));
            }
            if let Some(whole) = whole.as_ref().filter(|_| about["differs"] != true) {
                let (a, b) = (answer_facts(whole), answer_facts(&fed.answer));
                if a != b {
                    case.fail(name, &format!("the stream and the answer differ:\n{}\n{}", pretty(&a), pretty(&b)));
                }
            }
        }
    }

    if let Some(error) = case.json("upstream.error.json") {
        let body = if let Some(text) = error["body"].as_str() { text.to_owned() } else { error["body"].to_string() };
        let read = provider.error(error["status"].as_u64().unwrap() as u16, body.as_bytes());
        case.expect("client.error.json", &pretty(&upstream_json(&read)));
    }
    embeddings(case, &*provider, &target);
    reranking(case, &*provider, &target);
}

fn embeddings(case: &mut Case, provider: &dyn Provider, target: &Target<'_>) {
    if let Some(body) = case.read("embed.json") {
        match provider.embed(&serde_json::from_slice(&body).unwrap(), target) {
            Ok(calls) => case.expect("embed.http", &calls_text(&calls)),
            Err(e) => case.expect("embed.error.json", &pretty(&error_json(&e))),
        }
    }
    if let Some(answers) = case.json("embed.answers.json") {
        let bodies: Vec<Bytes> = answers.as_array().unwrap().iter().map(|a| Bytes::from(a.to_string())).collect();
        let read = provider.embeddings(&bodies, target).unwrap();
        case.expect("embed.client.json", &pretty(&serde_json::from_slice(&read.to_openai(target.model, false)).unwrap()));
    }
}

fn reranking(case: &mut Case, provider: &dyn Provider, target: &Target<'_>) {
    if let Some(body) = case.read("rerank.json") {
        match provider.rerank(&serde_json::from_slice(&body).unwrap(), target) {
            Ok(call) => case.expect("rerank.http", &calls_text(&[call])),
            Err(e) => case.expect("rerank.error.json", &pretty(&error_json(&e))),
        }
    }
    if let Some(body) = case.read("rerank.answer.json") {
        let ranking = provider.ranking(&body, target).unwrap();
        case.expect("rerank.client.json", &pretty(&serde_json::from_slice(&ranking.to_json("ID", target.model, None)).unwrap()));
    }
}

fn dialect(name: &str) -> Dialect {
    match name {
        "chat" => Dialect::Chat,
        "completions" => Dialect::Completions,
        "responses" => Dialect::Responses,
        "messages" => Dialect::Messages,
        "generate" => Dialect::Generate,
        other => panic!("no door is called {other}"),
    }
}

fn door_case(name: &str, case: &mut Case) {
    let door = door(dialect(name));
    let request = case.read("client.json");
    if let Some(body) = &request {
        let mut warnings = Vec::new();
        match Envelope::read(Bytes::from(body.clone())).and_then(|e| door.read(&e, &mut warnings)) {
            Ok(hub) => {
                if !warnings.is_empty() || case.read("warnings.json").is_some() {
                    case.expect("warnings.json", &pretty(&json!(warnings)));
                }
                let envelope = Envelope::read(Bytes::from(hub.clone())).expect("a hub request must pass the strict scan");
                envelope.chat().expect("a hub request must be a chat request");
                case.expect("hub.json", &indented(&hub));
            }
            Err(e) => case.expect("error.json", &pretty(&error_json(&e))),
        }
    }
    let meta = Meta { request: request.unwrap_or_default().into(), ..meta() };
    if let Some(body) = case.read("hub.answer.json") {
        let answer = openai::read_answer(&body).unwrap();
        let text = door.answer(&answer, &meta);
        case.expect("client.answer.json", &indented(&text));
    }
    if let Some(bytes) = case.read("hub.sse") {
        let fed = stream(case, "hub.sse", &bytes, Framing::Sse, &|| Box::new(openai::Chunks::default()), door, &meta);
        case.expect("client.sse", &fed.text);
    }
}

fn walk(kind: &str, each: fn(&str, &mut Case)) {
    let mut failures = Vec::new();
    let mut cases = 0;
    for group in folders(&root().join(kind)) {
        let name = group.file_name().unwrap().to_str().unwrap().to_owned();
        for folder in folders(&group) {
            let mut case = Case { folder, failures: Vec::new() };
            each(&name, &mut case);
            failures.append(&mut case.failures);
            cases += 1;
        }
    }
    assert!(cases > 0, "there are no fixtures below {kind}");
    assert!(failures.is_empty(), "{} of {cases} cases:\n\n{}", failures.len(), failures.join("\n\n"));
}

#[test]
fn providers_translate_as_their_fixtures_say() {
    walk("providers", provider_case);
}

#[test]
fn doors_translate_as_their_fixtures_say() {
    walk("doors", door_case);
}
