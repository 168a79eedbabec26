-- Everything that survives a crash. Postgres 14 or newer; one aggregator writes, and holds an advisory lock while it does.
--
-- Numbers are BIGINT and 0/1 rather than BOOLEAN where SQLite's schema has an integer: one text of SQL serves both. What is
-- ordered or looked up is COLLATE "C": bytes, as SQLite has it, and no index that a new version of the C library breaks.
-- There are no foreign keys: one writer keeps the order, and a distributed table may hardly have any (docs/postgres.md).

-- Whose database it is: the aggregator that opened it last. One that lost its connection goes on only if this is still it.
CREATE TABLE writer (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    -- Random, of that start of that aggregator.
    token BYTEA NOT NULL
);

-- The write-ahead log: one row per group commit.
CREATE TABLE journal (
    -- From a sequence, because a position must rise even after every row was forgotten: snapshots name positions.
    position BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- All accepted messages in order of arrival (docs/formats/journal.md); carries its own checksum.
    entries BYTEA NOT NULL
);

-- Compressed already.
ALTER TABLE journal ALTER COLUMN entries SET STORAGE EXTERNAL;

-- Rows live for minutes and come ten times a second: vacuum by their number, not by a share of the table.
ALTER TABLE journal SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
    toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 20000
);

-- Short numbers for hosts.
CREATE TABLE node (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name TEXT COLLATE "C" NOT NULL UNIQUE
);

-- Short numbers for GPUs: a UUID has 40 bytes and would stand in every key.
CREATE TABLE gpu (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uuid TEXT COLLATE "C" NOT NULL UNIQUE,
    -- The node key of everything that is kept of it: the node where it was first seen, 0 if that was not known. It never
    -- changes, wherever the board is put later: it spreads rows, and says nothing of where the GPU sits.
    node_id BIGINT NOT NULL
);

-- Sealed stretches, a partition for each day (UTC) of their starts: chunk_20261126. The aggregator makes a day and the
-- next one when the first chunk of it comes, and drops whole days.
CREATE TABLE chunk (
    -- Start of the stretch. First in the key: inserts append.
    stretch_ms BIGINT NOT NULL,
    gpu_id BIGINT NOT NULL,
    -- The GPU's node key. It follows from the GPU; a distributed table needs it in its key.
    node_id BIGINT NOT NULL,
    -- Length of the stretch, which follows from the sampling interval at the time.
    length_ms BIGINT NOT NULL,
    -- First and last sample, so that a query skips what does not overlap without reading blobs.
    from_ms BIGINT NOT NULL,
    to_ms BIGINT NOT NULL,
    -- For limits on answers, before a blob is read.
    n_samples BIGINT NOT NULL,
    -- Every metric of the stretch (docs/formats/chunk.md); carries its own checksum.
    blob BYTEA NOT NULL,
    PRIMARY KEY (stretch_ms, gpu_id, node_id)
) PARTITION BY RANGE (stretch_ms);

-- Compressed already; partitions are made like their parent.
ALTER TABLE chunk ALTER COLUMN blob SET STORAGE EXTERNAL;

-- Lengths of stretches that a GPU ever had. With the UUID they give every possible key, so the chunks of one GPU are found
-- by point lookups in a time-major key, and no second index has to be kept.
CREATE TABLE gpu_stretch (
    gpu_id BIGINT NOT NULL,
    length_ms BIGINT NOT NULL,
    PRIMARY KEY (gpu_id, length_ms)
);

-- Agents that were ever heard of: the inventory that a start expects.
CREATE TABLE agent_stream (
    -- The stream's 16 random bytes.
    stream BYTEA PRIMARY KEY,
    -- To forget a node by its name.
    node TEXT COLLATE "C" NOT NULL,
    -- The agent's own words, as on the wire. Apart from the mark below, because it is long and hardly ever changes.
    hello BYTEA NOT NULL
);

CREATE INDEX agent_stream_node ON agent_stream (node);

-- How far each stream is durable. Written with every snapshot, so a row is small.
CREATE TABLE stream_mark (
    stream BYTEA PRIMARY KEY,
    -- Inclusive ranges of sequence numbers: [[1,500],[502,510]]. Text, because a number may exceed 63 bits.
    durable TEXT NOT NULL,
    -- So that a start knows who was silent already.
    last_received_at_ms BIGINT NOT NULL,
    -- True when the agent said goodbye last: grey, not lost.
    gone BOOLEAN NOT NULL
);

-- Who held a GPU from an instant on; the next row of the same GPU ends the interval. Changes and not intervals, because
-- they come in any order and more than once, and inserting one never touches another.
CREATE TABLE holder_change (
    gpu_id BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    -- The GPU's node key, as in chunk.
    node_id BIGINT NOT NULL,
    -- For questions about one job; NULL: nobody.
    job TEXT,
    -- JSON; NULL: nobody.
    doc TEXT,
    PRIMARY KEY (gpu_id, at_ms, node_id)
);

-- For the retention, which looks every minute.
CREATE INDEX holder_change_at ON holder_change (at_ms);

-- The engine's memory: the newest only.
CREATE TABLE engine_snapshot (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    -- Last journal row that it contains.
    position BIGINT NOT NULL,
    taken_at_ms BIGINT NOT NULL,
    bytes BYTEA NOT NULL
);

-- Compressed already.
ALTER TABLE engine_snapshot ALTER COLUMN bytes SET STORAGE EXTERNAL;

CREATE TABLE incident (
    -- Derived from cluster, cord and first transition: the same after any crash.
    id TEXT COLLATE "C" PRIMARY KEY,
    -- The cord.
    rule TEXT COLLATE "C" NOT NULL,
    scope TEXT COLLATE "C" NOT NULL,
    -- 1 while firing or recovering.
    open BIGINT NOT NULL,
    -- What lists are filtered by; nodes is a JSON array of names.
    kind TEXT NOT NULL,
    severity TEXT NOT NULL,
    job TEXT,
    nodes TEXT NOT NULL,
    -- What lists are ordered by, with the id.
    fired_at_ms BIGINT NOT NULL,
    -- Together the age of the row: an older one never replaces a newer one.
    last_transition_at_ms BIGINT NOT NULL,
    ordinal BIGINT NOT NULL,
    -- The whole incident as JSON.
    doc TEXT NOT NULL
);

-- The engine decides on data that may not be durable yet and decides again after a crash: the database holds the line.
CREATE UNIQUE INDEX incident_one_open_per_cord ON incident (rule, scope) WHERE open = 1;

CREATE INDEX incident_fired_at ON incident (fired_at_ms, id);

CREATE TABLE incident_timeline (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    incident_id TEXT COLLATE "C" NOT NULL,
    at_ms BIGINT NOT NULL,
    what TEXT NOT NULL,
    who TEXT NOT NULL,
    note TEXT
);

-- Deciding twice writes a line once. A hash of what it says, because a note may be longer than an index takes.
CREATE UNIQUE INDEX incident_timeline_once ON incident_timeline
    (incident_id, at_ms, hashtextextended(what || chr(31) || who || chr(31) || coalesce(note, ''), 0));

-- Newest transition of each cord, kept after its incident is over: what is not newer was decided before.
CREATE TABLE cord (
    rule TEXT COLLATE "C" NOT NULL,
    scope TEXT COLLATE "C" NOT NULL,
    last_transition_at_ms BIGINT NOT NULL,
    PRIMARY KEY (rule, scope)
);

-- The outbox: what must reach a receiver, and what became of it.
CREATE TABLE notice (
    -- Derived from (incident, ordinal, receiver): the same after any crash.
    delivery_id TEXT COLLATE "C" PRIMARY KEY,
    -- To show with its incident.
    incident_id TEXT COLLATE "C" NOT NULL,
    created_at_ms BIGINT NOT NULL,
    -- pending, delivered or dead.
    state TEXT NOT NULL,
    attempts BIGINT NOT NULL,
    next_attempt_at_ms BIGINT,
    delivered_at_ms BIGINT,
    last_error TEXT,
    -- The notice as JSON, with the incident as it stood.
    doc TEXT NOT NULL
);

CREATE INDEX notice_created_at ON notice (created_at_ms, delivery_id);

CREATE INDEX notice_incident ON notice (incident_id);

-- Few are pending at a time; a start and every look at the outbox want just those.
CREATE INDEX notice_pending ON notice (created_at_ms, delivery_id) WHERE state = 'pending';
