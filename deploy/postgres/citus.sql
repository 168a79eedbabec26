-- Spreads the history over the workers of a Citus cluster. Run it once, on the coordinator, in entrenar's database and
-- as its owner, with the extension `citus` in place, after a first start has made the tables and while no aggregator runs.
-- Why this is enough, and what was tried: docs/postgres.md.

-- The samples: nearly all of the bytes. Days stay partitions, and are made and dropped as before.
SELECT create_distributed_table('chunk', 'node_id');

-- What they come to by minute and hour.
SELECT create_distributed_table('rollup_1m', 'node_id', colocate_with => 'chunk');
SELECT create_distributed_table('rollup_1h', 'node_id', colocate_with => 'chunk');

-- The same of 128 GPUs together, of many nodes: by their own key.
SELECT create_distributed_table('rollup_sheet_1m', 'cohort', colocate_with => 'none');
SELECT create_distributed_table('rollup_sheet_1h', 'cohort', colocate_with => 'rollup_sheet_1m');

-- Everything else is small or short-lived and stays on the coordinator: the journal (until its samples are sealed, some
-- 15 minutes), names and numbers of nodes and GPUs, who held which GPU when, XIDs, agents' marks, the engine's snapshot, incidents, messages.
