//! What can go wrong in a translation, and what an upstream's error means, by no dialect in particular.

/// Why a request or an answer cannot be translated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The client's request is wrong in itself.
    #[error("{message}")]
    Invalid {
        /// The parameter at fault, as a path (`messages[2].content`).
        param: Option<String>,
        /// What to do about it.
        message: String,
    },
    /// The request is right, but this target cannot honour one of its parameters.
    #[error("`{param}` is not supported by {provider}: {message}")]
    Unsupported {
        /// The parameter.
        param: String,
        /// The provider's kind.
        provider: &'static str,
        /// Why, or what to do instead.
        message: String,
    },
    /// The body is not acceptable JSON.
    #[error(transparent)]
    Json(#[from] crate::json::JsonError),
    /// The upstream's answer cannot be read.
    #[error("the upstream's answer could not be read: {0}")]
    Answer(String),
    /// The upstream reported an error, in its answer or in its stream.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The provider's settings do not fit its kind.
    #[error("{0}")]
    Settings(String),
}

impl Error {
    /// A request that is wrong in itself.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Error::Invalid { param: Some(param.into()), message: message.into() }
    }

    /// A parameter that this target cannot honour.
    pub fn unsupported(provider: &'static str, param: impl Into<String>, message: impl Into<String>) -> Self {
        Error::Unsupported { param: param.into(), provider, message: message.into() }
    }

    /// An answer that cannot be read.
    pub fn answer(why: impl std::fmt::Display) -> Self {
        Error::Answer(why.to_string())
    }
}

/// What kind of error an upstream reported; each has one place in every dialect's vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is malformed or refused (400, 422).
    InvalidRequest,
    /// The prompt does not fit the model's context.
    ContextLength,
    /// The provider's content policy refused it.
    ContentFilter,
    /// The credential is missing or wrong (401).
    Authentication,
    /// The credential may not do this (403).
    Permission,
    /// No such model or resource (404).
    NotFound,
    /// The request is too large (413).
    TooLarge,
    /// Too many requests or tokens at this moment (429).
    RateLimit,
    /// The account has no money or quota left.
    Quota,
    /// The upstream took too long (408, 504).
    Timeout,
    /// The upstream is overloaded (503, Anthropic's 529), or busy with another request (409).
    Overloaded,
    /// Anything else that is the upstream's fault (5xx).
    Server,
}

impl ErrorKind {
    /// The kind that a bare status suggests.
    #[must_use]
    pub fn from_status(status: u16) -> Self {
        match status {
            401 => ErrorKind::Authentication,
            402 => ErrorKind::Quota,
            403 => ErrorKind::Permission,
            404 => ErrorKind::NotFound,
            408 | 504 => ErrorKind::Timeout,
            413 => ErrorKind::TooLarge,
            429 => ErrorKind::RateLimit,
            // A conflict passes by itself, and OpenAI's SDKs try again on it.
            409 | 503 | 529 => ErrorKind::Overloaded,
            400..=499 => ErrorKind::InvalidRequest,
            _ => ErrorKind::Server,
        }
    }

    /// The HTTP status that a client is answered with.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            ErrorKind::InvalidRequest | ErrorKind::ContextLength | ErrorKind::ContentFilter => 400,
            ErrorKind::Authentication => 401,
            ErrorKind::Permission => 403,
            ErrorKind::NotFound => 404,
            ErrorKind::TooLarge => 413,
            ErrorKind::RateLimit | ErrorKind::Quota => 429,
            ErrorKind::Timeout => 504,
            ErrorKind::Overloaded => 503,
            ErrorKind::Server => 502,
        }
    }

    /// OpenAI's `type`.
    #[must_use]
    pub fn openai_type(self) -> &'static str {
        match self {
            ErrorKind::InvalidRequest | ErrorKind::ContextLength | ErrorKind::ContentFilter | ErrorKind::NotFound | ErrorKind::TooLarge => "invalid_request_error",
            ErrorKind::Authentication => "authentication_error",
            ErrorKind::Permission => "permission_error",
            ErrorKind::RateLimit => "rate_limit_error",
            ErrorKind::Quota => "insufficient_quota",
            ErrorKind::Timeout => "timeout_error",
            ErrorKind::Overloaded => "overloaded_error",
            ErrorKind::Server => "server_error",
        }
    }

    /// OpenAI's `code`, where there is an established one.
    #[must_use]
    pub fn openai_code(self) -> Option<&'static str> {
        match self {
            ErrorKind::ContextLength => Some("context_length_exceeded"),
            ErrorKind::ContentFilter => Some("content_filter"),
            ErrorKind::Authentication => Some("invalid_api_key"),
            ErrorKind::RateLimit => Some("rate_limit_exceeded"),
            ErrorKind::Quota => Some("insufficient_quota"),
            ErrorKind::NotFound => Some("model_not_found"),
            _ => None,
        }
    }

    /// OpenAI's `code` for an error that the upstream calls `said`. Clients act on a few words (they shorten a conversation,
    /// or stop trying), so that these stand in the place of a host's own.
    #[must_use]
    pub fn code_for(self, said: Option<&str>) -> Option<&str> {
        match (self, said) {
            (ErrorKind::ContentFilter, Some("content_policy_violation")) => said,
            (ErrorKind::ContextLength | ErrorKind::ContentFilter | ErrorKind::Quota, _) | (_, None) => self.openai_code(),
            (_, Some(_)) => said,
        }
    }

    /// Anthropic's `type`.
    #[must_use]
    pub fn anthropic_type(self) -> &'static str {
        match self {
            ErrorKind::InvalidRequest | ErrorKind::ContextLength | ErrorKind::ContentFilter => "invalid_request_error",
            ErrorKind::Authentication => "authentication_error",
            ErrorKind::Permission => "permission_error",
            ErrorKind::NotFound => "not_found_error",
            ErrorKind::TooLarge => "request_too_large",
            ErrorKind::RateLimit => "rate_limit_error",
            ErrorKind::Quota => "billing_error",
            ErrorKind::Timeout => "timeout_error",
            ErrorKind::Overloaded => "overloaded_error",
            ErrorKind::Server => "api_error",
        }
    }

    /// Google's `status`.
    #[must_use]
    pub fn google_status(self) -> &'static str {
        match self {
            ErrorKind::InvalidRequest | ErrorKind::ContextLength | ErrorKind::ContentFilter | ErrorKind::TooLarge => "INVALID_ARGUMENT",
            ErrorKind::Authentication => "UNAUTHENTICATED",
            ErrorKind::Permission => "PERMISSION_DENIED",
            ErrorKind::NotFound => "NOT_FOUND",
            ErrorKind::RateLimit | ErrorKind::Quota => "RESOURCE_EXHAUSTED",
            ErrorKind::Timeout => "DEADLINE_EXCEEDED",
            ErrorKind::Overloaded => "UNAVAILABLE",
            ErrorKind::Server => "INTERNAL",
        }
    }
}

/// An error as an upstream reported it, read from any dialect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct UpstreamError {
    /// What kind it is.
    pub kind: ErrorKind,
    /// The upstream's own words. Shown to the client.
    pub message: String,
    /// The upstream's own code, where it gave one.
    pub code: Option<String>,
    /// The parameter at fault, where it gave one.
    pub param: Option<String>,
}

impl UpstreamError {
    /// An error with nothing but a kind and a message.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        UpstreamError { kind, message: message.into(), code: None, param: None }
    }

    /// Sharpens the kind by what the message says: providers put the most useful distinctions into prose.
    #[must_use]
    pub fn sharpened(mut self) -> Self {
        let text = self.message.to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|w| text.contains(w));
        self.kind = match self.kind {
            // Some hosts tell it with status 500, or inside an answer of status 200.
            ErrorKind::InvalidRequest | ErrorKind::TooLarge | ErrorKind::Server
                if says(&[
                    "maximum context length",
                    "context length exceeded",
                    "context_length_exceeded",
                    "prompt is too long",
                    "input is too long",
                    "too many tokens",
                    "exceeds the maximum number of tokens",
                    "input token count",
                    "context window",
                    "exceed context limit",
                    "exceeds the context length",
                    "available context size",
                    "greater than the context length",
                    "longer than the context length",
                    "reduce the length of the messages",
                    "maximum prompt length",
                    "longer than the maximum model length",
                    "`inputs` tokens + `max_new_tokens` must be",
                    "range of input length should be",
                ]) =>
            {
                ErrorKind::ContextLength
            }
            ErrorKind::InvalidRequest if says(&["content management policy", "content_filter", "safety system", "content policy", "inappropriate content", "requires moderation"]) => {
                ErrorKind::ContentFilter
            }
            ErrorKind::InvalidRequest if says(&["api key not valid", "api_key_invalid", "invalid api key"]) => ErrorKind::Authentication,
            ErrorKind::InvalidRequest | ErrorKind::RateLimit | ErrorKind::Permission
                if says(&[
                    "insufficient_quota",
                    "exceeded your current quota",
                    "credit balance is too low",
                    "insufficient balance",
                    "insufficient credits",
                    "used all available credits",
                    "doesn't have any credits",
                    "credit limit exceeded",
                    "spending limit",
                ]) =>
            {
                ErrorKind::Quota
            }
            kind => kind,
        };
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_read_the_words_that_they_act_on() {
        assert_eq!(ErrorKind::ContextLength.code_for(Some("invalid_request_error")), Some("context_length_exceeded"));
        assert_eq!(ErrorKind::Quota.code_for(None), Some("insufficient_quota"));
        assert_eq!(ErrorKind::ContentFilter.code_for(Some("content_policy_violation")), Some("content_policy_violation"));
        assert_eq!(ErrorKind::NotFound.code_for(Some("DeploymentNotFound")), Some("DeploymentNotFound"));
        assert_eq!(ErrorKind::Server.code_for(None), None);
    }
}
