//! Names that stay the same after any crash: each is a hash of what it names.

use entrenar::unit::Timestamp;
use sha2::{Digest, Sha256};

use crate::andon::CordKey;

/// Hex digits of an incident's id.
const INCIDENT_ID_DIGITS: usize = 16;
/// Hex digits of a delivery's id.
const DELIVERY_ID_DIGITS: usize = 32;

/// The incident that a cord's transition at `at` opens. 16 hex digits.
pub fn incident_id(cluster: &str, cord: &CordKey, at: Timestamp) -> String {
    hash(
        &[cluster, &cord.rule.0, &cord.scope, &at.0.to_string()],
        INCIDENT_ID_DIGITS,
    )
}

/// What one receiver is told of one transition of one incident. 32 hex digits.
pub fn delivery_id(incident: &str, ordinal: u32, receiver: &str) -> String {
    hash(
        &[incident, &ordinal.to_string(), receiver],
        DELIVERY_ID_DIGITS,
    )
}

/// SHA-256 over the parts, in hex, cut to `digits`, at most 64. Parts cannot run into each other.
pub fn hash(parts: &[&str], digits: usize) -> String {
    let mut sha = Sha256::new();
    for part in parts {
        sha.update((part.len() as u64).to_be_bytes());
        sha.update(part);
    }
    let mut text = hex::encode(sha.finalize());
    text.truncate(digits);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(hash(&["ab", "c"], 64), hash(&["a", "bc"], 64));
        assert_eq!(hash(&["ab", "c"], 64).len(), 64);
    }

    #[test]
    fn the_same_transition_makes_the_same_incident_and_the_same_delivery() {
        let cord = CordKey {
            rule: "gpu_lost".into(),
            scope: "gpu:GPU-1".into(),
        };
        let id = incident_id("c", &cord, Timestamp(5));
        assert_eq!(id, incident_id("c", &cord, Timestamp(5)));
        assert_ne!(id, incident_id("d", &cord, Timestamp(5)));
        assert_ne!(id, incident_id("c", &cord, Timestamp(6)));
        assert_eq!(id.len(), 16);
        assert_eq!(delivery_id(&id, 1, "slack").len(), 32);
        assert_ne!(delivery_id(&id, 1, "slack"), delivery_id(&id, 2, "slack"));
    }
}
