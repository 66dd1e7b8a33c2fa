//! Spans out of a finished entry: one for the request, and one for each try that reached for an upstream. Names are those of
//! OpenTelemetry's GenAI conventions. No text of a client's or of an upstream's is in them beyond the names of models and a
//! client's own request id.

use std::borrow::Cow;

use super::wire::{Message, Value};
use crate::ledger::{Entry, Try};

/// Spans, written, and how many they are.
#[derive(Debug, Default)]
pub(super) struct Spans {
    pub(super) bytes: Vec<u8>,
    pub(super) count: u64,
}

/// The field of the spans in their envelope, and that of attributes in a span.
const SPANS: u32 = 2;
const ATTRIBUTES: u32 = 9;
const SERVER: u64 = 2;
const CLIENT: u64 = 3;
/// Flags of a span: recorded; it is known whether the parent is in another process; it is.
const SAMPLED: u32 = 0x01;
const KNOWN: u32 = 0x100;
const REMOTE: u32 = 0x200;

/// The spans of a request; `None` if it has no place in a trace.
pub(super) fn write(entry: &Entry) -> Option<Spans> {
    if entry.trace.trace_id == 0 {
        return None;
    }
    let (trace, id, parent) = (entry.trace.trace_id.to_be_bytes(), entry.trace.span_id, entry.trace.parent);
    let mut out = Message::default();
    let head = Head { trace, id, parent, remote: true, kind: SERVER, name: name(entry.operation, if entry.route.is_empty() { "" } else { &entry.model }) };
    out.nested(SPANS, |m| {
        head.write(m, entry, 0.0, entry.latency_ms);
        describe(m, entry);
        let error = error_type(entry);
        // A client's own mistake is no error of the server's, by OpenTelemetry's rules for HTTP.
        finish(m, error.as_deref(), entry.status >= 500 || entry.error.is_some() && entry.status < 400);
    });
    let mut count = 1;
    for (at, t) in entry.tries.iter().enumerate().filter(|(_, t)| t.span_id != 0) {
        let head = Head { trace, id: t.span_id, parent: Some(id), remote: false, kind: CLIENT, name: name(entry.operation, model_of(t)) };
        out.nested(SPANS, |m| {
            head.write(m, entry, t.start_ms, t.start_ms + lasted(entry, t));
            describe_try(m, entry, t);
            let error = try_error(entry, at);
            finish(m, error.as_deref(), error.is_some());
        });
        count += 1;
    }
    Some(Spans { bytes: out.into_bytes(), count })
}

/// What every span begins with.
struct Head {
    trace: [u8; 16],
    id: u64,
    parent: Option<u64>,
    remote: bool,
    kind: u64,
    name: String,
}

impl Head {
    fn write(&self, m: &mut Message, entry: &Entry, start_ms: f64, end_ms: f64) {
        let at = |ms: f64| (entry.time * 1e9) as u64 + (ms.max(0.0) * 1e6) as u64;
        m.bytes(1, &self.trace);
        m.bytes(2, &self.id.to_be_bytes());
        if let Some(parent) = self.parent {
            m.bytes(4, &parent.to_be_bytes());
        }
        m.text(5, &self.name);
        m.int(6, self.kind);
        m.fixed64(7, at(start_ms));
        m.fixed64(8, at(end_ms));
        m.fixed32(16, SAMPLED | KNOWN | if self.remote && self.parent.is_some() { REMOTE } else { 0 });
    }
}

fn name(operation: &str, model: &str) -> String {
    format!("{operation} {model}").trim_end().to_owned()
}

fn describe(m: &mut Message, entry: &Entry) {
    let mut set = |key: &str, value: Value<'_>| m.attribute(ATTRIBUTES, key, &value);
    set("gen_ai.operation.name", Value::Text(entry.operation));
    if let Some(kind) = entry.provider_kind {
        set("gen_ai.provider.name", Value::Text(provider_name(kind)));
    }
    let answered = entry.provider.is_some() && (200..300).contains(&entry.status);
    let texts = [
        ("gen_ai.request.model", Some(entry.model.as_str())),
        ("gen_ai.response.model", entry.model_used.as_deref().filter(|_| answered)),
        ("trivium.route", Some(&*entry.route)),
        ("trivium.provider", entry.provider.as_deref()),
        ("trivium.consumer", entry.consumer.as_deref()),
        ("trivium.request_id", Some(entry.request_id.as_str())),
    ];
    for (key, text) in texts {
        if let Some(text) = text.filter(|t| !t.is_empty()) {
            set(key, Value::Text(text));
        }
    }
    if let Some(usage) = entry.usage {
        set("gen_ai.usage.input_tokens", Value::Int(usage.prompt()));
        set("gen_ai.usage.output_tokens", Value::Int(usage.completion()));
        let parts = [
            ("gen_ai.usage.cache_read.input_tokens", usage.cache_read),
            ("gen_ai.usage.cache_creation.input_tokens", usage.cache_write + usage.cache_write_1h),
            ("gen_ai.usage.reasoning.output_tokens", usage.reasoning),
        ];
        for (key, tokens) in parts.into_iter().filter(|(_, n)| *n > 0) {
            set(key, Value::Int(tokens));
        }
        if usage.estimated {
            set("trivium.usage_estimated", Value::Bool(true));
        }
    }
    if let Some(finish) = entry.finish {
        set("gen_ai.response.finish_reasons", Value::Texts(&[finish.as_openai()]));
    }
    if let Some(cost) = entry.cost {
        set("trivium.cost_dollars", Value::Double(cost.dollars()));
    }
    if let Some(ms) = entry.first_token_ms {
        set("trivium.first_token_ms", Value::Double(ms));
    }
    set("trivium.stream", Value::Bool(entry.stream));
    if entry.client_left {
        set("trivium.client_left", Value::Bool(true));
    }
    set("http.response.status_code", Value::Int(u64::from(entry.status)));
}

fn describe_try(m: &mut Message, entry: &Entry, t: &Try) {
    let mut set = |key: &str, value: Value<'_>| m.attribute(ATTRIBUTES, key, &value);
    // Usage and cost are the request's: whoever sums over spans must not find them twice.
    set("gen_ai.operation.name", Value::Text(entry.operation));
    set("gen_ai.provider.name", Value::Text(provider_name(t.kind)));
    if !model_of(t).is_empty() {
        set("gen_ai.request.model", Value::Text(model_of(t)));
    }
    set("trivium.target", Value::Text(&t.target));
    set("trivium.outcome", Value::Text(t.outcome));
    if let Some(status) = t.status {
        set("http.response.status_code", Value::Int(u64::from(status)));
    }
}

fn finish(m: &mut Message, error: Option<&str>, failed: bool) {
    if let Some(error) = error {
        m.attribute(ATTRIBUTES, "error.type", &Value::Text(error));
    }
    if failed {
        m.nested(15, |m| m.int(3, 2));
    }
}

/// The model's name in a target.
fn model_of(t: &Try) -> &str {
    t.target.split_once('/').map_or("", |(_, model)| model)
}

/// The provider's name in a target.
pub(super) fn account_of(t: &Try) -> &str {
    t.target.split_once('/').map_or(&*t.target, |(provider, _)| provider)
}

/// How long a try took, milliseconds: the one that gave a stream took until its end.
pub(super) fn lasted(entry: &Entry, t: &Try) -> f64 {
    if t.outcome == "ok" && entry.stream { (entry.latency_ms - t.start_ms).max(t.ms) } else { t.ms }
}

/// What went wrong with a request, in words of a bounded set.
pub(super) fn error_type(entry: &Entry) -> Option<Cow<'static, str>> {
    match entry.status {
        400.. => Some(Cow::Owned(entry.status.to_string())),
        _ if entry.error.is_some() => Some(Cow::Borrowed("stream")),
        _ => None,
    }
}

/// What went wrong with a try.
pub(super) fn try_error(entry: &Entry, at: usize) -> Option<Cow<'static, str>> {
    let t = entry.tries.get(at)?;
    match (t.outcome, t.status) {
        // It had begun well, and broke after something had been shown.
        ("ok", _) if entry.error.is_some() && at + 1 == entry.tries.len() => Some(Cow::Borrowed("stream")),
        ("ok", _) => None,
        ("status", Some(status)) => Some(Cow::Owned(status.to_string())),
        (outcome, _) => Some(Cow::Borrowed(outcome)),
    }
}

/// OpenTelemetry's `gen_ai.provider.name` for a kind of provider; a kind that it does not know keeps its own name.
pub(super) fn provider_name(kind: &'static str) -> &'static str {
    match kind {
        "azure" => "azure.ai.openai",
        "bedrock" => "aws.bedrock",
        "gemini" => "gcp.gemini",
        "vertex" => "gcp.vertex_ai",
        "mistral" => "mistral_ai",
        "xai" => "x_ai",
        other => other,
    }
}
