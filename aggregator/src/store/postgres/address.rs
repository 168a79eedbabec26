//! Where the database is: parsed once, shown without its password.

use std::fmt;
use std::str::FromStr;

use sqlx::postgres::{PgConnectOptions, PgSslMode};

/// What may stand behind the `?`. The driver would log an unknown one with its value, which may be a secret.
const PARAMETERS: [&str; 18] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

/// As which name sessions show in `pg_stat_activity`.
const APPLICATION: &str = "entrenar-aggregator";

/// `postgres://USER@HOST:PORT/DATABASE?sslmode=…`. What it leaves out comes from `PGHOST` and its like, and the password
/// also from the file that `PGPASSFILE` names or `~/.pgpass`.
#[derive(Clone)]
pub struct Address(PgConnectOptions);

impl Address {
    /// Whether a URL is meant to lead to Postgres.
    pub fn is_meant_by(url: &str) -> bool {
        url.starts_with("postgres:") || url.starts_with("postgresql:")
    }

    /// Fails with what is wrong with the URL; nothing of its secrets is in that.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (_, query) = url.split_once('?').unwrap_or((url, ""));
        let mut keys = query.split('&').filter_map(|pair| pair.split('=').next());
        if let Some(unknown) = keys
            .find(|key| !key.is_empty() && !PARAMETERS.contains(key) && !key.starts_with("options"))
        {
            return Err(format!(
                "the parameter `{unknown}` is not known; the most common one is `sslmode`"
            ));
        }
        let options = PgConnectOptions::from_str(url).map_err(|error| match error {
            sqlx::Error::Configuration(why) => {
                format!("{why}: write postgres://USER@HOST:PORT/DATABASE")
            }
            other => other.to_string(),
        })?;
        if options.get_host().contains(',') {
            return Err(
                "name one host: a name that always leads to the primary, as most operators of Postgres have it"
                    .into(),
            );
        }
        Ok(Self(match options.get_application_name() {
            None => options.application_name(APPLICATION),
            Some(_) => options,
        }))
    }

    /// The database's name: the user's where none is given.
    pub(super) fn database(&self) -> &str {
        self.0.get_database().unwrap_or(self.0.get_username())
    }

    /// The same without encryption, where that is only preferred.
    pub(super) fn unencrypted(&self) -> Option<Self> {
        let may_do_without = matches!(self.0.get_ssl_mode(), PgSslMode::Allow | PgSslMode::Prefer);
        may_do_without.then(|| Self(self.0.clone().ssl_mode(PgSslMode::Disable)))
    }

    pub(super) fn options(&self) -> PgConnectOptions {
        self.0.clone()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (user, database) = (self.0.get_username(), self.database());
        match self.0.get_socket() {
            Some(socket) => write!(f, "{database} in {} as {user}", socket.display()),
            None => write!(
                f,
                "{database} on {}:{} as {user}",
                self.0.get_host(),
                self.0.get_port()
            ),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}
