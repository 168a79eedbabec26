//! Incidents as JSON, one object a line.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use entrenar_aggregator::backtest::Incident;
use serde::Serialize;

use super::run::Judged;

/// An incident among those of other traces.
#[derive(Serialize)]
struct OfTrace<'a> {
    trace: &'a str,
    #[serde(flatten)]
    incident: &'a Incident,
}

/// Writes the incidents of a trace; with its name in each, if others are written beside them.
pub(super) fn write(out: &mut impl Write, judged: &Judged, with_name: bool) -> Result<()> {
    let trace = name(&judged.path);
    for incident in &judged.outcome.incidents {
        if with_name {
            let trace = &trace;
            serde_json::to_writer(&mut *out, &OfTrace { trace, incident })?;
        } else {
            serde_json::to_writer(&mut *out, incident)?;
        }
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// A trace's name: its file's, without folder and endings.
pub(super) fn name(path: &Path) -> String {
    let file = path.file_name().unwrap_or(path.as_os_str());
    let mut name = file.to_string_lossy().into_owned();
    for end in [".gz", ".zst", ".csv"] {
        if let Some(shorter) = name.strip_suffix(end) {
            name.truncate(shorter.len());
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_named_without_folder_and_endings() {
        for (path, expected) in [
            ("a/p01-hang.csv.gz", "p01-hang"),
            ("p.csv.zst", "p"),
            ("p.csv", "p"),
            ("smi.log", "smi.log"),
        ] {
            assert_eq!(name(Path::new(path)), expected);
        }
    }
}
