//! Numbers of GPUs, and how long their stretches ever were, as far as readers have asked: a question about the fleet would
//! look up each of them again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use entrenar::gpu::GpuUuid;
use sqlx::SqliteConnection;

use crate::store::StoreResult;
use crate::store::sums::Known;

/// What readers know. As many GPUs as were ever asked about.
#[derive(Debug)]
pub(super) struct Directory {
    /// Rises when a stretch of a new length was committed.
    changes: Arc<AtomicU64>,
    read: Mutex<HashMap<GpuUuid, Read>>,
}

#[derive(Clone, Debug)]
struct Read {
    as_of: u64,
    known: Known,
}

impl Directory {
    pub(super) fn new(changes: Arc<AtomicU64>) -> Self {
        Self {
            changes,
            read: Mutex::default(),
        }
    }

    /// Of each of these; `None` where the database has nothing of it.
    pub(super) async fn find(
        &self,
        db: &mut SqliteConnection,
        gpus: &[GpuUuid],
    ) -> StoreResult<Vec<Option<Known>>> {
        // Before the question: what is committed meanwhile is then looked up once more, and not missed.
        let as_of = self.changes.load(Ordering::Acquire);
        let mut found = self.look(gpus, as_of);
        let missing: Vec<usize> = (0..gpus.len()).filter(|n| found[*n].is_none()).collect();
        if missing.is_empty() {
            return Ok(found);
        }
        let uuids: Vec<&str> = missing.iter().map(|n| gpus[*n].as_str()).collect();
        let rows: Vec<(i64, i64, Option<i64>)> = sqlx::query_as(
            "SELECT asked.key, gpu.id, length_ms FROM json_each($1) AS asked
                 CROSS JOIN gpu ON uuid = asked.value
                 LEFT JOIN gpu_stretch ON gpu_id = gpu.id",
        )
        .bind(serde_json::Value::from(uuids).to_string())
        .fetch_all(db)
        .await?;
        let mut entries: HashMap<usize, (i64, Vec<i64>)> = HashMap::new();
        for (place, number, length_ms) in rows {
            let (_, lengths) = entries
                .entry(missing[place as usize])
                .or_insert_with(|| (number, Vec::new()));
            lengths.extend(length_ms);
        }
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        // Most have the same, and who reads it finds it at hand.
        let mut shared: HashMap<Vec<i64>, Arc<[i64]>> = HashMap::new();
        for (place, (number, lengths)) in entries {
            let lengths = shared
                .entry(lengths)
                .or_insert_with_key(|lengths| lengths.as_slice().into());
            let known = Known {
                number,
                lengths: Arc::clone(lengths),
            };
            found[place] = Some(known.clone());
            read.insert(gpus[place].clone(), Read { as_of, known });
        }
        Ok(found)
    }

    fn look(&self, gpus: &[GpuUuid], as_of: u64) -> Vec<Option<Known>> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let current = |gpu| read.get(gpu).filter(|read| read.as_of == as_of);
        gpus.iter()
            .map(|gpu| current(gpu).map(|read| read.known.clone()))
            .collect()
    }
}
