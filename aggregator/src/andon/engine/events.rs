//! An event comes in: an XID finds the thing that it is about, and joins or makes that thing's finding.

use entrenar::gpu::{GpuUuid, NodeId};
use entrenar::report::{GpuEvent, GpuEventKind};
use entrenar::unit::Timestamp;

use super::{Engine, NEARBY_MS, cord};
use crate::andon::finding::{gpu_on_node, listed};
use crate::andon::lost::Why;
use crate::andon::rules::Rule as _;
use crate::andon::rules::RuleSet;
use crate::andon::xid::table::{means_lost, row, told_by};
use crate::andon::xid::{News, XidState};
use crate::andon::{Change, GpuAt, Kind, Resolution, Scope, Severity};

/// Another event so shortly before is what a victim's code follows.
const FOLLOWS_MS: i64 = 120_000;
/// Most GPUs that are named for a job's errors.
const MOST_GPUS: usize = 64;

/// What an XID is about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum About {
    Gpu(GpuUuid),
    Job(String),
    Node(NodeId),
}

impl Engine {
    pub(super) fn note_event(&mut self, now: Timestamp, node: &NodeId, event: &GpuEvent) {
        let GpuEventKind::Xid(code) = event.what;
        let nearby = (event.at.0 - now.0).abs() <= NEARBY_MS;
        let at = if nearby { event.at } else { now };
        let known = event
            .gpu
            .clone()
            .filter(|uuid| self.memory.fleet.gpu(uuid).is_some());
        if let Some(uuid) = &known
            && means_lost(code)
        {
            self.lose_gpu(at, event.at.min(at), uuid, Why::Xid(code));
        }
        let rules = match &known {
            Some(uuid) => self.rules_of_gpu(uuid),
            None => self.rules_of_node(node),
        };
        let is_told = known.is_some() && is_told_elsewhere(code, &rules);
        if rules.xid.enabled
            && !is_told
            && let Some(severity) = rules.xid.severity_of(code)
        {
            self.note_xid(at, node, known.as_ref(), (code, severity));
        }
        if let Some(uuid) = &known {
            self.let_hear(at, node, uuid, code);
        }
    }

    /// The other watches of the GPU hear of a code too; what explains them has been said before.
    fn let_hear(&mut self, at: Timestamp, id: &NodeId, uuid: &GpuUuid, code: u64) {
        let mut said = Vec::new();
        let Some(node) = self.memory.fleet.nodes.get_mut(id) else {
            return;
        };
        let Some(place) = node.gpus.iter().position(|gpu| gpu.at.uuid == *uuid) else {
            return;
        };
        let gpu = &mut node.gpus[place];
        gpu.hear(at, code, self.index.set(gpu.rules), &mut said);
        for signal in said {
            self.pass_on(id, place, at, signal);
        }
    }

    fn note_xid(
        &mut self,
        at: Timestamp,
        node: &NodeId,
        gpu: Option<&GpuUuid>,
        (code, severity): (u64, Severity),
    ) {
        let row = row(code);
        let job = gpu
            .and_then(|uuid| self.memory.fleet.job_of(uuid))
            .map(str::to_owned);
        let follows = self.recent_xid(at, gpu, job.as_deref());
        if row.is_detail() || (row.is_victim() && follows.is_some()) {
            if let Some(about) = follows
                && let Some(state) = self.xid_mut(&about)
            {
                state.note(at, code, severity);
            }
            return;
        }
        let about = match (gpu.cloned(), job) {
            (_, Some(job)) if row.is_of_the_job() => About::Job(job),
            (Some(gpu), _) => About::Gpu(gpu),
            (None, _) => About::Node(node.clone()),
        };
        let Some(state) = self.xid_mut(&about) else {
            return;
        };
        let news = state.note(at, code, severity);
        if news == News::Anew {
            self.end_xid(at, &about);
        }
        if news != News::Nothing {
            self.tell_xid(at, &about, gpu);
        }
    }

    /// The last episode is over: another begins.
    fn end_xid(&mut self, at: Timestamp, about: &About) {
        let is_it = |scope: &Scope| match (about, scope) {
            (About::Gpu(uuid), Scope::Gpu { gpu }) => gpu.uuid == *uuid,
            (About::Job(name), Scope::Job { job, .. }) => job == name,
            (About::Node(id), Scope::Node { node }) => node == id,
            _ => false,
        };
        self.clear_all(at, Resolution::Recovered, |_, scope, kind| {
            kind == Kind::Xid && is_it(scope)
        });
    }

    /// What has just had an XID, of a GPU and its job.
    fn recent_xid(
        &mut self,
        at: Timestamp,
        gpu: Option<&GpuUuid>,
        job: Option<&str>,
    ) -> Option<About> {
        let candidates = [
            gpu.cloned().map(About::Gpu),
            job.map(|job| About::Job(job.into())),
        ];
        candidates.into_iter().flatten().find(|about| {
            let last = self.xid_mut(about).and_then(|state| state.last_at());
            last.is_some_and(|last| at.0 - last.0 <= FOLLOWS_MS)
        })
    }

    fn xid_mut(&mut self, about: &About) -> Option<&mut XidState> {
        let fleet = &mut self.memory.fleet;
        match about {
            About::Gpu(uuid) => Some(&mut fleet.gpu_mut(uuid)?.watches.xid),
            About::Job(job) => Some(&mut fleet.jobs.get_mut(job)?.xid),
            About::Node(node) => Some(&mut fleet.nodes.get_mut(node)?.xid),
        }
    }

    fn tell_xid(&mut self, at: Timestamp, about: &About, gpu: Option<&GpuUuid>) {
        let rules = match about {
            About::Gpu(uuid) => self.rules_of_gpu(uuid),
            About::Job(job) => self.rules_of_job(job),
            About::Node(node) => self.rules_of_node(node),
        };
        let rule = &rules.xid;
        let fleet = &self.memory.fleet;
        let place = gpu
            .and_then(|uuid| fleet.gpu(uuid))
            .map(|gpu| gpu.at.clone());
        let labels_of = |node: &NodeId| {
            fleet
                .nodes
                .get(node)
                .map(|node| node.labels.clone())
                .unwrap_or_default()
        };
        let (scope, said) = match about {
            About::Gpu(uuid) => {
                let Some(gpu) = fleet.gpu(uuid) else {
                    return;
                };
                let labels = labels_of(&gpu.at.node);
                let said = gpu.describe(Kind::Xid, at, &labels, std::time::Duration::ZERO, &rules);
                let gpu = gpu.at.clone();
                (Scope::Gpu { gpu }, said)
            }
            About::Job(name) => {
                let Some(job) = fleet.jobs.get(name) else {
                    return;
                };
                let gpus = self.gpus_with_xid(name, place);
                let words = format!("job {name} ({})", listed(gpus.iter().map(gpu_on_node)));
                let mut finding = job
                    .xid
                    .told_of(&words, &entrenar::report::Labels::new(), rule);
                finding.job = Some(name.clone());
                let said = (rule.uid(), job.xid.worst(), job.xid.since(at), finding);
                let job = name.clone();
                (Scope::Job { job, gpus }, Some(said))
            }
            About::Node(id) => {
                let Some(node) = fleet.nodes.get(id) else {
                    return;
                };
                let words = format!("{id} (the driver did not say which GPU)");
                let finding = node.xid.told_of(&words, &node.labels, rule);
                let said = (rule.uid(), node.xid.worst(), node.xid.since(at), finding);
                let node = id.clone();
                (Scope::Node { node }, Some(said))
            }
        };
        if let Some(said) = said {
            self.report(Kind::Xid, scope, Change::Raised, at, said);
        }
    }

    /// The GPUs on which a job's errors were seen: those that were told of, and this one.
    fn gpus_with_xid(&self, job: &str, this: Option<GpuAt>) -> Vec<GpuAt> {
        let scope = Scope::Job {
            job: job.into(),
            gpus: Vec::new(),
        };
        let key = cord(&self.rules.xid, &scope);
        let mut gpus = match self.memory.register.scope(&key) {
            Some(Scope::Job { gpus, .. }) => gpus.clone(),
            _ => Vec::new(),
        };
        let new = this.filter(|gpu| !gpus.contains(gpu) && gpus.len() < MOST_GPUS);
        gpus.extend(new);
        gpus.sort();
        gpus
    }

    /// Clears what has been quiet for long enough.
    pub(super) fn settle_xids(&mut self, now: Timestamp) {
        let is_xid = |_: &_, _: &Scope, kind| kind == Kind::Xid;
        for key in self.memory.register.keys(is_xid) {
            let Some(scope) = self.memory.register.scope(&key) else {
                continue;
            };
            let rules = self.rules_of(scope);
            let about = match scope {
                Scope::Gpu { gpu } => About::Gpu(gpu.uuid.clone()),
                Scope::Job { job, .. } => About::Job(job.clone()),
                Scope::Node { node } => About::Node(node.clone()),
                _ => continue,
            };
            // A GPU that was lost and answers again has been reset.
            let lost = self.rules.gpu_lost.uid();
            let cause = self
                .memory
                .register
                .cause_of(&key)
                .filter(|cause| cause.rule == lost);
            let cause_is_over = cause.is_some_and(|cause| !self.memory.register.is_up(cause));
            let over = match self.xid_mut(&about) {
                Some(state) if cause_is_over => {
                    *state = XidState::default();
                    true
                }
                Some(state) => state.settle(now, &rules.xid),
                None => true,
            };
            if over {
                self.memory.register.clear(&key, now, Resolution::Recovered);
            }
        }
    }
}

/// Whether a watch of its own tells of a code of a known GPU.
fn is_told_elsewhere(code: u64, rules: &RuleSet) -> bool {
    match told_by(code) {
        Some(Kind::EccUncorrectable) => rules.ecc_uncorrectable.enabled,
        Some(Kind::EccStorm) => rules.ecc_storm.enabled,
        Some(Kind::RowRemap) => rules.row_remap.enabled,
        Some(Kind::NvlinkError) => rules.nvlink_error.enabled,
        Some(Kind::GpuUnresponsive) => rules.gpu_unresponsive.enabled,
        _ => false,
    }
}
