//! Keys made at run time, for consumers of the configuration: made, replaced and revoked by an operator, kept in a file or in
//! Redis, and found without a lock. Only their hashes are kept.

mod file;
mod table;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::counters::Unavailable;
use crate::counters::shelf::{Contents, Shelf};
use crate::principal::{Stranger, hash_hex};
use crate::secret::Secret;

use file::KeyFile;
use table::{Change, Table};
pub use table::{Life, MadeKey};

/// How long an ended key is still listed.
const REMEMBERED: Duration = Duration::from_secs(30 * 86_400);
/// How often a change is tried again when other replicas change keys at the same moment.
const TRIES: usize = 8;

/// All keys made at run time.
#[derive(Debug, Default)]
pub struct Keyring {
    table: ArcSwap<Table>,
    place: Place,
    /// One change at a time.
    turn: tokio::sync::Mutex<()>,
    /// Whether Redis has been seen to be away: said once.
    away: AtomicBool,
}

/// Where keys are kept.
#[derive(Debug)]
enum Place {
    /// Nowhere, and why: none can be made.
    Nowhere(String),
    /// In a file of ours, and why it is not to be changed, if it is not.
    File(Arc<KeyFile>, Option<String>),
    Redis(Shelf),
}

/// What a new key is to be.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Whose it is.
    pub consumer: String,
    /// What it is called, for people.
    pub name: Option<String>,
    /// When it ends, in seconds since 1970.
    pub expires: Option<u64>,
}

/// A key that has just been made. The key itself is nowhere else.
#[derive(Debug)]
pub struct Fresh {
    /// What is kept of it.
    pub made: Arc<MadeKey>,
    /// What the client shows.
    pub key: Secret,
}

/// Why keys cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no place to keep them.
    #[error("keys cannot be made here: {0}")]
    Nowhere(String),
    /// There is no such key.
    #[error("no key \"{0}\" was made at run time; keys of the configuration are changed there")]
    Unknown(String),
    /// It has ended.
    #[error("the key \"{0}\" has ended: make a new one")]
    Ended(String),
    /// Redis does not answer.
    #[error("Redis cannot be reached: the keys may have been changed or not; look at the list before you try again")]
    Away,
    /// Others change keys all the time.
    #[error("other replicas change keys at the same moment; try again")]
    Busy,
    /// The file cannot be read or written.
    #[error("{path}: {cause}")]
    Io {
        /// Which.
        path: String,
        /// Why.
        cause: std::io::Error,
    },
    /// The file is damaged.
    #[error("{path} is damaged ({cause}): restore it, or move it away, and all keys that were made at run time are gone")]
    Damaged {
        /// Which.
        path: String,
        /// How.
        cause: String,
    },
    /// Another process has the file.
    #[error("the keys in {0} belong to another process that runs: give each its own `data`, or share them by `redis`")]
    InUse(String),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

impl Default for Place {
    fn default() -> Self {
        Place::Nowhere("nothing is kept by this process".into())
    }
}

impl From<Unavailable> for Error {
    fn from(_: Unavailable) -> Self {
        Error::Away
    }
}

impl Keyring {
    /// The keys of a folder. Where `why_not` says that none may be made, those that are there hold nevertheless.
    ///
    /// # Errors
    /// When the file is damaged, or there are keys in it and another process has it.
    pub fn open(folder: &Path, why_not: Option<String>) -> Result<Arc<Self>, Error> {
        let place = match why_not {
            Some(why) if !file::is_there(folder) => Place::Nowhere(why),
            // Taken before it is read: what is read stays true for as long as it is ours.
            why => match KeyFile::take(folder) {
                Ok(file) => Place::File(Arc::new(file), why),
                // A folder that cannot be written is no reason to lock out who has a key already.
                Err(Error::Io { path, cause }) => Place::Nowhere(format!("{path}: {cause}")),
                // Keys that another process may revoke at any time must not be read once and believed for ever.
                Err(error @ Error::InUse(_)) if !file::is_there(folder) => Place::Nowhere(error.to_string()),
                Err(error) => return Err(error),
            },
        };
        Ok(Self::new(file::read(folder)?, place))
    }

    /// The keys of all replicas. They are known from the first [`Keyring::refresh`] on that succeeds.
    #[must_use]
    pub fn shared(shelf: Shelf) -> Arc<Self> {
        Self::new(Table::default(), Place::Redis(shelf))
    }

    fn new(table: Table, place: Place) -> Arc<Self> {
        Arc::new(Keyring { table: ArcSwap::from_pointee(table), place, turn: tokio::sync::Mutex::default(), away: AtomicBool::new(false) })
    }

    /// Whose key this is, by its hash.
    ///
    /// # Errors
    /// When it is nobody's, or has ended.
    pub fn find(&self, hash: &[u8; 32], now: Duration) -> Result<Arc<str>, Stranger> {
        let table = self.table.load();
        let key = table.by_hash.get(hash).ok_or(Stranger::Unknown)?;
        match key.life(now.as_secs()) {
            Life::Active => Ok(key.consumer.clone()),
            Life::Expired | Life::Revoked => Err(Stranger::Expired),
        }
    }

    /// All keys that are known, the ended ones of the last weeks too, oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<MadeKey>> {
        let mut all: Vec<_> = self.table.load().by_id.values().cloned().collect();
        all.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        all
    }

    /// Makes a key.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub async fn make(self: &Arc<Self>, wanted: Wanted, now: u64) -> Result<Fresh, Error> {
        let fresh = Fresh::new(wanted, now)?;
        let made = fresh.made.clone();
        self.change(now, move |_| Ok(vec![made.clone()])).await?;
        Ok(fresh)
    }

    /// Ends a key at once. One that has ended already stays as it is.
    ///
    /// # Errors
    /// When there is no such key, or it cannot be kept.
    pub async fn revoke(self: &Arc<Self>, id: &str, now: u64) -> Result<Arc<MadeKey>, Error> {
        let id = id.to_owned();
        let revoke = move |table: &Table| {
            let key = table.get(&id)?;
            let revoked = Some(key.revoked.unwrap_or(now));
            Ok(vec![Arc::new(MadeKey { revoked, ..(**key).clone() })])
        };
        let mut changed = self.change(now, revoke).await?;
        changed.pop().ok_or(Error::Busy)
    }

    /// Puts a new key in the place of one, which ends after `grace`. The new one has this end, or else lives as long as the old
    /// one was made for.
    ///
    /// # Errors
    /// When there is no such key, or it has ended, or the new one cannot be kept.
    pub async fn rotate(self: &Arc<Self>, id: &str, grace: Duration, expires: Option<u64>, now: u64) -> Result<Fresh, Error> {
        let old = self.current(id, now).await?;
        let for_as_long = old.expires.map(|end| now + end.saturating_sub(old.created));
        let fresh = Fresh::new(Wanted { consumer: old.consumer.to_string(), name: old.name.clone(), expires: expires.or(for_as_long) }, now)?;
        let (made, id) = (fresh.made.clone(), id.to_owned());
        let rotate = move |table: &Table| {
            let old = table.get(&id)?;
            if old.life(now) != Life::Active {
                return Err(Error::Ended(id.clone()));
            }
            let end = now.saturating_add(grace.as_secs());
            let retired = Some(old.retired.map_or(end, |before| before.min(end)));
            Ok(vec![made.clone(), Arc::new(MadeKey { retired, ..(**old).clone() })])
        };
        self.change(now, rotate).await?;
        Ok(fresh)
    }

    /// A key as it stands now, in Redis too.
    async fn current(&self, id: &str, now: u64) -> Result<Arc<MadeKey>, Error> {
        if let Place::Redis(shelf) = &self.place {
            let _turn = self.turn.lock().await;
            self.read(shelf).await?;
        }
        let key = self.table.load().get(id)?.clone();
        if key.life(now) == Life::Active { Ok(key) } else { Err(Error::Ended(id.to_owned())) }
    }

    /// Makes a change, keeps it, and lets it hold from then on, in this order. What has begun is finished, even if who asked
    /// for it has gone.
    async fn change(self: &Arc<Self>, now: u64, act: impl Act + 'static) -> Result<Vec<Arc<MadeKey>>, Error> {
        let this = self.clone();
        let task = tokio::spawn(async move {
            let _turn = this.turn.lock().await;
            match &this.place {
                Place::Nowhere(why) | Place::File(_, Some(why)) => Err(Error::Nowhere(why.clone())),
                Place::File(file, None) => {
                    let table = this.table.load_full();
                    let change = Change { put: act(&table)?, gone: table.older_than(now.saturating_sub(REMEMBERED.as_secs())) };
                    let (next, file) = (table.with(&change, String::new()), file.clone());
                    let written = tokio::task::spawn_blocking(move || file.write(&next).map(|()| next)).await;
                    this.table.store(Arc::new(written.map_err(|_| Error::Busy)??));
                    Ok(change.put)
                }
                Place::Redis(shelf) => this.change_shared(shelf, now, &act).await,
            }
        });
        task.await.unwrap_or(Err(Error::Busy))
    }

    async fn change_shared(&self, shelf: &Shelf, now: u64, act: &impl Act) -> Result<Vec<Arc<MadeKey>>, Error> {
        for _ in 0..TRIES {
            self.read(shelf).await?;
            let table = self.table.load_full();
            let change = Change { put: act(&table)?, gone: table.older_than(now.saturating_sub(REMEMBERED.as_secs())) };
            let fields: Vec<(String, String)> = change.put.iter().filter_map(|key| Some((key.id.clone(), serde_json::to_string(&**key).ok()?))).collect();
            if let Some(version) = shelf.put(&table.version, &fields, &change.gone).await? {
                self.table.store(Arc::new(table.with(&change, version)));
                return Ok(change.put);
            }
        }
        Err(Error::Busy)
    }

    async fn read(&self, shelf: &Shelf) -> Result<(), Unavailable> {
        if let Some(Contents { version, fields }) = shelf.read(&self.table.load().version).await? {
            self.table.store(Arc::new(table::from_shelf(version, &fields)));
        }
        Ok(())
    }

    /// Whether no key was ever made, as far as is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.load().by_id.is_empty()
    }

    /// Whether the keys are shared with other replicas, and so have to be read again and again.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self.place, Place::Redis(_))
    }

    /// Reads what other replicas have changed. While Redis is away the keys known so far hold.
    pub async fn refresh(&self) {
        let Place::Redis(shelf) = &self.place else { return };
        let _turn = self.turn.lock().await;
        let gone = self.read(shelf).await.is_err();
        if gone != self.away.swap(gone, Relaxed) {
            match gone {
                true => tracing::warn!("Redis does not say which keys were made at run time; those known so far hold"),
                false => tracing::info!("Redis says which keys were made at run time"),
            }
        }
    }
}

/// How many keys in a folder would let somebody in. Where keys are kept in Redis, nobody asks for them there.
#[must_use]
pub fn left_in(folder: &Path, now: u64) -> usize {
    file::read(folder).map_or(0, |table| table.by_id.values().filter(|key| key.life(now) == Life::Active).count())
}

/// What is to become of the keys as they stand; asked again where they have changed meanwhile.
trait Act: Fn(&Table) -> Result<Vec<Arc<MadeKey>>, Error> + Send + Sync {}
impl<F: Fn(&Table) -> Result<Vec<Arc<MadeKey>>, Error> + Send + Sync> Act for F {}

impl Fresh {
    /// A key of 256 random bits.
    fn new(wanted: Wanted, now: u64) -> Result<Self, Error> {
        let key = new_key()?;
        // An id names a key and is no secret; 64 bits are enough never to name two.
        let id = format!("key_{:016x}", fastrand::u64(..));
        let Wanted { consumer, name, expires } = wanted;
        let made = MadeKey { id, consumer: consumer.into(), name, sha256: hash_hex(key.expose()), created: now, expires, retired: None, revoked: None };
        Ok(Fresh { made: Arc::new(made), key })
    }
}

/// A new key: 256 random bits behind the gateway's mark.
///
/// # Errors
/// When the system gives no random numbers.
pub fn new_key() -> Result<Secret, Error> {
    let mut random = [0u8; 32];
    rustls::crypto::ring::default_provider().secure_random.fill(&mut random).map_err(|_| Error::Random)?;
    Ok(Secret::new(format!("tv-{}", base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, random))))
}
