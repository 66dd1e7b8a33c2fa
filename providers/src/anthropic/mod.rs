//! Anthropic's Messages API, and Claude wherever it is hosted: the writer of requests and the readers of answers and
//! streams are public for the hosts that wrap the same dialect in their own paths and headers.

mod answer;
mod content;
mod history;
pub mod model;
mod request;
mod schema;
mod stream;
mod thinking;
mod tools;
mod usage;

pub use answer::read as read_answer;
pub use request::write as write_request;
pub(crate) use schema::is_closed;
pub use stream::Events;
pub(crate) use tools::NAMING;
pub use usage::{MessagesUsage, tap_usage};

use crate::answer::Answer;
use crate::detour::Detours;
use crate::envelope::{Edit, Envelope};
use crate::error::{ErrorKind, UpstreamError};
use crate::names::Naming;
use crate::wire::ChatRequest;
use crate::{Auth, Call, Dialect, Error, Operation, Provider, Settings, Target, Transcoder, messages, openai, rate};

/// The version of the API that this code was written for. What an SDK sends may be newer.
const VERSION: &str = "2023-06-01";

/// How a host of Claude differs from Anthropic's own.
#[derive(Debug, Clone, Copy)]
pub struct Host {
    /// The provider's kind, for errors.
    pub kind: &'static str,
    /// `anthropic_version` where the host wants it in the body; the model's name then stands in the path, not in the body.
    pub version_in_body: Option<&'static str>,
    /// Whether `stream` stands in the body; if not, the path says it.
    pub stream_in_body: bool,
    /// Whether the host takes `output_config` (effort and format).
    pub output_config: bool,
    /// Whether the host fetches images and documents by URL.
    pub urls: bool,
}

impl Host {
    /// Anthropic itself.
    pub const ANTHROPIC: Host = Host { kind: "anthropic", version_in_body: None, stream_in_body: true, output_config: true, urls: true };
    /// Google's Vertex AI: `rawPredict` and `streamRawPredict`.
    pub const VERTEX: Host = Host { kind: "vertex", version_in_body: Some("vertex-2023-10-16"), stream_in_body: true, output_config: true, urls: false };
}

/// A tool by which another model of Claude's is asked, at its own price.
pub(crate) const DETOURS: Detours = Detours { fields: &[], tools: &["advisor"] };

/// Anthropic, or any host that speaks exactly as it does.
#[derive(Debug)]
pub struct Anthropic {
    base_url: String,
    version: String,
}

impl Anthropic {
    /// Anthropic itself unless the settings name another place.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Anthropic { base_url: settings.base_url_or("https://api.anthropic.com/v1"), version: settings.api_version.clone().unwrap_or_else(|| VERSION.to_owned()) }
    }
}

impl Provider for Anthropic {
    fn kind(&self) -> &'static str {
        "anthropic"
    }

    fn base_url(&self) -> &str {
        &self.base_url
    }

    fn auth(&self) -> Auth {
        Auth::Header("x-api-key")
    }

    fn path(&self, operation: Operation, _: &Target<'_>, _: bool) -> Result<Option<String>, Error> {
        Ok(match operation {
            Operation::Chat(Dialect::Messages) => Some("/messages".to_owned()),
            Operation::CountMessages => Some("/messages/count_tokens".to_owned()),
            _ => None,
        })
    }

    fn adapt(&self, _: Operation, edit: &mut Edit<'_>, target: &Target<'_>) -> Result<Vec<String>, Error> {
        adapt(edit, target)
    }

    fn headers(&self) -> Vec<(&'static str, String)> {
        vec![("anthropic-version", self.version.clone())]
    }

    fn forwards(&self) -> &'static [&'static str] {
        &["anthropic-beta"]
    }

    fn naming(&self, _: &Target<'_>) -> Naming {
        NAMING
    }

    fn detours(&self) -> Detours {
        DETOURS
    }

    fn other_rates(&self, operation: Operation, body: &Envelope) -> Vec<&'static str> {
        rate::of_anthropic(operation, body)
    }

    fn chat(&self, request: &ChatRequest<'_>, target: &Target<'_>) -> Result<Call, Error> {
        write_request(request, target, &Host::ANTHROPIC, "/messages")
    }

    fn answer(&self, body: &[u8], _: &Target<'_>) -> Result<Answer, Error> {
        read_answer(body)
    }

    fn transcoder(&self, _: &Target<'_>) -> Box<dyn Transcoder> {
        Box::new(Events::default())
    }

    fn error(&self, status: u16, body: &[u8]) -> UpstreamError {
        read_error(status, body)
    }
}

/// What every Messages body that passes needs: the target's model, and nothing in the history that the door made of
/// another provider's answer.
///
/// # Errors
/// When the history cannot be read.
pub fn adapt(edit: &mut Edit<'_>, target: &Target<'_>) -> Result<Vec<String>, Error> {
    let envelope = edit.envelope();
    if envelope.model() != target.model {
        edit.set_text("model", target.model);
    }
    if let Some(clean) = messages::clean_history(envelope)? {
        edit.set("messages", clean);
    }
    Ok(Vec::new())
}

/// Reads an error body, or an `error` event: `{"type": "error", "error": {"type", "message"}}`.
#[must_use]
pub fn read_error(status: u16, body: &[u8]) -> UpstreamError {
    #[derive(serde::Deserialize)]
    struct Body {
        error: Inner,
    }
    #[derive(serde::Deserialize)]
    struct Inner {
        r#type: String,
        message: Option<String>,
    }
    let kind = |name: &str| {
        Some(match name {
            "invalid_request_error" => ErrorKind::InvalidRequest,
            "authentication_error" => ErrorKind::Authentication,
            "billing_error" => ErrorKind::Quota,
            "permission_error" => ErrorKind::Permission,
            "not_found_error" => ErrorKind::NotFound,
            "request_too_large" => ErrorKind::TooLarge,
            "rate_limit_error" => ErrorKind::RateLimit,
            "timeout_error" => ErrorKind::Timeout,
            "overloaded_error" => ErrorKind::Overloaded,
            "api_error" => ErrorKind::Server,
            _ => return None,
        })
    };
    // A host's own error, or a proxy's, is in no shape of Anthropic's.
    match serde_json::from_slice::<Body>(body).ok().map(|b| b.error) {
        Some(Inner { r#type, message: Some(message) }) => match kind(&r#type) {
            Some(kind) => UpstreamError::new(kind, message).sharpened(),
            None => openai::read_error(status, body),
        },
        _ => openai::read_error(status, body),
    }
}
