//! Reserves the worst case in every purse that the request spends from, or refuses it: before anything costs. What was
//! really used is settled when the request's record is dropped.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use providers::{ErrorKind, Operation};

use crate::config::UnknownPrice;
use crate::counters::{Claim, NEVER, Refused, Standing, Unit};
use crate::exchange::Exchange;
use crate::fault::Fault;
use crate::names;
use crate::purse::{Estimate, Hold, LimitRule, nanodollars, spoken};
use crate::rules::{ModelRule, TargetRule};

/// Tokens of an answer that are reserved where neither the request nor the price table bounds them.
const GUESS: u64 = 1024;
/// Longest answer that is reckoned with in the worst case where nothing bounds it.
const LONGEST: u64 = 128_000;
/// Time that a reservation outlives its request's own bound, before it counts as forgotten.
const GRACE: Duration = Duration::from_secs(60);
/// Bound on a request that has none of its own: a file may take long.
const UNKNOWN: Duration = Duration::from_secs(3600);

/// Reserves what the request may use.
///
/// # Errors
/// 429 when a limit is used up; 402 when the request's own `max_cost` is below its worst case; 503 when shared limits cannot
/// be asked and the configuration says to refuse then.
pub async fn reserve(x: &mut Exchange, model: &ModelRule, rest: &str) -> Result<(), Fault> {
    let bytes = x.envelope.body().len() as u64;
    let bound = answer_bound(x);
    let worst = estimate(x, model, rest, bytes, bound.unwrap_or_else(|| longest(x, model, rest)));
    if worst.cost > 0 {
        x.estimate = Some(worst.cost);
    }
    hold_to_max_cost(x, &worst)?;
    let Some(principal) = x.principal.clone() else { return Ok(()) };
    let limits: Vec<&LimitRule> = principal.limits.iter().filter(|l| l.covers(&x.model)).collect();
    if limits.is_empty() {
        return Ok(());
    }
    if limits.iter().any(|l| l.purse.unit == Unit::Nanodollars) {
        hold_to_known_prices(x, model, rest)?;
    }
    // About four bytes to a token, and what the client allows of an answer or a middling one.
    let about = estimate(x, model, rest, bytes.div_ceil(4), bound.unwrap_or_else(|| longest(x, model, rest).min(GUESS)));
    let lease = model.timeout.total + GRACE;
    let claims: Vec<Claim<'_>> = limits.iter().map(|l| Claim { purse: &l.purse, amount: if l.strict { worst.of(l.purse.unit) } else { about.of(l.purse.unit).min(l.purse.cap.max(1)) } }).collect();
    take(x, &limits, &claims, lease).await
}

/// Reserves a request that no model answers (files, batches): it counts as a request, and as nothing else.
///
/// # Errors
/// As [`reserve`].
pub async fn reserve_request(x: &mut Exchange) -> Result<(), Fault> {
    let Some(principal) = x.principal.clone() else { return Ok(()) };
    let limits: Vec<&LimitRule> = principal.limits.iter().filter(|l| l.covers("") && matches!(l.purse.unit, Unit::Requests | Unit::Concurrent)).collect();
    let claims: Vec<Claim<'_>> = limits.iter().map(|l| Claim { purse: &l.purse, amount: 1 }).collect();
    take(x, &limits, &claims, UNKNOWN).await
}

/// Takes all claims or none, and notes what the client is told of them.
async fn take(x: &mut Exchange, limits: &[&LimitRule], claims: &[Claim<'_>], lease: Duration) -> Result<(), Fault> {
    if claims.is_empty() {
        return Ok(());
    }
    match x.state.counters.reserve(claims, lease).await {
        Ok((lease, standings)) => {
            x.limit_headers = headers(&standings);
            if let Some(record) = &mut x.record {
                record.hold = Some(Hold { lease, units: limits.iter().map(|l| l.purse.unit).collect() });
            }
            Ok(())
        }
        Err(refused) => Err(refuse(limits, refused)),
    }
}

/// The bound on an answer's tokens that the request sets itself, in whichever dialect.
fn answer_bound(x: &Exchange) -> Option<u64> {
    if !matches!(x.operation, Operation::Chat(_)) {
        return Some(0);
    }
    let number = |name: &str| x.envelope.parse::<Option<u64>>(name).ok().flatten().flatten();
    let google = || x.envelope.parse::<serde_json::Value>("generationConfig").ok().flatten().and_then(|c| c["maxOutputTokens"].as_u64());
    // Where two bounds are given, the larger one may be the one that the provider reads.
    let one = ["max_completion_tokens", "max_tokens", "max_output_tokens"].into_iter().filter_map(number).max().or_else(google)?;
    // An absurd bound is no bound: the model's own holds.
    Some(one.min(10_000_000).saturating_mul(number("n").unwrap_or(1).clamp(1, 128)))
}

/// The longest answer that any target can give.
fn longest(x: &Exchange, model: &ModelRule, rest: &str) -> u64 {
    let known = model.targets.iter().chain(&model.fallback).map(|t| t.price_of(&t.model_for(rest), &x.rules.prices).and_then(|m| m.max_output));
    known.map(|m| m.unwrap_or(LONGEST)).max().unwrap_or(LONGEST)
}

/// What the request may use, by the dearest target that it may go to.
fn estimate(x: &Exchange, model: &ModelRule, rest: &str, prompt: u64, completion: u64) -> Estimate {
    let prices: Vec<_> = model.targets.iter().chain(&model.fallback).filter_map(|t| t.price_of(&t.model_for(rest), &x.rules.prices)).collect();
    Estimate::new(prompt, completion, prices.iter().map(|p| &**p))
}

/// Money cannot be counted where a price is not known: such a model is refused to who has a limit of dollars, or let pass
/// with a warning, as the configuration says. A provider that answers offline costs nothing.
fn hold_to_known_prices(x: &Exchange, model: &ModelRule, rest: &str) -> Result<(), Fault> {
    let costs = |t: &&TargetRule| !t.provider.base_url.is_empty();
    let unknown = model.targets.iter().chain(&model.fallback).filter(costs).find(|t| t.price_of(&t.model_for(rest), &x.rules.prices).is_none());
    let Some(target) = unknown else { return Ok(()) };
    let name = format!("{}/{}", target.provider.name, target.model_for(rest));
    if x.rules.unknown_price == UnknownPrice::Allow {
        if !model.warned.swap(true, Relaxed) {
            tracing::warn!(model = name, "its price is not known, and limits of dollars do not count it; give it one under `prices`");
        }
        return Ok(());
    }
    let message = format!("the price of `{name}` is not known here, so a limit of dollars could not be held; the operator can give it one under `prices` (0 for what is free)");
    Err(Fault::client(StatusCode::FORBIDDEN, ErrorKind::Permission, message).code("unknown_price").param("model"))
}

/// The client's own bound on what the request may cost: the header `x-trivium-max-cost`, in dollars.
fn hold_to_max_cost(x: &Exchange, worst: &Estimate) -> Result<(), Fault> {
    let Some(value) = x.headers.get(&names::MAX_COST) else { return Ok(()) };
    let wrong = || Fault::client(StatusCode::BAD_REQUEST, ErrorKind::InvalidRequest, "`x-trivium-max-cost` must be an amount of dollars, such as 0.05").param("x-trivium-max-cost");
    let most = value.to_str().ok().and_then(nanodollars).ok_or_else(wrong)?;
    if worst.cost <= most {
        return Ok(());
    }
    let message = format!("at worst this request would cost {} dollars, more than its `x-trivium-max-cost`; lower `max_tokens` or raise the bound", providers::prices::Nanodollars(worst.cost));
    Err(Fault::client(StatusCode::PAYMENT_REQUIRED, ErrorKind::InvalidRequest, message).code("max_cost_exceeded"))
}

fn refuse(limits: &[&LimitRule], refused: Refused) -> Fault {
    let denied = match refused {
        Refused::Unavailable => {
            return Fault::gateway("the shared limits cannot be asked at the moment").code("limits_unavailable").status_of(StatusCode::SERVICE_UNAVAILABLE).retry_after(Duration::from_secs(1));
        }
        Refused::Denied(denied) => denied,
    };
    let label = limits.iter().find(|l| l.purse.key == denied.purse.key).map_or(&*denied.purse.key, |l| l.label.as_str());
    // Money that is spent is no matter of pace: OpenAI's clients tell the two apart by the code.
    let kind = if denied.purse.unit == Unit::Nanodollars { ErrorKind::Quota } else { ErrorKind::RateLimit };
    if denied.frees_in == NEVER {
        return Fault::client(StatusCode::TOO_MANY_REQUESTS, kind, format!("this request alone is more than a limit allows: {label}")).never_again();
    }
    let seconds = Duration::from_secs(denied.frees_in.as_secs_f64().ceil().max(1.0) as u64);
    let message = format!("a limit is used up: {label}; ask again in {}", spoken(seconds));
    Fault::client(StatusCode::TOO_MANY_REQUESTS, kind, message).retry_after(denied.frees_in)
}

/// `x-ratelimit-{limit,remaining,reset}-{requests,tokens,dollars}`: of each kind the limit that has least left.
fn headers(standings: &[Standing]) -> HeaderMap {
    let mut out = HeaderMap::new();
    for (unit, name) in [(Unit::Requests, "requests"), (Unit::Tokens, "tokens"), (Unit::Nanodollars, "dollars")] {
        let share = |s: &Standing| s.left as f64 / (s.purse.cap.max(1)) as f64;
        let Some(tightest) = standings.iter().filter(|s| s.purse.unit == unit).min_by(|a, b| share(a).total_cmp(&share(b))) else { continue };
        let amount = |n: u64| if unit == Unit::Nanodollars { providers::prices::Nanodollars(n).to_string() } else { n.to_string() };
        let values = [("limit", amount(tightest.purse.cap)), ("remaining", amount(tightest.left)), ("reset", format!("{}s", tightest.resets_in.as_secs()))];
        for (what, value) in values {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(format!("x-ratelimit-{what}-{name}")), HeaderValue::try_from(value)) {
                out.insert(name, value);
            }
        }
    }
    out
}
