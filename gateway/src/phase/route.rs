//! Which target a request goes to, and which next. Stands after the guards: a rewrite may change the route.

use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::HeaderMap;
use providers::usage::Usage;

use crate::config::{Balance, Sticky};
use crate::exchange::{Asked, Exchange};
use crate::rules::{ModelRule, Rules, TargetRule};

/// The targets of a request, best first: its tries follow this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Positions in the model's targets.
    pub order: Vec<usize>,
}

/// A share of requests that goes to a target other than the fastest, to learn how fast it is by now.
const PROBE: f64 = 0.02;
/// How much busier than its share a target may be before conversations that stick to it spill over.
const SPILL: f64 = 1.5;

/// What a plan is made by, beside the request itself.
#[derive(Clone, Copy)]
pub struct From<'a> {
    /// The rules in force.
    pub rules: &'a Rules,
    /// The client's headers.
    pub headers: &'a HeaderMap,
    /// Who asks.
    pub consumer: Option<&'a str>,
}

/// Orders the model's targets for this request. `rest` is what the model's `*` stands for.
#[must_use]
pub fn plan(x: &Exchange, model: &ModelRule, rest: &str) -> Plan {
    let consumer = x.principal.as_ref().map(|p| &*p.name);
    order(&x.asked, From { rules: &x.rules, headers: &x.headers, consumer }, model, rest)
}

/// As [`plan`], for a request that need not have been sent.
#[must_use]
pub fn order(asked: &Asked, from: From<'_>, model: &ModelRule, rest: &str) -> Plan {
    if model.targets.len() == 1 {
        return Plan { order: vec![0] };
    }
    let mut order: Vec<usize> = (0..model.targets.len()).filter(|&i| model.targets[i].weight > 0).collect();
    if model.sticky == Some(Sticky::PromptPrefix)
        && let Some(hash) = conversation(asked, from.consumer)
    {
        by_hash(&mut order, model, hash);
        spill(&mut order, model, rest);
    } else {
        balance(&mut order, asked, from, model, rest);
    }
    // Targets that are known to be down go last; they are still tried if all others fail and their time has come.
    order.sort_by_key(|&i| model.targets[i].stats(rest).looks_open().is_some());
    Plan { order }
}

fn balance(order: &mut [usize], asked: &Asked, from: From<'_>, model: &ModelRule, rest: &str) {
    let target = |i: &usize| &model.targets[*i];
    match model.balance {
        Balance::RoundRobin => {
            let turn = model.turn.fetch_add(1, Relaxed) % order.len();
            order.rotate_left(turn);
        }
        Balance::Weighted => weighted(order, model),
        Balance::ConsistentHash => by_hash(order, model, hash_of_client(asked, from.headers, model)),
        Balance::LeastConnections => by_score(order, |i| f64::from(target(i).stats(rest).in_flight() + 1) / f64::from(target(i).weight)),
        Balance::LowestLatency => lowest_latency(order, model, rest),
        Balance::LowestUsage => by_score(order, |i| target(i).stats(rest).tokens() as f64 / f64::from(target(i).weight)),
        Balance::LowestCost => by_score(order, |i| unit_cost(from.rules, target(i), rest)),
        Balance::Priority => {
            weighted(order, model);
            order.sort_by_key(|i| target(i).priority);
        }
    }
}

/// Smallest score first; equals in random order, so that they share.
fn by_score(order: &mut [usize], score: impl Fn(&usize) -> f64) {
    fastrand::shuffle(order);
    let mut scored: Vec<(f64, usize)> = order.iter().map(|i| (score(i), *i)).collect();
    scored.sort_by(|a, b| a.0.total_cmp(&b.0));
    order.iter_mut().zip(scored).for_each(|(slot, (_, i))| *slot = i);
}

/// Evenly interleaved by weight: the n-th request goes where the sum of weights up to a golden-ratio step falls. No lock,
/// and any run of requests is split as the weights say.
fn weighted(order: &mut [usize], model: &ModelRule) {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    let turn = model.turn.fetch_add(1, Relaxed);
    let total: f64 = order.iter().map(|&i| f64::from(model.targets[i].weight)).sum();
    let mut left = (turn as f64 * GOLDEN).fract() * total;
    let first = order
        .iter()
        .position(|&i| {
            left -= f64::from(model.targets[i].weight);
            left < 0.0
        })
        .unwrap_or(0);
    order[..=first].rotate_right(1);
    // The rest are what is left if the first fails: heavier ones first.
    order[1..].sort_by_key(|&i| std::cmp::Reverse(model.targets[i].weight));
}

/// Highest random weight: each value has its own order of targets, and a target that goes takes only its own share along.
fn by_hash(order: &mut [usize], model: &ModelRule, hash: u64) {
    by_score(order, |&i| {
        let target = &model.targets[i];
        let mut hasher = foldhash::quality::FixedState::with_seed(hash).build_hasher();
        hasher.write(target.provider.name.as_bytes());
        hasher.write(b"/");
        hasher.write(target.model.as_bytes());
        // Uniform in (0, 1]; -ln(u) / weight is the weighted form of the method.
        let unit = ((hasher.finish() >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
        -unit.ln() / f64::from(target.weight)
    });
}

/// The first target gives way if it has much more in flight than its share.
fn spill(order: &mut [usize], model: &ModelRule, rest: &str) {
    let load = |i: usize| f64::from(model.targets[i].stats(rest).in_flight());
    let weight = |i: usize| f64::from(model.targets[i].weight);
    let all: f64 = order.iter().map(|&i| load(i)).sum::<f64>() + 1.0;
    let weights: f64 = order.iter().map(|&i| weight(i)).sum();
    let room = |i: usize| load(i) < (all * weight(i) / weights * SPILL).max(4.0);
    if let Some(at) = order.iter().position(|&i| room(i)) {
        order[..=at].rotate_right(1);
    }
}

fn lowest_latency(order: &mut [usize], model: &ModelRule, rest: &str) {
    // Peak EWMA: what a request would cost there, with those already on their way. Unknown targets are tried first.
    by_score(order, |&i| {
        let stats = model.targets[i].stats(rest);
        stats.latency().map_or(0.0, |l| l.as_secs_f64() * f64::from(stats.in_flight() + 1))
    });
    if order.len() > 1 && fastrand::f64() < PROBE {
        let other = fastrand::usize(1..order.len());
        order.swap(0, other);
    }
}

/// What a thousand tokens in and a thousand out cost there; unknown prices come last.
fn unit_cost(rules: &Rules, target: &TargetRule, rest: &str) -> f64 {
    let sample = Usage { input: 1000, output: 1000, ..Usage::default() };
    target.price_of(&target.model_for(rest), &rules.prices).map_or(f64::MAX, |m| m.cost(&sample, false).dollars())
}

fn hash_of_client(asked: &Asked, headers: &HeaderMap, model: &ModelRule) -> u64 {
    let value = match &model.hash_on {
        Some(header) => headers.get(header).map(|v| v.as_bytes().to_vec()),
        None => asked.envelope.get("user").map(|u| u.as_bytes().to_vec()),
    };
    match value {
        Some(value) => hash(&value),
        // Nothing to hash on: any target is as good as another.
        None => fastrand::u64(..),
    }
}

/// A fixed seed: all replicas send the same conversation the same way.
fn hash(bytes: &[u8]) -> u64 {
    foldhash::quality::FixedState::with_seed(7).hash_one(bytes)
}

/// What stays the same while a conversation grows: all that stands before the first answer. Tenant by tenant, because
/// providers keep prompt caches apart too.
fn conversation(asked: &Asked, consumer: Option<&str>) -> Option<u64> {
    let field = ["messages", "input", "contents"].into_iter().find_map(|name| asked.envelope.get(name))?;
    let mut hasher = foldhash::quality::FixedState::with_seed(7).build_hasher();
    if let Some(consumer) = consumer {
        hasher.write(consumer.as_bytes());
    }
    for name in ["system", "instructions", "systemInstruction", "tools"] {
        hasher.write(asked.envelope.get(name).unwrap_or_default().as_bytes());
    }
    match serde_json::from_str::<Vec<&serde_json::value::RawValue>>(field) {
        Ok(messages) => {
            for message in messages {
                hasher.write(message.get().as_bytes());
                if message.get().contains("\"user\"") {
                    break;
                }
            }
        }
        Err(_) => hasher.write(field.as_bytes()),
    }
    Some(hasher.finish())
}

/// How long to pause before the `nth` try (from 0) on the same target, with jitter so that clients do not come in step.
#[must_use]
pub fn backoff(base: Duration, nth: u32) -> Duration {
    let factor = f64::from(1u32 << nth.min(6)) * (0.75 + fastrand::f64() * 0.5);
    base.mul_f64(factor)
}
