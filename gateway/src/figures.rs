//! What is known of targets, model by model: a target whose `*` takes many names has figures for each of them, within bounds.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::target::{Standing, Stats};

/// What is known of a target: of its one model, or of each model that its `*` has stood for lately. One dead model behind a
/// `*` leaves the others alone.
#[derive(Debug, Default)]
pub struct Figures {
    /// Of the one model; behind a `*`, of names that get no figures of their own.
    own: Arc<Stats>,
    /// By what the `*` stands for; `None` where there is none.
    named: Option<ArcSwap<Named>>,
}

type Named = foldhash::HashMap<Box<str>, Arc<Stats>>;

/// Most names behind one `*` with figures of their own. Clients can ask for endless names, and each costs memory.
const MOST_NAMES: usize = 128;
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
                && let Some(oldest) = next.iter().min_by_key(|(_, s)| (s.is_proven(), s.last_asked())).map(|(name, _)| name.clone())
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
        let mut models: Vec<_> = self.named.iter().flat_map(|n| n.load_full().iter().filter(|(_, s)| s.is_proven()).map(|(n, s)| (n.clone(), s.clone())).collect::<Vec<_>>()).collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::{BreakerRule, Gate, InFlight};

    const RULE: BreakerRule = BreakerRule { failures: 2, window: Duration::from_secs(30), cooldown: Duration::from_secs(30) };

    fn ask(stats: &Arc<Stats>) -> InFlight {
        InFlight::new(stats.clone(), RULE, stats.gate())
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
}
