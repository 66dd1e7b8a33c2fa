//! An entry as a line of JSON. Written by hand: through the serializer, which escapes every name anew, the line cost an eighth
//! of all that a small request costs this process.

use std::fmt::Display;
use std::io::Write;
use std::sync::Arc;

use providers::usage::Usage;

use super::{Entry, Try};
use crate::trace::{Trace, write_hex};

/// Appends an entry, without a line end. What is not known is left out.
pub fn write(entry: &Entry, out: &mut Vec<u8>) {
    // Taken apart by name, so that a new field cannot be forgotten here.
    let Entry {
        time,
        request_id,
        trace: Trace { trace_id, span_id, parent: _, sampled: _ },
        operation,
        consumer,
        groups,
        model,
        route,
        provider,
        provider_kind,
        model_used,
        stream,
        tries,
        usage,
        cost,
        finish,
        status,
        error,
        detail,
        client_left,
        drained,
        first_token_ms,
        token_ms,
        latency_ms,
        prompt,
        request,
        answer,
    } = entry;
    let mut line = Line { out };
    line.out.push(b'{');
    line.decimal("time", *time);
    line.text("request_id", request_id);
    if *trace_id != 0 {
        line.hex("trace_id", *trace_id, 32);
        line.hex("span_id", (*span_id).into(), 16);
    }
    line.text("operation", operation);
    line.maybe("consumer", consumer.as_deref());
    if let Some(groups) = groups {
        line.key("groups");
        line.texts(groups);
    }
    line.text("model", model);
    line.maybe("route", Some(&**route).filter(|r| !r.is_empty()));
    line.maybe("provider", provider.as_deref());
    line.maybe("provider_kind", *provider_kind);
    line.maybe("model_used", model_used.as_deref());
    line.flag("stream", *stream);
    line.key("tries");
    line.list(tries);
    if let Some(usage) = usage {
        line.key("usage");
        line.usage(usage);
    }
    if let Some(cost) = cost {
        // A number with the exact digits: a float would round.
        line.shown("cost", cost);
    }
    line.maybe("finish", finish.map(|f| f.as_openai()));
    line.whole("status", u64::from(*status));
    line.maybe("error", error.as_deref());
    line.maybe("detail", detail.as_deref());
    if *client_left {
        line.flag("client_left", true);
    }
    if *drained {
        line.flag("drained", true);
    }
    first_token_ms.iter().for_each(|ms| line.decimal("first_token_ms", *ms));
    token_ms.iter().for_each(|ms| line.decimal("token_ms", *ms));
    line.decimal("latency_ms", *latency_ms);
    line.maybe("prompt", prompt.as_deref());
    line.maybe("request", request.as_deref());
    line.maybe("answer", answer.as_deref());
    line.out.push(b'}');
}

struct Line<'o> {
    out: &'o mut Vec<u8>,
}

impl Line<'_> {
    /// A field's name, with a comma unless it is the first. Names need no escapes.
    fn key(&mut self, name: &str) {
        if self.out.last() != Some(&b'{') {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn text(&mut self, name: &str, text: &str) {
        self.key(name);
        if text.bytes().any(|b| b < b' ' || b == b'"' || b == b'\\') {
            // Writing to memory cannot fail.
            let _ = serde_json::to_writer(&mut *self.out, text);
            return;
        }
        self.out.push(b'"');
        self.out.extend_from_slice(text.as_bytes());
        self.out.push(b'"');
    }

    fn texts(&mut self, texts: &[Arc<str>]) {
        // Writing to memory cannot fail.
        let _ = serde_json::to_writer(&mut *self.out, texts);
    }

    fn maybe(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    fn flag(&mut self, name: &str, value: bool) {
        self.key(name);
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    fn whole(&mut self, name: &str, number: u64) {
        self.key(name);
        self.out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    fn decimal(&mut self, name: &str, number: f64) {
        self.key(name);
        let _ = serde_json::to_writer(&mut *self.out, &number);
    }

    fn shown(&mut self, name: &str, value: &impl Display) {
        self.key(name);
        let _ = write!(self.out, "{value}");
    }

    fn hex(&mut self, name: &str, id: u128, digits: usize) {
        self.key(name);
        let mut room = [0; 32];
        let text = &mut room[..digits];
        write_hex(id, text);
        self.out.push(b'"');
        self.out.extend_from_slice(text);
        self.out.push(b'"');
    }

    fn list(&mut self, tries: &[Try]) {
        self.out.push(b'[');
        for (i, Try { target, outcome, status, start_ms, ms, span_id, kind: _, spent }) in tries.iter().enumerate() {
            if i > 0 {
                self.out.push(b',');
            }
            self.out.push(b'{');
            self.text("target", target);
            self.text("outcome", outcome);
            status.iter().for_each(|s| self.whole("status", u64::from(*s)));
            self.decimal("start_ms", *start_ms);
            self.decimal("ms", *ms);
            if *span_id != 0 {
                self.hex("span_id", (*span_id).into(), 16);
            }
            if let Some(spent) = spent {
                self.key("usage");
                self.usage(&spent.usage);
                spent.cost.iter().for_each(|cost| self.shown("cost", cost));
            }
            self.out.push(b'}');
        }
        self.out.push(b']');
    }

    fn usage(&mut self, usage: &Usage) {
        let Usage { input, cache_read, cache_write, cache_write_1h, input_audio, output, reasoning, output_audio, estimated } = usage;
        self.out.push(b'{');
        let buckets = [
            ("input", input),
            ("cache_read", cache_read),
            ("cache_write", cache_write),
            ("cache_write_1h", cache_write_1h),
            ("input_audio", input_audio),
            ("output", output),
            ("reasoning", reasoning),
            ("output_audio", output_audio),
        ];
        for (name, tokens) in buckets {
            self.whole(name, *tokens);
        }
        self.flag("estimated", *estimated);
        self.out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use providers::answer::Finish;
    use providers::prices::Nanodollars;

    use super::*;
    use crate::ledger::Spent;

    #[test]
    fn an_entry_is_one_line_of_json_with_all_that_is_known() {
        let first = Try {
            target: "a/\"one\"".into(),
            outcome: "status",
            status: Some(503),
            start_ms: 1.0,
            ms: 20.25,
            span_id: 0x11,
            kind: "azure",
            spent: Some(Box::new(Spent { usage: Usage { input: 2, ..Usage::default() }, cost: Some(Nanodollars(2)) })),
        };
        let second = Try { target: "b/two".into(), outcome: "open", status: None, start_ms: 21.5, ms: 0.0, span_id: 0, kind: "groq", spent: None };
        let entry = Entry {
            time: 1_700_000_000.5,
            request_id: "r1".into(),
            trace: Trace { trace_id: 0xab, span_id: 0xcd, parent: Some(1), sampled: true },
            operation: "chat",
            consumer: Some("zoë".into()),
            groups: Some(["staff".into(), "r\"d".into()].into()),
            model: "mine\n7".into(),
            provider: Some("b".into()),
            stream: true,
            tries: vec![first, second],
            usage: Some(Usage { input: 3, output: 4, ..Usage::default() }),
            cost: Some(Nanodollars(1_500_000_001)),
            finish: Some(Finish::Length),
            status: 200,
            client_left: true,
            drained: true,
            token_ms: Some(1.25),
            latency_ms: 12.0,
            answer: Some("tab\t\\ and \u{1}".into()),
            ..Entry::blank()
        };
        let mut out = b"before ".to_vec();
        write(&entry, &mut out);
        let text = std::str::from_utf8(&out).unwrap().strip_prefix("before ").unwrap();
        assert!(text.contains(r#""cost":1.500000001,"#), "{text}");
        let read: serde_json::Value = serde_json::from_str(text).unwrap();
        let wanted = serde_json::json!({
            "time": 1_700_000_000.5, "request_id": "r1", "trace_id": "000000000000000000000000000000ab", "span_id": "00000000000000cd", "operation": "chat",
            "consumer": "zoë", "groups": ["staff", "r\"d"], "model": "mine\n7", "provider": "b", "stream": true,
            "tries": [
                { "target": "a/\"one\"", "outcome": "status", "status": 503, "start_ms": 1.0, "ms": 20.25, "span_id": "0000000000000011",
                  "usage": { "input": 2, "cache_read": 0, "cache_write": 0, "cache_write_1h": 0, "input_audio": 0, "output": 0, "reasoning": 0, "output_audio": 0, "estimated": false }, "cost": 0.000_000_002 },
                { "target": "b/two", "outcome": "open", "start_ms": 21.5, "ms": 0.0 },
            ],
            "usage": { "input": 3, "cache_read": 0, "cache_write": 0, "cache_write_1h": 0, "input_audio": 0, "output": 4, "reasoning": 0, "output_audio": 0, "estimated": false },
            "cost": 1.500_000_001, "finish": "length", "status": 200, "client_left": true, "drained": true, "token_ms": 1.25, "latency_ms": 12.0, "answer": "tab\t\\ and \u{1}",
        });
        assert_eq!(read, wanted);
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let mut out = Vec::new();
        write(&Entry::blank(), &mut out);
        assert_eq!(std::str::from_utf8(&out).unwrap(), r#"{"time":0.0,"request_id":"","operation":"","model":"","stream":false,"tries":[],"status":0,"latency_ms":0.0}"#);
    }
}
