//! Reads what a target answered: a stream up to the first thing to show, anything else to its end.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body_util::BodyExt;
use providers::answer::{Answer as HubAnswer, Delta};
use providers::door::door;
use providers::sse::{Cutter, Framing};
use providers::{Dialect, Error, Operation, Target};
use tokio::time::Instant;

use super::Kind;
use super::failure::{Failure, broken, timed_out};
use super::prepare::Reading;
use super::send::chain;
use crate::exchange::Exchange;
use crate::rules::{ModelRule, ProviderRule};
use crate::stream::{Flow, Seen, note};
use crate::upstream::Answer;
use crate::whole;

/// Bytes that are not looked at.
pub(super) fn raw(response: Response<Answer>) -> Kind {
    let content_type = response.headers().get(header::CONTENT_TYPE).cloned();
    Kind::Raw(response.into_body(), content_type)
}

/// Whether an answer is framed as its provider frames streams.
fn is_stream(headers: &HeaderMap, framing: Framing) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    match framing {
        Framing::Sse => kind.starts_with("text/event-stream"),
        Framing::Ndjson => kind.starts_with("application/x-ndjson") || kind.starts_with("application/json"),
        Framing::EventStream => kind.starts_with("application/vnd.amazon.eventstream"),
    }
}

/// Reads a stream until there is something to show, which has to be there by then.
pub(super) async fn streamed(
    x: &mut Exchange,
    provider: &ProviderRule,
    model: &ModelRule,
    t: &Target<'_>,
    reading: &Reading,
    response: Response<Answer>,
    by: Instant,
) -> Result<(Kind, Seen), Failure> {
    let meta = x.meta();
    let limit = x.rules.limits.answer;
    let framing = match reading {
        Reading::Pass => Framing::Sse,
        _ => provider.dialect.framing(),
    };
    if !is_stream(response.headers(), framing) {
        return in_time(by, model, not_a_stream(x, provider, model, t, reading, response)).await;
    }
    let mut flow = match reading {
        Reading::Pass | Reading::Raw => Flow::pass(x.dialect(), !meta.include_usage, limit),
        Reading::Translate(renamed) => Flow::translate(Cutter::new(framing, limit), renamed.transcoder(provider.dialect.transcoder(t)), door(x.dialect()).writer(meta), limit),
    };
    let mut body = response.into_body();
    let first = in_time(by, model, begin(&mut flow, &mut body, model)).await.map_err(|failure| Failure { used: flow.seen.usage.map(Box::new), ..failure })?;
    let seen = flow.seen;
    Ok((Kind::Stream(Box::new(flow), first, body), seen))
}

async fn in_time<T>(by: Instant, model: &ModelRule, reading: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout_at(by, reading).await.unwrap_or_else(|_| Err(timed_out("no token came in time", model)))
}

/// What a stream begins with, as far as the first thing to show.
async fn begin(flow: &mut Flow, body: &mut Answer, model: &ModelRule) -> Result<Bytes, Failure> {
    let mut first = Vec::new();
    while !flow.seen.content {
        match body.frame().await {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    first.push(flow.push(data).map_err(|e| broken(e, model))?);
                }
            }
            Some(Err(e)) => return Err(broken_off(&e, model)),
            None => {
                first.push(flow.end().map_err(|e| broken(e, model))?);
                break;
            }
        }
    }
    Ok(if first.len() == 1 { first.swap_remove(0) } else { first.concat().into() })
}

/// A stream was asked for and something else came with a good status: an error in JSON, a whole answer, or a page.
async fn not_a_stream(x: &mut Exchange, provider: &ProviderRule, model: &ModelRule, t: &Target<'_>, reading: &Reading, response: Response<Answer>) -> Result<(Kind, Seen), Failure> {
    let body = collect(x, response, model).await?;
    let answer = match reading {
        Reading::Pass if !matches!(x.operation, Operation::Chat(Dialect::Chat)) => Err(Error::answer("a stream was asked for, and what came is none")),
        Reading::Translate(renamed) => provider.dialect.answer(&body, t).map(|answer| renamed.answer(answer)),
        _ => provider.dialect.answer(&body, t),
    };
    let answer = answer.map_err(|e| match e {
        Error::Upstream(_) => broken(e, model),
        // It may be an error that only the error reader knows.
        other => match provider.dialect.error(200, &body) {
            e if body.starts_with(b"{") => broken(e.into(), model),
            _ => broken(other, model),
        },
    })?;
    Ok(said(x, &answer))
}

/// Collects a body in memory, up to the limit, as long as it does not stand still.
pub(super) async fn collect(x: &Exchange, response: Response<Answer>, model: &ModelRule) -> Result<Bytes, Failure> {
    let limit = x.rules.limits.answer;
    let mut body = response.into_body();
    let mut pieces = Vec::new();
    let mut length = 0;
    // The timer is only set where there is nothing to read yet.
    while let Some(frame) = tokio::time::timeout(model.timeout.idle, body.frame()).await.map_err(|_| timed_out("the answer stood still for too long", model))? {
        let frame = frame.map_err(|e| broken_off(&e, model))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        if length > limit {
            return Err(broken(Error::answer(format!("it is longer than {limit} bytes")), model));
        }
        pieces.push(data);
    }
    Ok(if pieces.len() == 1 { pieces.swap_remove(0) } else { pieces.concat().into() })
}

/// The upstream's connection ended in the middle of an answer.
fn broken_off(e: &crate::upstream::Error, model: &ModelRule) -> Failure {
    let mut failure = broken(providers::broken_off(), model);
    failure.fault.detail = Some(chain(e));
    failure
}

/// Reads an answer in one piece.
pub(super) async fn read_whole(x: &mut Exchange, provider: &ProviderRule, model: &ModelRule, t: &Target<'_>, reading: &Reading, response: Response<Answer>) -> Result<(Kind, Seen), Failure> {
    let body = collect(x, response, model).await?;
    let json = HeaderValue::from_static("application/json");
    match reading {
        Reading::Pass | Reading::Raw => {
            let seen = whole::tap(x.operation, &body).map_err(|e| broken(e, model))?;
            Ok((Kind::Whole(body, json), seen))
        }
        Reading::Translate(renamed) => {
            let answer = renamed.answer(provider.dialect.answer(&body, t).map_err(|e| broken(e, model))?);
            let seen = whole::seen(&answer);
            Ok((Kind::Whole(door(x.dialect()).answer(&answer, &x.meta()).into(), json), seen))
        }
    }
}

/// A whole answer as the pieces of a stream: texts word by word, as a model would say them.
pub(super) fn said(x: &Exchange, answer: &HubAnswer) -> (Kind, Seen) {
    let mut writer = door(x.dialect()).writer(x.meta());
    let mut seen = Seen::default();
    let mut pieces = Vec::new();
    answer.replay(|delta| {
        note(&mut seen, &delta);
        let mut each = |delta: &Delta<'_>| {
            let mut out = Vec::new();
            writer.delta(delta, &mut out);
            if !out.is_empty() {
                pieces.push(Bytes::from(out));
            }
        };
        match delta {
            Delta::Text { choice, text } => text.split_inclusive(' ').for_each(|word| each(&Delta::Text { choice, text: word })),
            other => each(&other),
        }
    });
    let mut out = Vec::new();
    writer.end(&mut out);
    pieces.push(out.into());
    seen.done = true;
    (Kind::Said(pieces), seen)
}
