//! What explains what: one page for one cause. *(pure)*
//!
//! Two ways of belonging together. A **cause** lies below its consequence: a node that is gone explains its GPUs, a GPU
//! that is gone explains its XIDs and the idleness of its whole job. A **group** is many of one kind that share a node,
//! rack, switch, feed or job: the first leads, the others follow.

use std::fmt;

use entrenar::gpu::NodeId;
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

use super::fleet::Fleet;
use super::job::infer::is_inferred;
use super::register::Up;
use super::rules::CausesRule;
use super::{GpuAt, Kind, Scope, Severity};

/// Labels by which nodes share a fate.
pub(super) const SHARED_LABELS: [&str; 3] = ["rack", "switch", "power_feed"];

/// Nodes that stop within so many milliseconds may run one job.
const SAME_MOMENT_MS: i64 = 20_000;

/// How deep a kind lies: the deeper (smaller) explains the shallower. `None`: it stands alone.
pub(super) const fn depth(kind: Kind) -> Option<u8> {
    Some(match kind {
        Kind::CoolingFailure => 0,
        Kind::NodeLost => 1,
        Kind::GpuLost => 2,
        Kind::EccUncorrectable => 3,
        Kind::Xid => 4,
        Kind::GpuUnresponsive => 5,
        Kind::NvlinkError => 6,
        Kind::PcieDegraded | Kind::RowRemap => 7,
        Kind::PowerBrake | Kind::ThermalThrottling => 8,
        Kind::PowerCapLoss | Kind::ThermalDrift | Kind::SensorFault => 9,
        Kind::NetworkFault => 10,
        Kind::StorageStall => 11,
        Kind::JobHang => 12,
        Kind::JobStall | Kind::StartupStuck => 13,
        Kind::Straggler => 14,
        Kind::JobSlow => 15,
        Kind::GpuIdle | Kind::PartialUse => 16,
        _ => return None,
    })
}

/// What members of a group have in common, the narrowest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Shared {
    Node(NodeId),
    Job(String),
    /// A rack, switch or feed, in words.
    Place(String),
    /// Nothing is known but that they began together.
    Moment,
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node {node}"),
            Self::Job(job) => write!(f, "job {job}"),
            Self::Place(place) => f.write_str(place),
            Self::Moment => f.write_str("one moment"),
        }
    }
}

/// Whether `cause` explains `effect`: it lies deeper, is critical, concerns the same thing, and began at about the
/// same time or went on when the effect began.
pub(super) fn explains(cause: &Up, effect: &Up, fleet: &Fleet, rule: &CausesRule) -> bool {
    let deeper = match (depth(cause.kind), depth(effect.kind)) {
        (Some(cause), Some(effect)) => cause < effect,
        _ => false,
    };
    deeper
        && is_weighty(cause, effect)
        && effect.grave_since() + rule.explain_within.0 >= cause.started_at
        && cause
            .explains_until
            .is_none_or(|until| effect.grave_since() <= until + rule.explain_within.0)
        && concerns(&cause.scope, &effect.scope, fleet)
}

/// What calls people explains what else they would be called for; between findings about jobs, the weight of the effect
/// is enough.
fn is_weighty(cause: &Up, effect: &Up) -> bool {
    let is_of_job = depth(cause.kind) >= depth(Kind::JobHang);
    cause.severity == Severity::Critical || (is_of_job && cause.severity >= effect.severity)
}

/// Whether trouble with one thing is trouble for another.
pub(super) fn concerns(cause: &Scope, effect: &Scope, fleet: &Fleet) -> bool {
    match cause {
        Scope::Fleet => true,
        Scope::Job { .. } => cause.key() == effect.key(),
        Scope::Gpu { gpu } => match effect {
            Scope::Gpu { gpu: other } => other.uuid == gpu.uuid,
            Scope::Node { node } => *node == gpu.node,
            Scope::Job { job, gpus } => has_gpu(gpus, gpu) || fleet.job_has_gpu(job, &gpu.uuid),
            // A job that nobody names.
            Scope::Nodes { group, nodes } => is_inferred(group) && nodes.contains(&gpu.node),
            Scope::Fleet => false,
        },
        Scope::Node { node } => on_node(effect, node, fleet),
        Scope::Nodes { nodes, .. } => nodes.iter().any(|node| on_node(effect, node, fleet)),
    }
}

fn has_gpu(gpus: &[GpuAt], gpu: &GpuAt) -> bool {
    gpus.iter().any(|other| other.uuid == gpu.uuid)
}

fn on_node(scope: &Scope, node: &NodeId, fleet: &Fleet) -> bool {
    match scope {
        Scope::Fleet => false,
        Scope::Node { node: other } => other == node,
        Scope::Gpu { gpu } => gpu.node == *node,
        Scope::Job { job, gpus } => {
            gpus.iter().any(|gpu| gpu.node == *node) || fleet.job_has_node(job, node)
        }
        Scope::Nodes { nodes, .. } => nodes.contains(node),
    }
}

/// What two findings of one kind share, if they were raised close enough to each other: the first found leads.
pub(super) fn shared(
    leader: &Up,
    at: Timestamp,
    follower: &Up,
    fleet: &Fleet,
    rule: &CausesRule,
) -> Option<Shared> {
    let apart = (at.0 - leader.joined_at.0).abs();
    if leader.kind != follower.kind || apart > rule.group_within.millis() {
        return None;
    }
    match leader.kind {
        Kind::NodeLost | Kind::PowerBrake | Kind::CoolingFailure => {
            shared_place(&leader.scope, &follower.scope, fleet)
                .or_else(|| shared_moment(leader, follower, fleet))
        }
        Kind::ThermalThrottling
        | Kind::GpuLost
        | Kind::GpuUnresponsive
        | Kind::NvlinkError
        | Kind::PcieDegraded => shared_place(&leader.scope, &follower.scope, fleet),
        Kind::NetworkFault | Kind::StorageStall => {
            shared_place(&leader.scope, &follower.scope, fleet)
                .or_else(|| shared_job(&leader.scope, &follower.scope, fleet))
        }
        Kind::Xid => shared_job(&leader.scope, &follower.scope, fleet).or_else(|| {
            // A program's errors do not speak for a broken board beside them.
            let alike = leader.severity == follower.severity;
            alike.then(|| shared_place(&leader.scope, &follower.scope, fleet))?
        }),
        Kind::PowerCapLoss | Kind::SensorFault | Kind::ZombieGpu => {
            shared_place(&leader.scope, &follower.scope, fleet)
        }
        Kind::MemoryPressure | Kind::MemoryLeak => {
            shared_job(&leader.scope, &follower.scope, fleet)
        }
        Kind::JobHang | Kind::JobSlow => same_moment(leader, follower),
        _ => None,
    }
}

/// Jobs that are known by one node alone may be parts of one: it stops everywhere at once. One that was joined of several
/// is known as a whole.
fn same_moment(leader: &Up, follower: &Up) -> Option<Shared> {
    let by_node = |up: &Up| matches!(up.scope, Scope::Node { .. });
    let apart_ms = (leader.started_at.0 - follower.started_at.0).abs();
    let together = by_node(leader) && by_node(follower) && apart_ms <= SAME_MOMENT_MS;
    together.then(|| Shared::Place("one moment".into()))
}

/// Whether two findings began at one moment, and nothing says that they have no place in common.
fn shared_moment(a: &Up, b: &Up, fleet: &Fleet) -> Option<Shared> {
    let apart_ms = (a.started_at.0 - b.started_at.0).abs();
    let unknown = !has_place(&a.scope, fleet) || !has_place(&b.scope, fleet);
    (apart_ms <= MOMENT_MS && unknown).then_some(Shared::Moment)
}

/// Whether it is known where a scope's nodes hang.
fn has_place(scope: &Scope, fleet: &Fleet) -> bool {
    let known = |node: &NodeId| {
        SHARED_LABELS
            .iter()
            .any(|label| fleet.label(node, label).is_some())
    };
    nodes_of(scope).iter().any(known)
}

/// Whether many of one kind within a minute are rather one trouble that they share: they concern what nodes have in
/// common, they are on different nodes, and nothing says that they are apart.
pub(super) fn may_gather(a: &Up, b: &Up, fleet: &Fleet) -> bool {
    let is_common = matches!(
        a.kind,
        Kind::GpuLost | Kind::GpuUnresponsive | Kind::NvlinkError | Kind::PcieDegraded
    );
    is_common
        && a.kind == b.kind
        && nodes_of(&a.scope) != nodes_of(&b.scope)
        && !has_place(&a.scope, fleet)
        && !has_place(&b.scope, fleet)
}

/// So many of one kind that began together are one trouble, where nothing is known of what they share.
pub(super) const GATHER: usize = 3;

/// Beginnings this close are one moment: three of the slowest usual intervals.
const MOMENT_MS: i64 = 30_000;

fn shared_place(a: &Scope, b: &Scope, fleet: &Fleet) -> Option<Shared> {
    let (a, b) = (nodes_of(a), nodes_of(b));
    match (a, b) {
        ([], _) | (_, []) => None,
        ([a], [b]) if a == b => Some(Shared::Node(a.clone())),
        _ => shared_label(&[a, b].concat(), fleet).map(Shared::Place),
    }
}

/// A label with one value for all of these nodes, as words: `rack r2`.
pub(super) fn shared_label(nodes: &[NodeId], fleet: &Fleet) -> Option<String> {
    SHARED_LABELS.iter().find_map(|label| {
        let mut values = nodes.iter().map(|node| fleet.label(node, label));
        let first = values.next()??;
        let word = label.replace('_', " ");
        values
            .all(|value| value == Some(first))
            .then(|| format!("{word} {first}"))
    })
}

fn shared_job(a: &Scope, b: &Scope, fleet: &Fleet) -> Option<Shared> {
    let job = |scope: &Scope| match scope {
        Scope::Gpu { gpu } => fleet.job_of(&gpu.uuid).map(str::to_owned),
        Scope::Job { job, .. } => Some(job.clone()),
        _ => None,
    };
    let (a, b) = (job(a)?, job(b)?);
    (a == b).then_some(Shared::Job(a))
}

/// The nodes that a scope names.
fn nodes_of(scope: &Scope) -> &[NodeId] {
    match scope {
        Scope::Gpu { gpu } => std::slice::from_ref(&gpu.node),
        Scope::Node { node } => std::slice::from_ref(node),
        Scope::Nodes { nodes, .. } => nodes,
        Scope::Fleet | Scope::Job { .. } => &[],
    }
}
