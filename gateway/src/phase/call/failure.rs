//! Why a try failed, and whether another one is worth it.

use http::StatusCode;
use providers::usage::Usage;
use providers::{Error, ErrorKind};

use crate::fault::{Blame, Fault};
use crate::rules::ModelRule;

/// The outcome of a try that was none: the target cannot do what is asked, or the request is wrong, and nothing was sent.
pub(super) const UNSUPPORTED: &str = "unsupported";

/// Why a try failed.
pub(crate) struct Failure {
    pub(crate) fault: Fault,
    pub(super) outcome: &'static str,
    pub(super) status: Option<u16>,
    pub(crate) again: Again,
    /// What the provider told that it had used until then: it is owed, whoever answers in the end.
    pub(super) used: Option<Box<Usage>>,
}

/// Whether another try is worth it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// It would fail everywhere.
    No,
    /// Only elsewhere.
    Elsewhere,
    /// Here too, a little later.
    Anywhere,
}

impl Failure {
    pub(super) fn new(fault: impl Into<Fault>, outcome: &'static str, again: Again) -> Self {
        Failure { fault: fault.into(), outcome, status: None, again, used: None }
    }

    /// The same, after an answer with this status.
    pub(super) fn with_status(fault: impl Into<Fault>, outcome: &'static str, status: u16, again: Again) -> Self {
        Failure { status: Some(status), ..Failure::new(fault, outcome, again) }
    }
}

impl From<Error> for Failure {
    /// An error of a translation, before anything was sent.
    fn from(e: Error) -> Self {
        let again = if matches!(e, Error::Unsupported { .. }) { Again::Elsewhere } else { Again::No };
        Failure::new(e, UNSUPPORTED, again)
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Failure::new(fault, UNSUPPORTED, Again::No)
    }
}

/// The time for it was up.
pub(super) fn timed_out(what: &str, model: &ModelRule) -> Failure {
    let fault = Fault::upstream(StatusCode::GATEWAY_TIMEOUT, ErrorKind::Timeout, format!("the provider took too long: {what}")).code("upstream_timeout");
    Failure::new(fault, "timeout", if model.retry.timeout { Again::Anywhere } else { Again::No })
}

/// An answer that cannot be read, or says an error although its status was good.
pub(super) fn broken(e: Error, model: &ModelRule) -> Failure {
    let fault = Fault::from(e);
    let again = match fault.blame {
        Blame::Client => Again::No,
        _ if model.retry.server || model.retry.wants(fault.told.status) => Again::Anywhere,
        _ => Again::No,
    };
    let status = fault.told.status;
    Failure::with_status(fault, "stream", status, again)
}

/// A failed connection is tried again only where the configuration says so.
pub(super) fn retry_connect(mut failure: Failure, model: &ModelRule) -> Failure {
    if failure.outcome == "connect" && !model.retry.connect {
        failure.again = Again::No;
    }
    failure
}
