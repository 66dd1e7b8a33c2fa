//! The models road: a request in one of the doors' dialects, a provider behind, nothing lost between.

use http::{Response, StatusCode};
use hyper::body::Incoming;
use providers::{ErrorKind, Operation};

use crate::body::Body;
use crate::config::ModelKind;
use crate::exchange::Exchange;
use crate::fault::{Fault, model_not_found};
use crate::phase::{admit, call, identity, prompt, read, relay, route};
use crate::rules::ModelRule;

/// Answers a request for a model. The order is the contract; each line says why it stands here.
///
/// # Errors
/// What the client is told, in terms of no dialect in particular.
pub async fn answer(x: &mut Exchange, body: Incoming) -> Result<Response<Body>, Fault> {
    identity::check(x).await?; // before any work is done for a stranger
    read::head(x)?;
    x.read(read::body(body, &x.rules.limits).await?)?; // strictly: what follows must all read the same
    let rules = x.rules.clone();
    let (model, rest) = find(x, &rules)?;
    identity::may_use(x, model)?;
    admit::reserve(x, model, &rest).await?; // before anything costs; settled when the record is dropped
    prompt::apply(x, model)?; // templates and decorations are the operator's words
    let plan = route::plan(x, model); // after everything that may change the request
    let reply = call::first_event(x, model, &rest, &plan).await?; // fallback ends here: nothing has been sent yet
    Ok(relay::response(x, model, reply)) // lazy: runs as the client reads
}

/// The model asked for, if it is here and does what is asked.
fn find<'r>(x: &mut Exchange, rules: &'r crate::rules::Rules) -> Result<(&'r ModelRule, String), Fault> {
    if x.model.is_empty() {
        return Err(Fault::client(StatusCode::BAD_REQUEST, ErrorKind::InvalidRequest, "`model` is missing; `GET /v1/models` lists the models here").param("model").code("missing_model"));
    }
    let asked = x.model.clone();
    if let Some(entry) = x.entry() {
        entry.model.clone_from(&asked);
    }
    let Some((model, rest)) = rules.model(&asked) else { return Err(model_not_found(&asked, &rules.names())) };
    if let Some(entry) = x.entry() {
        entry.route.clone_from(&model.name);
    }
    let fits = match model.kind {
        ModelKind::Any => true,
        ModelKind::Chat => matches!(x.operation, Operation::Chat(_) | Operation::CountMessages | Operation::CountGenerate),
        ModelKind::Embedding => matches!(x.operation, Operation::Embeddings | Operation::EmbedContent | Operation::BatchEmbedContents),
        ModelKind::Rerank => x.operation == Operation::Rerank,
    };
    if !fits {
        return Err(Fault::client(StatusCode::BAD_REQUEST, ErrorKind::InvalidRequest, format!("the model `{asked}` is not for {}", x.operation.name())).param("model").code("wrong_model_kind"));
    }
    if !rest.is_empty() {
        // What a `*` takes in may travel in an upstream's path or log.
        providers::path_segment(rest)?;
    }
    Ok((model, rest.to_owned()))
}
