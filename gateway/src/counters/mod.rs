//! Atomic reserve, settle and release over several purses at once: the arithmetic behind every limit and budget.
//!
//! Before a call its worst case is reserved in all purses or in none; after it what was really used is settled and the rest
//! given back. A purse is `used + reserved`, and a reservation is granted while that stays within its cap. [`memory`] counts
//! in this process, kept over restarts by [`journal`]; [`redis`] counts for all replicas together.

pub mod calendar;
pub mod clock;
pub mod journal;
mod link;
pub mod memory;
pub mod redis;
mod settling;
pub mod shelf;
mod window;

#[cfg(test)]
pub(crate) mod suite;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use calendar::{Calendar, Zone};
pub use memory::Memory;
pub use redis::Redis;

use memory::Held;

/// How long a purse takes to free an amount that is more than its cap: it never does.
pub const NEVER: Duration = Duration::MAX;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Calls.
    Requests,
    /// Tokens of prompt and completion.
    Tokens,
    /// Tokens of the prompt.
    PromptTokens,
    /// Tokens of the completion.
    CompletionTokens,
    /// Billionths of a dollar.
    Nanodollars,
    /// Calls under way.
    Concurrent,
}

/// For how long what was used counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Window {
    /// For this long after it was used, and at most a sixty-fourth longer.
    Sliding(Duration),
    /// Until the calendar window ends.
    Fixed(Calendar, Zone),
    /// Not at all: only what is reserved counts, as for calls under way.
    None,
}

/// One limit of one holder.
#[derive(Clone, Debug)]
pub struct Purse {
    /// Names the counter, the same over restarts and replicas: holder, unit, window and models, never the cap.
    pub key: Arc<str>,
    /// What is counted.
    pub unit: Unit,
    /// How much may be used and reserved at a time.
    pub cap: u64,
    /// For how long what was used counts.
    pub window: Window,
}

/// An amount asked of a purse.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Whose.
    pub purse: &'a Arc<Purse>,
    /// How much at worst.
    pub amount: u64,
}

/// A reservation. It ends with `settle` or `release`; one that is forgotten is given back when its time is over, and logged.
#[derive(Debug)]
#[must_use = "a reservation stands until it is settled, released or expired"]
pub struct Lease {
    held: Vec<Held>,
    /// The same reservation in Redis, where there is one.
    remote: Option<redis::Remote>,
    open: bool,
}

impl Lease {
    fn new(held: Vec<Held>, remote: Option<redis::Remote>) -> Self {
        Self { open: !held.is_empty(), held, remote }
    }

    /// What is reserved, purse by purse in the order of the claims.
    pub fn amounts(&self) -> Vec<(&Arc<Purse>, u64)> {
        let mut held: Vec<&Held> = self.held.iter().collect();
        held.sort_by_key(|held| held.claim);
        held.into_iter().map(|held| (&held.purse, held.amount)).collect()
    }

    fn close(&mut self) {
        self.open = false;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.open {
            tracing::warn!(purses = self.held.len(), "A reservation was dropped unsettled; it stands until its lease expires.");
        }
    }
}

/// Why nothing was reserved: this purse has too little left.
#[derive(Clone, Debug)]
pub struct Denied {
    /// The purse that takes longest to free enough.
    pub purse: Arc<Purse>,
    /// What it has used, with what is reserved.
    pub used: u64,
    /// When to ask again; [`NEVER`] where the amount is more than the cap.
    pub frees_in: Duration,
}

/// Why nothing was reserved.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// A purse has too little left.
    #[error("the limit {} of {} is used up", .0.purse.key, .0.purse.cap)]
    Denied(Denied),
    /// The shared counters cannot be asked, and the configuration says to refuse then.
    #[error("the shared counters cannot be reached")]
    Unavailable,
}

/// Why a purse was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shared counters cannot be reached")]
pub struct Unavailable;

/// How a purse stands.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Which.
    pub purse: Arc<Purse>,
    /// What was settled and still counts.
    pub used: u64,
    /// What is reserved by calls under way.
    pub reserved: u64,
    /// What a reservation could still have; more than `cap - used - reserved` after a top-up.
    pub left: u64,
    /// How long until nothing counts as used.
    pub resets_in: Duration,
}

impl Standing {
    fn new(purse: &Arc<Purse>, used: i128, reserved: i128, resets_in: Duration) -> Self {
        Self { purse: purse.clone(), used: whole(used), reserved: whole(reserved), left: whole(i128::from(purse.cap) - used - reserved), resets_in }
    }
}

/// Where purses are counted.
#[allow(clippy::large_enum_variant)] // There is one of it in a process.
#[derive(Debug)]
pub enum Counters {
    /// In this process.
    Memory(Memory),
    /// In Redis, for all replicas.
    Redis(Redis),
}

impl Counters {
    /// Reserves all claims or none; what is not settled or released within `lease_time` is given back. The standings come in
    /// the order of the claims, with the reservation in them.
    pub async fn reserve(&self, claims: &[Claim<'_>], lease_time: Duration) -> Result<(Lease, Vec<Standing>), Refused> {
        match self {
            Self::Memory(memory) => memory.reserve(claims, lease_time).map_err(Refused::Denied),
            // Boxed, so that who counts in memory does not carry the state of a round trip through every request.
            Self::Redis(redis) => Box::pin(redis.reserve(claims, lease_time)).await,
        }
    }

    /// Ends a reservation with what was really used, claim by claim; it may be more than was reserved. For a claim that
    /// `actual` does not reach, what was reserved counts as used. Never waits: Redis is told in the background.
    pub fn settle(&self, lease: Lease, actual: &[u64]) {
        match self {
            Self::Memory(memory) => memory.settle(lease, actual),
            Self::Redis(redis) => redis.settle(lease, actual),
        }
    }

    /// Ends a reservation of which nothing was used.
    pub fn release(&self, lease: Lease) {
        match self {
            Self::Memory(memory) => memory.release(lease),
            Self::Redis(redis) => redis.release(lease),
        }
    }

    /// How these purses stand; by this replica's own knowledge where Redis does not answer.
    pub async fn standing(&self, purses: &[Arc<Purse>]) -> Vec<Standing> {
        match self {
            Self::Memory(memory) => memory.standing(purses),
            Self::Redis(redis) => Box::pin(redis.standing(purses)).await,
        }
    }

    /// Forgets what a purse has used. Reservations stand.
    pub async fn reset(&self, purse: &Arc<Purse>) -> Result<(), Unavailable> {
        match self {
            Self::Memory(memory) => {
                memory.reset(purse);
                Ok(())
            }
            Self::Redis(redis) => Box::pin(redis.reset(purse)).await,
        }
    }

    /// Gives a purse this much more, for as long as something used now would count.
    pub async fn top_up(&self, purse: &Arc<Purse>, amount: u64) -> Result<(), Unavailable> {
        match self {
            Self::Memory(memory) => {
                memory.top_up(purse, amount);
                Ok(())
            }
            Self::Redis(redis) => Box::pin(redis.top_up(purse, amount)).await,
        }
    }

    /// Gives back expired reservations and forgets purses in which nothing counts any more. To be called now and then.
    pub fn sweep(&self) {
        match self {
            Self::Memory(memory) => memory.sweep(),
            Self::Redis(redis) => redis.sweep(),
        }
    }

    /// Brings what is still under way to disk or to Redis, within this time. Says whether all of it arrived.
    pub async fn close(&self, within: Duration) -> bool {
        match self {
            Self::Memory(memory) => memory.flush(within),
            Self::Redis(redis) => Box::pin(redis.close(within)).await,
        }
    }
}

/// What Redis being away means for a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenDown {
    /// This replica counts alone, from what it last knew.
    #[default]
    Local,
    /// It is refused.
    Deny,
    /// It is let through, and counted afterwards.
    Allow,
}

impl fmt::Display for WhenDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::Deny => "deny",
            Self::Allow => "allow",
        })
    }
}

/// An amount as it is counted. Signed, because a top-up is a negative amount; nothing real comes near the bound.
fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

/// A sum as it is shown.
fn whole(sum: i128) -> u64 {
    u64::try_from(sum.max(0)).unwrap_or(u64::MAX)
}

/// The wait to suggest where an amount is missing: by the clock where what was used has to leave first, else soon, since
/// reservations are given back when calls end and nobody knows when.
fn wait(claim: &Claim<'_>, used: i128, reserved: i128, frees_in: impl Fn(i128) -> Option<Duration>) -> Duration {
    const SOON: Duration = Duration::from_secs(1);
    let (amount, cap) = (i128::from(claim.amount), i128::from(claim.purse.cap));
    if amount > cap {
        return NEVER;
    }
    let missing = used + amount - cap;
    let by_clock = if missing > 0 { frees_in(missing + reserved).or_else(|| frees_in(missing)) } else { None };
    by_clock.unwrap_or(SOON).max(Duration::from_millis(1))
}
