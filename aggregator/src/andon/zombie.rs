//! ZombieGpu: a GPU works, or its memory is taken, and no process is there for it. *(pure)*
//!
//! A process that was killed may leave a kernel that runs for ever, or memory that nobody gives back. Nobody holds such a
//! GPU, and the next job on it fails. Where processes are not counted, a GPU counts as left behind that its job has given
//! back, and that has waited busily without a moment's rest ever since.

use entrenar::andon::{Cord, Patience, Verdict};
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

use super::finding::{finding, gibibytes, gpu_on_node, lasting};
use super::recent::last;
use super::rules::{Span, require, rule};
use super::watch::{Look, Telling, Watch};
use super::{Change, Evidence, Finding};

rule! {
    /// A GPU works, or its memory is taken, and no process is there for it.
    ZombieGpuRule: ZombieGpu, named "zombie_gpu", Warning, true;
    /// A GPU this busy works.
    busy_percent: i64 = 90;
    /// More memory than this is taken by somebody.
    memory_bytes: i64 = 1 << 30;
    /// How long it must be so.
    hold: Span = Span::secs(60);
    /// How long it must be over.
    settle: Span = Span::secs(30);
    => |this| {
        require((1..=100).contains(&this.busy_percent), "busy_percent", "write a number from 1 to 100")?;
        require(this.memory_bytes >= 1 << 20, "memory_bytes", "write at least 1048576")
    }
}

/// Processes are counted at a slower pace: how long a count stands.
const COUNT_STANDS_MS: i64 = 25_000;
/// Where they are not counted at all, patience is so many times longer: programs take a minute to leave.
const RELEASED_HOLDS: u32 = 2;
/// A GPU that is less busy than this rests: whoever was on it has left it.
const RESTS_BELOW_PERCENT: i64 = 50;

/// What is remembered of a GPU that nobody holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct ZombieState {
    cord: Cord,
    /// When none was counted.
    none_at: Option<Timestamp>,
    works: bool,
    /// It had a holder, a tick ago.
    #[serde(default)]
    was_held: bool,
    /// Its job has given it back while it was busy, and it has not rested since.
    #[serde(default)]
    released: bool,
}

impl ZombieState {
    /// Takes note of a job that ends and leaves the GPU busy. Where processes are counted, the count says more.
    fn note_release(&mut self, look: &Look<'_>) {
        let ends = std::mem::replace(&mut self.was_held, look.is_held) && !look.is_held;
        let rests = look.sample.busy_percent < Some(RESTS_BELOW_PERCENT);
        let is_told = look.is_held || look.sample.processes.is_some();
        self.released = (self.released || ends) && !rests && !is_told;
    }
}

impl Watch for ZombieState {
    type Rule = ZombieGpuRule;

    fn observe(&mut self, look: &Look<'_>, rule: &ZombieGpuRule) -> Option<Change> {
        match look.sample.processes {
            Some(0) => self.none_at = Some(look.at),
            Some(_) => self.none_at = None,
            None => {}
        }
        let none_there = self
            .none_at
            .is_some_and(|at| look.at.0 - at.0 <= COUNT_STANDS_MS.max(2 * look.interval_ms()));
        self.note_release(look);
        let is_left = self.released && !look.is_working;
        let is_nobodys = !look.is_held && !look.is_partition && (none_there || is_left);
        let (busy, used) = (look.sample.busy_percent, look.sample.memory_used);
        let lives = busy >= Some(rule.busy_percent) || used > Some(rule.memory_bytes);
        if !(is_nobodys && lives) && self.cord.since().is_none() {
            return None;
        }
        self.works = busy >= Some(rule.busy_percent);
        let verdict = if is_nobodys && lives {
            Verdict::Unwelcome
        } else {
            Verdict::Fine
        };
        let patience = Patience {
            hold: if self.released {
                rule.hold.0 * RELEASED_HOLDS
            } else {
                rule.hold.0
            },
            settle: rule.settle.0,
        };
        let change = self.cord.observe(look.at, verdict, patience, look.interval);
        change.map(Change::from)
    }

    fn started_at(&self, at: Timestamp) -> Timestamp {
        self.cord.since().unwrap_or(at)
    }

    fn finding(&self, tell: &Telling<'_>, rule: &ZombieGpuRule) -> Finding {
        let lasts = lasting(tell.at.0 - self.started_at(tell.at).0);
        let what = if self.works {
            "works"
        } else {
            "has its memory taken"
        };
        let without = if self.released {
            "after its job has ended"
        } else {
            "without any process"
        };
        let summary = format!("{} {what} {without} for {lasts}", gpu_on_node(tell.gpu));
        let action = "A killed process has left something on it. Look for it in other containers (`fuser -v /dev/nvidia*`); if \
                      there is none, reset the GPU, or reboot the node.";
        let busy = tell.recent.busy_percent();
        let busy = last(&busy).map(|percent| {
            Evidence::new("utilisation", format!("{percent:.0} %"))
                .against(format!("{} %", rule.busy_percent))
                .over(busy.clone())
        });
        let memory = tell.recent.memory_percent();
        let memory = last(&memory).map(|percent| {
            Evidence::new("memory used", format!("{percent:.1} %"))
                .against(gibibytes(rule.memory_bytes))
                .over(memory.clone())
        });
        let mut found = finding(rule, tell.labels, summary, action)
            .with_some((!self.released).then(|| Evidence::new("processes", "0")))
            .with_some(busy)
            .with_some(memory)
            .missing_if(self.released, "how many processes are on it");
        found.culprits.push(tell.gpu.clone());
        found
    }
}
