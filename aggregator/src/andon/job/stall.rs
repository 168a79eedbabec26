//! JobStall: part of a job has stopped while the rest goes on. *(pure)*
//!
//! One replica of an elastic job, or a pipeline beside others, may hang without the job as a whole standing still. Its
//! GPUs have worked, show no life for long, and are too many to be a rank that waits its turn.

use entrenar::andon::{Cord, Verdict};
use serde::{Deserialize, Serialize};
use std::time::Duration;

use super::infer::{is_guess, is_inferred};
use super::look::JobLook;
use super::{JobWatch, Said, may_train};
use crate::andon::finding::{finding, gpu_on_node, lasting, listed};
use crate::andon::gpu::Gpu;
use crate::andon::pulse::Activity;
use crate::andon::rules::{Span, require, rule};
use crate::andon::{Evidence, GpuAt};

rule! {
    /// Part of a job has stopped while the rest goes on.
    JobStallRule: JobStall, named "job_stall", Warning, true;
    /// How long that part must have shown no life.
    hold: Span = Span::secs(240);
    /// The least share of the job's GPUs that counts.
    share: f64 = 0.12;
    /// How long each of them must have worked before.
    worked: Span = Span::secs(120);
    /// How long the part must work again.
    settle: Span = Span::secs(30);
    => |this| {
        let can_be = this.share > 0.0 && this.share < 1.0;
        require(can_be, "share", "write a share between 0 and 1")?;
        require(this.hold >= Span::secs(30), "hold", "write at least 30s")
    }
}

/// What is remembered of a job's stalling.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(in crate::andon) struct StallState {
    cord: Cord,
}

impl StallState {
    pub(in crate::andon) fn is_raised(&self) -> bool {
        self.cord.is_raised()
    }
}

/// The last sign of life of a GPU that has worked is this long ago, in milliseconds.
fn dead_ms(look: &JobLook<'_>, gpu: &Gpu) -> Option<i64> {
    gpu.pulse.quiet_since?;
    let life = gpu.pulse.last_life()?;
    Some(look.at.0 - life.0)
}

pub(in crate::andon) fn observe(
    watch: &mut JobWatch,
    look: &JobLook<'_>,
    rule: &JobStallRule,
    said: &mut Vec<Said>,
) {
    // Of programs that nobody names, some end while others go on.
    let candidate = may_train(look.job.kind)
        && !is_guess(look.name)
        && !look.is_paused()
        && watch.has_gone_on_for(look.at, rule.hold)
        && look.n_spin + look.n_idle > look.exceptions();
    if !rule.enabled || (!candidate && !watch.stall.cord.is_raised()) {
        return;
    }
    let is_stuck = |gpu: &&Gpu| {
        gpu.pulse.worked_ms >= rule.worked.millis()
            && dead_ms(look, gpu).is_some_and(|ms| ms >= rule.hold.millis())
    };
    let stuck: Vec<&Gpu> = look.heard().map(|(_, gpu)| gpu).filter(is_stuck).collect();
    let many = stuck.len() as f64 >= rule.share * look.n_members as f64;
    let known_pause = 2 * watch.gaps.quantile_ms(0.999) > rule.hold.millis();
    let verdict = if candidate && many && stuck.len() > look.exceptions() && !known_pause {
        Verdict::Unwelcome
    } else if stuck.is_empty() {
        Verdict::Fine
    } else {
        Verdict::Between
    };
    let step = look.step(
        &mut watch.stall.cord,
        verdict,
        Duration::ZERO,
        rule.settle.0,
    );
    let Some(change) = step else {
        return;
    };
    let longest = stuck.iter().filter_map(|gpu| dead_ms(look, gpu)).max();
    let started_at = look.at.0 - longest.unwrap_or(0);
    let culprits = odd_ones(&stuck);
    let n = stuck.len();
    let mut nodes: Vec<String> = stuck.iter().map(|gpu| gpu.at.node.to_string()).collect();
    nodes.sort();
    nodes.dedup();
    let summary = format!(
        "Job {}: {n} of {} GPUs have stopped for {} while the others go on ({})",
        look.name,
        look.n_members,
        lasting(longest.unwrap_or(0)),
        listed(nodes.iter())
    );
    let action = "Look at the stacks of the part that stopped: one replica or pipeline hangs. The rest may wait for it \
                  soon.";
    let mut found = finding(rule, &look.labels(), summary, action)
        .with(Evidence::new(
            "stopped GPUs",
            format!("{n} of {}", look.n_members),
        ))
        .with(
            Evidence::new("no sign of life for", lasting(longest.unwrap_or(0)))
                .against(rule.hold.to_string()),
        )
        .with(Evidence::new(
            "still working",
            format!("{} of {}", look.n_work, look.n_members),
        ));
    if let Some(first) = culprits.first() {
        found = found.with(Evidence::new(
            "differs from the others that stopped",
            gpu_on_node(first),
        ));
    }
    found.culprits = culprits;
    // Nobody's name stands for a part of what nobody names: the part itself does.
    let about = if is_inferred(look.name) {
        stuck.iter().map(|gpu| gpu.at.clone()).collect()
    } else {
        look.places()
    };
    said.push(look.say(
        rule,
        about,
        change,
        entrenar::unit::Timestamp(started_at),
        found,
    ));
}

/// Of those that stopped, the few that idle while the others wait busily.
fn odd_ones(stuck: &[&Gpu]) -> Vec<GpuAt> {
    let idle = |gpu: &&&Gpu| gpu.pulse.activity != Some(Activity::Spin);
    let mut odd: Vec<GpuAt> = stuck
        .iter()
        .filter(idle)
        .map(|gpu| gpu.at.clone())
        .collect();
    odd.sort();
    if odd.len() * 4 > stuck.len() {
        odd.clear();
    }
    odd
}
