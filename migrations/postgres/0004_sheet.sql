-- Sums of many GPUs, laid together metric by metric once their stretches are over (docs/formats/rollup.md). What lies here
-- is no longer in rollup_1m and rollup_1h. Partitions by window, as long as theirs.
CREATE TABLE rollup_sheet_1m (
    -- The stretches of a sheet began in this window.
    window_ms BIGINT NOT NULL,
    -- GPUs whose numbers, divided by 128, are this. It stands where other tables have the node key: GPUs of many nodes lie
    -- together here.
    cohort BIGINT NOT NULL,
    -- 0: times of the stretches, which belong to all sheets of their window and cohort.
    metric BIGINT NOT NULL,
    -- First and last sample of all.
    from_ms BIGINT NOT NULL,
    to_ms BIGINT NOT NULL,
    -- 1 where there are rows of this window and cohort beside it: late ones, which are right where both know a stretch.
    has_late BIGINT NOT NULL,
    blob BYTEA NOT NULL,
    PRIMARY KEY (window_ms, cohort, metric)
) PARTITION BY RANGE (window_ms);

-- Packed already; partitions are made like their parent.
ALTER TABLE rollup_sheet_1m ALTER COLUMN blob SET STORAGE EXTERNAL;

CREATE TABLE rollup_sheet_1h (LIKE rollup_sheet_1m INCLUDING ALL) PARTITION BY RANGE (window_ms);
