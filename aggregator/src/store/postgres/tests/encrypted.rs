//! Over TLS, as with a database that somebody else runs.

use std::path::Path;

use private_postgres::{Cluster, Identity};

use super::*;

/// A folder with a CA and a certificate for `localhost`.
fn certificates() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    crate::certs::init(folder.path(), &["localhost".into()]).unwrap();
    folder
}

async fn told(url: &str) -> String {
    let refused = PostgresStore::open(&Address::parse(url).unwrap()).await;
    match refused.unwrap_err() {
        StoreError::Refused(said) => said,
        other => panic!("waiting does not mend it: {other:?}"),
    }
}

#[tokio::test]
async fn a_server_is_believed_by_its_certificate_and_what_is_wrong_with_it_is_said() {
    let (ours, others) = (certificates(), certificates());
    let [certificate, key] = ["server.pem", "server.key"].map(|name| ours.path().join(name));
    let Some(cluster) = Cluster::encrypted(&Identity {
        certificate: &certificate,
        key: &key,
        clients_ca: None,
    }) else {
        return;
    };
    let database = cluster.database().await;
    let address = Address::parse(&database.url).unwrap();
    let (name, port) = (address.database(), cluster.port().unwrap());
    let url = |host: &str, mode: &str, ca: Option<&Path>| {
        let ca = ca.map(|folder| format!("&sslrootcert={}/ca.pem", folder.display()));
        let ca = ca.unwrap_or_default();
        format!("postgres://postgres@{host}:{port}/{name}?sslmode={mode}{ca}")
    };

    let said = told(&url("localhost", "disable", None)).await;
    assert!(
        said.contains("no encryption") && said.contains("sslmode"),
        "{said}"
    );
    // A CA that nobody here knows, another one than named, and the right one for another host.
    for (host, mode, ca) in [
        ("localhost", "verify-full", None),
        ("localhost", "verify-full", Some(others.path())),
        ("localhost", "verify-ca", Some(others.path())),
        ("127.0.0.1", "verify-full", Some(ours.path())),
    ] {
        let said = told(&url(host, mode, ca)).await;
        assert!(
            said.contains("certificate") && said.contains("sslrootcert"),
            "{said}"
        );
    }

    for (host, mode, ca) in [
        ("localhost", "verify-full", Some(ours.path())),
        ("127.0.0.1", "verify-ca", Some(ours.path())),
        ("127.0.0.1", "require", None),
        ("127.0.0.1", "prefer", None),
    ] {
        let store = loop {
            match PostgresStore::open(&Address::parse(&url(host, mode, ca)).unwrap()).await {
                Ok(store) => break store,
                Err(StoreError::Unavailable(_)) => tokio::task::yield_now().await,
                Err(other) => panic!("{mode}: {other}"),
            }
        };
        store.commit(journal(7)).await.unwrap();
        let plain: i64 = ask(
            &mut database.connect().await,
            "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
             WHERE application_name = 'entrenar-aggregator' AND client_addr IS NOT NULL AND NOT ssl",
        )
        .await;
        assert_eq!(plain, 0, "{mode}");
        store.close().await;
    }
}

/// As Citus makes one for a server that has none: of X.509 version 1, which our TLS does not read.
#[tokio::test]
async fn where_encryption_is_only_preferred_an_old_certificate_is_done_without() {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/postgres/tests/old_certificate");
    let Some(cluster) = Cluster::encrypted(&Identity {
        certificate: &folder.join("server.pem"),
        key: &folder.join("server.key"),
        clients_ca: None,
    }) else {
        return;
    };
    cluster.allow_plain();
    let database = cluster.database().await;
    let address = Address::parse(&database.url).unwrap();
    let (name, port) = (address.database(), cluster.port().unwrap());
    let url = |mode| format!("postgres://postgres@localhost:{port}/{name}?sslmode={mode}");
    let said = told(&url("require")).await;
    assert!(
        said.contains("version 1") && said.contains("sslmode=disable"),
        "{said}"
    );

    let store = PostgresStore::open(&Address::parse(&url("prefer")).unwrap())
        .await
        .unwrap();
    store.commit(journal(7)).await.unwrap();
    assert_eq!(journalled(&store).await, [7]);
}

#[tokio::test]
async fn a_server_that_wants_to_see_a_certificate_is_shown_one() {
    let ours = certificates();
    let at = |name: &str| ours.path().join(name);
    // One that signed itself is its own CA.
    let key = rcgen::KeyPair::generate().unwrap();
    let client = rcgen::CertificateParams::default();
    let client = client.self_signed(&key).unwrap();
    std::fs::write(at("client.pem"), client.pem()).unwrap();
    std::fs::write(at("client.key"), key.serialize_pem()).unwrap();
    let Some(cluster) = Cluster::encrypted(&Identity {
        certificate: &at("server.pem"),
        key: &at("server.key"),
        clients_ca: Some(&at("client.pem")),
    }) else {
        return;
    };
    let database = cluster.database().await;
    let address = Address::parse(&database.url).unwrap();
    let (name, port) = (address.database(), cluster.port().unwrap());
    let ca = at("ca.pem");
    let url = format!(
        "postgres://postgres@localhost:{port}/{name}?sslmode=verify-full&sslrootcert={}",
        ca.display()
    );
    let said = told(&url).await;
    assert!(said.contains("certificate"), "{said}");

    let (certificate, key) = (at("client.pem"), at("client.key"));
    let shown = format!(
        "{url}&sslcert={}&sslkey={}",
        certificate.display(),
        key.display()
    );
    let store = PostgresStore::open(&Address::parse(&shown).unwrap()).await;
    let store = store.unwrap();
    store.commit(journal(7)).await.unwrap();
    store.close().await;
}
