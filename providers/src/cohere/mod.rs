//! Cohere: chat, embeddings and reranking by the second version of its API.

mod answer;
mod request;
mod vectors;

use bytes::Bytes;

use crate::answer::Answer;
use crate::envelope::Envelope;
use crate::error::ErrorKind;
use crate::names::Naming;
use crate::wire::ChatRequest;
use crate::{Call, Error, Operation, Provider, Settings, Target, Transcoder, UpstreamError, embed, openai, rerank};

pub(crate) use vectors::input_type;

const KIND: &str = "cohere";

/// Cohere's platform, or a private deployment of it.
#[derive(Debug)]
pub struct Cohere {
    base_url: String,
}

impl Cohere {
    /// Cohere itself unless the settings name another place.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Cohere { base_url: settings.base_url_or("https://api.cohere.com") }
    }
}

impl Provider for Cohere {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn base_url(&self) -> &str {
        &self.base_url
    }

    fn path(&self, _: Operation, _: &Target<'_>, _: bool) -> Result<Option<String>, Error> {
        Ok(None)
    }

    fn naming(&self, _: &Target<'_>) -> Naming {
        // "Only the characters a-z, A-Z, 0-9, _ and must not begin with a digit"; of the length it says nothing.
        Naming { also: "", begins_as_word: true, ..Naming::OPENAI }
    }

    fn other_rates(&self, _: Operation, _: &Envelope) -> Vec<&'static str> {
        // It is told of none.
        Vec::new()
    }

    fn chat(&self, request: &ChatRequest<'_>, target: &Target<'_>) -> Result<Call, Error> {
        request::chat(request, target)
    }

    fn answer(&self, body: &[u8], target: &Target<'_>) -> Result<Answer, Error> {
        answer::read(body, target)
    }

    fn transcoder(&self, target: &Target<'_>) -> Box<dyn Transcoder> {
        Box::new(answer::Events::new(target))
    }

    fn error(&self, status: u16, body: &[u8]) -> UpstreamError {
        let mut error = openai::read_error(status, body);
        // Cohere's own status for a token that it does not know.
        if status == 498 {
            error.kind = ErrorKind::Authentication;
        }
        error
    }

    fn embed(&self, request: &embed::Request<'_>, target: &Target<'_>) -> Result<Vec<Call>, Error> {
        vectors::embed(request, target)
    }

    fn embeddings(&self, bodies: &[Bytes], _: &Target<'_>) -> Result<embed::Embeddings, Error> {
        vectors::embeddings(bodies)
    }

    fn rerank(&self, request: &rerank::Request<'_>, target: &Target<'_>) -> Result<Call, Error> {
        vectors::rerank(request, target)
    }

    fn ranking(&self, body: &[u8], _: &Target<'_>) -> Result<rerank::Ranking, Error> {
        vectors::ranking(body)
    }
}
