//! AWS's shared profile files: `~/.aws/credentials` and `~/.aws/config`.

use std::collections::HashMap;

use crate::credential::CredentialError;
use crate::credential::outside::Env;

/// The settings of one profile.
pub(super) type Profile = HashMap<String, String>;

/// The profiles of both files. Where both have a setting, the credentials file's counts.
pub(super) struct Profiles {
    by_name: HashMap<String, Profile>,
    /// The files' places, for errors.
    pub(super) files: String,
}

impl Profiles {
    /// Reads both files; a file that is not there has no profiles.
    pub(super) fn read(env: &Env) -> Result<Self, CredentialError> {
        let place = |variable: &str, name: &str| match env.get(variable) {
            Some(path) => Some((path, true)),
            None => env.home().map(|home| (format!("{home}/.aws/{name}"), false)),
        };
        let config = place("AWS_CONFIG_FILE", "config");
        let credentials = place("AWS_SHARED_CREDENTIALS_FILE", "credentials");
        let mut by_name = HashMap::new();
        for (place, in_config) in [(&config, true), (&credentials, false)] {
            let Some((path, named)) = place else { continue };
            match std::fs::read_to_string(path) {
                Ok(text) => parse(&text, in_config, &mut by_name),
                Err(e) if *named && e.kind() != std::io::ErrorKind::NotFound => return Err(CredentialError::Setting(format!("cannot read AWS's profile file {path}: {e}"))),
                // A container may run as a user who cannot look into HOME; nobody has asked for that file.
                Err(error) => tracing::debug!(%path, %error, "no AWS profile file"),
            }
        }
        let files = [credentials, config].into_iter().flatten().map(|(path, _)| path).collect::<Vec<_>>().join(" and ");
        Ok(Profiles { by_name, files })
    }

    /// A profile by its name.
    pub(super) fn get(&self, name: &str) -> Option<&Profile> {
        self.by_name.get(name)
    }
}

/// Adds a file's profiles to those that are there. In the config file they are called `[profile name]`, but `[default]` may do
/// without; its other sections (`[sso-session …]`, `[services …]`) are no profiles.
fn parse(text: &str, in_config: bool, profiles: &mut HashMap<String, Profile>) {
    let mut current = None;
    for line in text.lines() {
        // Indented lines belong to a nested setting (`s3 =`), none of which is about credentials.
        if line.starts_with(char::is_whitespace) || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            let header = header.split(']').next().unwrap_or_default().trim();
            let name = match header.split_once(char::is_whitespace) {
                Some(("profile", name)) if in_config => Some(name.trim()),
                _ if header == "default" || !in_config => Some(header),
                _ => None,
            };
            current = name.map(str::to_owned);
        } else if let (Some(name), Some((key, value))) = (&current, line.split_once('=')) {
            let value = [" #", " ;", "\t#", "\t;"].iter().fold(value, |value, mark| value.split(mark).next().unwrap_or_default());
            profiles.entry(name.clone()).or_default().insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_files_are_read() {
        let mut profiles = HashMap::new();
        parse(
            "# mine\n[default]\nregion = eu-west-1\n[profile  work]\nrole_arn=arn:aws:iam::1:role/r ; by day\ns3 =\n  max = 1\nAWS_ACCESS_KEY_ID = from-config\n[sso-session x]\nsso_region = us-east-1\n",
            true,
            &mut profiles,
        );
        parse("[work]\naws_access_key_id = AKID # mine\naws_secret_access_key=a/b+c=\n[profile odd]\nx=1\n", false, &mut profiles);
        assert_eq!(profiles["default"]["region"], "eu-west-1");
        let work = &profiles["work"];
        assert_eq!((work["role_arn"].as_str(), work["aws_access_key_id"].as_str(), work["aws_secret_access_key"].as_str()), ("arn:aws:iam::1:role/r", "AKID", "a/b+c="));
        assert!(!work.contains_key("max"));
        assert!(!profiles.contains_key("x") && !profiles.contains_key("sso-session x"));
    }
}
