//! `certs init`: a CA and a server certificate, for a deployment that has none of its own.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Writes `ca.pem`, `ca.key`, `server.pem`, `server.key`; returns their paths. Private keys are readable by the owner
/// only. Refuses to overwrite anything.
pub fn init(out: &Path, hosts: &[String]) -> Result<Vec<PathBuf>> {
    let files = ["ca.pem", "ca.key", "server.pem", "server.key"].map(|name| out.join(name));
    if let Some(there) = files.iter().find(|f| f.exists()) {
        bail!(
            "{} is there already: choose another --out, or move it away",
            there.display()
        );
    }
    fs::create_dir_all(out)
        .with_context(|| format!("could not make the directory {}", out.display()))?;
    let ca_key = KeyPair::generate().context("could not make a key")?;
    let ca_params = ca_params()?;
    let ca = ca_params
        .self_signed(&ca_key)
        .context("could not sign the CA")?;
    let server_key = KeyPair::generate().context("could not make a key")?;
    let server = server_params(hosts)?
        .signed_by(&server_key, &Issuer::from_params(&ca_params, &ca_key))
        .context("could not sign the server's certificate")?;
    let texts = [
        ca.pem(),
        ca_key.serialize_pem(),
        server.pem(),
        server_key.serialize_pem(),
    ];
    for (file, text) in files.iter().zip(&texts) {
        write(file, text)?;
    }
    Ok(files.into())
}

fn ca_params() -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new()).context("could not describe the CA")?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
        .distinguished_name
        .push(DnType::CommonName, "entrenar CA");
    Ok(params)
}

fn server_params(hosts: &[String]) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(hosts.to_vec())
        .with_context(|| format!("not names or addresses of a host: {}", hosts.join(", ")))?;
    params.distinguished_name.push(
        DnType::CommonName,
        hosts.first().map_or("entrenar", String::as_str),
    );
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn write(file: &Path, text: &str) -> Result<()> {
    let mode = if file.extension().is_some_and(|e| e == "key") {
        0o600
    } else {
        0o644
    };
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(file)
        .and_then(|mut f| f.write_all(text.as_bytes()))
        .with_context(|| format!("could not write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_ca_and_a_server_certificate_are_written_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let files = init(dir.path(), &hosts).expect("written");
        let mode = fs::metadata(&files[3])
            .expect("server.key")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = init(dir.path(), &hosts).expect_err("refused").to_string();
        assert!(again.contains("is there already"), "{again}");
    }
}
