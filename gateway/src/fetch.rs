//! Answers of servers that are asked in passing (token servers, the keys of issuers): fetched whole and bounded, with errors
//! that name the reason and no secret.

use http::{HeaderMap, StatusCode};

/// What a server answered.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// Sends a request and reads the answer, which may have this many bytes. The error goes on after the server's name: "cannot
/// be reached: …". The deadline is the caller's.
pub(crate) async fn fetch(http: &reqwest::Client, request: reqwest::Request, largest: usize) -> Result<Answer, String> {
    let mut response = http.execute(request).await.map_err(|e| format!("cannot be reached: {}", reasons(e)))?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| format!("broke off its answer: {}", reasons(e)))? {
        if body.len() + chunk.len() > largest {
            return Err(format!("answered with more than {} KiB", largest >> 10));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status: response.status(), headers: std::mem::take(response.headers_mut()), body })
}

/// Scheme, host and path: a query or user info may hold a secret.
pub(crate) fn place(url: &reqwest::Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

/// An error with its causes, without its URL.
pub(crate) fn reasons(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(e) = cause {
        text.push_str(": ");
        text.push_str(&e.to_string());
        cause = e.source();
    }
    text
}
