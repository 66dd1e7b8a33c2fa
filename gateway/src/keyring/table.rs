//! The keys that are known at a moment, by hash and by id, and how one table comes of another.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::principal::unhex;

/// What is kept of a key.
// An unknown field may say that the key is worth less than it seems: who cannot read it does not let it in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MadeKey {
    /// Names it; no secret.
    pub id: String,
    /// Whose it is.
    pub consumer: Arc<str>,
    /// What it is called, for people.
    pub name: Option<String>,
    /// Hash of the key, in hex digits.
    pub sha256: String,
    /// When it was made, in seconds since 1970 as all times here.
    pub created: u64,
    /// When its time is over.
    pub expires: Option<u64>,
    /// When it ends because another was put in its place.
    pub retired: Option<u64>,
    /// When it was revoked.
    pub revoked: Option<u64>,
}

/// Whether a key lets its consumer in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It does.
    Active,
    /// Its time is over.
    Expired,
    /// It was ended by hand.
    Revoked,
}

impl MadeKey {
    /// Whether it lets its consumer in.
    #[must_use]
    pub fn life(&self, now: u64) -> Life {
        match (self.revoked, self.ends()) {
            (Some(_), _) => Life::Revoked,
            (None, Some(end)) if now >= end => Life::Expired,
            _ => Life::Active,
        }
    }

    /// When it ends or has ended, whichever way comes first.
    #[must_use]
    pub fn ends(&self) -> Option<u64> {
        [self.expires, self.retired, self.revoked].into_iter().flatten().min()
    }
}

/// Keys that are made or changed, and ids of those that are forgotten.
pub(super) struct Change {
    pub(super) put: Vec<Arc<MadeKey>>,
    pub(super) gone: Vec<String>,
}

/// All keys.
#[derive(Debug, Default, Clone)]
pub(super) struct Table {
    /// What Redis calls this state of affairs.
    pub(super) version: String,
    pub(super) by_id: BTreeMap<String, Arc<MadeKey>>,
    pub(super) by_hash: HashMap<[u8; 32], Arc<MadeKey>>,
}

impl Table {
    /// A table of these keys.
    ///
    /// # Errors
    /// What is wrong with them: two with one id or one hash, or a hash that is none.
    pub(super) fn new(keys: impl IntoIterator<Item = MadeKey>) -> Result<Self, String> {
        let mut table = Table::default();
        for key in keys {
            let key = Arc::new(key);
            let hash = unhex(&key.sha256).ok_or_else(|| format!("the hash of {} is not 64 hex digits", key.id))?;
            if table.by_hash.insert(hash, key.clone()).is_some() || table.by_id.insert(key.id.clone(), key.clone()).is_some() {
                return Err(format!("{} is there twice", key.id));
            }
        }
        Ok(table)
    }

    pub(super) fn get(&self, id: &str) -> Result<&Arc<MadeKey>, Error> {
        self.by_id.get(id).ok_or_else(|| Error::Unknown(id.to_owned()))
    }

    /// Ids of the keys that ended before this moment.
    pub(super) fn older_than(&self, moment: u64) -> Vec<String> {
        self.by_id.values().filter(|key| key.ends().is_some_and(|end| end < moment)).map(|key| key.id.clone()).collect()
    }

    /// This table with a change in it.
    pub(super) fn with(&self, change: &Change, version: String) -> Self {
        let mut next = Table { version, ..self.clone() };
        for id in &change.gone {
            if let Some(key) = next.by_id.remove(id) {
                next.by_hash.retain(|_, other| other.id != key.id);
            }
        }
        for key in &change.put {
            next.by_id.insert(key.id.clone(), key.clone());
            if let Some(hash) = unhex(&key.sha256) {
                next.by_hash.insert(hash, key.clone());
            }
        }
        next
    }
}

/// The table that Redis has. An entry that cannot be read lets nobody in, and does not keep others out.
pub(super) fn from_shelf(version: String, fields: &[(String, String)]) -> Table {
    let mut table = Table { version, ..Table::default() };
    for (id, text) in fields {
        let key = match serde_json::from_str::<MadeKey>(text) {
            Ok(key) => Arc::new(key),
            Err(error) => {
                tracing::error!(id, %error, "a key in Redis cannot be read; it lets nobody in");
                continue;
            }
        };
        let Some(hash) = unhex(&key.sha256).filter(|_| key.id == *id) else {
            tracing::error!(id, "a key in Redis has no hash, or another id than its field; it lets nobody in");
            continue;
        };
        table.by_hash.insert(hash, key.clone());
        table.by_id.insert(id.clone(), key);
    }
    table
}
