//! Google's Gemini API: `generateContent` and its embeddings. Vertex speaks the same dialect at other places, so what differs
//! between the two is data ([`Host`]).

mod answer;
mod contents;
pub(crate) mod embed;
mod error;
mod model;
mod pass;
mod request;
mod schema;
mod usage;

use std::time::Duration;

use bytes::Bytes;

pub use usage::tap_usage;

use crate::answer::Answer;
use crate::embed::{Embeddings, Request};
use crate::envelope::{Edit, Envelope};
use crate::names::Naming;
use crate::wire::ChatRequest;
use crate::{Auth, Call, Dialect, Error, Operation, Provider, Settings, Target, Transcoder, UpstreamError, path_segment, rate};
use model::Model;

/// What differs between the places that speak Gemini's dialect.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) kind: &'static str,
    /// Takes `labels`.
    pub(crate) labels: bool,
    /// Has ids for the calls of every model, not only of those that insist on them.
    pub(crate) call_ids: bool,
}

/// Google's names of functions. Of late its documentation speaks of 128 letters; its API still refused the 65th.
pub(crate) const NAMING: Naming = Naming { also: "-.:", begins_as_word: true, ..Naming::OPENAI };

const GEMINI: Host = Host { kind: "gemini", labels: false, call_ids: true };

/// The Gemini API of Google AI Studio.
#[derive(Debug)]
pub struct Gemini {
    base_url: String,
}

impl Gemini {
    /// Google's own place unless the settings name another.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Gemini { base_url: settings.base_url_or("https://generativelanguage.googleapis.com/v1beta") }
    }
}

impl Provider for Gemini {
    fn kind(&self) -> &'static str {
        GEMINI.kind
    }

    fn follows_places(&self) -> bool {
        true
    }

    fn base_url(&self) -> &str {
        &self.base_url
    }

    fn auth(&self) -> Auth {
        Auth::Header("x-goog-api-key")
    }

    fn path(&self, operation: Operation, target: &Target<'_>, stream: bool) -> Result<Option<String>, Error> {
        let Some(verb) = verb(operation, stream) else { return Ok(None) };
        Ok(Some(path(target.model, verb)?))
    }

    fn adapt(&self, operation: Operation, edit: &mut Edit<'_>, target: &Target<'_>) -> Result<Vec<String>, Error> {
        pass::adapt(operation, edit, bare(target.model))?;
        Ok(Vec::new())
    }

    fn forwards(&self) -> &'static [&'static str] {
        &["x-goog-api-client"]
    }

    fn naming(&self, _: &Target<'_>) -> Naming {
        NAMING
    }

    fn other_rates(&self, operation: Operation, body: &Envelope) -> Vec<&'static str> {
        rate::of_gemini(operation, body)
    }

    fn chat(&self, request: &ChatRequest<'_>, target: &Target<'_>) -> Result<Call, Error> {
        chat(request, target, &GEMINI, path(target.model, generate(request.streams()))?)
    }

    fn answer(&self, body: &[u8], _: &Target<'_>) -> Result<Answer, Error> {
        answer::read(body)
    }

    fn transcoder(&self, _: &Target<'_>) -> Box<dyn Transcoder> {
        transcoder()
    }

    fn error(&self, status: u16, body: &[u8]) -> UpstreamError {
        error::read(status, body)
    }

    fn retry_after(&self, body: &[u8]) -> Option<Duration> {
        error::retry_delay(body)
    }

    fn embed(&self, request: &Request<'_>, target: &Target<'_>) -> Result<Vec<Call>, Error> {
        embed::write(request, GEMINI.kind, bare(target.model), &path(target.model, "batchEmbedContents")?)
    }

    fn embeddings(&self, bodies: &[Bytes], _: &Target<'_>) -> Result<Embeddings, Error> {
        embed::read(bodies)
    }
}

/// The verb of an operation that clients may bring in Gemini's own dialect.
pub(crate) fn verb(operation: Operation, stream: bool) -> Option<&'static str> {
    match operation {
        Operation::Chat(Dialect::Generate) => Some(generate(stream)),
        Operation::CountGenerate => Some("countTokens"),
        Operation::EmbedContent => Some("embedContent"),
        Operation::BatchEmbedContents => Some("batchEmbedContents"),
        _ => None,
    }
}

/// The verb that chats.
pub(crate) fn generate(stream: bool) -> &'static str {
    if stream { "streamGenerateContent?alt=sse" } else { "generateContent" }
}

/// A hub request in this dialect.
pub(crate) fn chat(request: &ChatRequest<'_>, target: &Target<'_>, host: &Host, path: String) -> Result<Call, Error> {
    let mut warnings = Vec::new();
    let body = request::write(request, host, Model::of(target.model), &mut warnings)?;
    Ok(Call { path, headers: Vec::new(), body: body.into(), warnings })
}

/// Begins to read a stream.
pub(crate) fn transcoder() -> Box<dyn Transcoder> {
    Box::new(answer::Reader::default())
}

pub(crate) use answer::read as read_answer;
pub(crate) use error::{read as read_error, retry_delay};
pub(crate) use pass::{adapt, unwrap_count};

/// A model's name without `models/`, which Google's own lists put before it.
fn bare(model: &str) -> &str {
    model.strip_prefix("models/").unwrap_or(model)
}

fn path(model: &str, verb: &str) -> Result<String, Error> {
    match model.strip_prefix("tunedModels/") {
        Some(tuned) => Ok(format!("/tunedModels/{}:{verb}", path_segment(tuned)?)),
        None => Ok(format!("/models/{}:{verb}", path_segment(bare(model))?)),
    }
}
