//! Who is asking. Stands first: before any work is done for a stranger.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use providers::ErrorKind;

use crate::exchange::Exchange;
use crate::fault::Fault;
use crate::principal::{Principal, Stranger};
use crate::rules::{ModelRule, Rules};

/// Finds out who is asking, and writes it down.
///
/// # Errors
/// 401 for a stranger.
pub fn check(x: &mut Exchange) -> Result<(), Fault> {
    let principal = find(&x.rules, &x.headers, x.state.now())?;
    if let Some(entry) = x.entry() {
        entry.consumer = Some(principal.name.clone());
        entry.groups = (!principal.groups.is_empty()).then(|| principal.groups.clone());
    }
    x.principal = Some(principal);
    Ok(())
}

/// Who shows these headers.
///
/// # Errors
/// 401 for a stranger: the same words for an unknown key and for one that has ended.
pub fn find(rules: &Rules, headers: &HeaderMap, now: Duration) -> Result<Arc<Principal>, Fault> {
    rules.principals.find(headers, now).map_err(|stranger| {
        let message = match stranger {
            Stranger::NoKey => "an API key is needed: send it as `Authorization: Bearer KEY` or `x-api-key: KEY`",
            Stranger::Unknown | Stranger::Expired => "the API key is not known here, or it has ended",
        };
        let mut fault = Fault::client(StatusCode::UNAUTHORIZED, ErrorKind::Authentication, message);
        fault.detail = Some(format!("{stranger:?}"));
        fault
    })
}

/// Whether who is asking may use the model.
///
/// # Errors
/// 403 if not.
pub fn may_use(x: &Exchange, model: &ModelRule) -> Result<(), Fault> {
    let Some(principal) = &x.principal else { return Err(Fault::gateway("nobody is asking")) };
    if principal.may_use(&x.model) && model.access.admits(principal) {
        return Ok(());
    }
    let message = format!("{} may not use the model `{}`; `GET /v1/models` lists those that it may", principal.name, x.model.chars().take(128).collect::<String>());
    Err(Fault::client(StatusCode::FORBIDDEN, ErrorKind::Permission, message).code("model_not_allowed").param("model"))
}
