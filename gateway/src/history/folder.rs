//! The history on disk. A line says how the sums of one key stand, not what was added: of two lines about a key the later one
//! counts, so that reading one twice or missing one but the last changes nothing.
//!
//! A day that goes on has lines appended to `DAY.open.jsonl`. When it is over, or when that file has grown long, one line per
//! key goes to `DAY.jsonl`, which replaces both.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use memchr::memmem::Finder;
use serde::{Deserialize, Serialize};

use super::Day;
use super::sums::{Key, Row, Rows, Sums, Tables};

/// A file is not made shorter before it has so many lines.
const LONG: usize = 65_536;
/// How often the file is written at most.
const PACE: Duration = Duration::from_secs(1);
/// How often it is looked whether a day is over.
const LOOK: Duration = Duration::from_secs(60);

/// Why the history cannot be kept on disk.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The folder cannot be read or written.
    #[error("{}: {cause}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Another process has it.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
}

#[derive(Serialize)]
struct LineOut<'a> {
    day: Day,
    key: &'a Key,
    sums: &'a Sums,
}

#[derive(Deserialize)]
struct LineIn {
    key: Key,
    sums: Sums,
}

/// What is known of the file that a day is appended to.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    lines: usize,
    /// Whether its last line may be cut off.
    torn: bool,
}

/// The folder. Only one at a time has it.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    open: HashMap<Day, Open>,
    wrote: Option<Duration>,
    looked: Option<Duration>,
    cleaned: Option<Day>,
    /// Whether the last write failed.
    failing: bool,
    /// Held for as long as the folder is ours.
    _lock: File,
}

impl Folder {
    /// Takes the folder, makes it if it is not there, and ends the days that a crash has left open.
    pub(super) fn open(path: &Path, today: Day) -> Result<Self, Error> {
        let fail = |cause| Error::Io { path: path.to_owned(), cause };
        fs::create_dir_all(path).map_err(fail)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join("lock")).map_err(fail)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Error::InUse(path.to_owned()),
            TryLockError::Error(cause) => fail(cause),
        })?;
        let mut folder = Folder { path: path.to_owned(), open: HashMap::new(), wrote: None, looked: None, cleaned: None, failing: false, _lock: lock };
        for day in days(path).map_err(fail)? {
            if day < today && open_file(path, day).exists() {
                let known = folder.load(day);
                if let Err(error) = folder.replace(day, &known.into_iter().collect::<Vec<_>>()) {
                    tracing::warn!(%day, %error, "A day of the history of usage could not be written anew; it stays as it is.");
                }
            }
        }
        Ok(folder)
    }

    /// What is known of a day that something is to be added to.
    pub(super) fn load(&mut self, day: Day) -> HashMap<Key, Sums> {
        match read(&self.path, day, None) {
            Ok(found) => {
                if found.damaged > 0 {
                    tracing::warn!(%day, lines = found.damaged, "Lines of the history of usage cannot be read; a last one that was cut off is what a crash leaves.");
                }
                self.open.insert(day, found.open);
                found.sums
            }
            Err(error) => {
                // Nothing may be written over it.
                for file in [closed_file(&self.path, day), open_file(&self.path, day)] {
                    let _ = fs::rename(&file, file.with_extension("unreadable"));
                }
                tracing::error!(%day, %error, "A day of the history of usage cannot be read. Its files were put aside, and it begins anew.");
                HashMap::new()
            }
        }
    }

    /// Writes what has changed if it is time for that, ends days that are over, and deletes those that are too old.
    pub(super) fn tick(&mut self, tables: &Tables, now: Duration, today: Day, keep: u32) {
        if self.cleaned != Some(today) {
            self.clean(today.before(keep));
            self.cleaned = Some(today);
        }
        if self.wrote.is_none_or(|then| now.saturating_sub(then) >= PACE) {
            self.wrote = Some(now);
            self.write(tables);
        }
        if self.looked.is_none_or(|then| now.saturating_sub(then) >= LOOK) {
            self.looked = Some(now);
            self.end(tables, now);
        }
    }

    /// Writes what has changed. A failure is logged when it begins and when it ends, and what failed is tried again.
    pub(super) fn write(&mut self, tables: &Tables) {
        let rows = tables.take(usize::MAX);
        let mut result = Ok(());
        let mut rest = rows.as_slice();
        while let Some(first) = rest.first() {
            let (of_day, more) = rest.split_at(rest.partition_point(|row| row.day == first.day));
            let done = self.append(first.day, of_day);
            match &done {
                Ok(()) => tables.written(of_day.len()),
                Err(_) => tables.back(of_day.to_vec()),
            }
            result = result.and(done);
            rest = more;
            self.shorten(first.day, tables);
        }
        match &result {
            Ok(()) if self.failing && !rows.is_empty() => {
                self.failing = false;
                tracing::info!(folder = %self.path.display(), "The history of usage is written again.");
            }
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::error!(folder = %self.path.display(), %error, "The history of usage cannot be written; it is kept in memory and tried again.");
            }
            _ => {}
        }
    }

    fn append(&mut self, day: Day, rows: &[Row]) -> io::Result<()> {
        let open = self.open.entry(day).or_default();
        let mut text = Vec::with_capacity(rows.len() * 256);
        if open.torn {
            text.push(b'\n');
        }
        for row in rows {
            line(&mut text, day, &row.key, &row.sums)?;
        }
        open.torn = true;
        OpenOptions::new().create(true).append(true).open(open_file(&self.path, day))?.write_all(&text)?;
        open.torn = false;
        open.lines += rows.len();
        Ok(())
    }

    /// A file that has many lines about the same keys is written anew.
    fn shorten(&mut self, day: Day, tables: &Tables) {
        let lines = self.open.get(&day).map_or(0, |open| open.lines);
        if lines <= LONG.max(4 * tables.keys(day)) {
            return;
        }
        let Some(Rows { rows, .. }) = tables.rows(day, None) else { return };
        if let Err(error) = self.replace(day, &rows) {
            tracing::warn!(%day, %error, "A day of the history of usage could not be written anew; it goes on as it is.");
            // Not tried again with every write.
            self.open.entry(day).or_default().lines = 0;
        }
    }

    /// Ends the days that are over.
    fn end(&mut self, tables: &Tables, now: Duration) {
        for day in tables.over(now) {
            let Some(Rows { rows, .. }) = tables.rows(day, None) else { continue };
            match self.replace(day, &rows) {
                Ok(()) => tables.forget(day),
                Err(error) => tracing::warn!(%day, %error, "A day of the history of usage could not be ended; that is tried again."),
            }
        }
    }

    /// Puts one line per key in the place of all that there is of a day.
    fn replace(&mut self, day: Day, rows: &[(Key, Sums)]) -> io::Result<()> {
        let new = self.path.join("new");
        let mut file = BufWriter::new(File::create(&new)?);
        for (key, sums) in rows {
            line(&mut file, day, key, sums)?;
        }
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&new, closed_file(&self.path, day))?;
        File::open(&self.path)?.sync_all()?;
        gone(fs::remove_file(open_file(&self.path, day)))?;
        self.open.remove(&day);
        Ok(())
    }

    /// Deletes the days before this one.
    fn clean(&self, first: Day) {
        let result = days(&self.path).and_then(|days| {
            for day in days.into_iter().filter(|day| *day < first) {
                gone(fs::remove_file(closed_file(&self.path, day)))?;
                gone(fs::remove_file(open_file(&self.path, day)))?;
            }
            Ok(())
        });
        if let Err(error) = result {
            tracing::warn!(folder = %self.path.display(), %error, "Old days of the history of usage could not be deleted.");
        }
    }
}

/// A file that is not there need not be deleted.
fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn closed_file(folder: &Path, day: Day) -> PathBuf {
    folder.join(format!("{day}.jsonl"))
}

fn open_file(folder: &Path, day: Day) -> PathBuf {
    folder.join(format!("{day}.open.jsonl"))
}

fn line(out: &mut impl Write, day: Day, key: &Key, sums: &Sums) -> io::Result<()> {
    serde_json::to_writer(&mut *out, &LineOut { day, key, sums })?;
    out.write_all(b"\n")
}

/// The days that there are files of, in order.
pub(super) fn days(folder: &Path) -> io::Result<BTreeSet<Day>> {
    let mut days = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let day = name.to_str().and_then(|name| name.strip_suffix(".jsonl")).map(|name| name.strip_suffix(".open").unwrap_or(name));
        days.extend(day.and_then(|day| day.parse::<Day>().ok()));
    }
    Ok(days)
}

/// What the files of a day say.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) sums: HashMap<Key, Sums>,
    /// Lines that cannot be read.
    pub(super) damaged: usize,
    open: Open,
}

/// Reads a day: everybody, or one consumer.
pub(super) fn read(folder: &Path, day: Day, consumer: Option<&str>) -> io::Result<Found> {
    let mut found = Found::default();
    let wanted = consumer.map(|name| serde_json::to_string(name).map(|name| format!("\"consumer\":{name}"))).transpose()?;
    let wanted = wanted.as_ref().map(Finder::new);
    // The open file first: if it is gone, what was in it is in the other one by now.
    let open = content(&open_file(folder, day))?;
    found.open.torn = open.last().is_some_and(|last| *last != b'\n');
    found.open.lines = memchr::memchr_iter(b'\n', &open).count();
    for bytes in [open, content(&closed_file(folder, day))?] {
        for line in (Lines { bytes: &bytes, wanted: wanted.as_ref() }) {
            match serde_json::from_slice::<LineIn>(line) {
                Ok(LineIn { key, sums }) if consumer.is_none_or(|name| key.consumer.as_deref() == Some(name)) => {
                    let known = found.sums.entry(key).or_default();
                    *known = known.later(sums);
                }
                Ok(_) => {}
                Err(_) => found.damaged += 1,
            }
        }
    }
    Ok(found)
}

fn content(path: &Path) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

/// The lines of a file that hold what is wanted, found without reading the others.
struct Lines<'a, 'n> {
    bytes: &'a [u8],
    wanted: Option<&'a Finder<'n>>,
}

impl<'a> Iterator for Lines<'a, '_> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let at = match self.wanted {
                Some(wanted) => wanted.find(self.bytes)?,
                None => 0,
            };
            let start = memchr::memrchr(b'\n', &self.bytes[..at]).map_or(0, |end| end + 1);
            let end = memchr::memchr(b'\n', &self.bytes[at..]).map_or(self.bytes.len(), |end| at + end);
            let line = &self.bytes[start..end];
            let done = self.bytes.is_empty();
            self.bytes = self.bytes.get(end + 1..).unwrap_or_default();
            if done {
                return None;
            }
            if !line.is_empty() {
                return Some(line);
            }
        }
    }
}
