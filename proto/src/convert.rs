//! Wire to domain and back. Everything from outside is bounded here; nothing here panics on it.

use std::collections::BTreeMap;

use entrenar::gpu::{GpuInfo, GpuUuid, NodeId, Values};
use entrenar::report::{
    Batch, Body, GpuEvent, GpuEventKind, Hello, Holder, HolderChange, Inventory, JobKind, Record,
    StreamId, Tick,
};
use entrenar::unit::Timestamp;
use prost::Message as _;

use crate::columns::{self, ColumnsError};
use crate::wire;

/// Most ticks in a batch. More is refused: the sender must cut.
pub const MAX_TICKS: usize = 1024;
/// Most GPUs of a node: 64 boards of 8 instances. More is refused.
pub const MAX_GPUS: usize = 512;
/// Most rows in a batch, ticks × GPUs: about 5 MiB once unpacked. More is refused: the sender must cut.
pub const MAX_ROWS: usize = 16_384;
/// Most inventories in a hello. A sender keeps the newest.
pub const MAX_INVENTORIES: usize = 16;
/// Most labels of a node. More is refused.
pub const MAX_LABELS: usize = 32;
/// Most processes of a holder. A sender keeps the first.
pub const MAX_PIDS: usize = 64;
/// Longest text in bytes: a name, a label, an id. Longer is refused.
pub const MAX_TEXT_BYTES: usize = 256;

/// Why a message makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// Not the protobuf that was expected.
    #[error("not a {what} message")]
    Malformed {
        /// What was expected.
        what: &'static str,
        /// Where it broke.
        source: prost::DecodeError,
    },
    /// Something that must be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A bound is passed.
    #[error("{found} {what}, and at most {limit} are taken: send less at once")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many came.
        found: usize,
        /// How many may.
        limit: usize,
    },
    /// The parts of a batch do not fit together.
    #[error("a batch has {wall} wall times and {monotonic} monotonic times")]
    Ticks {
        /// Wall times.
        wall: usize,
        /// Monotonic times.
        monotonic: usize,
    },
    /// The values of a batch cannot be read.
    #[error("the columns of a batch cannot be read")]
    Columns(#[from] ColumnsError),
    /// A record or an event of a kind that this build does not know. Skipping it is safe.
    #[error("{0} of a kind that is not known here: upgrade the aggregator before the agents")]
    UnknownKind(&'static str),
}

/// A record, and what of it this build could not read.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// What was read.
    pub record: Record,
    /// Columns of metrics that are not in this build's catalogue; they were skipped.
    pub n_unknown_metrics: u32,
}

/// A record as bytes: spooled, sent and journalled like this.
pub fn encode_record(record: &Record) -> Vec<u8> {
    let body = match &record.body {
        Body::Batch(batch) => wire::record::Body::Batch(batch_to_wire(batch)),
        Body::Event(event) => wire::record::Body::Event(event_to_wire(event)),
        Body::Holder(change) => wire::record::Body::Holder(holder_change_to_wire(change)),
        Body::Inventory(inventory) => wire::record::Body::Inventory(inventory_to_wire(inventory)),
    };
    let record = wire::Record {
        seq: record.seq,
        body: Some(body),
    };
    record.encode_to_vec()
}

/// A record from bytes.
pub fn decode_record(bytes: &[u8]) -> Result<Decoded, ConvertError> {
    let record = wire::Record::decode(bytes).map_err(|source| ConvertError::Malformed {
        what: "Record",
        source,
    })?;
    let mut n_unknown_metrics = 0;
    let body = match record.body.ok_or(ConvertError::UnknownKind("a record"))? {
        wire::record::Body::Batch(batch) => {
            let (batch, n_unknown) = batch_from_wire(&batch)?;
            n_unknown_metrics = n_unknown;
            Body::Batch(batch)
        }
        wire::record::Body::Event(event) => Body::Event(event_from_wire(event)?),
        wire::record::Body::Holder(change) => Body::Holder(holder_change_from_wire(change)?),
        wire::record::Body::Inventory(inventory) => {
            Body::Inventory(inventory_from_wire(inventory)?)
        }
    };
    Ok(Decoded {
        record: Record {
            seq: record.seq,
            body,
        },
        n_unknown_metrics,
    })
}

/// The sequence number of an encoded record, without unpacking the rest; `None` if these bytes are no record.
pub fn record_seq(bytes: &[u8]) -> Option<u64> {
    /// A record of which only the number is looked at.
    #[derive(prost::Message)]
    struct Numbered {
        #[prost(uint64, tag = "1")]
        seq: u64,
    }
    Numbered::decode(bytes).ok().map(|record| record.seq)
}

/// A hello as bytes.
pub fn encode_hello(hello: &Hello) -> Vec<u8> {
    hello_to_wire(hello).encode_to_vec()
}

/// A hello from bytes.
pub fn decode_hello(bytes: &[u8]) -> Result<Hello, ConvertError> {
    let hello = wire::Hello::decode(bytes).map_err(|source| ConvertError::Malformed {
        what: "Hello",
        source,
    })?;
    hello_from_wire(hello)
}

/// A hello for the wire.
pub fn hello_to_wire(hello: &Hello) -> wire::Hello {
    wire::Hello {
        stream_id: hello.stream.0.to_vec().into(),
        node: hello.node.to_string(),
        labels: hello.labels.clone(),
        inventories: hello.inventories.iter().map(inventory_to_wire).collect(),
        agent_version: hello.agent_version.clone(),
        driver_version: hello.driver_version.clone(),
        interval_ms: hello.interval_ms,
        batch_ticks: hello.batch_ticks,
        first_seq: hello.first_seq,
        next_seq: hello.next_seq,
    }
}

/// A hello from the wire.
pub fn hello_from_wire(hello: wire::Hello) -> Result<Hello, ConvertError> {
    let stream = <[u8; 16]>::try_from(hello.stream_id.as_ref())
        .map_err(|_| ConvertError::Missing("a stream id of 16 bytes"))?;
    if hello.node.is_empty() {
        return Err(ConvertError::Missing("the node's name"));
    }
    if hello.interval_ms == 0 || hello.batch_ticks == 0 {
        return Err(ConvertError::Missing("an interval and a batch above zero"));
    }
    bounded("labels", hello.labels.len(), MAX_LABELS)?;
    bounded("inventories", hello.inventories.len(), MAX_INVENTORIES)?;
    let mut labels = BTreeMap::new();
    for (name, value) in hello.labels {
        labels.insert(text(name)?, text(value)?);
    }
    let inventories: Result<Vec<Inventory>, ConvertError> = hello
        .inventories
        .into_iter()
        .map(inventory_from_wire)
        .collect();
    Ok(Hello {
        stream: StreamId(stream),
        node: NodeId::from(text(hello.node)?),
        labels,
        inventories: inventories?,
        agent_version: text(hello.agent_version)?,
        driver_version: hello.driver_version.map(text).transpose()?,
        interval_ms: hello.interval_ms,
        batch_ticks: hello.batch_ticks,
        first_seq: hello.first_seq,
        next_seq: hello.next_seq,
    })
}

fn bounded(what: &'static str, found: usize, limit: usize) -> Result<(), ConvertError> {
    if found > limit {
        return Err(ConvertError::TooMany { what, found, limit });
    }
    Ok(())
}

fn text(text: String) -> Result<String, ConvertError> {
    bounded("bytes of text", text.len(), MAX_TEXT_BYTES)?;
    Ok(text)
}

fn inventory_to_wire(inventory: &Inventory) -> wire::Inventory {
    let gpus = inventory.gpus.iter().map(|gpu| wire::Gpu {
        uuid: gpu.uuid.to_string(),
        index: gpu.index,
        name: gpu.name.clone(),
        pci_bus_id: gpu.pci_bus_id.clone(),
        serial: gpu.serial.clone(),
        memory_total_bytes: gpu.memory_total_bytes,
        parent_uuid: gpu.parent.as_ref().map(ToString::to_string),
    });
    wire::Inventory {
        generation: inventory.generation,
        gpus: gpus.collect(),
    }
}

fn inventory_from_wire(inventory: wire::Inventory) -> Result<Inventory, ConvertError> {
    bounded("GPUs", inventory.gpus.len(), MAX_GPUS)?;
    let gpus: Result<Vec<GpuInfo>, ConvertError> =
        inventory.gpus.into_iter().map(gpu_from_wire).collect();
    Ok(Inventory {
        generation: inventory.generation,
        gpus: gpus?,
    })
}

fn gpu_from_wire(gpu: wire::Gpu) -> Result<GpuInfo, ConvertError> {
    Ok(GpuInfo {
        uuid: gpu_uuid(gpu.uuid)?,
        index: gpu.index,
        name: text(gpu.name)?,
        pci_bus_id: gpu.pci_bus_id.map(text).transpose()?,
        serial: gpu.serial.map(text).transpose()?,
        memory_total_bytes: gpu.memory_total_bytes,
        parent: gpu.parent_uuid.map(gpu_uuid).transpose()?,
    })
}

fn gpu_uuid(uuid: String) -> Result<GpuUuid, ConvertError> {
    if uuid.is_empty() {
        return Err(ConvertError::Missing("a GPU's UUID"));
    }
    text(uuid).map(GpuUuid::from)
}

fn batch_to_wire(batch: &Batch) -> wire::Batch {
    let wall: Vec<i64> = batch.ticks.iter().map(|tick| tick.at.0).collect();
    let monotonic: Vec<i64> = batch.ticks.iter().map(|t| t.monotonic_ms as i64).collect();
    wire::Batch {
        generation: batch.generation,
        gpus: batch.gpus,
        n_lost: batch.n_lost,
        tick_at_ms: differences(&wall),
        tick_monotonic_ms: differences(&monotonic),
        columns: columns::encode(&batch.rows, batch.gpus as usize).into(),
    }
}

fn batch_from_wire(batch: &wire::Batch) -> Result<(Batch, u32), ConvertError> {
    let (wall, monotonic) = (batch.tick_at_ms.len(), batch.tick_monotonic_ms.len());
    if wall != monotonic {
        return Err(ConvertError::Ticks { wall, monotonic });
    }
    let gpus = batch.gpus as usize;
    bounded("ticks", wall, MAX_TICKS)?;
    bounded("GPUs", gpus, MAX_GPUS)?;
    bounded("rows", wall * gpus, MAX_ROWS)?;
    let mut rows = vec![Values::default(); wall * gpus];
    let n_unknown = columns::decode(&batch.columns, gpus, &mut rows)?;
    let ticks = sums(&batch.tick_at_ms)
        .zip(sums(&batch.tick_monotonic_ms))
        .map(|(wall, monotonic)| Tick {
            at: Timestamp(wall),
            monotonic_ms: monotonic as u64,
        });
    let batch = Batch {
        generation: batch.generation,
        gpus: batch.gpus,
        n_lost: batch.n_lost,
        ticks: ticks.collect(),
        rows,
    };
    Ok((batch, n_unknown))
}

/// The first number, then how far each is from the one before.
fn differences(numbers: &[i64]) -> Vec<i64> {
    let before = std::iter::once(&0).chain(numbers);
    let pairs = numbers.iter().zip(before);
    pairs
        .map(|(now, before)| now.wrapping_sub(*before))
        .collect()
}

/// The inverse of [`differences`].
fn sums(differences: &[i64]) -> impl Iterator<Item = i64> + '_ {
    differences.iter().scan(0i64, |sum, difference| {
        *sum = sum.wrapping_add(*difference);
        Some(*sum)
    })
}

fn event_to_wire(event: &GpuEvent) -> wire::GpuEvent {
    let GpuEventKind::Xid(xid) = event.what;
    wire::GpuEvent {
        at_ms: event.at.0,
        gpu_uuid: event.gpu.as_ref().map(ToString::to_string),
        what: Some(wire::gpu_event::What::Xid(xid)),
    }
}

fn event_from_wire(event: wire::GpuEvent) -> Result<GpuEvent, ConvertError> {
    let what = event.what.ok_or(ConvertError::UnknownKind("an event"))?;
    let wire::gpu_event::What::Xid(xid) = what;
    Ok(GpuEvent {
        at: Timestamp(event.at_ms),
        gpu: event.gpu_uuid.map(gpu_uuid).transpose()?,
        what: GpuEventKind::Xid(xid),
    })
}

fn holder_change_to_wire(change: &HolderChange) -> wire::HolderChange {
    wire::HolderChange {
        at_ms: change.at.0,
        gpu_uuid: change.gpu.to_string(),
        holder: change.holder.as_ref().map(holder_to_wire),
    }
}

fn holder_change_from_wire(change: wire::HolderChange) -> Result<HolderChange, ConvertError> {
    Ok(HolderChange {
        at: Timestamp(change.at_ms),
        gpu: gpu_uuid(change.gpu_uuid)?,
        holder: change.holder.map(holder_from_wire).transpose()?,
    })
}

fn holder_to_wire(holder: &Holder) -> wire::Holder {
    let kind = match holder.kind {
        JobKind::Unknown => wire::JobKind::Unspecified,
        JobKind::Train => wire::JobKind::Train,
        JobKind::Inference => wire::JobKind::Inference,
        JobKind::Interactive => wire::JobKind::Interactive,
    };
    wire::Holder {
        job: holder.job.clone(),
        kind: kind.into(),
        rank_group: holder.rank_group.clone(),
        namespace: holder.namespace.clone(),
        pod: holder.pod.clone(),
        container: holder.container.clone(),
        user: holder.user.clone(),
        pids: holder.pids.iter().copied().take(MAX_PIDS).collect(),
    }
}

fn holder_from_wire(holder: wire::Holder) -> Result<Holder, ConvertError> {
    bounded("processes", holder.pids.len(), MAX_PIDS)?;
    let kind = match holder.kind() {
        wire::JobKind::Unspecified => JobKind::Unknown,
        wire::JobKind::Train => JobKind::Train,
        wire::JobKind::Inference => JobKind::Inference,
        wire::JobKind::Interactive => JobKind::Interactive,
    };
    Ok(Holder {
        job: text(holder.job)?,
        kind,
        rank_group: holder.rank_group.map(text).transpose()?,
        namespace: holder.namespace.map(text).transpose()?,
        pod: holder.pod.map(text).transpose()?,
        container: holder.container.map(text).transpose()?,
        user: holder.user.map(text).transpose()?,
        pids: holder.pids,
    })
}
