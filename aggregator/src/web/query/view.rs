//! The shapes of the answers.

use entrenar::unit::Timestamp;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::query::gather::{Name, Told};
use crate::query::grid::Band;
use crate::query::step::Steps;

/// What is said of all groups at an instant.
#[derive(Serialize)]
pub(super) struct InstantAnswer {
    pub(super) metric: &'static str,
    pub(super) unit: String,
    #[serde(rename = "fn")]
    pub(super) function: &'static str,
    pub(super) agg: Option<&'static str>,
    pub(super) by: &'static str,
    pub(super) at: String,
    /// Older values are `null`; `null` where a function looks back over a window.
    pub(super) max_age_seconds: Option<f64>,
    pub(super) window_seconds: Option<f64>,
    /// Where it begins: a long one with a whole minute or hour.
    pub(super) from: Option<String>,
    /// What it was answered from.
    pub(super) resolution: &'static str,
    /// How exactly that is kept.
    pub(super) profile: &'static str,
}

/// A group at an instant: `{"node":"n1","value":512.5,"age_seconds":0.4,"gpus":8,"gpus_unknown":0}`.
pub(super) struct GroupAt {
    pub(super) by: &'static str,
    pub(super) at: Timestamp,
    pub(super) told: Told,
}

impl Serialize for GroupAt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let told = &self.told;
        name(&mut map, self.by, &told.name)?;
        map.serialize_entry("value", &told.value)?;
        let age = told
            .oldest
            .map(|oldest| self.at.since(oldest).as_secs_f64());
        map.serialize_entry("age_seconds", &age)?;
        if let Name::Shared(_) = told.name {
            map.serialize_entry("gpus", &told.n_gpus)?;
            map.serialize_entry("gpus_unknown", &told.n_unknown)?;
        }
        map.end()
    }
}

/// What is said of all groups over a time.
#[derive(Serialize)]
pub(super) struct RangeAnswer {
    pub(super) metric: &'static str,
    pub(super) unit: String,
    #[serde(rename = "fn")]
    pub(super) function: &'static str,
    pub(super) agg: Option<&'static str>,
    pub(super) by: &'static str,
    pub(super) step_seconds: f64,
    /// What it was answered from.
    pub(super) resolution: &'static str,
    /// How exactly that is kept.
    pub(super) profile: &'static str,
}

/// A group over a time: `{"node":"n1","gpus":8,"points":[[1700000000.0,512.5],…]}`.
pub(super) struct BandAnswer {
    pub(super) by: &'static str,
    pub(super) steps: Steps,
    pub(super) band: Band,
}

impl Serialize for BandAnswer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        name(&mut map, self.by, &self.band.name)?;
        if let Name::Shared(_) = self.band.name {
            map.serialize_entry("gpus", &self.band.n_gpus)?;
        }
        let values = self.band.values.iter().enumerate();
        let points: Vec<(f64, Option<f64>)> = values
            .map(|(place, value)| (self.steps.start_of(place).as_secs_f64(), *value))
            .collect();
        map.serialize_entry("points", &points)?;
        map.end()
    }
}

fn name<M: SerializeMap>(map: &mut M, by: &'static str, name: &Name) -> Result<(), M::Error> {
    match name {
        Name::Gpu(place, uuid) => {
            map.serialize_entry("node", &place.as_ref().map(|(node, _)| node.as_str()))?;
            map.serialize_entry("device", &place.as_ref().map(|(_, device)| device))?;
            map.serialize_entry("uuid", uuid.as_str())
        }
        Name::Shared(key) => map.serialize_entry(by, key),
    }
}
