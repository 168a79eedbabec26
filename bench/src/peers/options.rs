//! What may be said behind `bench peers`.

use std::time::Duration;

use anyhow::{Result, bail};

/// A part that can be run alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Ingest,
    Disk,
    Query,
}

/// All of them, in the order of their sections.
const PARTS: [(&str, Part); 3] = [
    ("ingest", Part::Ingest),
    ("disk", Part::Disk),
    ("query", Part::Query),
];

/// The named parts, or all.
pub fn parse(words: &[&str]) -> Result<Vec<Part>> {
    for word in words {
        if !PARTS.iter().any(|(name, _)| name == word) {
            let known = PARTS.map(|(name, _)| name).join(", ");
            bail!("bench peers has no part {word}: choose of {known}");
        }
    }
    let wanted = PARTS
        .iter()
        .filter(|(name, _)| words.is_empty() || words.contains(name));
    Ok(wanted.map(|(_, part)| *part).collect())
}

/// How long something is measured, unless `ENTRENAR_BENCH_SECONDS` says otherwise.
pub fn seconds(usual: Duration) -> Duration {
    let said = std::env::var("ENTRENAR_BENCH_SECONDS").ok();
    said.and_then(|text| text.parse().ok())
        .map_or(usual, Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_run_in_their_order_and_mistakes_are_named() {
        assert_eq!(
            parse(&["query", "disk"]).unwrap(),
            [Part::Disk, Part::Query]
        );
        assert_eq!(parse(&[]).unwrap().len(), 3);
        assert!(
            parse(&["disks"])
                .unwrap_err()
                .to_string()
                .contains("ingest, disk, query")
        );
    }
}
