//! Ollama's native dialect: `/api/chat` in lines of JSON and `/api/embed`. The native routes, because the compatible ones
//! cannot set the context's length (`num_ctx`), which Ollama otherwise takes from its own default and cuts the prompt to in
//! silence. `num_ctx`, `keep_alive`, `think`, `truncate`, `shift` and the other options of a model may stand in the request.

mod answer;
mod request;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::answer::Answer;
use crate::embed::{self, Embeddings};
use crate::envelope::Envelope;
use crate::sse::Framing;
use crate::usage::Usage;
use crate::wire::{ChatRequest, Str};
use crate::{Auth, Call, Error, Operation, Provider, Settings, Target, Transcoder};

const KIND: &str = "ollama";

/// An Ollama server, or Ollama's cloud where there is a key.
#[derive(Debug)]
pub struct Ollama {
    base_url: String,
    has_key: bool,
}

impl Ollama {
    /// The server on this machine unless the settings name another.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let base_url = settings.base_url_or("http://127.0.0.1:11434");
        // Paths that other tools want at the end of it.
        let base_url = base_url.trim_end_matches("/v1").trim_end_matches("/api").to_owned();
        Ollama { base_url, has_key: settings.has_key }
    }
}

impl Provider for Ollama {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn base_url(&self) -> &str {
        &self.base_url
    }

    fn auth(&self) -> Auth {
        if self.has_key { Auth::Bearer } else { Auth::None }
    }

    fn path(&self, _: Operation, _: &Target<'_>, _: bool) -> Result<Option<String>, Error> {
        Ok(None)
    }

    fn other_rates(&self, _: Operation, _: &Envelope) -> Vec<&'static str> {
        // It is told of none.
        Vec::new()
    }

    fn chat(&self, request: &ChatRequest<'_>, target: &Target<'_>) -> Result<Call, Error> {
        request::write(request, target)
    }

    fn framing(&self) -> Framing {
        Framing::Ndjson
    }

    fn answer(&self, body: &[u8], _: &Target<'_>) -> Result<Answer, Error> {
        answer::read(body)
    }

    fn transcoder(&self, _: &Target<'_>) -> Box<dyn Transcoder> {
        Box::new(answer::Lines::default())
    }

    fn embed(&self, request: &embed::Request<'_>, target: &Target<'_>) -> Result<Vec<Call>, Error> {
        #[derive(Serialize)]
        struct Body<'a> {
            model: &'a str,
            input: &'a [Str<'a>],
            #[serde(skip_serializing_if = "Option::is_none")]
            dimensions: Option<u32>,
            #[serde(skip_serializing_if = "Option::is_none")]
            truncate: Option<&'a RawValue>,
            #[serde(skip_serializing_if = "Option::is_none")]
            keep_alive: Option<&'a RawValue>,
        }
        let extra = |name: &str| request.extra.iter().find(|(key, _)| &**key == name).map(|(_, value)| *value);
        let body = Body { model: target.model, input: request.texts(KIND)?, dimensions: request.dimensions, truncate: extra("truncate"), keep_alive: extra("keep_alive") };
        let mut call = Call::json("/api/embed", &body);
        for (name, given) in [("user", request.user.is_some()), ("input_type", request.input_type.is_some())] {
            if given {
                call.warnings.push(format!("dropped `{name}`: ollama does not take it"));
            }
        }
        Ok(vec![call])
    }

    fn embeddings(&self, bodies: &[Bytes], _: &Target<'_>) -> Result<Embeddings, Error> {
        #[derive(Deserialize)]
        struct Body {
            embeddings: Vec<Vec<f32>>,
            prompt_eval_count: Option<u64>,
        }
        let mut all = Embeddings::default();
        for body in bodies {
            let body: Body = serde_json::from_slice(body).map_err(Error::answer)?;
            all.vectors.extend(body.embeddings);
            all.usage.get_or_insert_default().add(&Usage { input: body.prompt_eval_count.unwrap_or_default(), estimated: body.prompt_eval_count.is_none(), ..Usage::default() });
        }
        Ok(all)
    }
}
