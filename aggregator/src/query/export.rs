//! History of many GPUs as rows of a trace, merged in order of time.
//!
//! Time goes by in slices that are short enough for all GPUs' samples of one to lie in memory; within a slice rows are
//! sorted. An XID stands in the first row of its GPU at its time or after it. What is not stored a trace made of it has not
//! either: when a row arrived, and what happened to nodes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use entrenar::report::Holder;
use entrenar::trace::Row;
use entrenar::unit::Timestamp;

use super::QueryError;
use super::holding::Holding;
use super::select::{Place, Seat};
use crate::chunk::stretch::{MAX_LENGTH, MIN_LENGTH, TICKS};
use crate::chunk::{self, Sample};
use crate::store::Store;

/// Rows of a slice, about: some 40 MB.
const SLICE_ROWS: u64 = 100_000;

/// Shortest and longest slice. A stretch that spans several slices is unpacked for each of them.
const SHORTEST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_hours(1);

/// Cuts a stretch of time into slices. Through years without data they get longer and longer.
#[derive(Debug)]
pub struct Slices {
    next: Timestamp,
    to: Timestamp,
    usual: Duration,
    length: Duration,
}

impl Slices {
    /// Of the time between two instants, both included, for so many GPUs of this interval.
    pub fn new(from: Timestamp, to: Timestamp, seats: &[Seat]) -> Self {
        let a_second: f64 = seats
            .iter()
            .map(|seat| 1.0 / seat.interval.as_secs_f64().max(0.01))
            .sum();
        let enough = Duration::from_secs_f64(SLICE_ROWS as f64 / a_second.max(1e-3));
        let usual = enough.clamp(SHORTEST, LONGEST);
        Self {
            next: from,
            to,
            usual,
            length: usual,
        }
    }

    /// The next slice, first and last instant; `None` at the end. `was_empty`: nothing was found in the last one.
    pub fn next(&mut self, was_empty: bool) -> Option<(Timestamp, Timestamp)> {
        if self.next > self.to {
            return None;
        }
        self.length = if was_empty {
            self.length * 2
        } else {
            self.usual
        };
        let from = self.next;
        let last = from + self.length - Duration::from_millis(1);
        let to = self.to.min(last);
        self.next = to + Duration::from_millis(1);
        Some((from, to))
    }
}

/// One GPU's samples of a slice, ascending. `head`: what the head answered for the same time, asked before.
pub async fn samples(
    store: &dyn Store,
    seat: &Seat,
    (from, to): (Timestamp, Timestamp),
    head: Vec<Sample>,
) -> Result<(Vec<Sample>, Duration), QueryError> {
    let mut samples = Vec::new();
    let mut interval = seat.interval;
    for chunk in store.chunks(&seat.uuid, from, to).await? {
        let all = chunk::decode_all(&chunk.blob).map_err(|source| QueryError::Damaged {
            gpu: seat.uuid.clone(),
            stretch: chunk.stretch,
            source,
        })?;
        let length = Duration::from_millis(u64::from(chunk.length_ms));
        if MIN_LENGTH < length && length < MAX_LENGTH {
            interval = length / TICKS;
        }
        samples.extend(all.into_iter().filter(|(at, _)| from <= *at && *at <= to));
    }
    samples.extend(head);
    // Stable: of two at the same time the stored one stays.
    samples.sort_by_key(|(at, _)| *at);
    samples.dedup_by_key(|(at, _)| *at);
    Ok((samples, interval))
}

/// The rows of one slice, in order of time; of one instant by node and index, as the seats are.
#[derive(Debug, Default)]
pub struct Slice {
    rows: Vec<Row>,
}

impl Slice {
    /// Adds what one GPU said; `job`: only while this job held it. `xids`: what it reported and no row before has, ascending;
    /// what no row has yet stays.
    pub fn add(
        &mut self,
        place: &Place,
        seat: &Seat,
        (samples, interval): (Vec<Sample>, Duration),
        xids: &mut VecDeque<(Timestamp, u64)>,
        holding: &Holding,
        job: Option<&str>,
    ) {
        let label = |name: &str| place.labels.get(name).map(|text| Arc::from(text.as_str()));
        let seated = Row {
            uuid: Some(seat.uuid.clone()),
            model: Some(Arc::clone(&place.model)),
            interval: Some(interval),
            rack: label("rack"),
            switch: label("switch"),
            power_feed: label("power_feed"),
            ..Row::new(Timestamp(0), place.node.clone(), Some(place.device))
        };
        let mut held = (None, seated);
        for (at, values) in samples {
            let since = xids.iter().take_while(|(of, _)| *of <= at).count();
            let xids = xids.drain(..since).map(|(_, xid)| xid).collect();
            let holder = holding.at(at);
            if job.is_some() && job != holder.map(|holder| holder.job.as_str()) {
                continue;
            }
            if held.0.as_ref().map(Arc::as_ptr) != holder.map(Arc::as_ptr) {
                take_holder(&mut held.1, holder);
                held.0 = holder.cloned();
            }
            self.rows.push(Row {
                time: at,
                values,
                xids,
                ..held.1.clone()
            });
        }
    }

    /// Adds what no row of a GPU can have: XIDs of a node whose driver did not say which GPU, or after the last row.
    pub fn add_xid(&mut self, at: Timestamp, place: &Place, seat: Option<&Seat>, xid: u64) {
        self.rows.push(Row {
            uuid: seat.map(|seat| seat.uuid.clone()),
            xids: vec![xid],
            ..Row::new(at, place.node.clone(), seat.map(|_| place.device))
        });
    }

    /// How many rows it has.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows in order.
    pub fn into_rows(mut self) -> VecDeque<Row> {
        self.rows.sort_by_key(|row| row.time);
        self.rows.into()
    }
}

fn take_holder(row: &mut Row, holder: Option<&Arc<Holder>>) {
    row.job = holder.map(|holder| holder.job.as_str().into());
    row.job_kind = holder.map(|holder| holder.kind).unwrap_or_default();
    row.rank_group = holder
        .and_then(|holder| holder.rank_group.as_deref())
        .map(Into::into);
}

#[cfg(test)]
mod tests {
    use entrenar::gpu::Values;
    use entrenar::metric::POWER;
    use entrenar::report::{HolderChange, Labels};

    use super::*;

    fn seat(device: u32) -> (Seat, Place) {
        let rack = ("rack".to_owned(), "r1".to_owned());
        let place = Place {
            node: "n1".into(),
            device,
            model: "H100".into(),
            labels: Arc::new(Labels::from([rack])),
        };
        let seat = Seat {
            uuid: format!("GPU-{device}").as_str().into(),
            place: Some(place.clone()),
            interval: Duration::from_secs(1),
            is_present: true,
        };
        (seat, place)
    }

    #[test]
    fn slices_follow_each_other_to_the_last_millisecond() {
        let seats: Vec<_> = (0..1000).map(|n| seat(n).0).collect();
        let mut slices = Slices::new(Timestamp(0), Timestamp(250_000), &seats);
        let all: Vec<_> = std::iter::from_fn(|| slices.next(false)).collect();
        let shown: Vec<_> = all.iter().map(|(from, to)| (from.0, to.0)).collect();
        assert_eq!(shown, [(0, 99_999), (100_000, 199_999), (200_000, 250_000)]);
        let mut slices = Slices::new(Timestamp(0), Timestamp(i64::MAX / 2), &seats);
        let n = std::iter::from_fn(|| slices.next(true)).count();
        assert!(n < 64, "{n}");
    }

    #[test]
    fn rows_of_many_gpus_are_merged_by_time_and_say_who_held_them_and_what_they_reported() {
        let at = Timestamp::from_secs;
        let sample = |secs| (at(secs), Values::default().with(POWER, secs));
        let holding = Holding::of([HolderChange {
            at: at(2),
            gpu: "GPU-0".into(),
            holder: Some(Holder {
                job: "train".into(),
                ..Holder::default()
            }),
        }]);
        let fill = |job: Option<&str>| {
            let mut slice = Slice::default();
            let (first, place) = seat(0);
            let samples = vec![sample(1), sample(2), sample(3)];
            let mut xids = [(at(1), 13), (at(2), 31), (at(9), 79)].into();
            slice.add(
                &place,
                &first,
                (samples, first.interval),
                &mut xids,
                &holding,
                job,
            );
            assert_eq!(xids, [(at(9), 79)]);
            slice.add_xid(at(9), &place, Some(&first), 79);
            let (second, place) = seat(1);
            let samples = vec![sample(1), sample(3)];
            slice.add(
                &place,
                &second,
                (samples, second.interval),
                &mut VecDeque::new(),
                &Holding::default(),
                job,
            );
            let told = slice.into_rows().into_iter().map(|row| {
                let job = row.job.as_deref().unwrap_or("-").to_owned();
                let xids = row.xids.iter().map(|xid| format!(" xid {xid}"));
                let xids = xids.collect::<Vec<_>>().concat();
                format!("{} {} {job}{xids}", row.time.0 / 1000, row.gpu.unwrap_or(9))
            });
            told.collect::<Vec<_>>()
        };
        assert_eq!(
            fill(None),
            [
                "1 0 - xid 13",
                "1 1 -",
                "2 0 train xid 31",
                "3 0 train",
                "3 1 -",
                "9 0 - xid 79"
            ]
        );
        let of_job = ["2 0 train xid 31", "3 0 train", "9 0 - xid 79"];
        assert_eq!(fill(Some("train")), of_job);
    }
}
