//! What is counted: sums by day and key in bounded memory, and which of them are not written down yet.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};

use super::Day;
use crate::ledger::Entry;

/// What stands for everything that there is no room for.
pub const OTHER: &str = "(other)";
/// A day that is not the latest is forgotten when nothing has been added to it for this long.
const QUIET: Duration = Duration::from_secs(3600);

/// What sums are counted under.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Key {
    /// Who asked; nobody for entries that were lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer: Option<Arc<str>>,
    /// The consumer's groups at that time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Arc<[Arc<str>]>>,
    /// The configured name that answers to the model asked for; empty where none does.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub route: Arc<str>,
    /// The provider that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<Arc<str>>,
    /// The model used there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_used: Option<Arc<str>>,
}

impl Key {
    fn of(entry: &Entry) -> Self {
        Key { consumer: entry.consumer.clone(), groups: entry.groups.clone(), route: entry.route.clone(), provider: entry.provider.clone(), model_used: entry.model_used.clone() }
    }
}

/// What was used. Every figure only ever grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sums {
    /// Requests.
    #[serde(skip_serializing_if = "is_zero")]
    pub requests: u64,
    /// Those of them that were refused, failed or broken off.
    #[serde(skip_serializing_if = "is_zero")]
    pub failed: u64,
    /// Entries that the ledger's queue had no room for: nothing else is known of them.
    #[serde(skip_serializing_if = "is_zero")]
    pub lost: u64,
    /// Prompt tokens that are in none of the next four buckets.
    #[serde(skip_serializing_if = "is_zero")]
    pub input: u64,
    /// Prompt tokens read from a provider's cache.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_read: u64,
    /// Prompt tokens written to a cache with a short lifetime.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_write: u64,
    /// Prompt tokens written to a cache with a long lifetime.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_write_1h: u64,
    /// Prompt tokens of audio.
    #[serde(skip_serializing_if = "is_zero")]
    pub input_audio: u64,
    /// Answer tokens that are in none of the next two buckets.
    #[serde(skip_serializing_if = "is_zero")]
    pub output: u64,
    /// Tokens of reasoning.
    #[serde(skip_serializing_if = "is_zero")]
    pub reasoning: u64,
    /// Answer tokens of audio.
    #[serde(skip_serializing_if = "is_zero")]
    pub output_audio: u64,
    /// What it cost where a price is known, in billionths of a dollar.
    #[serde(skip_serializing_if = "is_zero")]
    pub nanodollars: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Sums {
    fn of(entry: &Entry) -> Self {
        let usage = entry.usage.unwrap_or_default();
        Sums {
            requests: 1,
            failed: u64::from(entry.status >= 400 || entry.error.is_some()),
            lost: 0,
            input: usage.input,
            cache_read: usage.cache_read,
            cache_write: usage.cache_write,
            cache_write_1h: usage.cache_write_1h,
            input_audio: usage.input_audio,
            output: usage.output,
            reasoning: usage.reasoning,
            output_audio: usage.output_audio,
            nanodollars: entry.cost.unwrap_or_default().0,
        }
    }

    /// All tokens by bucket, under the names that the ledger has for them.
    #[must_use]
    pub fn buckets(&self) -> [(&'static str, u64); 8] {
        [
            ("input", self.input),
            ("cache_read", self.cache_read),
            ("cache_write", self.cache_write),
            ("cache_write_1h", self.cache_write_1h),
            ("input_audio", self.input_audio),
            ("output", self.output),
            ("reasoning", self.reasoning),
            ("output_audio", self.output_audio),
        ]
    }

    /// Adds what was used elsewhere. A provider that tells absurd figures makes no small ones of them.
    pub fn add(&mut self, more: &Sums) {
        for (sum, n) in self.each().into_iter().zip(more.figures()) {
            *sum = sum.saturating_add(n);
        }
    }

    /// All figures in an order that stays: a new one comes at the end.
    pub(super) fn figures(mut self) -> [u64; 12] {
        self.each().map(|n| *n)
    }

    /// From figures in that order.
    pub(super) fn from_figures(figures: &[u64]) -> Self {
        let mut sums = Sums::default();
        for (sum, n) in sums.each().into_iter().zip(figures) {
            *sum = *n;
        }
        sums
    }

    fn each(&mut self) -> [&mut u64; 12] {
        let Sums { requests, failed, lost, input, cache_read, cache_write, cache_write_1h, input_audio, output, reasoning, output_audio, nanodollars } = self;
        [requests, failed, lost, input, cache_read, cache_write, cache_write_1h, input_audio, output, reasoning, output_audio, nanodollars]
    }

    /// Of two states of the same sums, the later one: it has seen more.
    pub(super) fn later(self, other: Sums) -> Sums {
        if (other.requests, other.lost) > (self.requests, self.lost) { other } else { self }
    }
}

/// How much is told apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Keys in memory, over all days.
    pub(super) keys: usize,
    /// Keys of one consumer on one day.
    pub(super) of_consumer: usize,
}

/// A state of some sums that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) day: Day,
    /// Which table of that day it is from.
    pub(super) source: Arc<str>,
    pub(super) key: Key,
    pub(super) sums: Sums,
}

/// The sums of a day as they stand.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    /// Which table they are from.
    pub(super) source: Arc<str>,
    pub(super) rows: Vec<(Key, Sums)>,
}

/// The sums of the days that something is being added to. Shared by the ledger's thread and whoever writes or reads.
#[derive(Clone, Debug)]
pub(super) struct Tables(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    days: BTreeMap<Day, Table>,
    bounds: Bounds,
    /// Rows that somebody is writing at the moment.
    out: usize,
}

/// The sums of one day.
#[derive(Debug)]
struct Table {
    source: Arc<str>,
    cells: HashMap<Key, Cell, RandomState>,
    of_consumer: HashMap<Option<Arc<str>>, usize, RandomState>,
    changed: Vec<Key>,
    /// When something was last added.
    touched: Duration,
    /// Whether it was said that keys are put together.
    said: bool,
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    sums: Sums,
    /// Whether the key is in `changed`.
    changed: bool,
}

impl Tables {
    pub(super) fn new(bounds: Bounds) -> Self {
        Tables(Arc::new(Mutex::new(Inner { days: BTreeMap::new(), bounds, out: 0 })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a day is here; whole, if it is.
    pub(super) fn has(&self, day: Day) -> bool {
        self.lock().days.contains_key(&day)
    }

    /// The days that are here.
    pub(super) fn days(&self) -> Vec<Day> {
        self.lock().days.keys().copied().collect()
    }

    /// Begins a day with what is known of it.
    pub(super) fn begin(&self, day: Day, known: HashMap<Key, Sums>, now: Duration) {
        let mut table = Table::new(now);
        for (key, sums) in known {
            table.insert(key, Cell { sums, changed: false });
        }
        self.lock().days.insert(day, table);
    }

    /// Counts a finished request.
    pub(super) fn observe(&self, day: Day, entry: &Entry, now: Duration) {
        self.lock().add(day, Key::of(entry), &Sums::of(entry), now);
    }

    /// Counts entries of which nothing but their number is known.
    pub(super) fn lost(&self, day: Day, lost: u64, now: Duration) {
        self.lock().add(day, Key::default(), &Sums { lost, ..Sums::default() }, now);
    }

    /// Up to `most` rows that are not written yet, ordered by their days. They count as written unless they come [`Self::back`].
    pub(super) fn take(&self, most: usize) -> Vec<Row> {
        let mut inner = self.lock();
        let mut rows = Vec::new();
        for (day, table) in &mut inner.days {
            let count = table.changed.len().min(most - rows.len());
            for key in table.changed.drain(table.changed.len() - count..) {
                let Some(cell) = table.cells.get_mut(&key) else { continue };
                cell.changed = false;
                rows.push(Row { day: *day, source: table.source.clone(), sums: cell.sums, key });
            }
        }
        inner.out += rows.len();
        rows
    }

    /// So many rows that were taken are written.
    pub(super) fn written(&self, count: usize) {
        self.lock().out -= count;
    }

    /// These rows could not be written.
    pub(super) fn back(&self, rows: Vec<Row>) {
        let mut inner = self.lock();
        inner.out -= rows.len();
        for row in rows {
            if let Some(table) = inner.days.get_mut(&row.day) {
                table.mark(row.key);
            }
        }
    }

    /// Everything is to be written again: where it was written has lost it, perhaps.
    pub(super) fn again(&self) {
        for table in self.lock().days.values_mut() {
            table.changed = table.cells.keys().cloned().collect();
            table.cells.values_mut().for_each(|cell| cell.changed = true);
        }
    }

    /// Whether everything is written.
    pub(super) fn is_written(&self) -> bool {
        let inner = self.lock();
        inner.out == 0 && inner.days.values().all(|table| table.changed.is_empty())
    }

    /// Days that are over and written.
    pub(super) fn over(&self, now: Duration) -> Vec<Day> {
        let inner = self.lock();
        let over = |(day, table): (&Day, &Table)| (table.changed.is_empty() && now.saturating_sub(table.touched) > QUIET).then_some(*day);
        if inner.out > 0 { Vec::new() } else { inner.days.iter().rev().skip(1).filter_map(over).collect() }
    }

    /// Forgets a day that is over, unless something has been added meanwhile.
    pub(super) fn forget(&self, day: Day) {
        let mut inner = self.lock();
        if inner.days.get(&day).is_some_and(|table| table.changed.is_empty()) {
            inner.days.remove(&day);
        }
    }

    /// How many keys a day has.
    pub(super) fn keys(&self, day: Day) -> usize {
        self.lock().days.get(&day).map_or(0, |table| table.cells.len())
    }

    /// The sums of a day: all, or one consumer's.
    pub(super) fn rows(&self, day: Day, consumer: Option<&str>) -> Option<Rows> {
        let inner = self.lock();
        let table = inner.days.get(&day)?;
        let wanted = |key: &Key| consumer.is_none_or(|name| key.consumer.as_deref() == Some(name));
        let rows = table.cells.iter().filter(|(key, _)| wanted(key)).map(|(key, cell)| (key.clone(), cell.sums));
        Some(Rows { source: table.source.clone(), rows: rows.collect() })
    }
}

impl Inner {
    fn add(&mut self, day: Day, key: Key, sums: &Sums, now: Duration) {
        let all: usize = self.days.values().map(|table| table.cells.len()).sum();
        let table = self.days.entry(day).or_insert_with(|| Table::new(now));
        table.touched = now;
        if let Some(cell) = table.cells.get_mut(&key) {
            cell.sums.add(sums);
            if !cell.changed {
                cell.changed = true;
                table.changed.push(key);
            }
            return;
        }
        let key = table.bounded(key, day, all, self.bounds);
        match table.cells.get_mut(&key) {
            Some(cell) => cell.sums.add(sums),
            None => table.insert(key.clone(), Cell { sums: *sums, changed: false }),
        }
        table.mark(key);
    }
}

impl Table {
    fn new(now: Duration) -> Self {
        let source = format!("{:016x}", fastrand::u64(..)).into();
        Table { source, cells: HashMap::default(), of_consumer: HashMap::default(), changed: Vec::new(), touched: now, said: false }
    }

    fn insert(&mut self, key: Key, cell: Cell) {
        *self.of_consumer.entry(key.consumer.clone()).or_default() += 1;
        self.cells.insert(key, cell);
    }

    fn mark(&mut self, key: Key) {
        if let Some(cell) = self.cells.get_mut(&key)
            && !cell.changed
        {
            cell.changed = true;
            self.changed.push(key);
        }
    }

    /// A new key as it may be counted. Names of models and of consumers can be a client's own words: a consumer who asks for
    /// ever new models fills only its own room, and consumers without end become one.
    fn bounded(&mut self, key: Key, day: Day, all: usize, bounds: Bounds) -> Key {
        let Some(consumer) = key.consumer.clone() else { return key };
        let other: Option<Arc<str>> = Some(OTHER.into());
        let bounded = if all >= bounds.keys {
            Key { consumer: other.clone(), groups: None, model_used: other, ..key }
        } else if self.of_consumer.get(&key.consumer).is_some_and(|n| *n >= bounds.of_consumer) {
            Key { model_used: other, ..key }
        } else {
            return key;
        };
        if !std::mem::replace(&mut self.said, true) {
            tracing::warn!(%day, %consumer, keys = all, "There are too many consumers or models to tell all of them apart in the history of usage; the rest of them is one.");
        }
        bounded
    }
}
