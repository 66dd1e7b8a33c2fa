//! OpenAI's errors, and what compatible hosts make of them.

use crate::error::{ErrorKind, UpstreamError};

/// OpenAI's error body, and the shapes that compatible hosts make of it: `{"error": "text"}`, `{"message": …}`,
/// `{"detail": …}`, an array around it, or no JSON at all.
#[must_use]
pub fn read(status: u16, body: &[u8]) -> UpstreamError {
    let kind = ErrorKind::from_status(status);
    let Ok(mut value) = serde_json::from_slice::<serde_json::Value>(body) else {
        let text = String::from_utf8_lossy(body);
        let text = text.trim();
        // A proxy's HTML page helps nobody; a line of text may.
        let message = if text.is_empty() || text.starts_with('<') { format!("the upstream answered with status {status} and no readable error") } else { text.chars().take(500).collect() };
        return UpstreamError::new(kind, message).sharpened();
    };
    if let Some(first) = value.as_array_mut().and_then(|list| list.first_mut()) {
        value = first.take();
    }
    let inner = if value["error"].is_object() { &value["error"] } else { &value };
    let text = |v: &serde_json::Value| v.as_str().filter(|s| !s.is_empty()).map(str::to_owned);
    let detail = || {
        let list = value["detail"].as_array()?;
        let parts: Vec<String> = list
            .iter()
            .filter_map(|d| {
                Some(format!(
                    "{}: {}",
                    d["loc"].as_array().map(|l| l.iter().filter_map(|s| s.as_str().map(str::to_owned).or_else(|| s.as_u64().map(|n| n.to_string()))).collect::<Vec<_>>().join(".")).unwrap_or_default(),
                    d["msg"].as_str()?
                ))
            })
            .collect();
        if parts.is_empty() { None } else { Some(parts.join("; ")) }
    };
    let message = text(&inner["message"])
        .or_else(|| text(&value["error"]))
        .or_else(|| text(&value["detail"]))
        .or_else(detail)
        .or_else(|| text(&value["message"]))
        .unwrap_or_else(|| format!("the upstream answered with status {status}"));
    let code = text(&inner["code"]);
    let kind = match (code.as_deref(), inner["type"].as_str()) {
        (Some("context_length_exceeded"), _) | (_, Some("exceed_context_size_error")) => ErrorKind::ContextLength,
        (Some("content_filter" | "content_policy_violation" | "moderation_blocked"), _) => ErrorKind::ContentFilter,
        // A prompt that OpenAI's reasoning models refuse to think about.
        (Some("invalid_prompt"), _) if message.to_ascii_lowercase().contains("policy") => ErrorKind::ContentFilter,
        (Some("insufficient_quota" | "billing_hard_limit_reached" | "billing_not_active"), _) | (_, Some("insufficient_quota" | "billing_limit_user_error")) => ErrorKind::Quota,
        // An error inside an answer of status 200 has only its own words.
        (Some("rate_limit_exceeded"), _) | (_, Some("rate_limit_error")) if status < 400 => ErrorKind::RateLimit,
        (_, Some("invalid_request_error")) if status < 400 => ErrorKind::InvalidRequest,
        (_, Some("overloaded_error")) => ErrorKind::Overloaded,
        _ if status < 400 => ErrorKind::from_status(inner["code"].as_u64().or_else(|| inner["status"].as_u64()).and_then(|n| u16::try_from(n).ok()).filter(|n| *n >= 400).unwrap_or(500)),
        _ => kind,
    };
    UpstreamError { kind, message, code, param: text(&inner["param"]) }.sharpened()
}
