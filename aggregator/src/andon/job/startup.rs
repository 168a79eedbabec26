//! StartupStuck: a job has its GPUs for long, waits, and has not begun to work. *(pure)*
//!
//! Images are pulled, weights loaded and kernels compiled for minutes by right. Half an hour in which ranks wait for
//! one that never arrives is none of these. A job in which nobody even waits is idle, not stuck.

use entrenar::andon::{Cord, Verdict};
use entrenar::report::JobKind;
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

use super::culprit::{self, Blame};
use super::infer::is_guess;
use super::look::JobLook;
use super::{JobWatch, Said, may_train};
use crate::andon::Evidence;
use crate::andon::finding::{finding, gpu_on_node, lasting};
use crate::andon::rules::{Span, require, rule};

rule! {
    /// A job has its GPUs for long and has not begun to work.
    StartupStuckRule: StartupStuck, named "startup_stuck", Warning, true;
    /// How long a start may take.
    hold: Span = Span::secs(1800);
    /// How long it must have worked to count as begun.
    worked: Span = Span::secs(60);
    => |this| {
        require(this.hold >= Span::secs(60), "hold", "write at least 60s, and more than your slowest image pull")
    }
}

/// Cores a GPU that a program uses which waits for others.
const WAITING_CORES: f32 = 0.3;

/// What is remembered of a job's start.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(in crate::andon) struct StartupState {
    cord: Cord,
}

impl StartupState {
    pub(in crate::andon) fn is_raised(&self) -> bool {
        self.cord.is_raised()
    }
}

/// Whether somebody in it waits for the others: busily on a GPU, or on a core.
pub(in crate::andon) fn somebody_waits(look: &JobLook<'_>) -> bool {
    let on_core = || {
        look.heard()
            .any(|(_, gpu)| gpu.pulse.cores >= Some(WAITING_CORES))
    };
    look.n_spin > 0 || on_core()
}

pub(in crate::andon) fn observe(
    watch: &mut JobWatch,
    look: &JobLook<'_>,
    rule: &StartupStuckRule,
    said: &mut Vec<Said>,
) {
    let has_begun = watch.productive_ms >= rule.worked.millis();
    let is_up = watch.startup.cord.is_raised();
    if !rule.enabled || !may_train(look.job.kind) || (has_begun && !is_up) {
        return;
    }
    let since = look
        .heard()
        .filter_map(|(_, gpu)| gpu.pulse.held_since)
        .min()
        .unwrap_or(look.at);
    let age_ms = look.at.0 - since.0;
    let stuck = !has_begun && age_ms >= rule.hold.millis() && look.is_paused();
    // Ranks of a training job that have loaded their weights and idle wait for another; of a job that does not say what
    // it is, they may well do so where hosts tell nothing.
    let says_so = look.job.kind == JobKind::Train || !look.sees_hosts();
    let may_wait = says_so && look.n_idle > look.n_off && look.n_members > 1;
    let waits = if is_guess(look.name) {
        look.n_spin * 2 >= look.n_known()
    } else {
        somebody_waits(look) || may_wait
    };
    let verdict = if stuck && waits {
        Verdict::Unwelcome
    } else if has_begun {
        Verdict::Fine
    } else {
        Verdict::Between
    };
    let step = look.step(
        &mut watch.startup.cord,
        verdict,
        Duration::ZERO,
        Duration::ZERO,
    );
    let Some(change) = step else {
        return;
    };
    let Blame { culprits, why } = culprit::of(look);
    let blame = culprits.first().map_or(String::new(), |first| {
        format!("; {} {why}", gpu_on_node(first))
    });
    let lasts = lasting(age_ms);
    let summary = format!("Job {} has not begun to work for {lasts}{blame}", look.name);
    let action = "Look at the log of the rank that has not arrived: image, weights, rendezvous address, firewall.";
    let mut found = finding(rule, &look.labels(), summary, action)
        .with(Evidence::new("since it has its GPUs", lasts).against(rule.hold.to_string()))
        .with(Evidence::new(
            "waiting busily",
            format!("{} of {}", look.n_spin, look.n_members),
        ))
        .missing_if(
            !look.sees_hosts(),
            "CPU time and files of the job's programs",
        );
    found.culprits = culprits;
    said.push(look.say(
        rule,
        look.places(),
        change,
        stuck_since(look).unwrap_or(since),
        found,
    ));
}

/// The last sign of life of its hosts.
fn stuck_since(look: &JobLook<'_>) -> Option<Timestamp> {
    look.progress_at
}
