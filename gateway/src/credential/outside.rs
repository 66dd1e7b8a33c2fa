//! What the sources of credentials need from outside: environment variables, the clock, and HTTP with a deadline and with
//! errors that name the server, say what to check and print no secret.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::CredentialError;
use crate::fetch::{fetch, place, reasons};

/// A fetch that is not done by then has failed.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// No token answer is larger.
const LARGEST_ANSWER: usize = 256 * 1024;

type Lookup = dyn Fn(&str) -> Option<String> + Send + Sync;

/// Environment variables.
#[derive(Clone)]
pub(super) struct Env(Arc<Lookup>);

impl Env {
    /// The process's own.
    pub(super) fn process() -> Self {
        Env(Arc::new(|name| std::env::var(name).ok()))
    }

    #[cfg(test)]
    pub(super) fn of(pairs: &[(&str, &str)]) -> Self {
        let pairs: std::collections::HashMap<String, String> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Env(Arc::new(move |name| pairs.get(name).cloned()))
    }

    /// A variable; an empty one counts as not set, as the clouds' own tools have it.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|v| !v.is_empty())
    }

    /// The user's own directory.
    pub(super) fn home(&self) -> Option<String> {
        self.get("HOME").or_else(|| self.get("USERPROFILE"))
    }
}

/// The wall clock.
#[derive(Clone)]
pub(super) struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    /// The machine's own.
    pub(super) fn system() -> Self {
        Clock(Arc::new(SystemTime::now))
    }

    #[cfg(test)]
    pub(super) fn of(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Clock(Arc::new(now))
    }

    pub(super) fn now(&self) -> SystemTime {
        (self.0)()
    }
}

/// All of it.
#[derive(Clone)]
pub(super) struct Outside {
    pub(super) env: Env,
    pub(super) clock: Clock,
    pub(super) http: reqwest::Client,
}

/// One fetch: it may take several requests, but one deadline stands over all of them.
pub(super) struct Errand {
    pub(super) outside: Outside,
    deadline: Instant,
}

/// Whom a request is for, in the words of an error.
#[derive(Clone, Copy)]
pub(super) struct Server<'a> {
    /// As in "{name} at https://… answered 500".
    pub(super) name: &'a str,
    /// As in "check {check}".
    pub(super) check: &'a str,
    /// What the request carries and no error may repeat.
    pub(super) secrets: &'a [&'a str],
}

impl Errand {
    /// A fetch that begins now.
    pub(super) fn begin(outside: Outside) -> Self {
        Errand { outside, deadline: Instant::now() + TIMEOUT }
    }

    /// The client, to build requests with.
    pub(super) fn http(&self) -> &reqwest::Client {
        &self.outside.http
    }

    /// Sends a request; what comes back is the body of a good answer.
    pub(super) async fn send(&self, request: reqwest::RequestBuilder, server: Server<'_>) -> Result<Vec<u8>, CredentialError> {
        let request = request.build().map_err(|e| CredentialError::Fetch(format!("{}: the request cannot be built: {}", server.name, reasons(e))))?;
        let place = place(request.url());
        let failed = |what: String| CredentialError::Fetch(format!("{} at {place} {what}; check {}", server.name, server.check));
        let exchange = async {
            let answer = fetch(self.http(), request, LARGEST_ANSWER).await.map_err(&failed)?;
            if answer.status.is_success() {
                return Ok(answer.body);
            }
            Err(failed(match said(&answer.body, server.secrets) {
                Some(said) => format!("answered {}: {said}", answer.status.as_u16()),
                None => format!("answered {}", answer.status.as_u16()),
            }))
        };
        tokio::time::timeout_at(self.deadline, exchange).await.unwrap_or_else(|_| Err(failed(format!("did not answer within {} s", TIMEOUT.as_secs()))))
    }

    /// As [`Errand::send`], for a JSON answer.
    pub(super) async fn json<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder, server: Server<'_>) -> Result<T, CredentialError> {
        let body = self.send(request, server).await?;
        serde_json::from_slice(&body).map_err(|e| {
            // serde's own message may quote a value, and the value may be the token.
            CredentialError::Fetch(format!("{} did not answer with the JSON that was expected (line {}, column {}); check {}", server.name, e.line(), e.column(), server.check))
        })
    }
}

/// A file that holds a token and is written anew by others.
pub(super) async fn read_token(path: &std::path::Path, named_by: &str) -> Result<String, CredentialError> {
    let text = tokio::fs::read_to_string(path).await.map_err(|e| CredentialError::Fetch(format!("cannot read the token file {} ({named_by}): {e}", path.display())))?;
    match text.trim() {
        "" => Err(CredentialError::Fetch(format!("the token file {} ({named_by}) is empty", path.display()))),
        token => Ok(token.to_owned()),
    }
}

/// The text of an XML element, for answers so plain that they need no parser.
pub(super) fn element<'x>(xml: &'x str, name: &str) -> Option<&'x str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(text, _)| text.trim())
}

/// What an error answer says, in the fields that OAuth, AWS, Google and Azure have for it, without what the request carried.
fn said(body: &[u8], secrets: &[&str]) -> Option<String> {
    let mut text = match serde_json::from_slice::<serde_json::Value>(body) {
        Ok(value) => {
            let inner = value.get("error").filter(|e| e.is_object()).unwrap_or(&value);
            let fields = ["error", "error_description", "status", "Code", "code", "Message", "message"];
            fields.iter().filter_map(|name| inner.get(name)?.as_str()).collect::<Vec<_>>().join(": ")
        }
        Err(_) => {
            let xml = std::str::from_utf8(body).ok()?;
            ["Code", "Message"].iter().filter_map(|name| element(xml, name)).collect::<Vec<_>>().join(": ")
        }
    };
    for secret in secrets.iter().filter(|s| s.len() > 3) {
        text = text.replace(secret, "***").replace(&*urlencoding::encode(secret), "***");
    }
    // Shortened last, lest a half of a secret be left.
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect();
    if text.trim().is_empty() { None } else { Some(text) }
}
