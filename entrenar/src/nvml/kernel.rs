//! What the kernel's driver says of the GPUs without being asked: `/proc/driver/nvidia/gpus/*/information`.
//!
//! A GPU that hangs does not tell NVML its UUID; here it still stands.

use std::fs;
use std::path::Path;

use crate::gpu::GpuInfo;

/// Where the driver lists its GPUs, a directory each, named by PCI address.
pub(super) const GPUS: &str = "/proc/driver/nvidia/gpus";

/// The GPUs that the kernel knows, in the order of their PCI addresses, which is the order of NVML's indices. Empty
/// without a driver. A GPU that was never woken up has no UUID and makes the whole list unusable, hence empty.
pub(super) fn list(dir: &Path) -> Vec<GpuInfo> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut texts: Vec<(String, String)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let address = entry.file_name().to_string_lossy().into_owned();
            Some((
                address,
                fs::read_to_string(entry.path().join("information")).ok()?,
            ))
        })
        .collect();
    texts.sort();
    let gpus = texts
        .iter()
        .enumerate()
        .map(|(index, (address, text))| parse(index, address, text));
    gpus.collect::<Option<Vec<_>>>().unwrap_or_default()
}

fn parse(index: usize, address: &str, text: &str) -> Option<GpuInfo> {
    let field = |label: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(label))?;
        Some(line.trim_start_matches(':').trim().to_owned())
    };
    // A GPU that was never woken up shows question marks.
    let uuid = field("GPU UUID").filter(|uuid| uuid.starts_with("GPU-") && !uuid.contains('?'))?;
    Some(GpuInfo {
        uuid: uuid.into(),
        index: index as u32,
        name: field("Model").unwrap_or_default(),
        // NVML writes the domain with eight digits and in capitals.
        pci_bus_id: Some(format!("{address:0>16}").to_uppercase()),
        ..GpuInfo::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn information(uuid: &str) -> String {
        format!(
            "Model: \t\t NVIDIA H100\nIRQ:   \t\t 90\nGPU UUID: \t {uuid}\nBus Location: \t 0000:04:00.0\n"
        )
    }

    fn check(gpus: &[(&str, &str)], expected: &[&str]) {
        let dir = tempfile::tempdir().unwrap();
        for (address, uuid) in gpus {
            fs::create_dir(dir.path().join(address)).unwrap();
            fs::write(
                dir.path().join(address).join("information"),
                information(uuid),
            )
            .unwrap();
        }
        let found = list(dir.path());
        let uuids: Vec<&str> = found.iter().map(|gpu| gpu.uuid.as_str()).collect();
        assert_eq!(uuids, expected);
    }

    #[test]
    fn gpus_stand_in_the_order_of_their_addresses() {
        check(
            &[("0000:83:00.0", "GPU-b"), ("0000:04:00.0", "GPU-a")],
            &["GPU-a", "GPU-b"],
        );
        let gpu = parse(3, "0000:0a:00.0", &information("GPU-a")).unwrap();
        assert_eq!((gpu.index, gpu.name.as_str()), (3, "NVIDIA H100"));
        assert_eq!(gpu.pci_bus_id.as_deref(), Some("00000000:0A:00.0"));
    }

    #[test]
    fn a_list_that_does_not_name_everyone_names_nobody() {
        check(
            &[("0000:04:00.0", "GPU-a"), ("0000:83:00.0", "GPU-????????")],
            &[],
        );
        check(&[], &[]);
        assert_eq!(list("/nonexistent".as_ref()), []);
    }
}
