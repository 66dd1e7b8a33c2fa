//! AWS's Security Token Service: a role for a web identity token or for other credentials. It answers in XML.

use std::path::Path;

use aws_credential_types::Credentials;
use bytes::Bytes;
use http::header::CONTENT_TYPE;

use super::{credentials, sign};
use crate::credential::CredentialError;
use crate::credential::lease::{Lease, rfc3339};
use crate::credential::outside::{Env, Errand, Server, element, read_token};

const FORM: &str = "application/x-www-form-urlencoded";
const VERSION: (&str, &str) = ("Version", "2011-06-15");
/// An hour is what every role allows; chained roles allow no more.
const LIFETIME: &str = "3600";

/// The service in one region.
#[derive(Clone)]
pub(in crate::credential) struct Sts {
    region: String,
    endpoint: String,
}

/// A role and how its session is called.
#[derive(Clone)]
pub(in crate::credential) struct Role {
    pub(super) arn: String,
    pub(super) session_name: Option<String>,
    pub(super) external_id: Option<String>,
}

impl Sts {
    /// The region's own endpoint, or the one of `AWS_ENDPOINT_URL_STS`.
    pub(in crate::credential) fn new(env: &Env, region: &str) -> Self {
        let endpoint = env.get("AWS_ENDPOINT_URL_STS").unwrap_or_else(|| {
            let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
            format!("https://sts.{region}.{suffix}")
        });
        Sts { region: region.to_owned(), endpoint: format!("{}/", endpoint.trim_end_matches('/')) }
    }

    /// `AssumeRole`, signed with other credentials.
    pub(in crate::credential) async fn assume_role(&self, errand: &Errand, role: &Role, with: &Credentials) -> Result<Lease<Credentials>, CredentialError> {
        let mut fields = vec![("Action", "AssumeRole"), VERSION];
        fields.extend(role.external_id.as_deref().map(|id| ("ExternalId", id)));
        let body = Bytes::from(form(role, fields));
        let cannot = |e: &dyn std::fmt::Display| CredentialError::Setting(format!("AWS_ENDPOINT_URL_STS: \"{}\" is not a URL: {e}", self.endpoint));
        let (mut parts, ()) = http::Request::post(&self.endpoint).header(CONTENT_TYPE, FORM).body(()).map_err(|e| cannot(&e))?.into_parts();
        sign::sign_parts(&mut parts, sign::digest(std::slice::from_ref(&body)), with, &self.region, "sts", errand.outside.clock.now())?;
        let request = errand.http().post(&self.endpoint).headers(parts.headers).body(body);
        let check = format!("that the role {} exists and that its trust policy lets these credentials assume it", role.arn);
        let secrets = [with.secret_access_key(), with.session_token().unwrap_or_default()];
        read(&errand.send(request, Server { name: "AWS STS", check: &check, secrets: &secrets }).await?)
    }

    /// `AssumeRoleWithWebIdentity`, which needs no signature. The token file is read anew each time: it is rotated.
    pub(in crate::credential) async fn web_identity(&self, errand: &Errand, role: &Role, token_file: &Path) -> Result<Lease<Credentials>, CredentialError> {
        let token = read_token(token_file, "AWS_WEB_IDENTITY_TOKEN_FILE").await?;
        let body = form(role, vec![("Action", "AssumeRoleWithWebIdentity"), VERSION, ("WebIdentityToken", &token)]);
        let request = errand.http().post(&self.endpoint).header(CONTENT_TYPE, FORM).body(body);
        let check = format!("that the trust policy of {} names this identity provider, subject and audience, and that {} is fresh", role.arn, token_file.display());
        read(&errand.send(request, Server { name: "AWS STS", check: &check, secrets: &[&token] }).await?)
    }
}

fn form<'a>(role: &'a Role, mut fields: Vec<(&'a str, &'a str)>) -> String {
    fields.extend([("RoleArn", role.arn.as_str()), ("RoleSessionName", role.session_name.as_deref().unwrap_or("trivium")), ("DurationSeconds", LIFETIME)]);
    fields.iter().map(|(name, value)| format!("{name}={}", urlencoding::encode(value))).collect::<Vec<_>>().join("&")
}

fn read(xml: &[u8]) -> Result<Lease<Credentials>, CredentialError> {
    let lease = || {
        let found = element(std::str::from_utf8(xml).ok()?, "Credentials")?;
        let ends = rfc3339(element(found, "Expiration")?)?;
        let keys = credentials(element(found, "AccessKeyId")?, element(found, "SecretAccessKey")?, element(found, "SessionToken").map(str::to_owned));
        Some(Lease { value: keys, ends: Some(ends) })
    };
    lease().ok_or_else(|| CredentialError::Fetch("AWS STS answered with XML that has no credentials; check AWS_ENDPOINT_URL_STS".to_owned()))
}
