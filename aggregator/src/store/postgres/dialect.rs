//! What Postgres says in its own words, for the modules that are shared.

pub(super) use sqlx::PgPool as Pool;
pub(super) use sqlx::postgres::PgConnection as Connection;

/// Open, or held: see `Incident::is_held`.
pub(super) const OPEN_OR_HELD: &str = "SELECT doc FROM incident
    WHERE open = 1 OR (kind <> 'Manual' AND doc::jsonb ->> 'state' = 'closed'
        AND doc::jsonb ->> 'resolution' = 'closed')
    ORDER BY fired_at_ms, id";

/// The newest change of each GPU. Shards can answer it, each for its own.
pub(super) const HOLDERS: &str = "SELECT uuid, at_ms, doc FROM
    (SELECT DISTINCT ON (node_id, gpu_id) gpu_id, at_ms, doc FROM holder_change
     ORDER BY node_id, gpu_id, at_ms DESC) AS newest
    JOIN gpu ON gpu.id = gpu_id ORDER BY uuid";

/// Changes before $1 that do not hold at it, as the newest of their GPU before it does; of GPUs after $2, up to $3.
pub(super) const DROP_HOLDERS: &str = "DELETE FROM holder_change WHERE (node_id, gpu_id, at_ms) IN
    (SELECT node_id, gpu_id, at_ms FROM holder_change AS old WHERE gpu_id > $2 AND gpu_id <= $3 AND at_ms < $1 AND EXISTS
        (SELECT 1 FROM holder_change AS newer WHERE newer.node_id = old.node_id AND newer.gpu_id = old.gpu_id
             AND newer.at_ms > old.at_ms AND newer.at_ms <= $1))";

/// Incidents by every field of a filter, in its order; $8 is the limit, $9 the trial.
pub(super) const INCIDENTS: &str = "SELECT doc FROM incident
    WHERE ($1 IS NULL OR open = $1) AND ($2 IS NULL OR kind = $2) AND ($3 IS NULL OR severity = $3)
        AND ($4 IS NULL OR job = $4)
        AND ($5 IS NULL OR nodes::jsonb ? $5)
        AND ($6 IS NULL OR (fired_at_ms, id) < ($6, $7))
        AND ($9 IS NULL OR coalesce((doc::jsonb -> 'flags' ->> 'shadow')::boolean, false)::int = $9)
    ORDER BY fired_at_ms DESC, id DESC LIMIT $8";

/// Text as Postgres takes it: a NUL, which neither its text nor its JSON can hold, becomes the mark of what cannot be shown.
pub(super) fn text(text: impl Into<String>) -> String {
    let text = text.into();
    if text.contains('\0') || text.contains("\\u0000") {
        return text.replace('\0', "\u{fffd}").replace("\\u0000", "\\ufffd");
    }
    text
}
