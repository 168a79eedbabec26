//! StorageStall and NetworkFault: several jobs stop at the same moment, so that it is none of them. *(pure)*
//!
//! Jobs share nothing but storage, network and power. When three of them show no life from the same minute on, and
//! ranks of theirs idle (their programs are blocked on files), it is the storage; when two that span nodes wait busily
//! from the same moment on, and nobody idles, it is the network between the nodes. One finding takes the place of a
//! hang for each.

use entrenar::andon::{Cord, Patience, Verdict};
use entrenar::gpu::NodeId;
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

use super::infer::same_memory;
use crate::andon::finding::{finding, lasting, listed};
use crate::andon::rules::{Rule, Span, require, rule};
use crate::andon::{Change, Evidence, Finding, Kind, RuleUid, Scope, Severity};

rule! {
    /// Several jobs stop at once and their programs wait for files.
    StorageStallRule: StorageStall, named "storage_stall", Critical, true;
    /// So many jobs must stop together.
    jobs: u32 = 3;
    /// How far apart they may stop.
    within: Span = Span::secs(75);
    /// How long none of them must have shown life.
    hold: Span = Span::secs(60);
    => |this| {
        require((2..=1000).contains(&this.jobs), "jobs", "write a number from 2 to 1000")
    }
}

rule! {
    /// Several jobs that span nodes stop at once and all their GPUs wait for each other.
    NetworkFaultRule: NetworkFault, named "network_fault", Critical, true;
    /// So many jobs must stop together.
    jobs: u32 = 2;
    /// How far apart they may stop, beside a sampling interval.
    within: Span = Span::secs(3);
    /// How long none of them must have shown life.
    hold: Span = Span::secs(25);
    => |this| {
        require((2..=1000).contains(&this.jobs), "jobs", "write a number from 2 to 1000")
    }
}

/// A job that shows no life, as it is held against others.
#[derive(Clone, Debug)]
pub(in crate::andon) struct Dead {
    pub(in crate::andon) job: String,
    /// When the last of its GPUs left off working.
    pub(in crate::andon) since: Timestamp,
    pub(in crate::andon) lifeless_ms: i64,
    /// How long it must be dead to be more than a pause, in milliseconds.
    pub(in crate::andon) pause_ms: i64,
    pub(in crate::andon) interval_ms: i64,
    pub(in crate::andon) nodes: BTreeSet<NodeId>,
    /// Share of its GPUs that idle rather than wait busily.
    pub(in crate::andon) idle_share: f32,
    /// It was made up from GPUs without a holder: it may be part of another.
    pub(in crate::andon) is_inferred: bool,
    /// Memory that its GPUs hold, in thousandths of all, as a median.
    pub(in crate::andon) memory: u16,
    /// Some of its programs are blocked on input or output.
    pub(in crate::andon) is_blocked: bool,
    /// Something deeper explains it.
    pub(in crate::andon) is_explained: bool,
}

impl Dead {
    fn is_long(&self, hold: Span) -> bool {
        self.lifeless_ms >= hold.millis().max(3 * self.interval_ms).max(self.pause_ms)
    }
}

/// What is remembered of jobs that stopped together.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in crate::andon) struct TogetherState {
    storage: Trouble,
    network: Trouble,
}

/// One kind of trouble that several jobs share; the group stays as it was told of.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Trouble {
    cord: Cord,
    group: String,
    jobs: BTreeSet<String>,
    nodes: BTreeSet<NodeId>,
}

/// What is said of it.
pub(in crate::andon) struct SaidTogether {
    pub(in crate::andon) kind: Kind,
    pub(in crate::andon) rule: RuleUid,
    pub(in crate::andon) scope: Scope,
    pub(in crate::andon) change: Change,
    pub(in crate::andon) severity: Severity,
    pub(in crate::andon) started_at: Timestamp,
    pub(in crate::andon) finding: Finding,
}

/// A share of idle ranks from which on a job waits for files rather than for its peers.
const IDLE_SHARE: f32 = 0.2;
/// … and of what nobody names, which may be part of a job.
const ALL_IDLE: f32 = 0.9;
/// All GPUs of a job stop within a step, in milliseconds and beside two sampling intervals.
const SAME_STEP_MS: i64 = 3_000;

impl TogetherState {
    pub(in crate::andon) fn observe_storage(
        &mut self,
        now: Timestamp,
        dead: &[Dead],
        rule: &StorageStallRule,
    ) -> Option<SaidTogether> {
        let belongs = |job: &&Dead| {
            let share = if job.is_inferred {
                ALL_IDLE
            } else {
                IDLE_SHARE
            };
            (job.is_blocked || job.idle_share >= share) && !job.is_explained
        };
        let waiting: Vec<&Dead> = dead.iter().filter(belongs).collect();
        let group = largest(&waiting, rule.within.millis());
        let long = group.iter().filter(|job| job.is_long(rule.hold));
        let enough = n_apart(long.copied().collect()) >= rule.jobs as usize;
        let group = if enough { group } else { Vec::new() };
        let action = "Look at the storage that these jobs share: servers, mounts (`df`, `dmesg`), its network. The jobs \
                      go on by themselves once it answers, or hang and must be restarted.";
        self.storage
            .observe(now, &group, dead, rule, "wait for storage", action)
    }

    pub(in crate::andon) fn observe_network(
        &mut self,
        now: Timestamp,
        dead: &[Dead],
        rule: &NetworkFaultRule,
    ) -> Option<SaidTogether> {
        let belongs = |job: &&Dead| {
            job.nodes.len() > 1
                && !job.is_blocked
                && !job.is_inferred
                && job.idle_share < IDLE_SHARE
                && !job.is_explained
        };
        let waiting: Vec<&Dead> = dead.iter().filter(belongs).collect();
        let slowest_ms = waiting.iter().map(|job| job.interval_ms).max().unwrap_or(0);
        let group = largest(&waiting, rule.within.millis() + slowest_ms);
        let long = |job: &&&Dead| job.is_long(rule.hold);
        let n = group.iter().filter(long).count();
        let enough = n >= rule.jobs as usize;
        let group = if enough { group } else { Vec::new() };
        let action = "Look at the switch or fabric that these nodes share: link state, subnet manager, recent changes.";
        self.network.observe(
            now,
            &group,
            dead,
            rule,
            "lost the network between their nodes",
            action,
        )
    }
}

/// How many of these are surely different jobs. Parts of one job stop in the same moment, and hold the same share of
/// their memory wherever they run alike: those that nobody names count once for each share, if they stopped apart.
fn n_apart(jobs: Vec<&Dead>) -> usize {
    let (mut parts, known): (Vec<&Dead>, Vec<&Dead>) = jobs
        .into_iter()
        .partition(|job| job.is_inferred && !job.is_blocked);
    parts.sort_by_key(|job| job.memory);
    let differ = |pair: &[&Dead]| !same_memory(pair[0].memory, pair[1].memory);
    let n_kinds = 1 + parts.windows(2).filter(|pair| differ(pair)).count();
    let first = parts.iter().map(|job| job.since).min();
    let last = parts.iter().map(|job| job.since).max();
    let slowest_ms = parts.iter().map(|job| job.interval_ms).max();
    known.len()
        + match (first, last, slowest_ms) {
            (Some(first), Some(last), Some(interval_ms))
                if last.0 - first.0 > SAME_STEP_MS + 2 * interval_ms =>
            {
                n_kinds
            }
            (first, ..) => usize::from(first.is_some()),
        }
}

/// The most jobs that stopped within so many milliseconds.
fn largest<'a>(jobs: &[&'a Dead], within_ms: i64) -> Vec<&'a Dead> {
    let around = |first: &&Dead| -> Vec<&'a Dead> {
        let near = |job: &&&Dead| (0..=within_ms).contains(&(job.since.0 - first.since.0));
        jobs.iter().filter(near).copied().collect()
    };
    jobs.iter()
        .map(around)
        .max_by_key(Vec::len)
        .unwrap_or_default()
}

impl Trouble {
    fn observe<R: Rule>(
        &mut self,
        now: Timestamp,
        group: &[&Dead],
        dead: &[Dead],
        rule: &R,
        what: &str,
        action: &str,
    ) -> Option<SaidTogether> {
        if !self.cord.is_raised() && !group.is_empty() {
            self.jobs = group.iter().map(|job| job.job.clone()).collect();
            self.nodes = group.iter().flat_map(|job| job.nodes.clone()).collect();
            self.group = format!("jobs {}", listed(self.jobs.iter()));
        }
        // It lasts as long as most of those jobs show no life.
        let still = dead
            .iter()
            .filter(|job| self.jobs.contains(&job.job))
            .count();
        let verdict = if self.cord.is_raised() {
            if still * 2 > self.jobs.len() {
                Verdict::Unwelcome
            } else {
                Verdict::Fine
            }
        } else if group.is_empty() {
            return None;
        } else {
            Verdict::Unwelcome
        };
        let patience = Patience {
            hold: Duration::ZERO,
            settle: Duration::from_secs(20),
        };
        let change = self
            .cord
            .observe(now, verdict, patience, Duration::from_secs(30))?;
        let since = group.iter().map(|job| job.since).min().unwrap_or(now);
        let n_nodes = self.nodes.len();
        let summary = format!(
            "{} jobs on {n_nodes} nodes stopped together and {what}: {}",
            self.jobs.len(),
            listed(self.jobs.iter())
        );
        let lasts = lasting(now.0 - since.0);
        let mut found = finding(rule, &entrenar::report::Labels::new(), summary, action)
            .with(Evidence::new("jobs that show no life", still.to_string()))
            .with(Evidence::new("for", lasts))
            .with(Evidence::new("nodes", listed(self.nodes.iter())));
        found.labels.insert("jobs".into(), listed(self.jobs.iter()));
        Some(SaidTogether {
            kind: R::KIND,
            rule: rule.uid(),
            scope: Scope::Nodes {
                group: self.group.clone(),
                nodes: self.nodes.iter().cloned().collect(),
            },
            change: change.into(),
            severity: rule.severity(),
            started_at: since,
            finding: found,
        })
    }
}
