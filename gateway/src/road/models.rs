//! The models road: a request in one of the doors' dialects, a provider behind, nothing lost between.

use http::Response;
use hyper::body::Incoming;

use crate::body::Body;
use crate::exchange::Exchange;
use crate::fault::Fault;
use crate::phase::{admit, call, identity, prompt, read, relay, route};
use crate::road::find;

/// Answers a request for a model. The order is the contract; each line says why it stands here.
///
/// # Errors
/// What the client is told, in terms of no dialect in particular.
pub async fn answer(x: &mut Exchange, body: Incoming) -> Result<Response<Body>, Fault> {
    identity::check(x).await?; // before any work is done for a stranger
    read::head(x)?;
    x.asked.read(read::body(body, &x.rules.limits).await?)?; // strictly: what follows must all read the same
    let rules = x.rules.clone();
    let (model, rest) = find(x, &rules)?;
    identity::may_use(x, model)?;
    prompt::apply(x, model)?; // the operator's words and defaults: they are paid for too
    admit::reserve(x, model, &rest).await?; // before anything costs; settled when the record is dropped
    let plan = route::plan(x, model, &rest); // after everything that may change the request
    let reply = call::first_event(x, model, &rest, &plan).await?; // fallback ends here: nothing has been sent yet
    Ok(relay::response(x, model, reply)) // lazy: runs as the client reads
}
