//! Templates, decorations and defaults: the operator's words, put into the request before anyone else reads it.

use bytes::Bytes;
use http::StatusCode;
use providers::envelope::Envelope;
use providers::{ErrorKind, Operation};
use serde_json::{Map, Value};

use crate::exchange::Exchange;
use crate::fault::Fault;
use crate::prompts::PromptRule;
use crate::rules::ModelRule;

/// Applies the model's prompt rules. A request to a model without any is not touched, and not even translated.
///
/// # Errors
/// When a template is asked for that does not exist, lacks variables, or is required and not used.
pub fn apply(x: &mut Exchange, model: &ModelRule) -> Result<(), Fault> {
    let rule = &model.prompt;
    if let Operation::Chat(_) = x.operation {
        // Without templates there is nothing that a request could name.
        let calls = !x.rules.prompts.is_empty() && calls_template(&x.envelope) || x.envelope.get("prompt").is_some_and(|p| p.starts_with('{'));
        if calls || !rule.is_empty() {
            messages(x, rule, calls)?;
        }
    }
    if !rule.defaults.is_empty() && matches!(x.operation, Operation::Chat(_) | Operation::Embeddings | Operation::Rerank) {
        defaults(x, rule)?;
    }
    Ok(())
}

/// Whether a request names a template itself.
fn calls_template(envelope: &Envelope) -> bool {
    envelope.get("prompt").is_some_and(|p| p.starts_with('{')) || memchr::memmem::find(envelope.body(), b"{template://").is_some()
}

/// The template that a text stands for: `{template://name}`.
fn named(text: &str) -> Option<&str> {
    text.trim().strip_prefix("{template://")?.strip_suffix('}')
}

fn bad(message: String, param: &str) -> Fault {
    Fault::client(StatusCode::BAD_REQUEST, ErrorKind::InvalidRequest, message).param(param)
}

fn messages(x: &mut Exchange, rule: &PromptRule, calls: bool) -> Result<(), Fault> {
    let rules = x.rules.clone();
    // `{"messages": "{template://name}"}` is no chat request yet: it is given an empty list before it is read as one.
    let whole: Option<String> = x.envelope.parse::<Value>("messages").ok().flatten().and_then(|v| named(v.as_str()?).map(str::to_owned));
    let source = if whole.is_some() {
        let mut edit = x.envelope.edit();
        edit.set("messages", "[]");
        Envelope::read(edit.finish().into_bytes())?
    } else {
        let mut edit = x.envelope.edit();
        edit.remove("prompt");
        if calls && x.envelope.get("messages").is_none() && x.operation == Operation::Chat(providers::Dialect::Chat) {
            edit.set("messages", "[]");
        }
        if calls || matches!(x.operation, Operation::Chat(providers::Dialect::Chat)) { Envelope::read(edit.finish().into_bytes())? } else { x.hub()?.clone() }
    };
    let object: Map<String, Value> = x.envelope.parse::<Value>("prompt").ok().flatten().and_then(|v| v.as_object().cloned()).unwrap_or_default();
    let variables = object.get("variables").and_then(Value::as_object).cloned().or_else(|| x.envelope.parse::<Map<String, Value>>("properties").ok().flatten()).unwrap_or_default();
    let asked = object.get("id").and_then(Value::as_str).map(str::to_owned).or(whole);
    let hub = if source.get("messages").is_some() { source } else { x.hub()?.clone() };

    let mut list: Vec<Value> = Vec::with_capacity(8);
    list.extend(rule.prepend.iter().cloned());
    let mut used = None;
    let mut fill = |id: &str, into: &mut Vec<Value>| -> Result<(), Fault> {
        let (made, name) = rules.prompts.fill(id, &variables, fastrand::u32(..)).map_err(|m| bad(m, "prompt"))?;
        into.extend(made);
        used = Some(name);
        Ok(())
    };
    for message in hub.parse::<Vec<Value>>("messages")?.unwrap_or_default() {
        match message["content"].as_str().and_then(named) {
            Some(id) => fill(id, &mut list)?,
            None => list.push(message),
        }
    }
    if let Some(id) = asked.as_deref().or(rule.template.as_deref()) {
        fill(id, &mut list)?;
    }
    if used.is_none() && rule.require_template {
        return Err(bad("this model takes only requests that use a prompt template: send `\"prompt\": {\"id\": \"name\", \"variables\": {…}}`".into(), "prompt"));
    }
    list.extend(rule.append.iter().cloned());
    let mut edit = hub.edit();
    edit.set("messages", Value::Array(list).to_string());
    edit.remove("prompt");
    edit.remove("properties");
    let rewritten = Envelope::read(edit.finish().into_bytes())?;
    if let Some(entry) = x.entry() {
        entry.prompt = used;
    }
    x.rewrite(rewritten);
    Ok(())
}

fn defaults(x: &mut Exchange, rule: &PromptRule) -> Result<(), Fault> {
    let hub = x.hub()?;
    let has = |name: &str| hub.get(name).is_some_and(|v| v != "null");
    let mut edit = hub.edit();
    let mut changed = false;
    for (name, value) in &rule.defaults {
        // The two names of one bound: a default for the one must not override the other.
        let set = match name.as_str() {
            "max_tokens" | "max_completion_tokens" => has("max_tokens") || has("max_completion_tokens"),
            other => has(other),
        };
        if !set {
            edit.set(name, value.clone());
            changed = true;
        }
    }
    if changed {
        let bytes: Bytes = edit.finish().into_bytes();
        let rewritten = Envelope::read(bytes)?;
        x.rewrite(rewritten);
    }
    Ok(())
}
