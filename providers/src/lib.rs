//! The dialects of LLM APIs as pure functions over bytes: no network, no clock, no files, no tenants, no money spent.
//!
//! OpenAI's chat schema is the hub. A [`Provider`] writes a hub request in its own dialect and reads its answers back into
//! the hub ([`answer::Answer`] whole, [`answer::Delta`] by piece); a [`door::Door`] does the same on the client's side.
//! Where both sides speak the same dialect nothing is read or written: the bytes pass.

pub mod answer;
pub mod anthropic;
pub mod azure;
pub mod bedrock;
pub mod bound;
pub mod carry;
pub mod chat;
pub mod cohere;
pub mod compatible;
pub mod completions;
pub mod detour;
pub mod door;
pub mod echo;
pub mod embed;
pub mod envelope;
pub mod error;
pub mod eventstream;
pub mod gemini;
pub mod generate;
pub mod huggingface;
pub mod json;
pub mod media;
pub mod messages;
pub mod mistral;
pub mod names;
pub mod neutral;
mod oddities;
pub mod ollama;
pub mod openai;
mod order;
pub mod outline;
mod parts;
mod place;
pub mod prices;
pub mod rate;
pub mod rerank;
pub mod responses;
pub mod sse;
pub mod unseen;
pub mod usage;
pub mod vertex;
pub mod wire;

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;

use answer::{Answer, Delta};
use detour::Detours;
use envelope::{Edit, Envelope, Payload};
pub use error::{Error, ErrorKind, UpstreamError};
use names::Naming;
use sse::{Event, Framing};
use wire::ChatRequest;

/// A dialect that clients may speak in order to chat, and that some providers speak themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// OpenAI's chat completions: the hub.
    Chat,
    /// OpenAI's legacy completions.
    Completions,
    /// OpenAI's Responses.
    Responses,
    /// Anthropic's Messages.
    Messages,
    /// Gemini's `generateContent`.
    Generate,
}

/// What is asked of a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A conversation, in one of the chat dialects.
    Chat(Dialect),
    /// How many tokens an Anthropic Messages request has.
    CountMessages,
    /// How many tokens a Gemini request has.
    CountGenerate,
    /// OpenAI's embeddings.
    Embeddings,
    /// Gemini's `embedContent`.
    EmbedContent,
    /// Gemini's `batchEmbedContents`.
    BatchEmbedContents,
    /// Ranking documents by a query.
    Rerank,
    /// OpenAI's moderations.
    Moderations,
    /// OpenAI's image generation.
    ImageGenerations,
    /// OpenAI's image edits (multipart).
    ImageEdits,
    /// OpenAI's text to speech.
    Speech,
    /// OpenAI's transcription (multipart).
    Transcriptions,
    /// OpenAI's audio translation (multipart).
    Translations,
    /// OpenAI's files.
    Files,
    /// OpenAI's batches.
    Batches,
}

impl Operation {
    /// OpenAI's path for it, below the version: also what the provider's own dialect is asked for by default.
    #[must_use]
    pub fn openai_path(self) -> Option<&'static str> {
        Some(match self {
            Operation::Chat(Dialect::Chat) => "/chat/completions",
            Operation::Chat(Dialect::Completions) => "/completions",
            Operation::Chat(Dialect::Responses) => "/responses",
            Operation::Embeddings => "/embeddings",
            Operation::Moderations => "/moderations",
            Operation::ImageGenerations => "/images/generations",
            Operation::ImageEdits => "/images/edits",
            Operation::Speech => "/audio/speech",
            Operation::Transcriptions => "/audio/transcriptions",
            Operation::Translations => "/audio/translations",
            Operation::Files => "/files",
            Operation::Batches => "/batches",
            Operation::Rerank => "/rerank",
            Operation::Chat(Dialect::Messages | Dialect::Generate) | Operation::CountMessages | Operation::CountGenerate | Operation::EmbedContent | Operation::BatchEmbedContents => return None,
        })
    }

    /// OpenTelemetry's `gen_ai.operation.name`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Operation::Chat(Dialect::Completions) => "text_completion",
            Operation::Chat(Dialect::Generate) => "generate_content",
            Operation::Chat(_) => "chat",
            Operation::CountMessages | Operation::CountGenerate => "count_tokens",
            Operation::Embeddings | Operation::EmbedContent | Operation::BatchEmbedContents => "embeddings",
            Operation::Rerank => "rerank",
            Operation::Moderations => "moderation",
            Operation::ImageGenerations | Operation::ImageEdits => "image_generation",
            Operation::Speech => "speech",
            Operation::Transcriptions | Operation::Translations => "transcription",
            Operation::Files => "files",
            Operation::Batches => "batches",
        }
    }
}

/// How a provider wants to be shown a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// Not at all.
    None,
    /// `Authorization: Bearer`.
    Bearer,
    /// The key in a header of this name.
    Header(&'static str),
    /// AWS Signature Version 4 for this service.
    Aws {
        /// Service name that is signed.
        service: &'static str,
    },
    /// A Google access token as bearer.
    Google,
    /// An API key in the header `api-key`, or a Microsoft Entra token as bearer.
    Azure,
}

/// Where a call goes inside a provider.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The model, as the provider names it.
    pub model: &'a str,
    /// What is known of the model.
    pub info: Option<&'a prices::Model>,
}

/// A call to a provider: everything but the credential and the network.
#[derive(Debug, Clone)]
pub struct Call {
    /// Path and query, to be appended to the provider's base URL.
    pub path: String,
    /// Headers beyond content type, length and credential.
    pub headers: Vec<(&'static str, String)>,
    /// JSON.
    pub body: Payload,
    /// What was dropped or changed, one sentence each; the client is told in a header.
    pub warnings: Vec<String>,
}

impl Call {
    /// A call with a JSON body.
    #[must_use]
    pub fn json(path: impl Into<String>, body: &impl serde::Serialize) -> Self {
        let mut out = Vec::with_capacity(1024);
        chat::json(&mut out, body);
        Call { path: path.into(), headers: Vec::new(), body: out.into(), warnings: Vec::new() }
    }
}

/// One account's dialect: how to ask it and how to read it. Pure; the defaults are OpenAI's dialect.
pub trait Provider: Send + Sync {
    /// The kind, as the configuration and the price table name it.
    fn kind(&self) -> &'static str;

    /// Scheme, host and path prefix, without a slash at the end.
    fn base_url(&self) -> &str;

    /// How the credential is shown.
    fn auth(&self) -> Auth {
        Auth::Bearer
    }

    /// The path for an operation that this provider speaks as the client does, so that bodies pass; `None` if it does not.
    ///
    /// # Errors
    /// When the model's name cannot stand in a path.
    fn path(&self, operation: Operation, target: &Target<'_>, stream: bool) -> Result<Option<String>, Error>;

    /// Changes what has to be changed in a body that passes: the model's name at least.
    ///
    /// # Errors
    /// When the target cannot honour the request.
    fn adapt(&self, operation: Operation, edit: &mut Edit<'_>, target: &Target<'_>) -> Result<Vec<String>, Error> {
        let _ = operation;
        if edit.envelope().model() != target.model {
            edit.set_text("model", target.model);
        }
        Ok(Vec::new())
    }

    /// What in a client's own body would lead around the model that it asked for. What the operator puts in is not looked at.
    fn detours(&self) -> Detours {
        Detours::COMMON
    }

    /// The fields by which a body in an operation's own dialect asks this provider for what has another price than the table's.
    fn other_rates(&self, operation: Operation, body: &Envelope) -> Vec<&'static str> {
        rate::of_openai(operation, body, &[])
    }

    /// Whether answers to a passed body may pass too. If not, they are read and written anew.
    fn verbatim(&self, operation: Operation) -> bool {
        let _ = operation;
        true
    }

    /// Headers that every call carries beside the credential.
    fn headers(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// The client's headers that are for this provider (lower case), passed on if the client sent them.
    fn forwards(&self) -> &'static [&'static str] {
        &[]
    }

    /// The value of such a header as this provider is shown it: without what it would refuse. `None` if nothing is left.
    fn forward<'v>(&self, name: &str, value: &'v str) -> Option<Cow<'v, str>> {
        let _ = name;
        Some(Cow::Borrowed(value))
    }

    /// How many tokens of the prompt an answer's headers tell, for providers whose bodies do not; `header` gives the value of a
    /// name in lower case.
    fn counted(&self, header: &dyn Fn(&str) -> Option<String>) -> Option<u64> {
        let _ = header;
        None
    }

    /// Which names of tools it takes: [`names::fit`] gives those that it does not take another, where a request is translated.
    fn naming(&self, target: &Target<'_>) -> Naming {
        let _ = target;
        Naming::OPENAI
    }

    /// Writes a hub request in this dialect. Not asked of a provider that speaks [`Dialect::Chat`] itself.
    ///
    /// # Errors
    /// When the request is wrong, or this target cannot honour it.
    fn chat(&self, request: &ChatRequest<'_>, target: &Target<'_>) -> Result<Call, Error> {
        let _ = target;
        Ok(Call::json("/chat/completions", request))
    }

    /// Most tokens that an answer may think beyond the bound that a chat sets on it; `None` where nothing bounds them. Nearly all
    /// providers count thoughts within the bound.
    fn thinks_beyond(&self, request: &Envelope, target: &Target<'_>) -> Option<u64> {
        let _ = (request, target);
        Some(0)
    }

    /// Whether a picture's place may lead to something else (a film, a document): what is there decides how it is read.
    fn follows_places(&self) -> bool {
        false
    }

    /// How its streams are framed.
    fn framing(&self) -> Framing {
        Framing::Sse
    }

    /// Reads a whole answer.
    ///
    /// # Errors
    /// When it cannot be read, or reports an error although its status was good.
    fn answer(&self, body: &[u8], target: &Target<'_>) -> Result<Answer, Error> {
        let _ = target;
        openai::read_answer(body)
    }

    /// Begins to read a stream.
    fn transcoder(&self, target: &Target<'_>) -> Box<dyn Transcoder> {
        let _ = target;
        Box::new(openai::Chunks::default())
    }

    /// Reads an error answer.
    fn error(&self, status: u16, body: &[u8]) -> UpstreamError {
        openai::read_error(status, body)
    }

    /// How long an error's body asks to wait before the next try, for providers that say so there instead of in a header.
    fn retry_after(&self, body: &[u8]) -> Option<Duration> {
        let _ = body;
        None
    }

    /// Writes an embeddings request; several calls where one takes only one text.
    ///
    /// # Errors
    /// When the provider has no embeddings or cannot honour the request.
    fn embed(&self, request: &embed::Request<'_>, target: &Target<'_>) -> Result<Vec<Call>, Error> {
        let Some(path) = self.path(Operation::Embeddings, target, false)? else {
            return Err(Error::unsupported(self.kind(), "model", "this provider has no embeddings"));
        };
        let mut body = Vec::with_capacity(1024);
        chat::json(&mut body, request);
        let envelope = Envelope::read(body.into())?;
        let mut edit = envelope.edit();
        let warnings = self.adapt(Operation::Embeddings, &mut edit, target)?;
        Ok(vec![Call { path, headers: Vec::new(), body: edit.finish(), warnings }])
    }

    /// Reads the answers to [`Provider::embed`]'s calls, in their order.
    ///
    /// # Errors
    /// When they cannot be read.
    fn embeddings(&self, bodies: &[Bytes], target: &Target<'_>) -> Result<embed::Embeddings, Error> {
        let _ = target;
        embed::Embeddings::from_openai(bodies.first().map_or(&[], |body| body))
    }

    /// Writes a rerank request.
    ///
    /// # Errors
    /// When the provider has no reranking.
    fn rerank(&self, request: &rerank::Request<'_>, target: &Target<'_>) -> Result<Call, Error> {
        let _ = (request, target);
        Err(Error::unsupported(self.kind(), "model", "this provider has no reranking"))
    }

    /// Reads the answer to [`Provider::rerank`]'s call.
    ///
    /// # Errors
    /// When it cannot be read.
    fn ranking(&self, body: &[u8], target: &Target<'_>) -> Result<rerank::Ranking, Error> {
        let _ = (body, target);
        Err(Error::answer("this provider has no reranking"))
    }

    /// Answers by itself, with no upstream at all. Only `echo` does.
    ///
    /// # Errors
    /// When the request is wrong.
    fn offline(&self, request: &ChatRequest<'_>) -> Option<Result<Answer, Error>> {
        let _ = request;
        None
    }

    /// As [`Provider::offline`], for embeddings.
    fn offline_embeddings(&self, request: &embed::Request<'_>) -> Option<Result<embed::Embeddings, Error>> {
        let _ = request;
        None
    }
}

/// Reads one stream into the hub, event by event.
pub trait Transcoder: Send {
    /// Takes the next event.
    ///
    /// # Errors
    /// When it cannot be read, or reports an error of the upstream.
    fn event(&mut self, event: &Event<'_>, out: &mut dyn FnMut(Delta<'_>)) -> Result<(), Error>;

    /// The upstream has closed the stream.
    ///
    /// # Errors
    /// When the stream had not come to its end: a client must not take the part for the whole.
    fn end(&mut self, out: &mut dyn FnMut(Delta<'_>)) -> Result<(), Error>;
}

/// The error for a stream that was closed before its end.
#[must_use]
pub fn broken_off() -> Error {
    UpstreamError::new(ErrorKind::Server, "the upstream broke off the stream before the answer was complete").into()
}

/// What a provider is built from: the part of its configuration that is neither a secret nor about the network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The kind.
    pub kind: String,
    /// Scheme, host and path prefix.
    pub base_url: Option<String>,
    /// Azure's `api-version`; Anthropic's `anthropic-version`.
    pub api_version: Option<String>,
    /// Google Cloud project.
    pub project: Option<String>,
    /// Google Cloud location.
    pub location: Option<String>,
    /// AWS region.
    pub region: Option<String>,
    /// Whether there is an API key: some kinds speak differently with one (Vertex express, Bedrock keys).
    pub has_key: bool,
}

impl Settings {
    /// The configured base URL or `default`, without a slash at the end.
    #[must_use]
    pub fn base_url_or(&self, default: &str) -> String {
        self.base_url.as_deref().unwrap_or(default).trim_end_matches('/').to_owned()
    }
}

/// How a provider of a kind is made.
type Make = fn(&Settings) -> Result<Box<dyn Provider>, Error>;

/// The kinds with a dialect of their own. [`compatible::PRESETS`] has the rest.
const KINDS: &[(&str, Make)] = &[
    ("openai", |s| Ok(Box::new(openai::OpenAi::new(s)))),
    ("anthropic", |s| Ok(Box::new(anthropic::Anthropic::new(s)))),
    ("gemini", |s| Ok(Box::new(gemini::Gemini::new(s)))),
    ("vertex", |s| Ok(Box::new(vertex::Vertex::new(s)?))),
    ("azure", |s| Ok(Box::new(azure::Azure::new(s)?))),
    ("bedrock", |s| Ok(Box::new(bedrock::Bedrock::new(s)?))),
    ("cohere", |s| Ok(Box::new(cohere::Cohere::new(s)))),
    ("mistral", |s| Ok(Box::new(mistral::Mistral::new(s)))),
    ("huggingface", |s| Ok(Box::new(huggingface::HuggingFace::new(s)?))),
    ("ollama", |s| Ok(Box::new(ollama::Ollama::new(s)))),
    ("echo", |_| Ok(Box::new(echo::Echo))),
];

/// Every kind of provider that can be configured, presets included.
#[must_use]
pub fn kinds() -> Vec<&'static str> {
    let mut kinds: Vec<&str> = KINDS.iter().map(|(kind, _)| *kind).chain(compatible::PRESETS.iter().map(|p| p.kind)).collect();
    kinds.sort_unstable();
    kinds
}

/// Builds a provider.
///
/// # Errors
/// [`Error::Settings`] for an unknown kind or settings that do not fit it.
pub fn build(settings: &Settings) -> Result<Box<dyn Provider>, Error> {
    let kind = settings.kind.as_str();
    if let Some((_, make)) = KINDS.iter().find(|(name, _)| *name == kind) {
        return make(settings);
    }
    match compatible::PRESETS.iter().find(|p| p.kind == kind) {
        Some(preset) => Ok(Box::new(compatible::Compatible::new(preset, settings)?)),
        None => Err(Error::Settings(format!("unknown kind \"{kind}\"; known: {}", kinds().join(", ")))),
    }
}

/// A model's name as one segment of a path.
///
/// # Errors
/// For names that could leave the segment or break the request: empty, `.`, `..` in any place, control characters.
pub fn path_segment(model: &str) -> Result<String, Error> {
    let wrong = model.is_empty() || model == "." || model.split('/').any(|s| s == ".." || s == ".") || model.chars().any(char::is_control) || model.contains('\\');
    if wrong {
        return Err(Error::invalid("model", format!("`{}` cannot be a model's name here", model.escape_default())));
    }
    Ok(urlencoding::encode(model).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_s_name_stays_in_its_segment() {
        assert_eq!(path_segment("arn:aws:bedrock:eu-west-1:1:inference-profile/eu.x-v1:0").unwrap(), "arn%3Aaws%3Abedrock%3Aeu-west-1%3A1%3Ainference-profile%2Feu.x-v1%3A0");
        assert_eq!(path_segment("a b?c#d%2e%2e&é").unwrap(), "a%20b%3Fc%23d%252e%252e%26%C3%A9");
        for name in ["", ".", "..", "../x", "a/../b", "a/..", "a/./b", "a\nb", "a\u{0}", "a\\b", "a\u{7f}"] {
            assert!(matches!(path_segment(name), Err(Error::Invalid { param: Some(p), .. }) if p == "model"), "{name:?}");
        }
    }
}
