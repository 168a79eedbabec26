use entrenar::gpu::Values;
use entrenar::metric::{ENERGY, POWER, PROCESSES, TEMPERATURE};
use proptest::prelude::*;

use super::*;

const MINUTE: Duration = STEPS[0];

fn decoded(rollup: &Rollup, metric: MetricId) -> Vec<(Timestamp, Summary)> {
    let blob = encode(rollup).expect("a rollup of samples has buckets");
    let (step, buckets) = decode(&blob, metric).expect("its own bytes");
    assert_eq!(step, rollup.step);
    buckets
}

/// Three metrics of different habits, some absent, with gaps of up to two minutes.
fn samples() -> impl Strategy<Value = Vec<Sample>> {
    let value = prop_oneof![
        4 => (0..300_i64).prop_map(Some),
        3 => Just(Some(7)),
        1 => (0..=i64::MAX >> 12).prop_map(Some),
        2 => Just(None),
    ];
    let row = (1..120_000_i64, proptest::collection::vec(value, 3));
    let rows = proptest::collection::vec(row, 1..120);
    (-9_999_999_999..9_999_999_999_999_i64, rows).prop_map(|(start, rows)| {
        let mut at = start;
        let sample = |(step, values): (i64, Vec<Option<i64>>)| {
            at += step;
            let mut row = Values::default();
            for (metric, value) in [TEMPERATURE, ENERGY, PROCESSES].iter().zip(values) {
                row.set(*metric, value);
            }
            (Timestamp(at), row)
        };
        rows.into_iter().map(sample).collect()
    })
}

/// What a person would work out with pencil and paper.
fn by_hand(samples: &[Sample], metric: MetricId, step: Duration) -> Vec<(Timestamp, Summary)> {
    let kind = kind_of(metric).expect("a metric of the catalogue");
    let mut buckets: Vec<(Timestamp, Vec<i64>)> = Vec::new();
    for (at, values) in samples {
        let Some(value) = values.get(metric) else {
            continue;
        };
        let start = start_of(*at, step);
        match buckets.last_mut() {
            Some((known, values)) if *known == start => values.push(value),
            _ => buckets.push((start, vec![value])),
        }
    }
    let summary = |values: &[i64]| {
        let (first, last, count) = (values[0], values[values.len() - 1], values.len() as u32);
        match kind {
            Kind::Gauge => Summary::Gauge(Gauge {
                min: *values.iter().min().expect("one"),
                max: *values.iter().max().expect("one"),
                sum: values.iter().sum(),
                last,
                count,
            }),
            Kind::Counter => Summary::Counter(Counter {
                first,
                last,
                increase: values.windows(2).map(|pair| rise(pair[0], pair[1])).sum(),
                count,
            }),
        }
    };
    buckets
        .iter()
        .map(|(start, values)| (*start, summary(values)))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_read_is_what_pencil_and_paper_give(samples in samples()) {
        for step in STEPS {
            let rollup = Rollup::of(&samples, step);
            for metric in [TEMPERATURE, ENERGY, PROCESSES, POWER] {
                prop_assert_eq!(decoded(&rollup, metric), by_hand(&samples, metric, step));
            }
        }
    }

    /// Stretches cut minutes and hours anywhere.
    #[test]
    fn parts_of_a_bucket_join_to_the_whole(samples in samples(), cut in any::<prop::sample::Index>()) {
        let at = cut.index(samples.len());
        let (early, late) = samples.split_at(at);
        for metric in [TEMPERATURE, ENERGY] {
            let mut joined: Vec<(Timestamp, Summary)> = Vec::new();
            for part in [early, late].into_iter().filter(|part| !part.is_empty()) {
                for (start, summary) in decoded(&Rollup::of(part, MINUTE), metric) {
                    match joined.last_mut() {
                        Some((known, whole)) if *known == start => whole.join(&summary),
                        _ => joined.push((start, summary)),
                    }
                }
            }
            prop_assert_eq!(joined, by_hand(&samples, metric, MINUTE));
        }
    }

    #[test]
    fn bytes_that_are_no_rollup_are_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(decode(&bytes, POWER).is_err());
        let mut dressed = vec![bytes::VERSION, 0, 0, 0, 0];
        dressed.extend(bytes);
        let sum = bytes::checksum(&dressed).to_le_bytes();
        dressed[1..5].copy_from_slice(&sum);
        let _ = (decode(&dressed, POWER), decode(&dressed, ENERGY));
    }
}

#[test]
fn every_truncation_and_every_flipped_bit_is_noticed() {
    let row = |second: i64| {
        let values = Values::default()
            .with(POWER, 600_000 + second * 7919 % 257)
            .with(ENERGY, second * 600_000)
            .with(TEMPERATURE, 60);
        (Timestamp::from_secs(1_700_000_000 + second), values)
    };
    let samples: Vec<Sample> = (0..300).map(row).collect();
    let blob = encode(&Rollup::of(&samples, MINUTE)).expect("bytes");
    for length in 0..blob.len() {
        assert!(decode(&blob[..length], POWER).is_err(), "cut at {length}");
    }
    for bit in 0..blob.len() * 8 {
        let mut bent = blob.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&bent, POWER).is_err(), "bit {bit}");
    }
}

#[test]
fn a_step_is_kept_where_it_sums_up_enough() {
    let steps = |secs| {
        steps_for(Duration::from_secs(secs))
            .map(|s| s.as_secs())
            .collect::<Vec<_>>()
    };
    assert_eq!(steps(1), [60, 3600]);
    assert_eq!(steps(2), [3600]);
    assert_eq!(steps(60), [3600]);
    assert_eq!(steps(300), [0; 0]);
}
