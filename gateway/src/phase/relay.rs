//! Hands the answer to the client as it comes: a pull, so that backpressure and cancellation come for free. The record
//! rides along and is written when the body is dropped, however that happens.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use http_body::{Body as HttpBody, Frame};
use providers::prices::Model;
use providers::usage::Usage;
use tokio::time::Sleep;

use crate::body::{Body, BodyError};
use crate::exchange::{Exchange, name_request};
use crate::fault::Fault;
use crate::ledger::Record;
use crate::names;
use crate::phase::call::{Kind, Reply, chain};
use crate::rules::{ModelRule, Rules};
use crate::stream::{Flow, Seen};
use crate::target::InFlight;
use crate::upstream::Answer;

/// Makes the response out of what a target answered.
#[must_use]
pub fn response(x: &mut Exchange, model: &ModelRule, reply: Reply) -> Response<Body> {
    let Some(mut record) = x.record.take() else { return Response::new(Body::Whole(None)) };
    record.entry.status = 200;
    record.entry.stream = x.stream;
    let mut headers = reply.headers;
    describe(&mut headers, &record, x);
    let mut bill = Bill { rules: x.rules.clone(), price: x.price.take(), prompt_bytes: x.envelope.body().len() as u64 };
    if bill.rules.log_content {
        record.entry.request = Some(String::from_utf8_lossy(x.envelope.body()).into_owned());
    }
    let whole = matches!(reply.kind, Kind::Whole(..));
    if whole {
        bill.settle(&mut record, &reply.seen, reply.flight.as_ref());
        if let Some(cost) = record.entry.cost
            && let Ok(value) = HeaderValue::try_from(cost.to_string())
        {
            headers.insert(names::COST.clone(), value);
        }
        record.ended = true;
    }
    timing(&mut headers, record.started.elapsed(), reply.upstream);
    let body = match reply.kind {
        Kind::Whole(bytes, content_type) => {
            headers.insert(header::CONTENT_TYPE, content_type);
            if bill.rules.log_content {
                record.entry.answer = Some(String::from_utf8_lossy(&bytes).into_owned());
            }
            Body::whole(bytes)
        }
        Kind::Said(pieces) => {
            stream_headers(&mut headers);
            record.first_token();
            bill.settle(&mut record, &reply.seen, reply.flight.as_ref());
            if bill.rules.log_content {
                record.entry.answer = Some(String::from_utf8_lossy(&pieces.concat()).into_owned());
            }
            Body::Stream(Box::pin(Said { pieces: pieces.into_iter(), record }))
        }
        Kind::Raw(body, content_type) => {
            if let Some(content_type) = content_type {
                headers.insert(header::CONTENT_TYPE, content_type);
            }
            bill.settle(&mut record, &reply.seen, reply.flight.as_ref());
            Body::Stream(Box::pin(Raw { body, record, _flight: reply.flight }))
        }
        Kind::Stream(flow, first, body) => {
            stream_headers(&mut headers);
            record.first_token();
            Body::Stream(Box::pin(Relay {
                flow: *flow,
                next: Some(first).filter(|f| !f.is_empty()),
                upstream: Some(body),
                clock: Clock::new(model.timeout.idle, record.started + model.timeout.total),
                heard: bill.rules.log_content.then(Vec::new),
                record,
                bill,
                flight: reply.flight,
            }))
        }
    };
    let mut response = Response::new(body);
    *response.headers_mut() = headers;
    response
}

/// A body that passes unread; the record rides along.
#[must_use]
pub fn raw(x: &mut Exchange, body: Answer) -> Body {
    match x.record.take() {
        Some(record) => Body::Stream(Box::pin(Raw { body, record, _flight: None })),
        None => Body::Whole(None),
    }
}

/// Who answered, and what the client should know.
fn describe(headers: &mut HeaderMap, record: &Record, x: &Exchange) {
    headers.reserve(8);
    for (name, value) in &x.limit_headers {
        headers.insert(name, value.clone());
    }
    let mut set = |name: &HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    if let Some(provider) = &record.entry.provider {
        set(&names::PROVIDER, provider);
    }
    if let Some(model) = &record.entry.model_used {
        set(&names::MODEL, model);
    }
    if let Some(estimate) = x.estimate {
        set(&names::COST_ESTIMATE, &providers::prices::Nanodollars(estimate).to_string());
    }
    if !x.warnings.is_empty() {
        // Names of parameters are the client's own words: what is not fit for a header is left out of it.
        let text: String = x.warnings.join("; ").chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(1000).collect();
        set(&names::WARNING, &text);
    }
    name_request(headers, x.dialect(), &x.id);
}

fn stream_headers(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(names::ACCEL_BUFFERING.clone(), HeaderValue::from_static("no"));
}

/// The stages, for whoever looks at a response in a browser: ours, and the wait for upstreams.
fn timing(headers: &mut HeaderMap, total: Duration, upstream: Duration) {
    let mut text = String::with_capacity(48);
    text.push_str("gateway;dur=");
    push_millis(&mut text, total.saturating_sub(upstream));
    text.push_str(", upstream;dur=");
    push_millis(&mut text, upstream);
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(names::SERVER_TIMING.clone(), value);
    }
}

/// A duration in milliseconds with three decimals.
fn push_millis(out: &mut String, d: Duration) {
    let micros = u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
    out.push_str(itoa::Buffer::new().format(micros / 1000));
    out.push('.');
    let rest = micros % 1000;
    out.extend([rest / 100, rest / 10 % 10, rest % 10].map(|digit| char::from(b'0' + digit as u8)));
}

/// What is needed to settle a request once its usage is known.
struct Bill {
    rules: Arc<Rules>,
    price: Option<Arc<Model>>,
    prompt_bytes: u64,
}

impl Bill {
    /// Writes usage, cost and finish into the record, and lets the routing know what the target has used.
    fn settle(&mut self, record: &mut Record, seen: &Seen, flight: Option<&InFlight>) {
        let entry = &mut record.entry;
        entry.finish = seen.finish;
        let usage = match seen.usage {
            Some(usage) => Some(usage),
            // A chat that was answered used something, even if nobody says how much: about four bytes a token.
            None if matches!(entry.operation, "chat" | "text_completion" | "generate_content") => {
                Some(Usage { input: self.prompt_bytes.div_ceil(4), output: seen.text.div_ceil(4), estimated: true, ..Usage::default() })
            }
            None => None,
        };
        entry.usage = usage;
        if let (Some(usage), Some(flight)) = (usage, flight) {
            flight.used(usage.total());
        }
        entry.cost = usage.zip(self.price.as_ref()).map(|(usage, price)| price.cost(&usage, false));
    }
}

/// Two clocks in one timer: the time between two pieces, and the time for all. The idle clock is only looked at when the
/// timer fires, so that a piece costs no timer.
struct Clock {
    idle: Duration,
    end: Instant,
    last: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Clock {
    fn new(idle: Duration, end: Instant) -> Self {
        let now = Instant::now();
        Clock { idle, end, last: now, timer: Box::pin(tokio::time::sleep_until((now + idle).min(end).into())) }
    }

    /// Whether one of the two times is up.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<&'static str> {
        loop {
            ready!(self.timer.as_mut().poll_elapsed(cx));
            let now = Instant::now();
            if now >= self.end {
                return Poll::Ready("the answer was not complete in time");
            }
            if now >= self.last + self.idle {
                return Poll::Ready("the stream stood still for too long");
            }
            let next = (self.last + self.idle).min(self.end);
            self.timer.as_mut().reset(next.into());
        }
    }
}

/// Polls a timer without its output.
trait Elapsed {
    fn poll_elapsed(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()>;
}

impl Elapsed for Sleep {
    fn poll_elapsed(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        std::future::Future::poll(self, cx)
    }
}

/// A stream on its way to the client.
struct Relay {
    flow: Flow,
    next: Option<Bytes>,
    upstream: Option<Answer>,
    clock: Clock,
    /// What the client has been given, where that may be written down.
    heard: Option<Vec<u8>>,
    record: Record,
    bill: Bill,
    flight: Option<InFlight>,
}

impl Relay {
    /// Keeps what the client is given, within the bounds of an answer that is held in memory.
    fn hear(&mut self, piece: &[u8]) {
        if let Some(heard) = &mut self.heard {
            let room = self.bill.rules.limits.answer.saturating_sub(heard.len());
            heard.extend_from_slice(&piece[..piece.len().min(room)]);
        }
    }

    /// Ends the stream with an error event: never with what looks like a clean end.
    fn fail(&mut self, fault: impl Into<Fault>) -> Bytes {
        let mut fault = fault.into();
        if let Some(provider) = self.record.entry.provider.as_ref().and_then(|name| self.bill.rules.providers.get(&**name)) {
            fault.hide(&provider.shown);
        }
        self.upstream = None;
        self.record.ended = true;
        let (error, detail) = fault.written(self.bill.rules.log_content);
        self.record.entry.error = Some(error);
        self.record.entry.detail = detail;
        self.flow.fail(&fault.told)
    }
}

impl HttpBody for Relay {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(first) = this.next.take() {
            this.hear(&first);
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        loop {
            let Some(upstream) = &mut this.upstream else { return Poll::Ready(None) };
            let out = match Pin::new(upstream).poll_frame(cx) {
                Poll::Pending => match this.clock.poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(why) => {
                        this.fail(Fault::upstream(http::StatusCode::GATEWAY_TIMEOUT, providers::ErrorKind::Timeout, format!("the provider took too long: {why}")).code("upstream_timeout"))
                    }
                },
                Poll::Ready(Some(Ok(frame))) => {
                    this.clock.last = Instant::now();
                    let Ok(data) = frame.into_data() else { continue };
                    match this.flow.push(data) {
                        Ok(out) => out,
                        Err(e) => this.fail(e),
                    }
                }
                Poll::Ready(Some(Err(e))) => {
                    let detail = chain(&e);
                    this.fail(Fault::from(providers::broken_off()).detail(detail))
                }
                Poll::Ready(None) => match this.flow.end() {
                    Ok(out) => {
                        this.upstream = None;
                        this.record.ended = true;
                        out
                    }
                    Err(e) => this.fail(e),
                },
            };
            if !out.is_empty() {
                this.hear(&out);
                return Poll::Ready(Some(Ok(Frame::data(out))));
            }
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let seen = self.flow.seen;
        // A client that closes right after the last event has not left early.
        self.record.ended |= seen.done;
        self.record.entry.answer = self.heard.take().map(|heard| String::from_utf8_lossy(&heard).into_owned());
        self.bill.settle(&mut self.record, &seen, self.flight.as_ref());
    }
}

/// A stream that is complete already.
struct Said {
    pieces: std::vec::IntoIter<Bytes>,
    record: Record,
}

impl HttpBody for Said {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let piece = self.pieces.next();
        if self.pieces.len() == 0 {
            self.record.ended = true;
        }
        Poll::Ready(piece.map(|p| Ok(Frame::data(p))))
    }
}

/// Bytes that pass unread.
struct Raw {
    body: Answer,
    record: Record,
    _flight: Option<InFlight>,
}

impl HttpBody for Raw {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            None => self.record.ended = true,
            Some(Err(e)) => {
                self.record.ended = true;
                self.record.entry.error = Some(chain(e));
            }
            Some(Ok(_)) => {}
        }
        Poll::Ready(frame.map(|f| f.map_err(Into::into)))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
