//! Azure OpenAI: OpenAI's bodies under Azure's paths. Without an `api_version`, or with `v1`, the GA route is used, where the
//! model stands in the body; with a dated one the older route, where the deployment stands in the path. Claude on Foundry
//! speaks Anthropic's dialect and is configured as kind `anthropic` with a Foundry `base_url`.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::envelope::Edit;
use crate::error::{ErrorKind, UpstreamError};
use crate::{Auth, Dialect, Error, Operation, Provider, Settings, Target, openai, path_segment};

/// The first dated version with `stream_options` and `max_completion_tokens`.
const STREAM_OPTIONS: &str = "2024-09-01";
/// The first dated version with the role `developer`.
const DEVELOPER: &str = "2024-12-01";

/// An Azure OpenAI resource.
#[derive(Debug)]
pub struct Azure {
    base_url: String,
    version: Version,
}

/// The two styles of Azure's paths.
#[derive(Debug, PartialEq, Eq)]
enum Version {
    /// `/openai/v1/…`; the flag asks for its preview features.
    V1 { preview: bool },
    /// `/openai/deployments/…?api-version=…`.
    Dated(String),
}

impl Azure {
    /// The resource that the settings name.
    ///
    /// # Errors
    /// When they name none, or the `api_version` is neither a date nor `v1`.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let base_url = settings.base_url_or("");
        if base_url.is_empty() {
            return Err(Error::Settings("kind azure needs a `base_url`: the resource's endpoint, such as https://acme.openai.azure.com".into()));
        }
        // Azure's portal shows endpoints with and without the path.
        let base_url = base_url.trim_end_matches("/v1").trim_end_matches("/openai").to_owned();
        let version = match settings.api_version.as_deref() {
            None | Some("" | "v1") => Version::V1 { preview: false },
            Some("preview" | "latest") => Version::V1 { preview: true },
            Some(dated) if is_dated(dated) => Version::Dated(dated.to_owned()),
            Some(other) => {
                return Err(Error::Settings(format!("`api_version` \"{other}\" is unknown to kind azure; it takes \"v1\", \"preview\" or a date such as \"2024-10-21\" or \"2025-04-01-preview\"")));
            }
        };
        Ok(Azure { base_url, version })
    }

    /// Whether the version is dated and older than `date`.
    fn before(&self, date: &str) -> bool {
        matches!(&self.version, Version::Dated(version) if version.get(..10).is_some_and(|day| day < date))
    }
}

/// `YYYY-MM-DD`, with or without `-preview`.
fn is_dated(version: &str) -> bool {
    let Some((day, rest)) = version.split_at_checked(10) else { return false };
    let digits = day.bytes().enumerate().all(|(at, b)| if at == 4 || at == 7 { b == b'-' } else { b.is_ascii_digit() });
    digits && matches!(rest, "" | "-preview")
}

impl Provider for Azure {
    fn kind(&self) -> &'static str {
        "azure"
    }

    fn base_url(&self) -> &str {
        &self.base_url
    }

    fn auth(&self) -> Auth {
        Auth::Azure
    }

    fn path(&self, operation: Operation, target: &Target<'_>, _: bool) -> Result<Option<String>, Error> {
        let below = match operation {
            Operation::Moderations | Operation::Rerank => return Ok(None),
            other => match other.openai_path() {
                Some(path) => path,
                None => return Ok(None),
            },
        };
        Ok(match &self.version {
            Version::V1 { preview } => Some(format!("/openai/v1{below}{}", if *preview { "?api-version=preview" } else { "" })),
            Version::Dated(version) => match operation {
                Operation::Chat(Dialect::Responses) => Some(format!("/openai{below}?api-version={version}")),
                // Files and batches have paths below their own, which cannot be appended behind a query.
                Operation::Files | Operation::Batches => None,
                _ => Some(format!("/openai/deployments/{}{below}?api-version={version}", path_segment(target.model)?)),
            },
        })
    }

    fn adapt(&self, operation: Operation, edit: &mut Edit<'_>, target: &Target<'_>) -> Result<Vec<String>, Error> {
        let mut warnings = openai::adapt(operation, edit, target)?;
        if !matches!(operation, Operation::Chat(Dialect::Chat | Dialect::Completions)) {
            return Ok(warnings);
        }
        let envelope = edit.envelope();
        let old = self.before(STREAM_OPTIONS);
        if old || envelope.get("data_sources").is_some_and(|v| v != "null") {
            edit.remove("stream_options");
            if envelope.get("stream_options").is_some_and(|v| v != "null") {
                warnings.push(format!("dropped `stream_options`: {}", if old { "this api-version does not know it" } else { "Azure does not take it together with `data_sources`" }));
            }
        }
        if old && envelope.get("max_completion_tokens").is_some() {
            if envelope.get("max_tokens").is_some_and(|v| v != "null") {
                edit.remove("max_completion_tokens");
            } else {
                edit.remove("max_tokens");
                edit.rename("max_completion_tokens", "max_tokens");
            }
        }
        if self.before(DEVELOPER) && memchr::memmem::find(envelope.body(), b"\"developer\"").is_some() {
            let mut messages = envelope.chat()?.messages.unwrap_or_default();
            for message in &mut messages {
                if message.role.as_deref() == Some("developer") {
                    message.role = Some("system".into());
                }
                if message.role.as_deref() == Some("assistant") && message.content.is_none() {
                    // The older versions insist on the key.
                    message.extra.push(("content".into(), RawValue::NULL));
                }
            }
            openai::clean(&mut messages);
            edit.set("messages", serde_json::to_string(&messages).map_err(Error::answer)?);
        }
        Ok(warnings)
    }

    fn forwards(&self) -> &'static [&'static str] {
        // Not `x-ms-oai-image-generation-deployment`: it names another model.
        &["openai-beta", "x-ms-client-request-id"]
    }

    fn error(&self, status: u16, body: &[u8]) -> UpstreamError {
        let mut error = openai::read_error(status, body);
        let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        // Images say `inner_error` and `content_filter_results`, everything else as below.
        let inner = value["error"].get("innererror").or_else(|| value["error"].get("inner_error"));
        let Some(inner) = inner.filter(|i| i["code"] == "ResponsibleAIPolicyViolation") else { return error };
        error.kind = ErrorKind::ContentFilter;
        let results = inner.get("content_filter_result").or_else(|| inner.get("content_filter_results")).and_then(|r| r.as_object());
        let struck: Vec<Cow<'_, str>> = results
            .into_iter()
            .flatten()
            .filter(|(_, r)| r["filtered"] == true)
            .map(|(name, r)| match r["severity"].as_str() {
                Some(severity) => Cow::Owned(format!("{name} ({severity})")),
                None => Cow::Borrowed(name.as_str()),
            })
            .collect();
        if !struck.is_empty() {
            error.message = format!("{} Filtered for: {}.", error.message.trim_end(), struck.join(", "));
        }
        error
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn azure(version: Option<&str>) -> Result<Azure, Error> {
        Azure::new(&Settings { kind: "azure".into(), base_url: Some("https://acme.openai.azure.com/openai/v1/".into()), api_version: version.map(str::to_owned), ..Settings::default() })
    }

    fn path(version: Option<&str>, operation: Operation) -> Option<String> {
        azure(version).unwrap().path(operation, &Target { model: "gpt 4o/eu", info: None }, false).unwrap()
    }

    #[test]
    fn each_style_has_its_paths() {
        assert_eq!(azure(None).unwrap().base_url(), "https://acme.openai.azure.com");
        for (version, operation, expected) in [
            (None, Operation::Chat(Dialect::Chat), Some("/openai/v1/chat/completions")),
            (Some("preview"), Operation::Speech, Some("/openai/v1/audio/speech?api-version=preview")),
            (Some("v1"), Operation::Files, Some("/openai/v1/files")),
            (Some("2024-10-21"), Operation::Embeddings, Some("/openai/deployments/gpt%204o%2Feu/embeddings?api-version=2024-10-21")),
            (Some("2025-04-01-preview"), Operation::ImageEdits, Some("/openai/deployments/gpt%204o%2Feu/images/edits?api-version=2025-04-01-preview")),
            (Some("2025-04-01-preview"), Operation::Chat(Dialect::Responses), Some("/openai/responses?api-version=2025-04-01-preview")),
            (Some("2024-10-21"), Operation::Batches, None),
            (None, Operation::Moderations, None),
            (None, Operation::Chat(Dialect::Messages), None),
        ] {
            assert_eq!(path(version, operation).as_deref(), expected);
        }
    }

    #[test]
    fn settings_that_do_not_fit_are_refused() {
        for version in ["2024", "2024-10-21?x=1", "v2", "yesterday!!"] {
            assert!(matches!(azure(Some(version)), Err(Error::Settings(_))), "{version}");
        }
        assert!(matches!(Azure::new(&Settings::default()), Err(Error::Settings(_))));
    }
}
