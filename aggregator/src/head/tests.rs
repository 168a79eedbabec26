use std::collections::BTreeMap;

use entrenar::metric::{POWER, PROCESSES, TEMPERATURE};
use proptest::prelude::*;

use super::*;
use crate::chunk::decode_all;
use crate::query::bucket::Bucket;
use crate::query::recent::SumUp;
use crate::query::step::Steps;

const SECOND: Duration = Duration::from_secs(1);

fn gpu(name: &str) -> GpuUuid {
    GpuUuid::from(name)
}

/// A sample of one GPU at 1 Hz, received `late_s` seconds after it was taken, in its own group commit.
fn push(head: &mut Head, at_s: i64, late_s: i64) -> Pushed {
    let group = Group((at_s + late_s) as u64);
    let arrival = Arrival {
        at: Timestamp::from_secs(at_s),
        received_at: Timestamp::from_secs(at_s + late_s),
        group,
        interval: SECOND,
    };
    let pushed = head.push(&gpu("a"), arrival, &Values::default().with(POWER, at_s));
    head.committed(group, JournalPosition(group.0 as i64));
    pushed
}

/// First second of the stretch that contains `at_s`.
fn stretch_start(at_s: i64) -> i64 {
    let start = stretch::start(
        &gpu("a"),
        stretch::length(SECOND),
        Timestamp::from_secs(at_s),
    );
    start.0.div_euclid(1000) + 1
}

fn times(head: &Head) -> Vec<i64> {
    let all = head.range(&gpu("a"), POWER, Timestamp(0), Timestamp(i64::MAX));
    all.into_iter().map(|(at, _)| at.0 / 1000).collect()
}

#[test]
fn late_samples_take_their_place_and_doubles_are_dropped() {
    let base = stretch_start(1_000_000);
    let mut head = Head::default();
    for (at, late, expected) in [
        (10, 0, Pushed::Newest),
        (12, 0, Pushed::Newest),
        (11, 5, Pushed::Late),
        (12, 6, Pushed::Duplicate),
        (3, 20, Pushed::Late),
        (4, 20, Pushed::Late),
        (13, 12, Pushed::Newest),
    ] {
        assert_eq!(push(&mut head, base + at, late), expected, "{at}");
    }
    assert_eq!(times(&head), [3, 4, 10, 11, 12, 13].map(|s| base + s));
}

#[test]
fn samples_in_reverse_order_are_packed_and_all_there() {
    let base = stretch_start(1_000_000);
    let mut head = Head::default();
    for at in (0..100).rev() {
        push(&mut head, base + at, 200 - at);
    }
    assert_eq!(times(&head), (0..100).map(|s| base + s).collect::<Vec<_>>());
}

#[test]
fn a_stretch_is_sealed_after_its_grace_and_stays_readable_until_it_is_kept() {
    let base = stretch_start(1_000_000);
    let mut head = Head::default();
    for at in 0..720 {
        push(&mut head, base + at, 0);
    }
    let end = Timestamp::from_secs(base + 720);
    assert_eq!(head.take_sealable(end), []);
    assert_eq!(head.oldest_needed(), Some(JournalPosition(base)));

    let sealed = head.take_sealable(end + GRACE);
    assert_eq!(sealed.len(), 1);
    assert_eq!((sealed[0].n_samples, sealed[0].from.0), (720, base * 1000));
    assert_eq!(decode_all(&sealed[0].blob).unwrap().len(), 720);
    assert_eq!(times(&head).len(), 720);
    assert_eq!(head.oldest_needed(), Some(JournalPosition(base)));
    assert_eq!(push(&mut head, base + 719, 40), Pushed::Duplicate);

    head.sealed([(&sealed[0].gpu, sealed[0].stretch)]);
    assert!(times(&head).is_empty());
    assert_eq!(head.oldest_needed(), None);
    assert_eq!(head.forgettable(), Some(JournalPosition(base + 759)));
    assert!(head.latest(&gpu("a")).is_some());
}

#[test]
fn what_the_store_refused_is_offered_again_with_what_came_since() {
    let base = stretch_start(1_000_000);
    let mut head = Head::default();
    push(&mut head, base, 0);
    let later = Timestamp::from_secs(base + 800);
    assert_eq!(head.take_sealable(later).len(), 1);
    assert_eq!(push(&mut head, base + 1, 799), Pushed::Newest);
    assert_eq!(
        head.take_sealable(later + 60 * SECOND),
        [],
        "one of a stretch at a time"
    );
    head.reopen();
    let again = head.take_sealable(later + 60 * SECOND);
    assert_eq!(again.len(), 1);
    assert_eq!(times(&head), [base, base + 1]);
}

#[test]
fn nothing_is_sealed_that_is_not_in_the_journal() {
    let base = stretch_start(1_000_000);
    let mut head = Head::default();
    let arrival = Arrival {
        at: Timestamp::from_secs(base),
        received_at: Timestamp::from_secs(base),
        group: Group(7),
        interval: SECOND,
    };
    head.push(&gpu("a"), arrival, &Values::default().with(POWER, 1));
    let later = Timestamp::from_secs(base + 900);
    assert_eq!(head.take_sealable(later), []);
    assert_eq!(head.oldest_needed(), None);
    assert_eq!(head.forgettable(), None);
    head.committed(Group(6), JournalPosition(60));
    head.committed(Group(7), JournalPosition(70));
    assert_eq!(head.forgettable(), Some(JournalPosition(60)));
    assert_eq!(head.oldest_needed(), Some(JournalPosition(70)));
    assert_eq!(head.take_sealable(later + LOOK_EVERY).len(), 1);
}

#[test]
fn a_gpu_with_a_clock_in_the_future_does_not_hold_the_journal() {
    let mut head = Head::default();
    push(&mut head, 2_000_000, -1_000_000);
    let limit = Timestamp::from_secs(1_000_000) + stretch::length(SECOND) + GRACE;
    assert_eq!(head.take_sealable(limit - LOOK_EVERY), []);
    assert_eq!(head.take_sealable(limit).len(), 1);
}

#[test]
fn many_stretches_of_one_gpu_are_sealed_early_and_then_there_is_no_room() {
    let mut head = Head::default();
    let day = 86_400;
    for i in 0..=MAX_OPEN_PER_GPU as i64 {
        push(&mut head, i * day, 10 * day - i * day + i);
    }
    assert_eq!(head.take_sealable(Timestamp::from_secs(10 * day)).len(), 1);
    assert!(head.has_room());
    for i in 0..(MAX_STRETCHES_SMALL + MAX_STRETCHES_PER_GPU) as i64 {
        push(&mut head, i * day, 0);
    }
    assert!(!head.has_room());
}

#[test]
fn a_gpu_that_is_sampled_faster_than_it_said_fills_several_chunks() {
    let base = stretch_start(1_000_000);
    let mut head = Head::default();
    let n = MAX_TICKS as i64 + 10;
    for i in 0..n {
        let at = Timestamp(base * 1000 + i);
        let arrival = Arrival {
            at,
            received_at: at,
            group: Group(1),
            interval: SECOND,
        };
        head.push(&gpu("a"), arrival, &Values::default().with(POWER, i));
    }
    head.committed(Group(1), JournalPosition(1));
    let sealed = head.take_sealable(Timestamp::from_secs(base + 5));
    assert_eq!(
        sealed
            .iter()
            .map(|c| c.n_samples as usize)
            .collect::<Vec<_>>(),
        [MAX_TICKS]
    );
    assert_eq!(
        head.range(&gpu("a"), POWER, Timestamp(0), Timestamp(i64::MAX))
            .len(),
        n as usize
    );
}

#[test]
fn a_slow_metric_stands_for_half_a_minute() {
    let mut head = Head::default();
    let mut at_second = |at_s: i64, values: &Values| {
        let at = Timestamp::from_secs(at_s);
        head.push(
            &gpu("a"),
            Arrival {
                at,
                received_at: at,
                group: Group(1),
                interval: SECOND,
            },
            values,
        );
        let (_, latest) = head.latest(&gpu("a")).unwrap();
        (latest.get(POWER), latest.get(entrenar::metric::PROCESSES))
    };
    let slow = Values::default()
        .with(POWER, 1)
        .with(entrenar::metric::PROCESSES, 8);
    assert_eq!(at_second(100, &slow), (Some(1), Some(8)));
    assert_eq!(
        at_second(130, &Values::default().with(TEMPERATURE, 2)),
        (None, Some(8))
    );
    assert_eq!(
        at_second(131, &Values::default().with(POWER, 2)),
        (Some(2), None)
    );
}

#[test]
fn a_series_takes_less_than_a_kilobyte_at_the_mean_fill() {
    let mut head = Head::default();
    let base = stretch_start(1_000_000);
    // Stretches end at different times for different GPUs; with the grace they are filled a bit over half.
    for at_s in base..base + 400 {
        let at = Timestamp::from_secs(at_s);
        let mut values = Values::default();
        // Of 24 metrics 8 are noisy, 4 move now and then, and 12 stay.
        for id in 1..=24u16 {
            let noise = (at_s * 7919 + i64::from(id) * 104_729) % 60_000;
            let value = match id {
                1..=8 => 600_000 + noise,
                9..=12 => noise / 20_000,
                _ => 5,
            };
            values.set(MetricId(id), value);
        }
        head.push(
            &gpu("a"),
            Arrival {
                at,
                received_at: at,
                group: Group(1),
                interval: SECOND,
            },
            &values,
        );
    }
    let size = head.size();
    assert_eq!(size.series, 24);
    assert!(size.bytes / size.series < 1024, "{size:?}");
}

#[derive(Clone, Debug)]
enum Step {
    Push { at: i64 },
    Commit,
    Seal { after_s: i64 },
    Keep,
    Refuse,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens, head and kept chunks together hold each sample once, and no journal row that is still
    /// needed is given up.
    #[test]
    fn no_sample_is_lost_between_head_and_chunks(steps in proptest::collection::vec(prop_oneof![
        12 => (0..3000i64).prop_map(|at| Step::Push { at }),
        4 => Just(Step::Commit),
        3 => (0..1000i64).prop_map(|after_s| Step::Seal { after_s }),
        2 => Just(Step::Keep),
        1 => Just(Step::Refuse),
    ], 1..150)) {
        let mut head = Head::default();
        let (mut now, mut group) = (1_003_000i64, 1u64);
        let mut pushed_in: BTreeMap<i64, u64> = BTreeMap::new();
        let mut kept: BTreeMap<i64, i64> = BTreeMap::new();
        let mut taken = Vec::new();
        for step in steps {
            now += 1;
            match step {
                Step::Push { at } => {
                    let at = 1_000_000 + at;
                    let arrival = Arrival {
                        at: Timestamp::from_secs(at),
                        received_at: Timestamp::from_secs(now),
                        group: Group(group),
                        interval: SECOND,
                    };
                    head.push(&gpu("a"), arrival, &Values::default().with(POWER, at));
                    pushed_in.entry(at).or_insert(group);
                }
                Step::Commit => {
                    head.committed(Group(group), JournalPosition(group as i64 * 10));
                    group += 1;
                }
                Step::Seal { after_s } => {
                    now += after_s;
                    taken.extend(head.take_sealable(Timestamp::from_secs(now)));
                }
                Step::Keep => {
                    for chunk in &taken {
                        let samples = decode_all(&chunk.blob).unwrap();
                        kept.extend(samples.iter().map(|(t, v)| (t.0 / 1000, v.get(POWER).unwrap())));
                    }
                    head.sealed(taken.iter().map(|c| (&c.gpu, c.stretch)));
                    taken.clear();
                }
                Step::Refuse => {
                    head.reopen();
                    taken.clear();
                }
            }
            let mut seen = kept.clone();
            let in_head = head.range(&gpu("a"), POWER, Timestamp(0), Timestamp(i64::MAX));
            prop_assert!(in_head.is_sorted_by(|a, b| a.0 < b.0));
            seen.extend(in_head.iter().map(|(t, v)| (t.0 / 1000, *v)));
            prop_assert_eq!(seen.keys().collect::<Vec<_>>(), pushed_in.keys().collect::<Vec<_>>());
            prop_assert!(seen.iter().all(|(at, value)| at == value));
            for (at, group) in pushed_in.iter().filter(|(at, _)| !kept.contains_key(at)) {
                let row = JournalPosition(*group as i64 * 10);
                prop_assert!(head.forgettable().is_none_or(|free| free < row), "{} needs {:?}", at, row);
            }
        }
    }
}

#[test]
fn a_slow_metric_is_known_from_when_it_was_read_and_a_fast_one_from_now() {
    let mut head = Head::default();
    let at = Timestamp::from_secs;
    let mut take = |secs: i64, values: Values| {
        let arrival = Arrival {
            at: at(secs),
            received_at: at(secs),
            group: Group(1),
            interval: SECOND,
        };
        head.push(&gpu("a"), arrival, &values);
    };
    let row = Values::default().with(POWER, 5).with(TEMPERATURE, 40);
    take(1_000_000, row.clone().with(PROCESSES, 2));
    take(1_000_090, row.with(TEMPERATURE, None));
    let last = |metric| head.last(&gpu("a"), metric).map(|(at, v)| (at.0 / 1000, v));
    assert_eq!(last(POWER), Some((1_000_090, 5)));
    assert_eq!(last(PROCESSES), Some((1_000_000, 2)));
    assert_eq!(last(TEMPERATURE), None);
    let samples = head.samples(&gpu("a"), at(1_000_000), at(1_000_089));
    assert_eq!(samples.len(), 1);
    assert_eq!(samples[0].1.get(TEMPERATURE), Some(40));
}

/// Deliveries of a node's next ticks: now and then some of them late.
fn deliveries() -> impl Strategy<Value = Vec<i64>> {
    let part = (0..700_i64, 1..200_i64).prop_map(|(from, n)| (from..from + n).collect::<Vec<_>>());
    let one = (0..900_i64).prop_map(|at| vec![at]);
    let all = proptest::collection::vec(prop_oneof![3 => part, 1 => one], 1..8);
    (all, proptest::bool::ANY).prop_map(|(parts, is_live)| {
        let mut at = parts.concat();
        if is_live {
            at.sort_unstable();
        }
        at
    })
}

proptest! {
    /// Rows or columns, early or late: a head shows what was pushed, and seals what a chunk of the same samples is.
    #[test]
    fn what_was_pushed_is_shown_summed_up_and_sealed(
        delivered in deliveries(),
        extent in (0..900_i64, 0..900_i64),
        step_s in prop_oneof![Just(60_u64), Just(600), Just(7)],
    ) {
        let base = stretch_start(1_000_000);
        let at = |second: i64| Timestamp::from_secs(base + second);
        let values = |second: i64| {
            Values::default()
                .with(POWER, second * 7919 % 600_000)
                .with(TEMPERATURE, (second % 50 != 7).then_some(40))
                .with(PROCESSES, (second % 10 == 0).then_some(second / 100))
        };
        let mut head = Head::default();
        let mut expected = BTreeMap::new();
        for second in delivered {
            let arrival = Arrival { at: at(second), received_at: at(1000), group: Group(1), interval: SECOND };
            head.push(&gpu("a"), arrival, &values(second));
            expected.insert(at(second), values(second));
        }
        let all: Vec<_> = expected.into_iter().collect();
        prop_assert_eq!(&head.samples(&gpu("a"), Timestamp(0), Timestamp(i64::MAX)), &all);

        let extent = (at(extent.0), at(extent.1));
        let steps = Steps::covering(extent.0, extent.1, Duration::from_secs(step_s));
        for metric in [POWER, TEMPERATURE, PROCESSES] {
            let is_in = |at: Timestamp| extent.0 <= at && at <= extent.1;
            let points = all.iter().filter_map(|(at, values)| is_in(*at).then_some((*at, values.get(metric)?)));
            let points: Vec<_> = points.collect();
            prop_assert_eq!(&head.range(&gpu("a"), metric, extent.0, extent.1), &points);
            if let Some(sums) = head.sums(&gpu("a"), metric, extent, &steps) {
                let mut expected = SumUp::new(&steps);
                for point in &points {
                    expected.add(Bucket::of(*point));
                }
                let expected = expected.finish();
                prop_assert!(expected.len() <= steps.len());
                prop_assert_eq!(sums, expected);
            }
        }

        head.committed(Group(1), JournalPosition(1));
        for sealed in head.take_sealable(at(5000)) {
            let is_of = |at: Timestamp| sealed.stretch <= at && at < sealed.stretch + stretch::length(SECOND);
            let samples: Vec<_> = all.iter().filter(|(at, _)| is_of(*at)).cloned().collect();
            prop_assert_eq!((sealed.from, sealed.to), (samples[0].0, samples[samples.len() - 1].0));
            prop_assert_eq!(sealed.blob, crate::chunk::encode(&samples, Profile::Exact).unwrap());
        }
    }
}

#[test]
fn what_came_in_order_is_summed_up_where_it_lies() {
    let base = stretch_start(1_000_000);
    let mut head = Head::default();
    // Live, and then what was missed before.
    for at in (400..700).chain(0..400) {
        push(&mut head, base + at, 1000 - at);
    }
    let at = |second: i64| Timestamp::from_secs(base + second);
    let steps = Steps::window(at(699), Duration::from_hours(1));
    let sums = head.sums(&gpu("a"), POWER, (at(0), at(699)), &steps);
    let sums = sums.expect("nothing lies within anything else");
    assert_eq!((sums.len(), sums[0].count), (1, 700));
    assert_eq!((sums[0].min, sums[0].max), (base, base + 699));
    // One that lies between others.
    push(&mut head, base + 701, 0);
    push(&mut head, base + 705, 0);
    push(&mut head, base + 703, 3);
    assert_eq!(head.sums(&gpu("a"), POWER, (at(0), at(705)), &steps), None);
}

proptest! {
    #[test]
    fn a_head_that_takes_in_an_older_one_is_as_if_it_had_heard_everything_itself(
        arrivals in proptest::collection::btree_map(0..2000_i64, 0..900_i64, 1..60),
        cut in 0..3000_i64,
    ) {
        let base = stretch_start(1_000_000);
        let mut arrivals: Vec<(i64, i64)> = arrivals.into_iter().collect();
        arrivals.sort_by_key(|(at, late)| at + late);
        let (mut whole, mut older, mut newer) = (Head::default(), Head::default(), Head::default());
        for (at, late) in arrivals {
            push(&mut whole, base + at, late);
            let half = if at + late < cut { &mut older } else { &mut newer };
            push(half, base + at, late);
        }
        newer.absorb(older);
        prop_assert_eq!(times(&newer), times(&whole));
        prop_assert_eq!(newer.last(&gpu("a"), POWER), whole.last(&gpu("a"), POWER));
        prop_assert_eq!(newer.oldest_needed(), whole.oldest_needed());
        let far = Timestamp::from_secs(base + 100_000);
        let sealed = |head: &mut Head| {
            let mut sealed = BTreeMap::new();
            loop {
                let chunks = head.take_sealable(far);
                if chunks.is_empty() {
                    return sealed;
                }
                head.sealed(chunks.iter().map(|chunk| (&chunk.gpu, chunk.stretch)));
                for chunk in chunks {
                    sealed.entry(chunk.stretch).or_insert_with(Vec::new).extend(decode_all(&chunk.blob).unwrap());
                }
            }
        };
        prop_assert_eq!(sealed(&mut newer), sealed(&mut whole));
        prop_assert_eq!(newer.forgettable(), whole.forgettable());
        prop_assert_eq!(newer.size().stretches, 0);
    }
}
