//! The page for people: one document, with its style and its script in it and nothing from elsewhere.

use std::sync::OnceLock;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

const HTML: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/script.js");

/// The document, and what a browser may do with it.
fn document() -> &'static (Bytes, HeaderValue) {
    static DOCUMENT: OnceLock<(Bytes, HeaderValue)> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        let html = HTML.replace("/* style */", STYLE).replace("/* script */", SCRIPT);
        // Style and script are allowed by what is in them: nothing that is smuggled in is.
        let hash = |text: &str| STANDARD.encode(Sha256::digest(text.as_bytes()));
        let policy = format!(
            "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            hash(SCRIPT),
            hash(STYLE)
        );
        (html.into(), HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'")))
    })
}

/// The page.
pub(super) async fn serve() -> Response {
    let (html, policy) = document();
    let mut response = ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], html.clone()).into_response();
    guard(response.headers_mut(), policy.clone());
    response
}

/// What goes with every page: what it may do, and that it is never framed, guessed at, or told elsewhere.
pub(super) fn guard(headers: &mut HeaderMap, policy: HeaderValue) {
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin"));
    // A newer gateway brings a newer page.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
}
