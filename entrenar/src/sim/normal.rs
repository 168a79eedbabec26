//! A whole fleet on a normal day: every kind of job starts, lives and ends, and nothing goes wrong. *(pure)*

use std::time::Duration;

use super::SimError;
use super::feed::{Feed, Voice};
use super::job::{SimMillis, Workload};
use super::plan::FOREVER;
use super::score::Beat;
use super::stage::{
    Dice, Draft, JobRef, LabelSeverity, Model, Setting, Silence, Stage, WARM_UP_MS,
};
use crate::trace::TraceEvent;
use crate::unit::Timestamp;

/// A free stretch shorter than this is not worth a job.
const SHORTEST_JOB_MS: SimMillis = 600_000;
const MINUTE_MS: SimMillis = 60_000;
const HOUR_MS: SimMillis = 3_600_000;

/// Sets a stage with a mixed fleet of about so many nodes: look-alikes of every kind, one job after the other on the
/// same GPUs, agents that are upgraded, ticks that arrive late, nodes under maintenance.
pub fn normal_fleet(setting: Setting, nodes: u32) -> Stage {
    let mut stage = Stage::new(setting);
    while stage.n_nodes() < nodes {
        let left = nodes - stage.n_nodes();
        let size = stage.dice.pick(&[1, 1, 1, 1, 2, 2, 4, 8]).min(left);
        let taken = stage.take(size);
        if size == 1 && stage.dice.chance(0.2) {
            share_out(&mut stage, taken[0]);
        } else {
            let places = stage.all_of(&taken);
            one_after_the_other(&mut stage, &places);
        }
    }
    whole_fleet(&mut stage);
    stage
}

/// A normal day of a fleet that a seed decides: its size, its boards, what its scheduler says, what its agents lose and
/// how wrong their clocks are. A shard of as many GPU-days as one likes, one seed after the other.
pub fn normal_day(seed: u64, interval: Duration) -> Result<Feed, SimError> {
    const FIRST_DAY_S: i64 = 1_704_067_200;
    let mut dice = Dice::new(seed ^ 0x6461_7973);
    let setting = Setting {
        seed: dice.word(),
        start: Timestamp::from_secs(FIRST_DAY_S + i64::from(dice.whole(0, 364)) * 86_400),
        lasts: Duration::from_hours(24),
        interval,
        model: dice.pick(&[
            Model::H100,
            Model::H100,
            Model::H100,
            Model::A100,
            Model::H200,
            Model::B200,
        ]),
        gpus_per_node: 8,
        has_job_ids: dice.chance(0.8),
        has_racks: dice.chance(0.5),
    };
    let voice = Voice {
        loss: dice.pick(&[0.0, 0.005, 0.01, 0.02]),
        skew: Duration::from_millis(dice.pick(&[0, 50, 200])),
        slow_every: (10_000 / interval.as_millis().max(1)).max(1) as u32,
    };
    let nodes = dice.whole(24, 64);
    Ok(Feed::new(normal_fleet(setting, nodes).raise()?, voice))
}

/// Jobs of a few GPUs each on one node.
fn share_out(stage: &mut Stage, node: u32) {
    let places = stage.all_of(&[node]);
    let mut rest = places.as_slice();
    while !rest.is_empty() {
        let size = stage.dice.pick(&[1, 1, 2, 4]).min(rest.len());
        let (own, others) = rest.split_at(size);
        one_after_the_other(stage, own);
        rest = others;
    }
}

/// Jobs on the same GPUs from before the beginning to after the end, with gaps between them.
fn one_after_the_other(stage: &mut Stage, places: &[(u32, u32)]) {
    let end = stage.end();
    // Most GPUs are at work when the trace begins.
    let mut at = if stage.dice.chance(0.85) {
        SimMillis::MIN
    } else {
        WARM_UP_MS + stage.span(60.0, 3_600.0)
    };
    while at < end {
        let began = at.max(0);
        let hours = stage.dice.between(0.0, 1.0).powi(3) * 26.0 + 0.4;
        let ends = began + (hours * HOUR_MS as f64) as SimMillis;
        let ends = if end - ends < SHORTEST_JOB_MS {
            FOREVER
        } else {
            ends
        };
        live(stage, places, at, ends);
        if ends == FOREVER {
            return;
        }
        at = ends + stage.span(20.0, 2_400.0);
    }
}

/// What a group of GPUs is asked to do.
fn some_workload(stage: &mut Stage, gpus: usize) -> Workload {
    let whole = stage.setting.gpus_per_node as usize;
    if gpus < whole {
        return stage.dice.pick(&[
            Workload::SmallSteps,
            Workload::DataParallel,
            Workload::Notebook,
            Workload::Notebook,
            Workload::Inference,
            Workload::Prefill,
            Workload::Shared,
            Workload::LoaderBound,
        ]);
    }
    if gpus == whole {
        return stage.dice.pick(&[
            Workload::DataParallel,
            Workload::SmallSteps,
            Workload::Sharded,
            Workload::Accumulated,
            Workload::Offload,
            Workload::LoaderBound,
            Workload::Reinforcement,
            Workload::Simulation,
            Workload::Inference,
            Workload::Prefill,
            Workload::Shared,
            Workload::Benchmark,
        ]);
    }
    stage.dice.pick(&[
        Workload::DataParallel,
        Workload::DataParallel,
        Workload::Pipeline,
        Workload::Experts,
        Workload::Sharded,
        Workload::Accumulated,
        Workload::Offload,
        Workload::Reinforcement,
        Workload::Simulation,
    ])
}

fn live(stage: &mut Stage, places: &[(u32, u32)], from: SimMillis, to: SimMillis) {
    let workload = some_workload(stage, places.len());
    let job = stage.job(workload, places.to_vec());
    if !workload.is_synchronous() {
        stage.tell_kind(job);
    }
    let (from, to) = match workload {
        // Nobody burns in for a day.
        Workload::Benchmark => {
            let from = from.max(WARM_UP_MS);
            (from, to.min(from + stage.span(500.0, 900.0)))
        }
        _ => (from, to),
    };
    if 0 < from {
        stage.score(job).set(SimMillis::MIN, from, Beat::Nobody);
        begin(stage, job, workload, from);
    }
    if to != FOREVER {
        end(stage, job, to);
    }
    interrupt(stage, job, workload);
    label(stage, job, workload, from, to);
}

fn begin(stage: &mut Stage, job: JobRef, workload: Workload, from: SimMillis) {
    match workload {
        Workload::Notebook | Workload::Benchmark => {}
        Workload::Inference | Workload::Prefill => {
            let pulled = from + stage.span(20.0, 600.0);
            let loaded = pulled + stage.span(40.0, 240.0);
            let score = stage.score(job);
            score.set(from, pulled, Beat::Pull);
            score.set(pulled, loaded, Beat::Load);
        }
        _ => {
            let works = stage.start_up(job, from);
            // Some compile for long.
            if stage.dice.chance(0.1) {
                let compiled = works + stage.span(100.0, 1_000.0);
                stage.score(job).set(works, compiled, Beat::HostBusy);
            }
        }
    }
}

fn end(stage: &mut Stage, job: JobRef, to: SimMillis) {
    let lingers = stage.span(1.0, 60.0);
    let score = stage.score(job);
    score.set(to - lingers, to, Beat::Idle);
    score.set(to, FOREVER, Beat::Nobody);
}

/// Pauses that a job of its kind makes.
fn interrupt(stage: &mut Stage, job: JobRef, workload: Workload) {
    match workload {
        Workload::DataParallel
        | Workload::SmallSteps
        | Workload::Pipeline
        | Workload::Experts
        | Workload::Sharded
        | Workload::Accumulated => {
            stage.live(job);
            if stage.dice.chance(0.06) {
                stage.slow_checkpoints(job);
            }
            if stage.dice.chance(0.04) {
                suspend(stage, job);
            }
        }
        Workload::Inference if stage.dice.chance(0.5) => stage.sleep(job),
        _ => {}
    }
}

/// The scheduler needs the GPUs for something more urgent.
fn suspend(stage: &mut Stage, job: JobRef) {
    let from = stage.moment(0.1, 0.8);
    let to = from + stage.span(200.0, 1_500.0);
    stage.pause(job, from, to, Beat::Suspended);
}

fn label(stage: &mut Stage, job: JobRef, workload: Workload, from: SimMillis, to: SimMillis) {
    let (from, to) = (from.max(WARM_UP_MS), to.min(stage.end()));
    let (scenario, kinds, from): (_, &[&'static str], _) = match workload {
        Workload::LoaderBound => ("N11", &["JobSlow"], from),
        Workload::Notebook => ("N18", &["GpuIdle", "PartialUse"], from + HOUR_MS),
        Workload::Inference => ("N15", &["GpuIdle", "PartialUse"], from + HOUR_MS),
        _ => return,
    };
    if from < to {
        let label = Draft::new(scenario, kinds, LabelSeverity::Warning)
            .lasts(from, to)
            .whole_job(stage, job)
            .optional();
        stage.sign(label);
    }
}

/// What happens to the fleet as a whole.
fn whole_fleet(stage: &mut Stage) {
    let lasts = stage.end() - WARM_UP_MS;
    for _ in 0..=(lasts / (6 * HOUR_MS)) {
        if stage.dice.chance(0.7) {
            stage.arrive_late();
        }
    }
    for _ in 0..=(lasts / (12 * HOUR_MS)) {
        if stage.dice.chance(0.5) {
            let from = stage.moment(0.05, 0.9);
            stage.upgrade_all(from);
        }
    }
    if stage.dice.chance(0.3) {
        stage.warm_up_all();
    }
    if stage.dice.chance(0.15) {
        stage.cap_all();
    }
    let nodes = stage.take(1);
    maintain(stage, nodes[0]);
}

/// A free node under maintenance.
fn maintain(stage: &mut Stage, node: u32) {
    let at = stage.moment(0.1, 0.7);
    let down = at + stage.span(20.0, 60.0);
    let up = down + stage.span(300.0, 900.0);
    stage.note(node, at, TraceEvent::MaintenanceStart);
    stage.silence(node, down, up, Silence::Goodbye);
    stage.note(node, up + MINUTE_MS, TraceEvent::MaintenanceEnd);
}
