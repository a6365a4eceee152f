//! Copies the chat of an SQLite file into a new file, while a server may be running on it.
//!
//! The copy is one snapshot. It appears under its name only when it is complete and was read back.

use std::fs::File;
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use tempfile::Builder;

use super::{Address, StoreError, is_postgres, sqlite, sqlite_path};

/// Why no backup was made. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// PostgreSQL has its own program for that.
    #[error(
        "this command copies SQLite files; to back up a PostgreSQL database, run: \
         pg_dump --format=custom --file={0} {1}"
    )]
    Postgres(String, Address),
    /// There is no file to copy.
    #[error("there is no database {0}; use --database to name the server's database")]
    NoDatabase(Address),
    /// A backup never replaces a file.
    #[error("{0} already exists; choose another name")]
    Exists(String),
    /// The copy could not be read back without errors.
    #[error("the copy is damaged ({0}); run “overwire check” on the database")]
    Damaged(String),
    /// The copy, or its temporary file, cannot be written.
    #[error("could not write the copy")]
    Unwritable(#[source] std::io::Error),
    /// The database cannot be read, or the copy not be filled.
    #[error(transparent)]
    Failed(#[from] StoreError),
}

impl From<rusqlite::Error> for BackupError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<std::io::Error> for BackupError {
    fn from(error: std::io::Error) -> Self {
        Self::Unwritable(error)
    }
}

/// Copies the chat to a new file. Returns the size of the copy in bytes.
pub async fn backup(from: &Address, to: &Path) -> Result<u64, BackupError> {
    if is_postgres(from.as_str()) {
        let to = to.display().to_string();
        return Err(BackupError::Postgres(to, from.clone()));
    }
    let path = sqlite::real_path(&sqlite_path(from.as_str())?).map_err(StoreError::from)?;
    if !path.exists() {
        return Err(BackupError::NoDatabase(from.clone()));
    }
    let to = to.to_owned();
    let copied = tokio::task::spawn_blocking(move || copy(&path, &to));
    copied.await.map_err(|_| StoreError::Closed)?
}

fn copy(from: &Path, to: &Path) -> Result<u64, BackupError> {
    let exists = || BackupError::Exists(to.display().to_string());
    if to.symlink_metadata().is_ok() {
        return Err(exists());
    }
    sqlite::recognize(from)?;
    let folder = match to.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    // Only its owner can read it, since it contains hashes of passwords and tokens.
    let part = Builder::new()
        .prefix(".overwire-backup-")
        .tempfile_in(&folder)?;
    {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let source = Connection::open_with_flags(from, flags)?;
        source.busy_timeout(sqlite::BUSY_TIMEOUT)?;
        let mut target = Connection::open(part.path())?;
        // All pages in one step are one snapshot. After each write to the database, several steps would
        // begin again.
        let step = Backup::new(&source, &mut target)?.step(-1)?;
        if step != StepResult::Done {
            return Err(StoreError::failed("another program has locked the database").into());
        }
        // The copy needs no log beside it.
        target.pragma_update(None, "journal_mode", "delete")?;
        target.close().map_err(|(_, error)| error)?;
    }
    let reopened = Connection::open_with_flags(part.path(), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let found: String = reopened.query_row("pragma integrity_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        return Err(BackupError::Damaged(found));
    }
    reopened.close().map_err(|(_, error)| error)?;
    let copy = part.persist_noclobber(to).map_err(|error| {
        match error.error.kind() == std::io::ErrorKind::AlreadyExists {
            true => exists(),
            false => error.error.into(),
        }
    })?;
    copy.sync_all()?;
    File::open(folder)?.sync_all()?;
    Ok(copy.metadata()?.len())
}
