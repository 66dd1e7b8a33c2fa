//! Microsoft Entra tokens: a client secret, a federated token (workload identity) or a managed identity.

use std::path::PathBuf;

use http::HeaderValue;

use super::CredentialError;
use super::config::AzureConfig;
use super::lease::Lease;
use super::outside::{Env, Errand, Server, read_token};
use super::token::Answer;

const SCOPE: &str = "https://cognitiveservices.azure.com/.default";
const AUTHORITY: &str = "https://login.microsoftonline.com";

/// An identity and what tokens are asked for.
pub(super) struct Identity {
    source: Source,
    scope: String,
}

enum Source {
    Secret {
        app: App,
        secret: String,
    },
    Federated {
        app: App,
        token_file: PathBuf,
    },
    /// App Service, Functions and Container Apps.
    AppService {
        endpoint: String,
        header: String,
        client_id: Option<String>,
    },
    /// The instance metadata service of virtual machines and AKS nodes.
    Instance {
        host: String,
        client_id: Option<String>,
    },
}

/// An application that is registered in a tenant.
struct App {
    token_url: String,
    client_id: String,
}

impl Identity {
    /// Looks for an identity: client secret, federated token, managed identity. Each may be in the configuration or in `AZURE_*`.
    pub(super) fn find(config: &AzureConfig, env: &Env) -> Result<Self, CredentialError> {
        let scope = config.scope.clone().unwrap_or_else(|| SCOPE.to_owned());
        let given = config.client_secret.as_ref().map(|s| s.expose().to_owned()).filter(|s| !s.is_empty());
        // What the configuration says goes before what the environment says, whichever way it is.
        let secret = given.or_else(|| if config.federated_token_file.is_some() { None } else { env.get("AZURE_CLIENT_SECRET") });
        let token_file = config.federated_token_file.clone().or_else(|| env.get("AZURE_FEDERATED_TOKEN_FILE").map(PathBuf::from));
        let source = if let Some(secret) = secret {
            Source::Secret { app: App::find(config, env, "a client secret")?, secret }
        } else if let Some(token_file) = token_file {
            Source::Federated { app: App::find(config, env, "a federated token file")?, token_file }
        } else {
            let client_id = client_id(config, env);
            match (env.get("IDENTITY_ENDPOINT"), env.get("IDENTITY_HEADER")) {
                (Some(endpoint), Some(header)) => Source::AppService { endpoint, header, client_id },
                _ => {
                    let host = env.get("AZURE_POD_IDENTITY_AUTHORITY_HOST").unwrap_or_else(|| "http://169.254.169.254".to_owned());
                    Source::Instance { host: host.trim_end_matches('/').to_owned(), client_id }
                }
            }
        };
        Ok(Identity { source, scope })
    }

    /// Fetches a token.
    pub(super) async fn fetch(&self, errand: &Errand) -> Result<Lease<HeaderValue>, CredentialError> {
        let begun = errand.outside.clock.now();
        self.ask(errand).await?.lease(begun)
    }

    async fn ask(&self, errand: &Errand) -> Result<Answer, CredentialError> {
        let http = errand.http();
        // Managed identities are asked for a resource, which is the scope without its last part.
        let resource = self.scope.trim_end_matches("/.default");
        let query = |version: &'static str, client_id: &Option<String>| {
            let mut query = vec![("api-version", version.to_owned()), ("resource", resource.to_owned())];
            query.extend(client_id.clone().map(|id| ("client_id", id)));
            query
        };
        match &self.source {
            Source::Secret { app, secret } => {
                let form = [("grant_type", "client_credentials"), ("client_id", &app.client_id), ("client_secret", secret), ("scope", &self.scope)];
                let check = "the tenant, the client ID and that the client secret has not expired (`azure` in the provider's configuration, or AZURE_*)";
                errand.json(http.post(&app.token_url).form(&form), Server { name: "Microsoft Entra", check, secrets: &[secret] }).await
            }
            Source::Federated { app, token_file } => {
                let token = read_token(token_file, "AZURE_FEDERATED_TOKEN_FILE").await?;
                let form = [
                    ("grant_type", "client_credentials"),
                    ("client_id", &app.client_id),
                    ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
                    ("client_assertion", &token),
                    ("scope", &self.scope),
                ];
                let check = "that the application has a federated credential for this issuer and subject, and that the token file is fresh";
                errand.json(http.post(&app.token_url).form(&form), Server { name: "Microsoft Entra", check, secrets: &[&token] }).await
            }
            Source::AppService { endpoint, header, client_id } => {
                let request = http.get(endpoint).query(&query("2019-08-01", client_id)).header("X-IDENTITY-HEADER", header);
                errand
                    .json(
                        request,
                        Server {
                            name: "the managed identity endpoint of App Service",
                            check: "that the app has a managed identity (and `azure.client_id`, if it is a user-assigned one)",
                            secrets: &[header],
                        },
                    )
                    .await
            }
            Source::Instance { host, client_id } => {
                let request = http.get(format!("{host}/metadata/identity/oauth2/token")).query(&query("2018-02-01", client_id)).header("Metadata", "true");
                let check = "that this runs on Azure with a managed identity (`azure.client_id` if there are several), or give another credential: `api_key`, or `azure.tenant_id`, `azure.client_id` and `azure.client_secret`";
                errand.json(request, Server { name: "Azure's instance metadata service", check, secrets: &[] }).await
            }
        }
    }
}

impl App {
    fn find(config: &AzureConfig, env: &Env, there_is: &str) -> Result<Self, CredentialError> {
        let missing = |field: &str, variable: &str| CredentialError::Setting(format!("there is {there_is} for Microsoft Entra, but no {field}: set `azure.{field}` or {variable}"));
        let tenant = config.tenant_id.clone().or_else(|| env.get("AZURE_TENANT_ID")).ok_or_else(|| missing("tenant_id", "AZURE_TENANT_ID"))?;
        if tenant.is_empty() || !tenant.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.') {
            return Err(CredentialError::Setting(format!("`azure.tenant_id`: \"{}\" is neither an ID nor a domain", tenant.escape_default())));
        }
        let client_id = client_id(config, env).ok_or_else(|| missing("client_id", "AZURE_CLIENT_ID"))?;
        let authority = config.authority_host.clone().or_else(|| env.get("AZURE_AUTHORITY_HOST")).unwrap_or_else(|| AUTHORITY.to_owned());
        let authority = if authority.contains("://") { authority } else { format!("https://{authority}") };
        Ok(App { token_url: format!("{}/{tenant}/oauth2/v2.0/token", authority.trim_end_matches('/')), client_id })
    }
}

fn client_id(config: &AzureConfig, env: &Env) -> Option<String> {
    config.client_id.clone().filter(|id| !id.is_empty()).or_else(|| env.get("AZURE_CLIENT_ID"))
}
