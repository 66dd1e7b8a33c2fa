//! Every error becomes a [`Fault`]: what the client is told, what only the log is told, whose blame it is and whether
//! another try is worth it. Each crate's errors are mapped here and nowhere else.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use providers::door::{ClientError, door};
use providers::{Dialect, Error, ErrorKind, UpstreamError};

use crate::near::nearest;
use crate::secret::Shown;

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The client's.
    Client,
    /// An upstream's.
    Upstream,
    /// Ours, or the configuration's.
    Gateway,
}

/// What one response says when something went wrong.
#[derive(Debug, Clone)]
pub struct Fault {
    /// What the client is told.
    pub told: ClientError,
    /// What only the log is told.
    pub detail: Option<String>,
    /// Whose fault it is.
    pub blame: Blame,
    /// When to come again.
    pub retry_after: Option<Duration>,
    /// Headers of the upstream's that the client should have (rate limits).
    pub headers: HeaderMap,
    /// Whether it is one of many of an outage of which the log has been told.
    pub known: bool,
}

impl Fault {
    /// A fault of the client's.
    #[must_use]
    pub fn client(status: StatusCode, kind: ErrorKind, message: impl Into<String>) -> Self {
        Fault::new(Blame::Client, status, kind, message)
    }

    /// A fault of an upstream's.
    #[must_use]
    pub fn upstream(status: StatusCode, kind: ErrorKind, message: impl Into<String>) -> Self {
        Fault::new(Blame::Upstream, status, kind, message)
    }

    /// A fault of ours.
    #[must_use]
    pub fn gateway(message: impl Into<String>) -> Self {
        Fault::new(Blame::Gateway, StatusCode::INTERNAL_SERVER_ERROR, ErrorKind::Server, message)
    }

    fn new(blame: Blame, status: StatusCode, kind: ErrorKind, message: impl Into<String>) -> Self {
        let told = ClientError { status: status.as_u16(), kind, message: message.into(), param: None, code: None };
        Fault { told, detail: None, blame, retry_after: None, headers: HeaderMap::new(), known: false }
    }

    /// With a code of its own.
    #[must_use]
    pub fn code(mut self, code: impl Into<String>) -> Self {
        self.told.code = Some(code.into());
        self
    }

    /// With the parameter at fault.
    #[must_use]
    pub fn param(mut self, param: impl Into<String>) -> Self {
        self.told.param = Some(param.into());
        self
    }

    /// With words for the log alone.
    #[must_use]
    pub fn detail(mut self, detail: impl ToString) -> Self {
        self.detail = Some(detail.to_string());
        self
    }

    /// Without the secrets that an upstream may have repeated.
    pub fn hide(&mut self, shown: &Shown) {
        shown.hide(&mut self.told.message);
        if let Some(detail) = &mut self.detail {
            shown.hide(detail);
        }
    }

    /// The two texts as they may be written down: what stands in quotes may be a piece of a prompt or of an answer, and is
    /// left out unless content may be written.
    #[must_use]
    pub fn written(&self, content: bool) -> (String, Option<String>) {
        let write = |text: &String| if content { text.clone() } else { unquoted(text) };
        (write(&self.told.message), self.detail.as_ref().map(write))
    }

    /// With a time to come again.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// One of an outage of which the log has been told: it is not told again for every request.
    #[must_use]
    pub fn known(mut self) -> Self {
        self.known = true;
        self
    }

    /// With another status.
    #[must_use]
    pub fn status_of(mut self, status: StatusCode) -> Self {
        self.told.status = status.as_u16();
        self
    }

    /// Tells SDKs that trying again is of no use.
    #[must_use]
    pub fn never_again(mut self) -> Self {
        self.headers.insert(HeaderName::from_static("x-should-retry"), HeaderValue::from_static("false"));
        self
    }

    /// The status that the client gets.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.told.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The body in a dialect's shape.
    #[must_use]
    pub fn body(&self, dialect: Dialect) -> Vec<u8> {
        door(dialect).error(&self.told)
    }

    /// The headers that go with it.
    pub fn write_headers(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        if let Some(after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs_f64().ceil() as u64));
            headers.insert(HeaderName::from_static("retry-after-ms"), HeaderValue::from(after.as_millis() as u64));
        }
        if self.blame != Blame::Client {
            // Tries have been made on this side already: an SDK's own would multiply them.
            headers.insert(HeaderName::from_static("x-should-retry"), HeaderValue::from_static(if self.retry_after.is_some() { "true" } else { "false" }));
        }
    }
}

impl From<UpstreamError> for Fault {
    fn from(e: UpstreamError) -> Self {
        let blame = match e.kind {
            ErrorKind::InvalidRequest | ErrorKind::ContextLength | ErrorKind::ContentFilter | ErrorKind::TooLarge | ErrorKind::NotFound => Blame::Client,
            _ => Blame::Upstream,
        };
        // An upstream that refuses our credential is no fault of the client's key: it must not look like one.
        let (status, kind, message, code) = match e.kind {
            ErrorKind::Authentication | ErrorKind::Permission => {
                (502, ErrorKind::Server, "the provider refused the gateway's credential; the operator has to look at it".to_owned(), Some("upstream_credential".to_owned()))
            }
            kind => (kind.status(), kind, e.message.clone(), e.code),
        };
        Fault { told: ClientError { status, kind, message, param: e.param, code }, detail: Some(e.message), blame, retry_after: None, headers: HeaderMap::new(), known: false }
    }
}

impl From<Error> for Fault {
    fn from(e: Error) -> Self {
        let bad = |message: String| Fault::client(StatusCode::BAD_REQUEST, ErrorKind::InvalidRequest, message);
        match e {
            Error::Invalid { param, message } => {
                let mut fault = bad(message);
                fault.told.param = param;
                fault
            }
            Error::Unsupported { ref param, .. } => bad(e.to_string()).param(param.clone()).code("unsupported_parameter"),
            Error::Json(e) => bad(e.to_string()).code("invalid_json"),
            Error::Answer(detail) => Fault::upstream(StatusCode::BAD_GATEWAY, ErrorKind::Server, "the provider's answer could not be read").code("upstream_unreadable").detail(detail),
            Error::Upstream(e) => e.into(),
            Error::Settings(detail) => Fault::gateway("the gateway's configuration of this provider is wrong").detail(detail),
        }
    }
}

impl From<crate::credential::CredentialError> for Fault {
    fn from(e: crate::credential::CredentialError) -> Self {
        Fault::upstream(StatusCode::BAD_GATEWAY, ErrorKind::Server, "the gateway has no valid credential for this provider at the moment; the operator has to look at it")
            .code("upstream_credential")
            .detail(e)
    }
}

/// A text without what stands between its first double quote and its last: inside, anything may be quoted too.
fn unquoted(text: &str) -> String {
    match (text.find('"'), text.rfind('"')) {
        (Some(first), Some(last)) if first < last => format!("{}…{}", &text[..=first], &text[last..]),
        _ => text.to_owned(),
    }
}

/// The model that a client asked for is not here.
#[must_use]
pub fn model_not_found(asked: &str, known: &[&str]) -> Fault {
    let mut message = format!("the model `{}` does not exist here", asked.chars().take(128).collect::<String>());
    let near = nearest(asked, known);
    if !near.is_empty() {
        message.push_str("; nearest: ");
        message.push_str(&near.join(", "));
    }
    Fault::client(StatusCode::NOT_FOUND, ErrorKind::NotFound, message).code("model_not_found").param("model")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_is_written_only_where_content_may_be() {
        let fault = Fault::gateway("no").detail("invalid type: string \"a \"private\" word\", expected a sequence");
        assert_eq!(fault.written(false).1.as_deref(), Some("invalid type: string \"…\", expected a sequence"));
        assert!(fault.written(true).1.is_some_and(|d| d.contains("private")));
        assert_eq!(Fault::gateway("an inch is 1\"").written(false).0, "an inch is 1\"");
    }

    #[test]
    fn a_refused_credential_does_not_look_like_the_client_s() {
        let fault = Fault::from(UpstreamError::new(ErrorKind::Authentication, "Incorrect API key provided: sk-secret"));
        assert_eq!(fault.status(), StatusCode::BAD_GATEWAY);
        assert!(!String::from_utf8(fault.body(Dialect::Chat)).unwrap().contains("sk-secret"));
    }
}
