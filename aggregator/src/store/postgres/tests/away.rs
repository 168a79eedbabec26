//! A database that goes away and comes back.

use private_postgres::Cluster;

use super::*;
use crate::andon::CordKey;

const CUT_THE_WRITER: &str = "SELECT count(pg_terminate_backend(pid, 60000)) FROM pg_stat_activity
     WHERE datname = current_database() AND application_name = 'entrenar-aggregator'";

fn decision(n: i64) -> Decision {
    let cord = CordKey {
        rule: "r".into(),
        scope: "fleet".into(),
    };
    Decision {
        cords: vec![(cord, Timestamp(n))],
        ..Decision::default()
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_is_made_anew_and_nothing_is_kept_twice() {
    let Some((store, database)) = fresh().await else {
        return;
    };
    let mut operator = database.connect().await;
    for n in 0..3 {
        commit(&store, journal(n)).await;
        let _: i64 = ask(&mut operator, CUT_THE_WRITER).await;
        let lost = store.commit(journal(100)).await;
        assert!(matches!(lost, Err(StoreError::Unavailable(_))), "{lost:?}");
    }
    commit(&store, journal(3)).await;
    assert_eq!(journalled(&store).await, [0, 1, 2, 3]);
    store.decide(decision(1)).await.unwrap();
}

#[tokio::test]
async fn a_commit_that_survived_and_whose_answer_was_lost_is_known_again() {
    let Some((store, database)) = fresh().await else {
        return;
    };
    commit(&store, journal(1)).await;
    let mut operator = database.connect().await;
    // As if the second commit had reached the disk in the moment in which the connection broke.
    let row = crate::store::journal::encode(&journal(2).journal).unwrap();
    let survived: i64 =
        sqlx::query_scalar("INSERT INTO journal (entries) VALUES ($1) RETURNING position")
            .bind(row)
            .fetch_one(&mut operator)
            .await
            .unwrap();
    let _: i64 = ask(&mut operator, CUT_THE_WRITER).await;
    assert_eq!(commit(&store, journal(2)).await.position.0, survived);
    // The same words once more, said later, are new.
    commit(&store, journal(2)).await;
    assert_eq!(journalled(&store).await, [1, 2, 2]);
}

#[tokio::test]
async fn while_the_server_is_down_nothing_is_acknowledged_and_then_it_goes_on_by_itself() {
    let Some(cluster) = Cluster::durable() else {
        return;
    };
    let database = cluster.database().await;
    let store = open_once_free(&database).await;
    for n in 0..20 {
        store.commit(journal(n)).await.unwrap();
    }
    let chunk = sealed("GPU-1", [5], 1);
    store.commit(seal(vec![chunk.clone()])).await.unwrap();
    cluster.stop();
    for _ in 0..3 {
        let lost = store.commit(journal(99)).await;
        assert!(matches!(lost, Err(StoreError::Unavailable(_))), "{lost:?}");
        let lost = store.decide(decision(1)).await;
        assert!(matches!(lost, Err(StoreError::Unavailable(_))), "{lost:?}");
    }
    let unread = store.recover().await;
    assert!(
        matches!(unread, Err(StoreError::Unavailable(_))),
        "{unread:?}"
    );

    cluster.start();
    commit(&store, journal(20)).await;
    store.decide(decision(1)).await.unwrap();
    assert_eq!(journalled(&store).await, (0..=20).collect::<Vec<_>>());
    let found = store
        .chunks(&chunk.gpu, chunk.from, chunk.to)
        .await
        .unwrap();
    assert_eq!(found, [chunk]);
    assert_eq!(store.recover().await.unwrap().cords.len(), 1);
}

#[tokio::test]
async fn who_was_superseded_while_it_had_lost_the_database_writes_nothing_more() {
    let Some((first, database)) = fresh().await else {
        return;
    };
    first.commit(journal(1)).await.unwrap();
    let mut operator = database.connect().await;
    let _: i64 = ask(&mut operator, CUT_THE_WRITER).await;
    let second = open_once_free(&database).await;
    second.commit(journal(2)).await.unwrap();
    let refused = until_told(&first, "another aggregator has").await;
    assert!(!first.superseded().is_cancelled(), "{refused}");

    second.close().await;
    until_told(&first, "another aggregator took").await;
    assert!(first.superseded().is_cancelled());
    let third = open_once_free(&database).await;
    assert_eq!(journalled(&third).await, [1, 2]);
}

#[tokio::test]
async fn a_database_that_lost_what_was_acknowledged_is_not_written_to_as_if_it_had_it() {
    let Some((store, database)) = fresh().await else {
        return;
    };
    for n in 0..3 {
        store.commit(journal(n)).await.unwrap();
    }
    let mut operator = database.connect().await;
    // As after a failover to a standby that had not received the newest row.
    execute(
        &mut operator,
        "DELETE FROM journal WHERE position = (SELECT max(position) FROM journal)",
    )
    .await;
    let _: i64 = ask(&mut operator, CUT_THE_WRITER).await;
    until_told(&store, "older than it was").await;
    assert!(store.superseded().is_cancelled());
    let again = open_once_free(&database).await;
    assert_eq!(journalled(&again).await, [0, 1]);
}

#[tokio::test]
async fn a_row_that_was_forgotten_is_not_missed() {
    let Some((store, database)) = fresh().await else {
        return;
    };
    let forget = Flush {
        forget_journal: Some(store.commit(journal(1)).await.unwrap().position),
        ..Flush::default()
    };
    store.commit(forget).await.unwrap();
    let mut operator = database.connect().await;
    let _: i64 = ask(&mut operator, CUT_THE_WRITER).await;
    commit(&store, journal(2)).await;
    assert_eq!(journalled(&store).await, [2]);
}

/// Tries to commit until it is told this.
async fn until_told(store: &PostgresStore, words: &str) -> String {
    loop {
        match store.commit(journal(666)).await {
            Err(StoreError::Unavailable(why)) if why.contains(words) => return why,
            Err(StoreError::Unavailable(_)) => {}
            other => panic!("{other:?}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
