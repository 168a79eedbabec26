//! JobSlow: a job is slower than it was. *(pure)*
//!
//! How busy its GPUs' memory is while they work follows the step rate: half as many steps move half as many bytes. Each
//! GPU is held against its own long mean, so that imbalance between ranks does not matter; the job's pace is the median
//! of its ranks. Pauses do not count, only what happens between them. Whoever has just been much faster than its own
//! mean has no pace of its own: a server, by whatever name, follows its load.

use entrenar::andon::{Cord, Verdict};
use entrenar::report::JobKind;
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

use super::look::JobLook;
use super::{JobWatch, Said, may_train};
use crate::andon::Evidence;
use crate::andon::finding::{finding, lasting, percent};
use crate::andon::gpu::Gpu;
use crate::andon::pulse::{Activity, Pulse};
use crate::andon::rules::{Span, require, rule};

rule! {
    /// A job is slower than it was.
    JobSlowRule: JobSlow, named "job_slow", Warning, true;
    /// At most this share of its own pace.
    raise_share: f64 = 0.9;
    /// At least this share of its own pace is fine again.
    clear_share: f64 = 0.95;
    /// How long it must be slow: longer than evaluations take.
    hold: Span = Span::secs(300);
    /// How long it must be fine.
    settle: Span = Span::secs(300);
    /// How long it must have worked for its own pace to be known.
    known_after: Span = Span::secs(600);
    => |this| {
        let share = |value: f64| value > 0.0 && value <= 1.0;
        require(share(this.raise_share), "raise_share", "write a share above 0 and up to 1")?;
        require(this.clear_share >= this.raise_share && share(this.clear_share), "clear_share",
            "write at least raise_share, and up to 1")
    }
}

/// Training does not speed up by itself: at this share of its own pace or more, a load has changed …
const SPED_UP: f32 = 1.3;
/// … once it has worked for so long, in milliseconds; first steps are slow …
const SPED_KNOWN_MS: i64 = 180_000;
/// … and the long mean is no pace until it has forgotten that, in milliseconds.
const FORGOTTEN_MS: i64 = 1_800_000;
/// Less than this is no level that can be halved, in percent.
const LEAST_MEMORY_BUSY: f32 = 4.0;

/// What is remembered of a job's pace.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(in crate::andon) struct SlowState {
    cord: Cord,
    /// When it was last much faster than its own mean.
    #[serde(default)]
    sped_at: Option<Timestamp>,
}

impl SlowState {
    /// Whether it has been much faster than its own mean within the time of that mean.
    fn follows_load(&mut self, look: &JobLook<'_>) -> bool {
        if pace_of(look, SPED_KNOWN_MS).is_some_and(|pace| pace.memory >= SPED_UP) {
            self.sped_at = Some(look.at);
        }
        self.sped_at
            .is_some_and(|at| look.at.0 - at.0 < FORGOTTEN_MS)
    }

    pub(in crate::andon) fn is_raised(&self) -> bool {
        self.cord.is_raised()
    }
}

/// A GPU's pace, as a share of its own; `None`: not known well enough.
pub(in crate::andon) fn pace(pulse: &Pulse, known_after_ms: i64) -> Option<f32> {
    if pulse.worked_ms < known_after_ms {
        return None;
    }
    let share = |short: f32, long: f32, least: f32| {
        (long >= least && short.is_finite()).then(|| short / long)
    };
    share(
        pulse.short.memory_busy,
        pulse.long.memory_busy,
        LEAST_MEMORY_BUSY,
    )
}

/// A job's pace, by two measures.
#[derive(Clone, Copy)]
pub(in crate::andon) struct Pace {
    /// By how busy memory is, median of the GPUs that work.
    pub(in crate::andon) memory: f32,
    /// The kinder of memory and energy: gauges may be looked at out of step with a job's rhythm, counters may not.
    pub(in crate::andon) kinder: f32,
}

/// The pace of a job's GPUs that work; `None`: of too few it is known.
pub(in crate::andon) fn pace_of(look: &JobLook<'_>, known_after_ms: i64) -> Option<Pace> {
    let works = |gpu: &&Gpu| gpu.pulse.activity.is_some_and(Activity::is_work);
    let gpus = look.heard().map(|(_, gpu)| gpu).filter(works);
    let (mut by_memory, mut by_energy) = (Vec::new(), Vec::new());
    for gpu in gpus {
        by_memory.extend(pace(&gpu.pulse, known_after_ms));
        by_energy.extend(gpu.pulse.energy_pace());
    }
    if by_memory.is_empty() || by_memory.len() * 2 < look.n_known() {
        return None;
    }
    let memory = median(&mut by_memory)?;
    let energy = median(&mut by_energy)?;
    Some(Pace {
        memory,
        kinder: memory.max(energy),
    })
}

fn median(values: &mut [f32]) -> Option<f32> {
    let middle = values.len() / 2;
    if values.is_empty() {
        return None;
    }
    let (_, median, _) = values.select_nth_unstable_by(middle, f32::total_cmp);
    Some(*median)
}

pub(in crate::andon) fn observe(
    watch: &mut JobWatch,
    look: &JobLook<'_>,
    rule: &JobSlowRule,
    said: &mut Vec<Said>,
) {
    if !rule.enabled || !may_train(look.job.kind) {
        return;
    }
    let pace = pace_of(look, rule.known_after.millis()).map(|pace| pace.kinder);
    let state = &mut watch.slow;
    let is_load = look.job.kind == JobKind::Unknown && state.follows_load(look);
    let verdict = match pace.map(f64::from) {
        Some(_) if is_load && !state.cord.is_raised() => Verdict::Fine,
        Some(pace) if pace <= rule.raise_share => Verdict::Unwelcome,
        Some(pace) if pace >= rule.clear_share => Verdict::Fine,
        // A pause neither proves nor disproves it, and a job that ends is not slow.
        None if !watch.slow.cord.is_raised() && !look.is_paused() => Verdict::Fine,
        _ if watch.slow.cord.since().is_some() => return,
        _ => Verdict::Between,
    };
    let step = look.step(&mut watch.slow.cord, verdict, rule.hold.0, rule.settle.0);
    let (Some(change), Some(pace)) = (step, pace) else {
        return;
    };
    let started_at = watch.slow.cord.since().unwrap_or(look.at);
    let lasts = lasting(look.at.0 - started_at.0);
    let summary = format!(
        "Job {} runs at {} of its own pace for {lasts}",
        look.name,
        percent(f64::from(pace))
    );
    let action = "Look for what all ranks share: network, storage, a power cap. If one rank or node stands out, it is \
                  named apart.";
    let found = finding(rule, &look.labels(), summary, action)
        .with(Evidence::new("pace", percent(f64::from(pace))).against(percent(rule.raise_share)))
        .with(Evidence::new(
            "GPUs that work",
            format!("{} of {}", look.n_work, look.n_members),
        ));
    said.push(look.say(rule, look.places(), change, started_at, found));
}
