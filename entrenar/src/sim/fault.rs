//! Faults: what goes wrong in a simulated fleet, where, when and for how long; read from a file of them. *(pure)*

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Something that goes wrong at a set time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "FaultText", into = "FaultText")]
pub struct Fault {
    /// Since the start of the simulation.
    pub at: Duration,
    /// How long it lasts; `None`: for good.
    pub duration: Option<Duration>,
    /// What.
    pub kind: FaultKind,
    /// Where.
    pub target: Target,
}

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A GPU loses its cooling: it heats up until the hardware cuts its clocks.
    HotGpu,
    /// A GPU's memory fills up: to 97.5 % within `rise`, then slowly on.
    FullMemory {
        /// How fast.
        rise: Duration,
        /// Whether its job dies of it when the fault ends; otherwise the memory is given back.
        job_dies: bool,
    },
    /// A GPU falls off the bus, with XID 79; its job's other ranks wait for it.
    LostGpu,
    /// A node goes silent: nothing is reported and its ranks are gone; the ranks elsewhere wait for them.
    LostNode,
    /// A job makes no progress any more.
    HungJob {
        /// How.
        how: Hang,
    },
    /// The driver logs an XID on a GPU.
    Xid {
        /// NVIDIA's code.
        code: u64,
    },
    /// A job pauses to write a checkpoint.
    CheckpointPause,
    /// Calls for a GPU do not come back while it lasts.
    SilentGpu,
    /// The power supply asks a node's GPUs for a brake: clocks are halved.
    PowerBrake,
    /// A node's agent stops in an orderly way and comes back: an upgrade, a drain.
    AgentStop,
}

impl FaultKind {
    /// Its name in a fault file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HotGpu => "hot_gpu",
            Self::FullMemory { .. } => "full_memory",
            Self::LostGpu => "lost_gpu",
            Self::LostNode => "lost_node",
            Self::HungJob { .. } => "hung_job",
            Self::Xid { .. } => "xid",
            Self::CheckpointPause => "checkpoint_pause",
            Self::SilentGpu => "silent_gpu",
            Self::PowerBrake => "power_brake",
            Self::AgentStop => "agent_stop",
        }
    }
}

impl fmt::Display for Fault {
    /// In words: `GPU 2 of node n02 loses its cooling`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = &self.target;
        match self.kind {
            FaultKind::HotGpu => write!(f, "{target} loses its cooling"),
            FaultKind::FullMemory { .. } => write!(f, "the memory of {target} fills up"),
            FaultKind::LostGpu => write!(f, "{target} falls off the bus"),
            FaultKind::LostNode => write!(f, "{target} goes silent"),
            FaultKind::HungJob { .. } => write!(f, "{target} hangs"),
            FaultKind::Xid { code } => write!(f, "the driver logs XID {code} on {target}"),
            FaultKind::CheckpointPause => write!(f, "{target} writes a checkpoint"),
            FaultKind::SilentGpu => write!(f, "{target} does not answer"),
            FaultKind::PowerBrake => write!(f, "the power supply brakes {target}"),
            FaultKind::AgentStop => write!(f, "the agent of {target} stops in order"),
        }
    }
}

/// How a job hangs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hang {
    /// Every rank waits busily in a collective that never completes: 100 % utilisation at idle power.
    #[default]
    Spin,
    /// The first rank is stuck on its host; the others wait busily for it.
    Culprit,
    /// Every rank is stuck on its host: utilisation 0.
    Cold,
}

/// Where a fault strikes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One GPU.
    Gpu {
        /// Name of its node.
        node: String,
        /// Index on the node.
        gpu: u32,
    },
    /// A whole node.
    Node {
        /// Its name.
        node: String,
    },
    /// A job, wherever it runs.
    Job {
        /// The scheduler's id.
        job: String,
    },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gpu { node, gpu } => write!(f, "GPU {gpu} of node {node}"),
            Self::Node { node } => write!(f, "node {node}"),
            Self::Job { job } => write!(f, "job {job}"),
        }
    }
}

/// Why a list of faults cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FaultFileError {
    /// The text is not a list of faults. The message names the line.
    #[error("the fault file cannot be read: {reason}")]
    Invalid {
        /// What is wrong, and on which line.
        reason: String,
    },
}

/// Reads a fault file: YAML with one key `faults`, a list of faults.
///
/// ```yaml
/// faults:
///   - { at: 20s, kind: hot_gpu, node: n02, gpu: 3, duration: 10m }
///   - { at: 30s, kind: hung_job, how: cold, job: "4712" }
/// ```
#[cfg(feature = "config")]
pub fn parse_faults(text: &str) -> Result<Vec<Fault>, FaultFileError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct FaultFile {
        faults: Vec<Fault>,
    }
    serde_saphyr::from_str::<FaultFile>(text)
        .map(|file| file.faults)
        .map_err(|error| FaultFileError::Invalid {
            reason: error.to_string(),
        })
}

/// The default of [`FaultKind::FullMemory`]'s `rise`.
const DEFAULT_RISE: Duration = Duration::from_secs(45);

/// A fault as it stands in a file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultText {
    at: String,
    kind: KindText,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gpu: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    job: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    duration: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    how: Option<Hang>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rise: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    job_dies: Option<bool>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KindText {
    #[default]
    HotGpu,
    FullMemory,
    LostGpu,
    LostNode,
    HungJob,
    Xid,
    CheckpointPause,
    SilentGpu,
    PowerBrake,
    AgentStop,
}

impl TryFrom<FaultText> for Fault {
    type Error = String;

    fn try_from(text: FaultText) -> Result<Self, String> {
        let fault = Self {
            at: parse_span("at", &text.at)?,
            duration: text
                .duration
                .as_deref()
                .map(|s| parse_span("duration", s))
                .transpose()?,
            kind: text.fault_kind()?,
            target: text.target()?,
        };
        text.only_what_its_kind_knows()?;
        Ok(fault)
    }
}

impl FaultText {
    fn fault_kind(&self) -> Result<FaultKind, String> {
        Ok(match self.kind {
            KindText::HotGpu => FaultKind::HotGpu,
            KindText::FullMemory => FaultKind::FullMemory {
                rise: match &self.rise {
                    Some(rise) => parse_span("rise", rise)?,
                    None => DEFAULT_RISE,
                },
                job_dies: self.job_dies.unwrap_or(false),
            },
            KindText::LostGpu => FaultKind::LostGpu,
            KindText::LostNode => FaultKind::LostNode,
            KindText::HungJob => FaultKind::HungJob {
                how: self.how.unwrap_or_default(),
            },
            KindText::Xid => FaultKind::Xid {
                code: self.code.ok_or("an xid needs its `code`")?,
            },
            KindText::CheckpointPause => FaultKind::CheckpointPause,
            KindText::SilentGpu => FaultKind::SilentGpu,
            KindText::PowerBrake => FaultKind::PowerBrake,
            KindText::AgentStop => FaultKind::AgentStop,
        })
    }

    fn target(&self) -> Result<Target, String> {
        let strikes = self.kind.strikes();
        match (strikes, &self.node, self.gpu, &self.job) {
            (Strikes::Gpu, Some(node), Some(gpu), None) => Ok(Target::Gpu {
                node: node.clone(),
                gpu,
            }),
            (Strikes::Node, Some(node), None, None) => Ok(Target::Node { node: node.clone() }),
            (Strikes::Job, None, None, Some(job)) => Ok(Target::Job { job: job.clone() }),
            (Strikes::Gpu, ..) => Err("this kind strikes a GPU: give `node` and `gpu`".into()),
            (Strikes::Node, ..) => Err("this kind strikes a node: give `node` alone".into()),
            (Strikes::Job, ..) => Err("this kind strikes a job: give `job` alone".into()),
        }
    }

    fn only_what_its_kind_knows(&self) -> Result<(), String> {
        let extra = [
            ("how", self.how.is_some(), KindText::HungJob),
            ("code", self.code.is_some(), KindText::Xid),
            ("rise", self.rise.is_some(), KindText::FullMemory),
            ("job_dies", self.job_dies.is_some(), KindText::FullMemory),
        ];
        match extra
            .iter()
            .find(|(_, given, kind)| *given && *kind != self.kind)
        {
            Some((name, ..)) => Err(format!("`{name}` means nothing for this kind: remove it")),
            None => Ok(()),
        }
    }
}

enum Strikes {
    Gpu,
    Node,
    Job,
}

impl KindText {
    fn strikes(self) -> Strikes {
        match self {
            Self::HotGpu | Self::FullMemory | Self::LostGpu | Self::Xid | Self::SilentGpu => {
                Strikes::Gpu
            }
            Self::LostNode | Self::PowerBrake | Self::AgentStop => Strikes::Node,
            Self::HungJob | Self::CheckpointPause => Strikes::Job,
        }
    }
}

impl From<Fault> for FaultText {
    fn from(fault: Fault) -> Self {
        let mut text = Self {
            at: write_span(fault.at),
            duration: fault.duration.map(write_span),
            ..Self::default()
        };
        text.kind = match fault.kind {
            FaultKind::HotGpu => KindText::HotGpu,
            FaultKind::FullMemory { rise, job_dies } => {
                text.rise = Some(write_span(rise));
                text.job_dies = job_dies.then_some(true);
                KindText::FullMemory
            }
            FaultKind::LostGpu => KindText::LostGpu,
            FaultKind::LostNode => KindText::LostNode,
            FaultKind::HungJob { how } => {
                text.how = Some(how);
                KindText::HungJob
            }
            FaultKind::Xid { code } => {
                text.code = Some(code);
                KindText::Xid
            }
            FaultKind::CheckpointPause => KindText::CheckpointPause,
            FaultKind::SilentGpu => KindText::SilentGpu,
            FaultKind::PowerBrake => KindText::PowerBrake,
            FaultKind::AgentStop => KindText::AgentStop,
        };
        match fault.target {
            Target::Gpu { node, gpu } => {
                text.node = Some(node);
                text.gpu = Some(gpu);
            }
            Target::Node { node } => text.node = Some(node),
            Target::Job { job } => text.job = Some(job),
        }
        text
    }
}

/// `90s`, `1.5m`, `2h`, `250ms`.
fn parse_span(name: &str, text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{name}: {text}` is not a time span: write 500ms, 20s, 10m or 2h");
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .ok_or_else(wrong)?;
    let unit_s = match &text[digits..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let number: f64 = text[..digits].parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * unit_s).map_err(|_| wrong())
}

fn write_span(span: Duration) -> String {
    let ms = span.as_millis();
    if ms.is_multiple_of(1000) {
        format!("{}s", ms / 1000)
    } else {
        format!("{ms}ms")
    }
}

#[cfg(all(test, feature = "config"))]
mod tests {
    use super::*;
    use crate::sim::Scenario;

    #[test]
    fn the_file_that_ships_is_the_built_in_default() {
        let shipped = include_str!("../../../deploy/demo/faults.yaml");
        let built_in = Scenario::DemoDefault.config(8, 8).faults;
        assert_eq!(parse_faults(shipped).expect("valid"), built_in);
    }

    #[test]
    fn a_fault_is_written_as_it_is_read() {
        for fault in Scenario::ALL.iter().flat_map(|s| s.config(8, 8).faults) {
            let json = serde_json::to_string(&fault).expect("writable");
            assert_eq!(
                serde_json::from_str::<Fault>(&json).expect("readable"),
                fault
            );
        }
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        let check = |line: &str, expected: &str| {
            let text = format!(
                "faults:\n  - {{ at: 1s, kind: hot_gpu, node: n01, gpu: 0 }}\n  - {line}\n"
            );
            let error = parse_faults(&text).expect_err(line).to_string();
            assert!(error.contains(expected), "{line}: {error}");
            assert!(error.contains("line 3"), "{line}: {error}");
        };
        check(
            "{ at: 1s, kind: hot_gpu, node: n01, gpu: 0, colour: red }",
            "colour",
        );
        check("{ at: 1s, kind: hot, node: n01, gpu: 0 }", "hot");
        check(
            "{ at: soon, kind: hot_gpu, node: n01, gpu: 0 }",
            "`at: soon` is not a time span",
        );
        check(
            "{ at: 1s, kind: hot_gpu, node: n01 }",
            "give `node` and `gpu`",
        );
        check(
            "{ at: 1s, kind: lost_node, node: n01, gpu: 0 }",
            "give `node` alone",
        );
        check("{ at: 1s, kind: hung_job, node: n01 }", "give `job` alone");
        check(
            "{ at: 1s, kind: xid, node: n01, gpu: 0 }",
            "needs its `code`",
        );
        check(
            "{ at: 1s, kind: hot_gpu, node: n01, gpu: 0, rise: 3s }",
            "`rise` means nothing",
        );
    }
}
