//! PartialUse: a job works on some of its GPUs and has never used the others. *(pure)*
//!
//! Most often a wrong `CUDA_VISIBLE_DEVICES` or world size: the devices are paid for and wait for nobody.

use entrenar::andon::{Cord, Verdict};
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

use super::infer::is_guess;
use super::look::JobLook;
use super::{JobWatch, Said, may_train};
use crate::andon::Evidence;
use crate::andon::finding::{finding, gpu_on_node, lasting, listed};
use crate::andon::gpu::Gpu;
use crate::andon::rules::{Span, require, rule};

rule! {
    /// A job works on some of its GPUs and has never used the others.
    PartialUseRule: PartialUse, named "partial_use", Warning, true;
    /// How long the others must have worked while these did not.
    hold: Span = Span::secs(900);
    /// A GPU that worked longer than this was used.
    unused: Span = Span::secs(10);
    => |this| {
        require(this.hold >= Span::secs(60), "hold", "write at least 60s")
    }
}

/// What is remembered of a job's unused GPUs.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(in crate::andon) struct PartialState {
    cord: Cord,
}

impl PartialState {
    pub(in crate::andon) fn is_raised(&self) -> bool {
        self.cord.is_raised()
    }
}

pub(in crate::andon) fn observe(
    watch: &mut JobWatch,
    look: &JobLook<'_>,
    rule: &PartialUseRule,
    said: &mut Vec<Said>,
) {
    let is_up = watch.partial.cord.is_raised();
    let long_enough = watch.productive_ms >= rule.hold.millis();
    if !rule.enabled || is_guess(look.name) || !may_train(look.job.kind) || (!long_enough && !is_up)
    {
        return;
    }
    let is_unused = |gpu: &&Gpu| {
        let held_ms = gpu.pulse.held_since.map_or(0, |since| look.at.0 - since.0);
        gpu.pulse.worked_ms <= rule.unused.millis()
            && gpu.pulse.quiet_since.is_some()
            && held_ms >= rule.hold.millis()
    };
    let unused: Vec<&Gpu> = look.heard().map(|(_, gpu)| gpu).filter(is_unused).collect();
    let some = !unused.is_empty() && unused.len() < look.n_known();
    let verdict = if some && !look.is_paused() {
        Verdict::Unwelcome
    } else if unused.is_empty() {
        Verdict::Fine
    } else {
        Verdict::Between
    };
    let step = look.step(
        &mut watch.partial.cord,
        verdict,
        Duration::ZERO,
        Duration::ZERO,
    );
    let Some(change) = step else {
        return;
    };
    let since = unused.iter().filter_map(|gpu| gpu.pulse.held_since).min();
    let since = since.unwrap_or(look.at);
    let names = listed(unused.iter().map(|gpu| gpu_on_node(&gpu.at)));
    let lasts = lasting(look.at.0 - since.0);
    let summary = format!(
        "Job {} has never used {} of its {} GPUs in {lasts}: {names}",
        look.name,
        unused.len(),
        look.n_members
    );
    let action = "Compare CUDA_VISIBLE_DEVICES and the world size with what was allocated, or ask for fewer GPUs.";
    let mut found = finding(rule, &look.labels(), summary, action)
        .with(Evidence::new(
            "unused GPUs",
            format!("{} of {}", unused.len(), look.n_members),
        ))
        .with(
            Evidence::new("the others worked for", lasting(watch.productive_ms))
                .against(rule.hold.to_string()),
        );
    found.culprits = unused.iter().take(8).map(|gpu| gpu.at.clone()).collect();
    said.push(look.say(
        rule,
        unused.iter().map(|gpu| gpu.at.clone()).collect(),
        change,
        Timestamp(since.0),
        found,
    ));
}
