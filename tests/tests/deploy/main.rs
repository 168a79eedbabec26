//! What `deploy/` ships fits the programs: units, manifests, scrape configuration, alerts and dashboards.
//!
//! No cluster, host or server is needed; images are not built here.

#![allow(clippy::unwrap_used, reason = "tests")]

mod flags;
mod kubernetes;
mod prometheus;
mod systemd;

use std::path::PathBuf;

use entrenar_tests::external::repository;

/// A file below `deploy/`.
fn shipped(path: &str) -> PathBuf {
    repository().join("deploy").join(path)
}

/// The text of a file below `deploy/`.
fn text(path: &str) -> String {
    std::fs::read_to_string(shipped(path)).unwrap_or_else(|e| panic!("deploy/{path}: {e}"))
}
