//! Connections: checked, set up, and the writer's under the lock that makes it the only one.

use std::time::Duration;

use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions as _, Executor as _};
use tokio::time::timeout;
use tracing::warn;

use super::Address;
use super::error::{is_of_certificate, of_connecting};
use super::history;
use crate::rollup::STEPS;
use crate::store::migrate::migrate;
use crate::store::{JournalPosition, StoreError, StoreResult};

/// Embedded, oldest first. To add one: a file with the next number, and a line here.
const MIGRATIONS: [(&str, &str); 5] = [
    (
        "line",
        include_str!("../../../../migrations/postgres/0001_line.sql"),
    ),
    (
        "rollup",
        include_str!("../../../../migrations/postgres/0002_rollup.sql"),
    ),
    (
        "settled",
        include_str!("../../../../migrations/postgres/0003_settled.sql"),
    ),
    (
        "sheet",
        include_str!("../../../../migrations/postgres/0004_sheet.sql"),
    ),
    (
        "event",
        include_str!("../../../../migrations/postgres/0005_event.sql"),
    ),
];

/// Oldest server, as `server_version_num` has it.
const OLDEST: i32 = 14_00_00;

/// Connections for reading. A question beyond them waits; the writer is never kept by readers.
const READERS: u32 = 4;

/// How long a reader waits for a connection before it is told that the database is busy or away.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long connecting and checking may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A server must notice soon that the writer is gone, or its lock would keep the next one waiting. Not every server knows
/// every one of these, and none is needed.
const NOTICE_US: [&str; 5] = [
    "SET tcp_keepalives_idle = 15",
    "SET tcp_keepalives_interval = 5",
    "SET tcp_keepalives_count = 3",
    "SET tcp_user_timeout = 30000",
    "SET client_connection_check_interval = 5000",
];

/// What keeps a transaction of ours short: it waits for no lock for long, and a hung one is given up.
const LIMITS: &str = "SET lock_timeout = 5000; SET idle_in_transaction_session_timeout = 60000";

/// Who has the database, of those who work in the same schema.
const LOCK: &str = "SELECT pg_try_advisory_lock(hashtextextended('entrenar ' || coalesce(current_schema(), ''), 0))";

/// Random, of one start of one aggregator.
pub(super) type Token = [u8; 16];

/// What a writer begins with.
pub(super) struct Opened {
    /// As it was reached: what is only preferred may not have been possible.
    pub(super) address: Address,
    pub(super) connection: PgConnection,
    pub(super) token: Token,
    /// The newest journal row ever, even if it is forgotten by now.
    pub(super) newest: JournalPosition,
    /// Of each step, where the newest stretch begins.
    pub(super) newest_sums: [Option<i64>; STEPS.len()],
}

/// Connects for the first time: takes the lock, brings the schema up to date, and signs.
pub(super) async fn open(address: &Address) -> StoreResult<Opened> {
    timely(address, async {
        let (mut connection, address) = locked(address).await?;
        check_ours(&mut connection).await?;
        migrate(&mut connection, &MIGRATIONS).await?;
        let token = sign(&mut connection).await?;
        let newest = newest_position(&mut connection).await?;
        let newest_sums = history::newest_alone(&mut connection).await?;
        Ok(Opened {
            address,
            connection,
            token,
            newest,
            newest_sums,
        })
    })
    .await
}

/// Whether a database that was found again is still what it was.
pub(super) enum Found {
    Same(PgConnection),
    /// Somebody else has signed since.
    Taken,
    /// A row that was committed is not there: a standby took over without it, or a backup was restored.
    Older,
}

/// Connects again. `last`: a journal row that must be there.
pub(super) async fn reopen(
    address: &Address,
    token: Token,
    last: Option<JournalPosition>,
) -> StoreResult<Found> {
    timely(address, async {
        let (mut connection, _) = locked(address).await?;
        let (ours, whole): (bool, bool) = sqlx::query_as(
            "SELECT EXISTS (SELECT FROM writer WHERE token = $1),
                 $2 IS NULL OR EXISTS (SELECT FROM journal WHERE position = $2)",
        )
        .bind(&token[..])
        .bind(last.map(|row| row.0))
        .fetch_one(&mut connection)
        .await?;
        Ok(match (ours, whole) {
            (true, true) => Found::Same(connection),
            (true, false) => Found::Older,
            (false, _) => Found::Taken,
        })
    })
    .await
}

async fn timely<T>(
    address: &Address,
    work: impl Future<Output = StoreResult<T>>,
) -> StoreResult<T> {
    let late = |_| StoreError::Unavailable(format!("{address} does not answer"));
    timeout(CONNECT_TIMEOUT, work).await.map_err(late)?
}

/// For reading: each question from one consistent view.
pub(super) fn readers(address: &Address) -> PgPool {
    PgPoolOptions::new()
        .max_connections(READERS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(|connection, _| {
            Box::pin(async move {
                let settings = "SET default_transaction_read_only = on;
                    SET default_transaction_isolation = 'repeatable read'";
                connection.execute(sqlx::raw_sql(settings)).await?;
                connection.execute(sqlx::raw_sql(LIMITS)).await?;
                Ok(())
            })
        })
        .connect_lazy_with(address.options())
}

/// Connects, and says how. As other clients do where encryption is only preferred, without it if it fails.
async fn connected(address: &Address) -> StoreResult<(PgConnection, Address)> {
    let error = match address.options().connect().await {
        Ok(connection) => return Ok((connection, address.clone())),
        Err(error) => error,
    };
    let Some(plain) = address.unencrypted().filter(|_| is_of_certificate(&error)) else {
        return Err(of_connecting(address, error));
    };
    let connection = plain.options().connect().await;
    let connection = connection.map_err(|error| of_connecting(address, error))?;
    warn!(
        "not encrypted: {error}, of {address}; `sslmode=verify-full` in --database-url would insist on encryption"
    );
    Ok((connection, plain))
}

/// A connection that may write, and alone may. Its lock ends with it.
async fn locked(address: &Address) -> StoreResult<(PgConnection, Address)> {
    let (mut connection, reached) = connected(address).await?;
    check_server(&mut connection).await?;
    sqlx::raw_sql(LIMITS).execute(&mut connection).await?;
    for setting in NOTICE_US {
        if let Err(error @ (sqlx::Error::Io(_) | sqlx::Error::Tls(_))) =
            connection.execute(setting).await
        {
            return Err(error.into());
        }
    }
    let alone: bool = sqlx::query_scalar(LOCK).fetch_one(&mut connection).await?;
    if !alone {
        return Err(StoreError::Unavailable(format!(
            "another aggregator has {address}: this one takes over when it ends"
        )));
    }
    Ok((connection, reached))
}

async fn check_server(connection: &mut PgConnection) -> StoreResult<()> {
    let (version, number, fsync, standby): (String, i32, String, bool) = sqlx::query_as(
        "SELECT current_setting('server_version'), current_setting('server_version_num')::int,
             current_setting('fsync'), pg_is_in_recovery()",
    )
    .fetch_one(&mut *connection)
    .await?;
    check_version(&version, number)?;
    if standby {
        return Err(StoreError::Unavailable(
            "the server is a standby: waiting until it is the primary, or the name leads to that"
                .into(),
        ));
    }
    if fsync == "off" {
        warn!("the server runs with fsync off: a power cut may cost what agents were told is safe");
    }
    // What agents are told is durable must be.
    sqlx::query(
        "SELECT set_config('synchronous_commit', 'on', false)
         WHERE current_setting('synchronous_commit') = 'off'",
    )
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) fn check_version(version: &str, number: i32) -> StoreResult<()> {
    if number < OLDEST {
        return Err(StoreError::Refused(format!(
            "the server is Postgres {version}: entrenar needs 14 or newer"
        )));
    }
    Ok(())
}

/// A schema with tables that are not ours belongs to another program.
async fn check_ours(connection: &mut PgConnection) -> StoreResult<()> {
    let (tables, ours): (i64, bool) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()),
             to_regclass('_sqlx_migrations') IS NOT NULL",
    )
    .fetch_one(connection)
    .await?;
    if tables > 0 && !ours {
        return Err(StoreError::Refused(
            "the database has tables of another program: make one for entrenar alone with `createdb`, and name it in --database-url"
                .into(),
        ));
    }
    Ok(())
}

/// Says whose database it is from now on.
async fn sign(connection: &mut PgConnection) -> StoreResult<Token> {
    let mut token = Token::default();
    getrandom::fill(&mut token)
        .map_err(|error| StoreError::Unavailable(format!("no random numbers: {error}")))?;
    sqlx::query(
        "INSERT INTO writer (id, token) VALUES (1, $1)
         ON CONFLICT (id) DO UPDATE SET token = excluded.token",
    )
    .bind(&token[..])
    .execute(connection)
    .await?;
    Ok(token)
}

async fn newest_position(connection: &mut PgConnection) -> StoreResult<JournalPosition> {
    let newest: i64 = sqlx::query_scalar(
        "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM journal_position_seq",
    )
    .fetch_one(connection)
    .await?;
    Ok(JournalPosition(newest))
}
