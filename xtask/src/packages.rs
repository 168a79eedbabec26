//! What tests need besides Rust and a C compiler: found, installed, or named.

use anyhow::{Result, bail};

use crate::stage::{output, root, sh_with};

/// A program that some test runs, and the Debian package that has it.
struct Need {
    program: &'static str,
    package: &'static str,
    what_for: &'static str,
}

const NEEDS: &[Need] = &[
    Need {
        program: "chromium",
        package: "chromium",
        what_for: "the board in a real browser",
    },
    Need {
        program: "prometheus",
        package: "prometheus",
        what_for: "a real Prometheus that scrapes the fleet",
    },
    Need {
        program: "promtool",
        package: "prometheus",
        what_for: "`promtool check metrics`",
    },
    Need {
        program: "systemd-analyze",
        package: "systemd",
        what_for: "checking the systemd units",
    },
    Need {
        program: "node",
        package: "nodejs",
        what_for: "building and testing the board",
    },
    Need {
        program: "npm",
        package: "npm",
        what_for: "building and testing the board",
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
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Makes sure that everything is there: as root it installs Debian's packages; else it says the one line to run.
///
/// False: something is missing, and was named.
pub(crate) fn ensure() -> Result<bool> {
    let absent = absent();
    if !absent.is_empty() {
        let mut packages: Vec<_> = absent.iter().map(|need| need.package).collect();
        packages.dedup();
        for need in &absent {
            println!("missing: {} ({})", need.program, need.what_for);
        }
        let line = format!(
            "apt-get install --yes --no-install-recommends {}",
            packages.join(" ")
        );
        let is_root = output("id", &["-u"]).is_some_and(|id| id == "0");
        if !is_root || !is_there("apt-get") {
            println!(
                "\ninstall it with:\n\n    sudo {line}\n\nor run the rest with: cargo xtask test --skip-external"
            );
            return Ok(false);
        }
        let quiet = [("DEBIAN_FRONTEND", "noninteractive")];
        sh_with("apt-get", &["update", "--quiet"], &quiet, &root())?;
        let mut args = vec!["install", "--yes", "--quiet", "--no-install-recommends"];
        args.extend(packages);
        sh_with("apt-get", &args, &quiet, &root())?;
    }
    check_node()?;
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
