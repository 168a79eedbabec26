//! Who may speak, and who may change what.
//!
//! Agents show a bearer token (or a client certificate, checked by TLS itself); people show a bearer token that names
//! them and their role. Without a tokens file everyone on loopback is an admin; off loopback that needs `--insecure`.
//! Tokens are compared by their SHA-256, so that neither time nor a dump of memory gives them away.

mod tokens;

use std::net::SocketAddr;

use entrenar::gpu::NodeId;
pub use tokens::{TokensError, load};

/// What a person may do; each role may do what the ones before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look.
    Viewer,
    /// Acknowledge and close incidents.
    Responder,
    /// Change rules and receivers.
    Operator,
    /// Everything.
    Admin,
}

/// A person, or a script that acts for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    pub name: String,
    pub role: Role,
}

/// What an agent's credential allows it to call itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentGrant {
    /// Any name; it belongs to the first live stream that uses it.
    AnyNode,
    /// This name only.
    Only(NodeId),
}

/// Why someone was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("no bearer token: send `Authorization: Bearer TOKEN`")]
    NoToken,
    #[error("this token is not in the aggregator's tokens file")]
    UnknownToken,
    #[error("your role may look but not change this: ask for the role `responder`")]
    NeedsResponder,
}

/// The tokens that are known, hashed.
#[derive(Debug, Default)]
pub struct Access {
    people: Vec<(Hash, Person)>,
    agents: Vec<(Hash, AgentGrant)>,
}

type Hash = [u8; 32];

fn hash(token: &str) -> Hash {
    use sha2::{Digest, Sha256};
    Sha256::digest(token.trim().as_bytes()).into()
}

impl Access {
    /// Nobody is asked for a token.
    pub fn open() -> Self {
        Self::default()
    }

    pub fn asks_people(&self) -> bool {
        !self.people.is_empty()
    }

    pub fn asks_agents(&self) -> bool {
        !self.agents.is_empty()
    }

    /// Who speaks, by the value of the `Authorization` header.
    pub fn person(&self, authorization: Option<&str>) -> Result<Person, Denied> {
        if !self.asks_people() {
            return Ok(Person {
                name: "anonymous".into(),
                role: Role::Admin,
            });
        }
        find(&self.people, authorization)
    }

    /// What an agent may call itself, by the value of the `authorization` metadata.
    pub fn agent(&self, authorization: Option<&str>) -> Result<AgentGrant, Denied> {
        if !self.asks_agents() {
            return Ok(AgentGrant::AnyNode);
        }
        find(&self.agents, authorization)
    }
}

fn find<T: Clone>(known: &[(Hash, T)], authorization: Option<&str>) -> Result<T, Denied> {
    let value = authorization.ok_or(Denied::NoToken)?;
    let token = value
        .strip_prefix("Bearer ")
        .or_else(|| value.strip_prefix("bearer "))
        .ok_or(Denied::NoToken)?;
    let shown = hash(token);
    known
        .iter()
        .find(|(h, _)| *h == shown)
        .map(|(_, who)| who.clone())
        .ok_or(Denied::UnknownToken)
}

/// Why a server may not listen as configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    #[error(
        "{what} on {address} is not loopback and would be in clear text: give --tls-cert and --tls-key \
         (`entrenar-aggregator certs init` makes them), or say --insecure"
    )]
    NeedsTls {
        what: &'static str,
        address: SocketAddr,
    },
    #[error(
        "{what} on {address} is not loopback and asks nobody for a credential: give --tokens-file{or_ca}, \
         or say --insecure"
    )]
    NeedsCredential {
        what: &'static str,
        address: SocketAddr,
        or_ca: &'static str,
    },
}

/// How a listener is protected.
#[derive(Clone, Copy, Debug)]
pub struct Protection {
    pub tls: bool,
    pub credential: bool,
    pub insecure: bool,
}

/// Refuses a listener off loopback that is in clear text or open to everyone, unless the operator said so.
pub fn may_listen(
    what: &'static str,
    address: SocketAddr,
    how: Protection,
) -> Result<(), ListenError> {
    if address.ip().is_loopback() || how.insecure {
        return Ok(());
    }
    if !how.tls {
        return Err(ListenError::NeedsTls { what, address });
    }
    if !how.credential {
        let or_ca = if what == "gRPC" {
            " with agents, or --tls-client-ca"
        } else {
            " with people"
        };
        return Err(ListenError::NeedsCredential {
            what,
            address,
            or_ca,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn off_loopback_needs_tls_and_a_credential_or_a_word() {
        let check = |address: &str, tls, credential, insecure| {
            let address = address.parse().expect("an address");
            may_listen(
                "gRPC",
                address,
                Protection {
                    tls,
                    credential,
                    insecure,
                },
            )
            .is_ok()
        };
        assert!(check("127.0.0.1:1", false, false, false));
        assert!(check("[::1]:1", false, false, false));
        assert!(!check("0.0.0.0:1", false, false, false));
        assert!(!check("0.0.0.0:1", true, false, false));
        assert!(!check("10.0.0.1:1", false, true, false));
        assert!(check("10.0.0.1:1", true, true, false));
        assert!(check("10.0.0.1:1", false, false, true));
    }

    #[test]
    fn a_token_names_its_owner_and_a_wrong_one_nobody() {
        let alice = Person {
            name: "alice".into(),
            role: Role::Responder,
        };
        let access = Access {
            people: vec![(hash("s3cret"), alice.clone())],
            agents: Vec::new(),
        };
        assert_eq!(access.person(Some("Bearer s3cret")), Ok(alice));
        assert_eq!(
            access.person(Some("Bearer s3cre")),
            Err(Denied::UnknownToken)
        );
        assert_eq!(access.person(Some("Basic s3cret")), Err(Denied::NoToken));
        assert_eq!(access.person(None), Err(Denied::NoToken));
        assert_eq!(access.agent(None), Ok(AgentGrant::AnyNode));
    }
}
