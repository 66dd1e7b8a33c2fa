//! Reads what the client sends, within its bounds of kind, size and time.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use providers::{ErrorKind, Operation};

use crate::exchange::Exchange;
use crate::fault::Fault;
use crate::rules::Limits;

/// Whether an operation's body is a form.
#[must_use]
pub fn is_form(operation: Operation) -> bool {
    matches!(operation, Operation::ImageEdits | Operation::Transcriptions | Operation::Translations)
}

/// What can be seen to be wrong before the body is read.
///
/// # Errors
/// 405, 413 or 415, saying what would be right.
pub fn head(x: &Exchange) -> Result<(), Fault> {
    let (method, headers, operation, limits) = (&x.method, &x.headers, x.operation, &x.rules.limits);
    if method != Method::POST {
        return Err(Fault::client(StatusCode::METHOD_NOT_ALLOWED, ErrorKind::InvalidRequest, format!("this path takes POST, not {method}")).code("method_not_allowed"));
    }
    kind(headers, is_form(operation))?;
    if headers.get(header::CONTENT_ENCODING).is_some_and(|e| e != "identity") {
        return Err(
            Fault::client(StatusCode::UNSUPPORTED_MEDIA_TYPE, ErrorKind::InvalidRequest, "compressed request bodies are not read; send the body without content-encoding").code("unsupported_encoding")
        );
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|l| l > limits.body as u64) {
        return Err(too_large(limits));
    }
    Ok(())
}

/// Whether a body is a form where one is wanted, and JSON where that is.
///
/// # Errors
/// 415, saying what would be right.
pub fn kind(headers: &HeaderMap, form: bool) -> Result<(), Fault> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let media = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let (good, wanted) = if form { (media == "multipart/form-data", "multipart/form-data") } else { (media == "application/json" || media.ends_with("+json"), "application/json") };
    if good {
        return Ok(());
    }
    let message = format!("the content type must be {wanted}, and is {}", if media.is_empty() { "missing".to_owned() } else { format!("{media:?}") });
    Err(Fault::client(StatusCode::UNSUPPORTED_MEDIA_TYPE, ErrorKind::InvalidRequest, message).code("unsupported_media_type"))
}

fn too_large(limits: &Limits) -> Fault {
    Fault::client(StatusCode::PAYLOAD_TOO_LARGE, ErrorKind::TooLarge, format!("the body is larger than {} bytes, which is the limit here (`limits.body`)", limits.body)).code("body_too_large")
}

/// Reads a body within its bounds of size and time. A body that comes in one frame is not copied.
///
/// # Errors
/// Too large, too slow, or broken off.
pub async fn body(mut body: Incoming, limits: &Limits) -> Result<Bytes, Fault> {
    let reading = async {
        let mut whole: Option<Bytes> = None;
        let mut joined = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| Fault::client(StatusCode::BAD_REQUEST, ErrorKind::InvalidRequest, "the body broke off").code("broken_body").detail(e))?;
            let Ok(data) = frame.into_data() else { continue };
            if whole.as_ref().map_or(joined.len(), Bytes::len) + data.len() > limits.body {
                return Err(too_large(limits));
            }
            match whole.take() {
                None if joined.is_empty() => whole = Some(data),
                None => joined.extend_from_slice(&data),
                Some(first) => {
                    let hint = usize::try_from(body.size_hint().lower()).unwrap_or(0).min(limits.body);
                    joined.reserve(first.len() + data.len() + hint);
                    joined.extend_from_slice(&first);
                    joined.extend_from_slice(&data);
                }
            }
        }
        Ok(whole.unwrap_or_else(|| joined.freeze()))
    };
    tokio::time::timeout(limits.read, reading).await.map_err(|_| Fault::client(StatusCode::REQUEST_TIMEOUT, ErrorKind::Timeout, "the body did not come in time").code("request_timeout"))?
}
