//! Postgres' SQLSTATEs as what the caller can do about them.

use super::Address;
use crate::store::StoreError;

/// Whole codes. Source: "PostgreSQL Error Codes" in its manual; the first two digits are the class.
mod code {
    pub(super) const DISK_FULL: &str = "53100";
    pub(super) const LOCK_NOT_AVAILABLE: &str = "55P03";
    pub(super) const READ_ONLY_TRANSACTION: &str = "25006";
    pub(super) const IDLE_IN_TRANSACTION: &str = "25P03";
    pub(super) const INSUFFICIENT_PRIVILEGE: &str = "42501";
    pub(super) const NO_PARTITION: &str = "23514";
    pub(super) const DATA_CORRUPTED: &str = "XX001";
    pub(super) const INDEX_CORRUPTED: &str = "XX002";
    pub(super) const NO_DATABASE: &str = "3D000";
}

/// Of a statement. After `Unavailable` the connection is made anew.
pub(in crate::store) fn by_code(code: &str, text: String) -> StoreError {
    match code {
        code::DISK_FULL => StoreError::Full(text),
        code::READ_ONLY_TRANSACTION => StoreError::Unavailable(format!(
            "{text}: the server is a standby, or default_transaction_read_only is on"
        )),
        code::INSUFFICIENT_PRIVILEGE => StoreError::ReadOnly(format!(
            "{text}: let this user own the database and its tables"
        )),
        code::DATA_CORRUPTED | code::INDEX_CORRUPTED => {
            StoreError::Corrupt(format!("{text}: restore a backup"))
        }
        // A day that was made is gone: retention, or a person. Looked up anew, and made again.
        code::NO_PARTITION
        | code::LOCK_NOT_AVAILABLE
        | code::IDLE_IN_TRANSACTION
        | code::NO_DATABASE => StoreError::Unavailable(text),
        _ => match code.get(..2) {
            // Connections, access, rollbacks, resources, operator intervention.
            Some("08" | "28" | "40" | "53" | "57") => StoreError::Unavailable(text),
            Some("58") => StoreError::Unavailable(format!(
                "{text}: look whether the server's volume is failing; then it goes on by itself"
            )),
            _ => StoreError::Refused(text),
        },
    }
}

/// What a server that speaks English says of a connection that is not encrypted; others say it in their own words.
const UNENCRYPTED: &str = "no encryption";

/// What the driver says of a certificate of version 1, such as Citus makes for a server that has none.
const OLD_CERTIFICATE: &str = "UnsupportedCertVersion";

/// Whether it is the server's certificate, or the lack of a common way to encrypt, that keeps us from connecting.
pub(super) fn is_of_certificate(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(why) if why.kind() == std::io::ErrorKind::InvalidData)
}

/// Of connecting, at a start: what only the operator can put right is told apart from what passes.
pub(super) fn of_connecting(address: &Address, error: sqlx::Error) -> StoreError {
    let text = match &error {
        sqlx::Error::Database(database) => database.message().to_owned(),
        other => other.to_string(),
    };
    let code = match &error {
        sqlx::Error::Database(database) => database.code(),
        _ => None,
    };
    match (&error, code.as_deref()) {
        (_, Some(code::NO_DATABASE)) => StoreError::Refused(format!(
            "{text}: make it with `createdb {}`, owned by the user of --database-url",
            address.database()
        )),
        (_, Some(code)) if code.starts_with("28") && text.contains(UNENCRYPTED) => {
            StoreError::Refused(format!(
                "{text}: the server wants encryption; write `sslmode=verify-full` into --database-url, or see its pg_hba.conf"
            ))
        }
        (_, Some(code)) if code.starts_with("28") => StoreError::Refused(format!(
            "{text}: check the user in --database-url, its password (PGPASSFILE, PGPASSWORD or the URL) and the server's pg_hba.conf"
        )),
        (sqlx::Error::Tls(_) | sqlx::Error::Configuration(_), _) => StoreError::Refused(format!(
            "{text}: check `sslmode` and `sslrootcert` in --database-url"
        )),
        (sqlx::Error::Io(why), _) if why.to_string().contains(OLD_CERTIFICATE) => {
            StoreError::Refused(format!(
                "the certificate of {address} is of X.509 version 1, which says too little to be checked: give the server one of version 3, \
                 or write `sslmode=disable` into --database-url where the way there is safe without"
            ))
        }
        (sqlx::Error::Io(why), _) if is_of_certificate(&error) => StoreError::Refused(format!(
            "{why}, of {address}: name the server as its certificate does, and its CA with `sslrootcert=FILE` in --database-url"
        )),
        (sqlx::Error::Io(why), _) => {
            StoreError::Unavailable(format!("could not connect to {address}: {why}"))
        }
        _ => error.into(),
    }
}
