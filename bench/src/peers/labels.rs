//! The ten labels that dcgm-exporter gives a series on Kubernetes, and the two that a scrape adds.

use entrenar::gpu::GpuInfo;
use entrenar::report::Holder;

use super::fleet::Shared;

/// The scrape job.
pub const JOB: &str = "dcgm-exporter";

/// A label.
pub type Label = (&'static str, String);

/// Name of a node: as our agents of the load call themselves.
pub fn node_name(number: u32) -> String {
    format!("node-{number:04}")
}

/// UUID of a GPU of a copy of its node: the same.
pub fn uuid(copy: usize, gpu: &GpuInfo) -> String {
    let uuid = gpu.uuid.as_str();
    let kept = &uuid[..uuid.len().saturating_sub(4)];
    format!("{kept}{copy:04x}")
}

/// dcgm-exporter's labels of a GPU, in its order.
pub fn of_gpu(node: u32, copy: usize, gpu: &GpuInfo, holder: Option<&Holder>) -> Vec<Label> {
    let pod = holder.map_or(String::new(), |holder| {
        format!("{}-{copy}-{}", holder.job, gpu.index)
    });
    vec![
        ("gpu", gpu.index.to_string()),
        ("UUID", uuid(copy, gpu)),
        ("pci_bus_id", gpu.pci_bus_id.clone().unwrap_or_default()),
        ("device", format!("nvidia{}", gpu.index)),
        ("modelName", gpu.name.clone()),
        ("Hostname", node_name(node)),
        ("DCGM_FI_DRIVER_VERSION", "570.124.06".into()),
        ("container", "main".into()),
        ("namespace", "training".into()),
        ("pod", pod),
    ]
}

/// The labels of a series as a peer keeps them after a scrape, sorted by name as remote write wants them. A label
/// without a value is none.
pub fn of_series(metric: &Shared, node: u32, of_gpu: &[Label]) -> Vec<Label> {
    let mut labels = of_gpu.to_vec();
    labels.push(("__name__", metric.dcgm.into()));
    labels.push(("instance", node_name(node)));
    labels.push(("job", JOB.into()));
    labels.retain(|(_, value)| !value.is_empty());
    labels.sort();
    labels
}
