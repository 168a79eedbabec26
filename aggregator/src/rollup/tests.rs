use entrenar::gpu::Values;
use entrenar::metric::{ENERGY, POWER, PROCESSES, TEMPERATURE};
use proptest::prelude::*;

use super::*;
use crate::chunk::Sample;

const MINUTE: Duration = STEPS[0];

/// As a chunk has them.
fn columns(samples: &[Sample], profile: Profile) -> Columns {
    let blob = chunk::encode(samples, profile).expect("samples");
    chunk::decode_columns(&blob).expect("its own bytes")
}

fn decoded(samples: &[Sample], metric: MetricId, step: Duration) -> Vec<Bucket> {
    let blob = encode(&Rollup::of(&columns(samples, Profile::Exact), step))
        .expect("a rollup of samples has buckets");
    decode(&blob, metric).expect("its own bytes")
}

/// What any function asks of a bucket of a kind; the rest is not kept.
fn told(metric: MetricId, bucket: &Bucket) -> [i128; 6] {
    let count = i128::from(bucket.count);
    let whole = |value: i64| i128::from(value);
    match kind_of(metric).expect("a metric of the catalogue") {
        Kind::Gauge => [
            whole(bucket.min),
            whole(bucket.max),
            bucket.sum,
            whole(bucket.last.1),
            count,
            0,
        ],
        Kind::Counter => [
            whole(bucket.first.1),
            whole(bucket.last.1),
            bucket.increase,
            count,
            whole(bucket.first.0.0),
            whole(bucket.last.0.0),
        ],
    }
}

/// What a person would work out with pencil and paper.
fn by_hand(samples: &[Sample], metric: MetricId, step: Duration) -> Vec<Bucket> {
    let mut buckets: Vec<Bucket> = Vec::new();
    for (at, values) in samples {
        let Some(value) = values.get(metric) else {
            continue;
        };
        let next = Bucket::of((*at, value));
        match buckets.last_mut() {
            Some(known) if start_of(known.began(), step) == start_of(*at, step) => {
                *known = known.then(next);
            }
            _ => buckets.push(next),
        }
    }
    buckets
}

fn all_told(metric: MetricId, buckets: &[Bucket]) -> Vec<[i128; 6]> {
    buckets.iter().map(|bucket| told(metric, bucket)).collect()
}

fn is_flat(buckets: &[Bucket]) -> bool {
    let value = buckets.first().map(|bucket| bucket.min);
    let stays = |bucket: &Bucket| Some(bucket.min) == value && Some(bucket.max) == value;
    buckets.iter().all(stays)
}

/// Joins parts of one bucket, as a reader does.
fn joined(parts: impl IntoIterator<Item = Bucket>, step: Duration) -> Vec<Bucket> {
    let mut whole: Vec<Bucket> = Vec::new();
    for part in parts {
        match whole.last_mut() {
            Some(known) if start_of(known.began(), step) == start_of(part.began(), step) => {
                *known = known.then(part);
            }
            _ => whole.push(part),
        }
    }
    whole
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_read_is_what_pencil_and_paper_give(samples in samples()) {
        for step in STEPS {
            for metric in [TEMPERATURE, ENERGY, PROCESSES, POWER] {
                let read = decoded(&samples, metric, step);
                let expected = by_hand(&samples, metric, step);
                if is_flat(&expected) {
                    // Of what never changes nobody asks when it was read.
                    let said = |buckets: &[Bucket]| buckets.iter().map(|b| (b.min, b.count)).collect::<Vec<_>>();
                    prop_assert_eq!(said(&read), said(&expected));
                } else {
                    prop_assert_eq!(all_told(metric, &read), all_told(metric, &expected));
                }
            }
        }
    }

    /// Stretches cut minutes and hours anywhere.
    #[test]
    fn parts_of_a_bucket_join_to_the_whole(samples in samples(), cut in any::<prop::sample::Index>()) {
        let (early, late) = samples.split_at(cut.index(samples.len()));
        for metric in [TEMPERATURE, ENERGY] {
            let parts = [early, late].into_iter().filter(|part| !part.is_empty());
            let whole = joined(parts.flat_map(|part| decoded(part, metric, MINUTE)), MINUTE);
            let expected = by_hand(&samples, metric, MINUTE);
            let is_gauge = kind_of(metric) == Some(Kind::Gauge);
            let level = |b: &Bucket| is_gauge.then_some((b.min, b.max, b.sum));
            let said = |b: &Bucket| (b.count, b.last.1, b.increase, level(b));
            let said = |buckets: &[Bucket]| buckets.iter().map(said).collect::<Vec<_>>();
            if is_gauge {
                // The value of a first sample is not kept, and a level gains nothing.
                let counts = |buckets: &[Bucket]| buckets.iter().map(|b| (b.count, b.last.1, level(b))).collect::<Vec<_>>();
                prop_assert_eq!(counts(&whole), counts(&expected));
            } else {
                prop_assert_eq!(said(&whole), said(&expected));
            }
        }
    }

    /// Up to the number of buckets that are added up without taking memory, and beyond.
    #[test]
    fn all_buckets_at_once_are_as_one_by_one(samples in samples(), n in any::<prop::sample::Index>()) {
        let samples = &samples[..=n.index(samples.len())];
        for step in STEPS {
            let rollup = Rollup::of(&columns(samples, Profile::Exact), step);
            let sums = Sums::alone(&encode(&rollup).expect("bytes"));
            prop_assert_eq!(sums.n_buckets(), rollup.starts.len());
            for metric in [TEMPERATURE, ENERGY, PROCESSES, POWER] {
                let joined = sums.metric(metric).expect("its own bytes").into_iter().reduce(Bucket::then);
                let total = sums.total(metric).expect("its own bytes");
                let said = |bucket: &Bucket| (told(metric, bucket), bucket.first.0, bucket.last.0);
                prop_assert_eq!(total.as_ref().map(said), joined.as_ref().map(said));
            }
        }
    }

    #[test]
    fn minutes_come_to_the_hours_that_samples_come_to(samples in samples()) {
        let columns = columns(&samples, Profile::Exact);
        let hour = STEPS[1];
        prop_assert_eq!(Rollup::of(&columns, MINUTE).by(hour), Rollup::of(&columns, hour));
    }

    #[test]
    fn bytes_that_are_no_rollup_are_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(decode(&bytes, POWER).is_err());
        let mut dressed = vec![bytes::VERSION, 0, 0, 0, 0];
        dressed.extend(bytes);
        let sum = bytes::checksum(&dressed).to_le_bytes();
        dressed[1..5].copy_from_slice(&sum);
        let _ = (decode(&dressed, POWER), decode(&dressed, ENERGY));
        let sums = Sums::alone(&dressed);
        let _ = (sums.total(POWER), sums.total(ENERGY));
    }
}

/// What a bucket of these values at one second each comes to, written and read.
fn sum_of(metric: MetricId, values: &[i64]) -> Bucket {
    let row = |(second, value): (i64, &i64)| {
        (
            Timestamp::from_secs(second),
            Values::default().with(metric, *value),
        )
    };
    let samples: Vec<Sample> = (0..).zip(values).map(row).collect();
    let buckets = decoded(&samples, metric, MINUTE);
    assert_eq!(
        all_told(metric, &buckets),
        all_told(metric, &by_hand(&samples, metric, MINUTE))
    );
    buckets[0]
}

/// They stood at the largest number of 64 bits.
#[test]
fn a_sum_and_a_gain_may_be_longer_than_any_value() {
    let (least, most) = (i64::MIN + 1, i64::MAX);
    assert_eq!(
        sum_of(POWER, &[least, most, most, most]).sum,
        2 * i128::from(most)
    );
    let gained = sum_of(ENERGY, &[0, most, 0, most, 0, most]).increase;
    assert_eq!(gained, 3 * i128::from(most));
}

#[test]
fn a_time_before_all_minutes_is_in_the_first() {
    let row = |at| (Timestamp(at), Values::default().with(TEMPERATURE, at & 7));
    let samples = [i64::MIN, i64::MIN + 1, i64::MIN + 60_000].map(row);
    let counts = |step| -> Vec<u64> {
        let buckets = decoded(&samples, TEMPERATURE, step);
        buckets.iter().map(|bucket| bucket.count).collect()
    };
    assert_eq!(counts(MINUTE), [2, 1]);
    assert_eq!(counts(STEPS[1]), [3]);
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
    let blob = encode(&Rollup::of(&columns(&samples, Profile::Sensor), MINUTE)).expect("bytes");
    assert_eq!(profile_of(&blob), Ok(Profile::Sensor));
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

#[test]
fn sums_at_the_ends_of_time_come_back() {
    for at in [i64::MIN, i64::MIN + 50_000, i64::MAX - 50_000, i64::MAX] {
        let samples = [(Timestamp(at), Values::default().with(POWER, 7))];
        for step in STEPS {
            let found = decoded(&samples, POWER, step);
            assert_eq!(found, by_hand(&samples, POWER, step), "{at}");
        }
    }
}
