//! tmp
#![allow(missing_docs, clippy::all)]
mod config;
use crate::secret::Secret;
pub use config::*;
use http::HeaderValue;
use std::sync::Arc;
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CredentialError(String);
pub struct Credential {
    header: Option<(http::HeaderName, HeaderValue)>,
}
impl Credential {
    pub fn new(auth: providers::Auth, config: &CredentialConfig, _region: Option<&str>, _http: reqwest::Client) -> Result<Self, CredentialError> {
        let _ = Secret::default();
        let key = config.api_key.as_ref().map(|k| k.expose().to_owned());
        let header = match (auth, key) {
            (providers::Auth::Header(n), Some(k)) => Some((http::HeaderName::from_static(n), HeaderValue::try_from(k).unwrap())),
            (providers::Auth::Bearer, Some(k)) => Some((http::header::AUTHORIZATION, HeaderValue::try_from(format!("Bearer {k}")).unwrap())),
            _ => None,
        };
        Ok(Self { header })
    }
    pub fn is_static(&self) -> bool {
        true
    }
    pub async fn apply(&self, parts: &mut http::request::Parts, _body: &providers::envelope::Payload) -> Result<(), CredentialError> {
        if let Some((n, v)) = &self.header {
            parts.headers.insert(n, v.clone());
        }
        Ok(())
    }
    pub async fn keep_fresh(self: Arc<Self>) {}
}
