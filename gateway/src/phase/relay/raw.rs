//! Bytes that pass as they came (pictures, sound, files): what they tell of their usage is read along, and they have the clocks
//! of every answer. After the first byte there is nothing to say to the client in: an answer that fails is cut off.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use providers::openai::media::Along;

use super::bill::Bill;
use super::clock::{Clock, silent, slow};
use super::ending::{Unheard, failed, read_on};
use crate::body::BodyError;
use crate::fault::Fault;
use crate::guess::Guess;
use crate::ledger::Record;
use crate::phase::call::chain;
use crate::rules::ModelRule;
use crate::stream::Seen;
use crate::target::InFlight;
use crate::upstream::Answer;
use crate::weight::DENSITY;

/// The times of what no model answers (files, batches): between two pieces, and for all, which is how long it is reserved for.
const OF_FILES: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));

/// A body on its way to the client. Dropped before its end, the client has left: then the upstream is cut off, or read on to
/// its end by a task of its own.
pub(super) struct Raw(Option<Running>);

/// What there is to be paid for in the bytes that pass.
pub(super) struct Tapped {
    pub(super) along: Along,
    pub(super) guess: Guess,
    pub(super) bill: Bill,
}

impl Tapped {
    /// Whether a stream has said all, though its connection is still open.
    fn is_done(&self) -> bool {
        self.along.is_done(self.guess.pictures)
    }
}

/// The body itself. Dropping it settles the request.
struct Running {
    /// The upstream; `None` once there is nothing more to come.
    body: Option<Answer>,
    clock: Clock,
    tapped: Option<Tapped>,
    record: Record,
    flight: Option<InFlight>,
    /// Whether it goes on when the client leaves.
    drains: bool,
}

impl Raw {
    /// A target's answer.
    pub(super) fn answer(body: Answer, model: &ModelRule, record: Record, tapped: Tapped, flight: Option<InFlight>) -> Self {
        let clock = Clock::new(model.timeout.idle, record.started + model.timeout.total);
        Raw::new(Running { body: Some(body), clock, tapped: Some(tapped), record, flight, drains: model.drains })
    }

    /// A file, or what there is to say of one: it is not paid for here.
    pub(super) fn file(body: Answer, record: Record) -> Self {
        let clock = Clock::new(OF_FILES.0, record.started + OF_FILES.1);
        Raw::new(Running { body: Some(body), clock, tapped: None, record, flight: None, drains: false })
    }

    fn new(mut running: Running) -> Self {
        running.note_end();
        Raw(Some(running))
    }
}

impl Running {
    /// Whoever reads the last byte asks for no more: the end is noted with it.
    fn note_end(&mut self) {
        if self.body.as_ref().is_some_and(HttpBody::is_end_stream) {
            self.body = None;
            self.record.ended = true;
        }
    }

    /// Ends the body in the middle, so that nobody takes it for whole.
    fn fail(&mut self, fault: Fault) -> BodyError {
        self.body = None;
        let rules = self.tapped.as_ref().map(|tapped| &*tapped.bill.rules);
        failed(&mut self.record, self.flight.as_mut(), rules, fault).told.message.into()
    }

    /// The next piece for the client; `None` at the end.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            let Some(body) = &mut self.body else { return Poll::Ready(None) };
            match Pin::new(body).poll_frame(cx) {
                Poll::Pending => {
                    let why = ready!(self.clock.poll(cx));
                    return Poll::Ready(Some(Err(self.fail(silent(why)))));
                }
                Poll::Ready(Some(Ok(frame))) => {
                    self.clock.last = Instant::now();
                    self.note_end();
                    let Ok(data) = frame.into_data() else { continue };
                    if let Some(tapped) = &mut self.tapped {
                        tapped.along.push(&data);
                    }
                    let late = self.body.is_some() && self.clock.last >= self.clock.end;
                    return Poll::Ready(Some(if late { Err(self.fail(slow())) } else { Ok(data) }));
                }
                Poll::Ready(Some(Err(e))) => {
                    let fault = Fault::from(providers::broken_off()).detail(chain(&e));
                    return Poll::Ready(Some(Err(self.fail(fault))));
                }
                Poll::Ready(None) => {
                    self.body = None;
                    self.record.ended = true;
                }
            }
        }
    }
}

impl HttpBody for Raw {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            None => Poll::Ready(None),
            Some(running) => running.poll_piece(cx).map(|piece| piece.map(|piece| piece.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|running| running.body.is_none())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().and_then(|running| running.body.as_ref()).map_or(SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let Some(running) = self.0.take() else { return };
        if running.drains && running.body.is_some() && !running.tapped.as_ref().is_some_and(Tapped::is_done) {
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
        let Some(tapped) = &mut self.tapped else { return };
        // A client that closes right after the last event has not left early.
        self.record.ended |= tapped.is_done();
        let whole = self.record.ended && self.record.entry.error.is_none();
        let density = self.flight.as_ref().map_or(DENSITY, InFlight::density);
        let usage = tapped.guess.usage(&tapped.along.told(), whole, density);
        let seen = Seen { content: true, done: true, usage, ..Seen::default() };
        tapped.bill.settle(&mut self.record, &seen, self.flight.as_ref());
    }
}
