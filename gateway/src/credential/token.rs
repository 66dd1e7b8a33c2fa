//! Access tokens as OAuth servers and their relatives answer them, made into an `Authorization` header once.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use serde::Deserialize;

use super::CredentialError;
use super::lease::Lease;

/// An answer without a lifetime is trusted for so long.
const UNKNOWN_LIFETIME: u64 = 5 * 60;

/// `access_token` and its lifetime. Azure's metadata servers write the numbers as strings.
#[derive(Deserialize)]
pub(super) struct Answer {
    pub(super) access_token: String,
    expires_in: Option<Seconds>,
    expires_on: Option<Seconds>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(u64),
    Float(f64),
    Text(String),
}

impl Seconds {
    fn get(&self) -> Option<u64> {
        match self {
            Seconds::Number(n) => Some(*n),
            Seconds::Float(n) if *n >= 0.0 => Some(*n as u64),
            Seconds::Float(_) => None,
            Seconds::Text(text) => text.trim().parse().ok(),
        }
    }
}

impl Answer {
    /// The header and its end; `begun` is when it was asked for, so that the time on the way does not lengthen its life.
    pub(super) fn lease(self, begun: SystemTime) -> Result<Lease<HeaderValue>, CredentialError> {
        let seconds = |field: &Option<Seconds>| field.as_ref().and_then(Seconds::get).map(Duration::from_secs);
        let end = match (seconds(&self.expires_in), seconds(&self.expires_on)) {
            (Some(left), _) => begun.checked_add(left),
            (None, Some(since)) => UNIX_EPOCH.checked_add(since),
            (None, None) => begun.checked_add(Duration::from_secs(UNKNOWN_LIFETIME)),
        };
        Ok(Lease { value: bearer(&self.access_token)?, ends: end })
    }
}

/// A token as the value of `Authorization`.
pub(super) fn bearer(token: &str) -> Result<HeaderValue, CredentialError> {
    let value = if token.is_empty() { None } else { HeaderValue::from_str(&format!("Bearer {token}")).ok() };
    let mut value = value.ok_or_else(|| CredentialError::Fetch("the token server answered with a token that cannot stand in a header".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}
