//! Counters in this process: one lock per purse, taken in one order for all, held for nanoseconds.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use foldhash::fast::RandomState;

use super::calendar::millis;
use super::clock::{Clock, System};
use super::journal::{self, Journal, Record};
use super::window::{Meter, Saved};
use super::{Claim, Denied, Lease, Purse, Standing, Window, signed, wait};

const SHARDS: usize = 16;

/// The counters of this process.
#[derive(Debug)]
pub struct Memory {
    clock: Arc<dyn Clock>,
    accounts: Arc<Accounts>,
    journal: Option<Journal>,
    /// Whether this only mirrors counters elsewhere, which are told afterwards what is used here.
    mirror: bool,
}

/// One claim of a lease.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) purse: Arc<Purse>,
    pub(super) amount: u64,
    /// Its place among the claims.
    pub(super) claim: usize,
    account: Arc<Account>,
    expires: u64,
}

/// What is known of a purse. The cap is not: it comes with each claim, so that a reload changes it at once.
#[derive(Debug)]
pub(super) struct Account {
    key: Arc<str>,
    /// Locks are taken in this order, so that no two reservations wait for each other.
    order: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    meter: Meter,
    reserved: i128,
    /// What is reserved, by the second in which its lease expires; oldest first.
    leases: VecDeque<(u64, i128)>,
    changed: Changed,
    /// The purse as it was last spoken of elsewhere, in a mirror.
    elsewhere: Option<Arc<Purse>>,
    /// What was used here and is not known elsewhere yet, in a mirror.
    untold: i64,
}

/// What the journal does not know yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Changed {
    Nothing,
    /// Amounts in the buckets from this start on.
    From(u64),
    /// Amounts were moved or taken away.
    All,
}

type Shard = HashMap<Arc<str>, Arc<Account>, RandomState>;

/// All accounts, by key.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    shards: [RwLock<Shard>; SHARDS],
    hasher: RandomState,
    opened: AtomicU64,
    /// What was read from disk and not asked for since.
    restored: Mutex<HashMap<Arc<str>, Vec<Saved>>>,
}

/// One look at both clocks.
#[derive(Clone, Copy)]
struct Now {
    wall: u64,
    second: u64,
}

impl Memory {
    /// Counters that are gone with the process.
    pub fn volatile() -> Self {
        Self::with_clock(Arc::new(System::default()))
    }

    /// Counters that are kept in a folder.
    pub fn persisted(settings: &journal::Settings) -> Result<Self, journal::Error> {
        Self::persisted_with_clock(settings, Arc::new(System::default()))
    }

    /// Counters that are gone with the process, by this clock.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { clock, accounts: Arc::default(), journal: None, mirror: false }
    }

    /// What one process knows of counters elsewhere.
    pub(super) fn mirror(clock: Arc<dyn Clock>) -> Self {
        Self { mirror: true, ..Self::with_clock(clock) }
    }

    /// Counters that are kept in a folder, by this clock.
    pub fn persisted_with_clock(settings: &journal::Settings, clock: Arc<dyn Clock>) -> Result<Self, journal::Error> {
        let accounts = Arc::<Accounts>::default();
        let journal = Journal::open(settings, accounts.clone(), clock.clone())?;
        Ok(Self { clock, accounts, journal: Some(journal), mirror: false })
    }

    /// See [`super::Counters::reserve`].
    pub fn reserve(&self, claims: &[Claim<'_>], lease_time: Duration) -> Result<(Lease, Vec<Standing>), Denied> {
        self.grant(claims, lease_time, true)
    }

    /// Reserves without asking whether there is enough.
    pub(super) fn hold(&self, claims: &[Claim<'_>], lease_time: Duration) -> (Lease, Vec<Standing>) {
        // Without the question there is no refusal.
        self.grant(claims, lease_time, false).unwrap_or_else(|_| (Lease::new(Vec::new(), None), Vec::new()))
    }

    fn grant(&self, claims: &[Claim<'_>], lease_time: Duration, ask: bool) -> Result<(Lease, Vec<Standing>), Denied> {
        let now = self.now();
        // Rounded up to whole seconds, so that an account has few different moments to keep.
        let expires = now.second.saturating_add(millis(lease_time).div_ceil(1000)).saturating_add(1);
        let mut held: Vec<Held> = Vec::with_capacity(claims.len());
        for (claim, &Claim { purse, amount }) in claims.iter().enumerate() {
            held.push(Held { purse: purse.clone(), amount, claim, account: self.accounts.of(purse, now.wall), expires });
        }
        held.sort_by_key(|held| held.account.order);

        let mut moved = Vec::new();
        let mut locks: Vec<MutexGuard<'_, State>> = Vec::with_capacity(held.len());
        for (i, one) in held.iter().enumerate() {
            // Two claims on one purse share its lock.
            if i == 0 || held[i - 1].account.order != one.account.order {
                let mut state = one.account.lock();
                if state.roll(now) {
                    moved.push(one.account.clone());
                }
                locks.push(state);
            }
        }
        let denied = if ask { refusal(&held, &locks, now) } else { None };
        let mut standings = Vec::with_capacity(held.len());
        if denied.is_none() {
            let mut lock = 0;
            for (i, one) in held.iter().enumerate() {
                lock += usize::from(i > 0 && held[i - 1].account.order != one.account.order);
                let state = &mut locks[lock];
                state.hold(i128::from(one.amount), expires);
                standings.push((one.claim, state.standing(&one.purse, now)));
            }
        }
        drop(locks);
        self.tell(moved);
        if let Some(denied) = denied {
            return Err(denied);
        }
        standings.sort_by_key(|(claim, _)| *claim);
        Ok((Lease::new(held, None), standings.into_iter().map(|(_, standing)| standing).collect()))
    }

    /// See [`super::Counters::settle`].
    pub fn settle(&self, mut lease: Lease, actual: &[u64]) {
        lease.close();
        self.finish(&lease, |held| actual.get(held.claim).copied().unwrap_or(held.amount));
    }

    /// See [`super::Counters::release`].
    pub fn release(&self, mut lease: Lease) {
        lease.close();
        self.finish(&lease, |_| 0);
    }

    pub(super) fn finish(&self, lease: &Lease, used: impl Fn(&Held) -> u64) {
        if lease.held.is_empty() {
            return;
        }
        let now = self.now();
        for held in &lease.held {
            let changed = {
                let mut state = held.account.lock();
                let moved = state.roll(now);
                state.give_back(i128::from(held.amount), held.expires);
                let used = signed(used(held));
                if self.mirror {
                    state.untold = state.untold.saturating_add(used);
                }
                state.charge(used) || moved
            };
            if changed {
                self.tell([held.account.clone()]);
            }
        }
    }

    /// See [`super::Counters::standing`].
    pub fn standing(&self, purses: &[Arc<Purse>]) -> Vec<Standing> {
        let now = self.now();
        purses.iter().map(|purse| self.with(purse, now, |state| (state.standing(purse, now), false))).collect()
    }

    /// See [`super::Counters::reset`].
    pub fn reset(&self, purse: &Arc<Purse>) {
        self.with(purse, self.now(), |state| {
            state.meter.clear();
            ((), state.mark(Changed::All))
        });
    }

    /// See [`super::Counters::top_up`].
    pub fn top_up(&self, purse: &Arc<Purse>, amount: u64) {
        self.with(purse, self.now(), |state| ((), state.charge(-signed(amount))));
    }

    /// Sets what a purse has used to what is known from elsewhere, and what is not known there yet. All of it counts as used
    /// just now.
    pub(super) fn observe(&self, purse: &Arc<Purse>, used: i64) {
        self.with(purse, self.now(), |state| {
            state.meter.clear();
            state.meter.charge(used.saturating_add(state.untold));
            state.elsewhere = Some(purse.clone());
            ((), false)
        });
    }

    /// An amount that was used here is no longer to be told. Elsewhere it comes to this sum now; answers may overtake each
    /// other, and a smaller sum is an older one. Without a sum it is not part of what is known.
    pub(super) fn told(&self, purse: &Arc<Purse>, amount: i64, sum: Option<i64>) {
        self.with(purse, self.now(), |state| {
            state.untold = state.untold.saturating_sub(amount);
            let missing = sum.map_or(-i128::from(amount), |sum| (i128::from(sum) - state.known()).max(0));
            state.meter.charge(i64::try_from(missing).unwrap_or(i64::MAX));
            state.elsewhere = Some(purse.clone());
            ((), false)
        });
    }

    /// What other counters were last known to have used.
    pub(super) fn known(&self) -> Vec<(Arc<Purse>, i64)> {
        let now = self.now();
        let mut known = Vec::new();
        for shard in &self.accounts.shards {
            for account in shard.read().unwrap_or_else(PoisonError::into_inner).values() {
                let mut state = account.lock();
                state.roll(now);
                if let (Some(purse), Ok(used @ 1..)) = (state.elsewhere.clone(), i64::try_from(state.known())) {
                    known.push((purse, used));
                }
            }
        }
        known
    }

    /// See [`super::Counters::sweep`].
    pub fn sweep(&self) {
        let now = self.now();
        for shard in &self.accounts.shards {
            let mut moved = Vec::new();
            shard.write().unwrap_or_else(PoisonError::into_inner).retain(|_, account| {
                let mut state = account.lock();
                if state.roll(now) {
                    moved.push(account.clone());
                }
                // Whoever has a lease, or is about to write it down, has a share in the account.
                let idle = state.idle();
                drop(state);
                !idle || Arc::strong_count(account) > 1
            });
            self.tell(moved);
        }
    }

    /// Brings everything settled so far to disk. Says whether that was done within this time.
    pub fn flush(&self, within: Duration) -> bool {
        self.journal.as_ref().is_none_or(|journal| journal.flush(within))
    }

    /// How many purses are known.
    #[cfg(test)]
    pub(super) fn purses(&self) -> usize {
        self.accounts.shards.iter().map(|shard| shard.read().unwrap().len()).sum()
    }

    fn with<T>(&self, purse: &Arc<Purse>, now: Now, act: impl FnOnce(&mut State) -> (T, bool)) -> T {
        let account = self.accounts.of(purse, now.wall);
        let (result, changed) = {
            let mut state = account.lock();
            let moved = state.roll(now);
            let (result, changed) = act(&mut state);
            (result, changed || moved)
        };
        if changed {
            self.tell([account]);
        }
        result
    }

    fn tell(&self, changed: impl IntoIterator<Item = Arc<Account>>) {
        if let Some(journal) = &self.journal {
            changed.into_iter().for_each(|account| journal.tell(account));
        }
    }

    fn now(&self) -> Now {
        Now { wall: self.clock.wall(), second: self.clock.steady().as_secs() }
    }
}

/// The purse that takes longest to free enough, if one has too little. The locks are those of `held`, each once.
fn refusal(held: &[Held], locks: &[MutexGuard<'_, State>], now: Now) -> Option<Denied> {
    let mut denied: Option<Denied> = None;
    let (mut lock, mut asked) = (0, 0);
    for (i, one) in held.iter().enumerate() {
        if i > 0 && held[i - 1].account.order != one.account.order {
            (lock, asked) = (lock + 1, 0);
        }
        let state = &locks[lock];
        let (used, reserved) = (state.meter.used(), state.reserved + asked);
        asked += i128::from(one.amount);
        if used + reserved + i128::from(one.amount) <= i128::from(one.purse.cap) {
            continue;
        }
        let frees_in = wait(&Claim { purse: &one.purse, amount: one.amount }, used, reserved, |needed| state.meter.frees_in(needed, now.wall));
        if denied.as_ref().is_none_or(|before| before.frees_in < frees_in) {
            denied = Some(Denied { purse: one.purse.clone(), used: super::whole(used + reserved), frees_in });
        }
    }
    denied
}

impl Account {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that died left sums that are right up to one step: better than no counters at all.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the journal is to write; afterwards nothing has changed.
    pub(super) fn take_changes(&self) -> Option<Record> {
        let mut state = self.lock();
        let (whole, from) = match std::mem::replace(&mut state.changed, Changed::Nothing) {
            Changed::Nothing => return None,
            Changed::From(start) => (false, start),
            Changed::All => (true, 0),
        };
        let saved = state.meter.saved(from).into_iter().filter(|saved| !whole || saved.amount != 0).collect();
        Some(Record { key: self.key.clone(), whole, saved })
    }
}

impl State {
    /// Moves on to the present. Says whether the journal has to hear of it.
    fn roll(&mut self, now: Now) -> bool {
        while let Some((_, amount)) = self.leases.pop_front_if(|(expires, _)| *expires <= now.second) {
            self.reserved -= amount;
        }
        self.meter.roll(now.wall) && self.mark(Changed::All)
    }

    fn hold(&mut self, amount: i128, expires: u64) {
        self.reserved += amount;
        match self.leases.binary_search_by_key(&expires, |(at, _)| *at) {
            Ok(found) => self.leases[found].1 += amount,
            Err(place) => self.leases.insert(place, (expires, amount)),
        }
    }

    fn give_back(&mut self, amount: i128, expires: u64) {
        // Where the lease has expired, its amount is back already.
        if let Ok(found) = self.leases.binary_search_by_key(&expires, |(at, _)| *at) {
            self.leases[found].1 -= amount;
            self.reserved -= amount;
        }
    }

    fn charge(&mut self, amount: i64) -> bool {
        if amount == 0 {
            return false;
        }
        let start = self.meter.charge(amount);
        start.is_some_and(|start| self.mark(Changed::From(start)))
    }

    /// Says whether the journal does not know yet that there is something to write.
    fn mark(&mut self, changed: Changed) -> bool {
        let before = self.changed;
        self.changed = match (before, changed) {
            (Changed::All, _) | (_, Changed::All) => Changed::All,
            (Changed::From(a), Changed::From(b)) => Changed::From(a.min(b)),
            (other, Changed::Nothing) | (Changed::Nothing, other) => other,
        };
        before == Changed::Nothing
    }

    fn standing(&self, purse: &Arc<Purse>, now: Now) -> Standing {
        Standing::new(purse, self.meter.used(), self.reserved, self.meter.resets_in(now.wall))
    }

    /// What is used as counters elsewhere know it.
    fn known(&self) -> i128 {
        self.meter.used() - i128::from(self.untold)
    }

    fn idle(&self) -> bool {
        self.reserved == 0 && self.untold == 0 && self.meter.saved(0).iter().all(|saved| saved.amount == 0)
    }
}

impl Accounts {
    fn of(&self, purse: &Purse, wall: u64) -> Arc<Account> {
        let hash = self.hasher.hash_one(&*purse.key);
        // The high bits choose the shard, for the low ones choose the place in it.
        let shard = &self.shards[(hash >> 60) as usize % SHARDS];
        if let Some(account) = shard.read().unwrap_or_else(PoisonError::into_inner).get(&purse.key) {
            return account.clone();
        }
        let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
        shard.entry(purse.key.clone()).or_insert_with(|| self.open(&purse.key, &purse.window, wall)).clone()
    }

    fn open(&self, key: &Arc<str>, window: &Window, wall: u64) -> Arc<Account> {
        let mut meter = Meter::new(window, wall);
        if let Some(saved) = self.lock_restored().remove(key) {
            meter.restore(&saved, wall);
        }
        let state = State { meter, reserved: 0, leases: VecDeque::new(), changed: Changed::Nothing, elsewhere: None, untold: 0 };
        Arc::new(Account { key: key.clone(), order: self.opened.fetch_add(1, Relaxed), state: Mutex::new(state) })
    }

    /// Takes in what was read from disk.
    pub(super) fn restore(&self, saved: HashMap<Arc<str>, Vec<Saved>>) {
        *self.lock_restored() = saved;
    }

    /// Everything that still counts, for a new file. What nobody asked for since the start comes first: an account that is
    /// opened meanwhile then appears twice, with the later word right, and never not at all.
    pub(super) fn records(&self, wall: u64) -> Vec<Record> {
        let mut records: Vec<Record> = Vec::new();
        self.lock_restored().retain(|key, saved| {
            saved.retain(|saved| saved.forget > wall && saved.amount != 0);
            records.push(Record { key: key.clone(), whole: true, saved: saved.clone() });
            !saved.is_empty()
        });
        for shard in &self.shards {
            for account in shard.read().unwrap_or_else(PoisonError::into_inner).values() {
                let saved = account.lock().meter.saved(0).into_iter().filter(|saved| saved.forget > wall && saved.amount != 0).collect();
                records.push(Record { key: account.key.clone(), whole: true, saved });
            }
        }
        records.retain(|record| !record.saved.is_empty());
        records
    }

    fn lock_restored(&self) -> MutexGuard<'_, HashMap<Arc<str>, Vec<Saved>>> {
        self.restored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
