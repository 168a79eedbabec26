//! Which GPUs, nodes and jobs a part of the rules file is for. *(pure)*

use std::collections::BTreeMap;
use std::fmt;

use entrenar::report::{JobKind, Labels};
use serde::de::{SeqAccess, Visitor, value};
use serde::{Deserialize, Deserializer, Serialize};

use serde_json::{Value as Json, json};

use super::glob::Glob;
use super::schema::{Shape as _, object};

/// What must hold of a thing; what is not named may be anything. Empty: everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Selector {
    /// Name of the deployment.
    pub(crate) cluster: Option<Glob>,
    /// Name of the node.
    pub(crate) node: Option<Glob>,
    /// Name of the GPU's model. A node goes by its first GPU.
    pub(crate) model: Option<Glob>,
    /// Kind of the job that holds the GPU: a word or a list. What nobody holds has none.
    #[serde(deserialize_with = "one_or_many")]
    pub(crate) job_kind: Vec<JobKind>,
    /// Labels of the node, such as `rack`. A node without the label does not match.
    pub(crate) labels: BTreeMap<String, Glob>,
}

/// What a selector looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) cluster: &'a str,
    pub(crate) node: &'a str,
    pub(crate) labels: &'a Labels,
    pub(crate) model: Option<&'a str>,
    pub(crate) job_kind: Option<JobKind>,
}

impl Selector {
    pub(in crate::andon) fn shape() -> Json {
        let glob = || Option::<Glob>::shape();
        let kinds = json!({ "anyOf": [JobKind::shape(), Vec::<JobKind>::shape()] });
        let parameters = vec![
            ("cluster", "Name of the deployment.", glob()),
            ("node", "Name of the node.", glob()),
            ("model", "Name of the GPU's model.", glob()),
            ("job_kind", "Kind of the job that holds the GPU.", kinds),
            (
                "labels",
                "Labels of the node.",
                BTreeMap::<String, Glob>::shape(),
            ),
        ];
        object("What it is for.", parameters, &Self::default())
    }

    /// Whether all that it asks for holds.
    pub(crate) fn matches(&self, subject: Subject<'_>) -> bool {
        let fits = |glob: &Option<Glob>, name: Option<&str>| {
            glob.as_ref()
                .is_none_or(|glob| name.is_some_and(|name| glob.matches(name)))
        };
        let has_label = |(label, glob): (&String, &Glob)| {
            let value = subject.labels.get(label);
            value.is_some_and(|value| glob.matches(value))
        };
        fits(&self.cluster, Some(subject.cluster))
            && fits(&self.node, Some(subject.node))
            && fits(&self.model, subject.model)
            && (self.job_kind.is_empty()
                || subject
                    .job_kind
                    .is_some_and(|kind| self.job_kind.contains(&kind)))
            && self.labels.iter().all(has_label)
    }

    /// Something that it asks for with one value only, as a name and that value: two selectors that ask for different
    /// values of one name never match the same thing.
    pub(super) fn exact(&self) -> Option<(String, String)> {
        let named = [
            ("node", &self.node),
            ("model", &self.model),
            ("cluster", &self.cluster),
        ];
        let literal = named.into_iter().find_map(|(name, glob)| {
            let value = glob.as_ref()?.literal()?;
            Some((name.to_owned(), value.to_owned()))
        });
        let label = || {
            self.labels.iter().find_map(|(label, glob)| {
                Some((format!("labels.{label}"), glob.literal()?.to_owned()))
            })
        };
        let kind = || match self.job_kind.as_slice() {
            [kind] => Some(("job_kind".to_owned(), format!("{kind:?}"))),
            _ => None,
        };
        literal.or_else(label).or_else(kind)
    }
}

/// A word or a list of words.
fn one_or_many<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<JobKind>, D::Error> {
    struct OneOrMany;

    impl<'de> Visitor<'de> for OneOrMany {
        type Value = Vec<JobKind>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("train, inference, interactive, unknown, or a list of them")
        }

        fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Self::Value, E> {
            let kind = JobKind::deserialize(value::StrDeserializer::<E>::new(word))?;
            Ok(vec![kind])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut kinds = Vec::new();
            while let Some(kind) = list.next_element()? {
                kinds.push(kind);
            }
            Ok(kinds)
        }
    }

    from.deserialize_any(OneOrMany)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_asked_for_must_hold() {
        let labels = Labels::from([("rack".to_owned(), "r2".to_owned())]);
        let subject = Subject {
            cluster: "prod",
            node: "n07",
            labels: &labels,
            model: Some("NVIDIA H100 80GB HBM3"),
            job_kind: Some(JobKind::Train),
        };
        let check = |json: &str, expected: bool| {
            let selector: Selector = serde_json::from_str(json).expect("a selector");
            assert_eq!(selector.matches(subject), expected, "{json}");
        };
        check("{}", true);
        check(r#"{"model": "*H100*", "labels": {"rack": "r2"}}"#, true);
        check(r#"{"model": "*H100*", "labels": {"rack": "r3"}}"#, false);
        check(r#"{"labels": {"switch": "*"}}"#, false);
        check(r#"{"job_kind": "train"}"#, true);
        check(r#"{"job_kind": ["inference", "train"]}"#, true);
        check(r#"{"job_kind": "inference"}"#, false);
        check(r#"{"cluster": "p*", "node": "n0?"}"#, true);
        check(r#"{"cluster": "test"}"#, false);
        let free = Subject {
            job_kind: None,
            ..subject
        };
        let train: Selector = serde_json::from_str(r#"{"job_kind": "train"}"#).expect("a selector");
        assert!(!train.matches(free), "what nobody holds has no job");
    }
}
