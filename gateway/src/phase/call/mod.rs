//! Asks the targets of a plan, one after the other, until one has answered: with a whole body, or with the first event of a
//! stream that a client would show. Until then nothing has been sent, so that another target can take over.

mod attempt;
mod failure;
mod prepare;
mod read;
mod send;

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use providers::ErrorKind;
use providers::usage::Usage;

use crate::exchange::Exchange;
use crate::fault::{Blame, Fault};
use crate::ledger::{Spent, Try};
use crate::phase::route::{Plan, backoff};
use crate::rules::{ModelRule, TargetRule};
use crate::stream::{Flow, Seen};
use crate::target::{Gate, InFlight};
use crate::trace::new_span;
use crate::upstream::Answer;

use attempt::attempt;
pub(crate) use failure::Again;
use failure::{Failure, UNSUPPORTED, timed_out};
pub(crate) use prepare::{Prepared, Reading, Sending, prepare};
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
    /// Bytes that pass as they came: pictures, sound.
    Raw(Answer, Option<HeaderValue>),
}

/// Longest pause between two tries that a client is made to wait for; beyond it, the client is told when to come again.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Longest time that a target is left alone because it asked for it.
const LONGEST_REST: Duration = Duration::from_secs(300);

/// Asks targets until one answers.
///
/// # Errors
/// What the last of them said, or that all are down.
pub async fn first_event(x: &mut Exchange, model: &ModelRule, rest: &str, plan: &Plan) -> Result<Reply, Fault> {
    let mut tries = Tries::new(model);
    let among = (0..model.retry.attempts as usize).map(|n| &model.targets[plan.order[n % plan.order.len()]]);
    for target in among.chain(&model.fallback) {
        match tries.pause(target) {
            None => continue,
            Some(Duration::ZERO) => {}
            Some(pause) => tokio::time::sleep(pause).await,
        }
        let stats = target.stats(rest);
        let gate = stats.gate();
        if let Gate::Open(left) = gate {
            tries.soonest = Some(tries.soonest.map_or(left, |s| s.min(left)));
            note_try(x, target, ("open", None, None), Instant::now(), 0);
            continue;
        }
        let mut flight = InFlight::new(stats, model.breaker, gate);
        let started = Instant::now();
        x.span = new_span();
        let span = x.span;
        at_work(x, true);
        let outcome = tokio::time::timeout_at(tries.deadline.into(), attempt(x, model, target, rest)).await;
        match outcome.unwrap_or_else(|_| Err(timed_out("the answer was not complete in time", model))) {
            Ok(mut reply) => {
                flight.answered();
                note_try(x, target, ("ok", Some(200), None), started, span);
                reply.flight = Some(flight);
                reply.upstream = tries.began.elapsed();
                return Ok(reply);
            }
            Err(mut failure) => {
                at_work(x, false);
                failure.fault.hide(&target.provider.shown);
                note_try(x, target, (failure.outcome, failure.status, failure.used.take()), started, span);
                // A try that those before it have left no time says nothing about its target.
                if Instant::now() < tries.deadline || started.elapsed() * 2 >= model.timeout.total {
                    judge(&mut flight, target, model, &failure);
                }
                drop(flight);
                if !tries.go_on(target, failure) {
                    break;
                }
            }
        }
    }
    Err(tries.given_up())
}

/// What has come of a request so far.
struct Tries<'m> {
    model: &'m ModelRule,
    began: Instant,
    deadline: Instant,
    past: Vec<Past<'m>>,
    last: Option<Fault>,
    /// When the first of the targets that are left alone may be asked again.
    soonest: Option<Duration>,
}

/// What a target has said to this request before.
struct Past<'m> {
    target: &'m TargetRule,
    again: Again,
    times: u32,
    not_before: Option<Instant>,
}

impl<'m> Tries<'m> {
    fn new(model: &'m ModelRule) -> Self {
        let began = Instant::now();
        Tries { model, began, deadline: began + model.timeout.total, past: Vec::new(), last: None, soonest: None }
    }

    /// How long the next try at a target has to wait; `None` if there is to be none. A Retry-After is a floor, and where there
    /// is a fallback, nobody waits for it.
    fn pause(&self, target: &TargetRule) -> Option<Duration> {
        let now = Instant::now();
        if self.last.is_some() && now >= self.deadline {
            return None;
        }
        let Some(past) = self.past.iter().find(|p| std::ptr::eq(p.target, target)) else { return Some(Duration::ZERO) };
        let backoff = backoff(self.model.retry.backoff, past.times - 1);
        let floor = past.not_before.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        let pause = backoff.max(floor);
        let worth_it = pause <= LONGEST_PAUSE && now + pause < self.deadline && (floor <= backoff || self.model.fallback.is_empty());
        (past.again != Again::Elsewhere && worth_it).then_some(pause)
    }

    /// Takes a failure down; says whether another try is worth it.
    fn go_on(&mut self, target: &'m TargetRule, failure: Failure) -> bool {
        let again = failure.again;
        let not_before = failure.fault.retry_after.map(|r| Instant::now() + r);
        match self.past.iter_mut().find(|p| std::ptr::eq(p.target, target)) {
            Some(past) => *past = Past { target, again, times: past.times + 1, not_before },
            None => self.past.push(Past { target, again, times: 1, not_before }),
        }
        // That another place cannot do what is asked is no news where one that can has failed.
        if self.last.is_none() || failure.outcome != UNSUPPORTED {
            self.last = Some(failure.fault);
        }
        again != Again::No
    }

    fn given_up(self) -> Fault {
        self.last.unwrap_or_else(|| {
            Fault::upstream(StatusCode::SERVICE_UNAVAILABLE, ErrorKind::Overloaded, "all targets of this model are down at the moment")
                .code("all_targets_down")
                .retry_after(self.soonest.unwrap_or_default().max(Duration::from_secs(1)))
                .known()
        })
    }
}

/// Notes whether a provider is at work: who leaves meanwhile has caused a cost, and who leaves between two tries has not.
fn at_work(x: &mut Exchange, works: bool) {
    if let Some(record) = &mut x.record {
        record.at_work = works;
    }
}

/// Writes down a try: how it ended, with what status, and what it used in vain.
fn note_try(x: &mut Exchange, target: &TargetRule, (outcome, status, used): (&'static str, Option<u16>, Option<Box<Usage>>), began: Instant, span_id: u64) {
    let price = x.price.as_deref().filter(|_| x.rate.is_known());
    let spent = used.map(|usage| Box::new(Spent { cost: price.map(|price| price.cost(&usage, false)), usage: *usage }));
    if let Some(record) = &mut x.record {
        record.tried(Try { target: target.name.clone(), kind: target.provider.dialect.kind(), outcome, status, span_id, spent, ..Try::default() }, began);
    }
}

/// Lets the breaker and the routing know what a failure says of its target.
fn judge(flight: &mut InFlight, target: &TargetRule, model: &ModelRule, failure: &Failure) {
    let several = model.targets.len() + model.fallback.len() > 1;
    match (failure.status, failure.fault.retry_after) {
        // Nothing was sent.
        _ if failure.outcome == UNSUPPORTED => {}
        _ if failure.fault.blame == Blame::Client => flight.lives(),
        // It said when it wants to be asked again. With nowhere else to go, the client is told instead.
        (Some(429 | 503), Some(pause)) if several => flight.rests(pause.min(LONGEST_REST)),
        (Some(429), _) => {}
        _ => {
            if flight.failed() {
                tracing::warn!(target = &*target.name, reason = failure.outcome, "a target is left alone for a while");
            }
        }
    }
}
