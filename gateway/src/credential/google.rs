//! Google access tokens: Application Default Credentials in their several files, else the metadata server.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::UNIX_EPOCH;

use http::HeaderValue;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::CredentialError;
use super::config::GoogleConfig;
use super::lease::{Lease, rfc3339};
use super::outside::{Env, Errand, Server, read_token};
use super::token::{Answer, bearer};

const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const TOKEN_URI: &str = "https://oauth2.googleapis.com/token";

/// Where tokens come from, and the project that pays for the quota if the file names one.
pub(super) struct Account {
    pub(super) source: Source,
    pub(super) quota_project: Option<String>,
}

/// Where tokens come from.
pub(super) enum Source {
    /// A service account's key signs an assertion.
    ServiceAccount { email: String, key_id: Option<String>, key: EncodingKey, token_uri: String },
    /// What `gcloud auth application-default login` leaves behind.
    User { client_id: String, client_secret: String, refresh_token: String, token_uri: String },
    /// Workload identity federation: another party's token is exchanged.
    External { subject: Subject, subject_token_type: String, audience: String, token_uri: String },
    /// A service account that another account may act for.
    Impersonated { base: Box<Source>, url: String, delegates: Vec<String> },
    /// The metadata server of Compute Engine, GKE and Cloud Run.
    Metadata { url: String },
}

/// Where the other party's token lies.
pub(super) struct Subject {
    place: Place,
    /// The field of a JSON document that holds the token; the whole text otherwise.
    field: Option<String>,
}

enum Place {
    File(PathBuf),
    Url { url: String, headers: BTreeMap<String, String> },
}

impl Account {
    /// Looks for an account: the configuration, `GOOGLE_APPLICATION_CREDENTIALS`, gcloud's own file, the metadata server.
    pub(super) fn find(config: &GoogleConfig, env: &Env) -> Result<Self, CredentialError> {
        let mut account = match (&config.credentials_json, &config.credentials_file) {
            (Some(_), Some(_)) => return Err(setting("set `google.credentials_json` or `google.credentials_file`, not both")),
            (Some(json), None) => Self::read("`google.credentials_json`", json.expose())?,
            (None, Some(file)) => Self::open(&file.to_string_lossy(), "`google.credentials_file`")?,
            (None, None) => Self::usual(env)?,
        };
        account.quota_project = env.get("GOOGLE_CLOUD_QUOTA_PROJECT").or(account.quota_project);
        Ok(account)
    }

    fn usual(env: &Env) -> Result<Self, CredentialError> {
        if let Some(file) = env.get("GOOGLE_APPLICATION_CREDENTIALS") {
            return Self::open(&file, "GOOGLE_APPLICATION_CREDENTIALS");
        }
        let gcloud = env.get("CLOUDSDK_CONFIG").or_else(|| env.home().map(|home| format!("{home}/.config/gcloud")));
        if let Some(file) = gcloud.map(|folder| format!("{folder}/application_default_credentials.json"))
            && std::path::Path::new(&file).exists()
        {
            return Self::open(&file, "gcloud's application default credentials");
        }
        let host = env.get("GCE_METADATA_HOST").unwrap_or_else(|| "metadata.google.internal".to_owned());
        Ok(Account { source: Source::Metadata { url: format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/token") }, quota_project: None })
    }

    fn open(path: &str, named_by: &str) -> Result<Self, CredentialError> {
        let text = std::fs::read_to_string(path).map_err(|e| setting(format!("cannot read the Google credentials file {path} ({named_by}): {e}")))?;
        Self::read(&format!("the Google credentials file {path} ({named_by})"), &text)
    }

    fn read(name: &str, text: &str) -> Result<Self, CredentialError> {
        // serde's own message may quote the key.
        let value: Value = serde_json::from_str(text).map_err(|e| setting(format!("{name} is not JSON (line {}, column {})", e.line(), e.column())))?;
        Ok(Account { source: File { name, value: &value }.source()?, quota_project: value["quota_project_id"].as_str().map(str::to_owned) })
    }
}

/// A credentials file being read.
struct File<'f> {
    name: &'f str,
    value: &'f Value,
}

impl File<'_> {
    fn optional(&self, field: &str) -> Option<String> {
        self.value[field].as_str().filter(|v| !v.is_empty()).map(str::to_owned)
    }

    fn field(&self, field: &str) -> Result<String, CredentialError> {
        self.optional(field).ok_or_else(|| self.wrong(&format!("lacks `{field}`")))
    }

    fn token_uri(&self) -> String {
        self.optional("token_uri").unwrap_or_else(|| TOKEN_URI.to_owned())
    }

    fn wrong(&self, what: &str) -> CredentialError {
        setting(format!("{} {what}", self.name))
    }

    fn source(&self) -> Result<Source, CredentialError> {
        match self.field("type")?.as_str() {
            "service_account" => Ok(Source::ServiceAccount {
                email: self.field("client_email")?,
                key_id: self.optional("private_key_id"),
                key: EncodingKey::from_rsa_pem(self.field("private_key")?.as_bytes()).map_err(|_| self.wrong("has a `private_key` that is not an RSA key in PEM"))?,
                token_uri: self.token_uri(),
            }),
            "authorized_user" => {
                Ok(Source::User { client_id: self.field("client_id")?, client_secret: self.field("client_secret")?, refresh_token: self.field("refresh_token")?, token_uri: self.token_uri() })
            }
            "external_account" => self.external(),
            "impersonated_service_account" => {
                let base = File { name: &format!("`source_credentials` in {}", self.name), value: &self.value["source_credentials"] }.source()?;
                self.impersonated(self.field("service_account_impersonation_url")?, base)
            }
            other => Err(self.wrong(&format!(
                "is of the type \"{}\", which is not supported; supported: service_account, authorized_user, external_account (file or URL), impersonated_service_account",
                other.escape_default()
            ))),
        }
    }

    fn impersonated(&self, url: String, base: Source) -> Result<Source, CredentialError> {
        let delegates = self.value["delegates"].as_array().into_iter().flatten().filter_map(|d| d.as_str().map(str::to_owned)).collect();
        Ok(Source::Impersonated { base: Box::new(base), url, delegates })
    }

    fn external(&self) -> Result<Source, CredentialError> {
        let from = File { name: &format!("`credential_source` in {}", self.name), value: &self.value["credential_source"] };
        for (field, kind) in [("environment_id", "AWS"), ("executable", "a program"), ("certificate", "a certificate")] {
            if !from.value[field].is_null() {
                return Err(from.wrong(&format!("takes its token from {kind} (`{field}`), which is not supported; use a file or URL with an OIDC token, or a service account")));
            }
        }
        if self.optional("workforce_pool_user_project").is_some() {
            return Err(self.wrong("is for a workforce pool (`workforce_pool_user_project`), which is not supported; use workload identity or a service account"));
        }
        let place = match (from.optional("file"), from.optional("url")) {
            (Some(file), _) => Place::File(file.into()),
            (None, Some(url)) => {
                let headers = from.value["headers"].as_object().into_iter().flatten();
                Place::Url { url, headers: headers.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect() }
            }
            (None, None) => return Err(from.wrong("has neither `file` nor `url`")),
        };
        let format = File { name: &format!("`format` in {}", from.name), value: &from.value["format"] };
        let field = if format.optional("type").as_deref() == Some("json") { Some(format.field("subject_token_field_name")?) } else { None };
        let external = Source::External {
            subject: Subject { place, field },
            subject_token_type: self.field("subject_token_type")?,
            audience: self.field("audience")?,
            token_uri: self.optional("token_url").unwrap_or_else(|| "https://sts.googleapis.com/v1/token".to_owned()),
        };
        match self.optional("service_account_impersonation_url") {
            Some(url) => self.impersonated(url, external),
            None => Ok(external),
        }
    }
}

impl Source {
    /// Fetches a token. Boxed, as impersonation rests on another source.
    pub(super) fn fetch<'a>(&'a self, errand: &'a Errand) -> Pin<Box<dyn Future<Output = Result<Lease<HeaderValue>, CredentialError>> + Send + 'a>> {
        Box::pin(async move {
            match self {
                Source::Impersonated { base, url, delegates } => {
                    let token = base.fetch(errand).await?.value;
                    impersonate(errand, url, delegates, token).await
                }
                _ => {
                    let begun = errand.outside.clock.now();
                    self.ask(errand).await?.lease(begun)
                }
            }
        })
    }

    async fn ask(&self, errand: &Errand) -> Result<Answer, CredentialError> {
        let http = errand.http();
        match self {
            Source::ServiceAccount { email, key_id, key, token_uri } => {
                let assertion = assertion(errand, email, key_id.as_ref(), key, token_uri)?;
                let form = [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", &assertion)];
                let check = format!("that {email} and its key still exist and are enabled, and this machine's clock");
                errand.json(http.post(token_uri).form(&form), Server { name: "Google's token server", check: &check, secrets: &[&assertion] }).await
            }
            Source::User { client_id, client_secret, refresh_token, token_uri } => {
                let form = [("grant_type", "refresh_token"), ("client_id", client_id), ("client_secret", client_secret), ("refresh_token", refresh_token)];
                let server =
                    Server { name: "Google's token server", check: "that the login still holds: `gcloud auth application-default login` makes a new one", secrets: &[client_secret, refresh_token] };
                errand.json(http.post(token_uri).form(&form), server).await
            }
            Source::External { subject, subject_token_type, audience, token_uri } => {
                let token = subject.read(errand).await?;
                let form = [
                    ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
                    ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
                    ("audience", audience),
                    ("scope", SCOPE),
                    ("subject_token_type", subject_token_type),
                    ("subject_token", &token),
                ];
                let check = format!("the issuer, audience and conditions of the workload identity provider {audience}");
                errand.json(http.post(token_uri).form(&form), Server { name: "Google's security token service", check: &check, secrets: &[&token] }).await
            }
            Source::Metadata { url } => {
                let server = Server {
                    name: "Google's metadata server",
                    check: "that this runs on Google Cloud with a service account, or give Google credentials: `google` in the provider's configuration or GOOGLE_APPLICATION_CREDENTIALS",
                    secrets: &[],
                };
                errand.json(http.get(url).header("Metadata-Flavor", "Google"), server).await
            }
            Source::Impersonated { .. } => Err(setting("an impersonated account has no token of its own")),
        }
    }
}

/// The signed assertion that a service account's token is asked for with.
fn assertion(errand: &Errand, email: &str, key_id: Option<&String>, key: &EncodingKey, token_uri: &str) -> Result<String, CredentialError> {
    #[derive(Serialize)]
    struct Claims<'a> {
        iss: &'a str,
        scope: &'a str,
        aud: &'a str,
        iat: u64,
        exp: u64,
    }
    let now = errand.outside.clock.now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let header = Header { kid: key_id.cloned(), ..Header::new(Algorithm::RS256) };
    jsonwebtoken::encode(&header, &Claims { iss: email, scope: SCOPE, aud: token_uri, iat: now, exp: now + 3600 }, key)
        .map_err(|_| setting(format!("the private key of {email} cannot sign; check `private_key` in the Google credentials")))
}

async fn impersonate(errand: &Errand, url: &str, delegates: &[String], token: HeaderValue) -> Result<Lease<HeaderValue>, CredentialError> {
    #[derive(Serialize)]
    struct Ask<'a> {
        scope: [&'a str; 1],
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        delegates: &'a [String],
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Impersonated {
        access_token: String,
        expire_time: String,
    }
    let secrets = [token.to_str().unwrap_or_default().trim_start_matches("Bearer ").to_owned()];
    let request = errand.http().post(url).header(http::header::AUTHORIZATION, token).json(&Ask { scope: [SCOPE], delegates });
    let server = Server {
        name: "Google's IAM credentials service",
        check: "that the account may act for the service account (role Service Account Token Creator) and that the API iamcredentials.googleapis.com is enabled",
        secrets: &[&secrets[0]],
    };
    let answer: Impersonated = errand.json(request, server).await?;
    let ends = rfc3339(&answer.expire_time).ok_or_else(|| CredentialError::Fetch(format!("{} answered with an `expireTime` that is not a time", server.name)))?;
    Ok(Lease { value: bearer(&answer.access_token)?, ends: Some(ends) })
}

impl Subject {
    /// The other party's token, read anew each time: it is rotated.
    async fn read(&self, errand: &Errand) -> Result<String, CredentialError> {
        let text = match &self.place {
            Place::File(path) => read_token(path, "`credential_source.file` in the Google credentials").await?,
            Place::Url { url, headers } => {
                let request = headers.iter().fold(errand.http().get(url), |request, (name, value)| request.header(name, value));
                let secrets: Vec<&str> = headers.values().map(String::as_str).collect();
                let server = Server { name: "the server of the subject token", check: "`credential_source.url` and its `headers` in the Google credentials", secrets: &secrets };
                String::from_utf8(errand.send(request, server).await?).unwrap_or_default().trim().to_owned()
            }
        };
        let token = match &self.field {
            None => Some(text),
            Some(field) => serde_json::from_str::<Value>(&text).ok().and_then(|value| value.get(field)?.as_str().map(str::to_owned)),
        };
        token.filter(|t| !t.is_empty()).ok_or_else(|| CredentialError::Fetch("the source of the subject token has none; check `credential_source.format` in the Google credentials".to_owned()))
    }
}

fn setting(message: impl Into<String>) -> CredentialError {
    CredentialError::Setting(message.into())
}
