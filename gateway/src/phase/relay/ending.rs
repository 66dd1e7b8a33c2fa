//! How an answer ends that does not come to its own end: it fails, or its client leaves.

use std::future::poll_fn;
use std::task::{Context, Poll};

use crate::fault::{Blame, Fault};
use crate::ledger::Record;
use crate::rules::Rules;
use crate::target::InFlight;

/// Writes down why an answer failed, and tells the routing unless it was the client's doing. Gives the fault as it may be told.
pub(super) fn failed(record: &mut Record, flight: Option<&mut InFlight>, rules: Option<&Rules>, mut fault: Fault) -> Fault {
    if let Some(provider) = record.entry.provider.as_ref().and_then(|name| rules?.providers.get(&**name)) {
        fault.hide(&provider.shown);
    }
    record.ended = true;
    if let Some(flight) = flight.filter(|_| fault.blame != Blame::Client) {
        flight.failed();
    }
    let (error, detail) = fault.written(rules.is_some_and(|rules| rules.log_content));
    record.entry.error = Some(error);
    record.entry.detail = detail;
    fault
}

/// An answer that can be read without its client. Dropping it settles the request.
pub(super) trait Unheard: Send + 'static {
    /// What is written down of it.
    fn record(&mut self) -> &mut Record;

    /// Reads its next piece; `false` at the end.
    fn poll_on(&mut self, cx: &mut Context<'_>) -> Poll<bool>;
}

/// Reads an answer on to its end after its client has left, in a task of its own.
pub(super) fn read_on(mut answer: impl Unheard) {
    // Outside of a runtime the process is ending, and nothing can be read on.
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    let entry = &mut answer.record().entry;
    (entry.client_left, entry.drained) = (true, true);
    runtime.spawn(async move { while poll_fn(|cx| answer.poll_on(cx)).await {} });
}
