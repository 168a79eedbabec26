//! Samples as Prometheus text, format 0.0.4: the one writer behind every `/metrics` of the project.
//!
//! It writes and knows nothing of HTTP. A family is its name, kind and help, and the samples that follow; `HELP` and
//! `TYPE` come once, before its first sample, and a family without samples leaves no line. A value that is absent is
//! not written.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Write as _;

use crate::gpu::Values;
use crate::metric::{CATALOGUE, Kind, Metric};

/// The `Content-Type` of a page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page of metrics under construction.
///
/// ```
/// use entrenar::expose::{LabelText, Page};
/// use entrenar::metric::Kind;
///
/// let mut page = Page::default();
/// page.family("demo_power_watts", Kind::Gauge, "Board power.")
///     .sample(&LabelText::new([("device", "0")]), 512.5)
///     .sample(&LabelText::new([("device", "1")]), None);
/// page.family("demo_empty", Kind::Gauge, "Nothing to say.");
/// assert_eq!(page.into_text(), "\
/// ## HELP demo_power_watts Board power.
/// ## TYPE demo_power_watts gauge
/// demo_power_watts{device=\"0\"} 512.5
/// ");
/// ```
#[derive(Debug, Default)]
pub struct Page {
    text: String,
    /// Families begun on this page. The format allows each once; a repetition is a programming error.
    begun: HashSet<String>,
}

impl Page {
    /// Begins a family. Its samples are written through what this returns, before any other family's.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) -> Family<'_> {
        let is_new = self.begun.insert(name.to_owned());
        debug_assert!(is_new, "family {name} stands on this page already");
        debug_assert!(is_metric_name(name), "{name} is not a metric name");
        Family {
            name: name.to_owned(),
            kind,
            help: help.to_owned(),
            announced: !is_new,
            text: &mut self.text,
        }
    }

    /// Writes every metric of the catalogue that at least one of `rows` has, as `PREFIX_gpu_NAME`: a row per GPU, the
    /// labels first.
    pub fn gpu_metrics(&mut self, prefix: &str, rows: &[(&LabelText, &Values)]) {
        for metric in CATALOGUE {
            self.gpu_metric(prefix, metric, rows.iter().copied());
        }
    }

    /// Writes one metric, if at least one of `rows` has it.
    pub fn gpu_metric<'a>(
        &mut self,
        prefix: &str,
        metric: &Metric,
        rows: impl IntoIterator<Item = (&'a LabelText, &'a Values)>,
    ) {
        let name = format!("{prefix}_gpu_{}", metric.name);
        let mut family = self.family(&name, metric.kind, metric.help);
        for (labels, values) in rows {
            family.sample(labels, values.display(metric.id));
        }
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// Whether nothing is written yet.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Takes what is written so far, so that a long page can be sent in pieces.
    pub fn take_text(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    /// The finished page.
    pub fn into_text(self) -> String {
        self.text
    }
}

/// A family that has begun: takes its samples.
#[derive(Debug)]
pub struct Family<'a> {
    name: String,
    kind: Kind,
    help: String,
    announced: bool,
    text: &'a mut String,
}

impl Family<'_> {
    /// Writes one sample; `None` writes nothing.
    pub fn sample(&mut self, labels: &LabelText, value: impl Into<Option<f64>>) -> &mut Self {
        if let Some(value) = value.into() {
            self.announce();
            self.text.push_str(&self.name);
            if !labels.0.is_empty() {
                self.text.push('{');
                self.text.push_str(&labels.0);
                self.text.push('}');
            }
            self.text.push(' ');
            push_number(self.text, value);
            self.text.push('\n');
        }
        self
    }

    fn announce(&mut self) {
        if self.announced {
            return;
        }
        self.announced = true;
        let kind = match self.kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        let name = &self.name;
        let help = escape_help(&self.help);
        write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n")
            .expect("a String takes every write");
    }
}

/// Labels written out once, to be used in many lines: `node="n1",device="0"`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelText(String);

impl LabelText {
    /// No labels at all.
    pub const NONE: &'static Self = &Self(String::new());

    /// From names and values; the values are escaped, the order is kept.
    pub fn new<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut all = Self::default();
        for (name, value) in labels {
            all.push(name, value);
        }
        all
    }

    /// The same with one more label.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.push(name, value);
        self
    }

    fn push(&mut self, name: &str, value: &str) {
        debug_assert!(is_label_name(name), "{name} is not a label name");
        if !self.0.is_empty() {
            self.0.push(',');
        }
        write!(self.0, "{name}=\"{}\"", escape_label(value)).expect("a String takes every write");
    }
}

/// Whether Prometheus takes this as the name of a metric.
pub fn is_metric_name(name: &str) -> bool {
    is_name(name, |c| matches!(c, b'_' | b':'))
}

/// Whether Prometheus takes this as the name of a label.
pub fn is_label_name(name: &str) -> bool {
    is_name(name, |c| c == b'_')
}

fn is_name(name: &str, is_extra: impl Fn(u8) -> bool) -> bool {
    !name.is_empty()
        && !name.as_bytes()[0].is_ascii_digit()
        && name
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || is_extra(c))
}

fn push_number(text: &mut String, value: f64) {
    let written = if value.is_nan() {
        text.push_str("NaN");
        Ok(())
    } else if value.is_infinite() {
        text.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
        Ok(())
    } else {
        write!(text, "{value}")
    };
    written.expect("a String takes every write");
}

fn escape_label(value: &str) -> Cow<'_, str> {
    if !value.contains(['\\', '"', '\n']) {
        return value.into();
    }
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
        .into()
}

fn escape_help(help: &str) -> Cow<'_, str> {
    if !help.contains(['\\', '\n']) {
        return help.into();
    }
    help.replace('\\', "\\\\").replace('\n', "\\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::{ENERGY, POWER, TEMPERATURE};

    #[test]
    fn help_and_type_come_once_and_absent_values_leave_no_line() {
        let labels = [0, 1, 2].map(|d: u32| LabelText::new([("device", d.to_string().as_str())]));
        let rows = [
            Values::default().with(TEMPERATURE, 45).with(POWER, 512_345),
            Values::default(),
            Values::default().with(TEMPERATURE, 0).with(ENERGY, 1500),
        ];
        let mut page = Page::default();
        let rows: Vec<_> = labels.iter().zip(&rows).collect();
        page.gpu_metrics("entrenar", &rows);
        assert_eq!(
            page.into_text(),
            "\
# HELP entrenar_gpu_temperature_celsius GPU core temperature.
# TYPE entrenar_gpu_temperature_celsius gauge
entrenar_gpu_temperature_celsius{device=\"0\"} 45
entrenar_gpu_temperature_celsius{device=\"2\"} 0
# HELP entrenar_gpu_power_watts Board power.
# TYPE entrenar_gpu_power_watts gauge
entrenar_gpu_power_watts{device=\"0\"} 512.345
# HELP entrenar_gpu_energy_joules_total Energy used since the driver was loaded.
# TYPE entrenar_gpu_energy_joules_total counter
entrenar_gpu_energy_joules_total{device=\"2\"} 1.5
"
        );
    }

    #[test]
    fn what_would_break_the_format_is_escaped() {
        let labels = LabelText::new([("name", "a\"b\\c\nd"), ("node", "n1")]);
        let mut page = Page::default();
        page.family("x_info", Kind::Gauge, "two\nlines, a \\ and a \"quote\"")
            .sample(&labels, 1.0);
        assert_eq!(
            page.into_text(),
            "# HELP x_info two\\nlines, a \\\\ and a \"quote\"\n# TYPE x_info gauge\n\
             x_info{name=\"a\\\"b\\\\c\\nd\",node=\"n1\"} 1\n"
        );
    }

    #[test]
    fn numbers_are_written_as_prometheus_reads_them() {
        let check = |value: f64, text: &str| {
            let mut page = Page::default();
            page.family("x", Kind::Gauge, "")
                .sample(LabelText::NONE, value);
            let page = page.into_text();
            assert_eq!(page.lines().last(), Some(format!("x {text}").as_str()));
        };
        check(0.0, "0");
        check(-0.5, "-0.5");
        check(85_899_345_920.0, "85899345920");
        check(f64::INFINITY, "+Inf");
        check(f64::NEG_INFINITY, "-Inf");
        check(f64::NAN, "NaN");
    }

    #[test]
    fn names_are_held_to_the_rules_of_prometheus() {
        for good in ["entrenar", "a:b", "_x9"] {
            assert!(is_metric_name(good), "{good}");
        }
        for bad in ["", "9x", "a-b", "a b", "é"] {
            assert!(!is_metric_name(bad), "{bad}");
        }
        assert!(!is_label_name("a:b"));
    }
}
