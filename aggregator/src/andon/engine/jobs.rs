//! Jobs are looked at: each for itself, then together.

use std::collections::BTreeSet;
use std::sync::Arc;

use entrenar::unit::Timestamp;

use super::{Engine, Memory};
use crate::andon::cause::concerns;
use crate::andon::job::hang::{began, can_hang};
use crate::andon::job::infer::Kin;
use crate::andon::job::look::JobLook;
use crate::andon::job::together::Dead;
use crate::andon::job::{JobWatch, infer};
use crate::andon::pulse::Activity;
use crate::andon::{CordKey, Kind, Scope};

/// Programs of a GPU that are blocked on input or output, or stopped: the state's code.
const BLOCKED: u8 = 2;
/// Jobs whose hosts tell nothing may all be in a checkpoint for so long, in milliseconds.
const BLIND_MS: i64 = 150_000;
/// A job is no longer taken to pause after this, whatever pauses are known of it.
const LONGEST_MS: i64 = 240_000;

impl Engine {
    pub(super) fn judge_jobs(&mut self, now: Timestamp) {
        self.memory.fleet.infer_jobs(now);
        self.memory.fleet.join_jobs(now);
        self.memory.kin = Kin::of(&self.memory.fleet);
        self.end_jobs(now);
        let names: Vec<String> = self.memory.fleet.jobs.keys().cloned().collect();
        let mut dead = Vec::new();
        for name in names {
            self.judge_job(&name, &mut dead);
        }
        self.judge_together(now, dead);
    }

    fn judge_job(&mut self, name: &str, dead: &mut Vec<Dead>) -> Option<()> {
        let rules = self.rules_of_job(name);
        let Memory { fleet, kin, .. } = &mut self.memory;
        // Taken out while its detectors look at the rest of the fleet.
        let mut watch = std::mem::take(&mut fleet.jobs.get_mut(name)?.watch);
        let was_slow = watch.slow.is_raised();
        let mut said = Vec::new();
        if let Some(mut look) = JobLook::of(fleet, name, fleet.jobs.get(name)?) {
            if watch.judged_at.is_none_or(|judged| judged < look.at) {
                look.progress_at = look.progress_at.max(kin.life_of(name, &watch));
                watch.observe(&look, self.effort, &rules, &mut said);
            }
            if watch.dead_ms(look.at) > 0 && can_hang(&watch, &look, &rules.job_hang) {
                dead.push(dead_job(&look, &watch));
            }
        }
        let (at, is_slow) = (watch.judged_at, watch.slow.is_raised());
        fleet.jobs.get_mut(name)?.watch = watch;
        if was_slow != is_slow {
            self.freeze(name, is_slow);
        }
        for one in said {
            let scope = infer::scope_of(one.scope);
            let what = (one.rule, one.severity, one.started_at, one.finding);
            self.report(one.kind, scope, one.change, at?, what);
        }
        Some(())
    }

    /// The long means of a slow job's GPUs stand still, so that it is not taken for normal.
    fn freeze(&mut self, name: &str, frozen: bool) {
        let fleet = &mut self.memory.fleet;
        let Some(job) = fleet.jobs.get(name) else {
            return;
        };
        let uuids: Vec<_> = job.members.keys().cloned().collect();
        for uuid in uuids {
            if let Some(gpu) = fleet.gpu_mut(&uuid) {
                gpu.pulse.frozen = frozen;
            }
        }
    }

    fn judge_together(&mut self, now: Timestamp, mut dead: Vec<Dead>) {
        let rules = Arc::clone(&self.rules);
        for job in &mut dead {
            job.is_explained = self.is_explained(&job.job);
        }
        let together = &mut self.memory.together;
        let mut said = Vec::new();
        if rules.storage_stall.enabled {
            said.extend(together.observe_storage(now, &dead, &rules.storage_stall));
        }
        if rules.network_fault.enabled {
            said.extend(together.observe_network(now, &dead, &rules.network_fault));
        }
        for one in said {
            let what = (one.rule, one.severity, one.started_at, one.finding);
            self.report(one.kind, one.scope, one.change, now, what);
        }
    }

    /// Whether something deeper than the job itself, on one of its nodes, explains why it stands still.
    fn is_explained(&self, name: &str) -> bool {
        let deeper = [
            Kind::NodeLost,
            Kind::GpuLost,
            Kind::GpuUnresponsive,
            Kind::EccUncorrectable,
        ];
        let job = Scope::Job {
            job: name.to_owned(),
            gpus: Vec::new(),
        };
        let fleet = &self.memory.fleet;
        let explains = |_: &CordKey, scope: &Scope, kind: Kind| {
            deeper.contains(&kind) && concerns(scope, &job, fleet)
        };
        !self.memory.register.keys(explains).is_empty()
    }
}

fn dead_job(look: &JobLook<'_>, watch: &JobWatch) -> Dead {
    let known_ms = watch.gaps.quantile_ms(0.999) * 3 / 2;
    let blind_ms = if look.sees_hosts() { 0 } else { BLIND_MS };
    let mut nodes = BTreeSet::new();
    let mut is_blocked = false;
    for (_, gpu) in look.heard() {
        if !nodes.contains(&gpu.at.node) {
            nodes.insert(gpu.at.node.clone());
        }
        let idles = matches!(gpu.pulse.activity, Some(Activity::Idle));
        is_blocked |= idles && gpu.pulse.program_state == Some(BLOCKED);
    }
    Dead {
        job: look.name.to_owned(),
        since: began(look).unwrap_or(look.at),
        lifeless_ms: watch.dead_ms(look.at),
        pause_ms: known_ms.max(blind_ms).min(LONGEST_MS),
        interval_ms: look.interval_ms,
        nodes,
        idle_share: look.n_idle as f32 / look.n_known().max(1) as f32,
        is_inferred: infer::is_inferred(look.name),
        memory: infer::memory_of(look.heard().map(|(_, gpu)| gpu)),
        is_blocked,
        is_explained: false,
    }
}
