//! What tests need besides Rust and a C compiler: found, unpacked, installed, or named.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::stage::{output, root, sh_with};

/// A program that some test runs, and the Debian package that has it.
struct Need {
    program: &'static str,
    package: &'static str,
    what_for: &'static str,
    how: How,
}

/// How a package that is missing comes here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Installed,
    /// Unpacked into [`unpacked`], which needs no root. Installing it would start a service that keeps a port.
    Unpacked,
}

const NEEDS: &[Need] = &[
    Need {
        program: "chromium",
        package: "chromium",
        what_for: "the board in a real browser",
        how: How::Installed,
    },
    Need {
        program: "prometheus",
        package: "prometheus",
        what_for: "a real Prometheus that scrapes the fleet",
        how: How::Unpacked,
    },
    Need {
        program: "promtool",
        package: "prometheus",
        what_for: "`promtool check metrics`",
        how: How::Unpacked,
    },
    Need {
        program: "systemd-analyze",
        package: "systemd",
        what_for: "checking the systemd units",
        how: How::Installed,
    },
    Need {
        program: "node",
        package: "nodejs",
        what_for: "building and testing the board",
        how: How::Installed,
    },
    Need {
        program: "npm",
        package: "npm",
        what_for: "building and testing the board",
        how: How::Installed,
    },
];

/// Oldest node that the board's build tool runs on.
const NODE: (u32, u32) = (20, 19);

/// What is missing, one line each.
pub(crate) fn missing() -> Vec<String> {
    absent()
        .iter()
        .map(|need| format!("{} ({})", need.program, need.what_for))
        .collect()
}

fn absent() -> Vec<&'static Need> {
    NEEDS
        .iter()
        .filter(|need| !is_there(need.program))
        .collect()
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([unpacked().join("usr/bin")])
        .any(|dir| dir.join(program).is_file())
}

/// Where packages are unpacked. Tests look there after `PATH` (`entrenar_tests::external`).
fn unpacked() -> PathBuf {
    root().join("target/tools")
}

/// Fetches a Debian package and unpacks it; nothing of it is configured or started.
fn unpack(package: &str) -> Result<()> {
    let dir = unpacked();
    let archives = dir.join("archives");
    std::fs::create_dir_all(&archives)
        .with_context(|| format!("could not make {}", archives.display()))?;
    sh_with("apt-get", &["download", "--quiet", package], &[], &archives)?;
    for archive in std::fs::read_dir(&archives)? {
        let archive = archive?.path();
        let (from, to) = (archive.to_string_lossy(), dir.to_string_lossy());
        sh_with("dpkg-deb", &["--extract", &from, &to], &[], &root())?;
    }
    Ok(())
}

/// Makes sure that everything is there: as root it installs Debian's packages; else it says the one line to run.
///
/// False: something is missing, and was named.
pub(crate) fn ensure() -> Result<bool> {
    let absent = absent();
    for need in &absent {
        println!("missing: {} ({})", need.program, need.what_for);
    }
    let packages = |how| {
        let mut packages: Vec<_> = absent
            .iter()
            .filter(|need| need.how == how)
            .map(|need| need.package)
            .collect();
        packages.dedup();
        packages
    };
    let (install, unpack) = (packages(How::Installed), packages(How::Unpacked));
    if !get(&install, &unpack)? {
        return Ok(false);
    }
    check_node()?;
    Ok(true)
}

fn get(install: &[&str], to_unpack: &[&str]) -> Result<bool> {
    let is_root = output("id", &["-u"]).is_some_and(|id| id == "0");
    let quiet = [("DEBIAN_FRONTEND", "noninteractive")];
    let is_debian = is_there("apt-get");
    if is_debian && is_root && !(install.is_empty() && to_unpack.is_empty()) {
        sh_with("apt-get", &["update", "--quiet"], &quiet, &root())?;
    }
    let mut not_unpacked = Vec::new();
    for package in to_unpack {
        if !is_debian || unpack(package).is_err() {
            not_unpacked.push(*package);
        }
    }
    let wanted = [install, &not_unpacked].concat();
    if wanted.is_empty() {
        return Ok(true);
    }
    let line = "apt-get install --yes --no-install-recommends";
    if !is_root || !is_debian {
        let wanted = wanted.join(" ");
        println!(
            "\ninstall it with:\n\n    sudo {line} {wanted}\n\nor run the rest with: cargo xtask test --skip-external"
        );
        return Ok(false);
    }
    let args: Vec<&str> = line.split(' ').skip(1).chain(wanted).collect();
    sh_with("apt-get", &args, &quiet, &root())?;
    Ok(true)
}

fn check_node() -> Result<()> {
    let version = output("node", &["--version"]).unwrap_or_default();
    let mut parts = version
        .trim_start_matches('v')
        .split('.')
        .map(|p| p.parse().unwrap_or(0));
    let found = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if found < NODE {
        bail!(
            "node {version} is too old to build the board: it needs {}.{} or newer (nodejs.org, or your distribution's \
             backports); `cargo xtask test --skip-external` runs what needs no node",
            NODE.0,
            NODE.1
        );
    }
    Ok(())
}
