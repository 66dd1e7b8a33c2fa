//! Counters in Redis, for all replicas together: one round trip per reservation, bounded in time.
//!
//! Each answer is mirrored in the counters of this process, which take over while Redis is away, if that is wanted. What was
//! used meanwhile is added once when it is back. Redis must not evict these keys (`maxmemory-policy noeviction`), and keeps
//! them over its own restart only if it is told to (`appendonly yes`); if it has lost them all, it is told again what this
//! process knew.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

pub(crate) use super::link::client;

use super::clock::{Clock, System};
use super::link::{Ask, Counts, Failure, Line, Link, Reply, Short};
use super::memory::Held;
use super::settling::{self, Backlog, Operation};
use super::shelf::Shelf;
use super::window::{Grid, frees_at};
use super::{Claim, Denied, Lease, Memory, Purse, Refused, Standing, Unavailable, WhenDown, Window, wait, whole};

/// After this many reservations in a row without an answer in time Redis counts as away, and nobody waits for it.
const SLOW: u32 = 3;
/// How long an administrator waits.
const PATIENCE: Duration = Duration::from_secs(2);

/// How to use Redis.
#[derive(Clone)]
pub struct Settings {
    /// `redis://`, `rediss://` or `redis-cluster://`, with user and password where there are any.
    pub url: String,
    /// What all keys begin with, in braces.
    pub prefix: String,
    /// What to do while it is away.
    pub when_down: WhenDown,
    /// How long a reservation waits for it at most.
    pub wait: Duration,
    /// How long connecting to it may take, and how long it may be silent before the connection is given up.
    pub connect: Duration,
}

impl Settings {
    /// The usual settings for a Redis.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), prefix: "trivium".into(), when_down: WhenDown::Local, wait: Duration::from_millis(50), connect: Duration::from_secs(3) }
    }
}

/// The URL of a Redis cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("redis: {0}")]
pub struct Error(String);

/// The counters of all replicas.
#[derive(Debug)]
pub struct Redis {
    shared: Arc<Shared>,
    worker: JoinHandle<()>,
}

/// What requests and the settling task share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) link: Link,
    pub(super) backlog: Backlog,
    pub(super) mirror: Memory,
    /// The name of the data that Redis holds, as far as we know.
    set: Mutex<Option<Arc<str>>>,
    when_down: WhenDown,
    wait: Duration,
    up: AtomicBool,
    /// Reservations in a row without an answer in time.
    slow: AtomicU32,
    /// Names leases, together with a number nobody else has.
    instance: String,
    leases: AtomicU64,
}

/// A lease as Redis knows it.
#[derive(Debug)]
pub(super) struct Remote {
    id: String,
    set: Arc<str>,
}

impl Redis {
    /// Connects. A Redis that is away is waited for as long as connecting may take, and then treated as away.
    pub async fn connect(settings: &Settings) -> Result<Self, Error> {
        Self::connect_with_clock(settings, Arc::new(System::default())).await
    }

    /// Connects, with this clock for what is counted here.
    pub async fn connect_with_clock(settings: &Settings, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        // The details name the fault and not the URL, which may hold a password.
        let link = Link::open(&settings.url, &settings.prefix, settings.connect, clock.clone()).map_err(|error| Error(error.details().to_owned()))?;
        let shared = Arc::new(Shared {
            link,
            backlog: Backlog::default(),
            mirror: Memory::mirror(clock),
            set: Mutex::default(),
            when_down: settings.when_down,
            wait: settings.wait,
            up: AtomicBool::new(false),
            slow: AtomicU32::new(0),
            instance: format!("{:016x}", fastrand::u64(..)),
            leases: AtomicU64::new(0),
        });
        let worker = tokio::spawn(settling::run(shared.clone()));
        let deadline = tokio::time::Instant::now() + settings.connect;
        while !shared.is_up() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if !shared.is_up() {
            tracing::warn!(when_down = %shared.when_down, "Redis cannot be reached; going on without it until it can.");
        }
        Ok(Self { shared, worker })
    }

    /// Whether Redis answers.
    pub fn is_up(&self) -> bool {
        self.shared.is_up() && self.shared.link.is_connected()
    }

    /// A hash in the same Redis, by its name.
    #[must_use]
    pub fn shelf(&self, name: &'static str) -> Shelf {
        Shelf::new(self.shared.clone(), name)
    }

    /// Whether Redis knows everything that was settled.
    #[cfg(test)]
    pub(super) fn is_settled(&self) -> bool {
        self.shared.backlog.is_empty()
    }

    /// See [`super::Counters::reserve`].
    pub async fn reserve(&self, claims: &[Claim<'_>], lease_time: Duration) -> Result<(Lease, Vec<Standing>), Refused> {
        let shared = &self.shared;
        if claims.is_empty() {
            return Ok((Lease::new(Vec::new(), None), Vec::new()));
        }
        if shared.answers() {
            let mut attempt = Attempt { shared, claims, id: shared.new_id(), open: true };
            let lines = attempt.lines();
            match shared.link.call(Ask::Reserve { lease_time }, &attempt.id, &lines, shared.wait).await {
                Ok(Reply::Counted { set, now, counts }) => {
                    attempt.open = false;
                    shared.slow.store(0, Relaxed);
                    let remote = Remote { id: std::mem::take(&mut attempt.id), set };
                    return Ok(shared.granted(claims, lease_time, remote, now, &counts));
                }
                Ok(Reply::Denied { set, now, short }) => {
                    attempt.open = false;
                    shared.slow.store(0, Relaxed);
                    if let Some(denied) = shared.denied(claims, &set, now, short) {
                        return Err(Refused::Denied(denied));
                    }
                }
                Err(failure) => shared.failed(&failure),
            }
        }
        match shared.when_down {
            WhenDown::Deny => Err(Refused::Unavailable),
            WhenDown::Local => shared.mirror.reserve(claims, lease_time).map_err(Refused::Denied),
            WhenDown::Allow => Ok(shared.mirror.hold(claims, lease_time)),
        }
    }

    /// See [`super::Counters::settle`].
    pub fn settle(&self, lease: Lease, actual: &[u64]) {
        self.finish(lease, |held| actual.get(held.claim).copied().unwrap_or(held.amount));
    }

    /// See [`super::Counters::release`].
    pub fn release(&self, lease: Lease) {
        self.finish(lease, |_| 0);
    }

    fn finish(&self, mut lease: Lease, used: impl Fn(&Held) -> u64) {
        lease.close();
        self.shared.mirror.finish(&lease, &used);
        // In the order of the claims: the script knows each part of a lease by its place.
        lease.held.sort_by_key(|held| held.claim);
        let lines = settling::lines(lease.held.iter().map(|held| (&held.purse, held.amount, used(held))));
        match lease.remote.take() {
            Some(Remote { id, set }) => self.shared.backlog.push(Operation::new(id, Some(set), lines)),
            None => self.shared.backlog.owe(&lines),
        }
    }

    /// See [`super::Counters::standing`].
    pub async fn standing(&self, purses: &[Arc<Purse>]) -> Vec<Standing> {
        let shared = &self.shared;
        if shared.answers() {
            let lines = settling::lines(purses.iter().map(|purse| (purse, 0, 0)));
            match shared.link.call(Ask::Standing, &shared.new_id(), &lines, shared.wait).await {
                Ok(Reply::Counted { set, now, counts }) if self.shared.knows(&set) => return purses.iter().zip(&counts).map(|(purse, counts)| counts.standing(purse, now)).collect(),
                Ok(_) => {}
                Err(failure) => shared.failed(&failure),
            }
        }
        shared.mirror.standing(purses)
    }

    /// See [`super::Counters::reset`].
    pub async fn reset(&self, purse: &Arc<Purse>) -> Result<(), Unavailable> {
        self.change(Ask::Reset, purse, 0).await?;
        self.shared.mirror.reset(purse);
        Ok(())
    }

    /// See [`super::Counters::top_up`].
    pub async fn top_up(&self, purse: &Arc<Purse>, amount: u64) -> Result<(), Unavailable> {
        self.change(Ask::Add, purse, -super::signed(amount)).await?;
        self.shared.mirror.top_up(purse, amount);
        Ok(())
    }

    async fn change(&self, ask: Ask<'_>, purse: &Arc<Purse>, used: i64) -> Result<(), Unavailable> {
        if !self.shared.answers() {
            return Err(Unavailable);
        }
        let lines = [Line { purse: purse.clone(), amount: 0, used }];
        let result = self.shared.link.call(ask, &self.shared.new_id(), &lines, PATIENCE).await;
        result.map(|_| ()).map_err(|failure| {
            self.shared.failed(&failure);
            Unavailable
        })
    }

    /// See [`super::Counters::sweep`].
    pub fn sweep(&self) {
        self.shared.mirror.sweep();
    }

    /// See [`super::Counters::close`].
    pub async fn close(&self, within: Duration) -> bool {
        let told = async {
            while !self.shared.backlog.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let all = tokio::time::timeout(within, told).await.is_ok();
        self.worker.abort();
        self.shared.link.close().await;
        all
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

impl Shared {
    pub(super) fn is_up(&self) -> bool {
        self.up.load(Relaxed)
    }

    /// Whether to ask Redis. A connection that is known to be gone is not waited for.
    fn answers(&self) -> bool {
        if self.is_up() && !self.link.is_connected() {
            self.go_down(&Failure::Gone);
        }
        self.is_up()
    }

    pub(super) fn go_up(&self) {
        self.slow.store(0, Relaxed);
        self.up.store(true, Relaxed);
        tracing::info!("Redis counts.");
    }

    pub(super) fn go_down(&self, failure: &Failure) {
        if self.up.swap(false, Relaxed) {
            tracing::warn!(%failure, when_down = %self.when_down, "Redis does not count; going on without it until it does.");
        }
        self.backlog.wake.notify_one();
    }

    /// Whether these are the data that we know. Where they are others Redis has lost those, and does not count until it was
    /// told what was in them.
    pub(super) fn knows(&self, set: &Arc<str>) -> bool {
        let knows = self.set.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_none_or(|known| known == set);
        if !knows {
            self.go_down(&Failure::Lost);
        }
        knows
    }

    /// Redis holds these data from now on.
    pub(super) fn know(&self, set: Arc<str>) {
        *self.set.lock().unwrap_or_else(PoisonError::into_inner) = Some(set);
    }

    pub(super) fn new_id(&self) -> String {
        format!("{}-{}", self.instance, self.leases.fetch_add(1, Relaxed))
    }

    fn failed(&self, failure: &Failure) {
        if !matches!(failure, Failure::Slow) || !self.link.is_connected() || self.slow.fetch_add(1, Relaxed) + 1 >= SLOW {
            self.go_down(failure);
        }
    }

    fn granted(&self, claims: &[Claim<'_>], lease_time: Duration, remote: Remote, now: u64, counts: &[Counts]) -> (Lease, Vec<Standing>) {
        if self.knows(&remote.set) {
            claims.iter().zip(counts).for_each(|(claim, counts)| self.mirror.observe(claim.purse, counts.used));
        }
        let (mut lease, _) = self.mirror.hold(claims, lease_time);
        lease.remote = Some(remote);
        (lease, claims.iter().zip(counts).map(|(claim, counts)| counts.standing(claim.purse, now)).collect())
    }

    /// The purse that takes longest to free enough.
    fn denied(&self, claims: &[Claim<'_>], set: &Arc<str>, now: u64, short: Vec<Short>) -> Option<Denied> {
        let knows = self.knows(set);
        let denials = short.into_iter().filter_map(|short| {
            let claim = claims.get(short.claim)?;
            if knows {
                self.mirror.observe(claim.purse, short.used);
            }
            let (used, reserved) = (i128::from(short.used), i128::from(short.reserved));
            let frees_in = wait(claim, used, reserved, |needed| short.frees_in(&claim.purse.window, needed, now));
            Some(Denied { purse: claim.purse.clone(), used: whole(used + reserved), frees_in })
        });
        denials.max_by_key(|denied| denied.frees_in)
    }
}

impl Counts {
    fn standing(&self, purse: &Arc<Purse>, now: u64) -> Standing {
        Standing::new(purse, self.used.into(), self.reserved.into(), Duration::from_millis(self.resets_at.saturating_sub(now)))
    }
}

impl Short {
    fn frees_in(&self, window: &Window, needed: i128, now: u64) -> Option<Duration> {
        let at = match window {
            Window::Sliding(length) => frees_at(Grid::new(*length), self.buckets.iter().copied(), needed),
            Window::Fixed(..) => (i128::from(self.used) >= needed).then_some(self.end),
            Window::None => None,
        };
        at.map(|at| Duration::from_millis(at.saturating_sub(now)))
    }
}

/// A reservation on its way. Unless an answer comes, Redis may or may not have made it: then it is told to forget it, also
/// where whoever asked has gone meanwhile.
struct Attempt<'a> {
    shared: &'a Shared,
    claims: &'a [Claim<'a>],
    id: String,
    open: bool,
}

impl Attempt<'_> {
    fn lines(&self) -> Vec<Line> {
        settling::lines(self.claims.iter().map(|claim| (claim.purse, claim.amount, 0)))
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.open {
            let lines = self.lines();
            self.shared.backlog.push(Operation::new(std::mem::take(&mut self.id), Some("".into()), lines));
        }
    }
}
