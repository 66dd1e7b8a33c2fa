//! How long an answer may take on its way to the client.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::StatusCode;
use providers::ErrorKind;
use tokio::time::Sleep;

use crate::fault::Fault;

/// The fault of a time that is up because the provider was silent.
pub(super) fn silent(why: &str) -> Fault {
    Fault::upstream(StatusCode::GATEWAY_TIMEOUT, ErrorKind::Timeout, format!("the provider took too long: {why}")).code("upstream_timeout")
}

/// The fault of the time for all that is up while there is more to read: it is the client that takes its time, and it has no more
/// than another.
pub(super) fn slow() -> Fault {
    Fault::client(StatusCode::REQUEST_TIMEOUT, ErrorKind::Timeout, "the answer was not taken in time")
}

/// Two clocks in one timer: the time between two pieces, and the time for all. The idle clock is only looked at when the
/// timer fires, so that a piece costs no timer.
pub(super) struct Clock {
    idle: Duration,
    /// When the time for all is up.
    pub(super) end: Instant,
    /// When the last piece came.
    pub(super) last: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Clock {
    /// Clocks that begin now; the second one ends then.
    pub(super) fn new(idle: Duration, end: Instant) -> Self {
        let now = Instant::now();
        Clock { idle, end, last: now, timer: Box::pin(tokio::time::sleep_until((now + idle).min(end).into())) }
    }

    /// Whether one of the two times is up.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<&'static str> {
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
