//! What a question's query string says, word by word: `node=a&node=b&label.rack=r1`.

use std::time::Duration;

use entrenar::metric::{self, CATALOGUE, Metric};
use entrenar::unit::Timestamp;

use super::api::Answer;
use super::error::Problem;
use crate::query::select::Filter;

/// Words that were not asked for yet; [`finish`](Self::finish) refuses what nobody asked for.
pub(super) struct Params {
    rest: Vec<(String, String)>,
    known: Vec<&'static str>,
    now: Timestamp,
}

/// Which metrics are asked for.
#[derive(Default)]
pub(super) struct Metrics {
    pub(super) list: Vec<&'static Metric>,
    /// Whatever there is: a GPU that has not one of them is not asked about it.
    pub(super) is_all: bool,
}

impl Metrics {
    /// Whether a series must say which it is of.
    pub(super) const fn are_many(&self) -> bool {
        self.list.len() > 1
    }
}

impl Params {
    pub(super) const fn new(rest: Vec<(String, String)>, now: Timestamp) -> Self {
        Self {
            rest,
            known: Vec::new(),
            now,
        }
    }

    /// Every value of a word.
    pub(super) fn all(&mut self, key: &'static str) -> Vec<String> {
        self.known.push(key);
        let (found, rest) = std::mem::take(&mut self.rest)
            .into_iter()
            .partition(|(name, _)| name == key);
        self.rest = rest;
        found.into_iter().map(|(_, value)| value).collect()
    }

    /// The value of a word that may be said once. Said without a value it is not said.
    pub(super) fn one(&mut self, key: &'static str) -> Answer<Option<String>> {
        let mut all = self.all(key);
        if all.len() > 1 {
            return Err(Problem::bad_request(format!("{key}= is given twice")));
        }
        Ok(all.pop().filter(|value| !value.is_empty()))
    }

    pub(super) fn number<T: std::str::FromStr>(
        &mut self,
        key: &'static str,
        what: &str,
    ) -> Answer<Option<T>> {
        let number = self.one(key)?.map(|text| text.parse());
        let wrong = |_| Problem::bad_request(format!("{key}= must be {what}"));
        number.transpose().map_err(wrong)
    }

    /// A length of time: `30s`, `5m`, or seconds.
    pub(super) fn duration(&mut self, key: &'static str) -> Answer<Option<Duration>> {
        self.one(key)?.map(|text| span(key, &text)).transpose()
    }

    pub(super) fn time(&mut self, key: &'static str) -> Answer<Option<Timestamp>> {
        let now = self.now;
        self.one(key)?
            .map(|text| parse_time(&text, now))
            .transpose()
    }

    /// `from` and `to`; the last hour, where nothing is said.
    pub(super) fn range(&mut self) -> Answer<(Timestamp, Timestamp)> {
        let to = self.time("to")?.unwrap_or(self.now);
        let hour = Duration::from_hours(1);
        let from = self.time("from")?.unwrap_or(self.now.min(to) - hour);
        if to < from {
            return Err(Problem::bad_request("`from` is after `to`"));
        }
        Ok((from, to))
    }

    pub(super) fn metric(&mut self) -> Answer<&'static Metric> {
        let name = self.one("metric")?.ok_or_else(no_metric)?;
        by_name(&name)
    }

    /// Metrics, in the order in which they are named: `metric=a&metric=b`, `metric=a,b`, or `metric=all`.
    pub(super) fn metrics(&mut self) -> Answer<Metrics> {
        let said = self.all("metric").join(",");
        let mut metrics = Metrics::default();
        for name in said.split(',').filter(|name| !name.is_empty()) {
            if name == "all" {
                metrics.is_all = true;
                metrics.list = CATALOGUE.iter().collect();
                break;
            }
            let metric = by_name(name)?;
            if metrics.list.iter().any(|known| known.id == metric.id) {
                return Err(Problem::bad_request(format!(
                    "metric={name} is given twice"
                )));
            }
            metrics.list.push(metric);
        }
        if metrics.list.is_empty() {
            return Err(no_metric());
        }
        Ok(metrics)
    }

    /// Which GPUs: node, device, uuid, model and `label.NAME`.
    pub(super) fn filter(&mut self) -> Answer<Filter> {
        let nodes = self.all("node");
        Ok(Filter {
            nodes: nodes.into_iter().filter(|node| !node.is_empty()).collect(),
            device: self.number("device", "a GPU's index on its node")?,
            uuid: self.one("uuid")?,
            model: self.one("model")?,
            labels: self.labels(),
        })
    }

    fn labels(&mut self) -> Vec<(String, String)> {
        self.known.push("label.NAME");
        let (found, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.rest)
            .into_iter()
            .partition(|(name, _)| name.starts_with("label."));
        self.rest = rest;
        let label = |(name, value): (String, String)| (name["label.".len()..].to_owned(), value);
        found.into_iter().map(label).collect()
    }

    /// Refuses what was not asked for: a word that is misspelt must not be taken for one that was left out.
    pub(super) fn finish(self) -> Answer<()> {
        match self.rest.first() {
            None => Ok(()),
            Some((name, _)) => Err(Problem::bad_request(format!(
                "{name}= is not a parameter here: there are {}",
                self.known.join(", ")
            ))),
        }
    }
}

fn no_metric() -> Problem {
    Problem::bad_request("metric= is missing: see docs/metrics.md for their names")
}

fn by_name(name: &str) -> Answer<&'static Metric> {
    metric::by_name(name).ok_or_else(|| {
        Problem::bad_request(format!(
            "there is no metric {name:?}: see docs/metrics.md for their names"
        ))
    })
}

/// A length of time: `30s`, `5m`, or seconds as Grafana sends them.
pub(super) fn span(key: &str, text: &str) -> Answer<Duration> {
    if let Some(secs) = text
        .parse::<f64>()
        .ok()
        .filter(|s| (0.001..1e9).contains(s))
    {
        return Ok(Duration::from_millis((secs * 1e3).round() as u64));
    }
    entrenar::config::duration(text).map_err(|_| {
        Problem::bad_request(format!(
            "{key}={text}: give a length of time like 30s, 5m or 1h, or seconds"
        ))
    })
}

/// RFC 3339, unix seconds, `now`, or `-1h` before now.
pub(super) fn parse_time(text: &str, now: Timestamp) -> Answer<Timestamp> {
    let wrong = || {
        Problem::bad_request(format!(
            "{text:?} is not a time: give RFC 3339 (2026-01-31T12:00:00Z), unix seconds, or an offset such as -1h"
        ))
    };
    if text == "now" {
        return Ok(now);
    }
    if let Some(offset) = text.strip_prefix('-') {
        return entrenar::config::duration(offset)
            .map(|d| now - d)
            .map_err(|_| wrong());
    }
    if let Some(at) = Timestamp::parse_rfc3339(text) {
        return Ok(at);
    }
    let secs: f64 = text.parse().map_err(|_| wrong())?;
    // Until the year 9999.
    if secs.is_finite() && (0.0..253_402_300_800.0).contains(&secs) {
        Ok(Timestamp::from_secs_f64(secs))
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_in_many_ways() {
        let now = Timestamp::from_secs(1_700_000_000);
        let check = |text: &str| {
            parse_time(text, now)
                .ok()
                .map(|t| t.as_millis() - now.as_millis())
        };
        assert_eq!(check("now"), Some(0));
        assert_eq!(check("-1h"), Some(-3_600_000));
        assert_eq!(check("2023-11-14T22:13:20Z"), Some(0));
        assert_eq!(check("1700000000.5"), Some(500));
        for bad in ["", "yesterday", "-", "-1x", "1e300", "NaN", "12:00"] {
            assert_eq!(check(bad), None, "{bad}");
        }
    }

    fn params(text: &str) -> Params {
        let words = text.split('&').filter_map(|word| word.split_once('='));
        let words = words.map(|(name, value)| (name.into(), value.into()));
        Params::new(words.collect(), Timestamp::from_secs(10_000))
    }

    fn detail<T>(answer: Answer<T>) -> String {
        answer
            .err()
            .map(|problem| problem.detail().to_owned())
            .unwrap_or_default()
    }

    #[test]
    fn a_question_says_which_gpus() {
        let mut words = params("node=a&node=b&label.rack=r1&device=3&label.zone=z");
        let filter = words.filter().unwrap();
        assert_eq!(filter.nodes, ["a", "b"]);
        assert_eq!(filter.device, Some(3));
        assert_eq!(filter.labels.len(), 2);
        assert!(words.finish().is_ok());
    }

    #[test]
    fn what_is_misspelt_is_not_taken_for_left_out() {
        let mut words = params("node=a&devise=3");
        words.filter().unwrap();
        assert_eq!(
            detail(words.finish()),
            "devise= is not a parameter here: there are node, device, uuid, model, label.NAME"
        );
        assert_eq!(
            detail(params("uuid=a&uuid=b").filter()),
            "uuid= is given twice"
        );
        assert!(detail(params("device=x").filter()).contains("index"));
        assert!(detail(params("metric=heat").metric()).contains("docs/metrics.md"));
    }

    #[test]
    fn several_metrics_are_named_one_after_the_other_or_all_at_once() {
        let names = |text: &str| {
            let metrics = params(text).metrics();
            metrics.map(|metrics| metrics.list.iter().map(|m| m.name).collect::<Vec<_>>())
        };
        let two = ["power_watts", "temperature_celsius"];
        assert_eq!(
            names("metric=power_watts,temperature_celsius")
                .ok()
                .unwrap(),
            two
        );
        assert_eq!(
            names("metric=power_watts&metric=temperature_celsius")
                .ok()
                .unwrap(),
            two
        );
        assert_eq!(names("metric=all").ok().unwrap().len(), CATALOGUE.len());
        assert!(detail(names("metric=power_watts,power_watts")).contains("twice"));
        assert!(detail(names("metric=power_watts,heat")).contains("\"heat\""));
        assert!(detail(names("metric=,")).contains("missing"));
    }

    #[test]
    fn a_range_is_the_last_hour_where_nothing_is_said() {
        let range = |text: &str| {
            let (from, to) = params(text).range().unwrap();
            (from.0 / 1000, to.0 / 1000)
        };
        assert_eq!(range(""), (6400, 10_000));
        assert_eq!(range("to=5000"), (1400, 5000));
        assert_eq!(range("from=-10s"), (9990, 10_000));
        assert!(detail(params("from=20&to=10").range()).contains("after"));
    }

    #[test]
    fn a_length_of_time_has_a_unit_or_is_in_seconds() {
        let ms = |text: &str| span("step", text).ok().map(|d| d.as_millis());
        assert_eq!(ms("15"), Some(15_000));
        assert_eq!(ms("0.5"), Some(500));
        assert_eq!(ms("1h30m"), Some(5_400_000));
        for bad in ["0", "-1", "soon", "1y", "nan"] {
            assert_eq!(ms(bad), None, "{bad}");
        }
    }
}
