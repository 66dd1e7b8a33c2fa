//! What would become of a request: which model, which targets, the translated upstream request and what it would cost.
//! Sends nothing.

use bytes::Bytes;
use providers::envelope::Envelope;
use providers::usage::Usage;
use providers::{Dialect, Operation, Target, door};
use serde_json::{Value, json};

use crate::fault::model_not_found;
use crate::rules::{Rules, TargetRule};

/// Explains a request body.
///
/// # Errors
/// What the client would be told.
pub fn explain(rules: &Rules, path: &str, body: Bytes) -> Result<Value, String> {
    let operation = match path.trim_end_matches('/') {
        "/v1/chat/completions" => Operation::Chat(Dialect::Chat),
        "/v1/completions" => Operation::Chat(Dialect::Completions),
        "/v1/responses" => Operation::Chat(Dialect::Responses),
        "/v1/messages" => Operation::Chat(Dialect::Messages),
        "/v1/embeddings" => Operation::Embeddings,
        other => return Err(format!("{other} cannot be explained; one of /v1/chat/completions, /v1/completions, /v1/responses, /v1/messages, /v1/embeddings can")),
    };
    let envelope = Envelope::read(body).map_err(|e| e.to_string())?;
    let asked = envelope.model();
    let (model, rest) = rules.model(asked).ok_or_else(|| model_not_found(asked, &rules.names()).told.message)?;
    let targets: Vec<Value> = model.targets.iter().map(|t| target(rules, t, rest, operation, &envelope)).collect();
    let fallback: Vec<Value> = model.fallback.iter().map(|t| target(rules, t, rest, operation, &envelope)).collect();
    Ok(json!({
        "model": asked,
        "route": model.name,
        "balance": format!("{:?}", model.balance),
        "tries": model.retry.attempts,
        "targets": targets,
        "fallback": fallback,
    }))
}

fn target(rules: &Rules, target: &TargetRule, rest: &str, operation: Operation, envelope: &Envelope) -> Value {
    let name = target.model_for(rest);
    let dialect = &target.provider.dialect;
    let info = rules.prices.get(&target.provider.name, dialect.kind(), &name).map(|m| &**m);
    let t = Target { model: &name, info };
    let mut out = json!({ "target": format!("{}/{name}", target.provider.name), "kind": dialect.kind(), "weight": target.weight });
    match upstream(dialect.as_ref(), &t, operation, envelope) {
        Ok((path, passes, warnings, body)) => {
            out["url"] = json!(format!("{}{path}", target.provider.base_url));
            out["translated"] = json!(!passes);
            if !warnings.is_empty() {
                out["warnings"] = json!(warnings);
            }
            out["body"] = body;
        }
        Err(e) => out["refused"] = json!(e.to_string()),
    }
    if let Some(info) = info {
        let input = (envelope.body().len() as u64).div_ceil(4);
        let asked = envelope.chat().ok().and_then(|c| c.max_output());
        let output = asked.or(info.max_output).unwrap_or(0);
        let cost = |input, output| info.cost(&Usage { input, output, ..Usage::default() }, false).to_string();
        out["estimate"] = json!({ "prompt_tokens": input, "prompt_dollars": cost(input, 0), "worst_case_output_tokens": output, "worst_case_dollars": cost(input, output) });
    } else if dialect.kind() != "echo" {
        out["estimate"] = json!("no price is known for this model; give it one under `prices`");
    }
    out
}

type Upstream = (String, bool, Vec<String>, Value);

fn upstream(dialect: &dyn providers::Provider, t: &Target<'_>, operation: Operation, envelope: &Envelope) -> Result<Upstream, providers::Error> {
    let parsed = |bytes: Bytes| serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    let stream = envelope.stream();
    if let Some(path) = dialect.path(operation, t, stream)? {
        let mut edit = envelope.edit();
        let warnings = dialect.adapt(operation, &mut edit, t)?;
        return Ok((path, true, warnings, parsed(edit.finish().into_bytes())));
    }
    let Operation::Chat(spoken) = operation else {
        let request = providers::envelope::parse_body(envelope.body())?;
        let calls = dialect.embed(&request, t)?;
        let bodies: Vec<Value> = calls.iter().map(|c| parsed(c.body.clone().into_bytes())).collect();
        let first = calls.first().map(|c| c.path.clone()).unwrap_or_default();
        return Ok((first, false, calls.into_iter().flat_map(|c| c.warnings).collect(), json!(bodies)));
    };
    let mut left_out = Vec::new();
    let hub = Envelope::read(door::door(spoken).read(envelope, &mut left_out)?.into())?;
    let chat = Operation::Chat(Dialect::Chat);
    if let Some(path) = dialect.path(chat, t, stream)? {
        let mut edit = hub.edit();
        left_out.extend(dialect.adapt(chat, &mut edit, t)?);
        return Ok((path, spoken == Dialect::Chat, left_out, parsed(edit.finish().into_bytes())));
    }
    if dialect.base_url().is_empty() {
        return Ok(("(answers offline)".into(), false, Vec::new(), Value::Null));
    }
    let call = dialect.chat(&hub.chat()?, t)?;
    left_out.extend(call.warnings);
    Ok((call.path, false, left_out, parsed(call.body.into_bytes())))
}

/// The models as a table for a terminal.
#[must_use]
pub fn table(rules: &Rules) -> String {
    let mut rows = vec![["MODEL".to_owned(), "TARGETS".to_owned(), "$/M IN".to_owned(), "$/M OUT".to_owned(), "CONTEXT".to_owned()]];
    for name in rules.names() {
        let Some(model) = rules.named(name) else { continue };
        for (i, t) in model.targets.iter().chain(&model.fallback).enumerate() {
            let info = rules.prices.get(&t.provider.name, t.provider.dialect.kind(), &t.model);
            let mark = if i >= model.targets.len() { "  fallback " } else { "" };
            rows.push([
                if i == 0 { name.to_owned() } else { String::new() },
                format!("{mark}{}", t.name),
                info.map_or_else(|| "-".into(), |m| m.input.to_string()),
                info.map_or_else(|| "-".into(), |m| m.output.to_string()),
                info.and_then(|m| m.context).map_or_else(|| "-".into(), |c| c.to_string()),
            ]);
        }
    }
    let widths: Vec<usize> = (0..5).map(|c| rows.iter().map(|r| r[c].len()).max().unwrap_or(0)).collect();
    rows.iter().map(|r| r.iter().zip(&widths).map(|(cell, w)| format!("{cell:w$}  ")).collect::<String>().trim_end().to_owned() + "\n").collect()
}
