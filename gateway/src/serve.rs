//! The running process: listeners, reload on change and on SIGHUP, drain on SIGTERM.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::admin::{self, access, access::Access};
use crate::certificate::Peer;
use crate::config::{Admin, Audit, Config, Problem, SinkConfig};
use crate::counters::{Counters, Memory, Redis, WhenDown, journal, redis};
use crate::history;
use crate::keyring::{Keyring, left_in};
use crate::ledger::Ledger;
use crate::rules::Rules;
use crate::sinks::Sinks;
use crate::stall::Stall;
use crate::state::State;
use crate::{telemetry, tls};

/// A gateway that listens but does not serve yet.
pub struct Gateway {
    /// The process' state.
    pub state: Arc<State>,
    listener: TcpListener,
    /// As the configuration of the start has it.
    listen: SocketAddr,
    admin: Option<TcpListener>,
    access: Access,
    tls: Arc<ArcSwapOption<tls::Listener>>,
    bounds: Bounds,
    /// Where the configuration came from, and what it looked like then.
    source: Option<(PathBuf, Stamp)>,
}

/// What holds for as long as the process listens.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    connections: usize,
    head: usize,
    read: Duration,
    write: Duration,
    drain: Duration,
}

/// How long the last of what was spent may take to be kept.
const LAST_SETTLE: Duration = Duration::from_secs(5);
/// Most that is read from a client at once. A large body in few pieces costs less than in many; the limit on a request's
/// head is held by the door.
const READ: usize = 512 << 10;
/// How often forgotten reservations are looked for.
const SWEEP: Duration = Duration::from_secs(60);
/// How often replicas look for keys that others have made or revoked.
const KEYS: Duration = Duration::from_secs(2);
/// How often the configuration is looked at for changes.
const WATCH: Duration = Duration::from_secs(2);
/// How long the collector may take for the last of the telemetry.
const LAST_EXPORT: Duration = Duration::from_secs(5);

impl Gateway {
    /// Builds the rules and binds the listeners. `source` is watched for changes.
    ///
    /// # Errors
    /// Everything that is wrong with the configuration, or an address that cannot be had.
    pub async fn bind(config: &Config, source: Option<PathBuf>) -> Result<Gateway, Vec<Problem>> {
        // Taken before anything else: a change that comes while this starts is to be seen.
        let source = source.map(|source| (source.clone(), stamp(&source)));
        let ledger = Ledger::start().map_err(|e| vec![Problem::new("", format!("cannot start the ledger: {e}"))])?;
        let counters = counters(config).await.map_err(|p| vec![p])?;
        let closed = access::closed(config, source.is_some());
        let keyring = keyring(config, &counters, closed.clone()).await.map_err(|p| vec![p])?;
        let state = State::new(ledger, counters, keyring).map_err(|e| vec![Problem::new("", e)])?;
        let mut problems = check(config);
        let rules = Rules::build(config, &state).map_err(|p| problems.extend(p)).ok();
        let sinks = Sinks::open(&sinks_of(config), &state.http).map_err(|p| problems.extend(p)).ok();
        let tls = config.tls.as_ref().and_then(|t| tls::Listener::read(t).map_err(|p| problems.extend(p)).ok());
        let listener = bind("listen", config.listens()).await.map_err(|p| problems.push(p)).ok();
        let admin = match Admin::listen(config.admin.as_ref()) {
            Some(at) => bind("admin", at).await.map_err(|p| problems.push(p)).ok(),
            None => None,
        };
        let (Some(rules), Some(sinks), Some(listener), true) = (rules, sinks, listener, problems.is_empty()) else { return Err(problems) };
        state.ledger.keep(history::renew(None, config).map_err(|p| vec![p])?);
        let left = if state.keyring.is_shared() { left_in(&config.data(), state.wall().as_secs()) } else { 0 };
        if left > 0 {
            tracing::warn!(keys = left, folder = %config.data().display(), "the keys in keys.json were made without Redis and let nobody in now: make new ones, and remove the file");
        }
        state.swap(Arc::new(rules));
        state.ledger.set(sinks);
        state.ledger.export(telemetry::renew(None, &config.telemetry, state.tls()));
        let bounds = Bounds {
            connections: config.limits.connections.map_or(10_000, |c| c.0 as usize).clamp(1, Semaphore::MAX_PERMITS),
            head: config.limits.headers.map_or(64 << 10, |s| s.0 as usize).max(8192),
            read: config.limits.read.map_or(Duration::from_secs(30), |s| s.0),
            write: config.limits.write.map_or(Duration::from_secs(60), |s| s.0),
            drain: config.drain.map_or(Duration::from_secs(30), |s| s.0),
        };
        let access = Access::open(config, closed);
        Ok(Gateway { state, listener, listen: config.listens(), admin, access, tls: Arc::new(ArcSwapOption::from_pointee(tls)), bounds, source })
    }

    /// Where clients connect.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// What stands before that in a URL.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.tls.load().is_some() { "https" } else { "http" }
    }

    /// Where the admin port is.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().and_then(|l| l.local_addr().ok())
    }

    /// Who may use the admin API.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// What loads the configuration anew; `None` for a gateway without a source.
    #[must_use]
    pub fn reloader(&self) -> Option<Reloader> {
        let (source, _) = self.source.clone()?;
        Some(Reloader { tls: self.tls.clone(), listen: Some(self.listen), ..Reloader::new(self.state.clone(), source) })
    }

    /// Serves until `stop` is done, then drains.
    pub async fn run(self, stop: impl std::future::Future<Output = ()>) {
        let (reloader, loopback) = (self.reloader(), self.admin_address().is_some_and(|at| at.ip().is_loopback()));
        let Gateway { state, listener, listen: _, admin, access, tls, bounds, source } = self;
        let reloading = reloader.clone().zip(source).map(|(reloader, (_, seen))| tokio::spawn(reload_on_change(reloader, seen)));
        let context = Arc::new(admin::Context { state: state.clone(), access, reloader, loopback });
        let (end_admin, ended) = tokio::sync::oneshot::channel::<()>();
        let admin = admin.map(|listener| tokio::spawn(admin::serve(context, listener, async { drop(ended.await) })));
        let sweeping = tokio::spawn(sweep(state.clone()));
        let refreshing = state.keyring.is_shared().then(|| tokio::spawn(refresh(state.keyring.clone())));
        let graceful = GracefulShutdown::new();
        let permits = Arc::new(Semaphore::new(bounds.connections));
        let mut stop = std::pin::pin!(stop);
        loop {
            let permit = tokio::select! {
                permit = permits.clone().acquire_owned() => permit,
                () = &mut stop => break,
            };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut stop => break,
            };
            let (stream, _) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, mostly: a moment's pause lets some be closed.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            };
            let _ = stream.set_nodelay(true);
            let watcher = graceful.watcher();
            tokio::spawn(connection(state.clone(), stream, tls.load_full(), bounds, watcher, permit.ok()));
        }
        state.draining.store(true, Relaxed);
        drop(listener);
        tracing::info!(serving = state.serving.load(Relaxed), grace_seconds = bounds.drain.as_secs(), "draining: no new requests are taken");
        let drained = async {
            tokio::join!(graceful.shutdown(), async {
                while state.serving.load(Relaxed) > 0 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        };
        if tokio::time::timeout(bounds.drain, drained).await.is_err() {
            tracing::warn!(serving = state.serving.load(Relaxed), "the grace time is over; what still runs is cut");
        }
        reloading.iter().for_each(tokio::task::JoinHandle::abort);
        drop(end_admin);
        if let Some(admin) = admin {
            let _ = admin.await;
        }
        sweeping.abort();
        refreshing.iter().for_each(tokio::task::JoinHandle::abort);
        close(&state).await;
        tracing::info!("stopped");
    }
}

/// Brings what is not kept yet to where it is kept.
async fn close(state: &State) {
    if !state.counters.close(LAST_SETTLE).await {
        tracing::warn!("not all that was spent could be brought to where it is kept");
    }
    let ledger = state.ledger.clone();
    let _ = tokio::task::spawn_blocking(move || ledger.flush()).await;
    // At the same time: each may wait for somebody who does not answer.
    let (history, telemetry) = (state.ledger.history(), state.ledger.telemetry());
    tokio::join!(
        async {
            if let Some(history) = history {
                history.close(LAST_SETTLE).await;
            }
        },
        async {
            if let Some(telemetry) = telemetry {
                telemetry.close(LAST_EXPORT).await;
            }
        }
    );
}

/// Where limits are counted: in Redis if there is one, else in this process, kept on disk if anybody has a limit.
async fn counters(config: &Config) -> Result<Counters, Problem> {
    if let Some(redis) = &config.redis {
        let settings = redis::Settings {
            when_down: match redis.when_down {
                crate::config::WhenDown::Local => WhenDown::Local,
                crate::config::WhenDown::Deny => WhenDown::Deny,
                crate::config::WhenDown::Allow => WhenDown::Allow,
            },
            wait: redis.timeout.map_or(Duration::from_millis(50), |t| t.0),
            ..redis::Settings::new(redis.url.expose())
        };
        return Redis::connect(&settings).await.map(Counters::Redis).map_err(|e| Problem::new("redis.url", e.to_string()));
    }
    let limited = config.consumers.values().any(|c| !c.limits.is_empty()) || config.groups.values().any(|g| !g.limits.is_empty());
    if !limited {
        return Ok(Counters::Memory(Memory::volatile()));
    }
    let folder = config.data().join("counters");
    Memory::persisted(&journal::Settings::new(folder)).map(Counters::Memory).map_err(|e| Problem::new("data", e.to_string()))
}

/// Where keys made at run time are kept: where limits are counted for all replicas, or else in a folder. `closed` says why none
/// can be made.
async fn keyring(config: &Config, counters: &Counters, closed: Option<String>) -> Result<Arc<Keyring>, Problem> {
    match counters {
        Counters::Redis(redis) => {
            let keyring = Keyring::shared(redis.shelf("keys"));
            keyring.refresh().await;
            Ok(keyring)
        }
        Counters::Memory(_) => Keyring::open(&config.data(), closed).map_err(|e| Problem::new("data", e.to_string())),
    }
}

/// Hears of keys that other replicas have made or revoked.
async fn refresh(keyring: Arc<Keyring>) {
    loop {
        tokio::time::sleep(KEYS).await;
        keyring.refresh().await;
    }
}

/// Gives back what was reserved and forgotten, now and then.
async fn sweep(state: Arc<State>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        state.counters.sweep();
    }
}

async fn bind(path: &str, at: SocketAddr) -> Result<TcpListener, Problem> {
    TcpListener::bind(at).await.map_err(|e| Problem::new(path, format!("cannot listen on {at}: {e}")))
}

async fn connection(
    state: Arc<State>,
    stream: TcpStream,
    tls: Option<Arc<tls::Listener>>,
    bounds: Bounds,
    watcher: hyper_util::server::graceful::Watcher,
    permit: Option<tokio::sync::OwnedSemaphorePermit>,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(bounds.read).max_buf_size(bounds.head.max(READ)).pipeline_flush(false);
    builder.http2().timer(TokioTimer::new()).max_header_list_size(bounds.head as u32).keep_alive_interval(Some(Duration::from_secs(30)));
    let service = |peer: Option<Arc<Peer>>| {
        service_fn(move |mut request: Request<Incoming>| {
            if let Some(peer) = &peer {
                request.extensions_mut().insert(peer.clone());
            }
            crate::door::serve(state.clone(), request, bounds.write)
        })
    };
    let result = match tls {
        None => watcher.watch(builder.serve_connection(TokioIo::new(Stall::new(stream, bounds.write)), service(None)).into_owned()).await,
        Some(tls) => {
            let handshake = tokio::time::timeout(bounds.read, tls.accept(stream)).await;
            let Ok(Ok((stream, peer))) = handshake else {
                tracing::debug!("a TLS handshake failed");
                return;
            };
            watcher.watch(builder.serve_connection(TokioIo::new(Stall::new(stream, bounds.write)), service(peer)).into_owned()).await
        }
    };
    if let Err(error) = result {
        tracing::debug!(error, "a connection ended with an error");
    }
    drop(permit);
}

/// What can be seen to be wrong without building anything: what is safe and what is not.
#[must_use]
pub fn check(config: &Config) -> Vec<Problem> {
    let mut problems = telemetry::check(&config.telemetry);
    problems.extend(history::check(config));
    let known = config.knows_somebody();
    if !config.on_loopback() && config.auth.anonymous.is_none() && !known {
        problems.push(Problem::new(
            "listen",
            format!(
                "{} is not on loopback, and everyone who reaches it could spend your money: configure `consumers` or `auth.jwt`, or say `auth: {{ anonymous: true }}` if that is meant",
                config.listens()
            ),
        ));
    }
    if !known && config.auth.anonymous == Some(false) {
        problems.push(Problem::new("auth.anonymous", "is false, and there are no consumers: nobody could come in"));
    }
    if !config.auth.issuers().is_empty() && config.consumers.is_empty() && config.groups.is_empty() {
        problems.push(Problem::new("auth.jwt", "lets nobody in: a token's consumer, or one of its groups, must be configured under `consumers` or `groups`"));
    }
    problems.extend(access::problem(config));
    problems
}

/// Whether requests without a key are served: if it is said so, or if nobody is known by one and only this machine can ask.
#[must_use]
pub fn is_open(config: &Config) -> bool {
    config.auth.anonymous.unwrap_or_else(|| !config.knows_somebody() && config.on_loopback())
}

fn sinks_of(config: &Config) -> Vec<SinkConfig> {
    match &config.log.audit {
        None => vec![SinkConfig::Stdout {}],
        Some(Audit::Off(_)) => Vec::new(),
        Some(Audit::Sinks(sinks)) => sinks.clone(),
    }
}

/// Loads a configuration anew and swaps it in: on SIGHUP, when it has changed, or when asked.
#[derive(Clone)]
pub struct Reloader {
    state: Arc<State>,
    source: PathBuf,
    tls: Arc<ArcSwapOption<tls::Listener>>,
    /// Where clients connect: a reload does not change it, whatever the file says.
    listen: Option<SocketAddr>,
    /// One at a time, so that the last one begun is the one that holds.
    turn: Arc<Mutex<()>>,
}

impl Reloader {
    /// Reloads rules, sinks and telemetry of a process from a source.
    #[must_use]
    pub fn new(state: Arc<State>, source: PathBuf) -> Self {
        Reloader { state, source, tls: Arc::default(), listen: None, turn: Arc::default() }
    }

    /// Where the configuration comes from.
    #[must_use]
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// Reloads without holding up anybody: reading files and building rules would stall a worker.
    ///
    /// # Errors
    /// What is wrong with the new configuration.
    pub async fn reload_aside(&self) -> Result<(), Vec<Problem>> {
        let (this, runtime) = (self.clone(), tokio::runtime::Handle::current());
        let result = tokio::task::spawn_blocking(move || {
            let _guard = runtime.enter();
            this.reload()
        });
        let result = result.await.unwrap_or_else(|error| Err(vec![Problem::new("", format!("the configuration could not be loaded: {error}"))]));
        match &result {
            Ok(()) => tracing::info!("the configuration was loaded anew"),
            Err(problems) => problems.iter().for_each(|problem| tracing::error!(%problem, "the new configuration is not in force")),
        }
        result
    }

    /// Reads the source and puts it in force. Streams that run keep their rules; a bad file changes nothing. Blocks, and has
    /// to be called inside a runtime.
    ///
    /// # Errors
    /// What is wrong with the new configuration.
    pub fn reload(&self) -> Result<(), Vec<Problem>> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &self.state;
        let mut draft = crate::config::read(&self.source, &|name| std::env::var(name).ok());
        let mut problems = check(&draft.config);
        if let Some(at) = self.listen {
            draft.config.listen_at(at);
            let known: Vec<String> = problems.iter().map(|problem| problem.path.clone()).collect();
            problems.extend(check(&draft.config).into_iter().filter(|problem| !known.contains(&problem.path)));
        }
        let config = &draft.config;
        let rules = Rules::build(config, state).map_err(|p| problems.extend(p)).ok();
        let new_tls = match &config.tls {
            None => None,
            Some(t) => tls::Listener::read(t).map_err(|p| problems.extend(p)).ok(),
        };
        let sinks = Sinks::open(&sinks_of(config), &state.http).map_err(|p| problems.extend(p)).ok();
        let (Some(rules), Some(sinks), true) = (rules, sinks, problems.is_empty() && draft.is_good()) else { return Err(draft.all_problems(problems)) };
        state.ledger.keep(history::renew(state.ledger.history(), config).map_err(|p| vec![p])?);
        state.swap(Arc::new(rules));
        state.ledger.set(sinks);
        state.ledger.export(telemetry::renew(state.ledger.telemetry(), &config.telemetry, state.tls()));
        match (new_tls, &*self.tls.load()) {
            (Some(new), Some(before)) => self.tls.store(Some(Arc::new(new.after(before)))),
            (None, None) => {}
            _ => tracing::warn!("switching TLS on or off takes a restart; the rest of the new configuration is in force"),
        }
        Ok(())
    }
}

/// Reloads on SIGHUP, and when the source has changed. Looking at it now and then works on every file system, and through
/// the symbolic links that Kubernetes swaps.
async fn reload_on_change(reloader: Reloader, mut seen: Stamp) {
    let mut hangup = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()) {
        Ok(signal) => signal,
        Err(error) => {
            tracing::warn!(%error, "SIGHUP cannot be listened for");
            return;
        }
    };
    loop {
        let asked = tokio::select! {
            _ = hangup.recv() => true,
            () = tokio::time::sleep(WATCH) => false,
        };
        let now = stamp(&reloader.source);
        if !asked && now == seen {
            continue;
        }
        seen = now;
        // What came of it is in the log.
        let _ = reloader.reload_aside().await;
    }
}

/// What changes when a source changes: times and lengths of its files.
type Stamp = Vec<(PathBuf, Option<SystemTime>, u64)>;

fn stamp(source: &Path) -> Stamp {
    let mut files = vec![source.to_owned()];
    if source.is_dir() {
        files.extend(std::fs::read_dir(source).into_iter().flatten().filter_map(|e| Some(e.ok()?.path())));
        files.sort();
    }
    files
        .into_iter()
        .map(|f| {
            let meta = std::fs::metadata(&f).ok();
            (f, meta.as_ref().and_then(|m| m.modified().ok()), meta.map_or(0, |m| m.len()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_must_be_known_before_others_than_this_machine_can_ask() {
        let jwt = "auth: { jwt: { issuer: \"https://id.example.com\", audience: a } }\ngroups: { staff: {} }\n";
        let look = |listen: &str, yaml: &str| {
            let config = crate::config::from_text(&format!("listen: {listen}:8080\n{yaml}"), &|_| None).unwrap();
            (check(&config).iter().map(|p| p.path.clone()).collect::<Vec<_>>(), is_open(&config))
        };
        let none: Vec<String> = Vec::new();
        assert_eq!(look("127.0.0.1", ""), (none.clone(), true));
        assert_eq!(look("0.0.0.0", ""), (vec!["listen".to_owned()], false));
        for yaml in [jwt, "consumers: { alice: { keys: [key-of-alice] } }\n"] {
            assert_eq!(look("0.0.0.0", yaml), (none.clone(), false));
            assert_eq!(look("127.0.0.1", yaml), (none.clone(), false), "where somebody is known, nobody else comes in");
        }
        assert_eq!(look("0.0.0.0", "auth: { anonymous: true }"), (none.clone(), true));
        assert_eq!(look("127.0.0.1", "auth: { anonymous: false }"), (vec!["auth.anonymous".to_owned()], false));
        assert_eq!(look("127.0.0.1", jwt.lines().next().unwrap()), (vec!["auth.jwt".to_owned()], false), "no token would let anybody in");
    }
    #[tokio::test]
    async fn a_reload_opens_no_listener_for_others() {
        let source = std::env::temp_dir().join(format!("trivium-reload-{}.yaml", std::process::id()));
        let state = State::new(Ledger::start().unwrap(), Counters::Memory(Memory::volatile()), Arc::default()).unwrap();
        // The file speaks of loopback, where nobody needs a key; the process listens where it did at its start.
        for (consumers, good) in [("consumers: { alice: { keys: [key-of-alice] } }\n", true), ("", false), ("consumers: { anonymous: {} }\n", false)] {
            std::fs::write(&source, format!("listen: 127.0.0.1:8080\nproviders: {{ demo: {{ kind: echo }} }}\nlog: {{ audit: off }}\nusage: off\n{consumers}")).unwrap();
            let reloader = Reloader { listen: Some(([0, 0, 0, 0], 8080).into()), ..Reloader::new(state.clone(), source.clone()) };
            let problems = reloader.reload().err().unwrap_or_default();
            assert_eq!(problems.iter().map(|p| p.path.as_str()).collect::<Vec<_>>(), if good { vec![] } else { vec!["listen"] }, "{consumers}");
        }
        std::fs::remove_file(&source).unwrap();
    }
}
