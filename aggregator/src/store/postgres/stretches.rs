//! Where the stretches of one GPU may lie.

use entrenar::gpu::GpuUuid;
use entrenar::unit::Timestamp;

use super::dialect::Connection;
use crate::store::StoreResult;
use crate::store::history::possible_starts;

/// All starts that may overlap a range. `number`: the GPU's; `ends`: the first and the last start of anybody.
pub(super) async fn starts(
    tx: &mut Connection,
    gpu: &GpuUuid,
    number: i64,
    ends: (i64, i64),
    (from, to): (Timestamp, Timestamp),
) -> StoreResult<Vec<i64>> {
    let lengths: Vec<i64> =
        sqlx::query_scalar("SELECT length_ms FROM gpu_stretch WHERE gpu_id = $1")
            .bind(number)
            .fetch_all(tx)
            .await?;
    let (first, last) = (Timestamp(ends.0.max(from.0)), Timestamp(ends.1.min(to.0)));
    Ok(possible_starts(gpu, lengths, first, last))
}
