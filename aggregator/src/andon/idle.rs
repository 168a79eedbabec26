//! GpuIdle: GPUs that a job holds, that have worked for it, and that do nothing any more. *(pure)*
//!
//! An unallocated GPU is idle by right, and so is a server at night: only training (and jobs that do not say what they
//! are) is watched. Busy waiting in a collective counts as idle. All idle GPUs of a job are one finding; it waits long
//! enough that no checkpoint, evaluation or loader restart is taken for a hang.

use std::fmt::Write as _;
use std::time::Duration;

use entrenar::report::{JobKind, Labels};
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

use super::finding::{finding, gpu_on_node, lasting, listed};
use super::fleet::{Fleet, Job, JobState};
use super::gpu::Gpu;
use super::rules::{Span, require, rule};
use super::sample::Activity;
use super::{Evidence, Finding, GpuAt, Presence};

rule! {
    /// GPUs that a job holds, that have worked for it, and that do nothing any more.
    GpuIdleRule: GpuIdle, named "gpu_idle", Warning, true;
    /// How long a GPU must have done nothing.
    hold: Span = Span::secs(900);
    /// How long all GPUs of the job must not be idle for so long.
    settle: Span = Span::secs(60);
    /// How long a GPU must have worked for its holder before its idleness counts.
    worked: Span = Span::secs(60);
    /// Kinds of jobs that are watched: `train`, `unknown`, `interactive`, `inference`.
    kinds: Vec<JobKind> = vec![JobKind::Train, JobKind::Unknown];
    => |this| {
        let can_be = this.hold >= Span::secs(1);
        require(can_be, "hold", "write at least 1s, and more than your longest checkpoint")
    }
}

/// Share of the hold that may be without samples.
const MOST_MISSING: f64 = 0.2;
/// A GPU that went idle a little later than the first belongs to the same finding.
const ALMOST: f64 = 0.8;
/// A minority this small that is stuck while the others wait busily is to blame.
const CULPRIT_SHARE: usize = 4;

/// What is remembered of a GPU's work for its holder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IdleState {
    held_since: Option<Timestamp>,
    worked_ms: i64,
    /// First sample without work since the last with it.
    since: Option<Timestamp>,
    missing_ms: i64,
    last: Option<Timestamp>,
}

impl IdleState {
    /// Of a GPU that has a new holder, or none any more.
    pub(super) fn new(held_since: Timestamp) -> Self {
        Self {
            held_since: Some(held_since),
            ..Self::default()
        }
    }

    pub(super) fn observe(
        &mut self,
        at: Timestamp,
        activity: Option<Activity>,
        interval: Duration,
    ) {
        let Some(activity) = activity else {
            return;
        };
        let interval_ms = interval.as_millis() as i64;
        let gap_ms = self
            .last
            .replace(at)
            .map_or(interval_ms, |last| at.0 - last.0);
        if activity == Activity::Work {
            self.worked_ms += gap_ms.clamp(0, interval_ms * 2);
            (self.since, self.missing_ms) = (None, 0);
            return;
        }
        self.since.get_or_insert(at);
        let missing_ms = gap_ms - interval_ms;
        if missing_ms * 2 > interval_ms {
            self.missing_ms += missing_ms;
        }
    }

    /// How long it has done nothing by `at`; `None`: it works, has not worked before, or too little was seen.
    fn idle_ms(&self, at: Timestamp, rule: &GpuIdleRule) -> Option<i64> {
        let idle_ms = at.0 - self.since?.0;
        let seen = self.missing_ms as f64 <= MOST_MISSING * idle_ms as f64;
        (self.worked_ms >= rule.worked.millis() && seen).then_some(idle_ms)
    }
}

/// A job's idle GPUs, as they are judged together.
pub(super) struct IdleGpus<'a> {
    /// Those that have been idle for long enough, and those that almost have.
    gpus: Vec<&'a Gpu>,
    pub(super) since: Timestamp,
    idle_ms: i64,
    members: usize,
}

/// The time up to which a job can be judged: the earliest of its live members' latest samples. A member more than two
/// intervals behind the newest is left out.
pub(super) fn job_time(fleet: &Fleet, job: &Job) -> Option<(Timestamp, Duration)> {
    let live = || {
        let members = fleet.members(job);
        members.filter(|(node, _)| matches!(node.presence, Presence::Live | Presence::Late))
    };
    let newest = live().filter_map(|(_, gpu)| gpu.last_tick).max()?;
    let interval_ms = live().map(|(node, _)| node.interval_ms).max()?;
    let recent = |at: &Timestamp| newest.0 - at.0 <= 2 * interval_ms;
    let earliest = live()
        .filter_map(|(_, gpu)| gpu.last_tick)
        .filter(recent)
        .min()?;
    Some((earliest, Duration::from_millis(interval_ms as u64)))
}

/// The GPUs of a job that have been idle for too long at the job's time.
pub(super) fn idle_gpus<'a>(
    fleet: &'a Fleet,
    job: &'a Job,
    at: Timestamp,
    rule: &GpuIdleRule,
) -> Option<IdleGpus<'a>> {
    let idle_ms = |gpu: &Gpu| gpu.idle.idle_ms(at, rule);
    let hold_ms = rule.hold.millis();
    let longest = fleet
        .members(job)
        .filter_map(|(_, gpu)| idle_ms(gpu))
        .max()?;
    if longest < hold_ms {
        return None;
    }
    let almost = |gpu: &&Gpu| idle_ms(gpu).is_some_and(|ms| ms as f64 >= ALMOST * hold_ms as f64);
    Some(IdleGpus {
        gpus: fleet
            .members(job)
            .map(|(_, gpu)| gpu)
            .filter(almost)
            .collect(),
        since: Timestamp(at.0 - longest),
        idle_ms: longest,
        members: job.members.len(),
    })
}

impl IdleGpus<'_> {
    pub(super) fn places(&self) -> Vec<GpuAt> {
        let mut places: Vec<GpuAt> = self.gpus.iter().map(|gpu| gpu.at.clone()).collect();
        places.sort();
        places
    }

    /// The few that are stuck while the others wait for them.
    fn culprits(&self) -> Vec<GpuAt> {
        let stuck = |gpu: &&&Gpu| gpu.activity == Some(Activity::Idle);
        let mut culprits: Vec<GpuAt> = self
            .gpus
            .iter()
            .filter(stuck)
            .map(|gpu| gpu.at.clone())
            .collect();
        culprits.sort();
        if culprits.len() * CULPRIT_SHARE > self.gpus.len() {
            culprits.clear();
        }
        culprits
    }

    pub(super) fn finding(
        &self,
        name: &str,
        job: &Job,
        labels: &Labels,
        rule: &GpuIdleRule,
    ) -> Finding {
        let spin = self
            .gpus
            .iter()
            .filter(|gpu| gpu.activity == Some(Activity::Spin))
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
        let culprits = self.culprits();
        let mut found = finding(rule, labels, summary, action)
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
        found.job = Some(name.to_owned());
        found
            .labels
            .insert("job_kind".into(), kind_name(job.kind).into());
        found
    }
}

fn kind_name(kind: JobKind) -> &'static str {
    match kind {
        JobKind::Unknown => "unknown",
        known => known.name(),
    }
}

/// How a job gets on, in a word.
pub(super) fn job_state(fleet: &Fleet, job: &Job) -> JobState {
    if job.idle.is_raised() {
        return JobState::Idle;
    }
    let mut heard = fleet
        .members(job)
        .filter(|(node, _)| matches!(node.presence, Presence::Live | Presence::Late))
        .filter_map(|(_, gpu)| gpu.activity)
        .peekable();
    if heard.peek().is_none() {
        JobState::Unknown
    } else if heard.any(|activity| activity == Activity::Work) {
        JobState::Working
    } else {
        JobState::Waiting
    }
}
