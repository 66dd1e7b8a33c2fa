//! The history of usage: what was used and spent by day, consumer, groups, model and provider. The ledger's thread counts
//! finished requests in memory and has what changed written once a second, to a folder or to Redis; no request waits for it.

mod day;
mod folder;
mod query;
mod replicas;
mod sums;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

pub use day::{Day, NoDay};
pub use query::{By, Error, MOST_ROWS, Query, Report, Row};
pub use sums::{Key, OTHER, Sums};

use crate::config::{Config, Problem, UsageConfig};
use crate::counters::clock::{Clock, System};
use crate::counters::redis;
use crate::ledger::Entry;
use folder::Folder;
use query::Sheet;
use replicas::Replicas;
use sums::{Bounds, Rows, Tables};

/// How much is told apart: keys are a few hundred bytes each.
const BOUNDS: Bounds = Bounds { keys: 100_000, of_consumer: 256 };
/// How many days are kept where nothing is said.
const KEEP: u32 = 400;
/// How many days a client sees of its own at most.
pub const OWN_DAYS: u32 = 90;
/// How long a client waits until others have been told theirs.
const TURN: Duration = Duration::from_secs(2);

/// What was used, in this process or by all replicas.
#[derive(Debug)]
pub struct History {
    tables: Tables,
    place: Place,
    /// Days.
    keep: Arc<AtomicU32>,
    clock: Arc<dyn Clock>,
    /// Clients are told one after the other, so that asking again and again costs no more than a part of one core.
    turn: Semaphore,
}

#[derive(Debug)]
enum Place {
    /// Which, and the right to write to it until the history ends.
    Folder(PathBuf, Mutex<Option<Folder>>),
    Redis(Replicas),
}

/// What is wrong with the section `usage`.
#[must_use]
pub fn check(config: &Config) -> Option<Problem> {
    match &config.usage {
        Some(UsageConfig::Kept(kept)) if kept.keep.is_some_and(|keep| keep.0.as_secs() < day::SECONDS) => Some(Problem::new("usage.keep", "must be at least 1d")),
        _ => None,
    }
}

/// The history that a configuration asks for: the one that there is, if there is one, else a new one. To be called within a
/// runtime, with a configuration that passes [`check`].
///
/// # Errors
/// When it was asked for and cannot be kept.
pub fn renew(running: Option<Arc<History>>, config: &Config) -> Result<Option<Arc<History>>, Problem> {
    let keep = match &config.usage {
        Some(UsageConfig::Off(_)) => return Ok(None),
        // Who only tries the gateway finds no files that nobody asked for.
        None if config.consumers.is_empty() && config.groups.is_empty() => return Ok(None),
        None => KEEP,
        Some(UsageConfig::Kept(kept)) => kept.keep.map_or(KEEP, |keep| u32::try_from(keep.0.as_secs() / day::SECONDS).unwrap_or(u32::MAX)),
    };
    if let Some(running) = running {
        running.keep.store(keep, Relaxed);
        return Ok(Some(running));
    }
    let opened = match &config.redis {
        Some(redis) => History::in_redis(&redis::Settings::new(redis.url.expose()), keep, Arc::new(System::default())).map_err(|e| Problem::new("redis.url", e)),
        None => {
            let folder = config.data.clone().unwrap_or_else(|| PathBuf::from("./data")).join("usage");
            let opened = History::in_folder(&folder, keep, Arc::new(System::default()));
            opened.map_err(|e| Problem::new("data", format!("the history of usage cannot be kept: {e}; put `data` elsewhere, or say `usage: off`")))
        }
    };
    match opened {
        Ok(history) => Ok(Some(Arc::new(history))),
        // What nobody asked for in words is no reason to stand still.
        Err(problem) if config.usage.is_none() => {
            tracing::warn!(%problem, "there will be no history of usage");
            Ok(None)
        }
        Err(problem) => Err(problem),
    }
}

impl History {
    fn in_folder(path: &Path, keep: u32, clock: Arc<dyn Clock>) -> Result<Self, folder::Error> {
        let folder = Folder::open(path, Day::at(clock.wall() / 1000))?;
        Ok(Self::new(Tables::new(BOUNDS), |_, _| Place::Folder(path.to_owned(), Mutex::new(Some(folder))), keep, clock))
    }

    fn in_redis(settings: &redis::Settings, keep: u32, clock: Arc<dyn Clock>) -> Result<Self, String> {
        // The details name the fault and not the URL, which may hold a password.
        let client = redis::client(&settings.url, settings.connect).map_err(|error| error.details().to_owned())?;
        let (prefix, told) = (settings.prefix.clone(), clock.clone());
        Ok(Self::new(Tables::new(BOUNDS), move |tables, keep| Place::Redis(Replicas::start(client, &prefix, tables, keep, told)), keep, clock))
    }

    fn new(tables: Tables, place: impl FnOnce(Tables, Arc<AtomicU32>) -> Place, keep: u32, clock: Arc<dyn Clock>) -> Self {
        let keep = Arc::new(AtomicU32::new(keep));
        History { place: place(tables.clone(), keep.clone()), tables, keep, clock, turn: Semaphore::new(1) }
    }

    /// Counts a finished request. Strangers have used nothing.
    pub fn observe(&self, entry: &Entry) {
        let day = Day::at(entry.time as u64);
        if entry.consumer.is_some() && self.begin(day) {
            self.tables.observe(day, entry, self.clock.steady());
            self.news();
        }
    }

    /// Counts entries that did not get here.
    pub fn lost(&self, count: u64) {
        let day = self.today();
        if self.begin(day) {
            self.tables.lost(day, count, self.clock.steady());
            self.news();
        }
    }

    /// Has what is known of a day in memory, so that something can be added to it. Not possible once the history has ended.
    fn begin(&self, day: Day) -> bool {
        if matches!(self.place, Place::Redis(_)) || self.tables.has(day) {
            return true;
        }
        let known = self.folder(|folder| folder.load(day));
        known.map(|known| self.tables.begin(day, known, self.clock.steady())).is_some()
    }

    /// Does something with the folder, if there is one and the history has not ended.
    fn folder<T>(&self, with: impl FnOnce(&mut Folder) -> T) -> Option<T> {
        let Place::Folder(_, folder) = &self.place else { return None };
        folder.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(with)
    }

    fn news(&self) {
        if let Place::Redis(replicas) = &self.place {
            replicas.news();
        }
    }

    /// Does what is due. To be called now and then, by whoever calls [`Self::observe`].
    pub fn tick(&self) {
        self.folder(|folder| folder.tick(&self.tables, self.clock.steady(), self.today(), self.keep.load(Relaxed)));
    }

    /// Has everything counted so far with the system, if it is kept in files.
    pub fn flush(&self) {
        self.folder(|folder| folder.write(&self.tables));
    }

    /// Brings everything counted so far to where it is kept, within this time, and ends the history.
    pub async fn close(self: Arc<Self>, within: Duration) {
        let all = match &self.place {
            Place::Redis(replicas) => replicas.close(&self.tables, within).await,
            Place::Folder(..) => {
                let history = self.clone();
                let ended = tokio::time::timeout(within, tokio::task::spawn_blocking(move || history.end())).await;
                ended.is_ok() && self.tables.is_written()
            }
        };
        if !all {
            tracing::warn!("not all of the history of usage could be brought to where it is kept");
        }
    }

    fn end(&self) {
        self.flush();
        if let Place::Folder(_, folder) = &self.place {
            *folder.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// The day that it is.
    #[must_use]
    pub fn today(&self) -> Day {
        Day::at(self.clock.wall() / 1000)
    }

    /// Answers a question. What finished a moment ago is in it if it finished here; other replicas' is up to a second late.
    ///
    /// # Errors
    /// When there are too many rows, or the folder cannot be read.
    pub async fn report(self: &Arc<Self>, query: Query) -> Result<Report, Error> {
        let first = self.today().before(self.keep.load(Relaxed)).max(query.from);
        match &self.place {
            Place::Redis(replicas) => self.ask(replicas, query, first).await,
            Place::Folder(..) => {
                let history = self.clone();
                let read = tokio::task::spawn_blocking(move || history.read(query, first)).await;
                read.unwrap_or_else(|e| Err(Error::Unreadable(std::io::Error::other(e))))
            }
        }
    }

    /// What one consumer has used in the last days, by day and model. `None` if too many ask.
    ///
    /// # Errors
    /// As [`Self::report`].
    pub async fn own(self: &Arc<Self>, consumer: &Arc<str>, days: u32) -> Option<Result<Report, Error>> {
        let Ok(Ok(_turn)) = tokio::time::timeout(TURN, self.turn.acquire()).await else { return None };
        let to = self.today();
        let from = to.before(days.clamp(1, OWN_DAYS) - 1);
        Some(self.report(Query { from, to, by: vec![By::Day, By::Model], consumer: Some(consumer.clone()) }).await)
    }

    /// From the folder, and from memory what is there.
    fn read(&self, query: Query, first: Day) -> Result<Report, Error> {
        let Place::Folder(path, _) = &self.place else { return Ok(Sheet::new(query).finish(Vec::new())) };
        let (consumer, asked) = (query.consumer.clone(), first..=query.to);
        let mut sheet = Sheet::new(query);
        let mut gaps = Vec::new();
        let mut days = folder::days(path).map_err(Error::Unreadable)?;
        days.extend(self.tables.days());
        for day in days.into_iter().filter(|day| asked.contains(day)) {
            let text: Arc<str> = day.to_string().into();
            if let Some(Rows { rows, .. }) = self.tables.rows(day, consumer.as_deref()) {
                rows.iter().try_for_each(|(key, sums)| sheet.add(&text, key, sums))?;
                continue;
            }
            match folder::read(path, day, consumer.as_deref()) {
                Ok(found) => {
                    damaged(&mut gaps, &text, found.damaged);
                    found.sums.iter().try_for_each(|(key, sums)| sheet.add(&text, key, sums))?;
                }
                Err(error) => gaps.push(format!("{day} cannot be read: {error}")),
            }
        }
        Ok(sheet.finish(gaps))
    }

    /// From Redis, and from memory what this replica knows better.
    async fn ask(&self, replicas: &Replicas, query: Query, first: Day) -> Result<Report, Error> {
        let consumer = query.consumer.clone();
        // Replicas whose clocks are ahead count for tomorrow already.
        let last = self.tables.days().into_iter().fold(self.today().next(), Day::max).min(query.to);
        let mut sheet = Sheet::new(query);
        let (mut gaps, mut away) = (Vec::new(), false);
        for day in first.to(last) {
            let text: Arc<str> = day.to_string().into();
            let found = if away { None } else { replicas.read(day, consumer.as_deref()).await };
            let (source, rows) = self.tables.rows(day, consumer.as_deref()).map(|here| (here.source, here.rows)).unzip();
            if let Some(found) = found {
                damaged(&mut gaps, &text, found.damaged);
                found.said.iter().filter(|(from, ..)| Some(from) != source.as_ref()).try_for_each(|(_, key, sums)| sheet.add(&text, key, sums))?;
            } else {
                away = true;
            }
            rows.into_iter().flatten().try_for_each(|(key, sums)| sheet.add(&text, &key, &sums))?;
        }
        if away {
            gaps.push("Redis does not answer: from then on only what this replica has in memory is in here".into());
        }
        Ok(sheet.finish(gaps))
    }
}

fn damaged(gaps: &mut Vec<String>, day: &str, lines: usize) {
    if lines > 0 {
        gaps.push(format!("{lines} lines of {day} cannot be read"));
    }
}
