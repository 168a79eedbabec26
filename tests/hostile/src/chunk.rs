//! Chunks.

use entrenar::metric::{CATALOGUE, METRIC_COUNT, Metric};
use entrenar_aggregator::chunk::{self, Profile, Sample};
use entrenar_aggregator::rollup;

use crate::bytes::{Recipe, dressed};

/// Stretches of these lengths, in minutes, come to sums by the minute and by the hour, by the hour, and to none.
const LENGTHS: [u64; 3] = [12, 120, 6 * 60];

/// A blob is refused, or holds samples in order that say the same however they are read; and what is written is read.
pub fn chunk(bytes: &[u8]) {
    read(bytes);
    read(&dressed(bytes));
    let samples = Recipe::new(bytes).samples();
    for profile in [Profile::Exact, Profile::Sensor] {
        written(&samples, profile);
    }
}

/// A recipe's samples, in one chunk.
pub(crate) fn write(recipe: &[u8]) -> Vec<Vec<u8>> {
    let samples = Recipe::new(recipe).samples();
    vec![chunk::encode(&samples, Profile::Exact).expect("at least one sample")]
}

/// Whether a blob is read at all.
pub(crate) fn reads(blob: &[u8]) -> bool {
    let any = |metric: &Metric| chunk::decode_metric(blob, metric.id).is_ok();
    chunk::extent(blob).is_ok() || chunk::decode_all(blob).is_ok() || CATALOGUE.iter().any(any)
}

fn read(blob: &[u8]) {
    let all = chunk::decode_all(blob);
    let columns = chunk::decode_columns(blob);
    let Ok(all) = all else {
        assert!(columns.is_err(), "what has no samples has no columns");
        return;
    };
    let columns = columns.expect("what has samples has columns");
    assert!(columns.metrics.len() <= METRIC_COUNT, "columns we know");
    assert!(all.is_sorted_by(|a, b| a.0 < b.0), "in order of time");
    let extent = chunk::extent(blob).expect("what has samples has an extent");
    assert_eq!(extent, (all.len(), all[0].0, all[all.len() - 1].0));
    for metric in CATALOGUE {
        let rows = all.iter();
        let expected = rows.filter_map(|(at, row)| Some((*at, row.get(metric.id)?)));
        let read = chunk::decode_metric(blob, metric.id);
        let read = read.expect("what has samples has each metric");
        assert_eq!(read, expected.collect::<Vec<_>>(), "{}", metric.name);
    }
    for minutes in LENGTHS {
        // It may say that it cannot be summed up.
        let _ = rollup::of_chunk(blob, std::time::Duration::from_mins(minutes));
    }
    written(&all, columns.profile);
}

/// A round trip; written again, and merged with itself, it is the same to the last byte.
fn written(samples: &[Sample], profile: Profile) {
    let blob = chunk::encode(samples, profile).expect("1 to MAX_SAMPLES samples");
    assert_eq!(chunk::profile_of(&blob), Ok(profile));
    assert_eq!(chunk::decode_all(&blob).as_deref(), Ok(samples));
    assert_eq!(chunk::merge(&blob, &blob).as_ref(), Ok(&blob));
    let (early, late) = samples.split_at(samples.len() / 2);
    if !early.is_empty() {
        let part = |part| chunk::encode(part, profile).expect("a part of them");
        let (early, late) = (part(early), part(late));
        assert_eq!(chunk::merge(&early, &late).as_ref(), Ok(&blob));
        assert_eq!(chunk::merge(&late, &early).as_ref(), Ok(&blob));
    }
}
