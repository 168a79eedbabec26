-- Stretches summed up by the minute and by the hour (docs/formats/rollup.md). They stand beside the chunk that they were
-- made of, and stay when it goes. Chunks that were stored before these tables have none, and are read sample by sample.
--
-- A partition of rollup_1m holds a week of stretches, one of rollup_1h eight weeks, by their starts: each is made with the
-- first of them, and dropped whole.
CREATE TABLE rollup_1m (
    -- The stretch, as in chunk.
    stretch_ms BIGINT NOT NULL,
    gpu_id BIGINT NOT NULL,
    -- The GPU's node key, as in chunk.
    node_id BIGINT NOT NULL,
    -- First and last sample, so that what does not overlap is skipped, and what is late is seen to be.
    from_ms BIGINT NOT NULL,
    to_ms BIGINT NOT NULL,
    -- Every metric of the stretch; carries its own checksum.
    blob BYTEA NOT NULL,
    PRIMARY KEY (stretch_ms, gpu_id, node_id)
) PARTITION BY RANGE (stretch_ms);

-- Packed already; partitions are made like their parent.
ALTER TABLE rollup_1m ALTER COLUMN blob SET STORAGE EXTERNAL;

CREATE TABLE rollup_1h (LIKE rollup_1m INCLUDING ALL) PARTITION BY RANGE (stretch_ms);
