//! Straggler: one rank, or one node, makes all others wait. *(pure)*
//!
//! Ranks of a job move together: when one is slow, all become slow, and it is the one that waits least. So a low
//! utilisation names the victim, not the culprit. A straggling GPU keeps its memory as busy as ever while its clock has
//! fallen against its own mean and that of its peers; a straggling host leaves its GPUs without work (their utilisation
//! falls) while all others wait busily for them (theirs rises). Everything is held against each GPU's own past: a
//! pipeline stage that is always slower is no straggler.

use entrenar::andon::{Cord, Verdict};
use entrenar::gpu::NodeId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::infer::is_guess;
use super::look::JobLook;
use super::slow::{pace, pace_of};
use super::{JobWatch, Said, may_train};
use crate::andon::finding::{finding, gpu_on_node, percent};
use crate::andon::gpu::Gpu;
use crate::andon::rules::{Rule as _, Span, require, rule};
use crate::andon::{Evidence, Finding, GpuAt, Kind, Scope};

rule! {
    /// One rank, or one node, makes all others wait.
    StragglerRule: Straggler, named "straggler", Warning, true;
    /// A clock at most this share of the GPU's own mean is low.
    clock_share: f64 = 0.93;
    /// The others' pace must have fallen to at most this share of their own.
    job_share: f64 = 0.96;
    /// By how much the pace of the rank must be above that of the others.
    pace_above: f64 = 0.05;
    /// By how many points a node's utilisation must have fallen against that of the other nodes.
    busy_points: f64 = 9.0;
    /// How long a rank must stand out.
    hold: Span = Span::secs(45);
    /// How long a node must stand out.
    node_hold: Span = Span::secs(90);
    /// How long it must not stand out any more.
    settle: Span = Span::secs(120);
    /// How long ranks must have worked for their own levels to be known.
    known_after: Span = Span::secs(300);
    => |this| {
        let share = |value: f64| value > 0.0 && value < 1.0;
        require(share(this.clock_share), "clock_share", "write a share between 0 and 1")?;
        require(share(this.job_share), "job_share", "write a share between 0 and 1")?;
        require(this.busy_points > 0.0, "busy_points", "write more than 0")
    }
}

/// A median clock below this share of its own: the whole job is held down, not one rank.
const PEERS_CLOCK: f32 = 0.97;

/// Who makes the others wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Who {
    Gpu(GpuAt),
    Node(NodeId),
}

/// What is remembered of a job's straggler.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in crate::andon) struct StragglerState {
    cord: Cord,
    who: Option<Who>,
}

impl StragglerState {
    pub(in crate::andon) fn is_raised(&self) -> bool {
        self.cord.is_raised()
    }
}

/// Someone who stands out now, with the numbers that say so.
struct Suspect {
    who: Who,
    evidence: Vec<Evidence>,
}

pub(in crate::andon) fn observe(
    watch: &mut JobWatch,
    look: &JobLook<'_>,
    rule: &StragglerRule,
    said: &mut Vec<Said>,
) {
    if !rule.enabled || !may_train(look.job.kind) || look.n_members < 2 {
        return;
    }
    // GPUs that exchange nothing, and that nobody names, wait for nobody.
    if is_guess(look.name) && !watch.is_coupled {
        return;
    }
    let Some(found) = pace_of(look, rule.known_after.millis()) else {
        return;
    };
    let pace = found.kinder;
    let suspect = if f64::from(pace) <= rule.job_share {
        slow_gpu(look, found.memory, rule).or_else(|| slow_host(look, rule))
    } else {
        None
    };
    let state = &mut watch.straggler;
    // Another one than before: its time begins anew, unless somebody is told of already.
    if let Some(suspect) = &suspect
        && !state.cord.is_raised()
        && state.who.as_ref() != Some(&suspect.who)
    {
        (state.cord, state.who) = (Cord::default(), Some(suspect.who.clone()));
    }
    let same = suspect.filter(|suspect| state.who.as_ref() == Some(&suspect.who));
    let verdict = if same.is_some() {
        Verdict::Unwelcome
    } else {
        Verdict::Fine
    };
    let Some(who) = state.who.clone() else {
        return;
    };
    let hold = match who {
        Who::Gpu(_) => rule.hold.0,
        Who::Node(_) => rule.node_hold.0,
    };
    let step = look.step(&mut state.cord, verdict, hold, rule.settle.0);
    let Some(change) = step else {
        return;
    };
    let started_at = state.cord.since().unwrap_or(look.at);
    let finding = describe(look, &who, pace, same.map(|s| s.evidence), rule);
    said.push(Said {
        kind: Kind::Straggler,
        rule: rule.uid(),
        scope: match who {
            Who::Gpu(gpu) => Scope::Gpu { gpu },
            Who::Node(node) => Scope::Node { node },
        },
        change,
        severity: rule.severity,
        started_at,
        finding,
    });
}

/// The rank whose clock has fallen and that waits least.
fn slow_gpu(look: &JobLook<'_>, median: f32, rule: &StragglerRule) -> Option<Suspect> {
    let clock = |gpu: &Gpu| {
        let share = gpu.pulse.short.clock_mhz / gpu.pulse.long.clock_mhz;
        share.is_finite().then_some(share)
    };
    let mut clocks: Vec<f32> = look.heard().filter_map(|(_, gpu)| clock(gpu)).collect();
    if clocks.is_empty() {
        return None;
    }
    let middle = clocks.len() / 2;
    let (_, peers, _) = clocks.select_nth_unstable_by(middle, f32::total_cmp);
    if *peers < PEERS_CLOCK {
        return None;
    }
    let known_ms = rule.known_after.millis();
    let (gpu, share, own) = look
        .heard()
        .filter_map(|(_, gpu)| Some((gpu, clock(gpu)?, pace(&gpu.pulse, known_ms)?)))
        .min_by(|a, b| a.1.total_cmp(&b.1))?;
    let stands_out =
        f64::from(share) <= rule.clock_share && f64::from(own - median) >= rule.pace_above;
    stands_out.then(|| Suspect {
        who: Who::Gpu(gpu.at.clone()),
        evidence: vec![
            Evidence::new("SM clock", format!("{:.0} MHz", gpu.pulse.short.clock_mhz))
                .against(format!("{:.0} MHz before", gpu.pulse.long.clock_mhz)),
            Evidence::new("its pace", percent(f64::from(own)))
                .against(format!("{} of the others", percent(f64::from(median)))),
        ],
    })
}

/// The node whose GPUs lack work while those of the others wait busily.
fn slow_host(look: &JobLook<'_>, rule: &StragglerRule) -> Option<Suspect> {
    let mut nodes: BTreeMap<&NodeId, (f32, u32)> = BTreeMap::new();
    let known_ms = rule.known_after.millis();
    for (_, gpu) in look.heard() {
        let pulse = &gpu.pulse;
        let change = pulse.short.busy - pulse.long.busy;
        if change.is_finite() && pulse.worked_ms >= known_ms {
            let (sum, n) = nodes.entry(&gpu.at.node).or_default();
            *sum += change;
            *n += 1;
        }
    }
    if nodes.len() < 2 {
        return None;
    }
    let mut changes: Vec<(f32, &NodeId)> = nodes
        .into_iter()
        .map(|(node, (sum, n))| (sum / n as f32, node))
        .collect();
    changes.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (lowest, node) = changes[0];
    // The next lowest, not the median: two of three nodes may be its victims in different measure.
    let next = changes[1].0;
    let fell = f64::from(next - lowest) >= rule.busy_points && lowest < 0.0;
    fell.then(|| Suspect {
        who: Who::Node(node.clone()),
        evidence: vec![
            Evidence::new("change of utilisation", format!("{lowest:+.0} points"))
                .against(format!("{next:+.0} points on the other nodes")),
        ],
    })
}

fn describe(
    look: &JobLook<'_>,
    who: &Who,
    pace: f32,
    evidence: Option<Vec<Evidence>>,
    rule: &StragglerRule,
) -> Finding {
    let (name, action, culprits) = match who {
        Who::Gpu(gpu) => (
            gpu_on_node(gpu),
            "Look why its clock is down: heat, power limit, PCIe width. Replace the GPU's node at the next checkpoint.",
            vec![gpu.clone()],
        ),
        Who::Node(node) => (
            format!("Node {node}"),
            "Look what else uses its CPUs, its memory bandwidth (NUMA) or its disk. Replace the node at the next \
             checkpoint.",
            look.places()
                .into_iter()
                .filter(|gpu| gpu.node == *node)
                .collect(),
        ),
    };
    let summary = format!(
        "{name} makes job {} wait: the others run at {} of their own pace",
        look.name,
        percent(f64::from(pace))
    );
    let mut found = finding(rule, &look.labels(), summary, action);
    found.evidence = evidence.unwrap_or_default();
    found.evidence.push(
        Evidence::new("pace of the others", percent(f64::from(pace)))
            .against(percent(rule.job_share)),
    );
    found.culprits = culprits;
    found.job = Some(look.name.to_owned());
    found
}
