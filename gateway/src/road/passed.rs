//! Files and batches: passed to a provider that has them, unread. Which one, the client says by `x-trivium-provider`, or
//! there is only one.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method, Request, Response, StatusCode, header};
use hyper::body::{Body as _, Incoming};
use providers::envelope::Payload;
use providers::{ErrorKind, Operation, Target};

use crate::body::Body;
use crate::door::{admit, failed, refuse};
use crate::exchange::{Exchange, dialect_of};
use crate::fault::Fault;
use crate::ledger::Try;
use crate::phase::call::{common_headers, unreachable};
use crate::phase::{admit, identity, read};
use crate::rules::{ProviderRule, Rules};
use crate::state::State;
use crate::upstream;

/// How long a provider may say nothing at all, however large a file it is sent.
const SILENT: Duration = Duration::from_secs(600);

/// Serves a request for files or batches. `rest` is the path behind the resource's name.
pub async fn serve(state: Arc<State>, request: Request<Incoming>, operation: Operation, rest: &str) -> Response<Body> {
    let rules = match admit(&state) {
        Ok(rules) => rules,
        Err(fault) => return refuse(request.headers(), dialect_of(operation), &fault),
    };
    let (parts, body) = request.into_parts();
    let mut x = Exchange::new(state, rules.clone(), parts.method.clone(), parts.headers.clone(), operation);
    x.peer = parts.extensions.get().cloned();
    match pass(&mut x, &rules, &parts, body, rest).await {
        Ok(response) => response,
        Err(fault) => failed(x, &fault),
    }
}

async fn pass(x: &mut Exchange, rules: &Rules, parts: &http::request::Parts, body: Incoming, rest: &str) -> Result<Response<Body>, Fault> {
    identity::check(x).await?;
    may(x, rules, rest)?;
    if !matches!(parts.method, Method::GET | Method::POST | Method::DELETE) {
        return Err(Fault::client(StatusCode::METHOD_NOT_ALLOWED, ErrorKind::InvalidRequest, "this path takes GET, POST or DELETE").code("method_not_allowed"));
    }
    if rest.split('/').any(|s| s == "." || s == "..") || rest.contains(['%', '\\']) {
        return Err(Fault::client(StatusCode::BAD_REQUEST, ErrorKind::InvalidRequest, "the path of a file or batch must be its plain id"));
    }
    if parts.method == Method::POST && !body.is_end_stream() {
        read::kind(&x.headers, x.operation == Operation::Files)?;
    }
    let (provider, base) = choose(x, rules)?;
    admit::reserve_request(x).await?;
    let body = read::body(body, &rules.limits).await?;
    let query = parts.uri.query().map(|q| format!("{}{q}", if base.contains('?') { "&" } else { "?" })).unwrap_or_default();
    let uri = match base.split_once('?') {
        Some((path, fixed)) => format!("{}{path}{rest}?{fixed}{query}", provider.base_url),
        None => format!("{}{base}{rest}{query}", provider.base_url),
    };
    let mut request = Request::builder().method(parts.method.clone()).uri(uri);
    if let Some(headers) = request.headers_mut() {
        for name in [header::CONTENT_TYPE, header::ACCEPT] {
            if let Some(value) = x.headers.get(&name) {
                headers.insert(name, value.clone());
            }
        }
        common_headers(x, &provider, headers);
    }
    let (mut head, ()) = request.body(()).map_err(|e| Fault::gateway("the request to the provider could not be made").detail(e))?.into_parts();
    let payload = Payload::from(body);
    provider.credential.apply(&mut head, &payload).await?;
    let client = x.state.client(Duration::from_secs(5)).through(provider.proxy.clone());
    let call = upstream::Call { method: head.method, uri: head.uri, headers: head.headers, body: payload };
    let began = std::time::Instant::now();
    let sent = tokio::time::timeout(SILENT, client.call(call)).await;
    if let Some(record) = &mut x.record {
        let status = sent.as_ref().ok().and_then(|sent| sent.as_ref().ok()).map(|r| r.status());
        let outcome = match status {
            Some(status) if status.is_success() => "ok",
            Some(_) => "status",
            None if sent.is_err() => "timeout",
            None => "connect",
        };
        let tried = Try { target: provider.name.clone(), kind: provider.dialect.kind(), outcome, status: status.map(|s| s.as_u16()), span_id: x.span, ..Try::default() };
        record.tried(tried, began);
    }
    let silent = |_| Fault::upstream(StatusCode::GATEWAY_TIMEOUT, ErrorKind::Timeout, "the provider took too long: it said nothing").code("upstream_timeout");
    let response = sent.map_err(silent)?.map_err(|e| unreachable(&e))?;
    if let Some(entry) = x.entry() {
        entry.provider = Some(provider.name.clone());
        entry.provider_kind = Some(provider.dialect.kind());
        entry.status = response.status().as_u16();
    }
    let (answer, body) = response.into_parts();
    if answer.status.is_redirection() {
        return Err(Fault::upstream(StatusCode::BAD_GATEWAY, ErrorKind::Server, "the provider answered with a redirect, which is not followed").code("upstream_redirect"));
    }
    if matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return Err(providers::UpstreamError::new(ErrorKind::Authentication, format!("status {}", answer.status)).into());
    }
    let mut out = Response::new(crate::phase::relay::raw(x, body));
    *out.status_mut() = answer.status;
    for name in [header::CONTENT_TYPE, header::CONTENT_DISPOSITION, header::CONTENT_LENGTH] {
        if let Some(value) = answer.headers.get(&name) {
            out.headers_mut().insert(name, value.clone());
        }
    }
    for (name, value) in [("x-request-id", &*x.id), ("x-trivium-provider", &*provider.name)] {
        if let Ok(value) = value.parse() {
            out.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    Ok(out)
}

/// Whether who is asking may: what is in the provider's account is everybody's who may look into it, and a batch asks for the
/// models that its file names, which nobody here reads.
fn may(x: &Exchange, rules: &Rules, rest: &str) -> Result<(), Fault> {
    let Some(principal) = &x.principal else { return Err(Fault::gateway("nobody is asking")) };
    let refused = |message: String, code: &str| Err(Fault::client(StatusCode::FORBIDDEN, ErrorKind::Permission, message).code(code));
    let name = &principal.name;
    if !principal.files {
        let whose = if principal.is_anonymous() { "`consumers.anonymous`".to_owned() } else { format!("{name} or one of its groups") };
        let message = format!(
            "{name} may not use files and batches: they belong to the provider's account, and everybody who may use them sees and can delete everybody's; if that is meant, the operator can say `files: true` on {whose}"
        );
        return refused(message, "files_not_allowed");
    }
    // Ending a batch costs nothing.
    let begins = x.operation == Operation::Batches && x.method == Method::POST && !rest.ends_with("/cancel");
    if begins && (principal.is_restricted() || rules.shuts_out(principal)) {
        return refused(format!("{name} may use some of the models here only, and a batch's file may name any model; send the requests one by one"), "batch_not_allowed");
    }
    Ok(())
}

/// The provider that is meant, and its path for the operation.
fn choose(x: &Exchange, rules: &Rules) -> Result<(Arc<ProviderRule>, String), Fault> {
    let target = Target { model: "", info: None };
    let path = |p: &Arc<ProviderRule>| p.dialect.path(x.operation, &target, false).ok().flatten().map(|path| (p.clone(), path));
    let bad = |message: String| Fault::client(StatusCode::BAD_REQUEST, ErrorKind::InvalidRequest, message).param("x-trivium-provider");
    let mut able: Vec<_> = rules.providers.values().filter_map(path).collect();
    able.sort_by(|a, b| a.0.name.cmp(&b.0.name));
    let names = able.iter().map(|(p, _)| &*p.name).collect::<Vec<_>>().join(", ");
    match x.headers.get("x-trivium-provider").and_then(|v| v.to_str().ok()) {
        Some(name) => able.into_iter().find(|(p, _)| *p.name == *name).ok_or_else(|| bad(format!("no provider `{name}` with {} here; there are: {names}", x.operation.name()))),
        None if able.len() == 1 => able.pop().ok_or_else(|| bad(String::new())),
        None if able.is_empty() => Err(bad(format!("no provider here has {}", x.operation.name()))),
        None => Err(bad(format!("several providers have {}; say which one by the header x-trivium-provider: {names}", x.operation.name()))),
    }
}
