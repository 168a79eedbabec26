//! What a job's GPUs do together, at one moment of the job's own time. *(pure)*

use std::time::Duration;

use entrenar::andon::{Cord, Patience, Verdict};
use entrenar::report::{JobKind, Labels};
use entrenar::unit::Timestamp;

use crate::andon::fleet::{Fleet, Job, Node};
use crate::andon::gpu::Gpu;
use crate::andon::job::Said;
use crate::andon::pulse::Activity;
use crate::andon::rules::Rule;
use crate::andon::{Change, Finding, GpuAt, Presence, Scope};

/// Of so many GPUs one may still do something while the job as a whole hangs.
const ALONE_FROM: usize = 4;
/// … and this share of many.
const EXCEPTIONS: f64 = 0.1;
/// A job's cords are used to gaps: it is looked at by the fleet's clock, and its own time moves in steps.
const JOB_STEP: Duration = Duration::from_secs(5);
/// A member whose latest sample is this many intervals behind the newest is not heard of.
const DARK_INTERVALS: i64 = 2;

/// What a job's GPUs do together.
pub(in crate::andon) struct JobLook<'a> {
    pub(in crate::andon) name: &'a str,
    pub(in crate::andon) job: &'a Job,
    /// The earliest of the live members' latest samples.
    pub(in crate::andon) at: Timestamp,
    pub(in crate::andon) interval_ms: i64,
    pub(in crate::andon) n_members: usize,
    pub(in crate::andon) n_work: usize,
    pub(in crate::andon) n_spin: usize,
    pub(in crate::andon) n_idle: usize,
    pub(in crate::andon) n_off: usize,
    /// Heard of, and what it does is not known.
    pub(in crate::andon) n_unknown: usize,
    /// Not heard of, or their device does not answer.
    pub(in crate::andon) n_dark: usize,
    n_suspended: usize,
    /// Members whose host's CPU time or files are seen.
    n_with_host: usize,
    /// The last sign of life of any host.
    pub(in crate::andon) progress_at: Option<Timestamp>,
    link_rate: f32,
    /// Some of its nodes are late or silent, and nobody knows yet whether they are lost: what they do, they may do well.
    pub(in crate::andon) is_cut: bool,
    /// Found once: every detector walks over them.
    heard: Vec<(&'a Node, &'a Gpu)>,
    dark: Vec<&'a Gpu>,
}

impl<'a> JobLook<'a> {
    /// `None`: no member is heard of.
    pub(in crate::andon) fn of(fleet: &'a Fleet, name: &'a str, job: &'a Job) -> Option<Self> {
        let members: Vec<(&Node, &Gpu)> = fleet.members(job).collect();
        let (mut newest, mut interval_ms) = (None, 0);
        for (node, gpu) in members.iter().filter(|(node, _)| is_live(node)) {
            newest = newest.max(gpu.last_tick);
            interval_ms = interval_ms.max(node.interval_ms);
        }
        let newest = newest?;
        let mut look = Self {
            name,
            job,
            at: newest,
            interval_ms,
            n_members: members.len(),
            n_work: 0,
            n_spin: 0,
            n_idle: 0,
            n_off: 0,
            n_unknown: 0,
            n_dark: 0,
            n_suspended: 0,
            n_with_host: 0,
            progress_at: None,
            link_rate: 0.0,
            is_cut: false,
            heard: Vec::with_capacity(members.len()),
            dark: Vec::new(),
        };
        for (node, gpu) in members {
            look.add(node, gpu, newest);
        }
        Some(look)
    }

    fn add(&mut self, node: &'a Node, gpu: &'a Gpu, newest: Timestamp) {
        let heard = gpu
            .last_tick
            .filter(|at| is_live(node) && newest.0 - at.0 <= DARK_INTERVALS * self.interval_ms);
        let Some(tick) = heard.filter(|_| gpu.answers()) else {
            self.n_dark += 1;
            self.is_cut |= heard.is_none() && awaits_judgement(node);
            self.dark.push(gpu);
            return;
        };
        self.heard.push((node, gpu));
        self.at = self.at.min(tick);
        let pulse = &gpu.pulse;
        match pulse.activity {
            Some(Activity::Work) => self.n_work += 1,
            Some(Activity::Spin) => self.n_spin += 1,
            Some(Activity::Idle) => self.n_idle += 1,
            Some(Activity::Off) => self.n_off += 1,
            None => self.n_unknown += 1,
        }
        self.n_suspended += usize::from(gpu.is_suspended());
        self.n_with_host += usize::from(pulse.sees_host);
        // One that goes on alone copies and reads as it always did: that is no life of the others.
        if pulse.activity != Some(Activity::Work) {
            self.progress_at = self.progress_at.max(pulse.progress_at);
            if pulse.network_moved_at > self.progress_at && self.has_node_alone(node) {
                self.progress_at = pulse.network_moved_at;
            }
        }
        self.link_rate += pulse.link_rate.unwrap_or(0.0) + pulse.network_rate.unwrap_or(0.0);
    }

    /// What a node's ports carry is this job's only if nobody else's GPUs are on it.
    fn has_node_alone(&self, node: &Node) -> bool {
        let other = |gpu: &Gpu| gpu.holder().is_some_and(|holder| holder.job != self.name);
        !node.gpus.iter().any(other)
    }

    /// Members that are heard of and of which is known what they do.
    pub(in crate::andon) fn n_known(&self) -> usize {
        self.n_work + self.n_spin + self.n_idle + self.n_off
    }

    /// The scheduler holds it stopped.
    pub(in crate::andon) fn is_suspended(&self) -> bool {
        self.n_suspended > 0
    }

    /// The hosts of its members tell of files and CPU time.
    pub(in crate::andon) fn sees_hosts(&self) -> bool {
        let heard = self.n_members - self.n_dark;
        heard > 0 && self.n_with_host * 2 >= heard
    }

    pub(in crate::andon) fn work_share(&self) -> f32 {
        self.n_work as f32 / self.n_known().max(1) as f32
    }

    /// Bytes a second and GPU over NVLink and RDMA.
    pub(in crate::andon) fn mean_link_rate(&self) -> f32 {
        self.link_rate / self.n_known().max(1) as f32
    }

    /// How many may still do something while the job as a whole gets nothing done.
    pub(in crate::andon) fn exceptions(&self) -> usize {
        let known = self.n_known();
        let few = (known as f64 * EXCEPTIONS) as usize;
        few.max(usize::from(known >= ALONE_FROM))
    }

    /// All of its GPUs, but for a few, get nothing done.
    pub(in crate::andon) fn is_paused(&self) -> bool {
        self.n_known() > 0 && self.n_work <= self.exceptions()
    }

    /// Most of them have no program any more: it has ended, or starts anew.
    pub(in crate::andon) fn is_off(&self) -> bool {
        self.n_off * 2 > self.n_known()
    }

    /// Its members that are heard of, with their nodes.
    pub(in crate::andon) fn heard(&self) -> impl Iterator<Item = (&'a Node, &'a Gpu)> + '_ {
        self.heard.iter().copied()
    }

    /// Its members that are not heard of, or whose device does not answer.
    pub(in crate::andon) fn dark(&self) -> impl Iterator<Item = &'a Gpu> + '_ {
        self.dark.iter().copied()
    }

    /// Where it runs, sorted.
    pub(in crate::andon) fn places(&self) -> Vec<GpuAt> {
        let heard = self.heard().map(|(_, gpu)| gpu);
        let mut places: Vec<GpuAt> = heard.chain(self.dark()).map(|gpu| gpu.at.clone()).collect();
        places.sort();
        places
    }

    /// Lets a cord of the job take in a verdict, in the job's own time.
    pub(in crate::andon) fn step(
        &self,
        cord: &mut Cord,
        verdict: Verdict,
        hold: Duration,
        settle: Duration,
    ) -> Option<Change> {
        let interval = Duration::from_millis(self.interval_ms as u64).max(JOB_STEP);
        let patience = Patience { hold, settle };
        cord.observe(self.at, verdict, patience, interval)
            .map(Change::from)
    }

    /// What a rule says of the job. `gpus`: those that it is about, sorted.
    pub(in crate::andon) fn say<R: Rule>(
        &self,
        rule: &R,
        gpus: Vec<GpuAt>,
        change: Change,
        started_at: Timestamp,
        mut finding: Finding,
    ) -> Said {
        let job = self.name.to_owned();
        finding.job = Some(job.clone());
        Said {
            kind: R::KIND,
            rule: rule.uid(),
            scope: Scope::Job { job, gpus },
            change,
            severity: rule.severity(),
            started_at,
            finding,
        }
    }

    /// Labels of a finding about the whole job.
    pub(in crate::andon) fn labels(&self) -> Labels {
        let kind = match self.job.kind {
            JobKind::Unknown => "unknown",
            known => known.name(),
        };
        Labels::from([("job_kind".to_owned(), kind.to_owned())])
    }
}

/// Nothing comes of it, and it has not been told to be lost.
fn awaits_judgement(node: &Node) -> bool {
    matches!(node.presence, Presence::Late | Presence::Silent) && node.lost_by.is_none()
}

fn is_live(node: &Node) -> bool {
    matches!(node.presence, Presence::Live | Presence::Late)
}
