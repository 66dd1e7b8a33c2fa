//! The head of a request as bytes, and the head of an answer out of them.

use std::ops::Range;

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use smallvec::SmallVec;

use super::{Call, Error, Proxy};

/// Most headers that an answer may have.
const MOST_HEADERS: usize = 100;
/// Largest head of an answer, bytes.
pub(super) const LARGEST: usize = 64 << 10;

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Whether the connection may be used again after the body.
    pub(super) keep_alive: bool,
}

/// Writes the head of a request, down to the blank line. A proxy that passes it on is told where to.
pub(super) fn write(call: &Call, relay: Option<&Proxy>) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let authority = call.uri.authority().map_or("", http::uri::Authority::as_str);
    // Names and passwords in a URL are no part of the host.
    let host = authority.rsplit('@').next().unwrap_or(authority).as_bytes();
    out.extend_from_slice(call.method.as_str().as_bytes());
    out.push(b' ');
    if relay.is_some() {
        out.extend_from_slice(b"http://");
        out.extend_from_slice(host);
    }
    out.extend_from_slice(call.uri.path_and_query().map_or("/", |p| p.as_str()).as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if !call.headers.contains_key(header::HOST) {
        field(&mut out, "host", host);
    }
    if let Some(value) = relay.and_then(|p| p.authorization.as_ref()) {
        field(&mut out, "proxy-authorization", value.as_bytes());
    }
    for (name, value) in &call.headers {
        field(&mut out, name.as_str(), value.as_bytes());
    }
    if !call.body.is_empty() || call.method == Method::POST || call.method == Method::PUT {
        field(&mut out, "content-length", call.body.len().to_string().as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out
}

fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Where a header's name and value stand in a head.
type Spans = (Range<usize>, Range<usize>);

/// Takes the head of an answer out of the buffer. `None` while it is incomplete. Interim answers (100, 103) are given out like
/// others; the caller passes over them. Values are slices of what came.
pub(super) fn read(buffer: &mut BytesMut) -> Result<Option<Head>, Error> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(buffer) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if buffer.len() > LARGEST => return Err(Error::Malformed("its head is too large")),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Error::Malformed("it has too many headers")),
        Err(_) => return Err(Error::Malformed("its head cannot be read")),
    };
    let status = response.code.and_then(|c| StatusCode::from_u16(c).ok()).ok_or(Error::Malformed("it has no status"))?;
    let version = response.version;
    let start = buffer.as_ptr() as usize;
    // What is empty may stand anywhere.
    let span = |part: &[u8]| {
        let at = if part.is_empty() { 0 } else { part.as_ptr() as usize - start };
        at..at + part.len()
    };
    let spans: SmallVec<[Spans; 24]> = response.headers.iter().map(|f| (span(f.name.as_bytes()), span(f.value))).collect();
    let bytes = buffer.split_to(length).freeze();
    let mut headers = HeaderMap::with_capacity(spans.len());
    for (name, value) in spans {
        let name = HeaderName::from_bytes(&bytes[name]).map_err(|_| Error::Malformed("a header's name cannot be read"))?;
        let value = HeaderValue::from_maybe_shared(bytes.slice(value)).map_err(|_| Error::Malformed("a header's value cannot be read"))?;
        headers.append(name, value);
    }
    let says = |word: &str| headers.get_all(header::CONNECTION).iter().any(|v| v.to_str().is_ok_and(|v| v.split(',').any(|w| w.trim().eq_ignore_ascii_case(word))));
    let keep_alive = if version == Some(0) { says("keep-alive") } else { !says("close") };
    Ok(Some(Head { status, headers, keep_alive }))
}
