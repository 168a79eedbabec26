//! A row of the journal as bytes, and back. Drawn in `docs/formats/journal.md`.
//!
//! A row is one group commit: what all agents sent in some half a second, in the order in which it reached the line,
//! between marks of the engine's clock. The order is kept exactly: replaying it must decide the same.

use entrenar::report::StreamId;
use entrenar::unit::Timestamp;

use super::JournalEntry;
use crate::chunk::varint::{self, unzigzag, zigzag};

/// First byte of every row.
pub const VERSION: u8 = 1;

/// Largest row before compression. A group commit that would be longer is refused: the line commits far earlier.
pub const MAX_ROW_BYTES: usize = 128 * 1024 * 1024;

/// Most entries of a row, so that a few damaged bytes cannot eat the memory: several times what waits at most while a
/// store stands still.
pub const MAX_ENTRIES: usize = 1 << 23;

/// Why bytes are not a journal row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    #[error("journal row is cut short")]
    Truncated,
    #[error("journal row has version {0}, this build reads {VERSION}: a newer entrenar wrote it")]
    Version(u8),
    #[error("journal row fails its checksum")]
    Checksum,
    #[error("journal row is malformed: {0}")]
    Malformed(&'static str),
    #[error("journal row of {0} bytes: at most {MAX_ROW_BYTES} are allowed, commit more often")]
    TooLong(usize),
    #[error("journal row of more than {MAX_ENTRIES} entries: commit more often")]
    TooMany,
}

const HELLO: u8 = 0;
const RECORD: u8 = 1;
const GOODBYE: u8 = 2;
const ADVANCE: u8 = 3;
/// Version, checksum, length before compression.
const HEADER: usize = 1 + 4 + 4;
/// Records of one agent resemble each other; level 1 finds that out at some 5 ns a byte.
const ZSTD_LEVEL: i32 = 1;

/// The entries as one row.
pub fn encode(entries: &[JournalEntry]) -> Result<Vec<u8>, JournalError> {
    if entries.len() > MAX_ENTRIES {
        return Err(JournalError::TooMany);
    }
    let mut plain = Vec::new();
    let mut clock = Timestamp(0);
    for entry in entries {
        put_entry(&mut plain, entry, &mut clock);
    }
    if plain.len() > MAX_ROW_BYTES {
        return Err(JournalError::TooLong(plain.len()));
    }
    let packed = zstd::bulk::compress(&plain, ZSTD_LEVEL).expect("compressing needs only memory");
    let mut row = Vec::with_capacity(HEADER + packed.len());
    row.push(VERSION);
    row.extend([0; 4]);
    row.extend((plain.len() as u32).to_le_bytes());
    row.extend(packed);
    let checksum = checksum(&row).to_le_bytes();
    row[1..5].copy_from_slice(&checksum);
    Ok(row)
}

/// The entries of a row, in their order.
pub fn decode(row: &[u8]) -> Result<Vec<JournalEntry>, JournalError> {
    match row.first() {
        Some(&VERSION) if row.len() >= HEADER => {}
        None | Some(&VERSION) => return Err(JournalError::Truncated),
        Some(&other) => return Err(JournalError::Version(other)),
    }
    if checksum(row) != u32_at(row, 1) {
        return Err(JournalError::Checksum);
    }
    let length = u32_at(row, 5) as usize;
    if length > MAX_ROW_BYTES {
        return Err(JournalError::TooLong(length));
    }
    let plain = zstd::bulk::decompress(&row[HEADER..], length)
        .map_err(|_| JournalError::Malformed("it does not inflate"))?;
    if plain.len() != length {
        return Err(JournalError::Malformed("wrong length"));
    }
    let (mut rest, mut clock) = (plain.as_slice(), Timestamp(0));
    let mut entries = Vec::new();
    while !rest.is_empty() {
        if entries.len() == MAX_ENTRIES {
            return Err(JournalError::TooMany);
        }
        entries.push(take_entry(&mut rest, &mut clock).ok_or(JournalError::Malformed("entry"))?);
    }
    Ok(entries)
}

/// Times are written as differences to the last one written: `clock`.
fn put_entry(plain: &mut Vec<u8>, entry: &JournalEntry, clock: &mut Timestamp) {
    let mut time = |plain: &mut Vec<u8>, at: Timestamp| {
        varint::put(plain, zigzag(at.0.wrapping_sub(clock.0)));
        *clock = at;
    };
    match entry {
        JournalEntry::Hello {
            received_at,
            stream,
            bytes,
        } => {
            plain.push(HELLO);
            time(plain, *received_at);
            plain.extend(stream.0);
            put_bytes(plain, bytes);
        }
        JournalEntry::Record {
            received_at,
            sent_at,
            stream,
            bytes,
        } => {
            plain.push(RECORD);
            time(plain, *sent_at);
            time(plain, *received_at);
            plain.extend(stream.0);
            put_bytes(plain, bytes);
        }
        JournalEntry::Goodbye {
            received_at,
            stream,
        } => {
            plain.push(GOODBYE);
            time(plain, *received_at);
            plain.extend(stream.0);
        }
        JournalEntry::Advance { to } => {
            plain.push(ADVANCE);
            time(plain, *to);
        }
    }
}

fn put_bytes(plain: &mut Vec<u8>, bytes: &[u8]) {
    varint::put(plain, bytes.len() as u64);
    plain.extend(bytes);
}

fn take_entry(rest: &mut &[u8], clock: &mut Timestamp) -> Option<JournalEntry> {
    let (tag, after) = rest.split_first()?;
    *rest = after;
    let mut time = |rest: &mut &[u8]| {
        let difference = unzigzag(varint::take(rest)?);
        *clock = Timestamp(clock.0.wrapping_add(difference));
        Some(*clock)
    };
    Some(match *tag {
        HELLO => JournalEntry::Hello {
            received_at: time(rest)?,
            stream: take_stream(rest)?,
            bytes: take_bytes(rest)?,
        },
        RECORD => JournalEntry::Record {
            sent_at: time(rest)?,
            received_at: time(rest)?,
            stream: take_stream(rest)?,
            bytes: take_bytes(rest)?,
        },
        GOODBYE => JournalEntry::Goodbye {
            received_at: time(rest)?,
            stream: take_stream(rest)?,
        },
        ADVANCE => JournalEntry::Advance { to: time(rest)? },
        _ => return None,
    })
}

fn take_stream(rest: &mut &[u8]) -> Option<StreamId> {
    let (id, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(StreamId(*id))
}

fn take_bytes(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let length = usize::try_from(varint::take(rest)?).ok()?;
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(bytes.to_vec())
}

/// Over everything but itself.
fn checksum(row: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&row[..1]);
    crc.update(&row[5..]);
    crc.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> impl Strategy<Value = JournalEntry> {
        let time = || {
            prop_oneof![any::<i64>(), 1_700_000_000_000..1_700_000_100_000i64].prop_map(Timestamp)
        };
        let stream = || any::<[u8; 16]>().prop_map(StreamId);
        let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
        prop_oneof![
            (time(), stream(), bytes()).prop_map(|(received_at, stream, bytes)| {
                JournalEntry::Hello {
                    received_at,
                    stream,
                    bytes,
                }
            }),
            (time(), time(), stream(), bytes()).prop_map(
                |(received_at, sent_at, stream, bytes)| {
                    JournalEntry::Record {
                        received_at,
                        sent_at,
                        stream,
                        bytes,
                    }
                }
            ),
            (time(), stream()).prop_map(|(received_at, stream)| JournalEntry::Goodbye {
                received_at,
                stream
            }),
            time().prop_map(|to| JournalEntry::Advance { to }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn entries_come_back_in_their_order(entries in proptest::collection::vec(entry(), 0..20)) {
            prop_assert_eq!(decode(&encode(&entries).unwrap()).unwrap(), entries);
        }

        #[test]
        fn an_inside_that_makes_no_sense_is_refused_without_panic(
            plain in proptest::collection::vec(any::<u8>(), 0..60),
            length in prop_oneof![Just(None), any::<u32>().prop_map(Some)],
        ) {
            let mut row = vec![VERSION, 0, 0, 0, 0];
            row.extend(length.unwrap_or(plain.len() as u32).min(1 << 20).to_le_bytes());
            row.extend(zstd::bulk::compress(&plain, 1).unwrap());
            let sum = checksum(&row).to_le_bytes();
            row[1..5].copy_from_slice(&sum);
            let _ = decode(&row);
        }
    }

    /// Two bytes each make an entry of forty times that, and zstd writes them as nothing.
    #[test]
    fn a_short_row_of_many_entries_does_not_eat_the_memory() {
        let plain: Vec<u8> = [ADVANCE, 2].repeat(MAX_ENTRIES + 1);
        let mut row = vec![VERSION, 0, 0, 0, 0];
        row.extend((plain.len() as u32).to_le_bytes());
        row.extend(zstd::bulk::compress(&plain, 1).unwrap());
        let sum = checksum(&row).to_le_bytes();
        row[1..5].copy_from_slice(&sum);
        assert!(row.len() < 8 << 10);
        assert_eq!(decode(&row), Err(JournalError::TooMany));
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_noticed() {
        let stream = StreamId([7; 16]);
        let row = encode(&[
            JournalEntry::Goodbye {
                received_at: Timestamp(1),
                stream,
            },
            JournalEntry::Record {
                received_at: Timestamp(5),
                sent_at: Timestamp(4),
                stream,
                bytes: vec![1; 99],
            },
        ])
        .unwrap();
        for length in 0..row.len() {
            assert!(decode(&row[..length]).is_err(), "cut at {length}");
        }
        for bit in 0..row.len() * 8 {
            let mut bent = row.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bent).is_err(), "bit {bit}");
        }
    }
}
