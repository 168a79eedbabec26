//! Rollups.

use std::time::Duration;

use entrenar::metric::{CATALOGUE, Kind, Metric, MetricId};
use entrenar::unit::Timestamp;
use entrenar_aggregator::chunk::{self, ChunkError, Profile, Sample};
use entrenar_aggregator::query::bucket::Bucket;
use entrenar_aggregator::rollup::{self, Sums};

use crate::bytes::{Recipe, dressed};

/// A stretch that is summed up by every step.
const LENGTH: Duration = Duration::from_mins(12);

/// A blob is refused, or holds buckets that samples can come to; and samples come to what they come to by hand.
pub fn rollup(bytes: &[u8]) {
    read(bytes);
    read(&dressed(bytes));
    let samples = Recipe::new(bytes).samples();
    for (step, blob) in sums(&samples) {
        for metric in CATALOGUE {
            let read = rollup::decode(&blob, metric.id).expect("its own bytes");
            assert_same(metric.kind, &read, &by_hand(&samples, metric.id, step));
            assert_total(metric.kind, Sums::alone(&blob).total(metric.id), &read);
        }
    }
}

/// What a recipe's samples come to.
pub(crate) fn write(recipe: &[u8]) -> Vec<Vec<u8>> {
    let samples = Recipe::new(recipe).samples();
    sums(&samples).into_iter().map(|(_, blob)| blob).collect()
}

/// Whether a blob is read at all.
pub(crate) fn reads(blob: &[u8]) -> bool {
    let any = |metric: &Metric| rollup::decode(blob, metric.id).is_ok();
    rollup::profile_of(blob).is_ok() || CATALOGUE.iter().any(any)
}

pub(crate) fn sums(samples: &[Sample]) -> Vec<(Duration, Vec<u8>)> {
    let blob = chunk::encode(samples, Profile::Exact).expect("at least one sample");
    rollup::of_chunk(&blob, LENGTH).expect("samples come to sums")
}

fn read(blob: &[u8]) {
    let is_sound = rollup::profile_of(blob).is_ok();
    for metric in CATALOGUE {
        let Ok(buckets) = rollup::decode(blob, metric.id) else {
            continue;
        };
        assert!(is_sound, "what has buckets has a profile");
        assert_sound(metric.kind, &buckets);
        let total = Sums::alone(blob).total(metric.id);
        assert_total(metric.kind, total, &buckets);
    }
}

/// All buckets at once come to what they come to one after the other, but for a level's first value and gain, which are not kept.
pub(crate) fn assert_total(
    kind: Kind,
    total: Result<Option<Bucket>, ChunkError>,
    buckets: &[Bucket],
) {
    let joined = buckets.iter().copied().reduce(Bucket::then);
    let told = |bucket: Bucket| match kind {
        Kind::Counter => bucket,
        Kind::Gauge => Bucket {
            first: (bucket.first.0, bucket.min),
            increase: 0,
            ..bucket
        },
    };
    assert_eq!(total.map(|total| total.map(told)), Ok(joined.map(told)));
}

/// Samples can come to these.
pub(crate) fn assert_sound(kind: Kind, buckets: &[Bucket]) {
    let follow = |a: &Bucket, b: &Bucket| a.last.0 < b.first.0;
    assert!(buckets.is_sorted_by(follow), "one after the other");
    for bucket in buckets {
        assert!(bucket.count > 0 && bucket.first.0 <= bucket.last.0);
        assert!(bucket.min <= bucket.max && bucket.increase >= 0);
        let levels = bucket.min..=bucket.max;
        assert!(levels.contains(&bucket.last.1), "{bucket:?}");
        if kind == Kind::Gauge {
            let times = |value: i64| i128::from(value) * i128::from(bucket.count);
            let sums = times(bucket.min)..=times(bucket.max);
            assert!(sums.contains(&bucket.sum), "{bucket:?}");
        }
    }
}

/// Which bucket a time falls into.
fn number_of(at: Timestamp, step: Duration) -> i64 {
    at.0.div_euclid(step.as_millis() as i64)
}

fn by_hand(samples: &[Sample], metric: MetricId, step: Duration) -> Vec<Bucket> {
    let mut buckets: Vec<Bucket> = Vec::new();
    let known = samples.iter();
    for point in known.filter_map(|(at, row)| Some((*at, row.get(metric)?))) {
        let next = Bucket::of(point);
        match buckets.last_mut() {
            Some(bucket) if number_of(bucket.first.0, step) == number_of(point.0, step) => {
                *bucket = bucket.then(next);
            }
            _ => buckets.push(next),
        }
    }
    buckets
}

/// All that is kept, by kind: of what never changes not when it was read, of a level not its first value, of a total
/// neither least, largest nor sum.
fn assert_same(kind: Kind, read: &[Bucket], expected: &[Bucket]) {
    let value = expected.first().map(|bucket| bucket.min);
    let is_flat = expected
        .iter()
        .all(|bucket| Some(bucket.min) == value && Some(bucket.max) == value);
    let level = |b: &Bucket| (kind == Kind::Gauge).then_some((b.min, b.max, b.sum));
    let total = |b: &Bucket| (kind == Kind::Counter).then_some((b.first.1, b.increase));
    let times = |b: &Bucket| (!is_flat).then_some((b.first.0, b.last.0));
    let told = |b: &Bucket| (b.count, b.last.1, level(b), total(b), times(b));
    let told = |buckets: &[Bucket]| buckets.iter().map(told).collect::<Vec<_>>();
    assert_eq!(told(read), told(expected));
}
