//! Credentials for providers: an API key, an AWS signature, a Google or Microsoft Entra token. What has an end is fetched off
//! the hot path and renewed ahead of it; a request with a valid credential never waits.

mod aws;
mod config;
mod entra;
mod google;
mod lease;
mod outside;
#[cfg(test)]
mod tests;
mod token;

use std::fmt;
use std::sync::Arc;

use aws_credential_types::Credentials;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use http::request::Parts;
use providers::Auth;
use providers::envelope::Payload;

pub use self::config::{AssumeRoleConfig, AwsConfig, AzureConfig, CredentialConfig, GoogleConfig};
use self::lease::Cell;
use self::outside::{Clock, Env, Outside};
use crate::secret::Secret;

/// Why there is no credential. No message has a secret in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// The configuration or the environment says too little or something wrong; the message says what to set.
    #[error("{0}")]
    Setting(String),
    /// A credential could not be fetched; the message says from where, and what to check.
    #[error("{0}")]
    Fetch(String),
    /// The request cannot be signed.
    #[error("the request cannot be signed: {0}")]
    Sign(String),
}

/// One provider's credential.
pub struct Credential(Shown);

/// How it is shown.
enum Shown {
    Nothing,
    Key { name: HeaderName, value: HeaderValue },
    Token { token: Cell<HeaderValue>, quota_project: Option<HeaderValue> },
    Signature { keys: Keys, region: String, service: &'static str, clock: Clock },
}

/// What requests are signed with.
enum Keys {
    Fixed(Credentials),
    Leased(Cell<Credentials>),
}

const QUOTA_PROJECT: HeaderName = HeaderName::from_static("x-goog-user-project");

impl Credential {
    /// The credential that a provider wants (`auth`), from its configuration and, for the clouds, from the process's environment.
    /// `region` is AWS's. Reads files, but asks no server: that is left to the first request or to [`Credential::keep_fresh`].
    ///
    /// # Errors
    /// [`CredentialError::Setting`], which says what to set.
    pub fn new(auth: Auth, config: &CredentialConfig, region: Option<&str>, http: reqwest::Client) -> Result<Self, CredentialError> {
        Self::with(auth, config, region, Outside { env: Env::process(), clock: Clock::system(), http })
    }

    fn with(auth: Auth, config: &CredentialConfig, region: Option<&str>, outside: Outside) -> Result<Self, CredentialError> {
        check_fit(auth, config)?;
        let key = |name: HeaderName, prefix: &str, key: &Secret| Ok(Shown::Key { name, value: key_header(prefix, key)? });
        let wanted = || CredentialError::Setting("this provider wants an API key: set `api_key`".to_owned());
        let shown = match (auth, &config.api_key) {
            (Auth::None, _) => Shown::Nothing,
            (Auth::Bearer, given) => key(AUTHORIZATION, "Bearer ", given.as_ref().ok_or_else(wanted)?)?,
            (Auth::Header(name), given) => {
                let name = name.parse().map_err(|_| CredentialError::Setting(format!("`{name}` is not the name of a header")))?;
                key(name, "", given.as_ref().ok_or_else(wanted)?)?
            }
            (Auth::Azure, Some(given)) => key(HeaderName::from_static("api-key"), "", given)?,
            (Auth::Google, Some(given)) => key(HeaderName::from_static("x-goog-api-key"), "", given)?,
            // Bedrock's API keys are bearer tokens.
            (Auth::Aws { .. }, Some(given)) => key(AUTHORIZATION, "Bearer ", given)?,
            (Auth::Azure, None) => entra(config, outside)?,
            (Auth::Google, None) => google(config, outside)?,
            (Auth::Aws { service }, None) => aws(config, service, region, outside)?,
        };
        Ok(Credential(shown))
    }

    /// Whether the credential has no end, so that there is nothing to renew.
    #[must_use]
    pub fn is_static(&self) -> bool {
        !matches!(self.0, Shown::Token { .. } | Shown::Signature { keys: Keys::Leased(_), .. })
    }

    /// Puts the credential on a request. For AWS this is the last thing that is done to its method, URI, content type and
    /// `x-amz-*` headers, as all of these are signed. Waits only if there is no valid credential yet (at most for a fetch under
    /// way and one more, 5 s each).
    ///
    /// # Errors
    /// When no credential can be fetched, or the request cannot be signed.
    pub async fn apply(&self, parts: &mut Parts, body: &Payload) -> Result<(), CredentialError> {
        match &self.0 {
            Shown::Nothing => {}
            Shown::Key { name, value } => {
                parts.headers.insert(name.clone(), value.clone());
            }
            Shown::Token { token, quota_project } => {
                let value = match token.now() {
                    Some(value) => value,
                    None => token.get().await?,
                };
                parts.headers.insert(AUTHORIZATION, value);
                if let Some(project) = quota_project {
                    parts.headers.insert(QUOTA_PROJECT, project.clone());
                }
            }
            Shown::Signature { keys, region, service, clock } => {
                let leased;
                let keys = match keys {
                    Keys::Fixed(keys) => keys,
                    Keys::Leased(cell) => {
                        leased = match cell.now() {
                            Some(keys) => keys,
                            None => cell.get().await?,
                        };
                        &leased
                    }
                };
                aws::sign_parts(parts, aws::digest(body.pieces()), keys, region, service, clock.now())?;
            }
        }
        Ok(())
    }

    /// Fetches the credential and renews it ahead of its end, until it is dropped; ends at once if there is nothing to renew. Failures
    /// are logged; the old credential stays in use while it is valid. To be spawned inside a span that names the provider.
    pub async fn keep_fresh(self: Arc<Self>) {
        match &self.0 {
            Shown::Token { token, .. } => token.keep_fresh().await,
            Shown::Signature { keys: Keys::Leased(keys), .. } => keys.keep_fresh().await,
            Shown::Nothing | Shown::Key { .. } | Shown::Signature { keys: Keys::Fixed(_), .. } => {}
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Shown::Nothing => "Credential(none)",
            Shown::Key { .. } => "Credential(key ***)",
            Shown::Token { .. } => "Credential(token ***)",
            Shown::Signature { .. } => "Credential(signature ***)",
        })
    }
}

/// Refuses what would be left unused: who writes it down believes in it.
fn check_fit(auth: Auth, config: &CredentialConfig) -> Result<(), CredentialError> {
    if auth == Auth::None && config.api_key.is_some() {
        return Err(CredentialError::Setting("`api_key` is set, but this provider takes none: leave it out".to_owned()));
    }
    let sections = [("aws", config.aws.is_some(), matches!(auth, Auth::Aws { .. })), ("google", config.google.is_some(), auth == Auth::Google), ("azure", config.azure.is_some(), auth == Auth::Azure)];
    for (name, there, fits) in sections {
        if there && !fits {
            return Err(CredentialError::Setting(format!("`{name}` is set, but this provider takes no such credential: leave it out")));
        }
        if there && config.api_key.is_some() {
            return Err(CredentialError::Setting(format!("`api_key` and `{name}` are both set: leave one of them out")));
        }
    }
    Ok(())
}

/// A key as a header, made once.
fn key_header(prefix: &str, key: &Secret) -> Result<HeaderValue, CredentialError> {
    let key = key.expose();
    let wrong = |what: &str| Err(CredentialError::Setting(format!("`api_key` {what}")));
    if key.is_empty() {
        return wrong("is empty: check that the variable it comes from is set");
    }
    if key.trim() != key || !key.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        return wrong("has a space or line end at its ends, or a character that no key has: check the file or variable it comes from");
    }
    let Ok(mut value) = HeaderValue::from_str(&format!("{prefix}{key}")) else { return wrong("cannot stand in a header") };
    value.set_sensitive(true);
    Ok(value)
}

fn entra(config: &CredentialConfig, outside: Outside) -> Result<Shown, CredentialError> {
    let identity = Arc::new(entra::Identity::find(config.azure.as_ref().unwrap_or(&AzureConfig::default()), &outside.env)?);
    let token = Cell::new(outside, move |errand| {
        let identity = identity.clone();
        async move { identity.fetch(&errand).await }
    });
    Ok(Shown::Token { token, quota_project: None })
}

fn google(config: &CredentialConfig, outside: Outside) -> Result<Shown, CredentialError> {
    let account = google::Account::find(config.google.as_ref().unwrap_or(&GoogleConfig::default()), &outside.env)?;
    let project = account.quota_project.as_deref().map(HeaderValue::from_str).transpose();
    let quota_project = project.map_err(|_| CredentialError::Setting("the quota project of the Google credentials is not the name of a project".to_owned()))?;
    let source = Arc::new(account.source);
    let token = Cell::new(outside, move |errand| {
        let source = source.clone();
        async move { source.fetch(&errand).await }
    });
    Ok(Shown::Token { token, quota_project })
}

fn aws(config: &CredentialConfig, service: &'static str, region: Option<&str>, outside: Outside) -> Result<Shown, CredentialError> {
    // AWS's own tools prefer a Bedrock API key in the environment to every other credential there.
    if service == "bedrock"
        && config.aws.is_none()
        && let Some(key) = outside.env.get("AWS_BEARER_TOKEN_BEDROCK")
    {
        let value = key_header("Bearer ", &Secret::new(key)).map_err(|e| CredentialError::Setting(format!("AWS_BEARER_TOKEN_BEDROCK as {e}")))?;
        return Ok(Shown::Key { name: AUTHORIZATION, value });
    }
    let region = region.map(str::to_owned).or_else(|| outside.env.get("AWS_REGION")).or_else(|| outside.env.get("AWS_DEFAULT_REGION"));
    let region = region.ok_or_else(|| CredentialError::Setting("no AWS region: set `region` or AWS_REGION".to_owned()))?;
    if region.is_empty() || !region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return Err(CredentialError::Setting(format!("\"{}\" is not an AWS region: set `region` to one like us-east-1", region.escape_default())));
    }
    let clock = outside.clock.clone();
    let keys = match aws::Source::find(config.aws.as_ref().unwrap_or(&AwsConfig::default()), &outside.env, &region)? {
        aws::Source::Fixed(keys) => Keys::Fixed(keys),
        source => {
            let source = Arc::new(source);
            Keys::Leased(Cell::new(outside, move |errand| {
                let source = source.clone();
                async move { source.fetch(&errand).await }
            }))
        }
    };
    Ok(Shown::Signature { keys, region, service, clock })
}
