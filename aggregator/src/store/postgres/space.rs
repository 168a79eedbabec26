//! What the writer has no part in: days are dropped whole beside it (`partition`), and the server gives space back.

use std::time::Duration;

use entrenar::unit::Timestamp;
use sqlx::postgres::PgConnection;

use crate::store::StoreResult;

#[allow(clippy::unused_async, reason = "as the module that is shared calls it")]
pub(super) async fn drop_chunks(_: &mut PgConnection, _: Timestamp) -> StoreResult<(u64, bool)> {
    Ok((0, false))
}

#[allow(clippy::unused_async, reason = "as the module that is shared calls it")]
pub(super) async fn drop_rollups(
    _: &mut PgConnection,
    _: Duration,
    _: Timestamp,
) -> StoreResult<(u64, bool)> {
    Ok((0, false))
}

#[allow(clippy::unused_async, reason = "as the module that is shared calls it")]
pub(super) async fn give_back(_: &mut PgConnection) -> StoreResult<(u64, bool)> {
    Ok((0, false))
}
