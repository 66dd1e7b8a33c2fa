//! Reserves the worst case in every purse that the request spends from, or refuses it: before anything costs. What was
//! really used is settled when the request's record is dropped.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use providers::bound::Bound;
use providers::envelope::Envelope;
use providers::prices::{Model, Prices};
use providers::{Dialect, ErrorKind, Operation, Target, unseen};
use smallvec::SmallVec;

use crate::config::UnknownPrice;
use crate::counters::{Claim, Denied, NEVER, Refused, Standing, Unit, Window};
use crate::exchange::{Asked, Exchange};
use crate::fault::Fault;
use crate::names;
use crate::purse::{Estimate, Hold, LimitRule, Tokens, nanodollars, spoken, told};
use crate::rate;
use crate::rules::{ModelRule, TargetRule};
use crate::weight::Weight;

/// Tokens of an answer that are reserved where neither the request nor the price table bounds them.
const GUESS: u64 = 1024;
/// Longest answer that is reckoned with in the worst case where nothing bounds it.
const LONGEST: u64 = 128_000;
/// Tokens of the largest picture that is made, and most pictures of one form.
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
    let bound = bound(x.current_operation(), x.current(), &x.weight)?;
    let candidates = candidates(x, model, rest);
    let (worst, about) = estimates(&candidates, &bound, &x.weight);
    x.about = about;
    let other = rate::other(x, model, rest);
    if worst.cost > 0 && other.is_none() {
        x.estimate = Some(worst.cost);
    }
    hold_to_max_cost(x, model, rest, &worst, &candidates, other)?;
    let Some(principal) = x.principal.clone() else { return Ok(()) };
    let limits: Vec<&LimitRule> = principal.limits.iter().filter(|l| l.covers(&x.model)).collect();
    if limits.is_empty() {
        return Ok(());
    }
    if limits.iter().any(|l| l.purse.unit == Unit::Nanodollars) {
        hold_to_known_prices(x, model, rest)?;
        rate::hold_to_known(x, other)?;
    }
    if limits.iter().any(|l| l.strict && !matches!(l.purse.unit, Unit::Requests | Unit::Concurrent))
        && let Some(why) = unheld(x, &x.weight, &candidates)
    {
        let message = format!("a strict limit could not be held: this request {why}");
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
    if x.operation == Operation::Batches && x.method == Method::POST && x.headers.contains_key(&names::MAX_COST) {
        let message = "batches are not counted here, so `x-trivium-max-cost` could not be held; leave it out, or send the requests one by one";
        return Err(Fault::client(StatusCode::PAYMENT_REQUIRED, ErrorKind::InvalidRequest, message).code("batch_not_counted"));
    }
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

/// A target that the request may go to: what it charges, how it counts text, and how long its prompts and answers are.
pub(crate) struct Candidate {
    price: Option<Arc<Model>>,
    density: u32,
    /// Longest answer that it gives.
    pub(crate) longest: u64,
    /// Most tokens that it thinks beyond a bound; `None` for as many as it likes.
    pub(crate) thought: Option<u64>,
    context: Option<u64>,
    follows: bool,
    /// Whether it brings into the prompt what is not in the request.
    searches: bool,
}

impl Candidate {
    pub(crate) fn of(asked: &Asked, target: &TargetRule, rest: &str, prices: &Prices) -> Self {
        let name = target.model_for(rest);
        let dialect = &target.provider.dialect;
        let price = target.price_of(&name, prices);
        let info = Target { model: &name, info: price.as_deref() };
        let thought = match asked.current_operation() {
            Operation::Chat(Dialect::Chat) => dialect.thinks_beyond(asked.current(), &info),
            // What another dialect says of thoughts, a translation says in its own words.
            _ => dialect.thinks_beyond(&Envelope::empty(), &info),
        };
        // Who answers offline reads nothing but what is here.
        let context = if target.provider.base_url.is_empty() { Some(0) } else { price.as_ref().and_then(|p| p.context) };
        let longest = price.as_ref().and_then(|p| p.max_output.or(p.context)).unwrap_or(LONGEST);
        let searches = matches!(asked.operation, Operation::Chat(_)) && unseen::by_itself(&name);
        Candidate { density: target.figures.of(rest).density(), longest, thought, context, follows: dialect.follows_places(), searches, price }
    }

    /// What the request uses here at most.
    pub(crate) fn worst(&self, bound: &Bound, weight: &Weight) -> Tokens {
        let prompt = weight.worst_within(self.context, self.follows).unwrap_or(weight.worst());
        Tokens { prompt, heard: weight.sound.saturating_add(weight.files), completion: bound.at_most(self.longest, self.thought), spoken: bound.spoken }
    }

    fn about(&self, bound: &Bound, weight: &Weight) -> Tokens {
        Tokens { prompt: weight.about(self.density), heard: weight.about_heard(), completion: bound.at_most(self.longest.min(GUESS), Some(0)), spoken: bound.spoken }
    }
}

fn candidates(x: &Exchange, model: &ModelRule, rest: &str) -> SmallVec<[Candidate; 4]> {
    model.targets.iter().chain(&model.fallback).map(|t| Candidate::of(x, t, rest, &x.rules.prices)).collect()
}

/// What the request uses at worst, and about, each at the dearest of its targets.
fn estimates(candidates: &[Candidate], bound: &Bound, weight: &Weight) -> (Estimate, Estimate) {
    let mut out = (Estimate::default(), Estimate::default());
    for c in candidates {
        let price = c.price.as_deref();
        out = (out.0.or_more(Estimate::at_worst(c.worst(bound, weight), price)), out.1.or_more(Estimate::likely(c.about(bound, weight), price)));
    }
    out
}

/// Why nobody here can say what a request uses at most, if nobody can: what it does, and what would help.
pub(crate) fn unheld(asked: &Asked, weight: &Weight, candidates: &[Candidate]) -> Option<String> {
    if let Some(name) = unseen::of(asked.current_operation(), asked.current()) {
        return Some(format!("names `{name}`, whose tokens or price only the provider knows; leave it out, or send its contents"));
    }
    if candidates.iter().any(|c| c.searches) {
        return Some("goes to a model that searches, or reads stored files, by itself; ask for another one".into());
    }
    let untold = candidates.iter().any(|c| weight.worst_within(c.context, c.follows).is_none());
    untold.then(|| {
        "holds a file or a sound whose length its bytes do not tell, and the context of its model is not known here; send text, or have the operator give it a `context` under `prices`".into()
    })
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
            Err(refuse(limits, claims, refused))
        }
    }
}

/// The bound on an answer's tokens that the request sets itself, or that its kind has.
pub(crate) fn bound(operation: Operation, body: &Envelope, weight: &Weight) -> Result<Bound, Fault> {
    let fixed = |each: u64| Bound { each: Some(each), beside: 0, answers: 1, spoken: false };
    Ok(match operation {
        Operation::Chat(dialect) => Bound::of(dialect, body)?,
        Operation::ImageGenerations => Bound { answers: Bound::of(Dialect::Chat, body)?.answers, ..fixed(PICTURE.0) },
        Operation::ImageEdits => fixed(PICTURE.0 * PICTURE.1),
        // About a minute of speech is nine hundred characters and twelve hundred tokens of sound.
        Operation::Speech => Bound { spoken: true, ..fixed(2 * weight.text) },
        Operation::Transcriptions | Operation::Translations => fixed(TRANSCRIPT),
        _ => fixed(0),
    })
}

/// Money cannot be counted where a price is not known: such a model is refused to who has a limit of dollars, or let pass
/// with a warning, as the configuration says. A provider that answers offline costs nothing.
fn hold_to_known_prices(x: &Exchange, model: &ModelRule, rest: &str) -> Result<(), Fault> {
    let Some(name) = unpriced(x, model, rest) else { return Ok(()) };
    if x.rules.unknown_price == UnknownPrice::Allow {
        if !model.warned.swap(true, Relaxed) {
            tracing::warn!(model = name, "its price is not known, and limits of dollars do not count it; give it one under `prices`");
        }
        return Ok(());
    }
    let message = format!("the price of `{name}` is not known here, so a limit of dollars could not be held; the operator can give it one under `prices` (0 for what is free)");
    Err(Fault::client(StatusCode::FORBIDDEN, ErrorKind::Permission, message).code("unknown_price").param("model"))
}

/// The first target whose price is not known, if it has one.
fn unpriced(x: &Exchange, model: &ModelRule, rest: &str) -> Option<String> {
    let costs = |t: &&TargetRule| !t.provider.base_url.is_empty();
    let unknown = model.targets.iter().chain(&model.fallback).filter(costs).find(|t| t.price_of(&t.model_for(rest), &x.rules.prices).is_none());
    unknown.map(|target| format!("{}/{}", target.provider.name, target.model_for(rest)))
}

/// The client's own bound on what the request may cost, in dollars: the field `max_cost` or the header `x-trivium-max-cost`. One
/// that nobody could hold to is no bound, so the request is refused.
fn hold_to_max_cost(x: &Exchange, model: &ModelRule, rest: &str, worst: &Estimate, candidates: &[Candidate], other: Option<&'static str>) -> Result<(), Fault> {
    let wrong = || Fault::client(StatusCode::BAD_REQUEST, ErrorKind::InvalidRequest, "`x-trivium-max-cost` must be an amount of dollars, such as 0.05").param("x-trivium-max-cost");
    let header = x.headers.get(&names::MAX_COST).map(|v| v.to_str().ok().and_then(nanodollars).ok_or_else(wrong)).transpose()?;
    let Some(most) = header.into_iter().chain(x.max_cost).min() else { return Ok(()) };
    if let Some(field) = other {
        return Err(rate::unknown(field, "`max_cost`"));
    }
    let refuse = |message: String, code: &str| Err(Fault::client(StatusCode::PAYMENT_REQUIRED, ErrorKind::InvalidRequest, message).code(code));
    if let Some(name) = unpriced(x, model, rest).filter(|_| !matches!(x.operation, Operation::CountMessages | Operation::CountGenerate)) {
        return refuse(
            format!("the price of `{name}` is not known here, so the request's own `max_cost` could not be held; leave it out, or have the operator give a price under `prices`"),
            "unknown_price",
        );
    }
    if let Some(why) = unheld(x, &x.weight, candidates) {
        return refuse(format!("its own `max_cost` could not be held: this request {why}"), "unbounded_request");
    }
    if worst.cost <= most {
        return Ok(());
    }
    let message = format!("at worst this request would cost {} dollars, more than its own `max_cost`; set or lower `max_tokens`, or raise the bound", providers::prices::Nanodollars(worst.cost));
    refuse(message, "max_cost_exceeded")
}

fn refuse(limits: &[&LimitRule], claims: &[Claim<'_>], refused: Refused) -> Fault {
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
        let mut message = format!("this request alone is more than a limit allows: {label}");
        if let Some(claim) = claims.iter().find(|c| c.purse.key == denied.purse.key).filter(|c| !matches!(c.purse.unit, Unit::Requests | Unit::Concurrent)) {
            let _ = write!(message, "; it may use {}, so set or lower `max_tokens`, or send less", told(claim.purse.unit, claim.amount));
        }
        return Fault::client(StatusCode::TOO_MANY_REQUESTS, kind, message).never_again();
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
