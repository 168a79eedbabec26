//! Jobs: what their GPUs do together, and what is wrong with that. *(pure)*
//!
//! A job is judged in its own time: at the earliest of its live members' latest samples. `look` gathers what its
//! members do, `infer` and `join` make up the jobs that nobody names, `gaps` is what it has learned of its own pauses, and a file per detector says what is unwelcome.
//! Whoever is not heard of is left out, and nothing that was not seen counts.

mod culprit;
pub(super) mod gaps;
pub(super) mod hang;
pub(super) mod idle;
pub(super) mod infer;
mod join;
pub(super) mod look;
pub(super) mod partial;
pub(super) mod slow;
pub(super) mod stall;
pub(super) mod startup;
pub(super) mod straggler;
pub(super) mod together;

use entrenar::report::JobKind;
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

use super::effort::Effort;
use super::rules::{RuleSet, Span};
use super::{Change, Finding, Kind, RuleUid, Scope, Severity};
use gaps::Gaps;
use join::Moves;
use look::JobLook;

/// What a job's cord says.
pub(super) struct Said {
    pub(super) kind: Kind,
    pub(super) rule: RuleUid,
    pub(super) scope: Scope,
    pub(super) change: Change,
    pub(super) severity: Severity,
    pub(super) started_at: Timestamp,
    pub(super) finding: Finding,
}

/// What is remembered of a job, however many GPUs it has: about 1 KB.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct JobWatch {
    /// The job's own time at which it was last judged.
    pub(super) judged_at: Option<Timestamp>,
    /// How long at least half of its GPUs worked, in milliseconds.
    pub(super) productive_ms: i64,
    /// Share of its GPUs that worked, as a mean over about two minutes before the present pause.
    pub(super) density: f32,
    /// Its GPUs exchange data.
    pub(super) is_coupled: bool,
    pub(super) pause: Option<Pause>,
    /// When its last pause ended.
    resumed_at: Option<Timestamp>,
    pub(super) gaps: Gaps,
    #[serde(default)]
    pub(super) moves: Moves,
    pub(super) hang: hang::HangState,
    pub(super) stall: stall::StallState,
    pub(super) startup: startup::StartupState,
    pub(super) idle: idle::IdleWatch,
    pub(super) partial: partial::PartialState,
    pub(super) slow: slow::SlowState,
    pub(super) straggler: straggler::StragglerState,
}

/// All of a job's GPUs, but for a few, get nothing done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pause {
    /// The first look at which it was so.
    pub(super) since: Timestamp,
    /// Since when nothing at all shows life: no work, no files, no copies, no CPU beyond waiting.
    pub(super) dead_since: Timestamp,
    /// The longest that it was dead meanwhile, before life showed.
    longest_dead_ms: i64,
}

/// A look this much later than the last, in intervals, saw too little in between to prove anything.
const MOST_UNSEEN_INTERVALS: i64 = 4;
/// … and never less than this, in milliseconds.
const LEAST_UNSEEN_MS: i64 = 12_000;
/// Over which density is a mean.
const DENSITY_MS: f32 = 120_000.0;
/// Bytes a second and GPU over NVLink or RDMA that make a job one thing.
const COUPLED_RATE: f32 = 50e6;

impl JobWatch {
    /// Takes note of a look; what the detectors need to know of the past.
    fn note(&mut self, look: &JobLook<'_>) {
        let before = self.judged_at.replace(look.at);
        let step_ms = before.map_or(0, |before| look.at.0 - before.0);
        let most_ms = (MOST_UNSEEN_INTERVALS * look.interval_ms).max(LEAST_UNSEEN_MS);
        let unseen = step_ms > most_ms || look.is_suspended();
        if look.mean_link_rate() > COUPLED_RATE {
            self.is_coupled = true;
        }
        if self.is_paused(look) {
            self.note_pause(look, unseen);
        } else if look.n_known() > 0 {
            self.end_pause(look);
            let share = look.work_share();
            if share >= 0.5 {
                self.productive_ms += step_ms.clamp(0, most_ms);
            }
            self.density += (share - self.density) * (step_ms as f32 / DENSITY_MS).clamp(0.0, 1.0);
        }
    }

    /// A pause begins when all but a few do nothing, and lasts until a quarter of them work again: one that comes and
    /// goes ends nothing.
    fn is_paused(&self, look: &JobLook<'_>) -> bool {
        let goes_on =
            self.pause.is_some() && look.n_known() > 0 && look.n_work * 4 <= look.n_known();
        look.is_paused() || goes_on
    }

    fn note_pause(&mut self, look: &JobLook<'_>, unseen: bool) {
        let fresh = Pause {
            since: look.at,
            dead_since: look.at,
            longest_dead_ms: 0,
        };
        let pause = self.pause.get_or_insert(fresh);
        if unseen {
            pause.dead_since = look.at;
        }
        // More than may go on alone do something: steps are still taken.
        let steps = look.n_work > 2 * look.exceptions();
        let life = look.progress_at.max(steps.then_some(look.at));
        if let Some(life) = life
            && life > pause.dead_since
        {
            pause.longest_dead_ms = pause.longest_dead_ms.max(life.0 - pause.dead_since.0);
            pause.dead_since = life;
        }
    }

    /// It goes on: one pause more is known, if it was seen from its beginning and the job had begun to work.
    fn end_pause(&mut self, look: &JobLook<'_>) {
        let Some(pause) = self.pause.take() else {
            return;
        };
        self.resumed_at = Some(look.at);
        self.moves.note(pause.since, look.at, look.interval_ms);
        if self.productive_ms > 0 && !self.hang.is_raised() {
            let dead_ms = (look.at.0 - pause.dead_since.0).max(pause.longest_dead_ms);
            self.gaps.note(dead_ms - look.interval_ms / 2);
        }
    }

    /// Whether it has worked without a pause for so long.
    pub(super) fn has_gone_on_for(&self, at: Timestamp, lasts: Span) -> bool {
        self.resumed_at
            .is_none_or(|since| at.0 - since.0 >= lasts.millis())
    }

    /// How long nothing has shown life, in milliseconds; 0: it works, or makes progress.
    pub(super) fn dead_ms(&self, at: Timestamp) -> i64 {
        self.pause
            .map_or(0, |pause| (at.0 - pause.dead_since.0).max(0))
    }

    /// Forgets what a rule remembered: it was switched off.
    pub(super) fn reset(&mut self, kind: Kind) {
        match kind {
            Kind::JobHang => self.hang = hang::HangState::default(),
            Kind::JobStall => self.stall = stall::StallState::default(),
            Kind::StartupStuck => self.startup = startup::StartupState::default(),
            Kind::GpuIdle => self.idle = idle::IdleWatch::default(),
            Kind::PartialUse => self.partial = partial::PartialState::default(),
            Kind::JobSlow => self.slow = slow::SlowState::default(),
            Kind::Straggler => self.straggler = straggler::StragglerState::default(),
            _ => {}
        }
    }

    /// Judges a job. What its cords say is added to `said`.
    pub(super) fn observe(
        &mut self,
        look: &JobLook<'_>,
        effort: Effort,
        rules: &RuleSet,
        said: &mut Vec<Said>,
    ) {
        self.note(look);
        if look.is_suspended() {
            return;
        }
        hang::observe(self, look, &rules.job_hang, said);
        if effort.admits(Kind::JobStall, rules.job_stall.severity) {
            stall::observe(self, look, &rules.job_stall, said);
        }
        if effort.admits(Kind::StartupStuck, rules.startup_stuck.severity) {
            startup::observe(self, look, &rules.startup_stuck, said);
        }
        if effort.admits(Kind::GpuIdle, rules.gpu_idle.severity) {
            idle::observe(self, look, &rules.gpu_idle, said);
        }
        if effort.admits(Kind::PartialUse, rules.partial_use.severity) {
            partial::observe(self, look, &rules.partial_use, said);
        }
        if effort.admits(Kind::JobSlow, rules.job_slow.severity) {
            slow::observe(self, look, &rules.job_slow, said);
        }
        if effort.admits(Kind::Straggler, rules.straggler.severity) {
            straggler::observe(self, look, &rules.straggler, said);
        }
    }
}

/// Kinds of jobs whose GPUs move together, or that do not say what they are.
pub(super) fn may_train(kind: JobKind) -> bool {
    matches!(kind, JobKind::Train | JobKind::Unknown)
}
