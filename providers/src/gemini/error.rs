//! Google's errors: `{"error": {code, message, status, details}}`, sometimes inside a list.

use std::time::Duration;

use serde_json::Value;

use crate::error::{ErrorKind, UpstreamError};
use crate::openai;

/// Reads an error answer.
pub(crate) fn read(status: u16, body: &[u8]) -> UpstreamError {
    let Some(error) = error_of(body) else { return openai::read_error(status, body) };
    let said = error["code"].as_u64().and_then(|c| u16::try_from(c).ok()).filter(|c| (400..600).contains(c));
    let status = if status >= 400 { status } else { said.unwrap_or(500) };
    let word = error["status"].as_str().unwrap_or_default();
    let message = error["message"].as_str().filter(|m| !m.is_empty()).map_or_else(|| format!("the upstream answered with status {status}"), |m| m.trim().to_owned());
    let details = || error["details"].as_array().into_iter().flatten();
    let reason = details().find_map(|d| d["reason"].as_str()).unwrap_or_default();
    let kind = match (word, reason) {
        (_, "API_KEY_INVALID" | "API_KEY_EXPIRED" | "ACCESS_TOKEN_EXPIRED" | "CREDENTIALS_MISSING") | ("UNAUTHENTICATED", _) => ErrorKind::Authentication,
        (_, "BILLING_DISABLED") => ErrorKind::Quota,
        ("PERMISSION_DENIED", _) => ErrorKind::Permission,
        ("NOT_FOUND", _) => ErrorKind::NotFound,
        ("RESOURCE_EXHAUSTED", _) => exhausted(&error, &message),
        ("UNAVAILABLE", _) => ErrorKind::Overloaded,
        ("DEADLINE_EXCEEDED", _) => ErrorKind::Timeout,
        ("INTERNAL" | "UNKNOWN", _) => ErrorKind::Server,
        ("INVALID_ARGUMENT" | "FAILED_PRECONDITION" | "OUT_OF_RANGE", _) => ErrorKind::InvalidRequest,
        _ if status == 429 => exhausted(&error, &message),
        _ => ErrorKind::from_status(status),
    };
    let param = details().find_map(|d| d["fieldViolations"][0]["field"].as_str()).filter(|f| !f.is_empty()).map(str::to_owned);
    let mut read = UpstreamError { kind, message, code: None, param };
    // Google says "you exceeded your current quota" of every limit, by the minute or by the day: prose tells nothing here.
    if kind != ErrorKind::RateLimit && kind != ErrorKind::Quota {
        read = read.sharpened();
    }
    // Where OpenAI's clients know a code for the kind, theirs is the useful one.
    if read.kind.openai_code().is_none() && !word.is_empty() {
        read.code = Some(word.to_owned());
    }
    read
}

/// How long Google asks to wait before the next try (`RetryInfo`).
pub(crate) fn retry_delay(body: &[u8]) -> Option<Duration> {
    let error = error_of(body)?;
    let text = error["details"].as_array()?.iter().find_map(|d| d["retryDelay"].as_str())?;
    let seconds: f64 = text.strip_suffix('s')?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

fn error_of(body: &[u8]) -> Option<Value> {
    let mut value: Value = serde_json::from_slice(body).ok()?;
    if let Some(first) = value.as_array_mut().and_then(|list| list.first_mut()) {
        value = first.take();
    }
    let error = value["error"].take();
    error.is_object().then_some(error)
}

/// A limit per minute passes by itself; one per day, or an empty purse, does not.
fn exhausted(error: &Value, message: &str) -> ErrorKind {
    let quotas = || error["details"].as_array().into_iter().flatten().filter_map(|d| d["violations"].as_array()).flatten();
    let per_day = quotas().any(|v| v["quotaId"].as_str().is_some_and(|id| id.contains("PerDay")));
    let message = message.to_ascii_lowercase();
    let no_money = message.contains("credits are depleted") || message.contains("spending cap") || message.contains("limit: 0,");
    if per_day || no_money { ErrorKind::Quota } else { ErrorKind::RateLimit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_read_wherever_the_error_stands() {
        let body = br#"[{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34.074824224s"}]}}]"#;
        assert_eq!(retry_delay(body), Some(Duration::from_secs_f64(34.074_824_224)));
        assert_eq!(retry_delay(br#"{"error":{"code":429}}"#), None);
        assert_eq!(retry_delay(br#"{"error":{"details":[{"retryDelay":"-1s"}]}}"#), None);
    }
}
