//! One try at one target: what is sent is prepared, sent, accepted and read.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use providers::Target;
use providers::answer::Answer;
use providers::door::door;

use super::failure::{Failure, broken, retry_connect, timed_out};
use super::prepare::{Prepared, Reading, Sending, prepare};
use super::read::{collect, raw, read_whole, said, streamed};
use super::send::{accept, passed_headers, send};
use super::{Kind, Reply};
use crate::exchange::Exchange;
use crate::rate::Rate;
use crate::rules::{ModelRule, TargetRule};
use crate::stream::Seen;
use crate::whole::{self, Work};

/// Asks one target.
pub(super) async fn attempt(x: &mut Exchange, model: &ModelRule, target: &TargetRule, rest: &str) -> Result<Reply, Failure> {
    let name = target.model_for(rest);
    let provider = &target.provider;
    // What another target had to leave out is no concern of this one.
    x.warnings.clear();
    let price = target.price_of(&name, &x.rules.prices);
    x.price.clone_from(&price);
    x.rate = Rate::at(x, target, &name);
    let t = Target { model: &name, info: price.as_deref() };
    if let Some(entry) = x.entry() {
        entry.provider = Some(provider.name.clone());
        entry.provider_kind = Some(provider.dialect.kind());
        entry.model_used = Some(name.clone());
    }
    match prepare(&mut x.asked, provider, &t)? {
        Prepared::One(sending) => one(x, model, target, &t, sending).await,
        Prepared::Several(work, sendings) => several(x, model, target, &t, &work, sendings).await,
        Prepared::Said(answer) => Ok(offline(x, &answer)),
        Prepared::Whole(body, seen) => Ok(whole_reply(body, seen)),
    }
}

async fn one(x: &mut Exchange, model: &ModelRule, target: &TargetRule, t: &Target<'_>, sending: Sending) -> Result<Reply, Failure> {
    let provider = &target.provider;
    let reading = sending.reading.clone();
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
        _ if x.stream => streamed(x, provider, model, t, &reading, response, first).await?,
        _ => read_whole(x, provider, model, t, &reading, response).await?,
    };
    Ok(Reply { kind, headers, seen, flight: None, upstream: Duration::ZERO })
}

/// Calls whose answers are one: embeddings of many texts, where the provider takes only so many at a time.
async fn several(x: &mut Exchange, model: &ModelRule, target: &TargetRule, t: &Target<'_>, work: &Work, sendings: Vec<Sending>) -> Result<Reply, Failure> {
    let provider = &target.provider;
    let mut bodies = Vec::with_capacity(sendings.len());
    let mut counted = Some(0);
    for sending in sendings {
        match part(x, target, model, sending).await {
            Ok((body, told)) => {
                counted = counted.zip(told).map(|(sum, n)| sum + n);
                bodies.push(body);
            }
            // The parts that came are owed.
            Err(failure) => return Err(Failure { used: work.used(provider.dialect.as_ref(), t, &bodies, counted).map(Box::new), ..failure }),
        }
    }
    match work.answer(provider.dialect.as_ref(), t, &bodies, counted) {
        Ok((body, seen)) => Ok(whole_reply(body, seen)),
        Err(e) => Err(Failure { used: work.used(provider.dialect.as_ref(), t, &bodies, counted).map(Box::new), ..broken(e, model) }),
    }
}

/// The answer to one of several calls, and what its headers tell of tokens.
async fn part(x: &mut Exchange, target: &TargetRule, model: &ModelRule, sending: Sending) -> Result<(Bytes, Option<u64>), Failure> {
    let provider = &target.provider;
    let response = send(x, target, sending).await.map_err(|e| retry_connect(e, model))?;
    let response = accept(x, provider, model, response).await?;
    let told = provider.dialect.counted(&|name| response.headers().get(name)?.to_str().ok().map(str::to_owned));
    Ok((collect(x, response, model).await?, told))
}

fn whole_reply(body: Vec<u8>, seen: Seen) -> Reply {
    Reply { kind: Kind::Whole(body.into(), HeaderValue::from_static("application/json")), headers: HeaderMap::new(), seen, flight: None, upstream: Duration::ZERO }
}

/// The answer of a provider that needs no upstream.
fn offline(x: &Exchange, answer: &Answer) -> Reply {
    if !x.stream {
        return whole_reply(door(x.dialect()).answer(answer, &x.meta()), whole::seen(answer));
    }
    let (kind, seen) = said(x, answer);
    Reply { kind, headers: HeaderMap::new(), seen, flight: None, upstream: Duration::ZERO }
}
