//! The book of incidents: a cord's transition, or a person's word, becomes one decision.
//!
//! Pure and idempotent: what was decided before is dropped, and every id is a hash, so the same story told twice, before
//! and after a crash, is the same book. It does not send, store, or read a clock.

use std::collections::{BTreeMap, HashMap};

use entrenar::unit::Timestamp;

use crate::andon::{Change, CordKey, Resolution, Transition};
use crate::incident::draft::{Draft, ENGINE, words_for};
use crate::incident::id::incident_id;
use crate::incident::{CloseReason, Decision, Flags, Incident, NoticeEvent, State};
use crate::notify::route::Routes;

/// Why a person's word changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    #[error("no incident {0} is open: look for it among the closed ones")]
    NotFound(String),
    #[error("incident {0} is closed already")]
    Closed(String),
}

/// Incidents that are open, and what is needed to never decide twice.
#[derive(Debug)]
pub struct IncidentBook {
    cluster: String,
    routes: Routes,
    /// Open ones, and those that a person closed while their cord is still raised.
    incidents: BTreeMap<String, Incident>,
    by_cord: HashMap<CordKey, String>,
    /// Newest transition of each cord that ever spoke.
    newest: HashMap<CordKey, Timestamp>,
    /// Incidents whose cause has no incident yet.
    unexplained: BTreeMap<String, CordKey>,
}

impl IncidentBook {
    /// An empty book. The cluster's name is part of every id.
    pub fn new(cluster: &str, routes: Routes) -> Self {
        Self {
            cluster: cluster.into(),
            routes,
            incidents: BTreeMap::new(),
            by_cord: HashMap::new(),
            newest: HashMap::new(),
            unexplained: BTreeMap::new(),
        }
    }

    /// Takes over what the store remembers: see [`Recovered`](crate::store::Recovered).
    pub fn load(&mut self, incidents: Vec<Incident>, cords: Vec<(CordKey, Timestamp)>) {
        self.newest.extend(cords);
        for incident in incidents {
            let newest = self.newest.entry(incident.cord()).or_default();
            *newest = incident.last_transition_at.max(*newest);
            if incident.state.is_open() || incident.is_held() {
                self.keep(incident);
            }
        }
    }

    /// Open incidents, by id.
    pub fn open(&self) -> impl Iterator<Item = &Incident> {
        self.incidents.values().filter(|i| i.state.is_open())
    }

    /// An open incident, or one that a person closed while its cord is still raised.
    pub fn get(&self, id: &str) -> Option<&Incident> {
        self.incidents.get(id)
    }

    /// What a transition means. `None`: it was decided before.
    ///
    /// `now` stamps the notices; everything else goes by the transition's own time.
    pub fn apply(&mut self, transition: &Transition, now: Timestamp) -> Option<Decision> {
        let cord = transition.cord();
        if self
            .newest
            .get(&cord)
            .is_some_and(|&at| transition.at <= at)
        {
            return None;
        }
        self.newest.insert(cord.clone(), transition.at);
        let mut draft = Draft::new(now);
        draft.decision.cords.push((cord.clone(), transition.at));

        let known = self.by_cord.get(&cord);
        match known.and_then(|id| self.incidents.remove(id)) {
            Some(incident) if incident.state.is_open() => {
                self.go_on(incident, transition, &mut draft);
            }
            Some(closed) => self.go_on_closed(closed, transition, &mut draft),
            None if opens(transition.change) => self.open_new(transition, &mut draft),
            None => {}
        }
        Some(draft.decision)
    }

    /// A person takes the incident on. Saying it twice is harmless; someone else takes it over.
    pub fn acknowledge(
        &mut self,
        id: &str,
        who: &str,
        note: Option<String>,
        now: Timestamp,
    ) -> Result<Decision, BookError> {
        let mut draft = Draft::new(now);
        let mut incident = self.take_open(id)?;
        if incident.acknowledged_by.as_deref() != Some(who) {
            incident.flags.acknowledged = true;
            incident.acknowledged_at = Some(now);
            incident.acknowledged_by = Some(who.into());
            incident.ordinal += 1;
            draft.line(&incident.id, now, "acknowledged", who, note);
            draft.tell_notified(&incident, NoticeEvent::Acknowledge);
            draft.decision.incidents.push(incident.clone());
        }
        self.keep(incident);
        Ok(draft.decision)
    }

    /// A person closes the incident. It stays closed until its cord has cleared; a later raise is a new incident.
    pub fn close(
        &mut self,
        id: &str,
        reason: CloseReason,
        note: Option<String>,
        who: &str,
        now: Timestamp,
    ) -> Result<Decision, BookError> {
        let mut draft = Draft::new(now);
        let mut incident = self.take_open(id)?;
        incident.state = State::Closed;
        incident.close_reason = Some(reason);
        incident.ordinal += 1;
        draft.line(&incident.id, now, "closed", who, note);
        draft.finish(&mut incident, Resolution::Closed, now);
        if incident.is_held() {
            self.keep(incident);
        } else {
            self.forget(&incident);
        }
        Ok(draft.decision)
    }

    fn open_new(&mut self, transition: &Transition, draft: &mut Draft) {
        let cord = transition.cord();
        let mut incident = blank(incident_id(&self.cluster, &cord, transition.at), transition);
        update(&mut incident, transition);
        draft.line(
            &incident.id,
            transition.at,
            "raised",
            ENGINE,
            Some(incident.summary.clone()),
        );
        self.explain(&mut incident, transition, draft);
        self.announce(&mut incident, draft);
        let id = incident.id.clone();
        draft.decision.incidents.push(incident.clone());
        self.keep(incident);
        self.fold_waiting(&cord, &id, transition.at, draft);
    }

    fn go_on(&mut self, mut incident: Incident, transition: &Transition, draft: &mut Draft) {
        let before = incident.clone();
        incident.ordinal += 1;
        incident.last_transition_at = transition.at;
        update(&mut incident, transition);
        if let Change::Cleared { why } = transition.change {
            if let Some(cause) = self.cause_of(transition) {
                incident.consequence_of = Some(cause);
            }
            incident.state = State::Resolved;
            draft.line(
                &incident.id,
                transition.at,
                "resolved",
                ENGINE,
                Some(words_for(why).into()),
            );
            self.forget(&incident);
            draft.finish(&mut incident, why, transition.at);
            return;
        }
        draft.line_of_change(&before, &incident, transition);
        self.explain(&mut incident, transition, draft);
        drop_acknowledgement(&before, &mut incident, transition.at, draft);
        if matters(&before, &incident) {
            draft.tell_notified(&incident, NoticeEvent::Update);
        }
        self.announce(&mut incident, draft);
        draft.decision.incidents.push(incident.clone());
        self.keep(incident);
    }

    /// The cord of an incident that a person closed goes on: only its end matters.
    fn go_on_closed(&mut self, mut closed: Incident, transition: &Transition, draft: &mut Draft) {
        if let Change::Cleared { why } = transition.change {
            closed.ordinal += 1;
            closed.last_transition_at = transition.at;
            closed.resolution = Some(why);
            draft.line(
                &closed.id,
                transition.at,
                "cleared",
                ENGINE,
                Some(words_for(why).into()),
            );
            self.forget(&closed);
            draft.decision.incidents.push(closed);
        } else {
            self.keep(closed);
        }
    }

    /// Names the cause. A page that was sent moments ago is taken back: its receivers learn where the trouble goes on.
    fn explain(&mut self, incident: &mut Incident, transition: &Transition, draft: &mut Draft) {
        self.unexplained.remove(&incident.id);
        let cause = self.cause_of(transition).filter(|id| *id != incident.id);
        if let (None, Some(cord)) = (&cause, &transition.consequence_of) {
            self.unexplained.insert(incident.id.clone(), cord.clone());
        }
        if cause == incident.consequence_of {
            return;
        }
        if let Some(cause) = cause {
            draft.fold(incident, &cause, transition.at);
        } else {
            incident.consequence_of = None;
            draft.line(&incident.id, transition.at, "stands alone", ENGINE, None);
        }
    }

    /// A cause that comes after its consequences takes them in.
    fn fold_waiting(&mut self, cause: &CordKey, id: &str, at: Timestamp, draft: &mut Draft) {
        let waiting: Vec<String> = self
            .unexplained
            .iter()
            .filter(|(of, cord)| *cord == cause && *of != id)
            .map(|(of, _)| of.clone())
            .collect();
        for of in waiting {
            self.unexplained.remove(&of);
            if let Some(incident) = self.incidents.get_mut(&of) {
                incident.ordinal += 1;
                draft.fold(incident, id, at);
                draft.decision.incidents.push(incident.clone());
            }
        }
    }

    /// Tells the receivers that are concerned and do not know of it yet.
    fn announce(&self, incident: &mut Incident, draft: &mut Draft) {
        let quiet = incident.consequence_of.is_some()
            || incident.flags.silenced
            || incident.flags.maintenance
            || incident.flags.shadow;
        if quiet {
            return;
        }
        let fresh: Vec<String> = self
            .routes
            .concerned(incident)
            .filter(|receiver| !incident.notified.iter().any(|known| known == receiver))
            .map(str::to_owned)
            .collect();
        incident.notified.extend(fresh.iter().cloned());
        for receiver in &fresh {
            draft.tell(incident, receiver, NoticeEvent::Trigger);
        }
    }

    fn cause_of(&self, transition: &Transition) -> Option<String> {
        self.by_cord
            .get(transition.consequence_of.as_ref()?)
            .cloned()
    }

    fn take_open(&mut self, id: &str) -> Result<Incident, BookError> {
        match self.incidents.get(id) {
            None => Err(BookError::NotFound(id.into())),
            Some(incident) if !incident.state.is_open() => Err(BookError::Closed(id.into())),
            Some(_) => Ok(self.incidents.remove(id).expect("it was just there")),
        }
    }

    fn keep(&mut self, incident: Incident) {
        self.by_cord.insert(incident.cord(), incident.id.clone());
        self.incidents.insert(incident.id.clone(), incident);
    }

    fn forget(&mut self, incident: &Incident) {
        self.by_cord.remove(&incident.cord());
        self.incidents.remove(&incident.id);
        self.unexplained.remove(&incident.id);
    }
}

/// Besides a raise, anything that says that the cord is up: its raise may have been lost with a store that failed.
fn opens(change: Change) -> bool {
    matches!(change, Change::Raised | Change::Updated | Change::Relapsed)
}

/// An owner of a yellow lamp has not taken on a red one.
fn drop_acknowledgement(
    before: &Incident,
    incident: &mut Incident,
    at: Timestamp,
    draft: &mut Draft,
) {
    if incident.flags.acknowledged && before.severity < incident.severity {
        incident.flags.acknowledged = false;
        incident.acknowledged_at = None;
        incident.acknowledged_by = None;
        let note = "the severity rose".to_owned();
        draft.line(
            &incident.id,
            at,
            "acknowledgement dropped",
            ENGINE,
            Some(note),
        );
    }
}

/// Whether people who were told must hear of the change.
fn matters(before: &Incident, after: &Incident) -> bool {
    let new_culprits = !after.culprits.is_empty() && after.culprits != before.culprits;
    before.severity < after.severity || new_culprits
}

fn blank(id: String, transition: &Transition) -> Incident {
    Incident {
        id,
        rule: transition.rule.clone(),
        kind: transition.kind,
        severity: transition.severity,
        state: State::Firing,
        flags: Flags {
            shadow: transition.shadow,
            ..Flags::default()
        },
        scope: transition.scope.clone(),
        labels: transition.finding.labels.clone(),
        summary: String::new(),
        action: String::new(),
        runbook_url: None,
        started_at: transition.started_at,
        fired_at: transition.at,
        acknowledged_at: None,
        acknowledged_by: None,
        resolved_at: None,
        resolution: None,
        close_reason: None,
        culprits: Vec::new(),
        consequence_of: None,
        evidence: Vec::new(),
        missing: Vec::new(),
        job: None,
        notified: Vec::new(),
        ordinal: 1,
        last_transition_at: transition.at,
    }
}

/// Takes over what a transition says. A finding without a summary says nothing new.
fn update(incident: &mut Incident, transition: &Transition) {
    incident.severity = transition.severity;
    incident.scope = transition.scope.clone();
    match transition.change {
        Change::Raised | Change::Updated | Change::Relapsed => incident.state = State::Firing,
        Change::Recovering => incident.state = State::Recovering,
        Change::DataLost | Change::DataBack | Change::Cleared { .. } => {}
    }
    // Any other word than `DataLost` rests on data.
    incident.flags.unknown = transition.change == Change::DataLost;
    let finding = &transition.finding;
    if finding.summary.is_empty() {
        return;
    }
    incident.summary.clone_from(&finding.summary);
    incident.action.clone_from(&finding.action);
    incident.runbook_url.clone_from(&finding.runbook_url);
    incident.labels.clone_from(&finding.labels);
    incident.culprits.clone_from(&finding.culprits);
    incident.evidence.clone_from(&finding.evidence);
    incident.missing.clone_from(&finding.missing);
    incident.job.clone_from(&finding.job);
}

#[cfg(test)]
mod tests;
