//! Sheets: rollups of several GPUs, laid together.

use std::sync::Arc;
use std::time::Duration;

use entrenar::metric::{CATALOGUE, MetricId, POWER};
use entrenar::unit::Timestamp;
use entrenar_aggregator::chunk::ChunkError;
use entrenar_aggregator::query::bucket::Bucket;
use entrenar_aggregator::rollup::sheet::{self, Key, Parts, Sheets, TIMES};
use entrenar_aggregator::rollup::{self, Opened, STEPS, Sums};

use crate::bytes::{Recipe, dressed};
use crate::rollup::{assert_sound, assert_total, sums};

/// A blob is refused, or holds buckets that samples can come to; and rollups come out as they went in.
pub fn sheet(bytes: &[u8]) {
    read(bytes);
    read(&dressed(bytes));
    let alone = rollups(bytes);
    for step in STEPS {
        let sheets = together(step, &alone);
        let (Some((_, times)), of_metrics) = (sheets.first(), &sheets[1..]) else {
            panic!("there are times");
        };
        let mut opened = Sheets::open(step, times).expect("its own bytes");
        for (metric, blob) in of_metrics {
            opened.add(*metric, blob);
        }
        let opened = Arc::new(opened);
        let mut again = Parts::default();
        again.put_old(&opened).expect("its own bytes");
        assert_eq!(again.sheets().expect("the same"), sheets);
        let of_step = alone.iter().filter(|rollup| rollup.step == step);
        for (place, rollup) in of_step.enumerate() {
            assert_eq!(opened.lines()[place].key, rollup.key);
            for metric in CATALOGUE {
                let told = buckets(&opened, place, metric.id).expect("its own bytes");
                let expected = rollup::decode(&rollup.blob, metric.id).expect("its own bytes");
                assert_eq!(told, expected);
                let total = Sums::Together(Arc::clone(&opened), place).total(metric.id);
                assert_total(metric.kind, total, &expected);
            }
        }
    }
}

fn buckets(sheets: &Sheets, place: usize, metric: MetricId) -> Result<Vec<Bucket>, ChunkError> {
    let mut buckets = Vec::new();
    sheets.each(place, metric, |bucket| buckets.push(bucket))?;
    Ok(buckets)
}

/// Sheets of a recipe's rollups.
pub(crate) fn write(recipe: &[u8]) -> Vec<Vec<u8>> {
    let alone = rollups(recipe);
    let sheets = STEPS.into_iter().flat_map(|step| together(step, &alone));
    // One of times, and one of what each of them has: the others are like it.
    sheets.take(3).map(|(_, blob)| blob).collect()
}

/// Whether a blob is read at all.
pub(crate) fn reads(blob: &[u8]) -> bool {
    sheet::check(blob).is_ok() || Sheets::open(STEPS[0], blob).is_ok()
}

struct Alone {
    key: Key,
    step: Duration,
    from: Timestamp,
    to: Timestamp,
    blob: Vec<u8>,
}

/// Stretches of three GPUs, each from another part of a recipe.
fn rollups(recipe: &[u8]) -> Vec<Alone> {
    let mut all = Vec::new();
    for gpu in 0..3_usize {
        let samples = Recipe::new(&recipe[recipe.len() * gpu / 4..]).samples();
        let (from, to) = (samples[0].0, samples[samples.len() - 1].0);
        for (step, blob) in sums(&samples) {
            let key = Key {
                gpu: gpu as i64 * 50,
                stretch: Timestamp(from.0.saturating_sub(gpu as i64)),
            };
            all.push(Alone {
                key,
                step,
                from: from.min(to),
                to: from.max(to),
                blob,
            });
        }
    }
    all
}

fn together(step: Duration, alone: &[Alone]) -> Vec<(entrenar::metric::MetricId, Vec<u8>)> {
    let mut parts = Parts::default();
    for rollup in alone.iter().filter(|rollup| rollup.step == step) {
        let opened = Opened::new(&rollup.blob).expect("its own bytes");
        parts.put(rollup.key, (rollup.from, rollup.to), &opened);
    }
    parts.sheets().expect("few and short")
}

fn read(blob: &[u8]) {
    for step in STEPS {
        let Ok(mut sheets) = Sheets::open(step, blob) else {
            continue;
        };
        assert!(sheet::check(blob).is_ok());
        assert!(sheets.lines().is_sorted_by(|a, b| a.key < b.key));
        sheets.add(POWER, blob);
        sheets.add(TIMES, blob);
        for place in 0..sheets.lines().len() {
            for metric in CATALOGUE {
                if let Ok(buckets) = buckets(&sheets, place, metric.id) {
                    assert_sound(metric.kind, &buckets);
                }
            }
        }
    }
}
