//! Asks the targets of a plan, one after the other, until one has answered: with a whole body, or with the first event of a
//! stream that a client would show. Until then nothing has been sent, so that another target can take over.

mod attempt;
mod failure;
mod read;
mod send;

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use providers::ErrorKind;

use crate::exchange::Exchange;
use crate::fault::{Blame, Fault};
use crate::phase::route::{Plan, backoff};
use crate::rules::{ModelRule, TargetRule};
use crate::stream::{Flow, Seen};
use crate::target::{Gate, InFlight};
use crate::trace::new_span;
use crate::upstream::Answer;

use attempt::attempt;
use failure::{Again, Failure, timed_out};
pub use send::{chain, common_headers, unreachable};

/// What a target answered.
pub struct Reply {
    /// The answer.
    pub kind: Kind,
    /// Headers of the upstream's that the client should have.
    pub headers: HeaderMap,
    /// What has been seen of the answer so far.
    pub seen: Seen,
    /// Counts as in flight until the answer has been read.
    pub flight: Option<InFlight>,
    /// Time spent waiting for upstreams, all tries together.
    pub upstream: Duration,
}

/// The forms of an answer.
pub enum Kind {
    /// In one piece, in the client's dialect.
    Whole(Bytes, HeaderValue),
    /// A stream: what there is of it, what happens to the rest, and the rest.
    Stream(Box<Flow>, Bytes, Answer),
    /// A stream that is complete already: the offline provider's.
    Said(Vec<Bytes>),
    /// Bytes that are none of our business: audio, files.
    Raw(Answer, Option<HeaderValue>),
}

/// Longest pause between two tries that a client is made to wait for; beyond it, the client is told when to come again.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Asks targets until one answers.
///
/// # Errors
/// What the last of them said, or that all are down.
pub async fn first_event(x: &mut Exchange, model: &ModelRule, rest: &str, plan: &Plan) -> Result<Reply, Fault> {
    let began = Instant::now();
    let deadline = began + model.timeout.total;
    let several = model.targets.len() + model.fallback.len() > 1;
    let tries = (0..model.retry.attempts as usize).map(|n| (&model.targets[plan.order[n % plan.order.len()]], (n / plan.order.len()) as u32));
    let mut last: Option<(Failure, &TargetRule)> = None;
    let mut soonest: Option<Duration> = None;
    for (target, round) in tries.chain(model.fallback.iter().map(|t| (t, 0))) {
        if let Some((failure, at)) = &last {
            if failure.again == Again::Elsewhere && std::ptr::eq(*at, target) {
                continue;
            }
            if round > 0 {
                let pause = backoff(model.retry.backoff, round - 1).max(failure.fault.retry_after.unwrap_or_default());
                if pause > LONGEST_PAUSE || Instant::now() + pause > deadline {
                    continue;
                }
                tokio::time::sleep(pause).await;
            }
        }
        let gate = target.stats.gate();
        if let Gate::Open(left) = gate {
            soonest = Some(soonest.map_or(left, |s| s.min(left)));
            note_try(x, target, "open", None, Instant::now(), 0);
            continue;
        }
        let flight = InFlight::new(&target.stats, gate);
        let started = Instant::now();
        x.span = new_span();
        let span = x.span;
        let outcome = match tokio::time::timeout_at(deadline.into(), attempt(x, model, target, rest)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(timed_out("the answer was not complete in time", model)),
        };
        let took = started.elapsed();
        match outcome {
            Ok(mut reply) => {
                target.stats.succeeded();
                target.stats.observe(took);
                note_try(x, target, "ok", Some(200), started, span);
                reply.flight = Some(flight);
                reply.upstream = began.elapsed();
                return Ok(reply);
            }
            Err(mut failure) => {
                failure.fault.hide(&target.provider.shown);
                note_try(x, target, failure.outcome, failure.status, started, span);
                punish(target, model, &failure, several);
                let again = failure.again;
                last = Some((failure, target));
                if again == Again::No {
                    break;
                }
            }
        }
    }
    Err(match last {
        Some((failure, _)) => failure.fault,
        None => Fault::upstream(StatusCode::SERVICE_UNAVAILABLE, ErrorKind::Overloaded, "all targets of this model are down at the moment")
            .code("all_targets_down")
            .retry_after(soonest.unwrap_or(Duration::from_secs(1)).max(Duration::from_secs(1))),
    })
}

fn note_try(x: &mut Exchange, target: &TargetRule, outcome: &'static str, status: Option<u16>, began: Instant, span: u64) {
    if let Some(record) = &mut x.record {
        record.tried(target.name.clone(), target.provider.dialect.kind(), outcome, status, began, span);
    }
}

/// Lets the breaker and the routing know of a failure that other requests would meet too.
fn punish(target: &TargetRule, model: &ModelRule, failure: &Failure, several: bool) {
    if failure.fault.blame == Blame::Client {
        return;
    }
    match (failure.status, failure.fault.retry_after) {
        // It said when it wants to be asked again. With nowhere else to go, the client is told instead.
        (Some(429 | 503), Some(pause)) if several => target.stats.open_for(pause.min(Duration::from_secs(300))),
        (Some(429), _) => {}
        _ => {
            if target.stats.failed(&model.breaker) {
                tracing::warn!(target = &*target.name, reason = failure.outcome, "a target is left alone for a while");
            }
        }
    }
}
