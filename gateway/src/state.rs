//! What outlives a reload: connections to upstreams, what is known of targets, the ledger, the rules in force.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;

use crate::counters::Counters;
use crate::doubts::doubts;
use crate::figures::Figures;
use crate::jwt::Sources;
use crate::keyring::Keyring;
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::rules::Rules;

use crate::upstream::{Client, Proxies};

/// The process.
pub struct State {
    /// The rules in force; `None` only until the first are built.
    rules: ArcSwapOption<Rules>,
    /// For what is not hot: token servers, sinks.
    pub http: reqwest::Client,
    tls: Arc<rustls::ClientConfig>,
    /// For what is hot: providers.
    upstream: Client,
    targets: Mutex<HashMap<String, Arc<Figures>>>,
    /// The keys of issuers of tokens.
    pub issuers: Sources,
    /// Where limits are counted.
    pub counters: Counters,
    /// Keys made at run time.
    pub keyring: Arc<Keyring>,
    /// Where requests are written down.
    pub ledger: Ledger,
    /// Figures for Prometheus.
    pub metrics: Metrics,
    /// Whether the process is going down.
    pub draining: AtomicBool,
    /// Requests being served.
    pub serving: AtomicU64,
    started: Instant,
    started_at: Duration,
}

impl State {
    /// A process without rules yet.
    ///
    /// # Errors
    /// When the HTTP client cannot be made.
    pub fn new(ledger: Ledger, counters: Counters, keyring: Arc<Keyring>) -> Result<Arc<State>, String> {
        let tls = Arc::new(tls_roots());
        let http = http_client(rustls::ClientConfig::clone(&tls))?;
        Ok(Arc::new(State {
            rules: ArcSwapOption::empty(),
            http,
            upstream: Client::new(tls.clone(), Duration::from_secs(5)),
            tls,
            targets: Mutex::default(),
            issuers: Sources::default(),
            counters,
            keyring,
            ledger,
            metrics: Metrics::new(),
            draining: AtomicBool::new(false),
            serving: AtomicU64::new(0),
            started: Instant::now(),
            started_at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        }))
    }

    /// The rules in force. A request takes them once and keeps them to its end.
    #[must_use]
    pub fn rules(&self) -> Option<Arc<Rules>> {
        self.rules.load_full()
    }

    /// Puts other rules in force. To be called inside a runtime: what they keep fresh begins here.
    pub fn swap(&self, rules: Arc<Rules>) {
        for doubt in doubts(&rules) {
            tracing::warn!(%doubt, "the configuration is good, but this is hardly meant");
        }
        if let Some(tokens) = &rules.tokens {
            tokens.start();
        }
        self.rules.store(Some(rules));
    }

    /// The client for providers, connecting within this time. All share one pool, which is kept over reloads.
    #[must_use]
    pub fn client(&self, connect: Duration) -> Client {
        self.upstream.with_connect(connect)
    }

    /// The system's roots, for whoever connects with a client of its own.
    #[must_use]
    pub fn tls(&self) -> &rustls::ClientConfig {
        &self.tls
    }

    /// What is known of a target, by its name; made when it is new. `wildcard` says whether it stands for many models.
    #[must_use]
    pub fn figures(&self, name: &str, wildcard: bool) -> Arc<Figures> {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        targets.entry(name.to_owned()).or_insert_with(|| Arc::new(Figures::new(wildcard))).clone()
    }

    /// All targets that were ever known, by name.
    #[must_use]
    pub fn all_stats(&self) -> Vec<(String, Arc<Figures>)> {
        let targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = targets.iter().map(|(n, f)| (n.clone(), f.clone())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// Time since 1970, without a system call that can jump: the clock at the start plus what has passed.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.started_at + self.started.elapsed()
    }

    /// Time since 1970 by the system's clock, which may be set: for what others have dated (tokens, certificates, the end of
    /// a key).
    #[must_use]
    pub fn wall(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    /// Whether the process is going down.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }
}

/// What upstreams see as the user agent.
pub const USER_AGENT: &str = concat!("trivium/", env!("CARGO_PKG_VERSION"));

/// A client for what is not hot. It follows no redirects: what it is told to ask may be written by others.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn http_client(tls: rustls::ClientConfig) -> Result<reqwest::Client, String> {
    let builder = reqwest::Client::builder().tls_backend_preconfigured(tls).connect_timeout(Duration::from_secs(5)).timeout(Duration::from_secs(30));
    // The environment is read once, and in the same way as for providers.
    let builder = builder.no_proxy().proxy(Proxies::of_process()?.for_reqwest());
    let client = builder.redirect(reqwest::redirect::Policy::none()).user_agent(USER_AGENT).build();
    client.map_err(|e| format!("cannot make an HTTP client: {e}"))
}

/// TLS with the system's roots; with none found, TLS to upstreams fails with a clear error, plain HTTP still works.
fn tls_roots() -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (_, ignored) = roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        tracing::warn!("no root certificates were found on this system: calls to https providers will fail; install ca-certificates or set SSL_CERT_FILE");
    } else if ignored > 0 {
        tracing::debug!(ignored, "some of the system's root certificates could not be read");
    }
    rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
}
