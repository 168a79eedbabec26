//! Durations and sizes as people write them. Zero is refused: no setting can make an interval or a budget of nothing.

use std::time::Duration;

/// A length of time above zero: `250ms`, `1s`, `1h30m`, `7d`. A number alone is refused, because its unit is a guess.
pub fn duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, u64); 6] = [
        ("ms", 1),
        ("s", 1000),
        ("m", 60_000),
        ("h", 3_600_000),
        ("d", 86_400_000),
        ("w", 604_800_000),
    ];
    let wrong = || "a duration is a number and a unit, like 250ms, 1s, 1h30m or 7d".to_owned();
    let (mut rest, mut total_ms) = (text.trim(), 0u64);
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let (number, behind) = leading(rest, |c: char| c.is_ascii_digit());
        let (unit, behind) = leading(behind, |c: char| c.is_ascii_alphabetic());
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let (_, ms) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(wrong)?;
        let part = number
            .checked_mul(*ms)
            .ok_or("that is longer than can be counted")?;
        total_ms = total_ms
            .checked_add(part)
            .ok_or("that is longer than can be counted")?;
        rest = behind;
    }
    if total_ms == 0 {
        return Err("it must be longer than zero".to_owned());
    }
    Ok(Duration::from_millis(total_ms))
}

/// A size in bytes above zero: `512`, `64KiB`, `64MiB`, `1GiB`, or in powers of ten `64MB`.
pub fn size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 9] = [
        ("", 1),
        ("B", 1),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("kB", 1000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
    ];
    let wrong = || "a size is a number of bytes, or one with a unit, like 64MiB or 1GiB".to_owned();
    let (number, unit) = leading(text.trim(), |c: char| c.is_ascii_digit());
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let (_, bytes) = UNITS
        .iter()
        .find(|(name, _)| *name == unit.trim())
        .ok_or_else(wrong)?;
    match number.checked_mul(*bytes) {
        Some(0) => Err("it must be more than zero".to_owned()),
        Some(bytes) => Ok(bytes),
        None => Err("that is more bytes than can be counted".to_owned()),
    }
}

fn leading(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_have_units() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_mins(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("7d"), Ok(Duration::from_hours(168)));
        for bad in [
            "",
            "0s",
            "1",
            "s",
            "-1s",
            "1 s",
            "1.5s",
            "99999999999999999999s",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("512"), Ok(512));
        assert_eq!(size("1 GB"), Ok(1_000_000_000));
        for bad in ["", "0", "0MiB", "MiB", "1MiBs", "-1", "99999999999TiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
