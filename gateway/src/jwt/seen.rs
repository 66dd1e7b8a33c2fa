//! Tokens that have been checked: found again by their hash without a lock, for as long as they and the keys that made them
//! are good. A table of fixed size; what has no room is checked anew.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::key::Keys;
use super::source::Source;
use crate::principal::{Hash, Principal};

/// How many tokens are remembered.
const SLOTS: usize = 8192;
/// In how many slots a token may be.
const WAYS: usize = 4;

/// The table.
pub(super) struct Seen(Box<[ArcSwapOption<Good>]>);

/// A token that was checked.
pub(super) struct Good {
    pub(super) hash: Hash,
    pub(super) principal: Arc<Principal>,
    /// Seconds since 1970.
    pub(super) ends: u64,
    pub(super) source: Arc<Source>,
    pub(super) keys: Arc<Keys>,
}

impl Good {
    /// Whether it is still as good as when it was checked.
    fn holds(&self, now: u64) -> bool {
        now < self.ends && self.source.holds(&self.keys)
    }
}

impl Seen {
    pub(super) fn new() -> Self {
        Seen((0..SLOTS).map(|_| ArcSwapOption::empty()).collect())
    }

    /// Whose token of this hash was checked.
    pub(super) fn find(&self, hash: &Hash, now: u64) -> Option<Arc<Principal>> {
        self.ways(hash).find_map(|slot| {
            let good = slot.load();
            let good = good.as_ref().filter(|good| good.hash == *hash && good.holds(now))?;
            Some(good.principal.clone())
        })
    }

    /// Remembers one, in the place of the one that is of least use.
    pub(super) fn keep(&self, good: Good, now: u64) {
        let worth = |slot: &&ArcSwapOption<Good>| match &*slot.load() {
            None => 0,
            Some(other) if other.hash == good.hash || !other.holds(now) => 0,
            Some(other) => other.ends,
        };
        if let Some(slot) = self.ways(&good.hash).min_by_key(worth) {
            slot.store(Some(Arc::new(good)));
        }
    }

    fn ways(&self, hash: &Hash) -> impl Iterator<Item = &ArcSwapOption<Good>> {
        // The hash is as good as random: any of its bytes choose as evenly as others.
        let first = usize::from(u16::from_le_bytes([hash[0], hash[1]]));
        (0..WAYS).map(move |i| &self.0[(first + i) % SLOTS])
    }
}
