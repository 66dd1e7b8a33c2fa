//! Sends a request to a target, and takes the head of its answer: a good one, or a failure.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use providers::ErrorKind;

use super::failure::{Again, Failure};
use super::prepare::Sending;
use crate::exchange::Exchange;
use crate::fault::Fault;
use crate::names;
use crate::rules::{ModelRule, ProviderRule, TargetRule};
use crate::upstream::{self, Answer};

/// Largest error body that is read.
const ERROR_BODY: usize = 1 << 20;

/// Sends a request and waits for the head of its answer.
pub(super) async fn send(x: &Exchange, target: &TargetRule, sending: Sending) -> Result<Response<Answer>, Failure> {
    let provider = &target.provider;
    let uri = provider.uri(&sending.path).map_err(|e| Failure::new(Fault::gateway("the request to the provider could not be made").detail(e), "connect", Again::No))?;
    let (mut parts, ()) = Request::new(()).into_parts();
    (parts.method, parts.uri) = (Method::POST, uri);
    let headers = &mut parts.headers;
    headers.reserve(12);
    headers.insert(header::CONTENT_TYPE, sending.content_type);
    common_headers(x, provider, headers);
    for (name, value) in &sending.headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    provider.credential.apply(&mut parts, &sending.body).await.map_err(|e| Failure::new(e, "credential", Again::Elsewhere))?;
    let call = upstream::Call { method: parts.method, uri: parts.uri, headers: parts.headers, body: sending.body };
    target.client.call(call).await.map_err(|e| Failure::new(unreachable(&e), "connect", Again::Anywhere))
}

/// What the client is told when an upstream cannot be talked to.
pub fn unreachable(e: &upstream::Error) -> Fault {
    let what = if e.is_connect() { "could not be reached" } else { "closed the connection" };
    Fault::upstream(StatusCode::BAD_GATEWAY, ErrorKind::Server, format!("the provider {what}")).code("upstream_unreachable").detail(chain(e))
}

/// Headers of every call: who we are, the trace, those of the client's that are for this provider, and the operator's own, in
/// whose place nobody else's stand.
pub fn common_headers(x: &Exchange, provider: &ProviderRule, headers: &mut HeaderMap) {
    headers.insert(header::USER_AGENT, HeaderValue::from_static(crate::state::USER_AGENT));
    for name in &provider.forwards {
        let Some(value) = x.headers.get(name) else { continue };
        let Ok(text) = value.to_str() else { continue };
        match provider.dialect.forward(name.as_str(), text) {
            Some(Cow::Borrowed(_)) => drop(headers.insert(name, value.clone())),
            Some(Cow::Owned(text)) => drop(HeaderValue::try_from(text).map(|value| headers.insert(name, value))),
            None => {}
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
    for (name, value) in &provider.headers {
        headers.insert(name, value.clone());
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
        return Err(Failure::with_status(fault, "status", status.as_u16(), Again::Elsewhere));
    }
    if status.is_success() {
        return Ok(response);
    }
    if status.is_redirection() || status.is_informational() {
        let fault = Fault::upstream(StatusCode::BAD_GATEWAY, ErrorKind::Server, "the provider answered with a redirect, which is not followed; the operator has to look at its base_url")
            .code("upstream_redirect");
        return Err(Failure::with_status(fault, "status", status.as_u16(), Again::Elsewhere));
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
    Err(Failure::with_status(fault, "status", status.as_u16(), again))
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
