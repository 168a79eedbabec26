//! One series' past, piece by piece: the store's pages and what the head still holds, as one ascending line.
//!
//! Where whole steps are asked for, what the store has summed up comes as sums, and whoever folds them does not see the
//! difference. A stretch whose sums cannot stand for it is read sample by sample: it has late samples in the head, it
//! changed hands, or it was stored before sums were.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use entrenar::gpu::GpuUuid;
use entrenar::metric::MetricId;
use entrenar::unit::Timestamp;

use super::bucket::Bucket;
use super::budget::Budget;
use super::recent::Recent;
use super::shelf::{Key, Shelf, Stored};
use super::step::Steps;
use super::{Point, QueryError, Question};
use crate::chunk::{ChunkError, Sample};
use crate::rollup::{self, Sums};
use crate::store::{Store, StoredRollup};

/// The store is asked for this much history at a time: what is in memory at once, and how often a question can be given up.
const PAGE: Duration = Duration::from_hours(6);

/// … and for this many steps of sums: a week of minutes, more than a year of hours.
pub(super) const PAGE_STEPS: u32 = 7 * 24 * 60;

/// A stretch of a series, ascending.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    Points(Vec<Point>),
    /// Each within one step, with the times of its first and last sample.
    Buckets(Vec<Bucket>),
}

/// A series that is being read. Dropping it between two pieces ends the reading.
pub struct Source<'a> {
    shelf: Arc<Shelf<'a>>,
    question: Question,
    /// What the head has and was not shown yet, the latest first …
    head: Vec<Point>,
    /// … or what that comes to: none of it lies where the store has samples.
    head_sums: Vec<Bucket>,
    from: Timestamp,
    page: Duration,
    is_over: bool,
    /// Sums of this step may stand for samples …
    step: Option<Duration>,
    /// … which end up in these.
    steps: Option<Steps>,
    /// Where a stretch must be read sample by sample, ascending.
    cuts: Vec<Timestamp>,
    /// Pieces that were read and not shown yet.
    ready: VecDeque<Piece>,
}

impl<'a> Source<'a> {
    /// `head` is what the head answered to the same question, ascending, and it must have been asked *before* this is
    /// made: what is sealed in between is then seen twice, and not never.
    pub fn new(store: &'a dyn Store, question: Question, head: Vec<Point>) -> Self {
        let metrics = [question.metric].into();
        let shelf = Shelf::new(store, question.gpu.clone(), metrics);
        Self::of(Arc::new(shelf), question, Recent::Points(head))
    }

    /// The same, of a GPU of which other metrics are read beside this one.
    pub(super) fn of(shelf: Arc<Shelf<'a>>, question: Question, head: Recent) -> Self {
        let (mut head, head_sums) = match head {
            Recent::Points(points) => (points, Vec::new()),
            Recent::Sums(sums) => (Vec::new(), sums),
        };
        head.reverse();
        Self {
            shelf,
            head,
            head_sums,
            from: question.from,
            page: PAGE,
            is_over: question.to < question.from,
            question,
            step: None,
            steps: None,
            cuts: Vec::new(),
            ready: VecDeque::new(),
        }
    }

    /// Lets sums stand for samples where these steps are made of whole ones. `cuts`: instants at which the GPU changed
    /// hands, ascending, where it matters to whom a sample belongs.
    #[must_use]
    pub fn in_steps(mut self, steps: &Steps, cuts: Vec<Timestamp>) -> Self {
        self.step = sums_of(steps);
        self.steps = Some(*steps);
        if let Some(step) = self.step {
            // A sum belongs to where it begins: the first must not be cut by the question.
            let step_ms = step.as_millis() as i64;
            self.from = Timestamp(self.from.0 - self.from.0.rem_euclid(step_ms));
        }
        self.cuts = cuts;
        self
    }

    /// The next piece that is not empty; `None` at the end.
    pub async fn next(&mut self, budget: &mut Budget) -> Result<Option<Piece>, QueryError> {
        while self.ready.is_empty() && !self.is_over {
            self.read_page(budget).await?;
        }
        Ok(self.ready.pop_front())
    }

    /// The pieces of the next page of time, which may be none; `None` at the end. The pages of all metrics that are read
    /// from one shelf are the same.
    pub async fn page(
        &mut self,
        budget: &mut Budget,
    ) -> Result<Option<VecDeque<Piece>>, QueryError> {
        if self.is_over {
            return Ok(None);
        }
        self.read_page(budget).await?;
        Ok(Some(std::mem::take(&mut self.ready)))
    }

    async fn read_page(&mut self, budget: &mut Budget) -> Result<(), QueryError> {
        let (from, to) = (self.from, self.page_end());
        match self.step {
            None => self.read_points(from, to, budget).await?,
            Some(step) => self.read_sums(step, from, to, budget).await?,
        }
        self.is_over = to == self.question.to;
        self.from = to + Duration::from_millis(1);
        Ok(())
    }

    /// What the store is asked for the first page.
    pub(super) fn first_page(&self) -> Key {
        Key {
            from: self.from,
            to: self.page_end(),
            step: self.step,
        }
    }

    /// The last millisecond of the page that begins now.
    fn page_end(&self) -> Timestamp {
        let end = match self.step {
            None => self.from + self.page,
            // Whole steps, so that no sum is in two pages.
            Some(step) => Timestamp((self.from + step * PAGE_STEPS).0 - 1),
        };
        self.question.to.min(end)
    }

    async fn read_points(
        &mut self,
        from: Timestamp,
        to: Timestamp,
        budget: &mut Budget,
    ) -> Result<(), QueryError> {
        let chunks = self.shelf.chunks(from, to).await?;
        // Through years without data in longer and longer steps.
        self.page = if chunks.is_empty() {
            self.page * 2
        } else {
            PAGE
        };
        let mut pieces = Vec::with_capacity(chunks.len() + 1);
        for chunk in chunks.iter() {
            budget.read(chunk.n_samples)?;
            pieces.push(within(self.decode(chunk, budget)?, from, to));
        }
        pieces.push(self.of_head(to, budget)?);
        pieces.retain(|points| !points.is_empty());
        let began = |points: &[Point]| points.first().map(|(at, _)| *at);
        let ended = |points: &[Point]| points.last().map(|(at, _)| *at);
        if pieces.is_sorted_by(|one, next| ended(one) < began(next)) {
            self.ready.extend(pieces.into_iter().map(Piece::Points));
        } else {
            self.show(in_order(pieces.concat()));
        }
        Ok(())
    }

    /// The same with sums in the place of whole stretches where they can stand for them.
    async fn read_sums(
        &mut self,
        step: Duration,
        from: Timestamp,
        to: Timestamp,
        budget: &mut Budget,
    ) -> Result<(), QueryError> {
        let stored = self.shelf.rollups(step, from, to).await?;
        let recent = self.of_head(to, budget)?;
        let mut points = Vec::new();
        let mut sums: Vec<Bucket> = Vec::with_capacity(stored.len());
        for (place, stretch) in stored.iter().enumerate() {
            let stands_alone = [place.checked_sub(1), Some(place + 1)]
                .into_iter()
                .flatten()
                .filter_map(|other| stored.get(other))
                .all(|other| other.to < stretch.from || stretch.to < other.from);
            let stands = stands_alone
                && self.is_whole(stretch, step)
                && !self.is_cut(stretch)
                && !has_any(&recent, stretch);
            if let Some(stored) = stretch.sums.as_ref().filter(|_| stands) {
                self.sums_of(stretch, stored, (from, to), &mut sums, budget)?;
                continue;
            }
            let read = self.samples_of(stretch, from, to, budget).await?;
            if read.is_empty()
                && let Some(stored) = &stretch.sums
            {
                // Its samples are older than what is kept of them.
                self.sums_of(stretch, stored, (from, to), &mut sums, budget)?;
            }
            points.extend(read);
        }
        points.extend(recent);
        budget.read(self.head_sums.len())?;
        sums.append(&mut self.head_sums);
        self.weave(in_order(points), sums);
        Ok(())
    }

    /// Appends the sums of a stretch that begin between two instants.
    fn sums_of(
        &self,
        stretch: &StoredRollup,
        sums: &Sums,
        (from, to): (Timestamp, Timestamp),
        buckets: &mut Vec<Bucket>,
        budget: &mut Budget,
    ) -> Result<(), QueryError> {
        if self.is_one(stretch, (from, to)) {
            budget.read(sums.n_buckets())?;
            let total = sums.total(self.question.metric);
            buckets.extend(total.map_err(|source| self.damaged(stretch.stretch, source))?);
            return self.saw(stretch, sums, budget);
        }
        let mut n_read = 0;
        // The last of a step, and when that ends: what follows within it is joined at once.
        let mut end = Timestamp(i64::MIN);
        let read = sums.each(self.question.metric, |bucket| {
            let began = bucket.began();
            if began < from || to < began {
                return;
            }
            n_read += 1;
            match buckets.last_mut() {
                Some(last) if began < end => *last = last.then(bucket),
                _ => {
                    end = self.steps.map_or(end, |steps| steps.end_at(began));
                    buckets.push(bucket);
                }
            }
        });
        read.map_err(|source| self.damaged(stretch.stretch, source))?;
        budget.read(n_read)?;
        self.saw(stretch, sums, budget)
    }

    /// Whether a stretch lies within one step and between two instants: then its total is enough.
    fn is_one(&self, stretch: &StoredRollup, (from, to): (Timestamp, Timestamp)) -> bool {
        let is_in_one = |steps: &Steps| stretch.to < steps.end_at(stretch.from);
        from <= stretch.from && stretch.to <= to && self.steps.as_ref().is_some_and(is_in_one)
    }

    fn saw(
        &self,
        stretch: &StoredRollup,
        sums: &Sums,
        budget: &mut Budget,
    ) -> Result<(), QueryError> {
        let profile = sums.profile();
        budget.saw(profile.map_err(|source| self.damaged(stretch.stretch, source))?);
        Ok(())
    }

    async fn samples_of(
        &self,
        stretch: &StoredRollup,
        from: Timestamp,
        to: Timestamp,
        budget: &mut Budget,
    ) -> Result<Vec<Point>, QueryError> {
        let chunks = self.shelf.chunks(stretch.from, stretch.to).await?;
        let Some(chunk) = chunks.iter().find(|c| c.stretch == stretch.stretch) else {
            return Ok(Vec::new());
        };
        budget.read(chunk.n_samples)?;
        Ok(within(self.decode(chunk, budget)?, from, to))
    }

    /// Whether the question does not end within one of a stretch's sums.
    fn is_whole(&self, stretch: &StoredRollup, step: Duration) -> bool {
        let end = self.question.to.0.saturating_add(1);
        stretch.to <= self.question.to || end.rem_euclid(step.as_millis() as i64) == 0
    }

    /// Whether the GPU changed hands within a stretch.
    fn is_cut(&self, stretch: &StoredRollup) -> bool {
        let next = self.cuts.partition_point(|cut| *cut <= stretch.from);
        self.cuts.get(next).is_some_and(|cut| *cut <= stretch.to)
    }

    /// What the head has of a page, ascending.
    fn of_head(&mut self, to: Timestamp, budget: &mut Budget) -> Result<Vec<Point>, QueryError> {
        let of_page = self.head.iter().rposition(|(at, _)| to < *at);
        let mut recent = self.head.split_off(of_page.map_or(0, |later| later + 1));
        budget.read(recent.len())?;
        recent.reverse();
        Ok(recent)
    }

    /// Points and sums in order of time; no sum has points within.
    fn weave(&mut self, points: Vec<Point>, mut sums: Vec<Bucket>) {
        if !sums.is_sorted_by_key(Bucket::began) {
            sums.sort_by_key(Bucket::began);
        }
        if points.is_empty() && !sums.is_empty() {
            self.ready.push_back(Piece::Buckets(sums));
            return;
        }
        let mut points = points.into_iter().peekable();
        let mut rest = sums.as_slice();
        while let Some(first) = rest.first() {
            let before = std::iter::from_fn(|| points.next_if(|(at, _)| *at < first.began()));
            let before = before.collect();
            self.show(before);
            let next = points.peek().map_or(Timestamp(i64::MAX), |(at, _)| *at);
            let n_together = rest.partition_point(|bucket| bucket.began() < next).max(1);
            let (together, later) = rest.split_at(n_together);
            self.ready.push_back(Piece::Buckets(together.to_vec()));
            rest = later;
        }
        self.show(points.collect());
    }

    fn show(&mut self, points: Vec<Point>) {
        if !points.is_empty() {
            self.ready.push_back(Piece::Points(points));
        }
    }

    fn damaged(&self, stretch: Timestamp, source: ChunkError) -> QueryError {
        QueryError::Damaged {
            gpu: self.shelf.gpu().clone(),
            stretch,
            source,
        }
    }

    fn decode(&self, chunk: &Stored, budget: &mut Budget) -> Result<Vec<Point>, QueryError> {
        let read = chunk.metric(self.question.metric);
        let (points, profile) = read.map_err(|source| self.damaged(chunk.stretch, source))?;
        budget.saw(profile);
        Ok(points)
    }
}

/// Some metrics of one GPU between two instants, both included, to be read side by side. `recent` is what the head has of
/// that time, asked before.
pub fn side_by_side<'a>(
    store: &'a dyn Store,
    gpu: &GpuUuid,
    metrics: &[MetricId],
    (from, to): (Timestamp, Timestamp),
    recent: &[Sample],
) -> Vec<Source<'a>> {
    let shelf = Arc::new(Shelf::new(store, gpu.clone(), metrics.into()));
    let of_metric = |metric: &MetricId| {
        let question = Question {
            gpu: gpu.clone(),
            metric: *metric,
            from,
            to,
        };
        let point = |(at, values): &Sample| Some((*at, values.get(*metric)?));
        let head = recent.iter().filter_map(point).collect();
        Source::of(Arc::clone(&shelf), question, Recent::Points(head))
    };
    metrics.iter().map(of_metric).collect()
}

/// Sums of which step may stand for samples in these steps.
pub fn sums_of(steps: &Steps) -> Option<Duration> {
    let begins_with = |step: &Duration| steps.from().0.rem_euclid(step.as_millis() as i64) == 0;
    if steps.len() == 1 {
        // It need not end with a sum: what lies beyond the last whole one is read sample by sample.
        let fits = |step: &Duration| *step <= steps.length() && begins_with(step);
        return rollup::STEPS.into_iter().rev().find(fits);
    }
    rollup::step_within(steps.length()).filter(begins_with)
}

/// What an answer is made of: `1m` or `1h` where sums are stored that can stand for samples, else `raw`.
pub fn resolution(steps: Option<&Steps>) -> &'static str {
    match steps.and_then(sums_of).map(|step| step.as_secs()) {
        None => "raw",
        Some(60) => "1m",
        Some(_) => "1h",
    }
}

/// Of ascending points those between two instants, both included.
fn within(mut points: Vec<Point>, from: Timestamp, to: Timestamp) -> Vec<Point> {
    points.truncate(points.partition_point(|(at, _)| *at <= to));
    points.drain(..points.partition_point(|(at, _)| *at < from));
    points
}

/// Whether the head has samples of a stretch: late ones, or those that were sealed just now.
fn has_any(recent: &[Point], stretch: &StoredRollup) -> bool {
    let next = recent.partition_point(|(at, _)| *at < stretch.from);
    recent.get(next).is_some_and(|(at, _)| *at <= stretch.to)
}

/// By time; of two at the same time the one that stood first, which is the stored one.
fn in_order(mut points: Vec<Point>) -> Vec<Point> {
    if !points.is_sorted_by(|(one, _), (next, _)| one < next) {
        points.sort_by_key(|(at, _)| *at);
        points.dedup_by_key(|(at, _)| *at);
    }
    points
}
