//! Hugging Face: its router of inference providers where no `base_url` is given, else a server of its own making (TGI for
//! text, TEI for embeddings and reranking). The OpenAI-compatible routes are the default. With `api_version: tgi` the native
//! ones are spoken: TGI's `/generate` and `/generate_stream`, for servers without a chat template, and TEI's `/embed`.

mod compatible;
mod tgi;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::answer::Answer;
use crate::embed::{self, Embeddings};
use crate::envelope::{Edit, Envelope};
use crate::error::{ErrorKind, UpstreamError};
use crate::rerank::{self, Ranked, Ranking};
use crate::usage::Usage;
use crate::wire::{ChatRequest, Str};
use crate::{Call, Dialect, Error, Operation, Provider, Settings, Target, Transcoder, openai, path_segment, rate};

const KIND: &str = "huggingface";

/// What stands at the other end, and which of its dialects is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Hugging Face's router, which speaks for many providers.
    Router,
    /// TGI or TEI, compatible routes.
    Server,
    /// TGI or TEI, native routes.
    Native,
}

/// Hugging Face's router, or a server.
#[derive(Debug)]
pub struct HuggingFace {
    base_url: String,
    place: Place,
}

impl HuggingFace {
    /// The router unless the settings name a server.
    ///
    /// # Errors
    /// When the `api_version` is neither absent nor `tgi`, or asks the router for a server's dialect.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let base_url = settings.base_url_or("https://router.huggingface.co");
        // The version is part of the compatible paths; the native ones stand above it.
        let base_url = base_url.trim_end_matches("/v1").trim_end_matches('/').to_owned();
        let router = base_url.ends_with("//router.huggingface.co");
        let place = match settings.api_version.as_deref() {
            None | Some("" | "v1") if router => Place::Router,
            None | Some("" | "v1") => Place::Server,
            Some("tgi") if !router => Place::Native,
            Some("tgi") => return Err(Error::Settings("`api_version: tgi` needs the `base_url` of a TGI server; the router does not speak its native dialect".into())),
            Some(other) => return Err(Error::Settings(format!("`api_version` \"{other}\" is unknown to kind huggingface; it takes \"tgi\" or nothing"))),
        };
        Ok(HuggingFace { base_url, place })
    }
}

impl Provider for HuggingFace {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn base_url(&self) -> &str {
        &self.base_url
    }

    fn path(&self, operation: Operation, _: &Target<'_>, _: bool) -> Result<Option<String>, Error> {
        let known = match (self.place, operation) {
            (Place::Native, _) => false,
            (_, Operation::Chat(Dialect::Chat)) | (Place::Router, Operation::Chat(Dialect::Responses)) => true,
            (Place::Server, Operation::Chat(Dialect::Completions) | Operation::Embeddings) => true,
            _ => false,
        };
        Ok(operation.openai_path().filter(|_| known).map(|path| format!("/v1{path}")))
    }

    fn other_rates(&self, operation: Operation, body: &Envelope) -> Vec<&'static str> {
        // A chat loses it, and so does what becomes one.
        if operation == Operation::Chat(Dialect::Responses) { rate::of_openai(operation, body, &[]) } else { Vec::new() }
    }

    fn adapt(&self, operation: Operation, edit: &mut Edit<'_>, target: &Target<'_>) -> Result<Vec<String>, Error> {
        openai::adapt(operation, edit, target)?;
        match operation {
            Operation::Chat(Dialect::Chat) => compatible::adapt(edit, self.place == Place::Server),
            _ => Ok(Vec::new()),
        }
    }

    fn verbatim(&self, operation: Operation) -> bool {
        // Arguments of calls are sometimes objects, and finish reasons TGI's own.
        operation != Operation::Chat(Dialect::Chat)
    }

    fn chat(&self, request: &ChatRequest<'_>, _: &Target<'_>) -> Result<Call, Error> {
        tgi::write(request)
    }

    fn answer(&self, body: &[u8], target: &Target<'_>) -> Result<Answer, Error> {
        if self.place == Place::Native { tgi::read(body, target) } else { openai::read_answer(body) }
    }

    fn transcoder(&self, target: &Target<'_>) -> Box<dyn Transcoder> {
        if self.place == Place::Native { Box::new(tgi::Tokens::new(target)) } else { Box::new(openai::Chunks::default()) }
    }

    fn error(&self, status: u16, body: &[u8]) -> UpstreamError {
        read_error(status, body)
    }

    fn embed(&self, request: &embed::Request<'_>, target: &Target<'_>) -> Result<Vec<Call>, Error> {
        #[derive(Serialize)]
        struct Body<'a> {
            inputs: &'a [Str<'a>],
            #[serde(skip_serializing_if = "Option::is_none")]
            dimensions: Option<u32>,
        }
        let path = match self.place {
            Place::Router if request.dimensions.is_some() => return Err(Error::unsupported(KIND, "dimensions", "the router's models have one length; leave it out")),
            Place::Router => format!("/hf-inference/models/{}/pipeline/feature-extraction", model_path(target.model)?),
            Place::Server | Place::Native => "/embed".to_owned(),
        };
        let mut call = Call::json(path, &Body { inputs: request.texts(KIND)?, dimensions: request.dimensions });
        for (name, given) in [("user", request.user.is_some()), ("input_type", request.input_type.is_some())] {
            if given {
                call.warnings.push(format!("dropped `{name}`: huggingface does not take it"));
            }
        }
        Ok(vec![call])
    }

    fn embeddings(&self, bodies: &[Bytes], _: &Target<'_>) -> Result<Embeddings, Error> {
        let mut all = Embeddings::default();
        for body in bodies {
            match serde_json::from_slice(body).map_err(Error::answer)? {
                Vectors::One(vector) => all.vectors.push(vector),
                Vectors::Each(vectors) => all.vectors.extend(vectors),
                Vectors::Tokens(texts) => {
                    for mut tokens in texts {
                        match (tokens.pop(), tokens.is_empty()) {
                            (Some(vector), true) => all.vectors.push(vector),
                            _ => return Err(Error::answer("it has a vector for each token where one for each text was asked for; the model is not one for sentences")),
                        }
                    }
                }
            }
        }
        // Neither says what it read.
        all.usage = Some(Usage { estimated: true, ..Usage::default() });
        Ok(all)
    }

    fn rerank(&self, request: &rerank::Request<'_>, _: &Target<'_>) -> Result<Call, Error> {
        #[derive(Serialize)]
        struct Body<'a> {
            query: &'a str,
            texts: Vec<Str<'a>>,
        }
        if self.place == Place::Router {
            return Err(Error::unsupported(KIND, "model", "the router does not rerank; set the `base_url` of a TEI server"));
        }
        let query = request.query.as_deref().ok_or_else(|| Error::invalid("query", "`query` is missing"))?;
        let documents = request.documents.as_deref().filter(|d| !d.is_empty()).ok_or_else(|| Error::invalid("documents", "`documents` must be a list, and not empty"))?;
        let texts = documents.iter().enumerate().map(|(at, raw)| document(at, raw.get())).collect::<Result<_, _>>()?;
        let mut call = Call::json("/rerank", &Body { query, texts });
        if request.top_n.is_some_and(|n| (n as usize) < documents.len()) {
            call.warnings.push("dropped `top_n`: huggingface ranks all documents; take the first ones".into());
        }
        if request.max_tokens_per_doc.is_some() {
            call.warnings.push("dropped `max_tokens_per_doc`: huggingface does not take it".into());
        }
        Ok(call)
    }

    fn ranking(&self, body: &[u8], _: &Target<'_>) -> Result<Ranking, Error> {
        #[derive(Deserialize)]
        struct Rank {
            index: usize,
            score: f64,
        }
        let ranks: Vec<Rank> = serde_json::from_slice(body).map_err(Error::answer)?;
        let mut results: Vec<Ranked> = ranks.into_iter().map(|r| Ranked { index: r.index, relevance_score: r.score }).collect();
        results.sort_by(|a, b| b.relevance_score.total_cmp(&a.relevance_score));
        Ok(Ranking { results, searches: None, tokens: None })
    }
}

/// What feature extraction gives: a vector, one for each text, or one for each token of each text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Vectors {
    One(Vec<f32>),
    Each(Vec<Vec<f32>>),
    Tokens(Vec<Vec<Vec<f32>>>),
}

fn document(at: usize, raw: &str) -> Result<Str<'_>, Error> {
    #[derive(Deserialize)]
    struct Document<'a> {
        #[serde(borrow)]
        text: Str<'a>,
    }
    let text = if raw.starts_with('{') { serde_json::from_str::<Document<'_>>(raw).map(|d| d.text) } else { serde_json::from_str(raw) };
    text.map_err(|_| Error::invalid(format!("documents[{at}]"), "a document must be a string, or an object with a `text`"))
}

/// `owner/name` as two segments of a path.
fn model_path(model: &str) -> Result<String, Error> {
    path_segment(model)?;
    model.split('/').map(path_segment).collect::<Result<Vec<_>, _>>().map(|segments| segments.join("/"))
}

/// `{"error": …, "error_type": …}` of TGI and TEI; `{"error": …, "estimated_time": …}` of a model that is being loaded.
fn read_error(status: u16, body: &[u8]) -> UpstreamError {
    let mut error = openai::read_error(status, body);
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let says = |words: &str| error.message.contains(words);
    error.kind = match value["error_type"].as_str().or_else(|| value["error"]["type"].as_str()) {
        Some("validation") if says("`inputs` tokens + `max_new_tokens` must be <=") || says("`inputs` must have less than") => ErrorKind::ContextLength,
        Some("validation" | "template_error" | "missing_template_variable" | "tool_error" | "tokenizer" | "empty") => ErrorKind::InvalidRequest,
        Some("overloaded") => ErrorKind::Overloaded,
        // TGI's status for these is 424, as if it were the client's doing.
        Some("generation" | "incomplete_generation" | "incomplete_generation_stream" | "stream_serialization_error" | "backend" | "unhealthy") => ErrorKind::Server,
        _ => error.kind,
    };
    if let Some(seconds) = value["estimated_time"].as_f64() {
        error.kind = ErrorKind::Overloaded;
        error.message = format!("{}; try again in about {} s", error.message.trim_end_matches('.'), seconds.ceil());
    }
    error
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn build(base_url: Option<&str>, api_version: Option<&str>) -> Result<HuggingFace, Error> {
        HuggingFace::new(&Settings { kind: KIND.into(), base_url: base_url.map(str::to_owned), api_version: api_version.map(str::to_owned), ..Settings::default() })
    }

    #[test]
    fn the_place_decides_the_routes() {
        let target = Target { model: "acme/m", info: None };
        let path = |p: &HuggingFace, operation| p.path(operation, &target, false).unwrap();
        for (base_url, place) in
            [(None, Place::Router), (Some("https://router.huggingface.co/v1/"), Place::Router), (Some("http://127.0.0.1:8082"), Place::Server), (Some("http://tgi.example/v1"), Place::Server)]
        {
            let built = build(base_url, None).unwrap();
            assert_eq!(built.place, place);
            assert_eq!(path(&built, Operation::Chat(Dialect::Chat)).as_deref(), Some("/v1/chat/completions"));
            assert_eq!(path(&built, Operation::Embeddings).is_some(), place == Place::Server);
        }
        let native = build(Some("http://tgi.example/v1"), Some("tgi")).unwrap();
        assert_eq!((native.base_url(), path(&native, Operation::Chat(Dialect::Chat))), ("http://tgi.example", None));
        assert!(matches!(build(None, Some("tgi")), Err(Error::Settings(_))));
        assert!(matches!(build(None, Some("2024-10-21")), Err(Error::Settings(_))));
    }

    #[test]
    fn vectors_of_tokens_are_not_taken_for_those_of_texts() {
        let provider = build(None, None).unwrap();
        let read = |text: &'static str| provider.embeddings(&[Bytes::from_static(text.as_bytes())], &Target { model: "m", info: None });
        assert_eq!(read("[1,2]").unwrap().vectors, [[1.0, 2.0]]);
        assert_eq!(read("[[[1,2]],[[3,4]]]").unwrap().vectors, [[1.0, 2.0], [3.0, 4.0]]);
        assert!(read("[[[1,2],[3,4]]]").is_err());
        assert!(model_path("a/../b").is_err());
    }
}
