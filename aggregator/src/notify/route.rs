//! Which receivers an incident concerns.

use entrenar::gpu::NodeId;

use crate::andon::{Scope, Severity};
use crate::incident::Incident;

/// A pattern for names: `*` stands for any characters, `?` for one, everything else for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(String);

impl From<&str> for Glob {
    fn from(pattern: &str) -> Self {
        Self(pattern.into())
    }
}

impl Glob {
    /// Whether the whole name matches.
    pub fn matches(&self, name: &str) -> bool {
        matches(self.0.as_bytes(), name.as_bytes())
    }
}

/// Goes back to the last `*` on a mismatch, so it takes at most pattern × name steps.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

/// One receiver's share of the incidents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub receiver: String,
    pub min_severity: Severity,
    /// Node names; empty: every node.
    pub nodes: Vec<Glob>,
    /// Names of kinds; empty: every kind.
    pub kinds: Vec<Glob>,
}

impl Route {
    /// Every incident from `min_severity` up.
    pub fn to(receiver: &str, min_severity: Severity) -> Self {
        Self {
            receiver: receiver.into(),
            min_severity,
            nodes: Vec::new(),
            kinds: Vec::new(),
        }
    }

    /// Whether the receiver wants to hear of this incident.
    pub fn concerns(&self, incident: &Incident) -> bool {
        self.min_severity <= incident.severity
            && any(&self.kinds, &[incident.kind.name()])
            && match nodes_of(&incident.scope) {
                Some(nodes) => any(&self.nodes, &nodes),
                // What concerns the whole fleet concerns everyone in it.
                None => true,
            }
    }
}

fn any(globs: &[Glob], names: &[&str]) -> bool {
    globs.is_empty()
        || names
            .iter()
            .any(|name| globs.iter().any(|glob| glob.matches(name)))
}

/// `None`: the whole fleet.
fn nodes_of(scope: &Scope) -> Option<Vec<&str>> {
    match scope {
        Scope::Fleet => None,
        Scope::Node { node } => Some(vec![node.as_str()]),
        Scope::Gpu { gpu } => Some(vec![gpu.node.as_str()]),
        Scope::Job { gpus, .. } => Some(gpus.iter().map(|gpu| gpu.node.as_str()).collect()),
        Scope::Nodes { nodes, .. } => Some(nodes.iter().map(NodeId::as_str).collect()),
    }
}

/// Every receiver's share, in the order of the receivers file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes(pub Vec<Route>);

impl Routes {
    /// Names of the receivers that an incident concerns.
    pub fn concerned(&self, incident: &Incident) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(|route| route.concerns(incident))
            .map(|route| route.receiver.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::andon::Kind;
    use crate::incident::testing::incident;

    #[test]
    fn a_star_stands_for_any_name_and_a_question_mark_for_one_character() {
        let check = |pattern: &str, name: &str, expected: bool| {
            assert_eq!(
                Glob::from(pattern).matches(name),
                expected,
                "{pattern} {name}"
            );
        };
        check("*", "", true);
        check("", "n1", false);
        check("n1", "n10", false);
        check("n?", "n1", true);
        check("rack7-*", "rack7-n01", true);
        check("*-n01", "rack7-n01-n01", true);
        check("*7*1?", "rack7-n011", true);
        check("a*b*c", "a-b-b", false);
    }

    #[test]
    fn a_receiver_hears_of_its_nodes_its_kinds_and_its_severities_only() {
        let mut gpu = incident("n7", Kind::Xid, Severity::Warning);
        let concerns = |severity, nodes: &[&str], kinds: &[&str], incident: &Incident| {
            Route {
                nodes: nodes.iter().map(|n| Glob::from(*n)).collect(),
                kinds: kinds.iter().map(|k| Glob::from(*k)).collect(),
                ..Route::to("r", severity)
            }
            .concerns(incident)
        };
        assert!(concerns(Severity::Warning, &[], &[], &gpu));
        assert!(!concerns(Severity::Critical, &[], &[], &gpu));
        assert!(concerns(Severity::Info, &["m*", "n*"], &["Xid"], &gpu));
        assert!(!concerns(Severity::Info, &["m*"], &[], &gpu));
        assert!(!concerns(Severity::Info, &[], &["Gpu*"], &gpu));
        gpu.scope = Scope::Fleet;
        assert!(concerns(Severity::Info, &["m*"], &[], &gpu));
    }
}
