//! Who holds a GPU: the backend's word where it knows (simulator, trace), else what its processes work for.
//!
//! The order of precedence is that of the names people search by: the Slurm job, then the Kubernetes pod, then the
//! container, then the user's process. [`Ledger`] turns what is seen into intervals: a change is reported only when
//! the GPU really changed hands.

mod container;
mod process;
mod slurm;

use std::collections::HashMap;

use entrenar::gpu::GpuUuid;
use entrenar::report::{Holder, HolderChange};
use entrenar::unit::Timestamp;

pub use self::process::{Scout, Seen, Users};

/// Who held each GPU when it was last looked at. Pure.
#[derive(Debug, Default)]
pub struct Ledger {
    holders: HashMap<GpuUuid, Option<Holder>>,
}

impl Ledger {
    /// Takes in who holds a GPU now. Answers with the change, if it is one; nobody at the first look is none.
    pub fn observe(
        &mut self,
        at: Timestamp,
        gpu: &GpuUuid,
        holder: Option<Holder>,
    ) -> Option<HolderChange> {
        let known = self.holders.entry(gpu.clone()).or_default();
        let before = std::mem::replace(known, holder.clone());
        if same_hold(before.as_ref(), holder.as_ref()) {
            return None;
        }
        Some(HolderChange {
            at,
            gpu: gpu.clone(),
            holder,
        })
    }

    /// Every GPU that somebody holds, as changes of this instant: for a reader that starts anew.
    pub fn restate(&self, at: Timestamp) -> Vec<HolderChange> {
        let held = self.holders.iter().filter(|(_, holder)| holder.is_some());
        held.map(|(gpu, holder)| HolderChange {
            at,
            gpu: gpu.clone(),
            holder: holder.clone(),
        })
        .collect()
    }
}

/// Processes come and go inside a job, so pids alone do not make another hold; unless not one of them is left, which
/// is what a restarted job looks like.
fn same_hold(before: Option<&Holder>, now: Option<&Holder>) -> bool {
    let (Some(before), Some(now)) = (before, now) else {
        return before.is_none() && now.is_none();
    };
    let alike = |holder: &Holder| Holder {
        pids: Vec::new(),
        ..holder.clone()
    };
    let pids_meet = before.pids.is_empty()
        || now.pids.is_empty()
        || before.pids.iter().any(|pid| now.pids.contains(pid));
    pids_meet && alike(before) == alike(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One look a second: `job:pid,pid`, `-` for nobody. What comes out: the second and the job of each change.
    fn check(looks: &str, expected: &str) {
        let mut ledger = Ledger::default();
        let gpu = GpuUuid::from("GPU-1");
        let mut told = Vec::new();
        for (second, look) in looks.split_whitespace().enumerate() {
            let holder = look.split_once(':').map(|(job, pids)| Holder {
                job: job.to_owned(),
                pids: pids.split(',').map(|pid| pid.parse().unwrap()).collect(),
                ..Holder::default()
            });
            let at = Timestamp::from_secs(second as i64);
            if let Some(change) = ledger.observe(at, &gpu, holder) {
                let job = change.holder.map_or("-".to_owned(), |h| h.job);
                told.push(format!("{second}:{job}"));
            }
        }
        assert_eq!(told.join(" "), expected, "{looks}");
    }

    #[test]
    fn only_a_change_of_hands_is_told() {
        check("- - -", "");
        check("- a:1 a:1 - -", "1:a 3:-");
        check("a:1 b:1", "0:a 1:b");
        check("a:1 a:1,2 a:2 a:2,3", "0:a");
        check("a:1 a:2", "0:a 1:a");
    }

    #[test]
    fn a_reader_that_starts_anew_hears_of_every_holder() {
        let mut ledger = Ledger::default();
        let holder = Holder {
            job: "a".to_owned(),
            ..Holder::default()
        };
        ledger.observe(Timestamp(1), &"GPU-1".into(), Some(holder));
        ledger.observe(Timestamp(1), &"GPU-2".into(), None);
        let told = ledger.restate(Timestamp(9));
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].at, told[0].gpu.as_str()), (Timestamp(9), "GPU-1"));
    }
}
