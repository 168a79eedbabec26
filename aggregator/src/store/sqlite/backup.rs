//! A consistent copy of a database while an aggregator works on it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use sqlx::{ConnectOptions as _, Connection as _};

use super::open::read_options;
use crate::store::{StoreError, StoreResult};

/// Copies the database at `database` into the new file `out`: one moment of it, compacted, whole or not at all. It takes
/// no lock that the writer would wait for. Refuses to overwrite.
pub async fn backup(database: &Path, out: &Path) -> StoreResult<()> {
    check_place(database, out)?;
    let partial = partial(out);
    let copied = copy(database, &partial).await.and_then(|()| {
        keep(&partial, out).map_err(|error| {
            StoreError::Unavailable(format!("could not write {}: {error}", out.display()))
        })
    });
    if copied.is_err() {
        // There may be nothing to remove, and the first failure is the one to tell.
        let _ = fs::remove_file(&partial);
    }
    copied
}

/// Whether there is something to copy, and nothing that would be overwritten.
pub(super) fn check_place(database: &Path, out: &Path) -> StoreResult<()> {
    if !database.is_file() {
        let missing = format!(
            "there is no database at {}: check --database-url",
            database.display()
        );
        return Err(StoreError::Unavailable(missing));
    }
    if out.exists() {
        let there = format!("{} exists already: choose another file", out.display());
        return Err(StoreError::Refused(there));
    }
    Ok(())
}

async fn copy(database: &Path, partial: &Path) -> StoreResult<()> {
    // Left by a backup that was killed.
    let _ = fs::remove_file(partial);
    let target = partial.to_str().ok_or_else(|| {
        StoreError::Refused("the name of the backup must be UTF-8: choose another file".into())
    })?;
    let mut source = read_options(database).connect().await?;
    sqlx::query("VACUUM INTO $1")
        .bind(target)
        .execute(&mut source)
        .await?;
    source.close().await?;
    Ok(())
}

/// Makes the copy survive a crash under its final name.
pub(super) fn keep(partial: &Path, out: &Path) -> io::Result<()> {
    File::open(partial)?.sync_all()?;
    fs::rename(partial, out)?;
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Where it is written until it is whole.
pub(super) fn partial(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}
