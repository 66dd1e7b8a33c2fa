//! What is sent to a target, and what comes back before there is a body to read: a good answer's head, or a failure.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use providers::envelope::Payload;
use providers::{Dialect, Error, ErrorKind, Operation, Target};

use super::failure::{Again, Failure};
use crate::exchange::Exchange;
use crate::fault::Fault;
use crate::names;
use crate::rules::{ModelRule, ProviderRule, TargetRule};
use crate::upstream::{self, Answer};

/// How an upstream's answer is read.
#[derive(Clone, Copy)]
pub(super) enum Reading {
    /// It is in the client's dialect already.
    Pass,
    /// It is read into the hub and written for the client.
    Translate,
    /// It is not looked at.
    Raw,
}

/// One request on its way.
pub(super) struct Sending {
    pub(super) path: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Payload,
    pub(super) content_type: HeaderValue,
    pub(super) reading: Reading,
}

/// Largest error body that is read.
const ERROR_BODY: usize = 1 << 20;

/// What is sent: the client's bytes where the provider speaks the client's dialect, else the hub's request, as it is or
/// translated.
pub(super) fn prepare(x: &mut Exchange, provider: &ProviderRule, t: &Target<'_>) -> Result<Sending, Failure> {
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
pub(super) async fn send(x: &Exchange, target: &TargetRule, sending: Sending) -> Result<Response<Answer>, Failure> {
    let provider = &target.provider;
    let uri = provider.uri(&sending.path).map_err(|e| Failure::new(Fault::gateway("the request to the provider could not be made").detail(e), "connect", Again::No))?;
    let (mut parts, ()) = Request::new(()).into_parts();
    (parts.method, parts.uri) = (Method::POST, uri);
    let headers = &mut parts.headers;
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
    for name in &provider.forwards {
        if let Some(value) = x.headers.get(name) {
            headers.insert(name, value.clone());
        }
    }
    if let Some(record) = &x.record
        && let Ok(value) = HeaderValue::from_bytes(&record.entry.trace.header(x.span))
    {
        headers.insert(&names::TRACEPARENT, value);
        if let Some(state) = x.headers.get(&names::TRACESTATE) {
            headers.insert(&names::TRACESTATE, state.clone());
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
pub(super) async fn accept(x: &Exchange, provider: &ProviderRule, model: &ModelRule, response: Response<Answer>) -> Result<Response<Answer>, Failure> {
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
pub(super) fn passed_headers(from: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in from {
        let text = name.as_str();
        if text.starts_with("x-ratelimit-") || text.starts_with("anthropic-ratelimit-") || matches!(text, "retry-after" | "retry-after-ms" | "openai-processing-ms" | "openai-version") {
            headers.insert(name, value.clone());
        }
    }
    headers
}
