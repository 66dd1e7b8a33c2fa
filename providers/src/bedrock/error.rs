//! Bedrock's errors: the exception's name where the body or the stream gives it, the status and the message where not.

use crate::error::{ErrorKind, UpstreamError};

/// Reads an error answer: `{"message": …}`, with `__type` from some front ends.
pub(super) fn read(status: u16, body: &[u8]) -> UpstreamError {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(body) else { return crate::openai::read_error(status, body) };
    let name = value["__type"].as_str().or_else(|| value["code"].as_str()).unwrap_or_default();
    // `com.amazon.coral.service#ThrottlingException` and `ThrottlingException:http://…` are the same exception.
    let name = name.rsplit('#').next().unwrap_or(name).split(':').next().unwrap_or(name);
    let message = value["message"].as_str().or_else(|| value["Message"].as_str()).filter(|m| !m.is_empty());
    let message = message.map_or_else(|| format!("the upstream answered with status {status}"), str::to_owned);
    let kind = kind_of(name).unwrap_or(match status {
        // The model failed, not the request.
        424 => ErrorKind::Server,
        _ => ErrorKind::from_status(status),
    });
    build(kind, name, message)
}

/// Reads an exception in a stream, as [`crate::eventstream`] gives it: `{"exception": NAME, "payload": TEXT}`.
pub(super) fn read_exception(data: &str) -> UpstreamError {
    let value: serde_json::Value = serde_json::from_str(data).unwrap_or_default();
    let name = value["exception"].as_str().unwrap_or_default();
    let payload = value["payload"].as_str().unwrap_or_default();
    let inner: serde_json::Value = serde_json::from_str(payload).unwrap_or_default();
    let text = |key: &str| inner[key].as_str().filter(|t| !t.is_empty());
    let message = text("message").or_else(|| text("Message")).or_else(|| text("originalMessage")).map(str::to_owned);
    let message = message.unwrap_or_else(|| if payload.is_empty() { format!("the upstream broke off the stream with {name}") } else { payload.chars().take(500).collect() });
    let original = inner["originalStatusCode"].as_u64().and_then(|s| u16::try_from(s).ok()).filter(|s| matches!(s, 429 | 503 | 529));
    let kind = original.map(ErrorKind::from_status).or_else(|| kind_of(name)).unwrap_or(ErrorKind::Server);
    build(kind, name, message)
}

/// The kind an exception's name stands for. Streams spell it with a small letter.
fn kind_of(name: &str) -> Option<ErrorKind> {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    let any = |others: &[&str]| others.iter().any(|o| is(o));
    if any(&["ThrottlingException", "ModelNotReadyException", "TooManyRequestsException"]) {
        Some(ErrorKind::RateLimit)
    } else if is("ServiceQuotaExceededException") {
        Some(ErrorKind::Quota)
    } else if is("ModelTimeoutException") {
        Some(ErrorKind::Timeout)
    } else if any(&["ModelStreamErrorException", "ModelErrorException", "InternalServerException", "InternalFailure"]) {
        Some(ErrorKind::Server)
    } else if is("ServiceUnavailableException") {
        Some(ErrorKind::Overloaded)
    } else if is("ValidationException") {
        Some(ErrorKind::InvalidRequest)
    } else if is("ResourceNotFoundException") {
        Some(ErrorKind::NotFound)
    } else if is("AccessDeniedException") {
        Some(ErrorKind::Permission)
    } else if any(&["UnrecognizedClientException", "ExpiredTokenException", "InvalidSignatureException", "IncompleteSignatureException", "MissingAuthenticationTokenException"]) {
        Some(ErrorKind::Authentication)
    } else {
        None
    }
}

fn build(kind: ErrorKind, name: &str, message: String) -> UpstreamError {
    let message = inner_message(&message).unwrap_or(message);
    let mut error = UpstreamError::new(kind, message).sharpened();
    let text = error.message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|w| text.contains(w));
    error.kind = match error.kind {
        ErrorKind::InvalidRequest if says(&["number of input tokens exceeds", "input tokens exceeded", "too many input tokens"]) => ErrorKind::ContextLength,
        ErrorKind::InvalidRequest if says(&["model identifier is invalid"]) => ErrorKind::NotFound,
        ErrorKind::Permission if says(&["security token", "request signature we calculated", "signature expired", "authentication failed", "api key"]) => ErrorKind::Authentication,
        kind => kind,
    };
    // AWS's name must not stand in the place of a code that clients act on, such as `context_length_exceeded`.
    if error.kind.openai_code().is_none() && !name.is_empty() {
        error.code = Some(name.to_owned());
    }
    error
}

/// The words of the model's own host where Bedrock wraps its whole error body into the message.
fn inner_message(message: &str) -> Option<String> {
    let inner = message.strip_prefix("The model returned the following errors: ")?;
    let value: serde_json::Value = serde_json::from_str(inner).ok()?;
    value["error"]["message"].as_str().or_else(|| value["message"].as_str()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exception_has_its_kind_in_answers_and_in_streams() {
        for (name, kind) in [
            ("ThrottlingException", ErrorKind::RateLimit),
            ("ModelNotReadyException", ErrorKind::RateLimit),
            ("ServiceQuotaExceededException", ErrorKind::Quota),
            ("ModelTimeoutException", ErrorKind::Timeout),
            ("ModelStreamErrorException", ErrorKind::Server),
            ("ModelErrorException", ErrorKind::Server),
            ("InternalServerException", ErrorKind::Server),
            ("ServiceUnavailableException", ErrorKind::Overloaded),
            ("ValidationException", ErrorKind::InvalidRequest),
            ("ResourceNotFoundException", ErrorKind::NotFound),
            ("AccessDeniedException", ErrorKind::Permission),
            ("ExpiredTokenException", ErrorKind::Authentication),
        ] {
            for body in [format!(r#"{{"__type":"com.amazon.coral.service#{name}","message":"m"}}"#), format!(r#"{{"__type":"{name}:http://x/","message":"m"}}"#)] {
                assert_eq!(read(400, body.as_bytes()).kind, kind, "{body}");
            }
            let small = name[..1].to_ascii_lowercase() + &name[1..];
            assert_eq!(read_exception(&format!(r#"{{"exception":"{small}","payload":"{{\"message\":\"m\"}}"}}"#)).kind, kind, "{small}");
        }
        assert_eq!((read(424, b"{}").kind, read(500, b"no JSON").kind, read_exception("{}").kind), (ErrorKind::Server, ErrorKind::Server, ErrorKind::Server));
    }
}
