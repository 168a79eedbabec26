//! For tests and benches: the library as a host has it, in a directory of its own, and its scenario.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name of the library as the driver installs it.
pub const LIBRARY: &str = "libnvidia-ml.so.1";

/// Name of the scenario file beside it.
pub const SCENARIO: &str = "scenario";

/// An installed copy of the library. Copies do not share anything, so tests in one process do not disturb each other.
#[derive(Debug)]
pub struct FakeNvml {
    dir: PathBuf,
}

impl FakeNvml {
    /// Installs the library into a directory that exists, and plays `scenario`.
    ///
    /// # Panics
    /// When the scenario is wrong, or the library was not built: it is a dependency's `cdylib`, and lies beside the
    /// test executable.
    pub fn install(dir: impl Into<PathBuf>, scenario: &str) -> Self {
        let fake = Self { dir: dir.into() };
        fs::copy(built_library(), fake.library()).expect("the library can be copied");
        fake.play(scenario);
        fake
    }

    /// The same, by a driver too old for some calls: the loader does not find these symbols.
    ///
    /// # Panics
    /// Also when the library has no such symbol.
    #[must_use]
    pub fn without_symbols(self, symbols: &[&str]) -> Self {
        let mut library = fs::read(self.library()).expect("the library can be read");
        for symbol in symbols {
            rename_symbol(&mut library, symbol);
        }
        // A new file: the old one may be loaded.
        fs::remove_file(self.library()).expect("the library can be replaced");
        fs::write(self.library(), library).expect("the library can be written");
        self
    }

    /// Path of the library, for a program that takes one.
    pub fn library(&self) -> PathBuf {
        self.dir.join(LIBRARY)
    }

    /// Its directory, for `LD_LIBRARY_PATH`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Changes the scenario, at once and as a whole.
    ///
    /// # Panics
    /// When the scenario is wrong.
    pub fn play(&self, scenario: &str) {
        if let Err(wrong) = crate::scenario::Scenario::parse(scenario) {
            panic!("{wrong}");
        }
        let draft = self.dir.join("scenario.draft");
        let written = fs::write(&draft, scenario);
        let put = written.and_then(|()| fs::rename(&draft, self.dir.join(SCENARIO)));
        put.expect("the scenario can be written");
    }

    /// Calls noted so far by a scenario with `trace` set to [`trace_file`](Self::trace_file).
    pub fn calls(&self) -> io::Result<Vec<String>> {
        let text = fs::read_to_string(self.trace_file())?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// CPU time of all calls up to the last wait for events, by a scenario with `spent` set to
    /// [`spent_file`](Self::spent_file).
    pub fn spent(&self) -> io::Result<Duration> {
        let text = fs::read_to_string(self.spent_file())?;
        let nanos = text.trim().parse().map_err(io::Error::other)?;
        Ok(Duration::from_nanos(nanos))
    }

    /// Where a scenario may have its CPU time written down.
    pub fn spent_file(&self) -> PathBuf {
        self.dir.join("spent")
    }

    /// Where a scenario may have its calls noted.
    pub fn trace_file(&self) -> PathBuf {
        self.dir.join("calls")
    }
}

/// The library that cargo built, always into `deps`: a copy elsewhere may be of another day.
fn built_library() -> PathBuf {
    let exe = std::env::current_exe().expect("the path of this executable");
    let name = "libfake_nvml.so";
    // A test is in deps itself; a binary is beside it, and an example beside that.
    exe.ancestors()
        .skip(1)
        .take(3)
        .map(|dir| dir.join("deps").join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} is not in deps: build the crate fake-nvml"))
}

/// Changes a name in the string table of a shared library. The table that the loader searches holds hashes of the
/// names, so that it now finds neither the old name nor the new.
fn rename_symbol(library: &mut [u8], symbol: &str) {
    let wanted: Vec<u8> = [b"\0", symbol.as_bytes(), b"\0"].concat();
    let mut found = false;
    for start in 0..library.len().saturating_sub(wanted.len()) {
        if library[start..].starts_with(&wanted) {
            library[start + 1] = b'_';
            found = true;
        }
    }
    assert!(found, "no symbol {symbol} in the library");
}
