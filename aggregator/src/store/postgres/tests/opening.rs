//! A start: who has the database, and what is wrong with it.

use private_postgres::{Cluster, GUARDED};

use super::*;
use crate::store::postgres::session::check_version;

#[tokio::test]
async fn of_two_that_start_at_once_on_nothing_one_migrates_and_one_waits() {
    let Some(database) = private_postgres::database().await else {
        return;
    };
    let (one, other) = tokio::join!(open(&database), open(&database));
    let (first, told) = match (one, other) {
        (Ok(first), Err(told)) | (Err(told), Ok(first)) => (first, told),
        other => panic!("{other:?}"),
    };
    assert!(matches!(told, StoreError::Unavailable(_)), "{told:?}");
    assert!(
        told.to_string().contains("another aggregator has"),
        "{told}"
    );
    let mut look = database.connect().await;
    let migrations: i64 = ask(
        &mut look,
        "SELECT count(*) FROM _sqlx_migrations WHERE success",
    )
    .await;
    assert_eq!(migrations, 5);

    let kept = first.commit(journal(7)).await.unwrap();
    first.close().await;
    assert!(matches!(
        first.commit(journal(8)).await,
        Err(StoreError::Unavailable(_))
    ));
    let second = open_once_free(&database).await;
    assert_eq!(journalled(&second).await, [7]);
    assert!(kept.position < second.commit(journal(8)).await.unwrap().position);
}

#[tokio::test]
async fn a_database_from_a_newer_version_is_refused() {
    let Some((store, database)) = fresh().await else {
        return;
    };
    store.close().await;
    let mut future = database.connect().await;
    execute(
        &mut future,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (99, 'future', true, '\\x00', 0)",
    )
    .await;
    let told = open(&database).await.unwrap_err().to_string();
    assert!(
        told.contains("schema 99") && told.contains("newer version"),
        "{told}"
    );
}

#[tokio::test]
async fn another_programs_database_is_refused_and_left_alone() {
    let Some(database) = private_postgres::database().await else {
        return;
    };
    let mut theirs = database.connect().await;
    execute(&mut theirs, "CREATE TABLE theirs (x int)").await;
    let told = open(&database).await.unwrap_err().to_string();
    assert!(
        told.contains("another program") && told.contains("createdb"),
        "{told}"
    );
    let tables: i64 = ask(
        &mut theirs,
        "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'",
    )
    .await;
    assert_eq!(tables, 1);
}

/// What a start is told, and whether waiting would help.
async fn told(url: &str) -> (bool, String) {
    let refused = PostgresStore::open(&Address::parse(url).unwrap()).await;
    let error = refused.unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
    (
        matches!(error, StoreError::Unavailable(_)),
        error.to_string(),
    )
}

#[tokio::test]
async fn what_is_wrong_is_said_with_what_to_do_and_without_the_password() {
    let Some(cluster) = Cluster::quick() else {
        return;
    };
    let database = cluster.database().await;
    let mut operator = database.connect().await;
    execute(&mut operator, "CREATE ROLE guarded LOGIN PASSWORD 'sesame'").await;
    let with = |old: &str, new: &str| database.url.replace(old, new);

    let (waits, said) = told(&with("postgres@", &format!("{GUARDED}:hunter2@"))).await;
    assert!(
        !waits && said.contains("password") && said.contains("PGPASSFILE"),
        "{said}"
    );
    // It may look, and not make tables.
    let right = with("postgres@", &format!("{GUARDED}:sesame@"));
    let (waits, said) = told(&right).await;
    assert!(!waits && said.contains("own the database"), "{said}");

    let (waits, said) = told(&with("/entrenar_test", "/nowhere")).await;
    assert!(!waits && said.contains("createdb nowhere"), "{said}");
    let elsewhere = "postgres://ann:hunter2@localhost:1/fleet?sslmode=disable";
    let (waits, said) = told(elsewhere).await;
    assert!(
        waits && said.contains("fleet on localhost:1 as ann"),
        "{said}"
    );

    cluster.stop();
    let (waits, said) = told(&database.url).await;
    assert!(waits && said.contains("could not connect"), "{said}");
}

#[test]
fn an_address_that_makes_no_sense_is_refused_without_its_secrets() {
    let check = |url: &str, word: &str| {
        let said = Address::parse(url).unwrap_err();
        assert!(said.contains(word) && !said.contains("hunter2"), "{said}");
    };
    check("postgres://a:hunter2@b/c?passwd=hunter2", "`passwd`");
    check("postgres://a:hunter2@b:port/c", "postgres://USER@HOST:PORT");
    check("postgres://a:hunter2@b,c/d", "one host");
    check("postgres://a:hunter2@b/c?sslmode=maybe", "maybe");
    let fine = Address::parse("postgresql://ann:hunter2@db/fleet?sslmode=verify-full").unwrap();
    assert_eq!(
        format!("{fine} {fine:?}"),
        "fleet on db:5432 as ann Address(fleet on db:5432 as ann)"
    );
}

#[test]
fn a_server_that_is_too_old_is_told_so() {
    let told = check_version("13.22", 13_00_22).unwrap_err().to_string();
    assert!(
        told.contains("Postgres 13.22") && told.contains("14 or newer"),
        "{told}"
    );
    check_version("14.0", 14_00_00).unwrap();
}
