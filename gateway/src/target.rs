//! What is known of a target while the process lives: how busy, how fast, how healthy. Atomics only; survives a reload.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use providers::usage::Usage;

use crate::weight::{self, Weight};

/// Figures of one model at one target, shared by all requests and by all versions of the rules.
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
    /// Whether it has ever answered well.
    proven: AtomicBool,
    /// When it was asked last, milliseconds since `born`.
    asked_at: AtomicU64,
    /// Thousandths of a byte of a request to a token of its prompt, a moving average; 0 before the first answer.
    density: AtomicU32,
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

/// How a breaker stands, from well to badly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Requests go there.
    Closed,
    /// Its time is over: the next request finds out, or one is about to.
    HalfOpen,
    /// Nothing goes there before this time has passed.
    Open(Duration),
}

/// How fast an average forgets.
const DECAY: Duration = Duration::from_secs(10);
/// What a failure counts for at least in the average of the latency: who fails at once is not fast.
const FAILED: Duration = Duration::from_secs(5);
/// Tokens of the shortest prompt that tells something of how dense text is.
const SHORTEST: u64 = 32;
/// Thousandths of a byte to a token that can be: a byte each, and long words in a tokenizer made for them.
const DENSITIES: (u32, u32) = (1_000, 12_000);
/// One prompt's part in the average.
const LEARN: u32 = 8;

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
            proven: AtomicBool::new(false),
            asked_at: AtomicU64::new(0),
            density: AtomicU32::new(0),
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

    /// Thousandths of a byte of text to a token of a prompt, as this target's answers have told so far.
    #[must_use]
    pub fn density(&self) -> u32 {
        match self.density.load(Relaxed) {
            0 => weight::DENSITY,
            density => density,
        }
    }

    /// Takes in how many tokens the provider has counted for a prompt of so many bytes of text. Short prompts tell little:
    /// what stands around the text outweighs it.
    pub fn learn(&self, bytes: u64, tokens: u64) {
        if tokens < SHORTEST {
            return;
        }
        let seen = u32::try_from(bytes * 1000 / tokens).unwrap_or(u32::MAX).clamp(DENSITIES.0, DENSITIES.1);
        let before = self.density.load(Relaxed);
        // Two that come together may lose one of them: an average can bear it.
        let next = if before == 0 { seen } else { before - before / LEARN + seen / LEARN };
        self.density.store(next, Relaxed);
    }

    /// Whether it has ever answered well.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.proven.load(Relaxed)
    }

    /// When it was asked last.
    #[must_use]
    pub fn last_asked(&self) -> Instant {
        self.born + Duration::from_millis(self.asked_at.load(Relaxed))
    }

    /// Whether the target may be asked now. [`Gate::HalfOpen`] is given to one caller at a time, and makes its [`InFlight`]
    /// the probe.
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

    /// Closes the breaker and forgets the failures that led to it.
    pub fn close(&self) {
        self.open_until.store(0, Relaxed);
        self.failures.store(0, Relaxed);
    }

    fn open_for(&self, pause: Duration) {
        let until = self.now() + (pause.as_millis() as u64).max(1);
        self.open_until.fetch_max(until, Relaxed);
    }

    /// Takes a failure into the window; says whether there have been too many.
    fn too_many(&self, rule: &BreakerRule) -> bool {
        let now = self.now();
        if now.saturating_sub(self.window.load(Relaxed)) > rule.window.as_millis() as u64 {
            self.window.store(now, Relaxed);
            self.failures.store(0, Relaxed);
        }
        self.failures.fetch_add(1, Relaxed) + 1 >= rule.failures
    }
}

/// A request on its way to a target: counts as in flight until it is dropped, and tells the target's figures how it went. One
/// that is dropped without a word (the client left) says nothing about the target.
#[derive(Debug)]
pub struct InFlight {
    stats: Arc<Stats>,
    rule: BreakerRule,
    part: Part,
    began: Instant,
}

/// What a request is to the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// One of many.
    Usual,
    /// The one that finds out whether the target is well again.
    Probe,
    /// The one that found it well. If its stream breaks later, the target is not.
    Proved,
    /// One that has failed: a failure counts once.
    Failed,
}

impl InFlight {
    /// Counts one more, that went through this gate.
    #[must_use]
    pub fn new(stats: Arc<Stats>, rule: BreakerRule, gate: Gate) -> Self {
        stats.in_flight.fetch_add(1, Relaxed);
        stats.asked_at.store(stats.now(), Relaxed);
        InFlight { stats, rule, part: if gate == Gate::HalfOpen { Part::Probe } else { Part::Usual }, began: Instant::now() }
    }

    /// The target answered well: it is this fast, and if it was probed it is well again. What was sent before the breaker
    /// opened says nothing about now.
    pub fn answered(&mut self) {
        self.stats.observe(self.began.elapsed());
        // Mostly it is known already: a load is cheaper than a store that other cores have to see.
        if !self.stats.proven.load(Relaxed) {
            self.stats.proven.store(true, Relaxed);
        }
        self.lives();
    }

    /// The target answered, if only that the client is wrong: it is there.
    pub fn lives(&mut self) {
        if self.part == Part::Probe {
            self.stats.close();
            self.stats.probing.store(false, Relaxed);
            self.part = Part::Proved;
        }
    }

    /// The target failed in a way that another request would meet too: before it answered, or in the middle of its stream.
    /// Returns whether the breaker opened by it.
    pub fn failed(&mut self) -> bool {
        let part = std::mem::replace(&mut self.part, Part::Failed);
        if part == Part::Failed {
            return false;
        }
        self.stats.observe(self.began.elapsed().max(FAILED));
        let probe = matches!(part, Part::Probe | Part::Proved);
        // What was sent before the breaker opened does not keep it open.
        let counts = probe || self.stats.open_until.load(Relaxed) == 0;
        let opens = counts && self.rule.failures > 0 && (self.stats.too_many(&self.rule) || probe);
        if opens {
            self.stats.open_for(self.rule.cooldown);
        } else if probe {
            // Without a breaker nothing but its own word (Retry-After) keeps a target closed, and that time is over.
            self.stats.close();
        }
        if part == Part::Probe {
            self.stats.probing.store(false, Relaxed);
        }
        opens
    }

    /// Leaves the target alone for a while, as it asked to be (Retry-After).
    pub fn rests(&self, pause: Duration) {
        self.stats.open_for(pause);
    }

    /// Notes what the request has used, by the provider's own count, and how dense its prompt was.
    pub fn used(&self, usage: &Usage, prompt: &Weight) {
        self.stats.use_tokens(usage.total());
        if !usage.estimated && prompt.is_text() {
            self.stats.learn(prompt.text, usage.prompt());
        }
    }

    /// Thousandths of a byte of text to a token there.
    #[must_use]
    pub fn density(&self) -> u32 {
        self.stats.density()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.stats.in_flight.fetch_sub(1, Relaxed);
        if self.part == Part::Probe {
            self.stats.probing.store(false, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: BreakerRule = BreakerRule { failures: 2, window: Duration::from_secs(30), cooldown: Duration::from_millis(20) };

    fn ask(stats: &Arc<Stats>) -> InFlight {
        let gate = stats.gate();
        assert!(!matches!(gate, Gate::Open(_)), "{gate:?}");
        InFlight::new(stats.clone(), RULE, gate)
    }

    #[test]
    fn the_breaker_opens_probes_once_and_closes() {
        let stats = Arc::<Stats>::default();
        assert!(!ask(&stats).failed());
        assert_eq!(stats.gate(), Gate::Closed);
        let mut early = ask(&stats);
        assert!(ask(&stats).failed());
        assert!(matches!(stats.gate(), Gate::Open(_)));
        early.answered();
        assert!(matches!(stats.gate(), Gate::Open(_)), "what was asked before says nothing about now");
        std::thread::sleep(Duration::from_millis(30));
        assert!(!early.failed(), "well or not");
        let mut probe = ask(&stats);
        assert!(matches!(stats.gate(), Gate::Open(_)), "one probe at a time");
        assert!(probe.failed() && !probe.failed(), "a failed probe opens it again, once");
        std::thread::sleep(Duration::from_millis(30));
        let mut probe = ask(&stats);
        probe.answered();
        assert_eq!((stats.gate(), stats.gate()), (Gate::Closed, Gate::Closed));
        assert!(probe.failed(), "a probe whose stream breaks later was wrong");
        assert!(matches!(stats.gate(), Gate::Open(_)));
    }

    #[test]
    fn a_probe_that_says_nothing_leaves_the_place_to_the_next() {
        let stats = Arc::<Stats>::default();
        ask(&stats).rests(Duration::from_millis(1));
        std::thread::sleep(Duration::from_millis(5));
        drop(ask(&stats));
        let mut second = ask(&stats);
        assert!(matches!(stats.gate(), Gate::Open(_)));
        second.lives();
        assert_eq!(stats.gate(), Gate::Closed);
        // Without a breaker, a target whose time is over is asked by everyone, whatever the first finds.
        ask(&stats).rests(Duration::from_millis(1));
        std::thread::sleep(Duration::from_millis(5));
        let mut probe = InFlight::new(stats.clone(), BreakerRule { failures: 0, ..RULE }, stats.gate());
        assert!(!probe.failed());
        assert_eq!(stats.gate(), Gate::Closed);
    }

    #[test]
    fn latency_jumps_up_and_creeps_down_and_failures_are_slow() {
        let stats = Arc::<Stats>::default();
        assert_eq!(stats.latency(), None);
        stats.observe(Duration::from_millis(10));
        stats.observe(Duration::from_millis(100));
        assert_eq!(stats.latency(), Some(Duration::from_millis(100)));
        stats.observe(Duration::from_millis(10));
        let after = stats.latency().unwrap();
        assert!(after > Duration::from_millis(80) && after < Duration::from_millis(100), "{after:?}");
        ask(&stats).failed();
        assert_eq!(stats.latency(), Some(FAILED));
    }

    #[test]
    fn in_flight_counts_by_life() {
        let stats = Arc::<Stats>::default();
        let one = ask(&stats);
        assert_eq!(stats.in_flight(), 1);
        drop(one);
        assert_eq!(stats.in_flight(), 0);
    }

    #[test]
    fn how_dense_text_is_is_learnt_from_answers() {
        let stats = Stats::default();
        assert_eq!(stats.density(), weight::DENSITY);
        stats.learn(100, 8);
        assert_eq!(stats.density(), weight::DENSITY, "a short prompt tells little");
        stats.learn(3000, 1000);
        assert_eq!(stats.density(), 3000);
        for _ in 0..100 {
            stats.learn(2000, 1000);
        }
        assert!((2000..2020).contains(&stats.density()), "{}", stats.density());
        stats.learn(u64::from(u32::MAX), 33);
        assert!(stats.density() < 4000, "one absurd answer does not throw it over: {}", stats.density());
    }
}
