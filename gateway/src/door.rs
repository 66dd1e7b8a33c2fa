//! The door: path → road. The hot paths are matched here, before any router; bodies are read within their bounds; every
//! fault becomes a response in the dialect that was spoken.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::{Body as HttpBody, Frame};
use hyper::body::Incoming;
use providers::generate::Array;
use providers::prices::Nanodollars;
use providers::{Dialect, ErrorKind, Operation};

use crate::body::{Body, BodyError};
use crate::exchange::{Exchange, dialect_of, name_request, request_id};
use crate::fate::{Fate, outlive};
use crate::fault::{Blame, Fault};
use crate::names;
use crate::phase::read;
use crate::road::{self, about};
use crate::rules::Rules;
use crate::stall::pulled;
use crate::state::State;

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    /// To a model; the body says which.
    Model(Operation),
    /// To a model named in the path, as Gemini's clients do; whether they want a stream.
    Named(Operation, String, bool),
    /// The list of models, or one of them.
    Models(Option<String>),
    /// Files and batches: passed to a provider with the rest of the path.
    Passed(Operation, String),
    /// What the caller has spent and may still spend.
    Usage,
    /// The gateway's greeting.
    Root,
    /// Nowhere.
    Nowhere,
}

/// A stream of events as the elements of one array.
struct Elements {
    /// None once its end has been written.
    events: Option<Body>,
    array: Array,
}

impl HttpBody for Elements {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        loop {
            let Some(events) = &mut this.events else { return Poll::Ready(None) };
            let out = match ready!(Pin::new(events).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.array.push(&data),
                    Err(_) => continue,
                },
                Some(Err(e)) => return Poll::Ready(Some(Err(e))),
                None => {
                    this.events = None;
                    this.array.end()
                }
            };
            match out {
                Ok(out) if out.is_empty() => {}
                out => return Poll::Ready(Some(out.map(|out| Frame::data(out.into())).map_err(Into::into))),
            }
        }
    }
}

/// Serves one request of a client, which may take nothing of its answer for so long.
///
/// # Errors
/// Never: every fault is a response.
pub async fn serve(state: Arc<State>, mut request: Request<Incoming>, patience: Duration) -> Result<Response<Body>, Infallible> {
    let multiplexed = request.version() == Version::HTTP_2;
    if multiplexed {
        name_host(&mut request);
    }
    if let Some(refused) = too_long(&state, &request) {
        return Ok(refused);
    }
    let way = way(request.uri().path());
    let response = match way {
        Way::Model(operation) => model(state, request, operation, None).await,
        Way::Named(operation, name, stream) => {
            let events = asks_for_events(request.uri().query().unwrap_or_default());
            let limit = state.rules().map_or(0, |rules| rules.limits.answer);
            let response = model(state, request, operation, Some((name, stream))).await;
            if stream && !events { as_array(response, limit) } else { response }
        }
        Way::Models(name) => about::models(&state, &request, name.as_deref()).await,
        Way::Passed(operation, rest) => road::passed::serve(state, request, operation, &rest).await,
        Way::Usage => about::usage(&state, &request).await,
        Way::Root => about::root(&request),
        Way::Nowhere => {
            let message = format!("there is nothing at {} {}; this is an OpenAI-compatible gateway: try POST /v1/chat/completions or GET /v1/models", request.method(), shown(request.uri().path()));
            refuse(request.headers(), Dialect::Chat, &Fault::client(StatusCode::NOT_FOUND, ErrorKind::NotFound, message).code("unknown_path"))
        }
    };
    Ok(if multiplexed { response.map(|body| pulled(body, patience)) } else { response })
}

/// HTTP/2 has the host in the URL; whoever looks at a request finds it where HTTP/1 has it.
fn name_host(request: &mut Request<Incoming>) {
    if let Some(host) = request.uri().authority().and_then(|authority| HeaderValue::try_from(authority.as_str()).ok()) {
        request.headers_mut().insert(header::HOST, host);
    }
}

/// Refuses a head that is larger than the limit.
fn too_long(state: &State, request: &Request<Incoming>) -> Option<Response<Body>> {
    let limit = state.rules()?.limits.head;
    let size = request.uri().path_and_query().map_or(0, |p| p.as_str().len()) + request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>();
    if size <= limit {
        return None;
    }
    let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    let fault = Fault::client(status, ErrorKind::InvalidRequest, format!("the head of the request has {size} bytes, and {limit} is the limit here (`limits.headers`)")).code("headers_too_large");
    Some(refuse(&http::HeaderMap::new(), Dialect::Chat, &fault))
}

/// A path as it may be repeated to a client.
fn shown(path: &str) -> String {
    path.chars().take(200).collect()
}

/// What a path asks of a model, if it does: the operation and, where the path has them, the model and whether a stream is wanted.
pub(crate) fn operation_at(path: &str) -> Option<(Operation, Option<(String, bool)>)> {
    match way(path) {
        Way::Model(operation) => Some((operation, None)),
        Way::Named(operation, model, stream) => Some((operation, Some((model, stream)))),
        _ => None,
    }
}

fn way(path: &str) -> Way {
    let model = |operation| Way::Model(operation);
    match path {
        "/v1/chat/completions" | "/chat/completions" => model(Operation::Chat(Dialect::Chat)),
        "/v1/messages" => model(Operation::Chat(Dialect::Messages)),
        "/v1/responses" | "/responses" => model(Operation::Chat(Dialect::Responses)),
        "/v1/embeddings" | "/embeddings" => model(Operation::Embeddings),
        "/v1/completions" | "/completions" => model(Operation::Chat(Dialect::Completions)),
        "/v1/messages/count_tokens" => model(Operation::CountMessages),
        "/v1/rerank" | "/v2/rerank" | "/rerank" => model(Operation::Rerank),
        "/v1/moderations" => model(Operation::Moderations),
        "/v1/images/generations" => model(Operation::ImageGenerations),
        "/v1/images/edits" => model(Operation::ImageEdits),
        "/v1/audio/speech" => model(Operation::Speech),
        "/v1/audio/transcriptions" => model(Operation::Transcriptions),
        "/v1/audio/translations" => model(Operation::Translations),
        "/v1/models" | "/models" => Way::Models(None),
        "/v1/usage" => Way::Usage,
        "/" => Way::Root,
        _ => rarer(path),
    }
}

fn rarer(path: &str) -> Way {
    let Some(rest) = path.strip_prefix("/v1/").or_else(|| path.strip_prefix("/v1beta/")) else { return Way::Nowhere };
    if let Some(name) = rest.strip_prefix("models/") {
        let name = urlencoding::decode(name).map_or_else(|_| name.to_owned(), std::borrow::Cow::into_owned);
        return match name.rsplit_once(':') {
            Some((model, "generateContent")) => Way::Named(Operation::Chat(Dialect::Generate), model.to_owned(), false),
            Some((model, "streamGenerateContent")) => Way::Named(Operation::Chat(Dialect::Generate), model.to_owned(), true),
            Some((model, "countTokens")) => Way::Named(Operation::CountGenerate, model.to_owned(), false),
            Some((model, "embedContent")) => Way::Named(Operation::EmbedContent, model.to_owned(), false),
            Some((model, "batchEmbedContents")) => Way::Named(Operation::BatchEmbedContents, model.to_owned(), false),
            _ => Way::Models(Some(name)),
        };
    }
    for (prefix, operation) in [("files", Operation::Files), ("batches", Operation::Batches)] {
        match rest.strip_prefix(prefix) {
            Some("") => return Way::Passed(operation, String::new()),
            Some(more) if more.starts_with('/') => return Way::Passed(operation, more.to_owned()),
            _ => {}
        }
    }
    Way::Nowhere
}

/// Whether a query of Google's asks for server-sent events: without, a stream is one JSON array.
fn asks_for_events(query: &str) -> bool {
    query.split('&').any(|pair| matches!(pair, "alt=sse" | "$alt=sse" | "%24alt=sse"))
}

/// A streamed answer, or the error in its place, as Google gives it where no events are asked for.
fn as_array(response: Response<Body>, limit: usize) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    let streams = head.headers.get(header::CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"text/event-stream"));
    let body = match body {
        Body::Whole(Some(error)) if !head.status.is_success() => Body::whole([b"[", &*error, b"]"].concat()),
        events if streams => {
            head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=UTF-8"));
            Body::Stream(Box::pin(Elements { events: Some(events), array: Array::new(limit) }))
        }
        other => other,
    };
    Response::from_parts(head, body)
}

/// A request for a model: read, answered, and written down.
async fn model(state: Arc<State>, request: Request<Incoming>, operation: Operation, named: Option<(String, bool)>) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    let rules = match admit(&state) {
        Ok(rules) => rules,
        Err(fault) => return refuse(&parts.headers, dialect_of(operation), &fault),
    };
    let mut x = Exchange::new(state, rules, parts.method, parts.headers, operation);
    x.peer = parts.extensions.remove();
    if let Some((name, stream)) = named {
        x.model = name;
        x.stream = stream;
    }
    if !x.rules.drains {
        return answer(x, body).await;
    }
    // Some answers go on without their clients, and which ones is not known yet.
    let (fate, headers) = (Arc::<Fate>::default(), x.headers.clone());
    x.fate = Some(fate.clone());
    outlive(fate, answer(x, body)).await.unwrap_or_else(|e| refuse(&headers, dialect_of(operation), &Fault::gateway("the request's work ended early").detail(e)))
}

/// What the client is answered, be it a fault.
async fn answer(mut x: Exchange, body: Incoming) -> Response<Body> {
    let result = if read::is_form(x.operation) { road::multipart::answer(&mut x, body).await } else { road::models::answer(&mut x, body).await };
    result.unwrap_or_else(|fault| failed(x, &fault))
}

/// The rules in force, unless the process is going down.
///
/// # Errors
/// 503 while it drains.
pub fn admit(state: &State) -> Result<Arc<Rules>, Fault> {
    let going = || Fault::client(StatusCode::SERVICE_UNAVAILABLE, ErrorKind::Overloaded, "this gateway is shutting down; try another replica").code("draining").retry_after(Duration::from_secs(1));
    if state.is_draining() {
        return Err(going());
    }
    state.rules().ok_or_else(going)
}

/// Writes a fault down and tells it.
pub fn failed(mut x: Exchange, fault: &Fault) -> Response<Body> {
    let dialect = x.dialect();
    let mut response = refuse(&x.headers, dialect, fault);
    name_request(response.headers_mut(), dialect, &x.id);
    response.headers_mut().extend(std::mem::take(&mut x.limit_headers));
    if let Some(value) = x.estimate.and_then(|cost| HeaderValue::try_from(Nanodollars(cost).to_string()).ok()) {
        response.headers_mut().insert(&names::COST_ESTIMATE, value);
    }
    if let Some(record) = &mut x.record {
        record.ended = true;
        record.entry.status = fault.told.status;
        record.entry.stream = x.asked.stream;
        let (error, detail) = fault.written(x.rules.log_content);
        if fault.blame != Blame::Client && !fault.known {
            tracing::warn!(request_id = x.id, status = fault.told.status, error, detail, "a request failed");
        }
        record.entry.error = Some(error);
        record.entry.detail = detail;
    }
    response
}

/// A fault as a response.
#[must_use]
pub fn refuse(headers: &http::HeaderMap, dialect: Dialect, fault: &Fault) -> Response<Body> {
    let mut response = Response::new(Body::whole(fault.body(dialect)));
    *response.status_mut() = fault.status();
    let out = response.headers_mut();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    name_request(out, dialect, &request_id(headers));
    fault.write_headers(out);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_where_clients_mean() {
        assert_eq!(way("/v1/chat/completions"), Way::Model(Operation::Chat(Dialect::Chat)));
        assert_eq!(way("/v1beta/models/gemini-2.5-pro:streamGenerateContent"), Way::Named(Operation::Chat(Dialect::Generate), "gemini-2.5-pro".into(), true));
        assert_eq!(way("/v1/models/openai%2Fgpt-4o"), Way::Models(Some("openai/gpt-4o".into())));
        assert_eq!(way("/v1/models/ft:gpt-4o:acme"), Way::Models(Some("ft:gpt-4o:acme".into())));
        assert_eq!(way("/v1/files/file-1/content"), Way::Passed(Operation::Files, "/file-1/content".into()));
        assert_eq!(way("/v1/filesystem"), Way::Nowhere);
        assert_eq!(way("/v2/chat"), Way::Nowhere);
    }

    #[test]
    fn google_s_query_says_whether_a_stream_is_events() {
        assert!(asks_for_events("key=x&alt=sse") && asks_for_events("%24alt=sse"));
        assert!(!asks_for_events("") && !asks_for_events("alt=json") && !asks_for_events("balt=sse"));
    }
}
