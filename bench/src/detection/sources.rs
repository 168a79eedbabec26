//! Which sources a figure comes from: a number that changes with the detectors, the simulator or the baselines.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// What decides about a normal day.
const FOLDERS: [&str; 3] = [
    "aggregator/src/andon",
    "entrenar/src/sim",
    "bench/src/detection/baselines",
];

/// A short hash of all these files.
pub fn fingerprint() -> Result<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut hash = Fnv::default();
    for folder in FOLDERS {
        add_folder(&mut hash, &root.join(folder))?;
    }
    Ok(format!("{:016x}", hash.0))
}

fn add_folder(hash: &mut Fnv, folder: &Path) -> Result<()> {
    let what = || format!("could not read {}", folder.display());
    let entries: std::io::Result<Vec<_>> = fs::read_dir(folder).with_context(what)?.collect();
    let mut paths: Vec<_> = entries.with_context(what)?;
    paths.sort_by_key(fs::DirEntry::file_name);
    for entry in paths {
        // Stories and tests decide nothing.
        let name = entry.file_name();
        if entry.path().is_dir() && name != "stories" {
            add_folder(hash, &entry.path())?;
        } else if name.to_string_lossy().ends_with(".rs") && name != "tests.rs" {
            hash.add(&fs::read(entry.path()).with_context(what)?);
        }
    }
    Ok(())
}

/// Fowler, Noll and Vo's hash, which is the same everywhere.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
