//! Certificates from files, for both servers.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use crate::config::Config;

/// Chooses the cryptography once for the process.
pub fn install_provider() {
    // Already chosen, by a test or by the demo: the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// TLS of the HTTP server; `None` where no certificate is configured.
pub(crate) fn for_http(config: &Config) -> Result<Option<Arc<rustls::ServerConfig>>> {
    let (Some(cert), Some(key)) = (&config.tls_cert, &config.tls_key) else {
        return Ok(None);
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .with_context(|| {
            format!(
                "could not read certificates from {} (--tls-cert)",
                cert.display()
            )
        })?;
    let private = PrivateKeyDer::from_pem_file(key).with_context(|| {
        format!(
            "could not read a private key from {} (--tls-key)",
            key.display()
        )
    })?;
    let mut tls = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .with_context(|| {
            format!(
                "{} and {} do not fit together",
                cert.display(),
                key.display()
            )
        })?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(Arc::new(tls)))
}

/// TLS of the gRPC server; `None` where no certificate is configured.
pub(crate) fn for_grpc(config: &Config, token_will_do: bool) -> Result<Option<ServerTlsConfig>> {
    let (Some(cert), Some(key)) = (&config.tls_cert, &config.tls_key) else {
        return Ok(None);
    };
    let identity = Identity::from_pem(read(cert, "--tls-cert")?, read(key, "--tls-key")?);
    let mut tls = ServerTlsConfig::new().identity(identity);
    if let Some(ca) = &config.tls_client_ca {
        tls = tls
            .client_ca_root(Certificate::from_pem(read(ca, "--tls-client-ca")?))
            .client_auth_optional(token_will_do);
    }
    Ok(Some(tls))
}

fn read(path: &Path, flag: &str) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("could not read {} ({flag})", path.display()))
}
