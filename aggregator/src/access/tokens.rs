//! The tokens file: YAML that names files or hashes, never secrets themselves.
//!
//! ```yaml
//! people:
//!   - { name: alice, role: responder, token_file: /etc/entrenar/alice.token }
//! agents:
//!   - { token_file: /etc/entrenar/agents.token }            # any node
//!   - { node: n01, token_sha256: 5e88…1542 }                # this node only
//! ```
//!
//! Files are named relative to the tokens file. It is read once, at the start.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Access, AgentGrant, Hash, Person, Role, hash};

/// Shortest token that is accepted, in characters: 128 bits in base 64.
pub(super) const MIN_TOKEN_CHARS: usize = 22;

/// Why a tokens file was refused.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    #[error("could not read the tokens file {}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}: {reason}", path.display())]
    Parse { path: PathBuf, reason: String },
    #[error("{}: {who}: could not read its token_file {}", path.display(), token_file.display())]
    TokenFile {
        path: PathBuf,
        who: String,
        token_file: PathBuf,
        source: std::io::Error,
    },
    #[error("{}: {who}: {reason}", path.display())]
    Entry {
        path: PathBuf,
        who: String,
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokensFile {
    #[serde(default)]
    people: Vec<PersonEntry>,
    #[serde(default)]
    agents: Vec<AgentEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PersonEntry {
    name: String,
    role: Role,
    token_file: Option<PathBuf>,
    token_sha256: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AgentEntry {
    node: Option<String>,
    token_file: Option<PathBuf>,
    token_sha256: Option<String>,
}

/// Reads a tokens file and every token file that it names.
pub fn load(path: &Path) -> Result<Access, TokensError> {
    let text = fs::read_to_string(path).map_err(|source| TokensError::Read {
        path: path.into(),
        source,
    })?;
    let file: TokensFile = serde_saphyr::from_str(&text).map_err(|e| TokensError::Parse {
        path: path.into(),
        reason: e.to_string(),
    })?;
    let mut access = Access::default();
    for entry in file.people {
        let who = format!("people, {}", entry.name);
        let hash = secret(path, &who, entry.token_file, entry.token_sha256)?;
        access.people.push((
            hash,
            Person {
                name: entry.name,
                role: entry.role,
            },
        ));
    }
    for entry in file.agents {
        let who = format!("agents, {}", entry.node.as_deref().unwrap_or("any node"));
        let hash = secret(path, &who, entry.token_file, entry.token_sha256)?;
        let grant = entry
            .node
            .map_or(AgentGrant::AnyNode, |n| AgentGrant::Only(n.into()));
        access.agents.push((hash, grant));
    }
    Ok(access)
}

fn secret(
    path: &Path,
    who: &str,
    token_file: Option<PathBuf>,
    token_sha256: Option<String>,
) -> Result<Hash, TokensError> {
    let entry = |reason: String| TokensError::Entry {
        path: path.into(),
        who: who.into(),
        reason,
    };
    match (token_file, token_sha256) {
        (Some(token_file), None) => {
            // Relative to the tokens file, as in the receivers file.
            let token_file = path.parent().unwrap_or(Path::new("")).join(token_file);
            let token =
                fs::read_to_string(&token_file).map_err(|source| TokensError::TokenFile {
                    path: path.into(),
                    who: who.into(),
                    token_file,
                    source,
                })?;
            if token.trim().len() < MIN_TOKEN_CHARS {
                return Err(entry(format!(
                    "its token is shorter than {MIN_TOKEN_CHARS} characters: make one with `openssl rand -hex 32`"
                )));
            }
            Ok(hash(&token))
        }
        (None, Some(text)) => {
            let mut hash = [0; 32];
            hex::decode_to_slice(text.trim(), &mut hash)
                .map_err(|_| entry("token_sha256 must be 64 hexadecimal digits".into()))?;
            Ok(hash)
        }
        _ => Err(entry(
            "give exactly one of token_file and token_sha256".into(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(file: &str) -> Result<Access, String> {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(
            dir.path().join("long.token"),
            "0123456789abcdef0123456789abcdef\n",
        )
        .expect("written");
        fs::write(dir.path().join("short.token"), "hunter2").expect("written");
        let path = dir.path().join("tokens.yaml");
        fs::write(
            &path,
            file.replace("DIR", &dir.path().display().to_string()),
        )
        .expect("written");
        load(&path).map_err(|e| e.to_string())
    }

    #[test]
    fn a_tokens_file_names_people_and_agents() {
        let access = check(
            "people:\n  - {name: alice, role: viewer, token_file: DIR/long.token}\n\
             agents:\n  - {node: n01, token_file: long.token}\n",
        )
        .expect("a good file");
        let bearer = Some("Bearer 0123456789abcdef0123456789abcdef");
        assert_eq!(access.person(bearer).map(|p| p.name), Ok("alice".into()));
        assert_eq!(access.agent(bearer), Ok(AgentGrant::Only("n01".into())));
    }

    #[test]
    fn a_bad_tokens_file_says_what_to_do() {
        let says = |file: &str, words: &str| {
            let error = check(file).expect_err("refused");
            assert!(error.contains(words), "{error}");
        };
        says("people:\n  - {name: alice, role: boss}\n", "boss");
        says(
            "people:\n  - {name: alice, role: viewer}\n",
            "exactly one of",
        );
        says(
            "people:\n  - {name: alice, role: viewer, token_file: DIR/short.token}\n",
            "openssl rand",
        );
        says(
            "agents:\n  - {token_sha256: xyz}\n",
            "64 hexadecimal digits",
        );
        says("agents:\n  - {token_file: DIR/none.token}\n", "none.token");
        says("robots: []\n", "robots");
    }
}
