//! Keys by which receivers know the same trouble again.

use crate::incident::Incident;
use crate::incident::id::hash;

/// PagerDuty's key: 64 hex digits. All messages of one incident share it, no two incidents do: a late resolve of the
/// last one never closes the next.
pub fn dedup_key(cluster: &str, incident: &Incident) -> String {
    let scope = incident.scope.key();
    hash(&[cluster, &incident.rule.0, &scope, &incident.id], 64)
}

/// The same for a digest.
pub fn digest_key(cluster: &str, digest: &str) -> String {
    hash(&[cluster, "digest", digest], 64)
}

/// Alertmanager's key: 16 hex digits of cluster, rule and scope.
pub fn fingerprint(cluster: &str, incident: &Incident) -> String {
    hash(&[cluster, &incident.rule.0, &incident.scope.key()], 16)
}
