//! Reserves the worst case in every purse that the request spends from, or refuses it: before anything costs. What was
//! really used is settled when the request's record is dropped.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use providers::prices::Model;
use providers::{ErrorKind, Operation};
use smallvec::SmallVec;

use crate::config::UnknownPrice;
use crate::counters::{Claim, Denied, NEVER, Refused, Standing, Unit, Window};
use crate::exchange::Exchange;
use crate::fault::Fault;
use crate::names;
use crate::purse::{Estimate, Hold, LimitRule, nanodollars, spoken};
use crate::rate;
use crate::rules::{ModelRule, TargetRule};
use crate::weight::Weight;

/// Tokens of an answer that are reserved where neither the request nor the price table bounds them.
const GUESS: u64 = 1024;
/// Longest answer that is reckoned with in the worst case where nothing bounds it.
pub(crate) const LONGEST: u64 = 128_000;
/// Tokens of the largest picture that is made, and most pictures of one request.
const PICTURE: (u64, u64) = (6_240, 10);
/// Most tokens of a transcript.
const TRANSCRIPT: u64 = 4_096;
/// Time that a reservation outlives its request's own bound, before it counts as forgotten.
const GRACE: Duration = Duration::from_secs(60);
/// Bound on a request that has none of its own: a file may take long.
const UNKNOWN: Duration = Duration::from_secs(3600);

/// Reserves what the request may use.
///
/// # Errors
/// 429 when a limit is used up; 402 when the request's own `max_cost` is below its worst case; 403 where a limit could not be
/// held; 503 when shared limits cannot be asked and the configuration says to refuse then.
pub async fn reserve(x: &mut Exchange, model: &ModelRule, rest: &str) -> Result<(), Fault> {
    x.weight = match &x.form {
        Some(form) => weight_of_form(x.operation, form.body.len() as u64),
        None => Weight::of(x.current()),
    };
    if let Some(fate) = x.fate.as_ref().filter(|_| model.drains) {
        fate.go_on();
    }
    let candidates = candidates(x, model, rest);
    let longest = candidates.iter().map(|c| c.price.as_ref().and_then(|p| p.max_output).unwrap_or(LONGEST)).max().unwrap_or(LONGEST);
    let bound = answer_bound(x);
    let worst = dearest(&candidates, |_| x.weight.worst(), bound.unwrap_or(longest));
    x.about = dearest(&candidates, |c| x.weight.about(c.density), bound.unwrap_or(longest.min(GUESS)));
    let other = rate::other(x, model, rest);
    if worst.cost > 0 && other.is_none() {
        x.estimate = Some(worst.cost);
    }
    hold_to_max_cost(x, &worst, other)?;
    let Some(principal) = x.principal.clone() else { return Ok(()) };
    let limits: Vec<&LimitRule> = principal.limits.iter().filter(|l| l.covers(&x.model)).collect();
    if limits.is_empty() {
        return Ok(());
    }
    if limits.iter().any(|l| l.purse.unit == Unit::Nanodollars) {
        hold_to_known_prices(x, model, rest)?;
        rate::hold_to_known(x, other)?;
    }
    if x.weight.unseen && limits.iter().any(|l| l.strict && !matches!(l.purse.unit, Unit::Requests | Unit::Concurrent)) {
        let message = "this request names files or a conversation that only the provider can see, so a strict limit could not be held; send their contents";
        return Err(Fault::client(StatusCode::FORBIDDEN, ErrorKind::Permission, message).code("unbounded_request"));
    }
    let about = x.about;
    let lease = model.timeout.total + GRACE;
    let claims: Vec<Claim<'_>> = limits.iter().map(|l| Claim { purse: &l.purse, amount: if l.strict { worst.of(l.purse.unit) } else { about.of(l.purse.unit).min(l.purse.cap.max(1)) } }).collect();
    take(x, &limits, &claims, lease).await
}

/// Reserves a request that no model answers (files, batches): it counts as a request, and as nothing else. What a batch will
/// cost is told to nobody here, so who has a limit of tokens or dollars may not begin one.
///
/// # Errors
/// As [`reserve`].
pub async fn reserve_request(x: &mut Exchange) -> Result<(), Fault> {
    let Some(principal) = x.principal.clone() else { return Ok(()) };
    let counted = |l: &LimitRule| matches!(l.purse.unit, Unit::Requests | Unit::Concurrent);
    if x.operation == Operation::Batches && x.method == Method::POST && principal.limits.iter().any(|l| !counted(l)) {
        let message = "batches are not counted here, so who has a limit of tokens or dollars may not begin one; send the requests one by one";
        return Err(Fault::client(StatusCode::FORBIDDEN, ErrorKind::Permission, message).code("batch_not_counted"));
    }
    let limits: Vec<&LimitRule> = principal.limits.iter().filter(|l| l.covers("") && counted(l)).collect();
    let claims: Vec<Claim<'_>> = limits.iter().map(|l| Claim { purse: &l.purse, amount: 1 }).collect();
    take(x, &limits, &claims, UNKNOWN).await
}

/// A target that the request may go to: what it charges, and how it counts text.
struct Candidate {
    price: Option<Arc<Model>>,
    density: u32,
}

fn candidates(x: &Exchange, model: &ModelRule, rest: &str) -> SmallVec<[Candidate; 4]> {
    let targets = model.targets.iter().chain(&model.fallback);
    targets.map(|t| Candidate { price: t.price_of(&t.model_for(rest), &x.rules.prices), density: t.figures.of(rest).density() }).collect()
}

/// What the request may use at the dearest of its targets.
fn dearest(candidates: &[Candidate], prompt: impl Fn(&Candidate) -> u64, completion: u64) -> Estimate {
    candidates.iter().map(|c| Estimate::new(prompt(c), completion, c.price.as_deref())).fold(Estimate::default(), Estimate::or_more)
}

/// A form is a sound to be written down, or pictures to be changed.
fn weight_of_form(operation: Operation, bytes: u64) -> Weight {
    match operation {
        Operation::ImageEdits => Weight { pictures: 1 + bytes / (1 << 20), ..Weight::default() },
        _ => Weight { sound: bytes, ..Weight::default() },
    }
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
                let least = |l: &LimitRule, c: &Claim<'_>| if l.strict && l.purse.unit != Unit::Concurrent { c.amount } else { 0 };
                record.hold = Some(Hold { lease, claims: limits.iter().zip(claims).map(|(l, c)| (l.purse.unit, least(l, c))).collect() });
            }
            Ok(())
        }
        Err(refused) => {
            if let Refused::Denied(denied) = &refused {
                x.limit_headers = headers(&[standing(denied)]);
            }
            Err(refuse(limits, refused))
        }
    }
}

/// The bound on an answer's tokens that the request sets itself, in whichever dialect, or that its kind has.
fn answer_bound(x: &Exchange) -> Option<u64> {
    let body = x.current();
    let number = |name: &str| body.parse::<Option<u64>>(name).ok().flatten().flatten();
    match x.operation {
        Operation::Chat(_) => {}
        Operation::ImageGenerations => return Some(PICTURE.0 * number("n").unwrap_or(1).clamp(1, PICTURE.1)),
        Operation::ImageEdits => return Some(PICTURE.0 * PICTURE.1),
        // About a minute of speech is nine hundred characters and twelve hundred tokens of sound.
        Operation::Speech => return Some(2 * x.weight.text),
        Operation::Transcriptions | Operation::Translations => return Some(TRANSCRIPT),
        _ => return Some(0),
    }
    let google = || body.parse::<serde_json::Value>("generationConfig").ok().flatten().and_then(|c| c["maxOutputTokens"].as_u64());
    // Where two bounds are given, the larger one may be the one that the provider reads.
    let one = ["max_completion_tokens", "max_tokens", "max_output_tokens"].into_iter().filter_map(number).max().or_else(google)?;
    // An absurd bound is no bound: the model's own holds.
    Some(one.min(10_000_000).saturating_mul(number("n").unwrap_or(1).clamp(1, 128)))
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

/// The client's own bound on what the request may cost, in dollars: the field `max_cost` or the header `x-trivium-max-cost`.
fn hold_to_max_cost(x: &Exchange, worst: &Estimate, other: Option<&'static str>) -> Result<(), Fault> {
    let wrong = || Fault::client(StatusCode::BAD_REQUEST, ErrorKind::InvalidRequest, "`x-trivium-max-cost` must be an amount of dollars, such as 0.05").param("x-trivium-max-cost");
    let header = x.headers.get(&names::MAX_COST).map(|v| v.to_str().ok().and_then(nanodollars).ok_or_else(wrong)).transpose()?;
    let Some(most) = header.into_iter().chain(x.max_cost).min() else { return Ok(()) };
    if let Some(field) = other {
        return Err(rate::unknown(field, "`max_cost`"));
    }
    if worst.cost <= most {
        return Ok(());
    }
    let message = format!("at worst this request would cost {} dollars, more than its own `max_cost`; set or lower `max_tokens`, or raise the bound", providers::prices::Nanodollars(worst.cost));
    Err(Fault::client(StatusCode::PAYMENT_REQUIRED, ErrorKind::InvalidRequest, message).code("max_cost_exceeded"))
}

fn refuse(limits: &[&LimitRule], refused: Refused) -> Fault {
    let denied = match refused {
        Refused::Unavailable => {
            return Fault::gateway("the shared limits cannot be asked at the moment").code("limits_unavailable").status_of(StatusCode::SERVICE_UNAVAILABLE).retry_after(Duration::from_secs(1)).known();
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

/// How the purse stands that had too little left.
fn standing(denied: &Denied) -> Standing {
    let purse = &denied.purse;
    let resets_in = if denied.frees_in == NEVER { Duration::ZERO } else { denied.frees_in };
    Standing { purse: purse.clone(), used: denied.used, reserved: 0, left: purse.cap.saturating_sub(denied.used), resets_in }
}

/// How long until a purse is as good as new: what is reserved just now counts for its whole window yet.
fn reset(standing: &Standing) -> Duration {
    match &standing.purse.window {
        Window::Sliding(length) if standing.reserved > 0 => standing.resets_in.max(*length),
        _ => standing.resets_in,
    }
}

/// `x-ratelimit-{limit,remaining,reset}-{requests,tokens,dollars}`: of each kind the limit that has least left.
fn headers(standings: &[Standing]) -> HeaderMap {
    let mut out = HeaderMap::new();
    for (unit, name) in [(Unit::Requests, "requests"), (Unit::Tokens, "tokens"), (Unit::Nanodollars, "dollars")] {
        let share = |s: &Standing| s.left as f64 / (s.purse.cap.max(1)) as f64;
        let Some(tightest) = standings.iter().filter(|s| s.purse.unit == unit).min_by(|a, b| share(a).total_cmp(&share(b))) else { continue };
        let amount = |n: u64| if unit == Unit::Nanodollars { providers::prices::Nanodollars(n).to_string() } else { n.to_string() };
        let values = [("limit", amount(tightest.purse.cap)), ("remaining", amount(tightest.left)), ("reset", format!("{}s", reset(tightest).as_secs_f64().ceil()))];
        for (what, value) in values {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(format!("x-ratelimit-{what}-{name}")), HeaderValue::try_from(value)) {
                out.insert(name, value);
            }
        }
    }
    out
}
