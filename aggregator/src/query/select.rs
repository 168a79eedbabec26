//! Which GPUs a question is about, and how their answers are grouped. *(pure)*

use std::sync::Arc;
use std::time::Duration;

use entrenar::gpu::{GpuUuid, NodeId};
use entrenar::report::Labels;

/// Where a GPU sits, or sat when it was last heard of.
#[derive(Clone, Debug)]
pub struct Seat {
    pub uuid: GpuUuid,
    /// What is known of its place; `None` of a GPU that only the store knows.
    pub place: Option<Place>,
    /// How often it is sampled.
    pub interval: Duration,
    /// Whether it still sits there. Of others an answer speaks only where something is known of the time asked for.
    pub is_present: bool,
}

/// A GPU's place in the fleet.
#[derive(Clone, Debug)]
pub struct Place {
    pub node: NodeId,
    pub device: u32,
    pub model: Arc<str>,
    pub labels: Arc<Labels>,
}

/// What a GPU must be like. An empty list asks for nothing.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Any of these.
    pub nodes: Vec<String>,
    pub device: Option<u32>,
    pub uuid: Option<String>,
    pub model: Option<String>,
    /// All of these.
    pub labels: Vec<(String, String)>,
}

impl Filter {
    /// Whether a GPU that sits there is asked for.
    pub fn takes(&self, node: &str, device: u32, uuid: &str, model: &str, labels: &Labels) -> bool {
        self.takes_node(node, labels)
            && self.device.is_none_or(|asked| asked == device)
            && self.uuid.as_ref().is_none_or(|asked| asked == uuid)
            && self.model.as_ref().is_none_or(|asked| asked == model)
    }

    /// Whether any GPU of this node may be asked for.
    pub fn takes_node(&self, node: &str, labels: &Labels) -> bool {
        (self.nodes.is_empty() || self.nodes.iter().any(|asked| asked == node))
            && (self.labels.iter()).all(|(label, value)| labels.get(label) == Some(value))
    }

    /// The one UUID that is asked for, where nothing is said of its place: the store may know it when the fleet no longer
    /// does.
    pub fn only_uuid(&self) -> Option<GpuUuid> {
        let uuid = self.uuid.as_deref()?;
        let is_only = self.nodes.is_empty()
            && self.device.is_none()
            && self.model.is_none()
            && self.labels.is_empty();
        is_only.then(|| GpuUuid::from(uuid))
    }
}

/// What the GPUs of one answer have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// Every GPU for itself.
    Gpu,
    Node,
    Job,
    Model,
    /// A label of the node: `rack`, `switch`, `power_feed`.
    Label(&'static str),
    /// All together.
    Cluster,
}

impl By {
    /// By its name.
    pub fn parse(name: &str) -> Result<Self, String> {
        Ok(match name {
            "gpu" => Self::Gpu,
            "node" => Self::Node,
            "job" => Self::Job,
            "model" => Self::Model,
            "rack" => Self::Label("rack"),
            "switch" => Self::Label("switch"),
            "power_feed" => Self::Label("power_feed"),
            "fleet" | "cluster" => Self::Cluster,
            other => {
                return Err(format!(
                    "by={other}: by is one of gpu, node, job, model, rack, switch, power_feed, fleet"
                ));
            }
        })
    }

    /// Its name, which is also the key under which an answer names its group.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Gpu => "gpu",
            Self::Node => "node",
            Self::Job => "job",
            Self::Model => "model",
            Self::Label(label) => label,
            Self::Cluster => "cluster",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_must_be_like_all_that_is_asked() {
        let labels = Labels::from([("rack".to_owned(), "r1".to_owned())]);
        let takes = |filter: Filter| filter.takes("n1", 3, "GPU-1", "H100", &labels);
        let none = Filter::default;
        assert!(takes(none()));
        let nodes = |names: &[&str]| Filter {
            nodes: names.iter().map(ToString::to_string).collect(),
            ..none()
        };
        assert!(takes(nodes(&["n0", "n1"])) && !takes(nodes(&["n2"])));
        let rack = |rack: &str| Filter {
            labels: vec![("rack".into(), rack.into())],
            device: Some(3),
            model: Some("H100".into()),
            ..none()
        };
        assert!(takes(rack("r1")) && !takes(rack("r2")));
    }

    #[test]
    fn a_uuid_alone_may_be_known_to_the_store_only() {
        let alone = Filter {
            uuid: Some("GPU-9".into()),
            ..Filter::default()
        };
        assert_eq!(alone.only_uuid(), Some("GPU-9".into()));
        let placed = Filter {
            nodes: vec!["n1".into()],
            ..alone
        };
        assert_eq!(placed.only_uuid(), None);
    }
}
