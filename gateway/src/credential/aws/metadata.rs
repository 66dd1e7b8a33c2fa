//! Credentials that AWS lays beside a workload: the endpoint of a container (ECS, EKS Pod Identity) and the instance metadata
//! service (IMDSv2).

use std::path::PathBuf;

use aws_credential_types::Credentials;
use serde::Deserialize;

use super::credentials;
use crate::credential::CredentialError;
use crate::credential::lease::{Lease, rfc3339};
use crate::credential::outside::{Env, Errand, Server, read_token};

/// The endpoint of a container.
#[derive(Clone)]
pub(in crate::credential) struct Container {
    url: String,
    token: Option<Token>,
}

#[derive(Clone)]
enum Token {
    Text(String),
    File(PathBuf),
}

impl Container {
    /// As the container's environment names it, if it does.
    pub(in crate::credential) fn find(env: &Env) -> Result<Option<Self>, CredentialError> {
        let url = match (env.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"), env.get("AWS_CONTAINER_CREDENTIALS_FULL_URI")) {
            (Some(path), _) => format!("http://169.254.170.2{path}"),
            (None, Some(url)) => {
                allowed(&url)?;
                url
            }
            (None, None) => return Ok(None),
        };
        let file = env.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").map(|path| Token::File(path.into()));
        let token = file.or_else(|| env.get("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(Token::Text));
        Ok(Some(Container { url, token }))
    }

    pub(in crate::credential) async fn fetch(&self, errand: &Errand) -> Result<Lease<Credentials>, CredentialError> {
        let token = match &self.token {
            None => None,
            Some(Token::Text(text)) => Some(text.clone()),
            Some(Token::File(path)) => Some(read_token(path, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").await?),
        };
        let mut request = errand.http().get(&self.url);
        if let Some(token) = &token {
            request = request.header(http::header::AUTHORIZATION, token);
        }
        let server = Server {
            name: "the container's credential endpoint",
            check: "that the task or pod has a role, and AWS_CONTAINER_CREDENTIALS_FULL_URI or _RELATIVE_URI",
            secrets: &[token.as_deref().unwrap_or_default()],
        };
        errand.json::<Answer>(request, server).await?.lease(server.name)
    }
}

/// Credentials come over plain HTTP from this machine or from AWS's link-local addresses only.
fn allowed(url: &str) -> Result<(), CredentialError> {
    let wrong = |why: &str| Err(CredentialError::Setting(format!("AWS_CONTAINER_CREDENTIALS_FULL_URI: {why}")));
    let Ok(parsed) = reqwest::Url::parse(url) else { return wrong("not a URL") };
    let host = parsed.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let loopback = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if parsed.scheme() == "https" || loopback || ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"].contains(&host) {
        return Ok(());
    }
    wrong("must begin with https://, or be on this machine, 169.254.170.2, 169.254.170.23 or [fd00:ec2::23]")
}

/// The instance metadata service.
#[derive(Clone)]
pub(in crate::credential) struct Instance {
    endpoint: String,
}

impl Instance {
    /// At its usual place or at `AWS_EC2_METADATA_SERVICE_ENDPOINT`; `None` if the environment forbids to ask it.
    pub(in crate::credential) fn find(env: &Env) -> Option<Self> {
        if env.get("AWS_EC2_METADATA_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true")) {
            return None;
        }
        let usual = match env.get("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE") {
            Some(mode) if mode.eq_ignore_ascii_case("ipv6") => "http://[fd00:ec2::254]",
            _ => "http://169.254.169.254",
        };
        let endpoint = env.get("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|| usual.to_owned());
        Some(Instance { endpoint: endpoint.trim_end_matches('/').to_owned() })
    }

    /// Three requests: a token, the name of the instance's role, the role's credentials.
    pub(in crate::credential) async fn fetch(&self, errand: &Errand) -> Result<Lease<Credentials>, CredentialError> {
        const NAME: &str = "the instance metadata service";
        let check = "that this runs on EC2 with an instance profile (in a container: with a hop limit of 2), or give AWS credentials: `aws` in the provider's configuration, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN";
        let server = Server { name: NAME, check, secrets: &[] };
        let text = |body: Vec<u8>| String::from_utf8(body).unwrap_or_default().trim().to_owned();
        let ask = errand.http().put(format!("{}/latest/api/token", self.endpoint)).header("x-aws-ec2-metadata-token-ttl-seconds", "300");
        let token = text(errand.send(ask, server).await?);
        let secrets = [token.as_str()];
        let server = Server { secrets: &secrets, ..server };
        let get = |path: &str| errand.http().get(format!("{}/latest/meta-data/iam/security-credentials/{path}", self.endpoint)).header("x-aws-ec2-metadata-token", &token);
        let roles = text(errand.send(get(""), server).await?);
        let Some(role) = roles.lines().next().map(str::trim).filter(|role| !role.is_empty()) else {
            return Err(CredentialError::Fetch(format!("{NAME} knows no role; check {check}")));
        };
        errand.json::<Answer>(get(&urlencoding::encode(role)), server).await?.lease(NAME)
    }
}

/// Both answer alike; a failure may come with a good status.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    token: Option<String>,
    expiration: Option<String>,
    code: Option<String>,
}

impl Answer {
    fn lease(self, name: &str) -> Result<Lease<Credentials>, CredentialError> {
        let (Some(id), Some(secret)) = (self.access_key_id, self.secret_access_key) else {
            let code = self.code.filter(|code| code.chars().all(char::is_alphanumeric)).unwrap_or_default();
            return Err(CredentialError::Fetch(format!("{name} answered without credentials ({code}); check the role's trust policy")));
        };
        let ends = match self.expiration {
            None => None,
            Some(text) => Some(rfc3339(&text).ok_or_else(|| CredentialError::Fetch(format!("{name} answered with an `Expiration` that is not a time")))?),
        };
        Ok(Lease { value: credentials(id, secret, self.token), ends })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_come_from_near_or_over_tls() {
        for good in ["https://creds.example/x", "http://127.0.0.1:9/x", "http://localhost/x", "http://[::1]/x", "http://169.254.170.23/v1/credentials", "http://[fd00:ec2::23]/v1"] {
            assert!(allowed(good).is_ok(), "{good}");
        }
        for wrong in ["http://creds.example/x", "http://169.254.170.2.example/", "http://10.0.0.1/", "/x", "http://localhost@evil.example/"] {
            assert!(allowed(wrong).is_err(), "{wrong}");
        }
    }
}
