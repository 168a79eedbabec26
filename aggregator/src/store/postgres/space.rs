//! What the writer has no part in: days are dropped whole beside it (`partition`), and the server gives space back.

use std::time::Duration;

use entrenar::unit::Timestamp;
use sqlx::postgres::PgConnection;

use crate::store::StoreResult;
use crate::store::retain::{Place, Slice};

const NOTHING: Slice = Slice {
    gone: 0,
    next: None,
};

#[allow(clippy::unused_async, reason = "as the module that is shared calls it")]
pub(super) async fn drop_chunks(
    _: &mut PgConnection,
    _: Timestamp,
    _: Place,
    _: i64,
) -> StoreResult<Slice> {
    Ok(NOTHING)
}

#[allow(clippy::unused_async, reason = "as the module that is shared calls it")]
pub(super) async fn drop_rollups(
    _: &mut PgConnection,
    _: Duration,
    _: Timestamp,
    _: Place,
    _: i64,
) -> StoreResult<Slice> {
    Ok(NOTHING)
}

#[allow(clippy::unused_async, reason = "as the module that is shared calls it")]
pub(super) async fn drop_sheets(
    _: &mut PgConnection,
    _: Duration,
    _: Timestamp,
    _: i64,
) -> StoreResult<Slice> {
    Ok(NOTHING)
}

#[allow(clippy::unused_async, reason = "as the module that is shared calls it")]
pub(super) async fn give_back(_: &mut PgConnection, _: i64) -> StoreResult<Slice> {
    Ok(NOTHING)
}
