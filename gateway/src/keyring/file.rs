//! The keys in a file: read once at the start, and written whole, on disk before anybody hears of a change.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Error;
use super::table::{MadeKey, Table};
use crate::durable;

const FILE: &str = "keys.json";
const LOCK: &str = "keys.lock";
/// The form of the file.
const VERSION: u32 = 1;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    version: u32,
    keys: Vec<MadeKey>,
}

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    keys: Vec<&'a MadeKey>,
}

/// A file that is ours.
#[derive(Debug)]
pub(super) struct KeyFile {
    path: PathBuf,
    /// Held for as long as the file is ours.
    _lock: File,
}

fn io_error(path: &Path, cause: io::Error) -> Error {
    Error::Io { path: path.display().to_string(), cause }
}

/// Whether there is a file in a folder.
pub(super) fn is_there(folder: &Path) -> bool {
    folder.join(FILE).exists()
}

/// The keys in a folder; none where there is no file.
pub(super) fn read(folder: &Path) -> Result<Table, Error> {
    let path = folder.join(FILE);
    let damaged = |cause: String| Error::Damaged { path: path.display().to_string(), cause };
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Table::default()),
        Err(error) => return Err(io_error(&path, error)),
    };
    let read: Read = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
    if read.version != VERSION {
        return Err(damaged(format!("its form is {}, and this version reads {VERSION}", read.version)));
    }
    Table::new(read.keys).map_err(damaged)
}

impl KeyFile {
    /// Makes the folder if it is not there, and the file in it ours.
    pub(super) fn take(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(FILE);
        fs::create_dir_all(folder).map_err(|e| io_error(folder, e))?;
        let at = folder.join(LOCK);
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&at).map_err(|e| io_error(&at, e))?;
        match lock.try_lock() {
            Ok(()) => Ok(KeyFile { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Error::InUse(folder.display().to_string())),
            Err(TryLockError::Error(error)) => Err(io_error(&at, error)),
        }
    }

    /// Writes a table. When this returns, it is on disk.
    pub(super) fn write(&self, table: &Table) -> Result<(), Error> {
        let fail = |cause: io::Error| io_error(&self.path, cause);
        let mut text = serde_json::to_vec_pretty(&Written { version: VERSION, keys: table.by_id.values().map(|key| &**key).collect() }).map_err(|e| fail(e.into()))?;
        text.push(b'\n');
        durable::replace(&self.path, &text).map_err(fail)
    }
}
