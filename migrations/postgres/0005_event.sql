-- What GPUs reported beside their samples, for exports and for rules that are tried on what was. Few rows: no partitions.
CREATE TABLE gpu_event (
    -- By the agent's clock, corrected.
    at_ms BIGINT NOT NULL,
    node TEXT NOT NULL,
    -- UUID; empty where the driver did not say which GPU.
    gpu TEXT NOT NULL,
    -- NVIDIA's error code.
    xid BIGINT NOT NULL,
    PRIMARY KEY (at_ms, node, gpu, xid)
);
