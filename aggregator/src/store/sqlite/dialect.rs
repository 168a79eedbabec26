//! What SQLite says in its own words, for the modules that are shared.

pub(super) use sqlx::SqlitePool as Pool;
pub(super) use sqlx::sqlite::SqliteConnection as Connection;

/// Open, or held: see `Incident::is_held`.
pub(super) const OPEN_OR_HELD: &str = "SELECT doc FROM incident
    WHERE open = 1 OR (kind <> 'Manual' AND json_extract(doc, '$.state') = 'closed'
        AND json_extract(doc, '$.resolution') = 'closed')
    ORDER BY fired_at_ms, id";

/// The newest change of each GPU.
pub(super) const HOLDERS: &str =
    "SELECT uuid, at_ms, doc FROM gpu CROSS JOIN holder_change ON gpu_id = gpu.id
    WHERE at_ms = (SELECT max(at_ms) FROM holder_change WHERE gpu_id = gpu.id) ORDER BY uuid";

/// Changes before $1 that do not hold at it, as the newest of their GPU before it does; of GPUs after $2, up to $3. Each GPU's
/// changes are looked up: a walk over all changes of a fleet would hold the writer for seconds.
pub(super) const DROP_HOLDERS: &str = "DELETE FROM holder_change WHERE (gpu_id, at_ms) IN
    (SELECT old.gpu_id, old.at_ms FROM gpu CROSS JOIN holder_change AS old ON old.gpu_id = gpu.id
     WHERE gpu.id > $2 AND gpu.id <= $3 AND old.at_ms <
        (SELECT max(at_ms) FROM holder_change AS held WHERE held.gpu_id = gpu.id AND held.at_ms <= $1))";

/// Incidents by every field of a filter, in its order; $8 is the limit, $9 the trial.
pub(super) const INCIDENTS: &str = "SELECT doc FROM incident
    WHERE ($1 IS NULL OR open = $1) AND ($2 IS NULL OR kind = $2) AND ($3 IS NULL OR severity = $3)
        AND ($4 IS NULL OR job = $4)
        AND ($5 IS NULL OR EXISTS (SELECT 1 FROM json_each(nodes) WHERE value = $5))
        AND ($6 IS NULL OR (fired_at_ms, id) < ($6, $7))
        AND ($9 IS NULL OR ifnull(json_extract(doc, '$.flags.shadow'), 0) = $9)
    ORDER BY fired_at_ms DESC, id DESC LIMIT $8";

/// Text as SQLite takes it: any.
pub(super) fn text(text: impl Into<String>) -> String {
    text.into()
}
