//! What one purse has used, as time goes by: a ring of buckets for a sliding window, one sum for a fixed one.
//!
//! Time here is wall time in milliseconds. A clock that goes back never refills a purse: what was used "in the future" moves
//! to the present. A clock that goes forward moves on as if the time had passed; no amount is ever counted in two places.

use std::time::Duration;

use super::Window;
use super::calendar::{Bounds, Calendar, Zone, millis};

/// How many buckets a sliding window is cut into: what was used counts for up to a sixty-fourth longer than the window.
const BUCKETS: u64 = 64;

/// An amount used in one bucket or window, as it is kept on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Saved {
    /// Where the bucket or window starts.
    pub(super) start: u64,
    /// From when on the amount does not count any more.
    pub(super) forget: u64,
    /// The amount; negative after a top-up.
    pub(super) amount: i64,
}

/// What a purse has used.
#[derive(Debug)]
pub(super) enum Meter {
    Sliding(Ring),
    Fixed(Fixed),
    /// Only what is reserved counts.
    None,
}

/// The buckets of a sliding window, the newest of which lies at the present.
#[derive(Debug)]
pub(super) struct Ring {
    grid: Grid,
    newest: u64,
    /// The last bucket in which something was charged.
    charged: Option<u64>,
    sum: i128,
    slots: Box<[i64]>,
}

/// How a sliding window is cut into buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grid {
    /// The length of a bucket.
    pub(super) width: u64,
    /// How many buckets before the present one still count.
    pub(super) keep: u64,
}

impl Grid {
    pub(super) fn new(window: Duration) -> Self {
        let window = millis(window).clamp(1, u64::MAX / 4);
        let width = window.div_ceil(BUCKETS);
        Self { width, keep: window.div_ceil(width) }
    }

    /// When a bucket has left the window as a whole.
    pub(super) fn forget(self, bucket: u64) -> u64 {
        bucket.saturating_add(self.keep + 1).saturating_mul(self.width)
    }
}

/// A fixed window and what was used in it.
#[derive(Debug)]
pub(super) struct Fixed {
    calendar: Calendar,
    zone: Zone,
    bounds: Bounds,
    used: i64,
}

impl Meter {
    pub(super) fn new(window: &Window, now: u64) -> Self {
        match window {
            Window::Sliding(length) => {
                let grid = Grid::new(*length);
                let slots = vec![0; usize::try_from(grid.keep + 1).unwrap_or(usize::MAX)].into_boxed_slice();
                Self::Sliding(Ring { grid, newest: now / grid.width, charged: None, sum: 0, slots })
            }
            Window::Fixed(calendar, zone) => Self::Fixed(Fixed { calendar: *calendar, zone: zone.clone(), bounds: calendar.bounds(zone, now), used: 0 }),
            Window::None => Self::None,
        }
    }

    /// Moves on to the present. Says whether amounts were moved to another bucket or window, because the clock went back.
    pub(super) fn roll(&mut self, now: u64) -> bool {
        match self {
            Self::Sliding(ring) => ring.roll(now / ring.grid.width),
            Self::Fixed(fixed) => fixed.roll(now),
            Self::None => false,
        }
    }

    /// What counts as used; negative where a top-up is not spent yet.
    pub(super) fn used(&self) -> i128 {
        match self {
            Self::Sliding(ring) => ring.sum,
            Self::Fixed(fixed) => i128::from(fixed.used),
            Self::None => 0,
        }
    }

    /// Counts an amount at the present; `roll` comes first. Gives the start of the bucket or window it went to.
    pub(super) fn charge(&mut self, amount: i64) -> Option<u64> {
        match self {
            Self::Sliding(ring) => Some(ring.charge(amount)),
            Self::Fixed(fixed) => {
                fixed.used = fixed.used.saturating_add(amount);
                Some(fixed.bounds.start)
            }
            Self::None => None,
        }
    }

    /// Forgets what was used.
    pub(super) fn clear(&mut self) {
        match self {
            Self::Sliding(ring) => ring.clear(),
            Self::Fixed(fixed) => fixed.used = 0,
            Self::None => {}
        }
    }

    /// How long until this much of what is used counts no more, by the clock alone; `None` where it never does.
    pub(super) fn frees_in(&self, needed: i128, now: u64) -> Option<Duration> {
        let at = match self {
            Self::Sliding(ring) => frees_at(ring.grid, ring.buckets(), needed),
            Self::Fixed(fixed) => (i128::from(fixed.used) >= needed).then_some(fixed.bounds.end),
            Self::None => None,
        };
        at.map(|at| Duration::from_millis(at.saturating_sub(now)))
    }

    /// How long until nothing counts as used.
    pub(super) fn resets_in(&self, now: u64) -> Duration {
        let at = match self {
            Self::Sliding(ring) => ring.charged.map_or(0, |bucket| ring.grid.forget(bucket)),
            Self::Fixed(fixed) => fixed.bounds.end,
            Self::None => 0,
        };
        Duration::from_millis(at.saturating_sub(now))
    }

    /// The amounts that count, from this start on, zeros included.
    pub(super) fn saved(&self, from: u64) -> Vec<Saved> {
        match self {
            Self::Sliding(ring) => {
                let Grid { width, .. } = ring.grid;
                let saved = |(bucket, amount)| Saved { start: bucket * width, forget: ring.grid.forget(bucket), amount };
                ring.buckets().map(saved).filter(|saved| saved.start >= from).collect()
            }
            Self::Fixed(Fixed { bounds, used, .. }) => vec![Saved { start: bounds.start, forget: bounds.end, amount: *used }],
            Self::None => Vec::new(),
        }
    }

    /// Takes over what was kept on disk; the present must lie after, or `roll` moves it there.
    pub(super) fn restore(&mut self, saved: &[Saved], now: u64) {
        match self {
            Self::Sliding(ring) => {
                let latest = saved.iter().map(|s| s.start / ring.grid.width).max();
                ring.roll(latest.unwrap_or(0).max(now / ring.grid.width));
                for Saved { start, amount, .. } in saved {
                    ring.put(start / ring.grid.width, *amount);
                }
            }
            Self::Fixed(fixed) => {
                if let Some(last) = saved.iter().max_by_key(|s| s.start) {
                    fixed.bounds = Bounds { start: last.start, end: last.forget };
                    fixed.used = last.amount;
                }
            }
            Self::None => {}
        }
        self.roll(now);
    }
}

impl Ring {
    fn slot(&self, bucket: u64) -> usize {
        usize::try_from(bucket % (self.grid.keep + 1)).unwrap_or(0)
    }

    /// The buckets that count and their amounts, oldest first.
    fn buckets(&self) -> impl Iterator<Item = (u64, i64)> + '_ {
        (self.newest.saturating_sub(self.grid.keep)..=self.newest).map(|bucket| (bucket, self.slots[self.slot(bucket)]))
    }

    fn charge(&mut self, amount: i64) -> u64 {
        self.put(self.newest, amount);
        self.newest * self.grid.width
    }

    fn put(&mut self, bucket: u64, amount: i64) {
        if amount == 0 || bucket > self.newest || bucket + self.grid.keep < self.newest {
            return;
        }
        let slot = self.slot(bucket);
        let before = self.slots[slot];
        self.slots[slot] = before.saturating_add(amount);
        self.sum += i128::from(self.slots[slot]) - i128::from(before);
        self.charged = self.charged.max(Some(bucket));
    }

    fn clear(&mut self) {
        self.slots.fill(0);
        self.sum = 0;
        self.charged = None;
    }

    fn roll(&mut self, present: u64) -> bool {
        if present == self.newest {
            return false;
        }
        if present < self.newest {
            return self.step_back(present);
        }
        if present - self.newest > self.grid.keep {
            self.clear();
        } else {
            for bucket in self.newest + 1..=present {
                let slot = self.slot(bucket);
                self.sum -= i128::from(self.slots[slot]);
                self.slots[slot] = 0;
            }
        }
        self.newest = present;
        false
    }

    /// The clock went back: what lies ahead of it moves to the present, and so counts for a whole window from now on.
    fn step_back(&mut self, present: u64) -> bool {
        let mut moved = 0_i64;
        for bucket in (present + 1).max(self.newest.saturating_sub(self.grid.keep))..=self.newest {
            let slot = self.slot(bucket);
            moved = moved.saturating_add(std::mem::take(&mut self.slots[slot]));
        }
        self.newest = present;
        self.sum = self.slots.iter().copied().map(i128::from).sum();
        self.charged = self.charged.map(|bucket| bucket.min(present));
        self.put(present, moved);
        moved != 0
    }
}

impl Fixed {
    fn roll(&mut self, now: u64) -> bool {
        let Bounds { start, end } = self.bounds;
        if start <= now && now < end {
            return false;
        }
        let bounds = self.calendar.bounds(&self.zone, now);
        if bounds.start >= end {
            self.bounds = bounds;
            self.used = 0;
            return false;
        }
        // The clock went back. Near the border the later window stays, lest it begin again when the clock passes there once
        // more; from further away its amount moves to the present one, lest nothing free until that distant date.
        if now >= start.saturating_sub(end - start) {
            return false;
        }
        self.bounds = bounds;
        self.used != 0
    }
}

/// When so much has left a sliding window; the buckets come oldest first.
pub(super) fn frees_at(grid: Grid, buckets: impl Iterator<Item = (u64, i64)>, needed: i128) -> Option<u64> {
    let mut freed = 0;
    for (bucket, amount) in buckets {
        freed += i128::from(amount);
        if freed >= needed {
            return Some(grid.forget(bucket));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1000;
    const START: u64 = 1_790_000_000_000;

    fn minute() -> Meter {
        Meter::new(&Window::Sliding(Duration::from_secs(64)), START)
    }

    fn used(meter: &mut Meter, now: u64) -> i128 {
        meter.roll(now);
        meter.used()
    }

    #[test]
    fn a_charge_counts_for_its_window_and_at_most_a_bucket_more() {
        for offset in 0..1000 {
            let mut meter = minute();
            meter.roll(START + offset);
            meter.charge(5);
            assert_eq!(used(&mut meter, START + offset + 64 * SECOND - 1), 5);
            assert_eq!(used(&mut meter, START + offset + 65 * SECOND), 0);
        }
    }

    #[test]
    fn windows_shorter_than_their_buckets_hold_too() {
        for length in [1, 2, 10, 63, 65, 100] {
            let mut meter = Meter::new(&Window::Sliding(Duration::from_millis(length)), START);
            meter.charge(1);
            assert_eq!(used(&mut meter, START + length - 1), 1);
            assert_eq!(used(&mut meter, START + 2 * length + 2), 0);
        }
    }

    #[test]
    fn it_says_when_enough_is_free() {
        let mut meter = minute();
        meter.charge(5);
        meter.roll(START + 10 * SECOND);
        meter.charge(7);
        let now = START + 10 * SECOND;
        for (needed, frees) in [(1, 55), (5, 55), (6, 65), (12, 65)] {
            assert_eq!(meter.frees_in(needed, now), Some(Duration::from_secs(frees)));
        }
        assert_eq!(meter.frees_in(13, now), None);
        assert_eq!(meter.resets_in(now), Duration::from_secs(65));
    }

    #[test]
    fn a_clock_that_goes_back_refills_nothing() {
        for back in [1, 5, 30, 64, 65, 1000, 1_000_000] {
            let mut meter = minute();
            meter.charge(3);
            meter.roll(START + 40 * SECOND);
            meter.charge(4);
            let then = START + 40 * SECOND - back * SECOND;
            assert_eq!(used(&mut meter, then), 7, "back by {back}");
            assert_eq!(used(&mut meter, then + 65 * SECOND), 0);
        }
    }

    #[test]
    fn a_fixed_window_survives_a_clock_that_swings_over_its_border() {
        let mut meter = Meter::new(&Window::Fixed(Calendar::Every(Duration::from_secs(3600)), Zone::UTC), START);
        let border = START - START % 3_600_000 + 3_600_000;
        meter.charge(9);
        assert_eq!(used(&mut meter, border), 0);
        meter.charge(10);
        assert_eq!(used(&mut meter, border - 1), 10);
        assert_eq!(used(&mut meter, border + 1), 10);
        // From far ahead the amount comes along, and frees with the present window.
        assert_eq!(used(&mut meter, border - 50 * 3_600_000), 10);
        assert_eq!(used(&mut meter, border - 49 * 3_600_000), 0);
    }

    #[test]
    fn what_is_saved_comes_back() {
        let mut meter = minute();
        meter.charge(3);
        meter.roll(START + 20 * SECOND);
        meter.charge(-8);
        let saved = meter.saved(0);
        let mut later = Meter::new(&Window::Sliding(Duration::from_secs(64)), START + 30 * SECOND);
        later.restore(&saved, START + 30 * SECOND);
        assert_eq!(later.used(), -5);
        assert_eq!(used(&mut later, START + 65 * SECOND), -8);
        let mut earlier = Meter::new(&Window::Sliding(Duration::from_secs(64)), START - 500 * SECOND);
        earlier.restore(&saved, START - 500 * SECOND);
        assert_eq!(earlier.used(), -5);
    }
}
