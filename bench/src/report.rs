//! Tables for people, and `bench/RESULTS.md`, in which each bench owns one section.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// What a bench found: shown, and written into its section.
#[derive(Debug, Default)]
pub struct Section {
    text: String,
}

impl Section {
    /// A paragraph.
    pub fn say(&mut self, text: impl AsRef<str>) {
        let _ = writeln!(self.text, "{}\n", text.as_ref());
    }

    /// A table: its head, then its rows.
    pub fn table<const N: usize>(&mut self, head: [&str; N], rows: &[[String; N]]) {
        let _ = writeln!(self.text, "| {} |", head.join(" | "));
        let _ = writeln!(self.text, "|{}", "---|".repeat(N));
        for row in rows {
            let _ = writeln!(self.text, "| {} |", row.join(" | "));
        }
        self.text.push('\n');
    }

    /// What was said so far.
    pub fn into_text(self) -> String {
        self.text
    }

    /// Shows it, and puts it in its place in the results.
    pub fn publish(mut self, bench: &str) -> Result<()> {
        self.say(format!("{}. {}.", machine(), load_average()));
        println!("\n{}", self.text);
        let path = results();
        let old = fs::read_to_string(&path)
            .with_context(|| format!("could not read {}", path.display()))?;
        let new = replace(&old, bench, &format!("\n{}", self.text))?;
        fs::write(&path, new).with_context(|| format!("could not write {}", path.display()))
    }
}

fn results() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("RESULTS.md")
}

/// The text with another section of this name.
fn replace(text: &str, name: &str, section: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let parts = text.split_once(&begin).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(&end)?;
        Some((before, after))
    });
    let Some((before, after)) = parts else {
        bail!(
            "bench/RESULTS.md has no section between `{}` and `{end}`: add one",
            begin.trim()
        );
    };
    Ok(format!("{before}{begin}{section}{end}{after}"))
}

/// How busy the machine was, with others too.
fn load_average() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut minutes = load.split(' ');
    let mut next = || minutes.next().unwrap_or("–").to_owned();
    let (one, five) = (next(), next());
    format!("Load average at the end: {one} over a minute, {five} over five")
}

/// What the numbers depend on.
fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let value = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let cpu = value(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown CPU".into());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory_kib = value(&read("/proc/meminfo"), "MemTotal")
        .and_then(|text| text.trim_end_matches(" kB").parse::<f64>().ok())
        .unwrap_or_default();
    let rustc = Command::new("rustc").arg("--version").output();
    let rustc = rustc.map_or_else(
        |_| "unknown".into(),
        |out| String::from_utf8_lossy(&out.stdout).trim().to_owned(),
    );
    format!(
        "Machine: {cores} cores ({cpu}), {:.0} GiB memory, Linux {}, {rustc}, profile `release`",
        memory_kib / 1024.0 / 1024.0,
        read("/proc/sys/kernel/osrelease").trim(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bench_rewrites_its_own_section_only() {
        let text = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n<!-- y -->\n<!-- /y -->\n";
        let new = replace(text, "x", "new\n").unwrap();
        assert_eq!(
            new,
            "a\n<!-- x -->\nnew\n<!-- /x -->\nb\n<!-- y -->\n<!-- /y -->\n"
        );
        assert!(replace(text, "z", "").is_err());
    }

    #[test]
    fn every_bench_has_its_section() {
        let text = fs::read_to_string(results()).unwrap();
        for name in crate::BENCHES.iter().map(|bench| bench.name) {
            assert!(replace(&text, name, "").is_ok(), "{name}");
        }
    }
}
