//! SQLite's result codes as what the caller can do about them.

use super::open::MEND;
use crate::store::StoreError;

/// Primary result codes. Source: sqlite3.h.
mod code {
    pub(super) const BUSY: i32 = 5;
    pub(super) const LOCKED: i32 = 6;
    pub(super) const READONLY: i32 = 8;
    pub(super) const IOERR: i32 = 10;
    pub(super) const CORRUPT: i32 = 11;
    pub(super) const FULL: i32 = 13;
    pub(super) const CANTOPEN: i32 = 14;
    pub(super) const NOTADB: i32 = 26;
}

/// `code`: SQLite's extended result code.
pub(in crate::store) fn by_code(code: Option<&str>, text: String) -> StoreError {
    let extended = code.and_then(|code| code.parse::<i32>().ok());
    match extended.map(|code| code & 0xff) {
        Some(code::BUSY | code::LOCKED) => StoreError::Unavailable(text),
        Some(code::IOERR) => StoreError::Unavailable(format!(
            "{text}: look whether the volume of the database is full, beyond its quota, or failing; then it goes on by itself"
        )),
        Some(code::FULL) => StoreError::Full(text),
        Some(code::READONLY) => StoreError::ReadOnly(text),
        Some(code::CANTOPEN) => StoreError::Unavailable(format!(
            "{text}: check that the folder exists and that this user may write to it"
        )),
        Some(code::CORRUPT) => StoreError::Corrupt(format!("{text}: {MEND}")),
        Some(code::NOTADB) => {
            StoreError::Corrupt(format!("{text}: move the file away, or restore a backup"))
        }
        _ => StoreError::Refused(text),
    }
}
