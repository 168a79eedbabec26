//! Rows of the journal.

use entrenar::report::StreamId;
use entrenar::unit::Timestamp;
use entrenar_aggregator::store::JournalEntry;
use entrenar_aggregator::store::journal::{decode, encode};

use crate::bytes::{Recipe, dressed};

/// A row is refused, or holds entries that are written and read again; and what is written is read.
pub fn journal(bytes: &[u8]) {
    for row in [bytes, &dressed(bytes)] {
        if let Ok(entries) = decode(row) {
            written(&entries);
        }
    }
    written(&entries(bytes));
}

/// A recipe's entries, in one row.
pub(crate) fn write(recipe: &[u8]) -> Vec<Vec<u8>> {
    vec![encode(&entries(recipe)).expect("a row that is not too long")]
}

/// Whether a row is read at all.
pub(crate) fn reads(row: &[u8]) -> bool {
    decode(row).is_ok()
}

fn entries(recipe: &[u8]) -> Vec<JournalEntry> {
    let mut recipe = Recipe::new(recipe);
    let mut entries = Vec::new();
    while !recipe.is_over() {
        entries.push(entry(&mut recipe));
    }
    entries
}

fn written(entries: &[JournalEntry]) {
    let row = encode(entries).expect("a row that is not too long");
    assert_eq!(decode(&row).as_deref(), Ok(entries));
}

fn entry(recipe: &mut Recipe<'_>) -> JournalEntry {
    let (kind, at) = (recipe.byte() & 3, Timestamp(recipe.number()));
    if kind == 3 {
        return JournalEntry::Advance { to: at };
    }
    let stream = StreamId(recipe.array());
    let mut content = || {
        let n = recipe.byte();
        recipe.bytes(n.into()).to_vec()
    };
    match kind {
        0 => JournalEntry::Hello {
            received_at: at,
            stream,
            bytes: content(),
        },
        1 => JournalEntry::Record {
            received_at: at,
            bytes: content(),
            stream,
            sent_at: Timestamp(recipe.number()),
        },
        _ => JournalEntry::Goodbye {
            received_at: at,
            stream,
        },
    }
}
