//! What would become of a request, by the code that would do it: which model, the operator's words in the prompt, which
//! target first and why, what each would be sent, what it may cost, or what the client would be told. Sends nothing.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use providers::prices::{Model, Nanodollars};
use providers::usage::Usage;
use providers::{Dialect, ErrorKind, Operation, Target};
use serde_json::{Map, Value, json};

use crate::config::{Balance, UnknownPrice};
use crate::counters::Unit;
use crate::door::operation_at;
use crate::exchange::{Asked, dialect_of};
use crate::fault::Fault;
use crate::phase::admit::{Candidate, bound, unheld};
use crate::phase::call::{Again, Prepared, Reading, Sending, prepare};
use crate::phase::read::is_form;
use crate::phase::route::{From, order};
use crate::phase::{identity, prompt};
use crate::principal::Principal;
use crate::purse::{Estimate, Tokens};
use crate::road::look_up;
use crate::rules::{ModelRule, Rules, TargetRule};
use crate::weight::{DENSITY, Weight};

/// A request that nobody has sent.
pub struct Question {
    /// The path that it would be sent to.
    pub path: String,
    /// The headers that matter: those that a route is chosen by, or that are passed on.
    pub headers: HeaderMap,
    /// Who would send it; `None` for nobody in particular.
    pub consumer: Option<String>,
    /// Its body.
    pub body: Bytes,
}

/// Explains a request.
///
/// # Errors
/// What the client would be told, as JSON: status, code and message, and the body in the client's dialect.
pub fn explain(rules: &Rules, question: &Question) -> Result<Value, Value> {
    let path = question.path.split('?').next().unwrap_or_default();
    let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
    let Some((operation, named)) = operation_at(path) else {
        let message =
            format!("{path} is not a path where a model is asked; `trivium explain` takes those of the doors that take JSON, such as /v1/chat/completions or /v1beta/models/MODEL:generateContent");
        return Err(told(&Fault::client(StatusCode::NOT_FOUND, ErrorKind::NotFound, message).code("unknown_path"), Dialect::Chat));
    };
    let dialect = dialect_of(operation);
    let mut asked = Asked::new(operation);
    if let Some((model, stream)) = named {
        (asked.model, asked.stream) = (model, stream);
    }
    answer(rules, question, &mut asked).map_err(|fault| told(&fault, dialect))
}

/// A fault as an operator wants to see it, and as the client would.
fn told(fault: &Fault, dialect: Dialect) -> Value {
    let mut error = brief(fault);
    error["body"] = serde_json::from_slice(&fault.body(dialect)).unwrap_or_default();
    json!({ "error": error })
}

fn brief(fault: &Fault) -> Value {
    let mut out = json!({ "status": fault.told.status, "message": fault.told.message });
    for (name, value) in [("code", &fault.told.code), ("param", &fault.told.param), ("only_the_log", &fault.detail)] {
        if let Some(value) = value {
            out[name] = json!(value);
        }
    }
    out
}

/// The story of the roads, without what costs or waits.
fn answer(rules: &Rules, question: &Question, asked: &mut Asked) -> Result<Value, Fault> {
    if is_form(asked.operation) {
        return Err(Fault::client(StatusCode::BAD_REQUEST, ErrorKind::InvalidRequest, "forms cannot be explained: their bytes pass, and only the field `model` is changed"));
    }
    let who = question.consumer.as_deref().map(|name| consumer(rules, name)).transpose()?;
    asked.read(question.body.clone())?;
    let name = asked.model.clone();
    let (model, rest) = look_up(rules, asked.operation, &name, who.as_deref())?;
    if let Some(who) = &who {
        identity::allowed(who, model, &name)?;
    }
    let template = prompt::rewrite(asked, &rules.prompts, model)?;
    let mut out = json!({ "operation": asked.operation.name(), "model": name, "route": &*model.name, "stream": asked.stream });
    if !rest.is_empty() {
        out["wildcard"] = json!(rest);
    }
    if let Some(who) = &who {
        out["consumer"] = standing(rules, who, model, rest, &name);
    }
    if let Some(template) = template {
        out["template"] = json!(template);
    }
    if asked.rewritten {
        out["rewritten"] = parsed(asked.hub()?.body());
    }
    let from = From { rules, headers: &question.headers, consumer: who.as_ref().map(|w| &*w.name) };
    let first: Vec<&TargetRule> = order(asked, from, model, rest).order.into_iter().map(|i| &model.targets[i]).collect();
    let shown = |targets: &[&TargetRule]| targets.iter().map(|t| format!("{}/{}", t.provider.name, t.model_for(rest))).collect::<Vec<_>>();
    let fallback: Vec<&TargetRule> = model.fallback.iter().collect();
    out["plan"] = json!({ "order": shown(&first), "why": why(model, asked, &from, rest, first[0]), "tries": model.retry.attempts, "fallback": shown(&fallback) });
    out["targets"] = targets(rules, question, asked, rest, first.into_iter().chain(fallback))?;
    Ok(out)
}

fn consumer(rules: &Rules, name: &str) -> Result<Arc<Principal>, Fault> {
    rules.principals.iter().find(|p| *p.name == *name).cloned().ok_or_else(|| {
        let known: Vec<&str> = rules.principals.iter().map(|p| &*p.name).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Fault::client(StatusCode::UNAUTHORIZED, ErrorKind::Authentication, format!("there is no consumer \"{name}\" in this configuration; known: {known}"))
    })
}

/// Who asks, and the limits that would hold. How much is left only a running gateway knows.
fn standing(rules: &Rules, who: &Principal, model: &ModelRule, rest: &str, name: &str) -> Value {
    let limits: Vec<_> = who.limits.iter().filter(|l| l.covers(name)).collect();
    let mut out = json!({
        "name": &*who.name,
        "groups": who.groups,
        "limits": limits.iter().map(|l| if l.strict { format!("{} (strict)", l.label) } else { l.label.clone() }).collect::<Vec<_>>(),
    });
    let unpriced = model.targets.iter().chain(&model.fallback).find(|t| !t.provider.base_url.is_empty() && t.price_of(&t.model_for(rest), &rules.prices).is_none());
    if let Some(target) = unpriced.filter(|_| limits.iter().any(|l| l.purse.unit == Unit::Nanodollars)) {
        let name = format!("{}/{}", target.provider.name, target.model_for(rest));
        out["note"] = json!(match rules.unknown_price {
            UnknownPrice::Deny => format!("the price of {name} is not known, so the limit in dollars refuses this model (403 unknown_price); give it one under `prices`"),
            UnknownPrice::Allow => format!("the price of {name} is not known, and the limit in dollars does not count it (`unknown_price: allow`)"),
        });
    }
    out
}

/// Why this target is the first.
fn why(model: &ModelRule, asked: &Asked, from: &From<'_>, rest: &str, first: &TargetRule) -> String {
    if model.targets.len() == 1 {
        return "it is the only target".to_owned();
    }
    let each = |what: &dyn Fn(&TargetRule) -> String| model.targets.iter().map(|t| format!("{} {}", t.name, what(t))).collect::<Vec<_>>().join(", ");
    let here = "this process has asked none of them yet, so any may be first; a running gateway shows its figures at /status on the admin port";
    if model.sticky.is_some() && ["messages", "input", "contents"].iter().any(|f| asked.envelope.get(f).is_some()) {
        return format!(
            "sticky: all conversations that begin like this one{} go to {}, as long as it is up and not much busier than its share",
            if from.consumer.is_some() { ", of this consumer," } else { "" },
            first.name
        );
    }
    match model.balance {
        Balance::RoundRobin => "round_robin: in turn; this is the order of the first request after a start".to_owned(),
        Balance::Weighted => format!("weighted: {}", each(&|t| format!("has weight {}", t.weight))),
        Balance::ConsistentHash => {
            let (what, value) = match &model.hash_on {
                Some(header) => (format!("the header {header}"), from.headers.contains_key(header)),
                None => ("the field `user`".to_owned(), asked.envelope.get("user").is_some()),
            };
            if value { format!("consistent_hash: {what} of this request leads to {}", first.name) } else { format!("consistent_hash: the request has not {what}, so that any may be first") }
        }
        Balance::LeastConnections => format!("least_connections: {here}"),
        Balance::LowestLatency => format!("lowest_latency: {here}"),
        Balance::LowestUsage => format!("lowest_usage: {here}"),
        Balance::LowestCost => {
            let sample = Usage { input: 1000, output: 1000, ..Usage::default() };
            let cost = |t: &TargetRule| t.price_of(&t.model_for(rest), &from.rules.prices).map_or("has no known price".to_owned(), |m| format!("costs ${}", m.cost(&sample, false)));
            format!("lowest_cost, by a thousand tokens in and a thousand out: {}", each(&cost))
        }
        Balance::Priority => format!("priority, the lowest first: {}", each(&|t| format!("has {}", t.priority))),
    }
}

/// What each target would be sent. A target that cannot honour the request gives way to the next, as on the road; if none can,
/// or the request is wrong everywhere, that is what the client would be told.
fn targets<'t>(rules: &Rules, question: &Question, asked: &mut Asked, rest: &str, targets: impl Iterator<Item = &'t TargetRule>) -> Result<Value, Fault> {
    let mut out = Vec::new();
    let mut refused = None;
    let mut able = false;
    for target in targets {
        let model = target.model_for(rest);
        let price = target.price_of(&model, &rules.prices);
        let t = Target { model: &model, info: price.as_deref() };
        asked.warnings.clear();
        let mut shown = json!({ "target": format!("{}/{model}", target.provider.name), "kind": target.provider.dialect.kind() });
        match prepare(asked, &target.provider, &t) {
            Ok(prepared) => {
                able = true;
                call(&mut shown, target, question, prepared);
                if !asked.warnings.is_empty() {
                    shown["warnings"] = json!(asked.warnings);
                }
                if !target.provider.base_url.is_empty() {
                    let candidate = Candidate::of(asked, target, rest, &rules.prices);
                    shown["estimate"] = estimate(asked, price.as_deref(), candidate)?;
                }
            }
            Err(failure) if failure.again == Again::No && !able => return Err(failure.fault),
            Err(failure) => {
                shown["refused"] = brief(&failure.fault);
                refused = refused.or(Some(failure.fault));
            }
        }
        out.push(shown);
    }
    match refused {
        Some(fault) if !able => Err(fault),
        _ => Ok(out.into()),
    }
}

/// What would be sent, or what is answered without.
fn call(shown: &mut Value, target: &TargetRule, question: &Question, prepared: Prepared) {
    match prepared {
        Prepared::Said(_) => shown["answers"] = json!("by itself, offline"),
        Prepared::Whole(body, _) => shown["answers"] = parsed(&body),
        Prepared::One(sending) => {
            shown["translated"] = json!(matches!(sending.reading, Reading::Translate(_)));
            shown["call"] = sent(target, question, sending);
        }
        Prepared::Several(_, sendings) => {
            shown["translated"] = json!(true);
            shown["calls"] = sendings.into_iter().map(|s| sent(target, question, s)).collect();
        }
    }
}

/// A call without what says who we are: the credential, and the headers of the provider's configuration.
fn sent(target: &TargetRule, question: &Question, sending: Sending) -> Value {
    let provider = &target.provider;
    let mut headers: Map<String, Value> = sending.headers.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    // In the place of the operator's own headers nobody else's stand.
    for name in provider.dialect.forwards().iter().filter(|name| provider.headers.iter().all(|(own, _)| own != **name)) {
        if let Some(value) = question.headers.get(*name).and_then(|v| v.to_str().ok()).and_then(|v| provider.dialect.forward(name, v)) {
            headers.insert((*name).to_owned(), json!(value));
        }
    }
    let mut out = json!({ "method": "POST", "url": format!("{}{}", provider.base_url, sending.path) });
    if let Some(proxy) = &provider.proxy {
        out["proxy"] = json!(proxy.to_string());
    }
    if !headers.is_empty() {
        out["headers"] = headers.into();
    }
    out["body"] = parsed(&sending.body.into_bytes());
    out
}

/// What the request costs at this price: the prompt about, and all of it at worst, as admission reckons it.
fn estimate(asked: &Asked, price: Option<&Model>, candidate: Candidate) -> Result<Value, Fault> {
    let weight = Weight::of(asked.current());
    let bound = bound(asked.current_operation(), asked.current(), &weight)?;
    let tokens = candidate.worst(&bound, &weight);
    let (about, worst) = (weight.about(DENSITY), tokens.prompt);
    let mut rests_on = "four bytes of text to a token (a running gateway learns this of each target), and at worst one".to_owned();
    let mut out = json!({ "prompt_tokens": about, "prompt_tokens_at_most": worst });
    let Some(price) = price else {
        (out["dollars"], out["rests_on"]) = (Value::Null, json!(rests_on));
        out["note"] = json!("no price is known for this model; give it one under `prices`");
        return Ok(out);
    };
    let dollars = |cost: u64| Nanodollars(cost).to_string();
    let prompt = Tokens { prompt: about, heard: weight.about_heard(), ..Tokens::default() };
    out["prompt_dollars"] = json!(dollars(Estimate::likely(prompt, Some(price)).cost));
    if matches!(asked.operation, Operation::Chat(_)) {
        let by = match (bound.each, candidate.thought, price.max_output.or(price.context)) {
            (Some(_), Some(_), _) => "the request's own bound on the answer",
            (Some(_), None, _) => "the request's own bound on the answer, and thoughts beyond it, which nothing bounds",
            (None, _, Some(_)) => "the longest answer that the model gives",
            (None, _, None) => "the longest answer that is reckoned with where nothing bounds it",
        };
        out["answer_tokens_at_most"] = json!(tokens.completion);
        out["dollars_at_most"] = json!(dollars(Estimate::at_worst(tokens, Some(price)).cost));
        rests_on = format!("{rests_on}; {by}");
    }
    out["rests_on"] = json!(rests_on);
    if let Some(why) = unheld(asked, &weight, &[candidate]) {
        out["note"] = json!(format!("a strict limit (403) or a `max_cost` (402) refuses this request, which {why}"));
    }
    Ok(out)
}

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| String::from_utf8_lossy(bytes).into())
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
