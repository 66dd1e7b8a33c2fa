//! The keys of an issuer as they change: found by discovery, fetched in the background, kept while the issuer is down, and
//! fetched anew for a key that is not known, once for all who wait and at most once a minute.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::{HeaderMap, header};
use reqwest::Url;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::key::Keys;
use crate::fetch::{fetch, place};
use crate::state::{State, http_client};

/// Discovery and keys together have to be there by then.
const DEADLINE: Duration = Duration::from_secs(5);
/// Neither a discovery document nor a set of keys is larger.
const LARGEST: usize = 256 << 10;
/// How long keys are good for where the issuer does not say.
const USUAL: Duration = Duration::from_secs(3600);
/// Bounds on what the issuer says.
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// The longest wait between two tries in the background.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// How often requests may cause a fetch.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    /// For a key that is not known.
    pub(super) unknown: Duration,
    /// As long as there are no keys at all.
    pub(super) none: Duration,
}

pub(super) const PACE: Pace = Pace { unknown: Duration::from_secs(60), none: Duration::from_secs(1) };

/// Where keys come from. The same place has the same keys, whatever else a configuration says of it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) issuer: String,
    pub(super) jwks_url: Option<String>,
    /// The authorities behind it, as the PEM file has them.
    pub(super) ca: Option<Vec<u8>>,
}

/// The keys of one place.
pub(super) struct Source {
    place: Place,
    http: reqwest::Client,
    pace: Pace,
    held: ArcSwapOption<Keys>,
    flight: Mutex<Flight>,
}

/// What is known of fetches; locked while one is under way.
struct Flight {
    /// When the last one ended.
    ended: Option<Instant>,
    /// When the next one is due in the background.
    due: Instant,
    failures: u32,
    /// When it was last said that it fails.
    warned: Option<Instant>,
    /// When one was last made for a key that was not known.
    sought: Option<Instant>,
}

/// Why keys are fetched.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    /// It is time.
    Due,
    /// There are none.
    First,
    /// One is wanted that is not among them.
    Unknown,
}

/// All sources that rules use. They outlive a reload: while the new rules are built the old ones still hold them.
#[derive(Default)]
pub struct Sources(std::sync::Mutex<HashMap<Place, Weak<Source>>>);

impl Sources {
    /// The source of a place, with what is known from there.
    ///
    /// # Errors
    /// When the certificates of its authorities cannot be used.
    pub(super) fn of(&self, place: Place, state: &State) -> Result<Arc<Source>, String> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(source) = all.get(&place).and_then(Weak::upgrade) {
            return Ok(source);
        }
        all.retain(|_, source| source.strong_count() > 0);
        let http = match &place.ca {
            None => state.http.clone(),
            Some(pem) => trusting(pem)?,
        };
        let source = Source::new(place.clone(), http, PACE);
        all.insert(place, Arc::downgrade(&source));
        Ok(source)
    }
}

/// A client that believes these authorities and no others.
fn trusting(pem: &[u8]) -> Result<reqwest::Client, String> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    }
    if roots.is_empty() {
        return Err("there is no certificate in it".to_owned());
    }
    http_client(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

impl Source {
    pub(super) fn new(place: Place, http: reqwest::Client, pace: Pace) -> Arc<Self> {
        let flight = Flight { ended: None, due: Instant::now(), failures: 0, warned: None, sought: None };
        Arc::new(Source { place, http, pace, held: ArcSwapOption::empty(), flight: Mutex::new(flight) })
    }

    /// The keys known so far.
    pub(super) fn held(&self) -> Option<Arc<Keys>> {
        self.held.load_full()
    }

    /// Whether these are the keys in force.
    pub(super) fn holds(&self, keys: &Arc<Keys>) -> bool {
        self.held.load().as_ref().is_some_and(|held| Arc::ptr_eq(held, keys))
    }

    /// The keys known so far, fetched if there are none.
    pub(super) async fn first(self: &Arc<Self>) -> Option<Arc<Keys>> {
        if self.held.load().is_none() {
            self.renew(Why::First).await;
        }
        self.held()
    }

    /// The keys after a look for new ones, for a key that is not among those known.
    pub(super) async fn seek(self: &Arc<Self>) -> Option<Arc<Keys>> {
        self.renew(Why::Unknown).await;
        self.held()
    }

    /// Fetches the keys, and again whenever that is due, for ever.
    pub(super) async fn keep_fresh(self: Arc<Self>) {
        loop {
            let due = self.flight.lock().await.due;
            tokio::time::sleep_until(due).await;
            self.fill(Instant::now(), Why::Due).await;
        }
    }

    #[cfg(test)]
    pub(super) async fn has_failed(&self) -> bool {
        self.flight.lock().await.failures > 0
    }

    /// A fetch that runs on even if its first asker goes away: others may wait for it.
    async fn renew(self: &Arc<Self>, why: Why) {
        let (source, asked) = (self.clone(), Instant::now());
        let _ = tokio::spawn(async move { source.fill(asked, why).await }).await;
    }

    /// Waits for the fetch under way or makes one, if it is time for one.
    async fn fill(&self, asked: Instant, why: Why) {
        let mut flight = self.flight.lock().await;
        let within = |at: Option<Instant>, time: Duration| at.is_some_and(|at| at.elapsed() < time);
        let enough = match why {
            Why::Due => flight.due > Instant::now(),
            Why::First => self.held.load().is_some() || within(flight.ended, self.pace.none),
            Why::Unknown => within(flight.sought, self.pace.unknown),
        };
        if enough || flight.ended.is_some_and(|ended| ended >= asked) {
            return;
        }
        if why == Why::Unknown {
            flight.sought = Some(Instant::now());
        }
        let fetched = tokio::time::timeout(DEADLINE, self.fetch()).await.unwrap_or_else(|_| Err(format!("{} did not answer within {} s", self.place.issuer, DEADLINE.as_secs())));
        let ended = Instant::now();
        flight.ended = Some(ended);
        match fetched {
            Ok((keys, fresh)) => {
                (flight.failures, flight.warned) = (0, None);
                flight.due = ended + fresh;
                self.take(keys);
            }
            Err(error) => {
                flight.failures = flight.failures.saturating_add(1);
                flight.due = ended + backoff(flight.failures);
                if !within(flight.warned, LONGEST_BACKOFF) {
                    flight.warned = Some(ended);
                    let known = self.held.load().is_some();
                    tracing::warn!(issuer = self.place.issuer, error, failures = flight.failures, known, "the keys of an issuer of tokens could not be fetched; those known so far stay in use");
                }
            }
        }
    }

    /// Puts other keys in force. The same ones again change nothing, so that what was checked with them stays checked.
    fn take(&self, keys: Keys) {
        if self.held.load().as_deref().is_some_and(|held| *held == keys) {
            return;
        }
        tracing::info!(issuer = self.place.issuer, keys = keys.len(), "the keys of an issuer of tokens are known");
        self.held.store(Some(Arc::new(keys)));
    }

    /// The keys, and for how long they are good.
    async fn fetch(&self) -> Result<(Keys, Duration), String> {
        let url = match &self.place.jwks_url {
            Some(url) => safe_url(url)?,
            None => self.discover().await?,
        };
        let (headers, body) = self.get(&url).await?;
        let keys = Keys::read(&body).map_err(|e| format!("{} {e}", place(&url)))?;
        Ok((keys, fresh(&headers)))
    }

    /// Where the issuer says that its keys are (OpenID Connect Discovery, 4).
    async fn discover(&self) -> Result<Url, String> {
        #[derive(Deserialize)]
        struct Document {
            issuer: String,
            jwks_uri: String,
        }
        let url = safe_url(&format!("{}/.well-known/openid-configuration", self.place.issuer.trim_end_matches('/')))?;
        let (_, body) = self.get(&url).await?;
        let document: Document = serde_json::from_slice(&body).map_err(|e| format!("{} is no discovery document (line {}, column {}); set `jwks_url`", place(&url), e.line(), e.column()))?;
        if document.issuer != self.place.issuer {
            return Err(format!("{} speaks for the issuer `{}`, and `issuer` says otherwise: they must be the same to the letter", place(&url), document.issuer.escape_debug()));
        }
        safe_url(&document.jwks_uri).map_err(|e| format!("`jwks_uri` of {} {e}", place(&url)))
    }

    async fn get(&self, url: &Url) -> Result<(HeaderMap, Vec<u8>), String> {
        let request = self.http.get(url.clone()).header(header::ACCEPT, "application/json").build().map_err(|e| format!("{} cannot be asked: {}", place(url), e.without_url()))?;
        let answer = fetch(&self.http, request, LARGEST).await.map_err(|e| format!("{} {e}", place(url)))?;
        match answer.status.as_u16() {
            200 => Ok((answer.headers, answer.body)),
            status => Err(format!("{} answered {status}", place(url))),
        }
    }
}

/// Whether keys may be fetched from there: who can change them on the way can sign whatever they like.
///
/// # Errors
/// What is wrong with it, as it goes on after its name.
pub(super) fn safe_url(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|_| "is not a URL".to_owned())?;
    let host = url.host_str().unwrap_or_default();
    let loopback = host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match url.scheme() {
        "https" => {}
        "http" if loopback => {}
        _ => return Err("must be an https URL (http is for loopback only)".to_owned()),
    }
    if host.is_empty() || !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err("must have a host, and neither a user nor a fragment".to_owned());
    }
    Ok(url)
}

/// Reads the authorities behind an issuer.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn read_ca(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
}

/// How long an answer may be kept: what its `Cache-Control` says, within bounds.
fn fresh(headers: &HeaderMap) -> Duration {
    let directives = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    let age = directives.filter_map(|d| d.trim().to_ascii_lowercase().strip_prefix("max-age=")?.trim_matches('"').parse().ok()).next();
    age.map_or(USUAL, |seconds| Duration::from_secs(seconds).clamp(SHORTEST, LONGEST))
}

fn backoff(failures: u32) -> Duration {
    let full = Duration::from_secs(1 << failures.saturating_sub(1).min(6)).min(LONGEST_BACKOFF);
    full.mul_f64(0.75 + fastrand::f64() / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_safe_places_only() {
        for good in ["https://id.example.com", "https://id.example.com/realms/a", "http://127.0.0.1:8080/x", "http://[::1]:1", "http://localhost:9"] {
            assert!(safe_url(good).is_ok(), "{good}");
        }
        for bad in ["http://id.example.com", "id.example.com", "https://", "ftp://127.0.0.1", "https://u:p@id.example.com", "https://id.example.com/#a", "http://127.0.0.1.example.com"] {
            assert!(safe_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_issuer_says_how_long_within_bounds() {
        let fresh = |value: &str| fresh(&HeaderMap::from_iter([(header::CACHE_CONTROL, value.parse().unwrap())])).as_secs();
        assert_eq!([fresh("public, max-age=7200"), fresh("Max-Age=5"), fresh("max-age=99999999"), fresh("no-cache"), fresh("max-age=x")], [7200, 60, 86_400, 3600, 3600]);
        assert_eq!(super::fresh(&HeaderMap::new()), USUAL);
        for failures in 1..100 {
            assert!(backoff(failures) >= Duration::from_millis(750) && backoff(failures) <= LONGEST_BACKOFF);
        }
    }
}
