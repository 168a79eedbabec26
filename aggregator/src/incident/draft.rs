//! A decision being written: lines of the story, and who is told what.

use std::time::Duration;

use entrenar::unit::Timestamp;

use crate::andon::{Change, Resolution, Transition};
use crate::incident::id::delivery_id;
use crate::incident::{Decision, Incident, Notice, NoticeEvent, TimelineEntry};

/// A page that turns out to be a consequence this soon after it fired is taken back; later, people are at work on it.
const FOLD_WITHIN: Duration = Duration::from_mins(2);

/// Who writes what the rules say.
pub(super) const ENGINE: &str = "engine";

/// A decision being written.
pub(super) struct Draft {
    now: Timestamp,
    pub(super) decision: Decision,
}

impl Draft {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            now,
            decision: Decision::default(),
        }
    }

    pub(super) fn line(
        &mut self,
        id: &str,
        at: Timestamp,
        what: &str,
        who: &str,
        note: Option<String>,
    ) {
        let entry = TimelineEntry {
            at,
            what: what.into(),
            who: who.into(),
            note,
        };
        self.decision.timeline.push((id.into(), entry));
    }

    pub(super) fn line_of_change(
        &mut self,
        before: &Incident,
        after: &Incident,
        transition: &Transition,
    ) {
        let what = match transition.change {
            Change::Raised => "raised",
            Change::Updated if before.severity < after.severity => "severity rose",
            Change::Updated if after.severity < before.severity => "severity fell",
            Change::Updated => "updated",
            Change::Recovering => "recovering",
            Change::Relapsed => "relapsed",
            Change::Cleared { .. } => "resolved",
            Change::DataLost => "data lost",
            Change::DataBack => "data back",
        };
        let told = after.summary != before.summary || after.severity != before.severity;
        let note = told.then(|| format!("{}: {}", after.severity.name(), after.summary));
        self.line(&after.id, transition.at, what, ENGINE, note);
    }

    /// Ends an incident: who was told that it began is told that it ended.
    pub(super) fn finish(&mut self, incident: &mut Incident, why: Resolution, at: Timestamp) {
        incident.resolved_at = Some(at);
        incident.resolution = Some(why);
        incident.flags.unknown = false;
        self.tell_notified(incident, NoticeEvent::Resolve);
        incident.notified.clear();
        self.decision.incidents.push(incident.clone());
    }

    /// Names the cause. Receivers who were told moments ago learn where the trouble goes on, and that is all.
    pub(super) fn fold(&mut self, incident: &mut Incident, cause: &str, at: Timestamp) {
        incident.consequence_of = Some(cause.into());
        let note = format!("a consequence of incident {cause}");
        self.line(&incident.id, at, "explained", ENGINE, Some(note));
        if at.since(incident.fired_at) <= FOLD_WITHIN {
            self.tell_notified(incident, NoticeEvent::Update);
            incident.notified.clear();
        }
    }

    pub(super) fn tell_notified(&mut self, incident: &Incident, event: NoticeEvent) {
        for receiver in &incident.notified {
            self.tell(incident, receiver, event);
        }
    }

    pub(super) fn tell(&mut self, incident: &Incident, receiver: &str, event: NoticeEvent) {
        self.line(
            &incident.id,
            self.now,
            "telling",
            receiver,
            Some(event.name().into()),
        );
        self.decision.notices.push(Notice {
            delivery_id: delivery_id(&incident.id, incident.ordinal, receiver),
            receiver: receiver.into(),
            event,
            created_at: self.now,
            incident: incident.clone(),
        });
    }
}

/// Why it is over, in words for people.
pub(super) fn words_for(why: Resolution) -> &'static str {
    match why {
        Resolution::Recovered => "the evidence says that it is over",
        Resolution::HolderGone => "the job that it was about is gone",
        Resolution::Decommissioned => "taken out of the fleet",
        Resolution::RuleRemoved => "no rule watches for it any more",
        Resolution::Explained => "another incident explains it",
        Resolution::Closed => "closed by a person",
    }
}
