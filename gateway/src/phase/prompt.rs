//! Templates, decorations and defaults: the operator's words, put into the request before anyone else reads it.

use http::StatusCode;
use providers::envelope::Envelope;
use providers::{Dialect, ErrorKind, Operation};
use serde_json::{Map, Value};

use crate::exchange::{Asked, Exchange};
use crate::fault::Fault;
use crate::prompts::{PromptRule, Prompts};
use crate::rules::ModelRule;

/// Applies the model's prompt rules, and writes the template down that was used.
///
/// # Errors
/// As [`rewrite`].
pub fn apply(x: &mut Exchange, model: &ModelRule) -> Result<(), Fault> {
    let used = rewrite(&mut x.asked, &x.rules.prompts, model)?;
    if let Some(entry) = x.entry() {
        entry.prompt = used;
    }
    Ok(())
}

/// Rewrites a request by the model's prompt rules, and says which template and version was used. A request to a model without
/// any is not touched, and not even translated.
///
/// # Errors
/// When a template is asked for that does not exist, lacks variables, or is required and not used.
pub fn rewrite(asked: &mut Asked, prompts: &Prompts, model: &ModelRule) -> Result<Option<String>, Fault> {
    let rule = &model.prompt;
    let mut used = None;
    if let Operation::Chat(_) = asked.operation {
        let call = Call::read(asked, prompts);
        if call.is_some() || !rule.is_empty() {
            used = messages(asked, prompts, rule, call)?;
        }
    }
    if !rule.defaults.is_empty() && matches!(asked.operation, Operation::Chat(_) | Operation::Embeddings | Operation::Rerank) {
        defaults(asked, rule)?;
    }
    Ok(used)
}

/// What a request itself says of templates.
#[derive(Default)]
struct Call {
    /// The one that all of it is made from.
    id: Option<String>,
    /// Whether its messages are a text that stands for the template, instead of a list.
    whole: bool,
    variables: Map<String, Value>,
}

impl Call {
    fn read(asked: &Asked, prompts: &Prompts) -> Option<Self> {
        let envelope = &asked.envelope;
        let object = envelope.get("prompt").filter(|p| p.starts_with('{')).and_then(|_| envelope.parse::<Map<String, Value>>("prompt").ok().flatten());
        // OpenAI keeps templates too, for its own Responses.
        if asked.operation == Operation::Chat(Dialect::Responses) && object.as_ref().is_some_and(|o| o.get("id").and_then(Value::as_str).is_some_and(|id| id.starts_with("pmpt_"))) {
            return None;
        }
        // Without templates there is nothing that a message could stand for.
        let mentioned = !prompts.is_empty() && memchr::memmem::find(envelope.body(), b"{template://").is_some();
        if object.is_none() && !mentioned {
            return None;
        }
        let whole = envelope.parse::<Value>("messages").ok().flatten().and_then(|v| named(v.as_str()?).map(str::to_owned));
        let object = object.unwrap_or_default();
        let variables = object.get("variables").and_then(Value::as_object).cloned().or_else(|| envelope.parse("properties").ok().flatten()).unwrap_or_default();
        let id = object.get("id").and_then(Value::as_str).map(str::to_owned);
        Some(Call { whole: whole.is_some(), id: id.or(whole), variables })
    }

    /// The request without what it says of templates, in the hub: it is no request of its own dialect before. One that has
    /// nothing but a template gets an empty list of messages.
    fn take_out(&self, asked: &Asked) -> Result<Envelope, Fault> {
        let mut edit = asked.envelope.edit();
        if asked.operation != Operation::Chat(Dialect::Completions) {
            edit.remove("prompt");
        }
        edit.remove("properties");
        if self.whole || asked.operation == Operation::Chat(Dialect::Chat) && asked.envelope.get("messages").is_none() {
            edit.set("messages", "[]");
        }
        let mut bare = Asked::new(asked.operation);
        (bare.model, bare.stream) = (asked.model.clone(), asked.stream);
        bare.envelope = Envelope::read(edit.finish().into_bytes())?;
        Ok(bare.hub()?.clone())
    }
}

/// The template that a text stands for: `{template://name}`.
fn named(text: &str) -> Option<&str> {
    text.trim().strip_prefix("{template://")?.strip_suffix('}')
}

fn bad(message: String) -> Fault {
    Fault::client(StatusCode::BAD_REQUEST, ErrorKind::InvalidRequest, message).param("prompt")
}

fn messages(asked: &mut Asked, prompts: &Prompts, rule: &PromptRule, call: Option<Call>) -> Result<Option<String>, Fault> {
    let hub = match &call {
        Some(call) => call.take_out(asked)?,
        None => asked.hub()?.clone(),
    };
    let call = call.unwrap_or_default();
    let mut list: Vec<Value> = Vec::with_capacity(8);
    list.extend(rule.prepend.iter().cloned());
    let mut used = None;
    let mut fill = |id: &str, into: &mut Vec<Value>| -> Result<(), Fault> {
        let (made, name) = prompts.fill(id, &call.variables, fastrand::u32(..)).map_err(bad)?;
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
    if let Some(id) = call.id.as_deref().or(rule.template.as_deref()) {
        fill(id, &mut list)?;
    }
    if used.is_none() && rule.require_template {
        return Err(bad("this model takes only requests that use a prompt template: send `\"prompt\": {\"id\": \"name\", \"variables\": {…}}`".into()));
    }
    list.extend(rule.append.iter().cloned());
    let mut edit = hub.edit();
    edit.set("messages", Value::Array(list).to_string());
    asked.rewrite(Envelope::read(edit.finish().into_bytes())?);
    Ok(used)
}

fn defaults(asked: &mut Asked, rule: &PromptRule) -> Result<(), Fault> {
    let hub = asked.hub()?;
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
        let rewritten = Envelope::read(edit.finish().into_bytes())?;
        asked.rewrite(rewritten);
    }
    Ok(())
}
