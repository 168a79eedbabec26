//! How to reach the aggregator: address, TLS, token. Files are read anew for each connection, so that they can be
//! rotated under a running agent.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use entrenar_proto::MAX_MESSAGE_BYTES;
use entrenar_proto::wire::telemetry_client::TelemetryClient;
use futures_util::future::BoxFuture;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri};

use crate::config::Config;

/// How long a connection may take to be there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a silent connection is asked whether it lives, and how long it may take to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where distributions keep the certificates that they trust.
const SYSTEM_CAS: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// Another way to a channel than the network: for tests and the demo.
pub type Dial =
    Arc<dyn Fn() -> BoxFuture<'static, Result<Channel, tonic::transport::Error>> + Send + Sync>;

/// Why the aggregator cannot be reached as configured.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Not an address of a gRPC server.
    #[error(
        "{0:?} is no address of an aggregator: give --aggregator a URL like https://andon.example:8471"
    )]
    Url(String),
    /// Clear text over a network.
    #[error(
        "{0} is in clear text and not on this host: use https://, or --insecure if the network is yours and you mean it"
    )]
    ClearText(String),
    /// TLS files that have no use.
    #[error("--tls-ca, --tls-cert and --tls-key need an https:// aggregator")]
    NoTls,
    /// A file cannot be read.
    #[error("could not read {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No certificates to trust.
    #[error(
        "this host has no list of trusted certificates: give --tls-ca the CA of the aggregator"
    )]
    NoCa,
    /// A token with characters that do not travel.
    #[error("the token in {} has characters that a token cannot have", .0.display())]
    Token(PathBuf),
    /// The network, the server or TLS.
    #[error("could not connect to {url}")]
    Connect {
        /// Where.
        url: String,
        /// Why.
        source: tonic::transport::Error,
    },
}

/// Where the aggregator is and what it is shown.
#[derive(Clone)]
pub struct Target {
    uri: Uri,
    tls: bool,
    ca: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
    token: Option<PathBuf>,
    dial: Option<Dial>,
}

impl Target {
    /// From the configuration; fails on what can only be a mistake.
    pub fn new(config: &Config, dial: Option<Dial>) -> Result<Self, ConnectError> {
        let url = config.aggregator.trim();
        let bad = || ConnectError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let host = uri.host().ok_or_else(bad)?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad()),
        };
        if !tls && !config.insecure && !is_loopback(host) {
            return Err(ConnectError::ClearText(url.to_owned()));
        }
        if !tls && (config.tls_ca.is_some() || config.tls_cert.is_some()) {
            return Err(ConnectError::NoTls);
        }
        Ok(Self {
            tls,
            ca: config.tls_ca.clone(),
            identity: config.tls_cert.clone().zip(config.tls_key.clone()),
            token: config.token_file.clone(),
            dial,
            uri,
        })
    }

    /// The address, for logs.
    pub fn url(&self) -> String {
        self.uri.to_string()
    }

    /// A fresh connection.
    pub async fn connect(&self) -> Result<TelemetryClient<Channel>, ConnectError> {
        let failed = |source| ConnectError::Connect {
            url: self.url(),
            source,
        };
        let channel = match &self.dial {
            Some(dial) => dial().await.map_err(failed)?,
            None => self.endpoint()?.connect().await.map_err(failed)?,
        };
        Ok(TelemetryClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// The `authorization` of a call, if there is a token.
    pub fn authorization(&self) -> Result<Option<MetadataValue<Ascii>>, ConnectError> {
        let Some(path) = &self.token else {
            return Ok(None);
        };
        let token = read(path)?;
        let token = String::from_utf8_lossy(&token);
        let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.trim())
            .parse()
            .map_err(|_| ConnectError::Token(path.clone()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    fn endpoint(&self) -> Result<Endpoint, ConnectError> {
        let endpoint = Endpoint::from(self.uri.clone())
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        if !self.tls {
            return Ok(endpoint);
        }
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(self.trusted()?));
        if let Some((cert, key)) = &self.identity {
            tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
        }
        endpoint
            .tls_config(tls)
            .map_err(|source| ConnectError::Connect {
                url: self.url(),
                source,
            })
    }

    fn trusted(&self) -> Result<Vec<u8>, ConnectError> {
        match &self.ca {
            Some(path) => read(path),
            None => SYSTEM_CAS
                .iter()
                .find_map(|path| std::fs::read(path).ok())
                .ok_or(ConnectError::NoCa),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ConnectError> {
    std::fs::read(path).map_err(|source| ConnectError::File {
        path: path.to_owned(),
        source,
    })
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host == "localhost"
        || host
            .parse()
            .is_ok_and(|ip: std::net::IpAddr| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clear_text_off_this_host_must_be_meant() {
        let check = |url: &str, insecure: bool, said: &str| {
            let mut config = Config::local(url.to_owned(), "n1".to_owned(), "spool".into());
            config.insecure = insecure;
            let said_now = Target::new(&config, None).err().map(|e| e.to_string());
            let said_now = said_now.unwrap_or_default();
            assert!(
                if said.is_empty() {
                    said_now.is_empty()
                } else {
                    said_now.contains(said)
                },
                "{url}: {said_now:?}"
            );
        };
        check("http://127.0.0.1:8471", false, "");
        check("http://localhost:8471", false, "");
        check("http://[::1]:8471", false, "");
        check("https://andon.example:8471", false, "");
        check("http://andon.example:8471", true, "");
        check("http://andon.example:8471", false, "--insecure");
        check("http://127.0.0.1.example:8471", false, "--insecure");
        check("andon.example:8471", false, "https://");
        check("", false, "https://");
    }

    #[test]
    fn a_token_is_shown_without_its_line_end_and_never_printed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "s3cret\n").unwrap();
        let mut config = Config::local("http://localhost:1".into(), "n1".into(), "spool".into());
        config.token_file = Some(file.clone());
        let target = Target::new(&config, None).unwrap();
        let value = target.authorization().unwrap().unwrap();
        assert_eq!(value.to_str().unwrap(), "Bearer s3cret");
        assert!(!format!("{value:?}").contains("s3cret"));
        std::fs::write(&file, "a\nb").unwrap();
        assert!(matches!(
            target.authorization(),
            Err(ConnectError::Token(_))
        ));
    }
}
