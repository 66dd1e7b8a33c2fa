//! A stream between the upstream and the client: a pull, with two clocks and an end that is never feigned.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};

use super::bill::Bill;
use super::clock::{Clock, silent, slow};
use super::ending::{Unheard, failed, read_on};
use crate::body::BodyError;
use crate::fault::Fault;
use crate::ledger::Record;
use crate::phase::call::chain;
use crate::rules::ModelRule;
use crate::stream::Flow;
use crate::target::InFlight;
use crate::upstream::Answer;

/// A stream on its way to the client. Dropped before its end, the client has left: then the upstream is cut off, or read on to
/// its end by a task of its own.
pub(super) struct Relay(Option<Running>);

/// The stream itself. Dropping it settles the request.
struct Running {
    flow: Flow,
    next: Option<Bytes>,
    upstream: Option<Answer>,
    clock: Clock,
    /// What the client has been given, where that may be written down.
    heard: Option<Vec<u8>>,
    record: Record,
    bill: Bill,
    flight: Option<InFlight>,
    /// Whether it goes on when the client leaves.
    drains: bool,
}

impl Relay {
    /// A stream of which the first piece is in hand.
    pub(super) fn new(flow: Flow, first: Bytes, upstream: Answer, model: &ModelRule, record: Record, bill: Bill, flight: Option<InFlight>) -> Self {
        Relay(Some(Running {
            flow,
            next: Some(first).filter(|f| !f.is_empty()),
            upstream: Some(upstream),
            clock: Clock::new(model.timeout.idle, record.started + model.timeout.total),
            heard: bill.rules.log_content.then(Vec::new),
            record,
            bill,
            flight,
            drains: model.drains,
        }))
    }
}

impl Running {
    /// Keeps what the client is given, within the bounds of an answer that is held in memory.
    fn hear(&mut self, piece: &[u8]) {
        self.bill.rate.hear(piece);
        if let Some(heard) = &mut self.heard {
            let room = self.bill.rules.limits.answer.saturating_sub(heard.len());
            heard.extend_from_slice(&piece[..piece.len().min(room)]);
        }
    }

    /// Ends the stream with an error event: never with what looks like a clean end.
    fn fail(&mut self, fault: impl Into<Fault>) -> Bytes {
        self.upstream = None;
        let fault = failed(&mut self.record, self.flight.as_mut(), Some(&self.bill.rules), fault.into());
        self.flow.fail(&fault.told)
    }

    /// The next piece for the client; `None` at the end.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let this = self;
        if let Some(first) = this.next.take() {
            this.hear(&first);
            return Poll::Ready(Some(first));
        }
        loop {
            let Some(upstream) = &mut this.upstream else { return Poll::Ready(None) };
            let out = match Pin::new(upstream).poll_frame(cx) {
                Poll::Pending => match this.clock.poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(why) => this.fail(silent(why)),
                },
                Poll::Ready(Some(Ok(frame))) => {
                    this.clock.last = Instant::now();
                    let Ok(data) = frame.into_data() else { continue };
                    match this.flow.push(data) {
                        Ok(_) if this.clock.last >= this.clock.end => this.fail(slow()),
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
                return Poll::Ready(Some(out));
            }
        }
    }
}

impl HttpBody for Relay {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            None => Poll::Ready(None),
            Some(running) => running.poll_piece(cx).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let Some(running) = self.0.take() else { return };
        if running.drains && running.upstream.is_some() && !running.flow.seen.done {
            read_on(running);
        }
    }
}

impl Unheard for Running {
    fn record(&mut self) -> &mut Record {
        &mut self.record
    }

    fn poll_on(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.poll_piece(cx).map(|piece| piece.is_some())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let seen = self.flow.seen;
        // A client that closes right after the last event has not left early.
        self.record.ended |= seen.done;
        self.record.entry.answer = self.heard.take().map(|heard| String::from_utf8_lossy(&heard).into_owned());
        self.bill.settle(&mut self.record, &seen, self.flight.as_ref());
    }
}
