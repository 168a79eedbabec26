use entrenar::metric::{ENERGY, POWER, PROCESSES, TEMPERATURE};
use entrenar::unit::Timestamp;
use proptest::prelude::*;

use super::*;

/// As they came.
fn encode(samples: &[Sample]) -> Result<Vec<u8>, ChunkError> {
    super::encode(samples, Profile::Exact)
}

/// Metrics of every habit: steady, noisy, rising, and now and then absent; gaps in time.
fn samples() -> impl Strategy<Value = Vec<Sample>> {
    let value = prop_oneof![
        4 => (-3..3i64).prop_map(Some),
        2 => Just(Some(7)),
        1 => (i64::MIN + 1..=i64::MAX).prop_map(Some),
        1 => Just(None),
    ];
    let row = (1..2000i64, proptest::collection::vec(value, 4));
    (
        -9_999_999_999_999i64..9_999_999_999_999,
        proptest::collection::vec(row, 1..200),
    )
        .prop_map(|(start, rows)| {
            let mut at = start;
            rows.into_iter()
                .map(|(step, values)| {
                    at += step;
                    let mut row = Values::default();
                    for (metric, value) in
                        [TEMPERATURE, POWER, ENERGY, PROCESSES].iter().zip(values)
                    {
                        row.set(*metric, value);
                    }
                    (Timestamp(at), row)
                })
                .collect()
        })
}

/// A busy GPU at 1 Hz: a steady metric, a noisy one, a rising one, and a slow one every tenth tick.
fn busy_gpu(ticks: i64) -> Vec<Sample> {
    (0..ticks)
        .map(|i| {
            let noise = (i * 7919) % 257;
            let row = Values::default()
                .with(TEMPERATURE, 64)
                .with(POWER, 650_000 + noise * 100)
                .with(ENERGY, 5_000_000 + 650_000 * i + noise)
                .with(PROCESSES, (i % 10 == 0).then_some(8));
            (Timestamp::from_secs(1_700_000_000 + i), row)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_went_in_comes_out(samples in samples()) {
        let blob = encode(&samples).unwrap();
        prop_assert_eq!(&decode_all(&blob).unwrap(), &samples);
        for metric in [TEMPERATURE, POWER, ENERGY, PROCESSES] {
            let expected: Vec<_> = samples.iter().filter_map(|(t, v)| Some((*t, v.get(metric)?))).collect();
            prop_assert_eq!(decode_metric(&blob, metric).unwrap(), expected);
        }
        let (n, from, to) = extent(&blob).unwrap();
        prop_assert_eq!((n, from, to), (samples.len(), samples[0].0, samples[samples.len() - 1].0));
    }

    #[test]
    fn merging_is_by_time_and_the_first_wins(samples in samples(), split in any::<prop::sample::Index>(), overlap in 0..20usize) {
        let at = split.index(samples.len()).max(1);
        let (early, late) = (&samples[..at], &samples[at.saturating_sub(overlap)..]);
        prop_assert_eq!(decode_all(&merge(&encode(late).unwrap(), &encode(early).unwrap()).unwrap()).unwrap(), samples.clone());
        let mut other = early.to_vec();
        for (_, values) in &mut other {
            values.set(POWER, 1);
        }
        let merged = merge(&encode(early).unwrap(), &encode(&other).unwrap()).unwrap();
        prop_assert_eq!(decode_all(&merged).unwrap(), early.to_vec());
    }

    #[test]
    fn bytes_that_are_no_chunk_are_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(decode_all(&bytes).is_err());
        // With a good checksum the inside is looked at, and must not be trusted either.
        let mut dressed = vec![VERSION, 0, 0, 0, 0];
        dressed.extend(bytes);
        let sum = checksum(&dressed).to_le_bytes();
        dressed[1..5].copy_from_slice(&sum);
        let _ = (decode_all(&dressed), decode_metric(&dressed, POWER), extent(&dressed));
    }
}

#[test]
fn every_truncation_and_every_flipped_bit_is_noticed() {
    let blob = encode(&busy_gpu(60)).unwrap();
    for length in 0..blob.len() {
        assert!(decode_all(&blob[..length]).is_err(), "cut at {length}");
    }
    for bit in 0..blob.len() * 8 {
        let mut bent = blob.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        assert!(decode_all(&bent).is_err(), "bit {bit}");
        assert!(decode_metric(&bent, POWER).is_err(), "bit {bit}");
    }
}

/// A blob of our own of which something was changed by somebody who knows about checksums.
fn forged(mut blob: Vec<u8>, forge: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    forge(&mut blob);
    let sum = checksum(&blob).to_le_bytes();
    blob[1..5].copy_from_slice(&sum);
    blob
}

#[test]
fn a_column_that_is_there_twice_and_times_that_go_back_are_refused() {
    let blob = encode(&busy_gpu(3)).unwrap();
    let twice = forged(blob, |blob| {
        let (second, third) = (HEADER + TABLE_ROW, HEADER + 2 * TABLE_ROW);
        blob.copy_within(second..second + 2, third);
    });
    let told = ChunkError::Malformed("columns out of order");
    assert_eq!(decode_all(&twice), Err(told));

    // Of two samples without values, which is the shortest chunk there is: the second step down instead of up.
    let two = [1, 3].map(|at| (Timestamp(at), Values::default()));
    let back = forged(encode(&two).unwrap(), |blob| {
        let last = blob.len() - 1;
        blob[last] = varint::zigzag(-2) as u8;
    });
    let told = ChunkError::Malformed("times out of order");
    assert_eq!(extent(&back), Err(told));
    assert_eq!(decode_all(&back), Err(told));
}

/// It took 137 GB.
#[test]
fn a_short_chunk_of_many_columns_does_not_eat_the_memory() {
    let steady: Vec<Sample> = (0..MAX_SAMPLES as i64)
        .map(|at| (Timestamp(at), Values::default()))
        .collect();
    let n_columns = u16::MAX;
    let many = forged(encode(&steady).unwrap(), |blob| {
        blob[9..11].copy_from_slice(&n_columns.to_le_bytes());
        let mut table = Vec::new();
        for id in 1..n_columns {
            table.extend(id.to_le_bytes());
            table.extend([2, 1, 0, 0, 0]); // constant, in one byte
        }
        blob.splice(HEADER + TABLE_ROW..HEADER + TABLE_ROW, table);
        blob.extend(vec![0; usize::from(n_columns) - 1]);
    });
    assert!(many.len() < 1 << 20);
    let columns = decode_columns(&many).unwrap();
    assert_eq!(columns.metrics.len(), METRIC_COUNT);
}

#[test]
fn a_metric_from_a_newer_build_is_left_out() {
    let last_row = HEADER + 4 * TABLE_ROW;
    let newer = forged(encode(&busy_gpu(3)).unwrap(), |blob| {
        blob[last_row..last_row + 2].copy_from_slice(&u16::MAX.to_le_bytes());
    });
    let expected: Vec<Sample> = busy_gpu(3)
        .into_iter()
        .map(|(at, values)| (at, values.with(PROCESSES, None)))
        .collect();
    assert_eq!(decode_all(&newer).unwrap(), expected);
}

#[test]
fn what_does_not_change_costs_next_to_nothing() {
    let steady: Vec<Sample> = busy_gpu(720)
        .into_iter()
        .map(|(at, values)| {
            (
                at,
                Values::default().with(TEMPERATURE, values.get(TEMPERATURE)),
            )
        })
        .collect();
    let blob = encode(&steady).unwrap();
    assert!(blob.len() < 64, "{} bytes", blob.len());
}

#[test]
fn noise_is_kept_to_the_last_digit_and_a_chunk_of_the_first_version_is_read() {
    let samples = busy_gpu(720);
    let blob = encode(&samples).unwrap();
    assert_eq!(decode_all(&blob).unwrap(), samples);
    // The first version had neither a profile nor `pco`, which 60 values are too few for.
    let few = &samples[..60];
    let mut old = encode(few).unwrap();
    old.remove(HEADER_1);
    old[0] = VERSION_1;
    let sum = checksum(&old).to_le_bytes();
    old[1..5].copy_from_slice(&sum);
    assert_eq!(decode_all(&old).unwrap(), few);
    assert_eq!(profile_of(&old), Ok(Profile::Exact));
}

#[test]
fn a_chunk_says_how_its_values_were_rounded_also_after_a_merge() {
    let exact = encode(&busy_gpu(9)).unwrap();
    let rounded = super::encode(&busy_gpu(9)[3..], Profile::Sensor).unwrap();
    assert_eq!(profile_of(&exact), Ok(Profile::Exact));
    assert_eq!(profile_of(&rounded), Ok(Profile::Sensor));
    let merged = merge(&exact, &rounded).unwrap();
    assert_eq!(profile_of(&merged), Ok(Profile::Sensor));
}

#[test]
fn a_newer_version_and_an_empty_stretch_are_told_apart_from_damage() {
    let mut blob = encode(&busy_gpu(3)).unwrap();
    blob[0] = VERSION + 1;
    assert_eq!(decode_all(&blob), Err(ChunkError::Version(VERSION + 1)));
    assert_eq!(encode(&[]), Err(ChunkError::Length(0)));
}
