//! Look-alikes: healthy behaviour that a careless rule takes for trouble. *(pure)*

use super::Case;
use super::Expect::Nothing;
use crate::sim::effect::What;
use crate::sim::job::{SimMillis, Workload};
use crate::sim::plan::FOREVER;
use crate::sim::score::Beat;
use crate::sim::stage::{Checkpoints, Draft, JobRef, LabelSeverity, Silence, Stage};
use crate::trace::TraceEvent;

pub(super) const CASES: &[Case] = &[
    Case::new(
        "N1",
        Nothing,
        "steady data-parallel training at the power cap",
        steady,
    ),
    Case::new(
        "N2",
        Nothing,
        "training with small steps: 77-90 % busy",
        small_steps,
    ),
    Case::new(
        "N3",
        Nothing,
        "an optimiser on the host: no kernel for 2.8 s of every 3.5 s, for ever",
        offload,
    ),
    Case::new(
        "N4",
        Nothing,
        "pipeline stages that differ by 15 % for good",
        pipeline,
    ),
    Case::new(
        "N5",
        Nothing,
        "mixture of experts: ranks differ by a quarter, and which changes",
        experts,
    ),
    Case::new(
        "N6",
        Nothing,
        "checkpoints that the job waits for",
        checkpoints,
    ),
    Case::new(
        "N7",
        Nothing,
        "a checkpoint on slow storage: 5-20 minutes",
        slow_checkpoint,
    )
    .needs(3_600),
    Case::new("N8", Nothing, "checkpoints beside the work", snapshots),
    Case::new(
        "N9",
        Nothing,
        "evaluations, with a wait in a collective at their end",
        evaluations,
    ),
    Case::new(
        "N10",
        Nothing,
        "a loader that starts again at each epoch",
        epochs,
    ),
    Case::new(
        "N11",
        Nothing,
        "training that its loader cannot feed",
        loader_bound,
    ),
    Case::new(
        "N12",
        Nothing,
        "minutes of compilation before the first step",
        compiles,
    ),
    Case::new(
        "N13",
        Nothing,
        "ranks that wait for the last one at the start",
        barrier,
    ),
    Case::new(
        "N14",
        Nothing,
        "images are pulled and weights are loaded",
        loads,
    ),
    Case::new(
        "N15",
        Nothing,
        "an inference server at night: idle for most of the time",
        night,
    ),
    Case::new(
        "N16",
        Nothing,
        "an inference server under load that rises and falls",
        daily,
    ),
    Case::new(
        "N17",
        Nothing,
        "long prompts: minutes of full power, then light decoding",
        prefill,
    ),
    Case::new(
        "N18",
        Nothing,
        "notebooks: memory held, long pauses, short bursts",
        notebooks,
    ),
    Case::new(
        "N19",
        Nothing,
        "a job ends, and its processes linger for a minute",
        lingers,
    ),
    Case::new(
        "N20",
        Nothing,
        "reinforcement learning: trainers and rollout workers take turns",
        reinforcement,
    ),
    Case::new(
        "N21",
        Nothing,
        "the whole fleet's power limits are lowered at once",
        fleet_capped,
    )
    .takes_all(),
    Case::new("N22", Nothing, "several processes share each GPU", shared),
    Case::new(
        "N23",
        Nothing,
        "fluid dynamics: no NVLink, and a dump every ten minutes",
        dynamics,
    ),
    Case::new(
        "N24",
        Nothing,
        "a node is drained and rebooted under maintenance",
        drained,
    ),
    Case::new(
        "N25",
        Nothing,
        "agents are upgraded one after the other",
        upgraded,
    )
    .takes_all(),
    Case::new(
        "N26",
        Nothing,
        "what many agents say arrives up to a minute late",
        late,
    )
    .takes_all(),
    Case::new(
        "N27",
        Nothing,
        "an operator resets GPUs between two jobs: counters start from 0",
        reset,
    ),
    Case::new(
        "N28",
        Nothing,
        "a hot afternoon: every GPU a few kelvin warmer",
        hot_afternoon,
    )
    .takes_all(),
    Case::new(
        "N29",
        Nothing,
        "a burn-in: ten minutes of full power on free GPUs",
        burn_in,
    ),
    Case::new(
        "N30",
        Nothing,
        "the scheduler suspends a job and resumes it",
        suspended,
    ),
];

impl Stage {
    /// A job that a person may find slow, and that nobody must be told of.
    pub(super) fn may_seem_slow(&mut self, job: JobRef) {
        let label = Draft::new("N11", &["JobSlow"], LabelSeverity::Warning)
            .lasts(Stage::at(0.0), self.end())
            .whole_job(self, job)
            .optional();
        self.sign(label);
    }

    /// GPUs that a person may find idle after an hour of it.
    pub(super) fn may_seem_idle(&mut self, job: JobRef) {
        let from = Stage::at(3_600.0);
        if from < self.end() {
            let label = Draft::new("N18", &["GpuIdle", "PartialUse"], LabelSeverity::Warning)
                .lasts(from, self.end())
                .whole_job(self, job)
                .optional();
            self.sign(label);
        }
    }
}

/// A job of a kind on one to `most` nodes.
fn of(stage: &mut Stage, workload: Workload, most: u32) -> JobRef {
    let nodes = stage.dice.whole(1, most);
    let taken = stage.take(nodes);
    stage.job(workload, stage.all_of(&taken))
}

fn steady(stage: &mut Stage) {
    of(stage, Workload::DataParallel, 4);
}

fn small_steps(stage: &mut Stage) {
    let job = of(stage, Workload::SmallSteps, 2);
    stage.live(job);
}

fn offload(stage: &mut Stage) {
    of(stage, Workload::Offload, 2);
}

fn pipeline(stage: &mut Stage) {
    let job = of(stage, Workload::Pipeline, 4);
    stage.live(job);
}

fn experts(stage: &mut Stage) {
    let job = of(stage, Workload::Experts, 4);
    stage.live(job);
}

fn checkpoints(stage: &mut Stage) {
    let job = of(stage, Workload::DataParallel, 4);
    let how = Checkpoints {
        every_ms: stage.span(600.0, 1_800.0),
        lasts_ms: stage.span(17.0, 100.0),
        anchor_ms: stage.moment(0.0, 1.0),
    };
    stage.checkpoints(job, how);
}

fn snapshots(stage: &mut Stage) {
    let job = of(stage, Workload::Sharded, 4);
    let how = Checkpoints {
        every_ms: stage.span(300.0, 1_200.0),
        lasts_ms: 0,
        anchor_ms: stage.moment(0.0, 1.0),
    };
    stage.snapshots(job, how);
}

fn evaluations(stage: &mut Stage) {
    let job = of(stage, Workload::DataParallel, 2);
    let every = stage.span(500.0, 1_400.0);
    stage.evaluations(job, every);
}

fn epochs(stage: &mut Stage) {
    let job = of(stage, Workload::SmallSteps, 2);
    let every = stage.span(900.0, 2_400.0);
    stage.epochs(job, every);
}

fn loader_bound(stage: &mut Stage) {
    let job = of(stage, Workload::LoaderBound, 1);
    stage.may_seem_slow(job);
}

/// A job that starts within the trace. Returns the job and when it takes its GPUs.
fn starts(stage: &mut Stage, workload: Workload, most: u32) -> (JobRef, SimMillis) {
    let job = of(stage, workload, most);
    let at = stage.moment(0.03, 0.35);
    stage.score(job).set(SimMillis::MIN, at, Beat::Nobody);
    (job, at)
}

fn compiles(stage: &mut Stage) {
    let (job, at) = starts(stage, Workload::Accumulated, 2);
    let begins = at + stage.span(120.0, 1_200.0);
    stage.score(job).set(at, begins, Beat::HostBusy);
}

fn barrier(stage: &mut Stage) {
    let (job, at) = starts(stage, Workload::DataParallel, 4);
    let window_ms = stage.span(10.0, 300.0);
    let met = at + window_ms + stage.span(0.5, 4.0);
    let beat = Beat::Barrier {
        window_ms,
        absent: None,
        spins: true,
    };
    stage.score(job).set(at, met, beat);
    let compiled = met + stage.span(5.0, 90.0);
    stage.score(job).set(met, compiled, Beat::HostBusy);
}

fn loads(stage: &mut Stage) {
    let workload = stage
        .dice
        .pick(&[Workload::Prefill, Workload::Sharded, Workload::Inference]);
    let (job, at) = starts(stage, workload, 2);
    let pulled = at + stage.span(200.0, 700.0);
    let loaded = pulled + stage.span(60.0, 240.0);
    let score = stage.score(job);
    score.set(at, pulled, Beat::Pull);
    score.set(pulled, loaded, Beat::Load);
}

fn daily(stage: &mut Stage) {
    let job = of(stage, Workload::Inference, 1);
    stage.tell_kind(job);
}

fn prefill(stage: &mut Stage) {
    let job = of(stage, Workload::Prefill, 1);
    stage.tell_kind(job);
}

fn notebooks(stage: &mut Stage) {
    let node = stage.take(1);
    let mut places = stage.all_of(&node);
    let n = stage.dice.whole(1, 4);
    for _ in 0..n {
        let size = stage.dice.whole(1, 2) as usize;
        let rest = places.split_off(size.min(places.len()));
        let own = std::mem::replace(&mut places, rest);
        if own.is_empty() {
            break;
        }
        let job = stage.job(Workload::Notebook, own);
        stage.tell_kind(job);
        stage.may_seem_idle(job);
    }
}

fn lingers(stage: &mut Stage) {
    let job = of(stage, Workload::SmallSteps, 2);
    stage.live(job);
    let at = stage.moment(0.3, 0.9);
    let gone = at + stage.span(1.0, 60.0);
    let score = stage.score(job);
    score.set(at, gone, Beat::Idle);
    score.set(gone, FOREVER, Beat::Nobody);
}

fn reinforcement(stage: &mut Stage) {
    of(stage, Workload::Reinforcement, 2);
}

/// By time, or by slices of which no utilisation is known.
fn shared(stage: &mut Stage) {
    let job = of(stage, Workload::Shared, 1);
    if stage.dice.chance(0.5) {
        for gpu in stage.places(job).to_vec() {
            stage.strike(gpu, 0, FOREVER, What::Sliced);
        }
    }
}

fn dynamics(stage: &mut Stage) {
    of(stage, Workload::Simulation, 2);
}

fn drained(stage: &mut Stage) {
    let node = stage.take(1)[0];
    let at = stage.moment(0.2, 0.5);
    let down = at + stage.span(20.0, 60.0);
    let up = down + stage.span(300.0, 900.0);
    stage.note(node, at, TraceEvent::MaintenanceStart);
    stage.silence(node, down, up, Silence::Goodbye);
    for gpu in stage.all_of(&[node]) {
        stage.strike(gpu, up - 1_000, up, What::Reset);
    }
    let over = up + stage.span(20.0, 90.0);
    stage.note(node, over, TraceEvent::MaintenanceEnd);
}

fn reset(stage: &mut Stage) {
    let job = of(stage, Workload::SmallSteps, 1);
    let nodes = stage.nodes_of(job);
    let places = stage.all_of(&nodes);
    let ends = stage.moment(0.2, 0.45);
    let resets = ends + stage.span(20.0, 120.0);
    let again = resets + stage.span(30.0, 200.0);
    stage.score(job).set(ends, FOREVER, Beat::Nobody);
    for &gpu in &places {
        stage.strike(gpu, resets, resets + 1_000, What::Reset);
    }
    let next = stage.job(Workload::SmallSteps, places);
    stage.score(next).set(SimMillis::MIN, FOREVER, Beat::Nobody);
    stage.start_up(next, again);
}

fn burn_in(stage: &mut Stage) {
    let job = of(stage, Workload::Benchmark, 1);
    let at = stage.moment(0.1, 0.5);
    let over = at + stage.span(500.0, 700.0);
    let score = stage.score(job);
    score.set(SimMillis::MIN, at, Beat::Nobody);
    score.set(over, FOREVER, Beat::Nobody);
}

fn suspended(stage: &mut Stage) {
    let job = of(stage, Workload::Accumulated, 2);
    let at = stage.moment(0.2, 0.6);
    let to = at + stage.span(300.0, 1_000.0);
    stage.score(job).set(at, to, Beat::Suspended);
}

fn night(stage: &mut Stage) {
    let job = of(stage, Workload::Inference, 1);
    stage.tell_kind(job);
    stage.sleep(job);
}

fn slow_checkpoint(stage: &mut Stage) {
    let job = of(stage, Workload::Sharded, 2);
    stage.slow_checkpoints(job);
}

fn fleet_capped(stage: &mut Stage) {
    stage.cap_all();
}

fn upgraded(stage: &mut Stage) {
    let from = stage.moment(0.2, 0.6);
    stage.upgrade_all(from);
}

fn late(stage: &mut Stage) {
    for _ in 0..stage.dice.whole(1, 2) {
        stage.arrive_late();
    }
}

fn hot_afternoon(stage: &mut Stage) {
    stage.warm_up_all();
}
