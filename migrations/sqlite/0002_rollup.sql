-- Stretches summed up by the minute and by the hour (docs/formats/rollup.md). They stand beside the chunk that they were
-- made of, and stay when it goes. Chunks that were stored before this table have none, and are read sample by sample.
CREATE TABLE rollup (
    id INTEGER PRIMARY KEY,
    -- Length of a bucket: 60 or 3600. First in the key: each length is kept for a time of its own.
    step_s INTEGER NOT NULL,
    -- The stretch, as in chunk: inserts append, and retention cuts a prefix.
    stretch_ms INTEGER NOT NULL,
    gpu_id INTEGER NOT NULL REFERENCES gpu (id),
    -- First and last sample, so that what does not overlap is skipped, and what is late is seen to be.
    from_ms INTEGER NOT NULL,
    to_ms INTEGER NOT NULL,
    -- Every metric of the stretch; carries its own checksum.
    blob BLOB NOT NULL,
    UNIQUE (step_s, stretch_ms, gpu_id)
);
