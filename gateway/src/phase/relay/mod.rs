//! Hands the answer to the client as it comes: a pull, so that backpressure and cancellation come for free. The record
//! rides along and is written when the body is dropped, however that happens.

mod bill;
mod clock;
mod ending;
mod raw;
mod stream;

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use http_body::{Body as HttpBody, Frame};
use providers::Operation;
use providers::openai::media::Along;

use crate::body::{Body, BodyError};
use crate::exchange::{Exchange, name_request};
use crate::guess::Guess;
use crate::ledger::Record;
use crate::names;
use crate::phase::call::{Kind, Reply};
use crate::rules::ModelRule;
use crate::target::InFlight;
use crate::upstream::Answer;
use crate::weight::DENSITY;
use bill::Bill;
use raw::{Raw, Tapped};
use stream::Relay;

/// Makes the response out of what a target answered.
#[must_use]
pub fn response(x: &mut Exchange, model: &ModelRule, mut reply: Reply) -> Response<Body> {
    let Some(mut record) = x.record.take() else { return Response::new(Body::Whole(None)) };
    record.entry.status = 200;
    record.entry.stream = x.stream;
    let mut headers = reply.headers;
    describe(&mut headers, &record, x);
    let mut bill = Bill { rules: x.rules.clone(), price: x.price.take(), rate: std::mem::take(&mut x.rate), weight: x.weight, answer: x.about.completion };
    if bill.rules.log_content {
        record.entry.request = Some(String::from_utf8_lossy(x.envelope.body()).into_owned());
    }
    if let Kind::Whole(bytes, _) = &reply.kind {
        bill.rate.hear(bytes);
        if x.operation == Operation::ImageGenerations {
            let mut along = Along::new(x.operation, "application/json");
            along.push(bytes);
            reply.seen.usage = Guess::of(x).usage(&along.told(), true, reply.flight.as_ref().map_or(DENSITY, InFlight::density));
        }
        bill.settle(&mut record, &reply.seen, reply.flight.as_ref());
        if let Some(cost) = record.entry.cost
            && let Ok(value) = HeaderValue::try_from(cost.to_string())
        {
            headers.insert(names::COST.clone(), value);
        }
        record.ended = true;
        let left = x.fate.as_ref().is_some_and(|fate| fate.has_left());
        (record.entry.client_left, record.entry.drained) = (left, left);
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
            let along = Along::new(x.operation, content_type.as_ref().and_then(|kind| kind.to_str().ok()).unwrap_or_default());
            if let Some(content_type) = content_type {
                headers.insert(header::CONTENT_TYPE, content_type);
            }
            Body::Stream(Box::pin(Raw::answer(body, model, record, Tapped { along, guess: Guess::of(x), bill }, reply.flight)))
        }
        Kind::Stream(flow, first, body) => {
            stream_headers(&mut headers);
            record.first_token();
            Body::Stream(Box::pin(Relay::new(*flow, first, body, model, record, bill, reply.flight)))
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
        Some(record) => Body::Stream(Box::pin(Raw::file(body, record))),
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
