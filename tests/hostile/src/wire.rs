//! Messages of the wire.

use entrenar::report::{Batch, Body, Record, Tick};
use entrenar::unit::Timestamp;
use entrenar_proto::convert::{MAX_GPUS, MAX_ROWS, MAX_TICKS, record_seq};
use entrenar_proto::wire::{AgentMessage, agent_message::What};
use entrenar_proto::{convert, decode_hello, decode_record, encode_hello, encode_record};
use prost::Message as _;

use crate::bytes::Recipe;

/// GPUs in a recipe's batch, so that its rows fall into ticks.
const GPUS: usize = 3;

/// A message is refused, or holds within its bounds what is written and read again; and what is written is read.
pub fn wire(bytes: &[u8]) {
    if let Ok(AgentMessage {
        what: Some(what), ..
    }) = AgentMessage::decode(bytes)
    {
        match what {
            What::Record(record) => read_record(&record),
            What::Hello(hello) => {
                let _ = convert::hello_from_wire(hello);
            }
            What::Goodbye(_) => {}
        }
    }
    read_record(bytes);
    if let Ok(hello) = decode_hello(bytes) {
        let again = decode_hello(&encode_hello(&hello));
        assert_eq!(again.expect("our own bytes"), hello);
    }
    written(bytes);
}

fn read_record(bytes: &[u8]) {
    let Ok(decoded) = decode_record(bytes) else {
        return;
    };
    assert_eq!(record_seq(bytes), Some(decoded.record.seq));
    if let Body::Batch(batch) = &decoded.record.body {
        let gpus = batch.gpus as usize;
        assert!(batch.ticks.len() <= MAX_TICKS && gpus <= MAX_GPUS);
        assert!(batch.rows.len() <= MAX_ROWS);
        assert_eq!(batch.rows.len(), gpus * batch.ticks.len());
    }
    let again = decode_record(&encode_record(&decoded.record)).expect("our own bytes");
    assert_eq!(again.record, decoded.record);
}

fn written(recipe: &[u8]) {
    let samples = Recipe::new(recipe).samples();
    let ticks = samples.chunks_exact(GPUS);
    let tick = |tick: &[(Timestamp, _)]| Tick {
        at: tick[0].0,
        monotonic_ms: tick[0].0.0 as u64,
    };
    let batch = Batch {
        generation: 1,
        gpus: GPUS as u32,
        n_lost: samples.len() as u64,
        rows: ticks
            .clone()
            .flatten()
            .map(|(_, row)| row.clone())
            .collect(),
        ticks: ticks.map(tick).collect(),
    };
    let record = Record {
        seq: 7,
        body: Body::Batch(batch),
    };
    let read = decode_record(&encode_record(&record)).expect("our own bytes");
    assert_eq!(read.record, record);
    assert_eq!(read.n_unknown_metrics, 0);
}
