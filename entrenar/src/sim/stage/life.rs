//! The usual life of a training job: checkpoints, evaluations, epochs. *(pure)*

use super::{JobRef, Stage};
use crate::sim::job::{SimMillis, Workload};
use crate::sim::plan::FOREVER;
use crate::sim::score::Beat;

/// How a job writes its checkpoints.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_field_names, reason = "a unit ends the name")]
pub(crate) struct Checkpoints {
    /// Time from one to the next.
    pub(crate) every_ms: SimMillis,
    /// How long one takes.
    pub(crate) lasts_ms: SimMillis,
    /// When one of them begins.
    pub(crate) anchor_ms: SimMillis,
}

/// Kinds of training that are most of a fleet.
pub(crate) const TRAINING: [Workload; 6] = [
    Workload::DataParallel,
    Workload::SmallSteps,
    Workload::Pipeline,
    Workload::Experts,
    Workload::Sharded,
    Workload::Accumulated,
];

impl Stage {
    /// A training job on whole nodes, with the life that such jobs have.
    pub(crate) fn training(&mut self, nodes: u32) -> JobRef {
        let workload = if nodes == 1 {
            self.dice.pick(&[
                Workload::DataParallel,
                Workload::SmallSteps,
                Workload::Sharded,
                Workload::Accumulated,
            ])
        } else {
            self.dice.pick(&TRAINING)
        };
        let nodes = self.take(nodes);
        let job = self.job(workload, self.all_of(&nodes));
        self.live(job);
        job
    }

    /// Gives a job checkpoints of its own kind and rhythm, and perhaps evaluations or epochs.
    pub(crate) fn live(&mut self, job: JobRef) {
        let checkpoints = Checkpoints {
            every_ms: self.span(600.0, 1_800.0),
            lasts_ms: self.span(15.0, 120.0),
            anchor_ms: self.moment(0.0, 1.0),
        };
        if self.dice.chance(0.15) {
            self.snapshots(job, checkpoints);
        } else {
            self.checkpoints(job, checkpoints);
        }
        if self.dice.chance(0.25) {
            let every = self.span(1_200.0, 3_000.0);
            self.evaluations(job, every);
        }
        if self.dice.chance(0.2) {
            let every = self.span(1_200.0, 5_400.0);
            self.epochs(job, every);
        }
    }

    /// Checkpoints in which the job waits for its writers.
    pub(crate) fn checkpoints(&mut self, job: JobRef, how: Checkpoints) {
        let writer_every = if self.dice.chance(0.7) {
            u32::MAX
        } else {
            self.setting.gpus_per_node
        };
        let rate = self.dice.between(0.25e9, 1.8e9);
        for begins in self.times(how.every_ms, how.anchor_ms) {
            let lasts = (how.lasts_ms as f64 * self.dice.between(0.92, 1.08)) as SimMillis;
            let copy_ms = self.span(2.0, 10.0).min(lasts / 3);
            let beat = Beat::Checkpoint {
                copy_ms,
                writer_every,
                write_rate: rate,
            };
            self.pause(job, begins, begins + lasts, beat);
        }
    }

    /// Checkpoints beside the work.
    pub(crate) fn snapshots(&mut self, job: JobRef, how: Checkpoints) {
        for begins in self.times(how.every_ms, how.anchor_ms) {
            let lasts = self.span(20.0, 35.0);
            self.pause(job, begins, begins + lasts, Beat::Snapshot);
        }
    }

    /// Evaluations of 30–180 s, and a wait in the collective that adds up the results.
    pub(crate) fn evaluations(&mut self, job: JobRef, every_ms: SimMillis) {
        let lasts = self.span(30.0, 180.0);
        let anchor = self.moment(0.0, 1.0);
        for begins in self.times(every_ms, anchor) {
            let ends = begins + lasts + self.span(-2.0, 2.0);
            let gathered = ends + self.span(8.0, 20.0);
            if self.pause(job, begins, gathered, Beat::Spin) {
                self.score(job).set(begins, ends, Beat::Evaluate);
            }
        }
    }

    /// A loader that starts again for 5–60 s.
    pub(crate) fn epochs(&mut self, job: JobRef, every_ms: SimMillis) {
        let lasts = self.span(5.0, 60.0);
        let anchor = self.moment(0.0, 1.0);
        for begins in self.times(every_ms, anchor) {
            let ends = begins + (lasts as f64 * self.dice.between(0.85, 1.15)) as SimMillis;
            self.pause(job, begins, ends, Beat::Reload);
        }
    }

    /// A checkpoint every two hours that takes 5–18 minutes: slow storage.
    pub(crate) fn slow_checkpoints(&mut self, job: JobRef) {
        let how = Checkpoints {
            every_ms: 7_200_000,
            lasts_ms: self.span(300.0, 1_100.0),
            anchor_ms: self.moment(0.2, 0.55),
        };
        self.checkpoints(job, how);
    }

    /// Nobody asks a server for long stretches.
    pub(crate) fn sleep(&mut self, job: JobRef) {
        let mut at = 0;
        while at < self.end() {
            let sleeps = self.span(300.0, 2_400.0);
            self.pause(job, at, at + sleeps, Beat::Idle);
            at += sleeps + self.span(20.0, 200.0);
        }
    }

    /// Interrupts a job's work; whatever is not work is left alone. Returns whether it did.
    pub(crate) fn pause(
        &mut self,
        job: JobRef,
        from: SimMillis,
        to: SimMillis,
        beat: Beat,
    ) -> bool {
        let bar = self.score(job).bar(from);
        let fits = bar.beat == Beat::Work && to <= bar.to;
        if fits {
            self.score(job).set(from, to, beat);
        }
        fits
    }

    /// Instants of a rhythm, from the beginning of time to the end of the trace.
    fn times(&mut self, every_ms: SimMillis, anchor_ms: SimMillis) -> Vec<SimMillis> {
        let every = every_ms.max(60_000);
        let first = anchor_ms.rem_euclid(every);
        let n = (self.end() - first) / every;
        let jitter = 0.015 * every as f64;
        (0..=n)
            .map(|k| first + k * every)
            .map(|at| {
                if at == anchor_ms {
                    at
                } else {
                    at + self.dice.between(-jitter, jitter) as SimMillis
                }
            })
            .collect()
    }

    /// Lets a job hang until its watchdog or its owner ends it; perhaps it is started again. Returns when it ends.
    pub(crate) fn hang(&mut self, job: JobRef, at: SimMillis, beat: Beat) -> SimMillis {
        let ends = at + self.span(620.0, 860.0);
        self.score(job).set(at, ends, beat);
        self.finish(job, ends);
        ends
    }

    /// Ends a job; perhaps it is started again after a minute or more.
    pub(crate) fn finish(&mut self, job: JobRef, at: SimMillis) {
        let again = at + self.span(60.0, 200.0);
        let is_again = again + 300_000 < self.end() && self.dice.chance(0.3);
        self.score(job).set(at, FOREVER, Beat::Nobody);
        if is_again {
            self.start_up(job, again);
        }
    }

    /// Starts a job: images, weights, a barrier, compilation, then work. Returns when the work begins.
    pub(crate) fn start_up(&mut self, job: JobRef, at: SimMillis) -> SimMillis {
        let pulled = at + self.span(10.0, 120.0);
        let window_ms = self.span(8.0, 60.0);
        let met = pulled + window_ms + self.span(1.0, 6.0);
        let loaded = met + self.span(20.0, 90.0);
        let compiled = loaded + self.span(20.0, 150.0);
        let barrier = Beat::Barrier {
            window_ms,
            absent: None,
            spins: true,
        };
        let score = self.score(job);
        score.set(at, pulled, Beat::Pull);
        score.set(pulled, met, barrier);
        score.set(met, loaded, Beat::Load);
        score.set(loaded, compiled, Beat::HostBusy);
        score.set(compiled, FOREVER, Beat::Work);
        compiled
    }
}
