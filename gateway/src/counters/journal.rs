//! What purses have used, kept in a folder so that a restart refills nothing.
//!
//! A file of records is appended to: each says what the buckets of one purse hold, not what was added, so that reading one
//! twice or missing one but the last changes nothing. A thread of its own writes and syncs what changed in the last 100 ms,
//! and sleeps while nothing does; when the file has grown it is written anew and swapped in. `kill -9` loses 100 ms at most.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::clock::Clock;
use super::memory::{Account, Accounts};
use super::window::Saved;

const FILE: &str = "purses.journal";
const MAGIC: &[u8] = b"trivium purses 1\n";
/// Longer than any record; a length above it is damage.
const LONGEST: usize = 1 << 20;
/// A file is not written anew before it has this size.
const SMALL: u64 = 1 << 20;

/// Where and how to keep counters.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A folder of this process alone; made if it is not there.
    pub folder: PathBuf,
    /// What to do with a damaged file.
    pub on_corrupt: OnCorrupt,
    /// How long settled amounts may wait to be written.
    pub interval: Duration,
}

impl Settings {
    /// The usual settings for a folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), on_corrupt: OnCorrupt::default(), interval: Duration::from_millis(100) }
    }
}

/// What to do with a damaged file. A last record that was cut off is no damage: that is what a crash leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnCorrupt {
    /// Put it aside with an error in the log, and go on with every record in it that is whole.
    #[default]
    Salvage,
    /// Leave it where it is and do not start.
    Refuse,
}

/// Why the counters cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder cannot be read or written.
    #[error("counters in {}: {cause}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Another process has it.
    #[error("the counters in {} are in use by another process", .0.display())]
    InUse(PathBuf),
    /// The file is damaged, and damage is not to be passed over.
    #[error("{} is damaged at byte {at}: restore it, or move it away to start with empty counters", path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// Where the first damage is.
        at: usize,
    },
}

/// What one purse has used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) key: Arc<str>,
    /// Whether what is not in here is forgotten.
    pub(super) whole: bool,
    pub(super) saved: Vec<Saved>,
}

/// The thread that writes.
#[derive(Debug)]
pub(super) struct Journal {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    wake: Condvar,
    written: Condvar,
}

#[derive(Debug, Default)]
struct Inbox {
    changed: Vec<Arc<Account>>,
    /// How often somebody asked for everything to be written, and up to which of these it was.
    asked: u64,
    served: u64,
    stop: bool,
}

impl Journal {
    pub(super) fn open(settings: &Settings, accounts: Arc<Accounts>, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let mut writer = Writer::open(settings, accounts, clock)?;
        let (shared, interval) = (Arc::<Shared>::default(), settings.interval);
        let theirs = shared.clone();
        let run = move || while theirs.turn(&mut writer, interval) {};
        let thread = std::thread::Builder::new().name("purses".into()).spawn(run).map_err(|cause| Error::Io { path: settings.folder.clone(), cause })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// An account has changes to write.
    pub(super) fn tell(&self, account: Arc<Account>) {
        let mut inbox = self.shared.lock();
        inbox.changed.push(account);
        if inbox.changed.len() == 1 {
            self.shared.wake.notify_one();
        }
    }

    /// Has everything told so far on disk, within this time.
    pub(super) fn flush(&self, within: Duration) -> bool {
        let mut inbox = self.shared.lock();
        inbox.asked += 1;
        let mine = inbox.asked;
        self.shared.wake.notify_one();
        let waited = self.shared.written.wait_timeout_while(inbox, within, |inbox| inbox.served < mine);
        let (inbox, _) = waited.unwrap_or_else(PoisonError::into_inner);
        inbox.served >= mine
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("The thread that keeps the counters has died; what was settled last may be lost.");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for changes, lets more of them come together and writes them. Says whether to go on.
    fn turn(&self, writer: &mut Writer, interval: Duration) -> bool {
        let mut inbox = self.lock();
        while inbox.changed.is_empty() && inbox.asked == inbox.served && !inbox.stop && !writer.failing {
            inbox = self.wake.wait(inbox).unwrap_or_else(PoisonError::into_inner);
        }
        let pause = if writer.failing { interval.max(Duration::from_secs(1)) } else { interval };
        let until = Instant::now() + pause;
        loop {
            let rest = until.saturating_duration_since(Instant::now());
            // Who asks again and again on a full disk waits like the rest.
            if rest.is_zero() || inbox.stop || (inbox.asked > inbox.served && !writer.failing) {
                break;
            }
            inbox = self.wake.wait_timeout(inbox, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
        let (changed, asked, stop) = (std::mem::take(&mut inbox.changed), inbox.asked, inbox.stop);
        drop(inbox);
        if writer.write(&changed) {
            self.lock().served = asked;
            self.written.notify_all();
        }
        !stop
    }
}

/// The file.
#[derive(Debug)]
struct Writer {
    folder: PathBuf,
    file: File,
    /// Its size, and the size at which it is written anew.
    size: u64,
    enough: u64,
    /// Whether the last write failed: then half a record may stand at the end, and the file must be written anew.
    failing: bool,
    accounts: Arc<Accounts>,
    clock: Arc<dyn Clock>,
    /// Held for as long as the folder is ours.
    _lock: File,
}

impl Writer {
    fn open(settings: &Settings, accounts: Arc<Accounts>, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let folder = settings.folder.clone();
        let path = folder.join(FILE);
        let fail = |cause| Error::Io { path: path.clone(), cause };
        fs::create_dir_all(&folder).map_err(fail)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(folder.join("purses.lock")).map_err(fail)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Error::InUse(folder.clone()),
            TryLockError::Error(cause) => fail(cause),
        })?;
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(fail(error)),
        };
        let (saved, damage) = read(&bytes);
        match damage {
            Damage::None => {}
            Damage::Torn(at) => tracing::warn!(path = %path.display(), at, "The last record of the counters was cut off; what it said is lost."),
            Damage::Corrupt(at) if settings.on_corrupt == OnCorrupt::Refuse => return Err(Error::Corrupt { path, at }),
            Damage::Corrupt(at) => put_aside(&path, at, saved.len(), clock.wall()).map_err(fail)?,
        }
        accounts.restore(saved);
        let (file, size) = rewrite(&folder, &accounts, clock.wall()).map_err(fail)?;
        Ok(Self { folder, file, size, enough: SMALL.max(size * 4), failing: false, accounts, clock, _lock: lock })
    }

    /// Writes what has changed. A failure is logged when it begins and when it ends.
    fn write(&mut self, changed: &[Arc<Account>]) -> bool {
        let records: Vec<Record> = changed.iter().filter_map(|account| account.take_changes()).collect();
        let done = if self.failing || self.size > self.enough { self.compact() } else { self.append(&records) };
        match done {
            Ok(()) if self.failing => tracing::info!(folder = %self.folder.display(), "The counters are written again."),
            Err(ref error) if !self.failing => tracing::error!(folder = %self.folder.display(), %error, "The counters cannot be written; a restart now would forget what is used."),
            _ => {}
        }
        self.failing = done.is_err();
        !self.failing
    }

    fn append(&mut self, records: &[Record]) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        records.iter().for_each(|record| encode(record, &mut bytes));
        self.file.write_all(&bytes)?;
        self.file.sync_data()?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    fn compact(&mut self) -> io::Result<()> {
        (self.file, self.size) = rewrite(&self.folder, &self.accounts, self.clock.wall())?;
        self.enough = SMALL.max(self.size * 4);
        Ok(())
    }
}

/// Keeps a copy of a damaged file. It is not moved: a crash before the new one is written must not leave none at all.
fn put_aside(path: &Path, at: usize, purses: usize, now: u64) -> io::Result<()> {
    let aside = path.with_extension(format!("corrupt-{now}"));
    fs::copy(path, &aside)?;
    tracing::error!(
        path = %path.display(), aside = %aside.display(), at, purses,
        "The file of counters is damaged. A copy was put aside, and what could be read counts; some purses may have more left than they should."
    );
    Ok(())
}

/// Writes all that counts to a new file and puts it in the place of the old one.
fn rewrite(folder: &Path, accounts: &Accounts, now: u64) -> io::Result<(File, u64)> {
    let mut bytes = MAGIC.to_vec();
    accounts.records(now).iter().for_each(|record| encode(record, &mut bytes));
    let new = folder.join("purses.new");
    let mut file = File::create(&new)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&new, folder.join(FILE))?;
    File::open(folder)?.sync_all()?;
    Ok((file, bytes.len() as u64))
}

/// A record: length and CRC of what follows; whether it is whole; the key's length and the key; starts, ends and amounts.
fn encode(record: &Record, out: &mut Vec<u8>) {
    let head = out.len();
    out.extend_from_slice(&[0; 8]);
    out.push(u8::from(record.whole));
    out.extend_from_slice(&u32::try_from(record.key.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(record.key.as_bytes());
    for Saved { start, forget, amount } in &record.saved {
        out.extend_from_slice(&start.to_le_bytes());
        out.extend_from_slice(&forget.to_le_bytes());
        out.extend_from_slice(&amount.to_le_bytes());
    }
    let length = u32::try_from(out.len() - head - 8).unwrap_or(u32::MAX);
    let crc = crc32fast::hash(&out[head + 8..]);
    out[head..head + 4].copy_from_slice(&length.to_le_bytes());
    out[head + 4..head + 8].copy_from_slice(&crc.to_le_bytes());
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    None,
    /// The file ends within a record that starts here.
    Torn(usize),
    /// There is something here that no crash leaves.
    Corrupt(usize),
}

/// All records that are whole, and the first damage.
fn read(bytes: &[u8]) -> (HashMap<Arc<str>, Vec<Saved>>, Damage) {
    let (purses, damage) = replay(bytes);
    (purses.into_iter().map(|(key, saved)| (key, saved.into_values().collect())).collect(), damage)
}

/// By key, and then by where the bucket starts.
type Replayed = HashMap<Arc<str>, BTreeMap<u64, Saved>>;

fn replay(bytes: &[u8]) -> (Replayed, Damage) {
    let mut purses = Replayed::new();
    let mut damage = Damage::None;
    let mut at = MAGIC.len();
    if !bytes.starts_with(MAGIC) {
        if MAGIC.starts_with(bytes) {
            return (purses, Damage::None);
        }
        (at, damage) = (next(bytes, 0).unwrap_or(bytes.len()), Damage::Corrupt(0));
    }
    while at < bytes.len() {
        if let Some((record, length)) = decode(&bytes[at..]) {
            apply(&mut purses, record);
            at += length;
            continue;
        }
        let found = next(bytes, at + 1);
        let here = if found.is_none() && torn(&bytes[at..]) { Damage::Torn(at) } else { Damage::Corrupt(at) };
        if damage == Damage::None {
            damage = here;
        }
        at = found.unwrap_or(bytes.len());
    }
    (purses, damage)
}

fn apply(purses: &mut Replayed, record: Record) {
    let purse = purses.entry(record.key).or_default();
    if record.whole {
        purse.clear();
    }
    purse.extend(record.saved.into_iter().map(|saved| (saved.start, saved)));
}

/// Where the next whole record starts.
fn next(bytes: &[u8], from: usize) -> Option<usize> {
    (from..bytes.len()).find(|at| decode(&bytes[*at..]).is_some())
}

/// Whether this is what a crash leaves at the end: the beginning of a record, or room that was never written.
fn torn(bytes: &[u8]) -> bool {
    let cut = match number(bytes).map(u32::from_le_bytes) {
        Some(length) => length as usize <= LONGEST && bytes.len() < 8 + length as usize,
        None => true,
    };
    cut || bytes.iter().all(|byte| *byte == 0)
}

fn decode(bytes: &[u8]) -> Option<(Record, usize)> {
    let length = u32::from_le_bytes(number(bytes)?) as usize;
    if !(5..=LONGEST).contains(&length) {
        return None;
    }
    let crc = u32::from_le_bytes(number(&bytes[4..])?);
    let body = bytes.get(8..8 + length)?;
    if crc32fast::hash(body) != crc {
        return None;
    }
    let key_length = u32::from_le_bytes(number(&body[1..])?) as usize;
    let (key, amounts) = body[5..].split_at_checked(key_length)?;
    let mut saved = Vec::with_capacity(amounts.len() / 24);
    for triple in amounts.chunks_exact(24) {
        saved.push(Saved { start: u64::from_le_bytes(number(triple)?), forget: u64::from_le_bytes(number(&triple[8..])?), amount: i64::from_le_bytes(number(&triple[16..])?) });
    }
    Some((Record { key: std::str::from_utf8(key).ok()?.into(), whole: body[0] == 1, saved }, 8 + length))
}

fn number<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.first_chunk().copied()
}
