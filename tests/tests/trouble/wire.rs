//! Bytes on the gRPC port that no agent of ours would send.

use std::io::{Read, Write};
use std::net::TcpStream;

use entrenar_proto::wire::Goodbye;
use entrenar_proto::wire::agent_message::What;
use entrenar_proto::{MAX_MESSAGE_BYTES, convert, encode_record};
use entrenar_tests::talker::{Node, Talker, message, send_raw};
use reqwest::Client;
use tonic::Code;

use super::{agent, aggregator, directory, is_served, log, metric};

fn hello(node: &Node) -> entrenar_proto::wire::Hello {
    convert::hello_to_wire(&node.hello())
}

/// A field that no version of ours has had, before the message.
fn from_the_future(message: &[u8]) -> Vec<u8> {
    // Field 1000, length-delimited, three bytes.
    let mut bytes = vec![0xc2, 0x3e, 3, 1, 2, 3];
    bytes.extend(message);
    bytes
}

#[tokio::test]
async fn a_message_that_makes_no_sense_is_answered_with_what_is_wrong_and_others_are_served_on() {
    let dir = directory();
    let server = aggregator(dir.path(), &[]);
    let client = Client::new();
    let _agent = agent(dir.path(), "n1", "n1", &server.grpc);
    is_served(&client, &server, "n1").await;

    let n2 = Node::named("n2");
    let good = || message(What::Hello(hello(&n2)));
    let record = |bytes: Vec<u8>| message(What::Record(bytes.into()));
    let sample = encode_record(&n2.sample(1, n2.now()));
    let mut nameless = hello(&n2);
    nameless.node.clear();
    let mut streamless = hello(&n2);
    streamless.stream_id = vec![1, 2, 3].into();
    let mut crowded = hello(&n2);
    let gpu = crowded.inventories[0].gpus[0].clone();
    crowded.inventories[0].gpus = vec![gpu; convert::MAX_GPUS + 1];
    let mut long = hello(&n2);
    long.node = "n".repeat(convert::MAX_TEXT_BYTES + 1);
    let stories: Vec<(Vec<Vec<u8>>, Code, &str)> = vec![
        (
            vec![vec![0xff; 64]],
            Code::InvalidArgument,
            "telemetry.proto",
        ),
        (
            vec![good(), vec![0xff; 64]],
            Code::InvalidArgument,
            "telemetry.proto",
        ),
        (
            vec![good()[..20].to_vec()],
            Code::InvalidArgument,
            "telemetry.proto",
        ),
        (
            vec![vec![0; MAX_MESSAGE_BYTES + 1]],
            Code::OutOfRange,
            "send less",
        ),
        (
            vec![good(), record(vec![0; MAX_MESSAGE_BYTES])],
            Code::OutOfRange,
            "1048576 bytes",
        ),
        (vec![Vec::new()], Code::InvalidArgument, "must be a hello"),
        (
            vec![record(sample.clone())],
            Code::InvalidArgument,
            "must be a hello",
        ),
        (
            vec![message(What::Goodbye(Goodbye::default()))],
            Code::InvalidArgument,
            "must be a hello",
        ),
        (
            vec![good(), good()],
            Code::InvalidArgument,
            "a second hello",
        ),
        (
            vec![message(What::Hello(nameless))],
            Code::InvalidArgument,
            "node's name is missing",
        ),
        (
            vec![message(What::Hello(streamless))],
            Code::InvalidArgument,
            "a stream id of 16 bytes",
        ),
        (
            vec![message(What::Hello(crowded))],
            Code::InvalidArgument,
            "at most 512",
        ),
        (
            vec![message(What::Hello(long))],
            Code::InvalidArgument,
            "at most 256",
        ),
        (
            std::iter::once(good())
                .chain(vec![record(vec![0xff; 9]); 10])
                .collect(),
            Code::InvalidArgument,
            "10 records could not be read",
        ),
    ];
    for (messages, code, words) in stories {
        let status = send_raw(&server.grpc, messages).await;
        assert_eq!(status.code(), code, "{words}: {status:?}");
        assert!(status.message().contains(words), "{words}: {status:?}");
    }
    is_served(&client, &server, "n1").await;
    let n_malformed = metric(
        &client,
        &server,
        "entrenar_aggregator_malformed_records_total",
    )
    .await;
    assert!(n_malformed >= Some(12.0), "{n_malformed:?}");
    assert!(log(dir.path(), "log").contains("could not be read"));
}

#[tokio::test]
async fn what_is_no_grpc_at_all_harms_nobody() {
    let dir = directory();
    let server = aggregator(dir.path(), &[]);
    let client = Client::new();
    let _agent = agent(dir.path(), "n1", "n1", &server.grpc);
    // A browser, a TLS client, noise, and HTTP/2 whose first frame claims 16 MiB.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x00\x00\x00\x00\x00\x01";
    let opening: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n",
        &[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0],
        &[0x80; 4096],
        preface,
    ];
    for bytes in opening {
        let mut tcp = TcpStream::connect(&server.grpc).expect("connected");
        tcp.write_all(bytes).expect("written");
        // Hung up on before or after an answer: a reset is as good as an end.
        let _ = tcp.shutdown(std::net::Shutdown::Write);
        let _ = tcp.read_to_end(&mut Vec::new());
    }
    is_served(&client, &server, "n1").await;
    log(dir.path(), "log");
}

#[tokio::test]
async fn records_may_come_in_any_order_twice_and_from_a_newer_agent() {
    let dir = directory();
    let server = aggregator(dir.path(), &[]);
    let client = Client::new();
    let node = Node::named("n1");
    let mut talker = Talker::connect(&server.grpc, &node).await.expect("a hello");
    let start = node.now() - std::time::Duration::from_mins(1);
    let at = |seq: u64| start + std::time::Duration::from_secs(seq);
    for seq in [5, 3, 4, 1, 3, 2, 5] {
        talker.say(&node.sample(seq, at(seq))).await;
    }
    // A field that is not known is skipped; a record of a kind that is not known costs that record alone.
    talker
        .say_bytes(from_the_future(&encode_record(&node.sample(6, at(6)))))
        .await;
    let unknown_kind = vec![0x08, 7, 0xc2, 0x3e, 3, 1, 2, 3];
    talker.say_bytes(unknown_kind).await;
    talker.say(&node.sample(8, at(8))).await;
    // No sample can be later than the message that brings it.
    let tomorrow = node.now() + std::time::Duration::from_hours(24);
    talker.say(&node.sample(9, tomorrow)).await;
    talker.hear_up_to(9).await.expect("all of it is durable");

    let url = format!(
        "http://{}/api/v1/series?metric=power_watts&node=n1&from={}&to={}",
        server.http,
        start.as_millis() / 1000,
        (tomorrow.as_millis() / 1000) + 60
    );
    let answer = client.get(url).send().await.expect("answered");
    let series: serde_json::Value = answer.json().await.expect("JSON");
    let points = series["series"][0]["points"].as_array().expect("points");
    let watts: Vec<_> = points.iter().filter_map(|p| p[1].as_f64()).collect();
    assert_eq!(
        watts,
        [
            100.001, 100.002, 100.003, 100.004, 100.005, 100.006, 100.008
        ]
    );
    let duplicates = metric(
        &client,
        &server,
        "entrenar_aggregator_duplicate_records_total",
    )
    .await;
    assert_eq!(duplicates, Some(2.0));
    let future = metric(&client, &server, "entrenar_aggregator_future_ticks_total").await;
    assert_eq!(future, Some(1.0));
    let unreadable = metric(
        &client,
        &server,
        "entrenar_aggregator_malformed_records_total",
    )
    .await;
    assert_eq!(unreadable, Some(1.0));
}
