//! Who holds a job up: the few that differ from all others, or nobody rather than a guess. *(pure)*

use super::look::JobLook;
use crate::andon::GpuAt;
use crate::andon::gpu::Gpu;
use crate::andon::pulse::Activity;

/// A minority is at most this share of the job, as a divisor.
const MINORITY: usize = 4;
/// Most that are named.
const MOST_NAMED: usize = 8;
/// Cores of a program that is stuck, and of one that waits busily.
const STUCK_CORES: f32 = 0.3;
const WAITING_CORES: f32 = 0.6;

/// Who, and how that is known, in words.
#[derive(Debug, Default)]
pub(in crate::andon) struct Blame {
    /// Most likely first; empty: unknown.
    pub(in crate::andon) culprits: Vec<GpuAt>,
    /// Why them, as a clause after their name.
    pub(in crate::andon) why: &'static str,
}

impl Blame {
    fn on(mut gpus: Vec<&Gpu>, why: &'static str) -> Option<Self> {
        if gpus.is_empty() {
            return None;
        }
        gpus.sort_by(|a, b| suspicion(b).total_cmp(&suspicion(a)).then(a.at.cmp(&b.at)));
        let named = gpus.iter().take(MOST_NAMED);
        Some(Self {
            culprits: named.map(|gpu| gpu.at.clone()).collect(),
            why,
        })
    }
}

/// The stranger a program's state, the higher.
fn suspicion(gpu: &Gpu) -> f32 {
    let state = f32::from(gpu.pulse.program_state.unwrap_or(0));
    let idle_cores = gpu
        .pulse
        .cores
        .map_or(0.0, |cores| (1.0 - cores).clamp(0.0, 1.0));
    state + idle_cores
}

/// Who holds up a job that gets nothing done.
pub(in crate::andon) fn of(look: &JobLook<'_>) -> Blame {
    dark(look)
        .or_else(|| minority(look))
        .or_else(|| cut_off(look))
        .or_else(|| stuck_program(look))
        .unwrap_or_default()
}

/// Those that are not heard of, while the others are.
fn dark(look: &JobLook<'_>) -> Option<Blame> {
    let few = look.n_dark * 2 <= look.n_members;
    let gpus = if few {
        look.dark().collect()
    } else {
        Vec::new()
    };
    Blame::on(gpus, "is not heard of")
}

/// The few that idle, or go on alone, while all others wait busily.
fn minority(look: &JobLook<'_>) -> Option<Blame> {
    let of = |activity: Activity| -> Vec<&Gpu> {
        let same = |gpu: &&Gpu| gpu.pulse.activity == Some(activity);
        look.heard().map(|(_, gpu)| gpu).filter(same).collect()
    };
    if look.n_spin * 2 < look.n_known() {
        return None;
    }
    let few = |n: usize| n > 0 && n * MINORITY <= look.n_known().max(MINORITY);
    if few(look.n_work) {
        return Blame::on(of(Activity::Work), "goes on alone while all others wait");
    }
    let idle = look.n_idle + look.n_off;
    if few(idle) || on_one_node(look) {
        let mut gpus = of(Activity::Idle);
        gpus.extend(of(Activity::Off));
        return Blame::on(gpus, "does nothing while all others wait for it");
    }
    None
}

/// All that idle sit on one node, of several.
fn on_one_node(look: &JobLook<'_>) -> bool {
    let mut nodes = look
        .heard()
        .filter(|(_, gpu)| matches!(gpu.pulse.activity, Some(Activity::Idle | Activity::Off)))
        .map(|(_, gpu)| &gpu.at.node);
    let Some(first) = nodes.next() else {
        return false;
    };
    nodes.all(|node| node == first) && look.heard().any(|(_, gpu)| gpu.at.node != *first)
}

/// The node whose RDMA ports carry nothing at all, while those of the others still carry something.
fn cut_off(look: &JobLook<'_>) -> Option<Blame> {
    let silent = |gpu: &Gpu| gpu.pulse.network_rate == Some(0.0);
    let heard: Vec<&Gpu> = look.heard().map(|(_, gpu)| gpu).collect();
    let talks = heard
        .iter()
        .filter(|gpu| gpu.pulse.network_rate > Some(0.0));
    let n_talks = talks.count();
    let cut: Vec<&Gpu> = heard.into_iter().filter(|gpu| silent(gpu)).collect();
    let few = cut.len() <= n_talks;
    Blame::on(
        if few { cut } else { Vec::new() },
        "is on a node whose network carries nothing",
    )
}

/// The program that uses no CPU while all others wait busily for it, or that is stopped.
pub(in crate::andon) fn stuck_program(look: &JobLook<'_>) -> Option<Blame> {
    let heard: Vec<&Gpu> = look.heard().map(|(_, gpu)| gpu).collect();
    let cores = |gpu: &Gpu| gpu.pulse.cores;
    let waiting = heard.iter().filter(|gpu| cores(gpu) >= Some(WAITING_CORES));
    let n_waiting = waiting.count();
    let stuck: Vec<&Gpu> = heard
        .iter()
        .copied()
        .filter(|gpu| cores(gpu).is_some_and(|cores| cores <= STUCK_CORES))
        .collect();
    let few = stuck.len() * MINORITY <= n_waiting.max(MINORITY - 1);
    Blame::on(
        if few { stuck } else { Vec::new() },
        "has a program that uses no CPU while the others wait for it",
    )
}
