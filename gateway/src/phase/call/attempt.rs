//! One try at one target: what it cannot pass on is translated or answered here, the rest is sent, accepted and read.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use providers::door::door;
use providers::{Operation, Target};

use super::failure::{Failure, broken, retry_connect, timed_out};
use super::read::{collect, raw, read_whole, said, streamed};
use super::send::{Reading, Sending, accept, passed_headers, prepare, send};
use super::{Kind, Reply};
use crate::exchange::Exchange;
use crate::rules::{ModelRule, ProviderRule, TargetRule};
use crate::stream::Seen;
use crate::whole;

/// Asks one target.
pub(super) async fn attempt(x: &mut Exchange, model: &ModelRule, target: &TargetRule, rest: &str) -> Result<Reply, Failure> {
    let name = target.model_for(rest);
    let rules = x.rules.clone();
    let provider = &target.provider;
    // What another target had to leave out is no concern of this one.
    x.warnings.clear();
    let price = target.price_of(&name, &rules.prices);
    x.price.clone_from(&price);
    let t = Target { model: &name, info: price.as_deref() };
    if let Some(entry) = x.entry() {
        entry.provider = Some(provider.name.clone());
        entry.provider_kind = Some(provider.dialect.kind());
        entry.model_used = Some(name.clone());
    }
    match x.operation {
        Operation::Embeddings | Operation::Rerank | Operation::EmbedContent | Operation::BatchEmbedContents => {
            if let Some(reply) = translated_whole(x, model, target, &t).await? {
                return Ok(reply);
            }
        }
        Operation::Chat(_) => {
            if let Some(reply) = offline(x, provider)? {
                return Ok(reply);
            }
        }
        Operation::CountMessages | Operation::CountGenerate if provider.dialect.path(x.operation, &t, false)?.is_none() => {
            let (body, seen) = whole::estimate(x);
            x.warnings.push("the number of tokens is an estimate: this provider does not count them".to_owned());
            return Ok(whole_reply(body, seen));
        }
        _ => {}
    }
    let sending = prepare(x, provider, &t)?;
    let reading = sending.reading;
    let first = tokio::time::Instant::now() + if x.stream { model.timeout.first_token } else { model.timeout.total };
    // Only a stream has a first token to wait for; the time for the whole answer is watched by the caller.
    let sent = if x.stream {
        tokio::time::timeout_at(first, send(x, target, sending)).await.map_err(|_| timed_out("nothing came within the time for the first token", model))?
    } else {
        send(x, target, sending).await
    };
    let response = accept(x, provider, model, sent.map_err(|e| retry_connect(e, model))?).await?;
    let headers = passed_headers(response.headers());
    let (kind, seen) = match reading {
        Reading::Raw => (raw(response), Seen { content: true, done: true, ..Seen::default() }),
        _ if x.stream => {
            let reading = streamed(x, provider, model, &t, reading, response);
            tokio::time::timeout_at(first, reading).await.map_err(|_| timed_out("no token came in time", model))??
        }
        _ => read_whole(x, provider, model, &t, reading, response).await?,
    };
    Ok(Reply { kind, headers, seen, flight: None, upstream: Duration::ZERO })
}

/// Embeddings and reranking through a provider that does not speak OpenAI's form of them: one call or several, read
/// together. `None` if the provider speaks it itself.
async fn translated_whole(x: &mut Exchange, model: &ModelRule, target: &TargetRule, t: &Target<'_>) -> Result<Option<Reply>, Failure> {
    let dialect = &target.provider.dialect;
    // A rewritten embeddings or rerank request is still in the provider's own dialect: only its bytes are others.
    if dialect.path(x.operation, t, false)?.is_some() {
        return Ok(None);
    }
    let work = whole::Work::read(x)?;
    let calls = match work.offline(dialect.as_ref()) {
        Some(done) => {
            let (body, seen) = done?;
            return Ok(Some(whole_reply(body, seen)));
        }
        None => work.calls(dialect.as_ref(), t)?,
    };
    let mut bodies = Vec::with_capacity(calls.len());
    for call in calls {
        x.warnings.extend(call.warnings);
        let sending = Sending { path: call.path, headers: call.headers, body: call.body, content_type: HeaderValue::from_static("application/json"), reading: Reading::Translate };
        let response = send(x, target, sending).await.map_err(|e| retry_connect(e, model))?;
        let response = accept(x, &target.provider, model, response).await?;
        bodies.push(collect(x, response, model).await?);
    }
    let (body, seen) = work.answer(dialect.as_ref(), t, &bodies).map_err(|e| broken(e, model))?;
    Ok(Some(whole_reply(body, seen)))
}

fn whole_reply(body: Vec<u8>, seen: Seen) -> Reply {
    Reply { kind: Kind::Whole(body.into(), HeaderValue::from_static("application/json")), headers: HeaderMap::new(), seen, flight: None, upstream: Duration::ZERO }
}

/// The answer of a provider that needs no upstream.
fn offline(x: &mut Exchange, provider: &ProviderRule) -> Result<Option<Reply>, Failure> {
    // Only one kind answers offline, and it has no place: the others are spared the translation.
    if !provider.base_url.is_empty() {
        return Ok(None);
    }
    let hub = x.hub()?.clone();
    let Some(answer) = provider.dialect.offline(&hub.chat()?) else { return Ok(None) };
    let answer = answer?;
    let (kind, seen) = if x.stream { said(x, &answer) } else { (Kind::Whole(door(x.dialect()).answer(&answer, &x.meta()).into(), HeaderValue::from_static("application/json")), whole::seen(&answer)) };
    Ok(Some(Reply { kind, headers: HeaderMap::new(), seen, flight: None, upstream: Duration::ZERO }))
}
