//! What a provider's configuration may say about its credential. The doc lines are the user's manual.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::secret::Secret;

/// The credential of one provider: an API key, or the account of a cloud from which short-lived tokens are fetched.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CredentialConfig {
    /// The provider's API key. Write `${NAME}` to take it from an environment variable. Azure, Google and Bedrock take one
    /// too; without it they are asked with short-lived tokens from `azure`, `google` or `aws`.
    pub api_key: Option<Secret>,
    /// AWS account for Bedrock. Without it credentials are looked for where AWS tools look: environment variables, profile
    /// files, web identity, container, instance.
    pub aws: Option<AwsConfig>,
    /// Google Cloud account for Vertex AI. Without it Application Default Credentials are used:
    /// `GOOGLE_APPLICATION_CREDENTIALS`, gcloud's own file, the metadata server.
    pub google: Option<GoogleConfig>,
    /// Microsoft Entra identity for Azure. Without it the `AZURE_*` environment variables, workload identity and managed
    /// identity are tried in this order.
    pub azure: Option<AzureConfig>,
}

/// An AWS account.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AwsConfig {
    /// Access key ID, together with `secret_access_key`.
    pub access_key_id: Option<String>,
    /// Secret access key.
    pub secret_access_key: Option<Secret>,
    /// Session token, if the keys are temporary. Such keys end and are not renewed; prefer a profile or a role.
    pub session_token: Option<Secret>,
    /// Profile in `~/.aws/credentials` and `~/.aws/config`, instead of `AWS_PROFILE`. Keys, `role_arn` with `source_profile`,
    /// `credential_source` or `web_identity_token_file` are understood; SSO and `credential_process` are not.
    pub profile: Option<String>,
    /// A role to be assumed with the credentials found above.
    pub assume_role: Option<AssumeRoleConfig>,
}

/// A role to be assumed.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AssumeRoleConfig {
    /// The role's ARN.
    pub arn: String,
    /// External ID, if the role's trust policy asks for one.
    #[serde(default)]
    pub external_id: Option<String>,
    /// Session name, as CloudTrail shows it; `trivium` by default.
    #[serde(default)]
    pub session_name: Option<String>,
}

/// A Google Cloud account. At most one of the two.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GoogleConfig {
    /// Credentials file as Google Cloud gives it out: a service account's key, gcloud's user credentials, or workload identity
    /// federation with a token from a file or URL.
    pub credentials_file: Option<PathBuf>,
    /// The content of such a file.
    pub credentials_json: Option<Secret>,
}

/// A Microsoft Entra identity.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AzureConfig {
    /// Tenant, instead of `AZURE_TENANT_ID`.
    pub tenant_id: Option<String>,
    /// Application (client) ID, instead of `AZURE_CLIENT_ID`. For managed identity: the user-assigned identity to use.
    pub client_id: Option<String>,
    /// Client secret of the application, instead of `AZURE_CLIENT_SECRET`.
    pub client_secret: Option<Secret>,
    /// File with a federated token (workload identity), instead of `AZURE_FEDERATED_TOKEN_FILE`. It is read anew each time.
    pub federated_token_file: Option<PathBuf>,
    /// Where tokens are asked for, instead of `AZURE_AUTHORITY_HOST`; `https://login.microsoftonline.com` by default.
    pub authority_host: Option<String>,
    /// What tokens are asked for; `https://cognitiveservices.azure.com/.default` by default. Other clouds have other ones.
    pub scope: Option<String>,
}
