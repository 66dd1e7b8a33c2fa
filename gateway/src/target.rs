//! What is known of a target while the process lives: how busy, how fast, how healthy. Atomics only; survives a reload.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Figures of one target, shared by all requests and by all versions of the rules.
#[derive(Debug)]
pub struct Stats {
    born: Instant,
    /// Requests in flight.
    in_flight: AtomicU32,
    /// Moving average of the latency in microseconds that jumps up at once and decays slowly (peak EWMA).
    latency: AtomicU64,
    /// When `latency` was last written, in milliseconds since `born`.
    latency_at: AtomicU64,
    /// Tokens used.
    tokens: AtomicU64,
    /// Start of the breaker's window, milliseconds since `born`.
    window: AtomicU64,
    failures: AtomicU32,
    /// Until when nothing but a probe goes there, milliseconds since `born`; 0 when closed.
    open_until: AtomicU64,
    probing: AtomicBool,
}

/// When a target is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerRule {
    /// Failures within the window that open it; 0 for never.
    pub failures: u32,
    /// The window.
    pub window: Duration,
    /// How long it stays open.
    pub cooldown: Duration,
}

/// Whether a target may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Yes.
    Closed,
    /// Yes, by one request that finds out whether it is well again.
    HalfOpen,
    /// Not before this time has passed.
    Open(Duration),
}

/// How a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Requests go there.
    Closed,
    /// Nothing goes there before this time has passed.
    Open(Duration),
    /// Its time is over: the next request finds out, or one is about to.
    HalfOpen,
}

/// How fast an average forgets.
const DECAY: Duration = Duration::from_secs(10);

impl Default for Stats {
    fn default() -> Self {
        Stats {
            born: Instant::now(),
            in_flight: AtomicU32::new(0),
            latency: AtomicU64::new(0),
            latency_at: AtomicU64::new(0),
            tokens: AtomicU64::new(0),
            window: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            open_until: AtomicU64::new(0),
            probing: AtomicBool::new(false),
        }
    }
}

impl Stats {
    fn now(&self) -> u64 {
        self.born.elapsed().as_millis() as u64
    }

    /// Requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Tokens used so far.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.tokens.load(Relaxed)
    }

    /// Adds tokens.
    pub fn use_tokens(&self, tokens: u64) {
        self.tokens.fetch_add(tokens, Relaxed);
    }

    /// The moving average of the latency; `None` before the first answer.
    #[must_use]
    pub fn latency(&self) -> Option<Duration> {
        match self.latency.load(Relaxed) {
            0 => None,
            micros => Some(Duration::from_micros(micros)),
        }
    }

    /// Takes a latency into the average.
    pub fn observe(&self, latency: Duration) {
        let sample = (latency.as_micros() as u64).max(1);
        let before = self.latency.load(Relaxed);
        let now = self.now();
        let elapsed = now.saturating_sub(self.latency_at.swap(now, Relaxed)) as f64;
        let next = if sample >= before {
            sample
        } else {
            let keep = (-elapsed / DECAY.as_millis() as f64).exp().min(0.9);
            (before as f64 * keep + sample as f64 * (1.0 - keep)) as u64
        };
        self.latency.store(next.max(1), Relaxed);
    }

    /// Whether the target may be asked now. [`Gate::HalfOpen`] is given to one caller at a time, who must report back
    /// with [`Stats::succeeded`] or [`Stats::failed`].
    #[must_use]
    pub fn gate(&self) -> Gate {
        match self.open_until.load(Relaxed) {
            0 => Gate::Closed,
            until => match until.saturating_sub(self.now()) {
                0 if !self.probing.swap(true, Relaxed) => Gate::HalfOpen,
                0 => Gate::Open(Duration::from_secs(1)),
                left => Gate::Open(Duration::from_millis(left)),
            },
        }
    }

    /// As [`Stats::gate`], without taking the probe.
    #[must_use]
    pub fn looks_open(&self) -> Option<Duration> {
        match self.open_until.load(Relaxed) {
            0 => None,
            until => match until.saturating_sub(self.now()) {
                0 if !self.probing.load(Relaxed) => None,
                0 => Some(Duration::from_secs(1)),
                left => Some(Duration::from_millis(left)),
            },
        }
    }

    /// How the breaker stands, for people.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match self.open_until.load(Relaxed) {
            0 => Standing::Closed,
            until => match until.saturating_sub(self.now()) {
                0 => Standing::HalfOpen,
                left => Standing::Open(Duration::from_millis(left)),
            },
        }
    }

    /// Closes the breaker by hand and forgets the failures that led to it.
    pub fn close(&self) {
        self.open_until.store(0, Relaxed);
        self.failures.store(0, Relaxed);
        self.end_probe();
    }

    /// The target answered well.
    pub fn succeeded(&self) {
        // Mostly there is nothing to reset: a load is cheaper than a store that other cores have to see.
        if self.open_until.load(Relaxed) != 0 {
            self.open_until.store(0, Relaxed);
            self.failures.store(0, Relaxed);
        }
        self.end_probe();
    }

    /// The target failed in a way that another request would meet too. Returns whether the breaker opened by it.
    pub fn failed(&self, rule: &BreakerRule) -> bool {
        if rule.failures == 0 {
            return false;
        }
        let now = self.now();
        let probe = self.probing.load(Relaxed);
        if now.saturating_sub(self.window.load(Relaxed)) > rule.window.as_millis() as u64 {
            self.window.store(now, Relaxed);
            self.failures.store(0, Relaxed);
        }
        let failures = self.failures.fetch_add(1, Relaxed) + 1;
        if probe || failures >= rule.failures {
            self.open_for(rule.cooldown);
            self.end_probe();
            return true;
        }
        false
    }

    /// Leaves the target alone for a while, as it asked to be (Retry-After).
    pub fn open_for(&self, pause: Duration) {
        let until = self.now() + (pause.as_millis() as u64).max(1);
        self.open_until.fetch_max(until, Relaxed);
    }

    /// The probe ended without a verdict (the client left).
    pub fn end_probe(&self) {
        if self.probing.load(Relaxed) {
            self.probing.store(false, Relaxed);
        }
    }
}

/// A request on its way to a target: counts as in flight until it is dropped.
#[derive(Debug)]
pub struct InFlight {
    stats: std::sync::Arc<Stats>,
    /// Whether it is the one that finds out whether the target is well again.
    probe: bool,
}

impl InFlight {
    /// Counts one more, that went through this gate.
    #[must_use]
    pub fn new(stats: &std::sync::Arc<Stats>, gate: Gate) -> Self {
        stats.in_flight.fetch_add(1, Relaxed);
        InFlight { stats: stats.clone(), probe: gate == Gate::HalfOpen }
    }

    /// Notes what the request has used.
    pub fn used(&self, tokens: u64) {
        self.stats.use_tokens(tokens);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.stats.in_flight.fetch_sub(1, Relaxed);
        if self.probe {
            self.stats.end_probe();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: BreakerRule = BreakerRule { failures: 2, window: Duration::from_secs(30), cooldown: Duration::from_millis(20) };

    #[test]
    fn the_breaker_opens_probes_once_and_closes() {
        let stats = Stats::default();
        assert!(!stats.failed(&RULE));
        assert_eq!(stats.gate(), Gate::Closed);
        assert!(stats.failed(&RULE));
        assert!(matches!(stats.gate(), Gate::Open(_)));
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(stats.gate(), Gate::HalfOpen);
        assert!(matches!(stats.gate(), Gate::Open(_)), "one probe at a time");
        assert!(stats.failed(&RULE), "a failed probe opens it again");
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(stats.gate(), Gate::HalfOpen);
        stats.succeeded();
        assert_eq!((stats.gate(), stats.gate()), (Gate::Closed, Gate::Closed));
    }

    #[test]
    fn a_breaker_can_be_closed_by_hand() {
        let stats = Stats::default();
        assert_eq!(stats.standing(), Standing::Closed);
        stats.failed(&RULE);
        stats.failed(&RULE);
        assert!(matches!(stats.standing(), Standing::Open(left) if left <= RULE.cooldown));
        stats.close();
        assert_eq!((stats.standing(), stats.gate()), (Standing::Closed, Gate::Closed));
        assert!(!stats.failed(&RULE), "the failures before are forgotten");
        stats.open_for(Duration::from_millis(1));
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(stats.standing(), Standing::HalfOpen);
    }

    #[test]
    fn latency_jumps_up_and_creeps_down() {
        let stats = Stats::default();
        assert_eq!(stats.latency(), None);
        stats.observe(Duration::from_millis(10));
        stats.observe(Duration::from_millis(100));
        assert_eq!(stats.latency(), Some(Duration::from_millis(100)));
        stats.observe(Duration::from_millis(10));
        let after = stats.latency().unwrap();
        assert!(after > Duration::from_millis(80) && after < Duration::from_millis(100), "{after:?}");
    }

    #[test]
    fn in_flight_counts_by_life() {
        let stats = std::sync::Arc::new(Stats::default());
        let one = InFlight::new(&stats, Gate::Closed);
        assert_eq!(stats.in_flight(), 1);
        drop(one);
        assert_eq!(stats.in_flight(), 0);
    }
}
