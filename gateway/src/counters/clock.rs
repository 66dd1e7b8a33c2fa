//! Time, so that tests can have their own.

use std::fmt::Debug;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::calendar::millis;

/// Two clocks: a steady one for leases, and the wall's for windows.
pub trait Clock: Debug + Send + Sync {
    /// How long this clock has run. Never goes back.
    fn steady(&self) -> Duration;
    /// Milliseconds since 1970. May jump.
    fn wall(&self) -> u64;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct System(Instant);

impl Default for System {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for System {
    fn steady(&self) -> Duration {
        self.0.elapsed()
    }

    fn wall(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
    }
}

/// Clocks that stand until a test moves them.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct Manual {
    steady: std::sync::atomic::AtomicU64,
    wall: std::sync::atomic::AtomicU64,
}

#[cfg(test)]
impl Manual {
    pub(crate) fn at(wall: u64) -> Self {
        Self { steady: 0.into(), wall: wall.into() }
    }

    /// Time passes.
    pub(crate) fn pass(&self, time: Duration) {
        use std::sync::atomic::Ordering::SeqCst;
        self.steady.fetch_add(millis(time), SeqCst);
        self.wall.fetch_add(millis(time), SeqCst);
    }

    /// Somebody sets the wall clock.
    pub(crate) fn set(&self, wall: u64) {
        self.wall.store(wall, std::sync::atomic::Ordering::SeqCst);
    }
}

#[cfg(test)]
impl Clock for Manual {
    fn steady(&self) -> Duration {
        Duration::from_millis(self.steady.load(std::sync::atomic::Ordering::SeqCst))
    }

    fn wall(&self) -> u64 {
        self.wall.load(std::sync::atomic::Ordering::SeqCst)
    }
}
