//! The fuzzer's targets as property tests, with bytes of three kinds: any, damaged, and dressed up.

use entrenar_hostile::{TARGETS, Target, damaged};
use proptest::prelude::*;
use proptest::sample::Index;

/// A seed of which some bytes were replaced, and which may have been cut or prolonged.
fn bent(target: &Target) -> impl Strategy<Value = Vec<u8>> {
    let seeds = (target.seeds)();
    let changes = prop::collection::vec((any::<Index>(), any::<u8>()), 0..6);
    let tail = prop_oneof![
        3 => Just(Vec::new()),
        1 => prop::collection::vec(any::<u8>(), 0..9),
    ];
    let cut = prop_oneof![3 => Just(None), 1 => any::<Index>().prop_map(Some)];
    (prop::sample::select(seeds), changes, cut, tail).prop_map(|(mut blob, changes, cut, tail)| {
        for (at, byte) in changes {
            let at = at.index(blob.len());
            blob[at] = byte;
        }
        blob.truncate(cut.map_or(blob.len(), |at| at.index(blob.len())));
        blob.extend(tail);
        blob
    })
}

/// `PROPTEST_CASES` makes it look longer.
fn holds(target: &Target) {
    let of_any = |length| prop::collection::vec(any::<u8>(), 0..length);
    let bytes = prop_oneof![bent(target), of_any(600)];
    proptest!(config(256), |(bytes in bytes)| (target.check)(&bytes));
    for seed in (target.seeds)() {
        (target.check)(&seed);
    }
    let Some(checked) = target.checked else {
        return;
    };
    proptest!(config(24), |(recipe in of_any(120))| {
        for blob in (checked.write)(&recipe) {
            prop_assert!((checked.reads)(&blob));
            for (what, bent) in damaged(&blob) {
                prop_assert!(!(checked.reads)(&bent), "{}: {}", target.name, what);
            }
        }
    });
}

/// Nothing is written down: what is found becomes a story.
fn config(cases: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok();
    ProptestConfig {
        cases: asked.and_then(|n| n.parse().ok()).unwrap_or(cases),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

#[test]
fn a_chunk_is_sound_or_refused_and_damage_is_always_noticed() {
    holds(&TARGETS[0]);
}

#[test]
fn a_rollup_is_sound_or_refused_and_damage_is_always_noticed() {
    holds(&TARGETS[1]);
}

#[test]
fn a_journal_row_is_sound_or_refused_and_damage_is_always_noticed() {
    holds(&TARGETS[2]);
}

#[test]
fn a_sheet_is_sound_or_refused_and_damage_is_always_noticed() {
    holds(&TARGETS[3]);
}

#[test]
fn a_message_is_sound_or_refused() {
    holds(&TARGETS[4]);
}

/// Without a checksum of its own a damaged message may be a sound one: gRPC's transport has one.
#[test]
fn a_damaged_message_breaks_nothing() {
    let target = &TARGETS[4];
    for seed in (target.seeds)() {
        damaged(&seed).for_each(|(_, bent)| (target.check)(&bent));
    }
}
