//! What goes out in one request: a notice, or a digest of several.

use entrenar::unit::Timestamp;

use crate::andon::Severity;
use crate::incident::id::hash;
use crate::incident::{Notice, NoticeEvent};

/// Notices that one digest holds at most; more wait for the next, seconds later.
pub const DIGEST_MAX: usize = 200;

/// One request's worth of news for one receiver.
#[derive(Clone, Debug, PartialEq)]
pub struct Parcel {
    /// The delivery id: the notice's own, or a hash of a digest's members. The same on every attempt.
    pub id: String,
    /// At least one; several: a digest, worst first.
    pub notices: Vec<Notice>,
    /// Failed attempts so far.
    pub attempts: u32,
    /// Not before.
    pub due: Timestamp,
    /// An earlier attempt may have been taken though we saw no answer.
    pub perhaps_taken: bool,
    /// It goes out from memory: the store could not keep it.
    pub unrecorded: bool,
    /// The digest under which its receiver knows the incident, where that is not its own name.
    pub under: Option<String>,
}

impl Parcel {
    /// A notice by itself.
    pub fn of(notice: Notice, due: Timestamp) -> Self {
        Self {
            id: notice.delivery_id.clone(),
            notices: vec![notice],
            attempts: 0,
            due,
            perhaps_taken: false,
            unrecorded: false,
            under: None,
        }
    }

    /// Several parcels as one.
    pub fn digest(parcels: Vec<Self>, now: Timestamp) -> Self {
        let ids: Vec<&str> = parcels.iter().map(|p| p.id.as_str()).collect();
        let id = hash(&ids, 32);
        Self {
            id,
            attempts: 0,
            due: now,
            perhaps_taken: parcels.iter().any(|p| p.perhaps_taken),
            unrecorded: parcels.iter().any(|p| p.unrecorded),
            under: None,
            notices: parcels.into_iter().flat_map(|p| p.notices).collect(),
        }
    }

    pub fn is_digest(&self) -> bool {
        self.notices.len() > 1
    }

    /// The first notice; a parcel has at least one.
    pub fn first(&self) -> &Notice {
        self.notices.first().expect("a parcel holds a notice")
    }

    /// The worst severity in it.
    pub fn severity(&self) -> Severity {
        let worst = self.notices.iter().map(|n| n.incident.severity).max();
        worst.unwrap_or(Severity::Info)
    }

    /// The incidents that it is about.
    pub fn incidents(&self) -> impl Iterator<Item = &str> {
        self.notices.iter().map(|n| n.incident.id.as_str())
    }
}

/// Whether the notice says that its incident began, as far as its receiver is concerned.
pub fn begins(notice: &Notice) -> bool {
    notice.event == NoticeEvent::Trigger
}

/// Whether the notice says that it is over: resolved, or folded into another.
pub fn ends(notice: &Notice) -> bool {
    notice.event == NoticeEvent::Resolve || folds(notice)
}

/// Whether the notice takes a page back because another incident explains it.
pub fn folds(notice: &Notice) -> bool {
    notice.event == NoticeEvent::Update && notice.incident.consequence_of.is_some()
}
