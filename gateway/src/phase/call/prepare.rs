//! What one target is sent: the client's bytes where it speaks the client's dialect, else the hub's request, as it is or
//! translated. Sends nothing and knows nothing of who asks: the command `explain` shows what is made here.

use bytes::Bytes;
use http::HeaderValue;
use providers::answer::Answer;
use providers::envelope::Payload;
use providers::names::{self, Renamed};
use providers::{Call, Dialect, Error, Operation, Target};

use super::failure::Failure;
use crate::exchange::Asked;
use crate::rules::ProviderRule;
use crate::stream::Seen;
use crate::whole::{self, Work};

/// What is to be done for a request at a target.
pub(crate) enum Prepared {
    /// Nothing is sent: the provider answers by itself, with a chat.
    Said(Answer),
    /// Nothing is sent: this is the answer, in the client's dialect.
    Whole(Vec<u8>, Seen),
    /// One call is made, and its answer passed or translated.
    One(Sending),
    /// Calls are made whose answers are read together.
    Several(Work, Vec<Sending>),
}

/// How an upstream's answer is read.
#[derive(Debug, Clone)]
pub(crate) enum Reading {
    /// It is in the client's dialect already.
    Pass,
    /// It is read into the hub and written for the client, with the client's own names of its tools.
    Translate(Renamed),
    /// Its bytes pass, and only what they tell of usage is read along.
    Raw,
}

/// One request on its way.
pub(crate) struct Sending {
    pub(crate) path: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Payload,
    pub(crate) content_type: HeaderValue,
    pub(crate) reading: Reading,
}

impl Sending {
    fn json(path: String, body: Payload, reading: Reading) -> Self {
        Sending { path, headers: Vec::new(), body, content_type: HeaderValue::from_static("application/json"), reading }
    }

    fn translated(call: Call, renamed: Renamed) -> Self {
        Sending { headers: call.headers, ..Sending::json(call.path, call.body, Reading::Translate(renamed)) }
    }
}

/// Finds out what a target is sent. What it has to leave out is noted among the warnings.
pub(crate) fn prepare(asked: &mut Asked, provider: &ProviderRule, t: &Target<'_>) -> Result<Prepared, Failure> {
    provider.dialect.detours().hold(provider.dialect.kind(), &asked.envelope)?;
    match asked.operation {
        // A rewritten embeddings or rerank request is still in the provider's own dialect: only its bytes are others.
        Operation::Embeddings | Operation::Rerank | Operation::EmbedContent | Operation::BatchEmbedContents if provider.dialect.path(asked.operation, t, false)?.is_none() => {
            return calls(asked, provider, t);
        }
        // Only one kind answers offline, and it has no place: the others are spared the translation.
        Operation::Chat(_) if provider.base_url.is_empty() => {
            if let Some(answer) = provider.dialect.offline(&asked.hub()?.chat()?) {
                return Ok(Prepared::Said(answer?));
            }
        }
        Operation::CountMessages | Operation::CountGenerate if provider.dialect.path(asked.operation, t, false)?.is_none() => {
            let (body, seen) = whole::estimate(asked);
            asked.warnings.push("the number of tokens is an estimate: this provider does not count them".to_owned());
            return Ok(Prepared::Whole(body, seen));
        }
        _ => {}
    }
    one(asked, provider, t).map(Prepared::One)
}

/// Embeddings and reranking through a provider that does not speak the client's form of them: one call or several.
fn calls(asked: &mut Asked, provider: &ProviderRule, t: &Target<'_>) -> Result<Prepared, Failure> {
    let dialect = provider.dialect.as_ref();
    let work = Work::read(asked)?;
    if let Some(done) = work.offline(dialect) {
        let (body, seen) = done?;
        return Ok(Prepared::Whole(body, seen));
    }
    let mut calls = work.calls(dialect, t)?;
    asked.warnings.extend(calls.iter_mut().flat_map(|call| std::mem::take(&mut call.warnings)));
    Ok(Prepared::Several(work, calls.into_iter().map(|call| Sending::translated(call, Renamed::default())).collect()))
}

fn one(asked: &mut Asked, provider: &ProviderRule, t: &Target<'_>) -> Result<Sending, Failure> {
    let dialect = &provider.dialect;
    let operation = asked.operation;
    let stream = asked.stream;
    if let Some(form) = &asked.form {
        let path = dialect.path(operation, t, stream)?.ok_or_else(|| lacks(provider, operation))?;
        let model = form.field("model").ok_or_else(|| Error::invalid("model", "the form has no field `model`"))?;
        let body = Payload::from_iter([form.body.slice(..model.start), Bytes::copy_from_slice(t.model.as_bytes()), form.body.slice(model.end..)]);
        return Ok(Sending { path, headers: Vec::new(), body, content_type: form.content_type.clone(), reading: Reading::Raw });
    }
    let passes = !asked.rewritten || matches!(operation, Operation::Chat(Dialect::Chat) | Operation::Embeddings | Operation::Rerank);
    if operation == Operation::Chat(Dialect::Responses) && asked.envelope.get("background") == Some("true") {
        // Nobody would ever be told what it has used.
        return Err(Error::unsupported(dialect.kind(), "background", "answers are not fetched later here; leave it out, and use `stream` for long answers").into());
    }
    let native = if passes { dialect.path(operation, t, stream)? } else { None };
    if let Some(path) = native {
        let envelope = if asked.rewritten { asked.hub()?.clone() } else { asked.envelope.clone() };
        let (envelope, reading) = match operation {
            Operation::Speech => (envelope, Reading::Raw),
            // Images in pieces: a stream whose events are none of ours.
            _ if stream && !matches!(operation, Operation::Chat(_)) => (envelope, Reading::Raw),
            _ if dialect.verbatim(operation) => (envelope, Reading::Pass),
            _ => {
                let (envelope, renamed) = names::fit(dialect.as_ref(), t, envelope)?;
                (envelope, Reading::Translate(renamed))
            }
        };
        let mut edit = envelope.edit();
        let warnings = dialect.adapt(operation, &mut edit, t)?;
        let body = edit.finish();
        asked.warnings.extend(warnings);
        return Ok(Sending::json(path, body, reading));
    }
    let Operation::Chat(_) = operation else {
        return Err(lacks(provider, operation).into());
    };
    let (hub, renamed) = names::fit(dialect.as_ref(), t, asked.hub()?.clone())?;
    let chat = Operation::Chat(Dialect::Chat);
    if let Some(path) = dialect.path(chat, t, stream)? {
        let (hub, dropped) = if operation == chat { (hub, Vec::new()) } else { providers::neutral::neutral(&hub)? };
        let mut edit = hub.edit();
        let warnings = dialect.adapt(chat, &mut edit, t)?;
        let body = edit.finish();
        asked.warnings.extend(dropped.into_iter().chain(warnings));
        return Ok(Sending::json(path, body, Reading::Translate(renamed)));
    }
    let mut call = dialect.chat(&hub.chat()?, t)?;
    asked.warnings.append(&mut call.warnings);
    Ok(Sending::translated(call, renamed))
}

fn lacks(provider: &ProviderRule, operation: Operation) -> Error {
    Error::unsupported(provider.dialect.kind(), "model", format!("the provider behind this model has no {}", operation.name()))
}
