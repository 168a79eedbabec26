//! GpuIdle: GPUs that a job holds and that do nothing. *(pure)*
//!
//! An unallocated GPU is idle by right, and so is a server at night: only training (and jobs that do not say what they
//! are) is watched. Busy waiting in a collective counts as idle, unless the job has not begun yet: then somebody waits
//! for a start. All idle GPUs of a job are one finding; it waits long enough that no checkpoint, evaluation or loader
//! restart is taken for waste.

use std::fmt::Write as _;
use std::time::Duration;

use entrenar::andon::{Cord, Verdict};
use entrenar::report::JobKind;
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

use super::infer::is_guess;
use super::look::JobLook;
use super::startup::somebody_waits;
use super::{JobWatch, Said, culprit};
use crate::andon::finding::{finding, gpu_on_node, lasting, listed};
use crate::andon::fleet::{Fleet, Job, JobState};
use crate::andon::gpu::Gpu;
use crate::andon::pulse::Activity;
use crate::andon::rules::{Span, require, rule};
use crate::andon::{Change, Evidence, Finding, GpuAt, Presence};

rule! {
    /// GPUs that a job holds and that do nothing.
    GpuIdleRule: GpuIdle, named "gpu_idle", Warning, true;
    /// How long a GPU must have done nothing.
    hold: Span = Span::secs(900);
    /// How long, of GPUs never used yet, where hosts do not tell whether programs are loaded or compiled.
    unseen_hold: Span = Span::secs(1500);
    /// How long, for jobs that only work now and then, as notebooks do.
    sparse_hold: Span = Span::secs(3600);
    /// How long all GPUs of the job must not be idle for so long.
    settle: Span = Span::secs(60);
    /// How long a GPU must have worked for its holder to count as used.
    worked: Span = Span::secs(60);
    /// Kinds of jobs that are watched: `train`, `unknown`, `interactive`, `inference`.
    kinds: Vec<JobKind> = vec![JobKind::Train, JobKind::Unknown];
    => |this| {
        let can_be = this.hold >= Span::secs(1);
        require(can_be, "hold", "write at least 1s, and more than your longest checkpoint")?;
        require(this.unseen_hold >= this.hold, "unseen_hold", "write at least as long as hold")?;
        require(this.sparse_hold >= this.hold, "sparse_hold", "write at least as long as hold")
    }
}

/// A GPU that went idle a little later than the first belongs to the same finding.
const ALMOST: f64 = 0.8;
/// A job that worked less than this share of the time, on few GPUs, works now and then.
const SPARSE_SHARE: f64 = 0.1;
const SPARSE_GPUS: usize = 2;
/// Share of its GPUs that worked before it rested, of a job that is taken to be for work.
const DENSE: f32 = 0.5;

/// What is remembered of a job's idleness.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(in crate::andon) struct IdleWatch {
    cord: Cord,
    /// How many idle GPUs were told of.
    told: usize,
}

impl IdleWatch {
    pub(in crate::andon) fn is_raised(&self) -> bool {
        self.cord.is_raised()
    }
}

/// How long a GPU has done nothing by `at`, in milliseconds; `None`: it works, or never did while others do.
fn idle_ms(gpu: &Gpu, at: Timestamp, unused: bool, rule: &GpuIdleRule) -> Option<i64> {
    let since = gpu.pulse.quiet_since?;
    let used = gpu.pulse.worked_ms >= rule.worked.millis();
    (used || unused).then_some(at.0 - since.0)
}

/// A job's idle GPUs, as they are judged together.
struct IdleGpus<'a> {
    /// Those that have been idle for long enough, and those that almost have.
    gpus: Vec<&'a Gpu>,
    since: Timestamp,
    idle_ms: i64,
    members: usize,
}

/// The GPUs of a job that have been idle for too long.
fn idle_gpus<'a>(watch: &JobWatch, look: &JobLook<'a>, rule: &GpuIdleRule) -> Option<IdleGpus<'a>> {
    let nobody_worked = watch.productive_ms < rule.worked.millis();
    let unused = nobody_worked && !somebody_waits(look);
    let at = look.at;
    let gpus = || look.heard().map(|(_, gpu)| gpu);
    let longest = gpus()
        .filter_map(|gpu| idle_ms(gpu, at, unused, rule))
        .max()?;
    let hold_ms = if is_sparse(look) {
        rule.sparse_hold.millis()
    } else if unused && !look.sees_hosts() {
        rule.unseen_hold.millis()
    } else {
        rule.hold.millis()
    };
    if longest < hold_ms {
        return None;
    }
    let almost = |gpu: &&Gpu| {
        idle_ms(gpu, at, unused, rule).is_some_and(|ms| ms as f64 >= ALMOST * hold_ms as f64)
    };
    Some(IdleGpus {
        gpus: gpus().filter(almost).collect(),
        since: Timestamp(at.0 - longest),
        idle_ms: longest,
        members: look.n_members,
    })
}

/// Few GPUs that have worked now and then: somebody's notebook, whatever it calls itself.
fn is_sparse(look: &JobLook<'_>) -> bool {
    let sparse = |gpu: &Gpu| {
        let held_ms = gpu.pulse.held_since.map_or(0, |since| look.at.0 - since.0);
        let worked_ms = gpu.pulse.worked_ms;
        worked_ms > 0 && (worked_ms as f64) < SPARSE_SHARE * held_ms as f64
    };
    look.n_members <= SPARSE_GPUS && look.heard().any(|(_, gpu)| sparse(gpu))
}

/// A job that does not say what it is and works now and then may be a server or a notebook: it rests by right. One that
/// was never used, or that worked most of the time, does not.
fn is_known(watch: &JobWatch, look: &JobLook<'_>) -> bool {
    look.job.kind != JobKind::Unknown || watch.productive_ms == 0 || watch.density >= DENSE
}

pub(in crate::andon) fn observe(
    watch: &mut JobWatch,
    look: &JobLook<'_>,
    rule: &GpuIdleRule,
    said: &mut Vec<Said>,
) {
    // What nobody names, nobody has been given.
    let is_held = !is_guess(look.name);
    let is_watched =
        rule.enabled && is_held && rule.kinds.contains(&look.job.kind) && is_known(watch, look);
    if !is_watched && !watch.idle.is_raised() {
        return;
    }
    // A pause in which somebody writes or loads is no waste, however long.
    let lives = watch.pause.is_some() && watch.dead_ms(look.at) < rule.hold.millis();
    let lives = lives && watch.productive_ms >= rule.worked.millis();
    // Just after it, not all of its GPUs have been looked at again.
    let resumes = Span::secs(3 * (look.interval_ms as u64).div_ceil(1000));
    let lives = lives || !watch.has_gone_on_for(look.at, resumes);
    let idle = idle_gpus(watch, look, rule).filter(|_| is_watched && !lives);
    let verdict = if idle.is_some() {
        Verdict::Unwelcome
    } else {
        Verdict::Fine
    };
    let state = &mut watch.idle;
    let step = look.step(&mut state.cord, verdict, Duration::ZERO, rule.settle.0);
    let n_idle = idle.as_ref().map_or(0, |idle| idle.gpus.len());
    let grown = n_idle >= 2 * state.told.max(1);
    let change = match step {
        None if grown && state.cord.is_raised() => Some(Change::Updated),
        other => other,
    };
    let Some(change) = change else {
        return;
    };
    match change {
        Change::Cleared { .. } => state.told = 0,
        Change::Recovering => {}
        _ => state.told = n_idle,
    }
    let gpus = idle.as_ref().map(IdleGpus::places).unwrap_or_default();
    let started_at = idle.as_ref().map_or(look.at, |idle| idle.since);
    let finding = idle.map_or_else(Finding::default, |idle| idle.finding(look, rule));
    said.push(look.say(rule, gpus, change, started_at, finding));
}

impl IdleGpus<'_> {
    fn places(&self) -> Vec<GpuAt> {
        let mut places: Vec<GpuAt> = self.gpus.iter().map(|gpu| gpu.at.clone()).collect();
        places.sort();
        places
    }

    fn finding(&self, look: &JobLook<'_>, rule: &GpuIdleRule) -> Finding {
        let name = look.name;
        let spin = self
            .gpus
            .iter()
            .filter(|gpu| gpu.pulse.activity == Some(Activity::Spin))
            .count();
        let idle = self.gpus.len();
        let places = self.places();
        let which = match places.as_slice() {
            [one] => gpu_on_node(one),
            _ => format!("{idle} of its {} GPUs", self.members),
        };
        let lasts = lasting(self.idle_ms);
        let summary = format!("Job {name} has done nothing on {which} for {lasts}");
        let action = "Look whether the job hangs: its log, its stacks (py-spy), its storage. Restart it, or give its \
                      GPUs back.";
        let culprits = if idle == self.members {
            culprit::of(look).culprits
        } else {
            Vec::new()
        };
        let mut found = finding(rule, &look.labels(), summary, action)
            .with(Evidence::new("without work for", lasts).against(rule.hold.to_string()))
            .with(Evidence::new(
                "idle GPUs",
                format!("{idle} of {}", self.members),
            ))
            .with(Evidence::new("waiting busily", format!("{spin} of {idle}")));
        if let Some(first) = self.gpus.first() {
            let watts = first.watts();
            let last = |series: &[Option<f64>]| series.iter().rev().find_map(|value| *value);
            let place = gpu_on_node(&first.at);
            if let Some(power) = last(&watts) {
                let name = format!("power of {place}");
                found = found.with(Evidence::new(&name, format!("{power:.0} W")).over(watts));
            }
            let busy = first.busy_percent();
            if let Some(percent) = last(&busy) {
                let name = format!("utilisation of {place}");
                found = found.with(Evidence::new(&name, format!("{percent:.0} %")).over(busy));
            }
        }
        if let Some(culprit) = culprits.first() {
            let name = "stuck while the others wait";
            let names = culprits.iter().map(gpu_on_node);
            found = found.with(Evidence::new(name, listed(names)));
            let _ = write!(found.summary, "; {} may hold it up", gpu_on_node(culprit));
        }
        found.culprits = culprits;
        found
    }
}

/// How a job gets on, in a word.
pub(in crate::andon) fn job_state(fleet: &Fleet, job: &Job) -> JobState {
    if job.watch.hang.is_raised() {
        return JobState::Hung;
    }
    if job.watch.idle.is_raised() {
        return JobState::Idle;
    }
    let mut heard = fleet
        .members(job)
        .filter(|(node, _)| matches!(node.presence, Presence::Live | Presence::Late))
        .filter_map(|(_, gpu)| gpu.pulse.activity)
        .peekable();
    if heard.peek().is_none() {
        JobState::Unknown
    } else if heard.any(Activity::is_work) {
        JobState::Working
    } else {
        JobState::Waiting
    }
}
