//! Credentials against small servers in the same process: no variable of the process and no address of a cloud is touched.
#![allow(clippy::unwrap_used, clippy::panic)]

mod aws;
mod entra;
mod google;
mod life;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::extract::Request;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use providers::Auth;
use providers::envelope::Payload;

use super::outside::{Clock, Env, Outside};
use super::{Credential, CredentialConfig, CredentialError};

/// Bedrock's way to be shown a credential.
const BEDROCK: Auth = Auth::Aws { service: "bedrock" };

/// A request as a server saw it.
#[derive(Debug, Clone)]
struct Seen {
    method: String,
    /// With the query.
    path: String,
    headers: HeaderMap,
    body: String,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    /// A field of a form, decoded.
    fn field(&self, name: &str) -> Option<String> {
        let (_, value) = self.body.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name)?;
        Some(urlencoding::decode(&value.replace('+', " ")).unwrap().into_owned())
    }
}

/// A token server: what it answers is up to the test.
struct Fake {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Fake {
    /// Answers with what `answer` makes of the number of requests so far and the request, after a delay.
    async fn start(answer: impl Fn(usize, &Seen) -> (u16, String) + Clone + Send + Sync + 'static, delay: Duration) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        let app = axum::Router::new().fallback(move |request: Request| {
            let (log, answer) = (log.clone(), answer.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
                let seen = Seen { method: parts.method.to_string(), path: parts.uri.to_string(), headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() };
                let before = {
                    let mut log = log.lock().unwrap();
                    log.push(seen.clone());
                    log.len() - 1
                };
                let (status, text) = answer(before, &seen);
                tokio::time::sleep(delay).await;
                (StatusCode::from_u16(status).unwrap(), text)
            }
        });
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Fake { url, seen }
    }

    /// Answers at once, always by the same rule.
    async fn with(answer: impl Fn(&Seen) -> (u16, String) + Clone + Send + Sync + 'static) -> Self {
        Self::start(move |_, seen| answer(seen), Duration::ZERO).await
    }

    fn host(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// A clock that a test can put forward.
#[derive(Clone)]
struct Hands(Arc<AtomicU64>, SystemTime);

impl Hands {
    fn new() -> Self {
        Hands(Arc::default(), SystemTime::now())
    }

    fn forward(&self, secs: u64) {
        self.0.fetch_add(secs, Ordering::SeqCst);
    }

    fn clock(&self) -> Clock {
        let hands = self.clone();
        Clock::of(move || hands.1 + Duration::from_secs(hands.0.load(Ordering::SeqCst)))
    }
}

/// A file that is gone after the test.
struct Temp(PathBuf);

impl Temp {
    fn file(content: &str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let path = std::env::temp_dir().join(format!("trivium-credential-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst)));
        std::fs::write(&path, content).unwrap();
        Temp(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn name(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn http() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().build().unwrap()
}

/// A credential in an environment of these variables only, at the machine's time.
fn credential(auth: Auth, config: &str, env: &[(&str, &str)]) -> Result<Credential, CredentialError> {
    credential_at(auth, config, env, Clock::system())
}

/// The configuration is written as JSON.
fn credential_at(auth: Auth, config: &str, env: &[(&str, &str)], clock: Clock) -> Result<Credential, CredentialError> {
    let config: CredentialConfig = serde_json::from_str(config).unwrap();
    Credential::with(auth, &config, Some("us-east-1"), Outside { env: Env::of(env), clock, http: http() })
}

/// The message of what must not have worked; all of them are checked not to print these.
fn refused<T>(result: Result<T, CredentialError>, secrets: &[&str]) -> String {
    let Err(error) = result else { panic!("this must not work") };
    for text in [error.to_string(), format!("{error:?}")] {
        assert!(!secrets.iter().any(|s| text.contains(s)), "a secret in: {text}");
    }
    error.to_string()
}

fn request() -> Parts {
    http::Request::post("https://upstream.example/model/m%3A0/converse").header("content-type", "application/json").body(()).unwrap().into_parts().0
}

fn body() -> Payload {
    b"{}".to_vec().into()
}

/// The headers of a request after the credential was put on it.
async fn applied(credential: &Credential) -> Result<HeaderMap, CredentialError> {
    let mut parts = request();
    credential.apply(&mut parts, &body()).await?;
    Ok(parts.headers)
}

/// The text of `Authorization`, which has to be marked as a secret.
async fn authorization(credential: &Credential) -> String {
    let headers = applied(credential).await.unwrap();
    assert!(headers["authorization"].is_sensitive());
    headers["authorization"].to_str().unwrap().to_owned()
}

/// An OAuth answer.
fn token(token: &str, expires_in: u64) -> (u16, String) {
    (200, format!(r#"{{"access_token":"{token}","expires_in":{expires_in},"token_type":"Bearer"}}"#))
}
