-- Everything that survives a crash. SQLite: WAL, synchronous=FULL, one writer.
-- auto_vacuum=INCREMENTAL is set by the connection before the first table; it could not be switched on later without a
-- rewrite of the file, and retention must be able to give space back.

-- "entr": tells our file from another program's, so that a wrong path is refused and not migrated into.
PRAGMA application_id = 1701737586;

-- The write-ahead log: one row per group commit.
CREATE TABLE journal (
    -- AUTOINCREMENT, because a position must rise even after every row was forgotten: snapshots name positions.
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    -- All accepted messages in order of arrival (docs/formats/journal.md); carries its own checksum.
    entries BLOB NOT NULL
);

-- Short numbers for GPUs: a UUID has 40 bytes and would stand in every key.
CREATE TABLE gpu (
    id INTEGER PRIMARY KEY,
    uuid TEXT NOT NULL UNIQUE
);

-- Sealed stretches. A rowid table: in a WITHOUT ROWID table blobs over a quarter page double the file.
CREATE TABLE chunk (
    id INTEGER PRIMARY KEY,
    -- Start of the stretch. First in the key: inserts append, and retention cuts a prefix.
    stretch_ms INTEGER NOT NULL,
    gpu_id INTEGER NOT NULL REFERENCES gpu (id),
    -- Length of the stretch, which follows from the sampling interval at the time.
    length_ms INTEGER NOT NULL,
    -- First and last sample, so that a query skips what does not overlap without reading blobs.
    from_ms INTEGER NOT NULL,
    to_ms INTEGER NOT NULL,
    -- For limits on answers, before a blob is read.
    n_samples INTEGER NOT NULL,
    -- Every metric of the stretch (docs/formats/chunk.md); carries its own checksum.
    blob BLOB NOT NULL,
    UNIQUE (stretch_ms, gpu_id)
);

-- Lengths of stretches that a GPU ever had. With the UUID they give every possible key, so the chunks of one GPU are found
-- by point lookups in a time-major key, and no second index has to be kept.
CREATE TABLE gpu_stretch (
    gpu_id INTEGER NOT NULL REFERENCES gpu (id),
    length_ms INTEGER NOT NULL,
    PRIMARY KEY (gpu_id, length_ms)
) WITHOUT ROWID;

-- Agents that were ever heard of: the inventory that a start expects.
CREATE TABLE agent_stream (
    -- The stream's 16 random bytes.
    stream BLOB PRIMARY KEY NOT NULL,
    -- To forget a node by its name.
    node TEXT NOT NULL,
    -- The agent's own words, as on the wire. Apart from the mark below, because it is long and hardly ever changes.
    hello BLOB NOT NULL
);

CREATE INDEX agent_stream_node ON agent_stream (node);

-- How far each stream is durable. Written with every commit, so a row is small.
CREATE TABLE stream_mark (
    stream BLOB PRIMARY KEY NOT NULL REFERENCES agent_stream (stream) ON DELETE CASCADE,
    -- Inclusive ranges of sequence numbers: [[1,500],[502,510]]. Text, because a number may exceed 63 bits.
    durable TEXT NOT NULL,
    -- So that a start knows who was silent already.
    last_received_at_ms INTEGER NOT NULL,
    -- 1 when the agent said goodbye last: grey, not lost.
    gone INTEGER NOT NULL
) WITHOUT ROWID;

-- Who held a GPU from an instant on; the next row of the same GPU ends the interval. Changes and not intervals, because
-- they come in any order and more than once, and inserting one never touches another.
CREATE TABLE holder_change (
    gpu_id INTEGER NOT NULL REFERENCES gpu (id),
    at_ms INTEGER NOT NULL,
    -- For questions about one job; NULL: nobody.
    job TEXT,
    -- JSON; NULL: nobody.
    doc TEXT,
    PRIMARY KEY (gpu_id, at_ms)
) WITHOUT ROWID;

-- The engine's memory: the newest only.
CREATE TABLE engine_snapshot (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    -- Last journal row that it contains.
    position INTEGER NOT NULL,
    taken_at_ms INTEGER NOT NULL,
    bytes BLOB NOT NULL
);

CREATE TABLE incident (
    -- Derived from cluster, cord and first transition: the same after any crash.
    id TEXT PRIMARY KEY NOT NULL,
    -- The cord.
    rule TEXT NOT NULL,
    scope TEXT NOT NULL,
    -- 1 while firing or recovering.
    open INTEGER NOT NULL,
    -- What lists are filtered by; nodes is a JSON array of names.
    kind TEXT NOT NULL,
    severity TEXT NOT NULL,
    job TEXT,
    nodes TEXT NOT NULL,
    -- What lists are ordered by, with the id.
    fired_at_ms INTEGER NOT NULL,
    -- Together the age of the row: an older one never replaces a newer one.
    last_transition_at_ms INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    -- The whole incident as JSON.
    doc TEXT NOT NULL
);

-- The engine decides on data that may not be durable yet and decides again after a crash: the database holds the line.
CREATE UNIQUE INDEX incident_one_open_per_cord ON incident (rule, scope) WHERE open = 1;

CREATE INDEX incident_fired_at ON incident (fired_at_ms, id);

CREATE TABLE incident_timeline (
    id INTEGER PRIMARY KEY,
    incident_id TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    what TEXT NOT NULL,
    who TEXT NOT NULL,
    note TEXT
);

-- Deciding twice writes a line once.
CREATE UNIQUE INDEX incident_timeline_once ON incident_timeline (incident_id, at_ms, what, who, ifnull(note, ''));

-- Newest transition of each cord, kept after its incident is over: what is not newer was decided before.
CREATE TABLE cord (
    rule TEXT NOT NULL,
    scope TEXT NOT NULL,
    last_transition_at_ms INTEGER NOT NULL,
    PRIMARY KEY (rule, scope)
) WITHOUT ROWID;

-- The outbox: what must reach a receiver, and what became of it.
CREATE TABLE notice (
    -- Derived from (incident, ordinal, receiver): the same after any crash.
    delivery_id TEXT PRIMARY KEY NOT NULL,
    -- To show with its incident.
    incident_id TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    -- pending, delivered or dead.
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    next_attempt_at_ms INTEGER,
    delivered_at_ms INTEGER,
    last_error TEXT,
    -- The notice as JSON, with the incident as it stood.
    doc TEXT NOT NULL
);

CREATE INDEX notice_created_at ON notice (created_at_ms, delivery_id);

CREATE INDEX notice_incident ON notice (incident_id);

-- Few are pending at a time; a start and every look at the outbox want just those.
CREATE INDEX notice_pending ON notice (created_at_ms, delivery_id) WHERE state = 'pending';
