-- Sums of many GPUs, laid together metric by metric once their stretches are over (docs/formats/rollup.md). What lies here
-- is no longer in `rollup`. Apart by step, because each is kept for a time of its own: what goes together lies together.
CREATE TABLE rollup_sheet_1m (
    id INTEGER PRIMARY KEY,
    -- The stretches of a sheet began in this window. First in the key: inserts append, and retention cuts a prefix.
    window_ms INTEGER NOT NULL,
    -- GPUs whose numbers, divided by 128, are this.
    cohort INTEGER NOT NULL,
    -- 0: times of the stretches, which belong to all sheets of their window and cohort.
    metric INTEGER NOT NULL,
    -- First and last sample of all.
    from_ms INTEGER NOT NULL,
    to_ms INTEGER NOT NULL,
    -- 1 where `rollup` has rows of this window and cohort: late ones, which are right where both know a stretch.
    has_late INTEGER NOT NULL,
    blob BLOB NOT NULL,
    UNIQUE (window_ms, cohort, metric)
);

CREATE TABLE rollup_sheet_1h (
    id INTEGER PRIMARY KEY,
    window_ms INTEGER NOT NULL,
    cohort INTEGER NOT NULL,
    metric INTEGER NOT NULL,
    from_ms INTEGER NOT NULL,
    to_ms INTEGER NOT NULL,
    has_late INTEGER NOT NULL,
    blob BLOB NOT NULL,
    UNIQUE (window_ms, cohort, metric)
);

-- From here on a chunk that could have sums and has none says so, with an empty row: nobody looks for it among the chunks.
-- Those that were stored before sums were are the only ones there are.
INSERT INTO rollup (step_s, stretch_ms, gpu_id, from_ms, to_ms, blob)
    SELECT missing.step_s, chunk.stretch_ms, chunk.gpu_id, from_ms, to_ms, x''
    FROM (SELECT steps.step_s, there.stretch_ms, there.gpu_id
            FROM chunk AS there CROSS JOIN (SELECT 60 AS step_s UNION ALL SELECT 3600) AS steps
            WHERE there.gpu_id IN (SELECT gpu_id FROM gpu_stretch WHERE length_ms <= 1350000 OR steps.step_s = 3600)
                AND NOT EXISTS (SELECT 1 FROM rollup WHERE rollup.step_s = steps.step_s
                    AND rollup.stretch_ms = there.stretch_ms AND rollup.gpu_id = there.gpu_id)) AS missing
        CROSS JOIN chunk ON chunk.stretch_ms = missing.stretch_ms AND chunk.gpu_id = missing.gpu_id;
