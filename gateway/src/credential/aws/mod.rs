//! AWS credentials: where they are found, in the order in which AWS's own tools look, and how they become others (roles).

mod metadata;
mod profile;
mod sign;
mod sts;

use std::path::PathBuf;
use std::pin::Pin;

use aws_credential_types::Credentials;

use self::metadata::{Container, Instance};
use self::profile::{Profile, Profiles};
pub(super) use self::sign::{digest, sign_parts};
use self::sts::{Role, Sts};
use super::CredentialError;
use super::config::AwsConfig;
use super::lease::Lease;
use super::outside::{Env, Errand};

/// Where credentials come from.
pub(super) enum Source {
    /// Keys that are written down somewhere.
    Fixed(Credentials),
    WebIdentity {
        sts: Sts,
        role: Role,
        token_file: PathBuf,
    },
    Container(Container),
    Instance(Instance),
    /// A role assumed with the credentials of another source.
    Role {
        sts: Sts,
        role: Role,
        base: Box<Source>,
    },
}

impl Source {
    /// Looks for credentials: the configuration, environment variables, profile files, web identity, container, instance. The
    /// first that is there is taken, even if it should turn out not to work: silently being someone else would be worse.
    pub(super) fn find(config: &AwsConfig, env: &Env, region: &str) -> Result<Self, CredentialError> {
        let sts = Sts::new(env, region);
        let base = Self::base(config, env, &sts)?;
        Ok(match &config.assume_role {
            None => base,
            Some(role) => {
                let role = Role { arn: role.arn.clone(), session_name: role.session_name.clone(), external_id: role.external_id.clone() };
                Source::Role { sts, role, base: Box::new(base) }
            }
        })
    }

    fn base(config: &AwsConfig, env: &Env, sts: &Sts) -> Result<Self, CredentialError> {
        let secret = |secret: &Option<crate::secret::Secret>| secret.as_ref().map(|s| s.expose().to_owned()).filter(|s| !s.is_empty());
        let id = config.access_key_id.clone().filter(|id| !id.is_empty());
        if let Some(keys) = keys(id, secret(&config.secret_access_key), secret(&config.session_token), ["`aws.access_key_id`", "`aws.secret_access_key`"])? {
            return Ok(keys);
        }
        if let Some(profile) = &config.profile {
            return Profiled { profiles: &Profiles::read(env)?, env, sts }.named(profile);
        }
        if let Some(keys) = environment(env)? {
            return Ok(keys);
        }
        let profiled = Profiled { profiles: &Profiles::read(env)?, env, sts };
        if let Some(name) = env.get("AWS_PROFILE").or_else(|| env.get("AWS_DEFAULT_PROFILE")) {
            return profiled.named(&name);
        }
        if let Some(source) = profiled.source("default", &mut Vec::new())? {
            return Ok(source);
        }
        if let Some(token_file) = env.get("AWS_WEB_IDENTITY_TOKEN_FILE") {
            let arn = env.get("AWS_ROLE_ARN").ok_or_else(|| CredentialError::Setting("AWS_WEB_IDENTITY_TOKEN_FILE is set, but AWS_ROLE_ARN is not: set both".to_owned()))?;
            let role = Role { arn, session_name: env.get("AWS_ROLE_SESSION_NAME"), external_id: None };
            return Ok(Source::WebIdentity { sts: sts.clone(), role, token_file: token_file.into() });
        }
        if let Some(container) = Container::find(env)? {
            return Ok(Source::Container(container));
        }
        Instance::find(env).map(Source::Instance).ok_or_else(|| {
            CredentialError::Setting(format!(
                "no AWS credentials: set `aws` in the provider's configuration, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in {}, or AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN (the instance metadata service is switched off by AWS_EC2_METADATA_DISABLED)",
                profiled.profiles.files
            ))
        })
    }

    /// Fetches credentials. Boxed, as a role's own source may be a role again.
    pub(super) fn fetch<'a>(&'a self, errand: &'a Errand) -> Pin<Box<dyn Future<Output = Result<Lease<Credentials>, CredentialError>> + Send + 'a>> {
        Box::pin(async move {
            match self {
                Source::Fixed(credentials) => Ok(Lease { value: credentials.clone(), ends: None }),
                Source::WebIdentity { sts, role, token_file } => sts.web_identity(errand, role, token_file).await,
                Source::Container(container) => container.fetch(errand).await,
                Source::Instance(instance) => instance.fetch(errand).await,
                Source::Role { sts, role, base } => {
                    let with = base.fetch(errand).await?.value;
                    sts.assume_role(errand, role, &with).await
                }
            }
        })
    }
}

/// Their end is not in them: the lease knows it.
fn credentials(id: impl Into<String>, secret: impl Into<String>, token: Option<String>) -> Credentials {
    Credentials::new(id, secret, token, None, "trivium")
}

/// Keys that are written down: both parts or none.
fn keys(id: Option<String>, secret: Option<String>, token: Option<String>, names: [&str; 2]) -> Result<Option<Source>, CredentialError> {
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    match (id, secret) {
        (Some(id), Some(secret)) if plain(&id) && plain(&secret) && token.as_deref().is_none_or(plain) => Ok(Some(Source::Fixed(credentials(id, secret, token)))),
        (Some(_), Some(_)) => Err(CredentialError::Setting(format!("{} and {} (or the session token) have spaces, line ends or other characters that no key has", names[0], names[1]))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(CredentialError::Setting(format!("{} is set, but {} is not: set both", names[0], names[1]))),
        (None, Some(_)) => Err(CredentialError::Setting(format!("{} is set, but {} is not: set both", names[1], names[0]))),
    }
}

fn environment(env: &Env) -> Result<Option<Source>, CredentialError> {
    keys(env.get("AWS_ACCESS_KEY_ID"), env.get("AWS_SECRET_ACCESS_KEY"), env.get("AWS_SESSION_TOKEN"), ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
}

/// What a profile means.
struct Profiled<'a> {
    profiles: &'a Profiles,
    env: &'a Env,
    sts: &'a Sts,
}

impl Profiled<'_> {
    /// A profile that was asked for by name: it has to be there and to give credentials.
    fn named(&self, name: &str) -> Result<Source, CredentialError> {
        match self.source(name, &mut Vec::new())? {
            Some(source) => Ok(source),
            None if self.profiles.get(name).is_none() => Err(CredentialError::Setting(format!("there is no AWS profile \"{name}\" in {}", self.profiles.files))),
            None => Err(self.wrong(name, "has no credentials: give it `aws_access_key_id` and `aws_secret_access_key`, or `role_arn`")),
        }
    }

    /// A profile's source; `None` if it has nothing about credentials. `seen` are the profiles that led here.
    fn source(&self, name: &str, seen: &mut Vec<String>) -> Result<Option<Source>, CredentialError> {
        let Some(profile) = self.profiles.get(name) else { return Ok(None) };
        let has = |key: &str| profile.get(key).is_some_and(|v| !v.is_empty());
        // A profile that is its own source, or is reached a second time, stands for its keys.
        let again = seen.iter().any(|s| s == name);
        if has("role_arn") && !again {
            seen.push(name.to_owned());
            return self.role(name, profile, seen).map(Some);
        }
        if let Some(keys) = self.keys(name, profile)? {
            return Ok(Some(keys));
        }
        if again {
            return Err(self.wrong(name, "leads back to itself by `source_profile`"));
        }
        if has("credential_process") {
            return Err(self.wrong(name, "uses `credential_process`, which is not supported: the gateway starts no programs for credentials; use keys or a role"));
        }
        if profile.keys().any(|key| key.starts_with("sso_") || key == "login_session") {
            return Err(self.wrong(name, "uses SSO or `aws login`, which need a person; use keys or a role"));
        }
        Ok(None)
    }

    fn keys(&self, name: &str, profile: &Profile) -> Result<Option<Source>, CredentialError> {
        let get = |key: &str| profile.get(key).filter(|v| !v.is_empty()).cloned();
        keys(get("aws_access_key_id"), get("aws_secret_access_key"), get("aws_session_token"), ["`aws_access_key_id`", "`aws_secret_access_key`"])
            .map_err(|e| self.wrong(name, &format!("is not complete: {e}")))
    }

    fn role(&self, name: &str, profile: &Profile, seen: &mut Vec<String>) -> Result<Source, CredentialError> {
        let get = |key: &str| profile.get(key).filter(|v| !v.is_empty()).cloned();
        if get("mfa_serial").is_some() {
            return Err(self.wrong(name, "asks for a second factor (`mfa_serial`), which needs a person"));
        }
        let role = Role { arn: get("role_arn").unwrap_or_default(), session_name: get("role_session_name"), external_id: get("external_id") };
        if let Some(token_file) = get("web_identity_token_file") {
            return Ok(Source::WebIdentity { sts: self.sts.clone(), role, token_file: token_file.into() });
        }
        let base = match (get("source_profile"), get("credential_source").as_deref()) {
            (Some(source), _) => match self.source(&source, seen)? {
                Some(base) => base,
                None => return Err(self.wrong(name, &format!("names the `source_profile` \"{source}\", which is not there or has no credentials"))),
            },
            (None, Some("Environment")) => environment(self.env)?.ok_or_else(|| self.wrong(name, "takes its credentials from the environment, but AWS_ACCESS_KEY_ID is not set"))?,
            (None, Some("Ec2InstanceMetadata")) => {
                Source::Instance(Instance::find(self.env).ok_or_else(|| self.wrong(name, "takes its credentials from the instance, but AWS_EC2_METADATA_DISABLED is set"))?)
            }
            (None, Some("EcsContainer")) => {
                let container = Container::find(self.env)?;
                Source::Container(container.ok_or_else(|| self.wrong(name, "takes its credentials from the container, but AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is not set"))?)
            }
            (None, Some(_)) => return Err(self.wrong(name, "has an unknown `credential_source`; known: Environment, Ec2InstanceMetadata, EcsContainer")),
            (None, None) => return Err(self.wrong(name, "has a `role_arn`, but no `source_profile`, `credential_source` or `web_identity_token_file` to assume it with")),
        };
        Ok(Source::Role { sts: self.sts.clone(), role, base: Box::new(base) })
    }

    fn wrong(&self, name: &str, what: &str) -> CredentialError {
        CredentialError::Setting(format!("the AWS profile \"{name}\" in {} {what}", self.profiles.files))
    }
}
