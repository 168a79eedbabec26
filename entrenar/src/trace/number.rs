//! Decimal cells to scaled integers and back, exactly: no detour over floating point. *(pure)*

/// A decimal number times `scale`, rounded to the nearest integer, halves away from zero. `scale` is a power of ten.
/// `None`: not a number, or too large.
pub(crate) fn parse_scaled(cell: &[u8], scale: i64) -> Option<i64> {
    let (negative, digits) = match cell {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, cell),
    };
    let mut value: i64 = 0;
    let mut seen = 0;
    let mut rest = digits.iter();
    // Digits left to fill up to the scale; counted down behind the point.
    let mut missing = scale;
    let mut behind_point = false;
    for &byte in rest.by_ref() {
        match byte {
            b'0'..=b'9' if behind_point && missing == 1 => {
                if byte >= b'5' {
                    value = value.checked_add(1)?;
                }
                if !rest.as_slice().iter().all(u8::is_ascii_digit) {
                    return by_float(cell, scale);
                }
                seen += 1;
                break;
            }
            b'0'..=b'9' => {
                value = value.checked_mul(10)?.checked_add(i64::from(byte - b'0'))?;
                seen += 1;
                if behind_point {
                    missing /= 10;
                }
            }
            b'.' if !behind_point => behind_point = true,
            b'e' | b'E' => return by_float(cell, scale),
            _ => return None,
        }
    }
    if seen == 0 {
        return None;
    }
    let value = value.checked_mul(missing)?;
    Some(if negative { -value } else { value })
}

/// A number as most cells write it, up to a comma or the end: digits, perhaps a point and no more digits than `scale`
/// has room for. Its value times `scale`, and its length. `None`: whatever it is, [`parse_scaled`] knows.
pub(crate) fn plain(text: &[u8], scale: i64) -> Option<(i64, usize)> {
    /// Fewer digits fit, whatever they are.
    const FIT: usize = 18;
    let (mut value, mut length) = (0, 0);
    let mut missing = scale;
    let mut behind_point = false;
    while length < FIT {
        match text.get(length) {
            Some(digit @ b'0'..=b'9') => {
                if behind_point {
                    missing /= 10;
                }
                value = value * 10 + i64::from(digit - b'0');
            }
            Some(b'.') if !behind_point && length > 0 => behind_point = true,
            None | Some(b',') => break,
            Some(_) => return None,
        }
        length += 1;
    }
    // Digits beyond the scale leave nothing missing: they are to be rounded.
    if length == 0 || length == FIT || missing == 0 {
        return None;
    }
    Some((value.checked_mul(missing)?, length))
}

/// Numbers with an exponent: rare, and then not exact either.
fn by_float(cell: &[u8], scale: i64) -> Option<i64> {
    let value: f64 = std::str::from_utf8(cell).ok()?.parse().ok()?;
    let scaled = (value * scale as f64).round();
    (scaled.abs() < 9.2e18).then_some(scaled as i64)
}

/// Writes an integer divided by `scale`, a power of ten, without needless zeros.
pub(crate) fn write_scaled(out: &mut Vec<u8>, value: i64, scale: i64) {
    use std::io::Write as _;
    let sign = if value < 0 { "-" } else { "" };
    let (whole, part) = (
        value.unsigned_abs() / scale as u64,
        value.unsigned_abs() % scale as u64,
    );
    // Writing into memory does not fail.
    let _ = write!(out, "{sign}{whole}");
    if part != 0 {
        let width = scale.ilog10() as usize;
        let _ = write!(out, ".{part:0width$}");
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cells_are_read_exactly_and_rounded_to_the_nearest() {
        let check = |cell: &str, scale, expected| {
            assert_eq!(parse_scaled(cell.as_bytes(), scale), expected, "{cell}");
        };
        check("414.9", 1000, Some(414_900));
        check("2951598.3000000003", 1000, Some(2_951_598_300));
        check("0.0005", 1000, Some(1));
        check("0.00049", 1000, Some(0));
        check("-3", 1, Some(-3));
        check("-0.0005", 1000, Some(-1));
        check("47.5", 1, Some(48));
        check("47.", 1, Some(47));
        check(".5", 1000, Some(500));
        check("1e3", 1000, Some(1_000_000));
        check("1.23456e2", 1000, Some(123_456));
        check("9223372036854775807", 1, Some(i64::MAX));
        for bad in [
            "",
            "-",
            ".",
            "x",
            "1x",
            "1.2.3",
            "nan",
            "inf",
            "1e99",
            "9223372036854775808",
            "1.5x",
            "0x10",
        ] {
            check(bad, 1, None);
        }
    }

    /// Cells as people and programs write them, good and bad.
    fn any_cell() -> impl Strategy<Value = String> {
        prop_oneof![
            "[0-9]{0,20}",
            "[0-9]{0,12}\\.[0-9]{0,9}",
            "[-+]?[0-9]{0,3}\\.?[0-9]{0,3}([eE][0-9]{1,2})?",
            "[0-9.,xeE+-]{0,8}",
        ]
    }

    proptest! {
        #[test]
        fn a_plain_number_is_what_the_long_way_makes_of_it(cell in any_cell(), digits in 0u32..7, more in "(,[0-9]{0,3})?") {
            let scale = 10i64.pow(digits);
            let text = format!("{cell}{more}");
            let first = text.split(',').next().unwrap_or("");
            if let Some((value, length)) = plain(text.as_bytes(), scale) {
                prop_assert_eq!(length, first.len());
                prop_assert_eq!(Some(value), parse_scaled(first.as_bytes(), scale));
            } else {
                // What the short way leaves to the long way is not what a trace is full of.
                let is_short = !first.is_empty() && first.len() <= 9 && first.bytes().all(|b| b.is_ascii_digit());
                prop_assert!(!is_short, "{}", first);
            }
        }

        #[test]
        fn what_is_written_is_read_again(value in -(1i64 << 62)..(1i64 << 62), digits in 0u32..7) {
            let scale = 10i64.pow(digits);
            let mut cell = Vec::new();
            write_scaled(&mut cell, value, scale);
            prop_assert_eq!(parse_scaled(&cell, scale), Some(value));
        }
    }
}
