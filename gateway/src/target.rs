//! What is known of a target while the process lives: how busy, how fast, how healthy. Atomics only; survives a reload.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use providers::usage::Usage;

use crate::weight::{self, Weight};

/// What is known of a target: of its one model, or of each model that its `*` has stood for lately. One dead model behind a
/// `*` leaves the others alone.
#[derive(Debug, Default)]
pub struct Figures {
    /// Of the one model; behind a `*`, of names that get no figures of their own.
    own: Arc<Stats>,
    /// By what the `*` stands for; `None` where there is none.
    named: Option<ArcSwap<Named>>,
}

type Named = HashMap<Box<str>, Arc<Stats>>;

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
/// Most names behind one `*` with figures of their own. Clients can ask for endless names, and each costs memory.
const MOST_NAMES: usize = 128;
/// Tokens of the shortest prompt that tells something of how dense text is.
const SHORTEST: u64 = 32;
/// Thousandths of a byte to a token that can be: a byte each, and long words in a tokenizer made for them.
const DENSITIES: (u32, u32) = (1_000, 12_000);
/// One prompt's part in the average.
const LEARN: u32 = 8;
/// Longest such name, bytes.
const LONGEST_NAME: usize = 128;

impl Figures {
    /// Nothing known yet; `wildcard` says whether the target stands for many models.
    #[must_use]
    pub fn new(wildcard: bool) -> Self {
        Figures { own: Arc::default(), named: wildcard.then(ArcSwap::default) }
    }

    /// The figures of the model that the `*` stands for. Where there are too many, the name goes that has never answered well,
    /// and of these the one that was asked for longest ago: names that somebody made up do not push out those in use.
    #[must_use]
    pub fn of(&self, rest: &str) -> Arc<Stats> {
        let Some(named) = self.named.as_ref().filter(|_| rest.len() <= LONGEST_NAME) else { return self.own.clone() };
        if let Some(stats) = named.load().get(rest) {
            return stats.clone();
        }
        let new = Arc::<Stats>::default();
        named.rcu(|now| {
            let mut next = Named::clone(now);
            if next.len() >= MOST_NAMES
                && let Some(oldest) = next.iter().min_by_key(|(_, s)| (s.proven.load(Relaxed), s.last_asked())).map(|(name, _)| name.clone())
            {
                next.remove(&oldest);
            }
            next.entry(rest.into()).or_insert_with(|| new.clone());
            next
        });
        // Another request may have been faster.
        named.load().get(rest).cloned().unwrap_or(new)
    }

    /// Each name that the `*` has stood for and that has answered well, with its figures, sorted. Empty without a `*`.
    #[must_use]
    pub fn models(&self) -> Vec<(Box<str>, Arc<Stats>)> {
        let mut models: Vec<_> = self.named.iter().flat_map(|n| n.load_full().iter().filter(|(_, s)| s.proven.load(Relaxed)).map(|(n, s)| (n.clone(), s.clone())).collect::<Vec<_>>()).collect();
        models.sort_by(|a, b| a.0.cmp(&b.0));
        models
    }

    fn all(&self) -> Vec<Arc<Stats>> {
        let named = self.named.iter().flat_map(|n| n.load_full().values().cloned().collect::<Vec<_>>());
        std::iter::once(self.own.clone()).chain(named).collect()
    }

    /// How the breaker stands; of several models the one that is worst off.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.all().iter().map(|s| s.standing()).max().unwrap_or(Standing::Closed)
    }

    /// Closes the breaker, of all models.
    pub fn close(&self) {
        self.all().iter().for_each(|s| s.close());
    }

    /// Requests in flight, all models together.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.all().iter().map(|s| s.in_flight()).sum()
    }

    /// Tokens used, all models together.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.all().iter().map(|s| s.tokens()).sum()
    }

    /// The moving average of the latency; of several models the slowest's.
    #[must_use]
    pub fn latency(&self) -> Option<Duration> {
        self.all().iter().filter_map(|s| s.latency()).max()
    }

    /// How long the target is left alone; of several models the one that is left alone longest.
    #[must_use]
    pub fn looks_open(&self) -> Option<Duration> {
        self.all().iter().filter_map(|s| s.looks_open()).max()
    }
}

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

    fn last_asked(&self) -> Instant {
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
    fn a_breaker_can_be_closed_by_hand() {
        let figures = Figures::new(true);
        let stats = figures.of("x");
        assert_eq!(figures.standing(), Standing::Closed);
        ask(&stats).failed();
        ask(&stats).failed();
        assert!(matches!(figures.standing(), Standing::Open(left) if left <= RULE.cooldown));
        figures.close();
        assert_eq!((figures.standing(), stats.gate()), (Standing::Closed, Gate::Closed));
        assert!(!ask(&stats).failed(), "the failures before are forgotten");
        ask(&stats).rests(Duration::from_millis(1));
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(figures.standing(), Standing::HalfOpen);
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
    fn each_model_behind_a_wildcard_has_figures_of_its_own_within_bounds() {
        let one = Figures::new(false);
        assert!(Arc::ptr_eq(&one.of("a"), &one.of("b")) && one.models().is_empty());

        let many = Figures::new(true);
        let (good, dead) = (many.of("good"), many.of("dead"));
        ask(&good).answered();
        ask(&dead).failed();
        ask(&dead).failed();
        assert_eq!((good.gate(), many.looks_open().is_some()), (Gate::Closed, true));
        assert!(Arc::ptr_eq(&good, &many.of("good")));
        // Who asks for endless names gets nowhere: memory is bounded, and what is in use stays.
        for n in 0..10 * MOST_NAMES {
            let _ = many.of(&format!("made-up-{n}"));
        }
        assert!(Arc::ptr_eq(&good, &many.of("good")));
        assert_eq!(many.all().len(), MOST_NAMES + 1);
        assert_eq!(many.models().len(), 1, "names that never answered are not shown");
        let long = "x".repeat(LONGEST_NAME + 1);
        assert!(Arc::ptr_eq(&many.of(&long), &many.own));
        assert_eq!(many.all().len(), MOST_NAMES + 1);
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
