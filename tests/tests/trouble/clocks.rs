//! Agents that are wrong about the time, or about who they are.

use std::time::Duration;

use entrenar_tests::process::eventually;
use entrenar_tests::talker::{Node, Talker};
use reqwest::Client;

use super::{agent, aggregator, directory, is_served, log, metric, node, sampled_at};

#[tokio::test]
async fn a_clock_an_hour_off_is_shown_corrected_and_nobody_elses_trouble() {
    let dir = directory();
    let server = aggregator(dir.path(), &[]);
    let client = Client::new();
    let _agent = agent(dir.path(), "right", "right", &server.grpc);
    for (name, off_by_ms) in [("ahead", 3_600_000), ("behind", -3_600_000)] {
        let wrong = Node {
            clock_ms: off_by_ms,
            ..Node::named(name)
        };
        let mut talker = Talker::connect(&server.grpc, &wrong)
            .await
            .expect("a hello");
        for seq in 1..=2 {
            talker.say(&wrong.sample(seq, wrong.now())).await;
        }
        talker.hear_up_to(2).await.expect("durable");
        let shown = node(&client, &server, name).await.expect("it is there");
        let offset = shown["clock_offset_seconds"].as_f64().expect("a number");
        let off_by = off_by_ms as f64 / 1000.0;
        assert!((offset - off_by).abs() < 60.0, "{name}: {shown}");
        let age = shown["sample_age_seconds"].as_f64().expect("a number");
        assert!(age.abs() < 60.0, "{name}: its ticks are corrected: {shown}");
        assert_eq!(
            shown["light"], "yellow",
            "{name}: one warning is open: {shown}"
        );
    }
    is_served(&client, &server, "right").await;
    let right = node(&client, &server, "right").await.expect("it is there");
    assert_ne!(right["light"], "grey", "{right}");
    let url = format!("http://{}/api/v1/incidents?state=all", server.http);
    let incidents = entrenar_tests::process::items(&client, &url).await;
    for incident in incidents.expect("a list") {
        assert_eq!(incident["kind"], "MonitoringFault", "{incident}");
        assert_ne!(incident["scope"]["node"], "right", "{incident}");
    }
}

#[tokio::test]
async fn of_two_agents_with_one_name_the_second_waits_and_says_why() {
    let dir = directory();
    let server = aggregator(dir.path(), &[]);
    let client = Client::new();
    let first = agent(dir.path(), "first", "n1", &server.grpc);
    is_served(&client, &server, "n1").await;
    let _second = agent(dir.path(), "second", "n1", &server.grpc);
    eventually("the reason in the second one's log", async || {
        let said = log(dir.path(), "log-second");
        (said.contains("is in use by another agent") && said.contains("--node")).then_some(())
    })
    .await;
    let refused = metric(&client, &server, "entrenar_aggregator_refused_agents_total").await;
    assert!(refused >= Some(1.0), "{refused:?}");
    assert!(log(dir.path(), "log").contains("in use by another agent"));
    is_served(&client, &server, "n1").await;
    assert!(!log(dir.path(), "log-first").contains("in use"));

    // The node was set up anew, and the old agent is gone: the name is free, and nothing of the new one is missing.
    assert!(first.terminate().success());
    let last = sampled_at(&client, &server, "n1").await;
    eventually("the second one's samples", async || {
        let now = sampled_at(&client, &server, "n1").await;
        (now.is_some() && now != last).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_name_is_free_again_when_its_agents_connection_is_gone() {
    let dir = directory();
    let server = aggregator(dir.path(), &[]);
    let first = Node::named("n1");
    let talker = Talker::connect(&server.grpc, &first)
        .await
        .expect("a hello");
    let mut second = Node::named("n1");
    second.stream.0[15] ^= 1;
    let refused = Talker::connect(&server.grpc, &second).await;
    let status = refused.err().expect("the name is taken");
    assert_eq!(status.code(), tonic::Code::AlreadyExists, "{status:?}");
    drop(talker);
    let mut talker = eventually("a free name", async || {
        Talker::connect(&server.grpc, &second).await.ok()
    })
    .await;
    let at = second.now() - Duration::from_secs(1);
    talker.say(&second.sample(1, at)).await;
    talker.hear_up_to(1).await.expect("durable");
}
