//! Bytes of a segment: its header, its entries, and how a reader finds where the good ones end. Pure.
//!
//! Drawn in `docs/formats/spool.md`.

use entrenar::report::StreamId;
use entrenar::unit::Timestamp;

/// First bytes of a segment: a name, and the version of the format in the last one.
const MAGIC: [u8; 8] = *b"ENTRSPL\x01";
/// Where the version stands.
const VERSION_AT: usize = 7;

/// Bytes of a segment's header.
pub const HEADER_BYTES: usize = 44;

/// Bytes of an entry before its payload.
pub const ENTRY_HEAD_BYTES: usize = 20;

/// Longest payload. A longer one is not written, and a longer length that is read is damage.
pub const MAX_PAYLOAD_BYTES: usize = entrenar_proto::MAX_MESSAGE_BYTES;

/// What a segment says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The stream that was written when the segment was begun.
    pub stream: StreamId,
    /// The number that the next record had when the segment was begun.
    pub first_seq: u64,
    /// When it was begun, by the wall clock.
    pub begun_at: Timestamp,
}

/// Why a header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It was being written when the power went, or is not a segment.
    #[error("the header is incomplete or damaged")]
    Damaged,
    /// Another version of the agent wrote it.
    #[error(
        "it is of format version {0}, and this agent knows only 1: use the agent that wrote it, or move the spool directory away"
    )]
    Version(u8),
}

impl Header {
    /// As bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..24].copy_from_slice(&self.stream.0);
        bytes[24..32].copy_from_slice(&self.first_seq.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.begun_at.0.to_le_bytes());
        let check = crc32fast::hash(&bytes[..40]);
        bytes[40..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// From the first bytes of a segment.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let bytes = bytes.get(..HEADER_BYTES).ok_or(HeaderError::Damaged)?;
        if bytes[..VERSION_AT] == MAGIC[..VERSION_AT] && bytes[VERSION_AT] != MAGIC[VERSION_AT] {
            return Err(HeaderError::Version(bytes[VERSION_AT]));
        }
        let check = u32::from_le_bytes(array(&bytes[40..]));
        if bytes[..8] != MAGIC || crc32fast::hash(&bytes[..40]) != check {
            return Err(HeaderError::Damaged);
        }
        Ok(Self {
            stream: StreamId(array(&bytes[8..24])),
            first_seq: u64::from_le_bytes(array(&bytes[24..32])),
            begun_at: Timestamp(i64::from_le_bytes(array(&bytes[32..40]))),
        })
    }
}

/// What an entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A record of the stream.
    Record = 0,
    /// A record of the stream that is an inventory.
    Inventory = 1,
    /// The inventory in force when the segment was begun, so that no segment needs an older one to be understood.
    Carried = 2,
}

impl Kind {
    /// Whether it belongs to the stream and has a number.
    pub fn is_record(self) -> bool {
        self != Self::Carried
    }
}

/// An entry, its payload where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What it holds.
    pub kind: Kind,
    /// Number in the stream; 0 if it is carried.
    pub seq: u64,
    /// An encoded `Record`.
    pub payload: &'a [u8],
}

impl Entry<'_> {
    /// Bytes that it takes in a segment.
    pub fn size(&self) -> usize {
        ENTRY_HEAD_BYTES + self.payload.len()
    }

    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.size());
        bytes.extend((self.payload.len() as u32).to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend([self.kind as u8, 0, 0, 0]);
        bytes.extend(self.seq.to_le_bytes());
        bytes.extend(self.payload);
        let check = crc32fast::hash(&bytes[8..]);
        bytes[4..8].copy_from_slice(&check.to_le_bytes());
        bytes
    }
}

/// The good entries of a segment, in order, behind its header. Ends at the first that is torn or damaged.
pub fn entries(segment: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    let mut rest = segment.get(HEADER_BYTES..).unwrap_or_default();
    let mut last_seq = 0;
    std::iter::from_fn(move || {
        let (entry, behind) = split_entry(rest)?;
        // Numbers only go up; anything else is not what was written.
        if entry.kind.is_record() && entry.seq <= last_seq {
            return None;
        }
        last_seq = last_seq.max(entry.seq);
        rest = behind;
        Some(entry)
    })
}

fn split_entry(bytes: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let head = bytes.get(..ENTRY_HEAD_BYTES)?;
    let length = u32::from_le_bytes(array(&head[..4])) as usize;
    if length > MAX_PAYLOAD_BYTES {
        return None;
    }
    let (whole, behind) = bytes.split_at_checked(ENTRY_HEAD_BYTES + length)?;
    if crc32fast::hash(&whole[8..]) != u32::from_le_bytes(array(&head[4..8])) {
        return None;
    }
    let kind = match head[8] {
        0 => Kind::Record,
        1 => Kind::Inventory,
        2 => Kind::Carried,
        _ => return None,
    };
    let entry = Entry {
        kind,
        seq: u64::from_le_bytes(array(&head[12..20])),
        payload: &whole[ENTRY_HEAD_BYTES..],
    };
    Some((entry, behind))
}

/// A slice whose length is known as an array.
fn array<const N: usize>(slice: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(slice);
    array
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segment(payloads: &[Vec<u8>]) -> Vec<u8> {
        let header = Header {
            stream: StreamId([7; 16]),
            first_seq: 5,
            begun_at: Timestamp(-3),
        };
        let mut bytes = header.encode().to_vec();
        for (seq, payload) in (5..).zip(payloads) {
            let entry = Entry {
                kind: Kind::Record,
                seq,
                payload,
            };
            bytes.extend(entry.encode());
        }
        assert_eq!(Header::decode(&bytes), Ok(header));
        bytes
    }

    proptest! {
        #[test]
        fn entries_survive_up_to_the_first_damage(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..8),
            at in any::<prop::sample::Index>(),
            bit in 0u8..8,
            cut in any::<bool>(),
        ) {
            let mut bytes = segment(&payloads);
            let whole: Vec<Vec<u8>> = entries(&bytes).map(|e| e.payload.to_vec()).collect();
            prop_assert_eq!(&whole, &payloads);
            let at = HEADER_BYTES + at.index(bytes.len() - HEADER_BYTES);
            if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
            let mut end = HEADER_BYTES;
            let before = payloads.iter().take_while(|payload| {
                end += ENTRY_HEAD_BYTES + payload.len();
                end <= at
            });
            let good: Vec<Vec<u8>> = entries(&bytes).map(|e| e.payload.to_vec()).collect();
            prop_assert_eq!(&good, &before.cloned().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_later_format_is_told_apart_from_damage() {
        let mut bytes = segment(&[]);
        bytes[VERSION_AT] = 2;
        assert_eq!(Header::decode(&bytes), Err(HeaderError::Version(2)));
        bytes[VERSION_AT] = 1;
        bytes[30] ^= 1;
        assert_eq!(Header::decode(&bytes), Err(HeaderError::Damaged));
        assert_eq!(Header::decode(&bytes[..20]), Err(HeaderError::Damaged));
    }
}
