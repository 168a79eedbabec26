//! Values as a row of glyphs, for terminals and messages.
//!
//! [`sparkline`] is for a quick look at any unit: it starts at zero, ends at the largest value, and stresses the upper
//! half. [`sparkline_scaled`] is linear between two bounds: use it where lines are compared with each other.

/// The glyphs, lowest first.
const GLYPHS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Stands where a value is missing.
const GAP: char = '·';

/// A value that can be drawn: every number, and `Option` of one, where `None` is a gap.
pub trait SparkValue: Copy + sealed::Sealed {
    /// The value as a float; `None` for a gap.
    fn to_spark(self) -> Option<f64>;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! spark_numbers {
    ($($number:ty),*) => {$(
        impl sealed::Sealed for $number {}
        impl SparkValue for $number {
            #[allow(clippy::cast_lossless, reason = "the same line for every number")]
            fn to_spark(self) -> Option<f64> {
                Some(self as f64)
            }
        }
    )*};
}
spark_numbers!(u8, u16, u32, u64, usize, i8, i16, i32, i64, isize, f32, f64);

impl<T: SparkValue> sealed::Sealed for Option<T> {}
impl<T: SparkValue> SparkValue for Option<T> {
    fn to_spark(self) -> Option<f64> {
        self.and_then(T::to_spark)
    }
}

/// Draws values from zero to their maximum: a glyph each, `▁` for zero, negative or not a number, `█` for the maximum.
///
/// The step of a value is `floor(7 · (value / maximum)^1.75)`, the same in every unit. It is monotone but not linear,
/// and a constant series is all `█`.
///
/// ```
/// assert_eq!(entrenar::spark::sparkline(&[45, 67, 82, 91, 88, 75, 60]), "▃▅▆█▇▅▄");
/// ```
pub fn sparkline<T: SparkValue>(values: &[T]) -> String {
    let max = values
        .iter()
        .filter_map(|v| v.to_spark())
        .filter(|v| v.is_finite())
        .fold(0.0, f64::max);
    draw(values, |value| 7.0 * (value / max).powf(1.75))
}

/// Draws values on a linear scale: eight equal steps from `lo`, below which all is `▁`, to `hi`, above which all is `█`.
///
/// ```
/// assert_eq!(entrenar::spark::sparkline_scaled(&[Some(0), Some(50), None, Some(100)], 0.0, 100.0), "▁▅·█");
/// ```
pub fn sparkline_scaled<T: SparkValue>(values: &[T], lo: f64, hi: f64) -> String {
    draw(values, |value| 8.0 * (value - lo) / (hi - lo))
}

/// A glyph per value, by its step: 0 is the lowest glyph, 7 and above the highest.
fn draw<T: SparkValue>(values: &[T], step: impl Fn(f64) -> f64) -> String {
    let glyph = |value: f64| {
        // A step that is not a number (0/0, or of a value that is none) becomes 0 by the cast, as negative ones do.
        let step = step(value).floor() as usize;
        GLYPHS[step.min(GLYPHS.len() - 1)]
    };
    values
        .iter()
        .map(|v| v.to_spark().map_or(GAP, glyph))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_s_history_looks_as_the_page_says() {
        let history = vec![45, 67, 82, 91, 88, 75, 60];
        assert_eq!(sparkline(&history), "▃▅▆█▇▅▄");
    }

    #[test]
    fn the_shape_does_not_depend_on_the_unit() {
        let bytes = [45_u64, 67, 82, 91, 88, 75, 60].map(|v| v << 30);
        let ratios = [0.45, 0.67, 0.82, 0.91, 0.88, 0.75, 0.60_f32];
        assert_eq!(sparkline(&bytes), "▃▅▆█▇▅▄");
        assert_eq!(sparkline(&ratios), "▃▅▆█▇▅▄");
    }

    #[test]
    fn odd_values_have_a_glyph_and_no_panic() {
        let check =
            |values: &[f64], drawn: &str| assert_eq!(sparkline(values), drawn, "{values:?}");
        check(&[], "");
        check(&[0.0, 0.0], "▁▁");
        check(&[-5.0, 10.0], "▁█");
        check(&[f64::NAN, 10.0], "▁█");
        check(&[f64::INFINITY, 10.0], "██");
        check(&[7.0, 7.0], "██");
    }

    #[test]
    fn a_scaled_line_is_linear_clamped_and_shows_gaps() {
        assert_eq!(
            sparkline_scaled(&[1, 2, 3, 4, 5, 6, 7, 8], 1.0, 8.0),
            "▁▂▃▄▅▆▇█"
        );
        assert_eq!(
            sparkline_scaled(&[0, 12, 13, 87, 88, 99], 0.0, 100.0),
            "▁▁▂▇██"
        );
        assert_eq!(sparkline_scaled(&[-10, 200], 0.0, 100.0), "▁█");
        assert_eq!(sparkline_scaled(&[Some(1.0), None], 0.0, 1.0), "█·");
        assert_eq!(sparkline_scaled(&[3, 3], 3.0, 3.0), "▁▁");
    }
}
