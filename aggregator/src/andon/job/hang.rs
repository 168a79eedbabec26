//! JobHang: a job that worked gets nothing done any more, and nothing shows that it will. *(pure)*
//!
//! All of its GPUs but a few wait busily or idle, and no host of it reads, writes, copies or computes: a checkpoint,
//! an evaluation or a new epoch shows life, a hang does not. How long that may last is learned from the job's own
//! pauses; where hosts tell nothing, patience is longer. Who differs from all others is named, or nobody.

use entrenar::andon::{Cord, Verdict};
use entrenar::report::JobKind;
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

use super::culprit::{self, Blame};
use super::infer::is_guess;
use super::look::JobLook;
use super::{JobWatch, Said, may_train};
use crate::andon::finding::{finding, gpu_on_node, lasting};
use crate::andon::rules::{Span, require, rule};
use crate::andon::{Evidence, Finding};

rule! {
    /// A job that worked gets nothing done any more.
    JobHangRule: JobHang, named "job_hang", Critical, true;
    /// The least patience, with a job that is known and whose hosts are seen.
    hold: Span = Span::secs(50);
    /// Patience with a job that is not known yet and whose hosts are seen.
    new_hold: Span = Span::secs(90);
    /// Patience where hosts do not tell of files and CPU time, until some of the job's pauses are known.
    blind_hold: Span = Span::secs(180);
    /// Patience never grows beyond this, whatever pauses are known.
    longest_hold: Span = Span::secs(300);
    /// How long it must have worked to be known.
    known_after: Span = Span::secs(600);
    /// How long it must have worked before it can hang at all.
    worked: Span = Span::secs(60);
    /// How long it must work again.
    settle: Span = Span::secs(10);
    => |this| {
        require(this.hold >= Span::secs(5), "hold", "write at least 5s: shorter pauses are part of any training")?;
        require(this.longest_hold >= this.hold, "longest_hold", "write at least as long as hold")
    }
}

/// A pause known of the job is exceeded by this before it counts as more.
const BEYOND_KNOWN: i64 = 2;
/// Patience in sampling intervals: fewer looks prove nothing.
const LEAST_INTERVALS: i64 = 4;
/// Where all idle, or one goes on, patience is so many times longer …
const WEAK_SIGN: i64 = 2;
/// … and at least this long: a program that has ended takes up to a minute to leave.
const LEAST_WEAK_MS: i64 = 80_000;
/// Long pauses that must be known before a job is known without its hosts.
const ENOUGH_PAUSES: u32 = 3;
const LONG_PAUSE_MS: i64 = 8_000;
/// Patience without hosts, once pauses are known.
const BLIND_KNOWN_MS: i64 = 60_000;
/// Share of its GPUs that worked before: a server at night, or a notebook, is no job that hangs.
const DENSE: f32 = 0.5;
const DENSE_TRAIN: f32 = 0.2;
/// … and of GPUs that nobody names, where all merely rest.
const RESTLESS: f32 = 0.9;

/// What is remembered of a job's hanging.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(in crate::andon) struct HangState {
    cord: Cord,
    /// The pause in which it was raised.
    pause: Option<Timestamp>,
}

impl HangState {
    pub(in crate::andon) fn is_raised(&self) -> bool {
        self.cord.is_raised()
    }
}

/// How much patience a job deserves as it stands, in milliseconds.
fn patience_ms(watch: &JobWatch, look: &JobLook<'_>, rule: &JobHangRule) -> i64 {
    let known = BEYOND_KNOWN * watch.gaps.quantile_ms(0.999);
    let is_known = watch.productive_ms >= rule.known_after.millis();
    let base = if look.sees_hosts() {
        let least = if is_known { rule.hold } else { rule.new_hold };
        least.millis()
    } else if watch.gaps.n_longer(LONG_PAUSE_MS) >= ENOUGH_PAUSES {
        BLIND_KNOWN_MS.min(rule.blind_hold.millis())
    } else {
        rule.blind_hold.millis()
    };
    let least = base.max(LEAST_INTERVALS * look.interval_ms);
    let strong = least.max(known).min(rule.longest_hold.millis());
    if is_strong(look) {
        return strong;
    }
    (WEAK_SIGN * strong)
        .max(LEAST_WEAK_MS)
        .min(rule.longest_hold.millis())
}

/// Most wait busily in a collective, and nobody goes on: nothing but a hang or a pause looks like that.
fn is_strong(look: &JobLook<'_>) -> bool {
    look.n_spin * 2 >= look.n_known() && look.n_work == 0
}

/// Jobs that can hang: their GPUs wait for each other.
pub(in crate::andon) fn can_hang(watch: &JobWatch, look: &JobLook<'_>, rule: &JobHangRule) -> bool {
    let dense = match look.job.kind {
        JobKind::Train => DENSE_TRAIN,
        _ => DENSE,
    };
    let belongs = match look.job.kind {
        JobKind::Train => look.n_members > 1 || look.n_spin > 0,
        _ => watch.is_coupled && look.n_members > 1,
    };
    // GPUs that only rest may be a server's at night, unless they have worked without a rest before.
    let is_plain = !is_guess(look.name) || is_strong(look) || watch.density >= RESTLESS;
    may_train(look.job.kind)
        && belongs
        && is_plain
        && watch.productive_ms >= rule.worked.millis()
        && watch.density >= dense
        && !look.is_off()
}

pub(in crate::andon) fn observe(
    watch: &mut JobWatch,
    look: &JobLook<'_>,
    rule: &JobHangRule,
    said: &mut Vec<Said>,
) {
    if !rule.enabled {
        return;
    }
    let dead_ms = watch.dead_ms(look.at);
    let hangs = dead_ms > 0
        && (watch.hang.is_raised() || (can_hang(watch, look, rule) && !look.is_cut))
        && dead_ms >= patience_ms(watch, look, rule);
    let verdict = if hangs {
        Verdict::Unwelcome
    } else if watch
        .pause
        .is_none_or(|pause| Some(pause.since) != watch.hang.pause)
        || look.is_off()
    {
        // It works again, or pauses anew after it has worked.
        Verdict::Fine
    } else {
        Verdict::Between
    };
    let step = look.step(&mut watch.hang.cord, verdict, Duration::ZERO, rule.settle.0);
    let Some(change) = step else {
        return;
    };
    let started_at = began(look).unwrap_or(look.at);
    said.push(look.say(
        rule,
        look.places(),
        change,
        started_at,
        describe(watch, look, started_at, rule),
    ));
}

/// When the last of its GPUs left off working; those that go on alone do not count.
pub(in crate::andon) fn began(look: &JobLook<'_>) -> Option<Timestamp> {
    let left =
        |(_, gpu): (&_, &crate::andon::gpu::Gpu)| gpu.pulse.quiet_since.and(gpu.pulse.worked_at);
    look.heard().filter_map(left).max()
}

fn describe(
    watch: &JobWatch,
    look: &JobLook<'_>,
    started_at: Timestamp,
    rule: &JobHangRule,
) -> Finding {
    let Blame { culprits, why } = culprit::of(look);
    let lasts = lasting(look.at.0 - started_at.0);
    let known = look.n_known();
    let how = if look.n_spin * 2 >= known {
        format!("{} of {} GPUs wait busily", look.n_spin, look.n_members)
    } else {
        let idle = look.n_idle + look.n_off;
        format!("{idle} of {} GPUs do nothing", look.n_members)
    };
    let blame = culprits.first().map_or(String::new(), |first| {
        format!("; {} {why}", gpu_on_node(first))
    });
    let summary = format!("Job {} hangs: {how}, no work for {lasts}{blame}", look.name);
    let action = if culprits.is_empty() {
        "Dump the stacks of all ranks (py-spy, NCCL flight recorder) and look for the rank that is not in the \
         collective; then restart the job."
    } else {
        "Dump the stacks of the named rank first (py-spy, NCCL flight recorder), then restart the job without its node."
    };
    let patience = lasting(patience_ms(watch, look, rule));
    let seen = look.sees_hosts();
    let mut found = finding(rule, &look.labels(), summary, action)
        .with(
            Evidence::new("no sign of life for", lasting(watch.dead_ms(look.at))).against(patience),
        )
        .with(Evidence::new(
            "waiting busily",
            format!("{} of {}", look.n_spin, look.n_members),
        ))
        .with(Evidence::new(
            "idle",
            format!("{} of {}", look.n_idle + look.n_off, look.n_members),
        ))
        .with(Evidence::new(
            "still working",
            format!("{} of {}", look.n_work, look.n_members),
        ));
    if let Some((_, gpu)) = look.heard().next() {
        let name = format!("power of {}", gpu_on_node(&gpu.at));
        let watts = gpu.watts();
        if let Some(last) = watts.iter().rev().find_map(|watts| *watts) {
            found = found.with(Evidence::new(&name, format!("{last:.0} W")).over(watts));
        }
    }
    found = found
        .missing_if(!seen, "CPU time and files of the job's programs")
        .missing_if(look.n_dark > 0, "some of the job's GPUs are not heard of");
    found.culprits = culprits;
    found
}
