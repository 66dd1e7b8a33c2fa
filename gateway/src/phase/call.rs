//! Asks the targets of a plan, one after the other, until one has answered: with a whole body, or with the first event of a
//! stream that a client would show. Until then nothing has been sent, so that another target can take over.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use providers::answer::Answer as HubAnswer;
use providers::door::door;
use providers::envelope::Payload;
use providers::sse::{Cutter, Framing};
use providers::{Dialect, Error, ErrorKind, Operation, Target};

use crate::exchange::Exchange;
use crate::fault::{Blame, Fault};
use crate::phase::route::{Plan, backoff};
use crate::rules::{ModelRule, ProviderRule, TargetRule};
use crate::stream::{Flow, Seen, note};
use crate::target::{Gate, InFlight};
use crate::trace::new_span;
use crate::upstream::{self, Answer};
use crate::whole;

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

/// Why a try failed.
struct Failure {
    fault: Fault,
    outcome: &'static str,
    status: Option<u16>,
    again: Again,
}

/// Whether another try is worth it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    /// It would fail everywhere.
    No,
    /// Only elsewhere.
    Elsewhere,
    /// Here too, a little later.
    Anywhere,
}

/// How an upstream's answer is read.
#[derive(Clone, Copy)]
enum Reading {
    /// It is in the client's dialect already.
    Pass,
    /// It is read into the hub and written for the client.
    Translate,
    /// It is not looked at.
    Raw,
}

/// One request on its way.
struct Sending {
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Payload,
    content_type: HeaderValue,
    reading: Reading,
}

/// Longest pause between two tries that a client is made to wait for; beyond it, the client is told when to come again.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Largest error body that is read.
const ERROR_BODY: usize = 1 << 20;

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

impl Failure {
    fn new(fault: impl Into<Fault>, outcome: &'static str, again: Again) -> Self {
        Failure { fault: fault.into(), outcome, status: None, again }
    }
}

impl From<Error> for Failure {
    /// An error of a translation, before anything was sent.
    fn from(e: Error) -> Self {
        let again = if matches!(e, Error::Unsupported { .. }) { Again::Elsewhere } else { Again::No };
        Failure::new(e, "unsupported", again)
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Failure::new(fault, "unsupported", Again::No)
    }
}

fn timed_out(what: &str, model: &ModelRule) -> Failure {
    let fault = Fault::upstream(StatusCode::GATEWAY_TIMEOUT, ErrorKind::Timeout, format!("the provider took too long: {what}")).code("upstream_timeout");
    Failure::new(fault, "timeout", if model.retry.timeout { Again::Anywhere } else { Again::No })
}

/// An answer that cannot be read, or says an error although its status was good.
fn broken(e: Error, model: &ModelRule) -> Failure {
    let fault = Fault::from(e);
    let again = match fault.blame {
        Blame::Client => Again::No,
        _ if model.retry.server || model.retry.wants(fault.told.status) => Again::Anywhere,
        _ => Again::No,
    };
    let status = Some(fault.told.status);
    Failure { fault, outcome: "stream", status, again }
}

async fn attempt(x: &mut Exchange, model: &ModelRule, target: &TargetRule, rest: &str) -> Result<Reply, Failure> {
    let name = target.model_for(rest);
    let rules = x.rules.clone();
    let provider = &target.provider;
    // What another target had to leave out is no concern of this one.
    x.warnings.clear();
    let price = target.price_of(&name, &rules.prices);
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

fn raw(response: Response<Answer>) -> Kind {
    let content_type = response.headers().get(header::CONTENT_TYPE).cloned();
    Kind::Raw(response.into_body(), content_type)
}

fn retry_connect(mut failure: Failure, model: &ModelRule) -> Failure {
    if failure.outcome == "connect" && !model.retry.connect {
        failure.again = Again::No;
    }
    failure
}

/// What is sent: the client's bytes where the provider speaks the client's dialect, else the hub's request, as it is or
/// translated.
fn prepare(x: &mut Exchange, provider: &ProviderRule, t: &Target<'_>) -> Result<Sending, Failure> {
    let dialect = &provider.dialect;
    let operation = x.operation;
    let stream = x.stream;
    let json = HeaderValue::from_static("application/json");
    if let Some(form) = &x.form {
        let path = dialect.path(operation, t, stream)?.ok_or_else(|| lacks(provider, operation))?;
        let content_type = x.headers.get(header::CONTENT_TYPE).cloned().unwrap_or(json);
        let body = Payload::from_iter([form.body.slice(..form.model.start), Bytes::copy_from_slice(t.model.as_bytes()), form.body.slice(form.model.end..)]);
        return Ok(Sending { path, headers: Vec::new(), body, content_type, reading: Reading::Raw });
    }
    let passes = !x.rewritten || matches!(operation, Operation::Chat(Dialect::Chat) | Operation::Embeddings | Operation::Rerank);
    let native = if passes { dialect.path(operation, t, stream)? } else { None };
    if let Some(path) = native {
        let envelope = if x.rewritten { x.hub()?.clone() } else { x.envelope.clone() };
        let mut edit = envelope.edit();
        let warnings = dialect.adapt(operation, &mut edit, t)?;
        let body = edit.finish();
        x.warnings.extend(warnings);
        let reading = match operation {
            Operation::Speech => Reading::Raw,
            // Images in pieces: a stream whose events are none of ours.
            _ if stream && !matches!(operation, Operation::Chat(_)) => Reading::Raw,
            _ if dialect.verbatim(operation) => Reading::Pass,
            _ => Reading::Translate,
        };
        return Ok(Sending { path, headers: Vec::new(), body, content_type: json, reading });
    }
    let Operation::Chat(_) = operation else {
        return Err(lacks(provider, operation).into());
    };
    let hub = x.hub()?.clone();
    let chat = Operation::Chat(Dialect::Chat);
    if let Some(path) = dialect.path(chat, t, stream)? {
        let (hub, dropped) = if operation == chat { (hub, Vec::new()) } else { providers::neutral::neutral(&hub)? };
        let mut edit = hub.edit();
        let warnings = dialect.adapt(chat, &mut edit, t)?;
        let body = edit.finish();
        x.warnings.extend(dropped.into_iter().chain(warnings));
        return Ok(Sending { path, headers: Vec::new(), body, content_type: json, reading: Reading::Translate });
    }
    let call = dialect.chat(&hub.chat()?, t)?;
    x.warnings.extend(call.warnings);
    Ok(Sending { path: call.path, headers: call.headers, body: call.body, content_type: json, reading: Reading::Translate })
}

fn lacks(provider: &ProviderRule, operation: Operation) -> Error {
    Error::unsupported(provider.dialect.kind(), "model", format!("the provider behind this model has no {}", operation.name()))
}

/// Sends a request and waits for the head of its answer.
async fn send(x: &Exchange, target: &TargetRule, sending: Sending) -> Result<Response<Answer>, Failure> {
    let provider = &target.provider;
    let uri = format!("{}{}", provider.base_url, sending.path);
    let mut request = Request::builder().method(Method::POST).uri(uri);
    if let Some(headers) = request.headers_mut() {
        headers.reserve(12);
        headers.insert(header::CONTENT_TYPE, sending.content_type);
        for (name, value) in &provider.headers {
            headers.insert(name, value.clone());
        }
        for (name, value) in &sending.headers {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        common_headers(x, provider, headers);
    }
    let (mut parts, ()) = request.body(()).map_err(|e| Failure::new(Fault::gateway("the request to the provider could not be made").detail(e), "connect", Again::No))?.into_parts();
    provider.credential.apply(&mut parts, &sending.body).await.map_err(|e| Failure::new(e, "credential", Again::Elsewhere))?;
    let call = upstream::Call { method: parts.method, uri: parts.uri, headers: parts.headers, body: sending.body };
    target.client.call(call).await.map_err(|e| Failure::new(unreachable(&e), "connect", Again::Anywhere))
}

/// What the client is told when an upstream cannot be talked to.
pub fn unreachable(e: &upstream::Error) -> Fault {
    let what = if e.is_connect() { "could not be reached" } else { "closed the connection" };
    Fault::upstream(StatusCode::BAD_GATEWAY, ErrorKind::Server, format!("the provider {what}")).code("upstream_unreachable").detail(chain(e))
}

/// Headers of every call: who we are, the trace, and those of the client's that are for this provider.
pub fn common_headers(x: &Exchange, provider: &ProviderRule, headers: &mut HeaderMap) {
    headers.insert(header::USER_AGENT, HeaderValue::from_static(crate::state::USER_AGENT));
    for name in provider.dialect.forwards() {
        if let Some(value) = x.headers.get(*name) {
            headers.insert(HeaderName::from_static(name), value.clone());
        }
    }
    if let Some(record) = &x.record
        && let Ok(value) = HeaderValue::from_bytes(&record.entry.trace.header(x.span))
    {
        headers.insert(HeaderName::from_static("traceparent"), value);
        if let Some(state) = x.headers.get("tracestate") {
            headers.insert(HeaderName::from_static("tracestate"), state.clone());
        }
    }
}

/// An error and what caused it, in one line.
pub fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(e) = source {
        text.push_str(": ");
        text.push_str(&e.to_string());
        source = e.source();
    }
    text
}

/// Lets a good answer through; anything else becomes a failure with what the upstream said.
async fn accept(x: &Exchange, provider: &ProviderRule, model: &ModelRule, response: Response<Answer>) -> Result<Response<Answer>, Failure> {
    let status = response.status();
    if response.headers().get(header::CONTENT_ENCODING).is_some_and(|e| e != "identity") {
        let fault = Fault::upstream(StatusCode::BAD_GATEWAY, ErrorKind::Server, "the provider answered with a content encoding that was not asked for").code("upstream_unreadable");
        return Err(Failure { fault, outcome: "status", status: Some(status.as_u16()), again: Again::Elsewhere });
    }
    if status.is_success() {
        return Ok(response);
    }
    if status.is_redirection() || status.is_informational() {
        let fault = Fault::upstream(StatusCode::BAD_GATEWAY, ErrorKind::Server, "the provider answered with a redirect, which is not followed; the operator has to look at its base_url")
            .code("upstream_redirect");
        return Err(Failure { fault, outcome: "status", status: Some(status.as_u16()), again: Again::Elsewhere });
    }
    let headers = passed_headers(response.headers());
    let pause = retry_after(response.headers(), x.state.now());
    let body = Limited::new(response.into_body(), ERROR_BODY).collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let error = provider.dialect.error(status.as_u16(), &body);
    let refused = matches!(error.kind, ErrorKind::Authentication | ErrorKind::Permission | ErrorKind::Quota);
    let again = if model.retry.wants(status.as_u16()) {
        Again::Anywhere
    } else if refused {
        Again::Elsewhere
    } else {
        Again::No
    };
    let mut fault = Fault::from(error);
    fault.headers = headers;
    fault.retry_after = pause.or_else(|| provider.dialect.retry_after(&body));
    Err(Failure { fault, outcome: "status", status: Some(status.as_u16()), again })
}

/// `retry-after-ms`, or `Retry-After` in seconds or as a date.
fn retry_after(headers: &HeaderMap, now: Duration) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim);
    if let Some(ms) = text("retry-after-ms").and_then(|t| t.parse::<f64>().ok()).filter(|ms| ms.is_finite() && *ms >= 0.0) {
        return Duration::try_from_secs_f64(ms / 1000.0).ok();
    }
    let value = text("retry-after")?;
    if let Ok(seconds) = value.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = httpdate::parse_http_date(value).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(date.saturating_sub(now))
}

/// The upstream's headers that mean something to a client: rate limits and the like.
fn passed_headers(from: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in from {
        let text = name.as_str();
        if text.starts_with("x-ratelimit-") || text.starts_with("anthropic-ratelimit-") || matches!(text, "retry-after" | "retry-after-ms" | "openai-processing-ms" | "openai-version") {
            headers.insert(name, value.clone());
        }
    }
    headers
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

/// Reads a stream until there is something to show.
async fn streamed(x: &mut Exchange, provider: &ProviderRule, model: &ModelRule, t: &Target<'_>, reading: Reading, response: Response<Answer>) -> Result<(Kind, Seen), Failure> {
    let meta = x.meta();
    let limit = x.rules.limits.answer;
    let framing = match reading {
        Reading::Pass => Framing::Sse,
        _ => provider.dialect.framing(),
    };
    if !is_stream(response.headers(), framing) {
        return not_a_stream(x, provider, model, t, reading, response).await;
    }
    let mut flow = match reading {
        Reading::Pass | Reading::Raw => Flow::pass(x.dialect(), !meta.include_usage, limit),
        Reading::Translate => Flow::translate(Cutter::new(framing, limit), provider.dialect.transcoder(t), door(x.dialect()).writer(meta), limit),
    };
    let mut body = response.into_body();
    let mut first = Vec::new();
    while !flow.seen.content {
        match body.frame().await {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    first.push(flow.push(data).map_err(|e| broken(e, model))?);
                }
            }
            Some(Err(e)) => {
                let mut failure = broken(providers::broken_off(), model);
                failure.fault.detail = Some(chain(&e));
                return Err(failure);
            }
            None => {
                first.push(flow.end().map_err(|e| broken(e, model))?);
                break;
            }
        }
    }
    let seen = flow.seen;
    Ok((Kind::Stream(Box::new(flow), if first.len() == 1 { first.swap_remove(0) } else { first.concat().into() }, body), seen))
}

/// A stream was asked for and something else came with a good status: an error in JSON, a whole answer, or a page.
async fn not_a_stream(x: &mut Exchange, provider: &ProviderRule, model: &ModelRule, t: &Target<'_>, reading: Reading, response: Response<Answer>) -> Result<(Kind, Seen), Failure> {
    let body = collect(x, response, model).await?;
    let answer = match reading {
        Reading::Pass if !matches!(x.operation, Operation::Chat(Dialect::Chat)) => Err(Error::answer("a stream was asked for, and what came is none")),
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

/// Collects a body in memory, up to the limit.
async fn collect(x: &Exchange, response: Response<Answer>, model: &ModelRule) -> Result<Bytes, Failure> {
    let limit = x.rules.limits.answer;
    match Limited::new(response.into_body(), limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(e) if e.is::<http_body_util::LengthLimitError>() => Err(broken(Error::answer(format!("it is longer than {limit} bytes")), model)),
        Err(e) => {
            let mut failure = broken(providers::broken_off(), model);
            failure.fault.detail = Some(chain(e.as_ref()));
            Err(failure)
        }
    }
}

async fn read_whole(x: &mut Exchange, provider: &ProviderRule, model: &ModelRule, t: &Target<'_>, reading: Reading, response: Response<Answer>) -> Result<(Kind, Seen), Failure> {
    let body = collect(x, response, model).await?;
    let json = HeaderValue::from_static("application/json");
    match reading {
        Reading::Pass | Reading::Raw => {
            let seen = whole::tap(x.operation, &body).map_err(|e| broken(e, model))?;
            Ok((Kind::Whole(body, json), seen))
        }
        Reading::Translate => {
            let answer = provider.dialect.answer(&body, t).map_err(|e| broken(e, model))?;
            let seen = whole::seen(&answer);
            Ok((Kind::Whole(door(x.dialect()).answer(&answer, &x.meta()).into(), json), seen))
        }
    }
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

/// A whole answer as the pieces of a stream: texts word by word, as a model would say them.
fn said(x: &Exchange, answer: &HubAnswer) -> (Kind, Seen) {
    let mut writer = door(x.dialect()).writer(x.meta());
    let mut seen = Seen::default();
    let mut pieces = Vec::new();
    answer.replay(|delta| {
        note(&mut seen, &delta);
        let mut each = |delta: &providers::answer::Delta<'_>| {
            let mut out = Vec::new();
            writer.delta(delta, &mut out);
            if !out.is_empty() {
                pieces.push(Bytes::from(out));
            }
        };
        match delta {
            providers::answer::Delta::Text { choice, text } => text.split_inclusive(' ').for_each(|word| each(&providers::answer::Delta::Text { choice, text: word })),
            other => each(&other),
        }
    });
    let mut out = Vec::new();
    writer.end(&mut out);
    pieces.push(out.into());
    seen.done = true;
    (Kind::Said(pieces), seen)
}
