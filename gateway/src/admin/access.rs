//! Who may use the admin API: whoever shows its token. It is configured, or made at the first start and kept in a file.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{Request, State as Shared};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Context;
use super::refusal::Refusal;
use crate::config::{Admin, Config, Problem};
use crate::durable;
use crate::keyring::new_key;
use crate::origin;
use crate::rules::Rules;

const FILE: &str = "admin.token";
/// A token that is shorter could be guessed.
const SHORTEST: usize = 16;

/// How the token of the API is had.
#[derive(Debug)]
pub enum Access {
    /// From the configuration in force.
    Configured,
    /// From a file.
    Kept {
        /// Which.
        path: PathBuf,
        /// Hash of the token.
        hash: [u8; 32],
    },
    /// Not at all, for this reason.
    Closed(String),
}

/// What is wrong with the token of a configuration, or with its having none.
#[must_use]
pub fn problem(config: &Config) -> Option<Problem> {
    let admin = config.admin.as_ref();
    match (Admin::listen(admin), Admin::token(admin)) {
        (Some(at), None) if !at.ip().is_loopback() => {
            let message =
                format!("{at} is not on loopback, and everyone who reaches it could give out keys: say `admin: {{ listen: \"{at}\", token: \"${{TRIVIUM_ADMIN_TOKEN}}\" }}`, or bind it to 127.0.0.1");
            Some(Problem::new("admin", message))
        }
        (_, Some(token)) if token.expose().len() < SHORTEST => Some(Problem::new("admin.token", format!("is too short to be safe: at least {SHORTEST} characters; `openssl rand -hex 32` makes one"))),
        _ => None,
    }
}

/// Why there is to be no API, if so. `from_file` says whether the configuration came from one.
#[must_use]
pub fn closed(config: &Config, from_file: bool) -> Option<String> {
    let admin = config.admin.as_ref();
    match Admin::listen(admin) {
        None => Some("the admin port is off".into()),
        Some(_) if from_file || Admin::token(admin).is_some() => None,
        Some(_) => Some("it wants a configuration file; write trivium.yaml, and its token is made at the next start".into()),
    }
}

impl Access {
    /// Gets or makes the token. `closed` is a reason not to.
    #[must_use]
    pub fn open(config: &Config, closed: Option<String>) -> Self {
        match (closed, Admin::token(config.admin.as_ref())) {
            (Some(why), _) => Access::Closed(why),
            (None, Some(_)) => Access::Configured,
            (None, None) => {
                let path = config.data().join(FILE);
                match kept(&path) {
                    Ok(hash) => Access::Kept { path, hash },
                    Err(error) => Access::Closed(format!("its token cannot be kept in {} ({error}): make the folder `data` writable, or configure `admin.token`", path.display())),
                }
            }
        }
    }

    /// Whether who shows these headers may come in.
    fn admits(&self, rules: &Rules, headers: &HeaderMap) -> Result<(), Refusal> {
        // The configuration in force comes first: a token that is changed there holds from the reload on.
        let hash = match (Admin::token(rules.config.admin.as_ref()), self) {
            (Some(token), _) => digest(token.expose()),
            (None, Access::Kept { hash, .. }) => *hash,
            (None, Access::Configured) => return Err(Refusal::unavailable("no_token", "the token was taken out of the configuration: restart the gateway, and one is made")),
            (None, Access::Closed(why)) => return Err(Refusal::unavailable("no_token", format!("the admin API is closed: {why}"))),
        };
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| value.split_once(' '));
        match shown {
            // Hashes are compared, so that the time says nothing about the token.
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && bool::from(digest(token.trim()).ct_eq(&hash)) => Ok(()),
            Some(_) => Err(Refusal::new(StatusCode::UNAUTHORIZED, "wrong_token", "this is not the token of the admin API")),
            None => Err(Refusal::new(StatusCode::UNAUTHORIZED, "no_token_shown", "the admin API wants its token: send `Authorization: Bearer TOKEN`")),
        }
    }
}

/// Whether a path is for who shows the token only.
pub(super) fn is_guarded(path: &str) -> bool {
    path == "/admin" || path.starts_with("/admin/")
}

/// Lets nobody under `/admin/` who does not show the token, whatever is there. Who reads figures without it asks for this machine
/// by a name that is nobody's, as long as only this machine is listened to: a page in a browser could have bent its own.
pub(super) async fn check(Shared(context): Shared<Arc<Context>>, request: Request, next: Next) -> Response {
    if !is_guarded(request.uri().path()) {
        if context.loopback && matches!(request.uri().path(), "/metrics" | "/status") && !origin::is_for_here(request.headers()) {
            let message = "this port listens on loopback, and is asked there by its own names only (localhost, 127.0.0.1); elsewhere it needs `admin: { listen, token }`";
            return Refusal::new(StatusCode::FORBIDDEN, "host_not_allowed", message).into_response();
        }
        return next.run(request).await;
    }
    let admitted = context.rules().and_then(|rules| context.access.admits(&rules, request.headers()));
    let mut response = match admitted {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    if response.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    // A key that was made stands in one answer, and in nobody's cache.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Hash of the token in a file, which is made if it is not there.
fn kept(path: &Path) -> io::Result<[u8; 32]> {
    match fs::read_to_string(path) {
        Ok(text) if text.trim().len() >= SHORTEST => {
            let mut rights = fs::metadata(path)?.permissions();
            if rights.mode() & 0o077 != 0 {
                tracing::warn!(path = %path.display(), "others could read the token of the admin API; now they cannot. Remove the file and restart if somebody may have");
                rights.set_mode(0o600);
                fs::set_permissions(path, rights)?;
            }
            Ok(digest(text.trim()))
        }
        Ok(_) => Err(io::Error::other(format!("there is no token of at least {SHORTEST} characters in it; remove it"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            let token = new_key().map_err(io::Error::other)?;
            durable::replace(path, format!("{}\n", token.expose()).as_bytes())?;
            Ok(digest(token.expose()))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::suite::server::Folder;

    fn config(yaml: &str) -> Config {
        crate::config::from_text(yaml, &|_| None).unwrap()
    }

    #[test]
    fn a_token_is_made_once_and_for_its_owner_alone() {
        let folder = Folder::new();
        let path = folder.path().join("deep").join(FILE);
        let hash = kept(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!((digest(text.trim()), kept(&path).unwrap()), (hash, hash));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        kept(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "short\n").unwrap();
        assert!(kept(&path).unwrap_err().to_string().contains("remove it"));
    }

    #[test]
    fn without_a_place_for_the_token_the_api_is_closed_and_says_why() {
        let folder = Folder::new();
        fs::write(folder.path().join("file"), "").unwrap();
        let access = Access::open(&config(&format!("data: {}/file", folder.path().display())), None);
        assert!(matches!(&access, Access::Closed(why) if why.contains("admin.token") && why.contains("`data`")), "{access:?}");
        assert!(closed(&config(""), false).is_some_and(|why| why.contains("trivium.yaml")) && closed(&config(""), true).is_none());
        assert!(closed(&config("admin: off"), true).is_some());
        assert!(closed(&config("admin: { token: 0123456789abcdef }"), false).is_none());
    }

    #[test]
    fn off_loopback_the_port_needs_a_token() {
        assert!(problem(&config("admin: 0.0.0.0:8081")).is_some_and(|p| p.path == "admin" && p.message.contains("token")));
        assert!(problem(&config("admin: { listen: \"[::]:8081\", token: \"\" }")).is_some());
        assert!(problem(&config("admin: { listen: 0.0.0.0:8081, token: 0123456789abcdef }")).is_none());
        assert!(problem(&config("admin: { token: 0123456789abcde }")).is_some_and(|p| p.path == "admin.token"));
        assert!(problem(&config("admin: 127.0.0.1:1")).is_none() && problem(&config("admin: off")).is_none());
    }
}
