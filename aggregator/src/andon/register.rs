//! The raised cords, and what is still to be said of them. *(pure)*
//!
//! Detectors say that a cord is up or down; the register makes transitions of it whose time rises strictly within one
//! cord, finds causes and groups, and keeps a cord up while others follow it.

use std::collections::BTreeMap;

use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

use super::cause::{self, Shared};
use super::finding::listed;
use super::fleet::Fleet;
use super::rules::CausesRule;
use super::{Change, CordKey, Finding, Kind, Resolution, RuleUid, Scope, Severity, Transition};

/// How long a cord that is down is remembered, so that its next transition is later than its last.
const REMEMBER_MS: i64 = 3_600_000;
/// Most culprits of a group that are named.
const MOST_CULPRITS: usize = 16;

/// What a detector says of its cord.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) rule: RuleUid,
    pub(super) kind: Kind,
    pub(super) scope: Scope,
    pub(super) severity: Severity,
    pub(super) at: Timestamp,
    pub(super) started_at: Timestamp,
    pub(super) finding: Finding,
    /// People work there: it is a record for now.
    pub(super) muted: bool,
    /// Told to nobody: it explains nothing, and nothing explains it.
    pub(super) shadow: bool,
}

impl Report {
    fn key(&self) -> CordKey {
        CordKey {
            rule: self.rule.clone(),
            scope: self.scope.key(),
        }
    }
}

impl Report {
    /// How much it matters for now.
    fn told_severity(&self) -> Severity {
        if self.muted {
            Severity::Info
        } else {
            self.severity
        }
    }
}

/// A cord that is up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Up {
    pub(super) kind: Kind,
    pub(super) scope: Scope,
    pub(super) severity: Severity,
    pub(super) started_at: Timestamp,
    /// When it came to matter more than at its beginning.
    #[serde(default)]
    grave_at: Option<Timestamp>,
    last_at: Timestamp,
    finding: Finding,
    recovering: bool,
    dark: bool,
    /// Its own evidence is clean; it stays up for those that follow it.
    waiting: bool,
    consequence_of: Option<CordKey>,
    /// Since when its cause is down, while it is still up.
    orphan_since: Option<Timestamp>,
    /// What its group shares, and who follows.
    shared: Option<Shared>,
    followers: Vec<Scope>,
    /// When it was raised, or the last follower joined.
    pub(super) joined_at: Timestamp,
    /// An event explains what began around it; a state explains as long as it lasts.
    pub(super) explains_until: Option<Timestamp>,
    #[serde(default)]
    shadow: bool,
    /// How much it would matter if nobody worked there.
    #[serde(default)]
    muted: Option<Severity>,
}

/// A cord that went down.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Down {
    last_at: Timestamp,
    up: Up,
}

/// Cords by key, and transitions to come.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Register {
    #[serde(with = "as_list")]
    up: BTreeMap<CordKey, Up>,
    #[serde(with = "as_list")]
    down: BTreeMap<CordKey, Down>,
    out: Vec<Transition>,
}

/// Where things hang together, and how far apart they may be.
#[derive(Clone, Copy)]
pub(super) struct Links<'a> {
    pub(super) fleet: &'a Fleet,
    pub(super) rule: &'a CausesRule,
}

impl Register {
    pub(super) fn drain(&mut self) -> Vec<Transition> {
        std::mem::take(&mut self.out)
    }

    pub(super) fn is_up(&self, key: &CordKey) -> bool {
        self.up.contains_key(key)
    }

    /// Keys of the cords that are up and of which something holds.
    pub(super) fn keys(&self, holds: impl Fn(&CordKey, &Scope, Kind) -> bool) -> Vec<CordKey> {
        let mut keys = Vec::new();
        for (key, up) in &self.up {
            if holds(key, &up.scope, up.kind) {
                keys.push(key.clone());
            }
        }
        keys
    }

    pub(super) fn scope(&self, key: &CordKey) -> Option<&Scope> {
        self.up.get(key).map(|up| &up.scope)
    }

    pub(super) fn kind(&self, key: &CordKey) -> Option<Kind> {
        self.up.get(key).map(|up| up.kind)
    }

    /// Whether a cord that is up is told to nobody.
    pub(super) fn is_shadow(&self, key: &CordKey) -> bool {
        self.up.get(key).is_some_and(|up| up.shadow)
    }

    pub(super) fn cause_of(&self, key: &CordKey) -> Option<&CordKey> {
        self.up.get(key)?.consequence_of.as_ref()
    }

    /// A cord goes up, comes back up, or has more to say.
    pub(super) fn raise(&mut self, report: Report, links: Links<'_>) {
        let key = report.key();
        if self.up.contains_key(&key) {
            self.again(&key, report, links);
            self.lift_leader(&key);
            return;
        }
        let severity = report.told_severity();
        let mut up = Up {
            kind: report.kind,
            scope: report.scope,
            severity,
            muted: report.muted.then_some(report.severity),
            started_at: report.started_at,
            grave_at: None,
            last_at: self.stamp(&key, report.at),
            finding: report.finding,
            recovering: false,
            dark: false,
            waiting: false,
            consequence_of: None,
            orphan_since: None,
            shared: None,
            followers: Vec::new(),
            joined_at: report.at,
            explains_until: (report.kind == Kind::Xid).then_some(report.at),
            shadow: report.shadow,
        };
        if up.shadow {
            self.up.insert(key.clone(), up);
            self.say(&key, Change::Raised);
            return;
        }
        up.consequence_of = self.cause_for(&up, links);
        let leader = match up.consequence_of {
            Some(_) => None,
            None => self.leader_for(&up, links),
        };
        if let Some((leader, _)) = &leader {
            up.consequence_of = Some(self.root(leader));
        }
        let scope = up.scope.clone();
        self.up.insert(key.clone(), up);
        self.say(&key, Change::Raised);
        if let Some((leader, shared)) = leader {
            self.join(&leader, shared, scope, report.at);
            self.lift_leader(&key);
        } else {
            self.gather(&key, report.at, links);
        }
        self.adopt(&key, report.at, links);
    }

    /// It is up already: it has come back, or has more to say.
    fn again(&mut self, key: &CordKey, report: Report, links: Links<'_>) {
        let at = self.stamp(key, report.at);
        let Some(up) = self.up.get_mut(key) else {
            return;
        };
        let before = up.severity;
        let change = if up.recovering {
            Change::Relapsed
        } else {
            Change::Updated
        };
        up.last_at = at;
        (up.recovering, up.waiting, up.dark) = (false, false, false);
        up.severity = up.severity.max(report.told_severity());
        up.muted = report
            .muted
            .then_some(up.muted.max(Some(report.severity)))
            .flatten();
        up.finding = report.finding;
        up.scope = report.scope;
        if up.explains_until.is_some() {
            up.explains_until = Some(report.at);
        }
        if before < up.severity {
            up.grave_at = Some(report.at);
            self.find_cause(key, links);
        }
        self.say(key, change);
    }

    /// It has got worse: what has just happened may be why.
    fn find_cause(&mut self, key: &CordKey, links: Links<'_>) {
        let alone = |up: &&Up| up.consequence_of.is_none() && up.followers.is_empty();
        let Some(up) = self.up.get(key).filter(alone) else {
            return;
        };
        let cause = self.cause_for(up, links);
        if let Some(up) = self.up.get_mut(key) {
            up.consequence_of = cause;
        }
    }

    /// People are done where a cord is up: it matters as it does.
    pub(super) fn unmute(&mut self, at: Timestamp, which: impl Fn(&Scope) -> bool) {
        let freed = |up: &Up| up.muted.is_some() && which(&up.scope);
        let keys: Vec<CordKey> = self
            .up
            .iter()
            .filter(|(_, up)| freed(up))
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            if let Some(up) = self.up.get_mut(&key) {
                up.severity = up.severity.max(up.muted.take().unwrap_or(Severity::Info));
                self.update(&key, at);
            }
        }
    }

    /// Its evidence is clean, and the settle time runs.
    pub(super) fn recovering(&mut self, key: &CordKey, at: Timestamp) {
        let at = self.stamp(key, at);
        if let Some(up) = self.up.get_mut(key).filter(|up| !up.recovering) {
            (up.recovering, up.last_at) = (true, at);
            self.say(key, Change::Recovering);
        }
    }

    /// A cord goes down. One that has recovered but leads others waits for them.
    pub(super) fn clear(&mut self, key: &CordKey, at: Timestamp, why: Resolution) {
        let leads = why == Resolution::Recovered && self.leads(key);
        if leads {
            self.recovering(key, at);
            if let Some(up) = self.up.get_mut(key) {
                up.waiting = true;
            }
            return;
        }
        let at = self.stamp(key, at);
        let Some(up) = self.up.get_mut(key) else {
            return;
        };
        up.last_at = at;
        let cause = up.consequence_of.clone();
        self.say(key, Change::Cleared { why });
        if let Some(up) = self.up.remove(key) {
            let down = Down { last_at: at, up };
            self.down.insert(key.clone(), down);
        }
        if let Some(leader) = cause
            && self.up.get(&leader).is_some_and(|up| up.waiting)
            && !self.leads(&leader)
        {
            self.clear(&leader, at, Resolution::Recovered);
        }
    }

    /// Whether cords of its own kind are up because of it.
    fn leads(&self, key: &CordKey) -> bool {
        let Some(leader) = self.up.get(key) else {
            return false;
        };
        let follows = |up: &Up| up.kind == leader.kind && up.consequence_of.as_ref() == Some(key);
        !leader.followers.is_empty() && self.up.values().any(follows)
    }

    /// There is no data any more, or there is again.
    pub(super) fn set_dark(&mut self, key: &CordKey, at: Timestamp, dark: bool) {
        let at = self.stamp(key, at);
        let Some(up) = self.up.get_mut(key).filter(|up| up.dark != dark) else {
            return;
        };
        (up.dark, up.last_at) = (dark, at);
        self.say(
            key,
            if dark {
                Change::DataLost
            } else {
                Change::DataBack
            },
        );
    }

    /// A cord whose cause is down for a while stands alone.
    pub(super) fn look_after_orphans(&mut self, now: Timestamp, rule: &CausesRule) {
        self.down
            .retain(|_, down| now.0 - down.last_at.0 <= REMEMBER_MS);
        let is_orphan = |up: &Up| {
            let cause = up.consequence_of.as_ref();
            // One that is about to be over itself goes with its cause.
            !up.recovering && cause.is_some_and(|cause| !self.up.contains_key(cause))
        };
        let orphans: Vec<CordKey> = self
            .up
            .iter()
            .filter(|(_, up)| is_orphan(up))
            .map(|(key, _)| key.clone())
            .collect();
        for key in orphans {
            let Some(up) = self.up.get_mut(&key) else {
                continue;
            };
            let since = *up.orphan_since.get_or_insert(now);
            if now.since(since) >= rule.explain_within.0 {
                (up.consequence_of, up.orphan_since) = (None, None);
                self.update(&key, now);
            }
        }
    }

    /// The deepest cause that explains a cord, or has until a moment ago.
    fn cause_for(&self, effect: &Up, links: Links<'_>) -> Option<CordKey> {
        let Links { fleet, rule } = links;
        let recent = |down: &&Down| {
            effect.started_at <= down.last_at
                && effect.last_at.0 - down.last_at.0 <= rule.explain_within.millis()
        };
        let ended = self
            .down
            .iter()
            .filter(|(_, down)| recent(down))
            .map(|(key, down)| (key, &down.up));
        let causes = self.up.iter().chain(ended);
        let causes = causes.filter(|(_, cause)| !cause.shadow);
        let explaining = causes.filter(|(_, cause)| cause::explains(cause, effect, fleet, rule));
        let (key, _) =
            explaining.min_by_key(|(_, cause)| (cause.kind_depth(), cause.started_at))?;
        Some(self.root(key))
    }

    /// The first of its kind that stands alone and that it shares something with.
    fn leader_for(&self, follower: &Up, links: Links<'_>) -> Option<(CordKey, Shared)> {
        let Links { fleet, rule } = links;
        let stands_alone = |up: &Up| up.consequence_of.is_none() && !up.shadow;
        let leaders = self.up.iter().filter(|(_, up)| stands_alone(up));
        let mut sharing: Vec<_> = leaders
            .filter_map(|(key, up)| {
                Some((
                    up.started_at,
                    key,
                    cause::shared(up, follower.joined_at, follower, fleet, rule)?,
                ))
            })
            .collect();
        sharing.sort();
        let (_, key, shared) = sharing.into_iter().next()?;
        Some((key.clone(), shared))
    }

    /// Many of one kind within a short time, on different nodes of which nothing more is known, are one: the first
    /// leads, those after it are folded.
    fn gather(&mut self, key: &CordKey, at: Timestamp, links: Links<'_>) {
        let Links { fleet, rule } = links;
        let Some(new) = self.up.get(key).filter(|up| up.consequence_of.is_none()) else {
            return;
        };
        let near = |up: &Up| (at.0 - up.joined_at.0).abs() <= rule.group_within.millis();
        let others = self
            .up
            .iter()
            .filter(|(_, up)| up.consequence_of.is_none() && !up.shadow && near(up))
            .filter(|(_, up)| cause::may_gather(up, new, fleet));
        // Those that were gathered count with the one that leads them.
        let gathered = |up: &Up| match up.shared {
            Some(Shared::Moment) => up.followers.len(),
            _ => 0,
        };
        let n: usize = others.clone().map(|(_, up)| 1 + gathered(up)).sum();
        if n + 1 < cause::GATHER {
            return;
        }
        let mut others: Vec<(Timestamp, CordKey)> = others
            .map(|(key, up)| (up.started_at, key.clone()))
            .collect();
        others.sort();
        let leader = others.remove(0).1;
        let followers = others.into_iter().map(|(_, key)| key).chain([key.clone()]);
        for follower in followers.collect::<Vec<_>>() {
            let Some(up) = self.up.get_mut(&follower) else {
                continue;
            };
            up.consequence_of = Some(leader.clone());
            let scope = up.scope.clone();
            self.update(&follower, at);
            self.join(&leader, Shared::Moment, scope, at);
            self.lift_leader(&follower);
        }
    }

    /// The cord at the end of a chain of causes.
    fn root(&self, key: &CordKey) -> CordKey {
        let mut root = key;
        // A chain is as long as there are depths; the bound keeps a loop from being one for ever.
        for _ in 0..8 {
            match self.up.get(root).and_then(|up| up.consequence_of.as_ref()) {
                Some(deeper) => root = deeper,
                None => break,
            }
        }
        root.clone()
    }

    /// Another one follows. That is told at the 1st, 2nd, 4th, 8th …
    fn join(&mut self, leader: &CordKey, shared: Shared, follower: Scope, at: Timestamp) {
        let Some(up) = self.up.get_mut(leader) else {
            return;
        };
        up.joined_at = up.joined_at.max(at);
        // The broadest holds for all.
        up.shared = up.shared.take().max(Some(shared));
        up.followers.push(follower);
        if up.followers.len().is_power_of_two() {
            self.update(leader, at);
        }
    }

    /// Who follows silently must not matter more than who speaks.
    fn lift_leader(&mut self, follower: &CordKey) {
        let Some(up) = self.up.get(follower) else {
            return;
        };
        let (severity, at, kind) = (up.severity, up.last_at, up.kind);
        let Some(leader) = up.consequence_of.clone() else {
            return;
        };
        let Some(cause) = self.up.get_mut(&leader) else {
            return;
        };
        if cause.kind == kind && cause.severity < severity {
            cause.severity = severity;
            self.update(&leader, at);
        }
    }

    /// Cords that are up already and that a new one explains become its consequences.
    fn adopt(&mut self, cause: &CordKey, at: Timestamp, links: Links<'_>) {
        let Links { fleet, rule } = links;
        let root = self.root(cause);
        let Some(new) = self.up.get(cause) else {
            return;
        };
        let is_recent = |up: &Up| {
            let last = up.grave_at.max(Some(up.joined_at));
            last.is_some_and(|last| at.0 - last.0 <= rule.explain_within.millis())
        };
        let explained: Vec<CordKey> = self
            .up
            .iter()
            .filter(|(key, up)| {
                **key != root
                    && !up.shadow
                    && up.consequence_of.as_ref() != Some(&root)
                    && is_recent(up)
            })
            .filter(|(_, up)| cause::explains(new, up, fleet, rule))
            .map(|(key, _)| key.clone())
            .collect();
        for key in explained {
            if let Some(up) = self.up.get_mut(&key) {
                (up.consequence_of, up.orphan_since) = (Some(root.clone()), None);
                self.update(&key, at);
            }
        }
    }

    fn update(&mut self, key: &CordKey, at: Timestamp) {
        let at = self.stamp(key, at);
        if let Some(up) = self.up.get_mut(key) {
            up.last_at = at;
            self.say(key, Change::Updated);
        }
    }

    /// A time that is later than the cord's last transition.
    fn stamp(&self, key: &CordKey, at: Timestamp) -> Timestamp {
        let last = match (self.up.get(key), self.down.get(key)) {
            (Some(up), _) => up.last_at,
            (None, Some(down)) => down.last_at,
            (None, None) => return at,
        };
        at.max(Timestamp(last.0 + 1))
    }

    fn say(&mut self, key: &CordKey, change: Change) {
        let Some(up) = self.up.get(key) else {
            return;
        };
        self.out.push(Transition {
            rule: key.rule.clone(),
            kind: up.kind,
            scope: up.scope.clone(),
            severity: up.severity,
            change,
            at: up.last_at,
            started_at: up.started_at,
            finding: up.told(),
            consequence_of: up.consequence_of.clone(),
            shadow: up.shadow,
        });
    }
}

impl Up {
    /// Since when it has mattered as much as it does.
    pub(super) fn grave_since(&self) -> Timestamp {
        self.grave_at.unwrap_or(self.started_at)
    }

    fn kind_depth(&self) -> u8 {
        cause::depth(self.kind).unwrap_or(u8::MAX)
    }

    /// The finding, with those that follow.
    fn told(&self) -> Finding {
        let mut finding = self.finding.clone();
        let Some(shared) = self.shared.as_ref().filter(|_| !self.followers.is_empty()) else {
            return finding;
        };
        let names = self.followers.iter().map(words_for);
        let and = format!(
            "; also {}: all in {shared}, likely one cause",
            listed(names)
        );
        finding.summary.push_str(&and);
        let others = self.followers.iter().filter_map(|scope| match scope {
            Scope::Gpu { gpu } => Some(gpu.clone()),
            _ => None,
        });
        let room = MOST_CULPRITS.saturating_sub(finding.culprits.len());
        finding.culprits.extend(others.take(room));
        finding
    }
}

fn words_for(scope: &Scope) -> String {
    match scope {
        Scope::Fleet => "the fleet".into(),
        Scope::Node { node } => node.to_string(),
        Scope::Gpu { gpu } => super::finding::gpu_on_node(gpu),
        Scope::Job { job, .. } => format!("job {job}"),
        Scope::Nodes { group, .. } => group.clone(),
    }
}

/// A map with keys that are more than text, as a list of pairs.
mod as_list {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::andon::CordKey;

    pub(super) fn serialize<S: Serializer, V: Serialize>(
        map: &BTreeMap<CordKey, V>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(map.iter())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, V: Deserialize<'de>>(
        from: D,
    ) -> Result<BTreeMap<CordKey, V>, D::Error> {
        Ok(Vec::<(CordKey, V)>::deserialize(from)?
            .into_iter()
            .collect())
    }
}
