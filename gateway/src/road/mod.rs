//! The roads: functions that one reads top to bottom. Each line is a checkpoint, and their order is the contract.

pub mod about;
pub mod models;
pub mod multipart;
pub mod passed;

use std::sync::Arc;

use http::StatusCode;
use providers::{ErrorKind, Operation};

use crate::config::ModelKind;
use crate::exchange::Exchange;
use crate::fault::{Fault, model_not_found};
use crate::principal::Principal;
use crate::rules::{ModelRule, Rules};

/// The model that is asked for and what its `*` stands for, found and written down.
fn find<'r>(x: &mut Exchange, rules: &'r Rules) -> Result<(&'r Arc<ModelRule>, String), Fault> {
    let asked = x.model.clone();
    if let Some(entry) = x.entry() {
        entry.model.clone_from(&asked);
    }
    let (model, rest) = look_up(rules, x.operation, &asked, x.principal.as_deref())?;
    if let Some(entry) = x.entry() {
        entry.route.clone_from(&model.name);
    }
    Ok((model, rest.to_owned()))
}

/// The model of a name, if it is here and does what is asked, and what its `*` stands for.
///
/// # Errors
/// 400 without a name or for a model of another kind, 404 if it is not here, with names that `who` may know.
pub fn look_up<'r, 'n>(rules: &'r Rules, operation: Operation, asked: &'n str, who: Option<&Principal>) -> Result<(&'r Arc<ModelRule>, &'n str), Fault> {
    let bad = |message: String, code: &str| Fault::client(StatusCode::BAD_REQUEST, ErrorKind::InvalidRequest, message).param("model").code(code);
    if asked.is_empty() {
        return Err(bad("`model` is missing; `GET /v1/models` lists the models here".into(), "missing_model"));
    }
    let Some((model, rest)) = rules.model(asked) else { return Err(model_not_found(asked, &visible(rules, who))) };
    let fits = match model.kind {
        ModelKind::Any => true,
        ModelKind::Chat => matches!(operation, Operation::Chat(_) | Operation::CountMessages | Operation::CountGenerate),
        ModelKind::Embedding => matches!(operation, Operation::Embeddings | Operation::EmbedContent | Operation::BatchEmbedContents),
        ModelKind::Rerank => operation == Operation::Rerank,
    };
    if !fits {
        return Err(bad(format!("the model `{asked}` is not for {}", operation.name()), "wrong_model_kind"));
    }
    if !rest.is_empty() {
        // What a `*` takes in may travel in an upstream's path or log.
        providers::path_segment(rest)?;
    }
    Ok((model, rest))
}

/// The names of models that somebody may know of: all of them if nobody in particular asks.
fn visible<'r>(rules: &'r Rules, who: Option<&Principal>) -> Vec<&'r str> {
    let mut names = rules.names();
    names.retain(|name| who.is_none_or(|who| who.may_use(name) && rules.named(name).is_some_and(|model| model.access.admits(who))));
    names
}
