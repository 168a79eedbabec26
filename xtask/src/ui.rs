//! The board: built from its lock file, tested in a browser, and held against the committed build.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::packages;
use crate::stage::{output, root, sh_with, sh_within};
use crate::test::LIMIT;

fn web() -> PathBuf {
    root().join("web")
}

fn npm(args: &[&str]) -> Result<()> {
    sh_with("npm", args, &[], &web())
}

fn install() -> Result<()> {
    npm(&["ci", "--no-audit", "--no-fund"])
}

/// Builds `web/dist`.
pub(crate) fn build() -> Result<()> {
    if !packages::ensure_node() {
        bail!("the board can't be built without node");
    }
    install()?;
    npm(&["run", "build"])
}

/// Types, then the board in a headless browser.
pub(crate) fn test() -> Result<()> {
    install()?;
    npm(&["run", "check"])?;
    sh_within(LIMIT, "npm", &["test"], &[], &web())
}

/// Fails when the committed build is not what the sources make.
pub(crate) fn check_fresh() -> Result<()> {
    npm(&["run", "build"])?;
    let changed = output("git", &["status", "--porcelain", "--", "web/dist"]).unwrap_or_default();
    if changed.is_empty() {
        return Ok(());
    }
    bail!(
        "web/dist is not what web/src makes: run `cargo xtask ui` and commit the result\n{changed}"
    );
}
