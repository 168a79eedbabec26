//! The sentence of a rule of people: a text with places for what was found. *(pure)*

use crate::andon::finding::{gibibytes, gpu_on_node};
use crate::andon::gpu::Gpu;

/// What may stand between `{{` and `}}`.
pub(super) const NAMES: [&str; 8] = [
    "node",
    "device",
    "uuid",
    "model",
    "job",
    "value",
    "threshold",
    "rule",
];

/// Longest sentence, in bytes.
const MOST_BYTES: usize = 1000;

/// A text with places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// One of [`NAMES`].
    Name(&'static str),
    /// `GPU 3 on n02`, or the node alone.
    Where,
}

/// What a sentence speaks of.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) rule: &'a str,
    pub(super) node: &'a str,
    pub(super) gpu: Option<&'a Gpu>,
    pub(super) value: &'a str,
    pub(super) threshold: &'a str,
}

impl Template {
    /// Reads `GPU {{device}} of {{node}} is at {{value}}`; the error says what is wrong.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MOST_BYTES {
            return Err(format!("a sentence has at most {MOST_BYTES} bytes"));
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((name, after)) = after.split_once("}}") else {
                return Err("`{{` without `}}`".into());
            };
            let name = name.trim();
            let Some(name) = NAMES.into_iter().find(|known| *known == name) else {
                let known = NAMES.join(", ");
                return Err(format!("there is no {{{{{name}}}}}: write one of {known}"));
            };
            pieces.push(Piece::Text(before.to_owned()));
            pieces.push(Piece::Name(name));
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Self(pieces))
    }

    /// The sentence of a rule that has none of its own: `hot_memory: GPU 3 on n02: WHAT is VALUE (THRESHOLD)`.
    pub(super) fn usual(what: &str, has_threshold: bool) -> Self {
        let mut pieces = vec![
            Piece::Name("rule"),
            Piece::Text(": ".into()),
            Piece::Where,
            Piece::Text(format!(": {what} ")),
            Piece::Name("value"),
        ];
        if has_threshold {
            pieces.push(Piece::Text(" (".into()));
            pieces.push(Piece::Name("threshold"));
            pieces.push(Piece::Text(")".into()));
        }
        Self(pieces)
    }

    pub(super) fn render(&self, place: Place<'_>) -> String {
        let mut text = String::new();
        let at = place.gpu.map(|gpu| &gpu.at);
        for piece in &self.0 {
            match piece {
                Piece::Text(part) => text.push_str(part),
                Piece::Where => match at {
                    Some(at) => text.push_str(&gpu_on_node(at)),
                    None => text.push_str(place.node),
                },
                Piece::Name("node") => text.push_str(place.node),
                Piece::Name("device") => {
                    text.push_str(&at.map_or("-".into(), |at| at.device.to_string()));
                }
                Piece::Name("uuid") => text.push_str(at.map_or("-", |at| at.uuid.as_str())),
                Piece::Name("model") => text.push_str(place.gpu.map_or("-", Gpu::model)),
                Piece::Name("job") => {
                    let holder = place.gpu.and_then(Gpu::holder);
                    text.push_str(holder.map_or("-", |holder| &holder.job));
                }
                Piece::Name("value") => text.push_str(place.value),
                Piece::Name("threshold") => text.push_str(place.threshold),
                Piece::Name(_) => text.push_str(place.rule),
            }
        }
        text
    }
}

/// `94`, `0.25`, `1234`: as many digits as people read.
pub(super) fn number(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 1.0 => 1,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    text
}

/// `94 °C`, `74.5 GiB`.
pub(super) fn with_unit(value: f64, unit: &str) -> String {
    let symbol = match unit {
        "celsius" => "°C",
        "percent" => "%",
        "watts" => "W",
        "joules" => "J",
        "megahertz" => "MHz",
        "seconds" => "s",
        "bytes" if value.abs() >= f64::from(1 << 30) => return gibibytes(value as i64),
        "bytes" => "B",
        "ratio" | "code" | "flag" | "bitmask" => return number(value),
        other => other,
    };
    format!("{} {symbol}", number(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_unit_and_no_idle_digits() {
        assert_eq!(with_unit(94.0, "celsius"), "94 °C");
        assert_eq!(with_unit(80e9, "bytes"), "74.5 GiB");
        assert_eq!(with_unit(0.25, "ratio"), "0.25");
        assert_eq!(with_unit(-12.34, "watts"), "-12.3 W");
        assert_eq!(with_unit(7.0, "errors"), "7 errors");
    }

    #[test]
    fn a_place_that_does_not_exist_is_refused() {
        assert!(Template::parse("{{node}} {{ device }}").is_ok());
        assert!(Template::parse("{{host}}").is_err());
        assert!(Template::parse("{{node").is_err());
    }
}
