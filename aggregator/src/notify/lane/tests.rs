//! Stories about one receiver's lane, in virtual time.

use super::*;
use crate::andon::Kind;
use crate::incident::NoticeEvent;
use crate::incident::id::delivery_id;
use crate::incident::testing::incident;

/// `a!` begins a critical incident a, `a` a warning, `a-` ends it, `a=` is an acknowledgement.
fn notice(word: &str, at: Timestamp) -> Notice {
    let name = word.trim_end_matches(['!', '-', '=']);
    let severity = if word.contains('!') {
        Severity::Critical
    } else {
        Severity::Warning
    };
    let (event, ordinal) = match word.chars().last() {
        Some('-') => (NoticeEvent::Resolve, 3),
        Some('=') => (NoticeEvent::Acknowledge, 2),
        _ => (NoticeEvent::Trigger, 1),
    };
    let mut incident = incident(name, Kind::Xid, severity);
    incident.id = name.into();
    incident.ordinal = ordinal;
    Notice {
        delivery_id: delivery_id(name, ordinal, "r"),
        receiver: "r".into(),
        event,
        created_at: at,
        incident,
    }
}

fn word(notice: &Notice) -> String {
    let name = &notice.incident.id;
    match (notice.event, notice.incident.severity) {
        (NoticeEvent::Resolve, _) => format!("{name}-"),
        (NoticeEvent::Acknowledge, _) => format!("{name}="),
        (_, Severity::Critical) => format!("{name}!"),
        _ => name.clone(),
    }
}

fn words(parcel: &Parcel) -> String {
    let words: Vec<String> = parcel.notices.iter().map(word).collect();
    match (parcel.is_digest(), words.len()) {
        (true, n) if n > 4 => format!("[{} and {} more]", words[0], n - 1),
        (true, _) => format!("[{}]", words.join(" ")),
        _ => words.concat(),
    }
}

fn verdict(answer: &str) -> Verdict {
    let why = answer.to_owned();
    match answer {
        "ok" => Verdict::Delivered,
        "400" => Verdict::Refused { why },
        "429" => Verdict::Retry {
            after: Some(Duration::from_secs(30)),
            perhaps_taken: false,
            why,
        },
        _ => Verdict::Retry {
            after: None,
            perhaps_taken: answer != "away",
            why,
        },
    }
}

struct Told {
    out: String,
    dead: Vec<String>,
}

/// Tells a story (`second:word`) to a lane whose receiver gives these answers, then `ok`. Returns what went out and
/// when, in seconds, and the errors of what was given up.
fn tell(mut lane: Lane, story: &str, answers: &str, until: i64) -> Told {
    let mut answers = answers.split_whitespace();
    let mut jitter = Jitter(1);
    let (mut out, mut attempts) = (Vec::new(), Vec::new());
    let mut words_to_come: VecDeque<(Timestamp, &str)> = story
        .split_whitespace()
        .map(|word| word.split_once(':').expect("second:word"))
        .map(|(at, word)| (Timestamp::from_secs(at.parse().expect("a second")), word))
        .collect();
    let mut now = Timestamp(0);
    while now <= Timestamp::from_secs(until) {
        while words_to_come.front().is_some_and(|(at, _)| *at <= now) {
            let (at, word) = words_to_come.pop_front().expect("just seen");
            if let Added::Settled(settled) = lane.add(Parcel::of(notice(word, at), at), now) {
                attempts.extend(settled);
            }
        }
        for parcel in lane.next(now) {
            out.push(format!("{} {}", now.0 / 1000, words(&parcel)));
            let verdict = verdict(answers.next().unwrap_or("ok"));
            attempts.extend(lane.settle(&parcel.id, verdict, now, &mut jitter));
        }
        let next_word = words_to_come.front().map(|(at, _)| *at);
        let Some(next) = next_word.into_iter().chain(lane.poll_timeout()).min() else {
            break;
        };
        now = next.max(Timestamp(now.0 + 1));
    }
    let dead = attempts.iter().filter(|a| a.state == NoticeState::Dead);
    Told {
        out: out.join(", "),
        dead: dead.filter_map(|a| a.error.clone()).collect(),
    }
}

fn lane() -> Lane {
    Lane::new(Merging::Everything, Duration::ZERO, Timestamp(0))
}

fn check(story: &str, answers: &str, expected: &str) {
    assert_eq!(
        tell(lane(), story, answers, 90_000).out,
        expected,
        "{story}"
    );
}

#[test]
fn news_go_out_at_once_and_critical_ones_first() {
    check("0:a 0:b! 7:a-", "", "0 b!, 0 a, 7 a-");
}

#[test]
fn an_incident_is_told_in_order_while_others_go_on() {
    // The jitter is seeded: the first back-off is 4 s.
    check("0:a 1:b 2:a=", "500", "0 a, 1 b, 4 a, 4 a=");
}

#[test]
fn a_receiver_that_asks_for_time_gets_it_for_all_its_news() {
    check("0:a 1:b", "429", "0 a, 30 a, 30 b");
}

#[test]
fn a_storm_is_told_in_one_digest_that_names_everything_and_silences_nothing() {
    let storm: Vec<String> = (0..60).map(|n| format!("0:n{n:02}")).collect();
    check(
        &storm.join(" "),
        "",
        "0 n00, 0 n01, 0 n02, 0 n03, 0 n04, 0 n05, 0 n06, 0 n07, 0 n08, 0 [n09 and 50 more]",
    );
    // What comes while the bucket is empty waits for the next token, seconds later, not for the next minute.
    check(
        &(storm.join(" ") + " 1:x 2:y! 3:z"),
        "",
        "0 n00, 0 n01, 0 n02, 0 n03, 0 n04, 0 n05, 0 n06, 0 n07, 0 n08, 0 [n09 and 50 more], 6 [y! x z]",
    );
}

#[test]
fn a_digest_that_failed_goes_out_again_whole_before_what_came_after() {
    let storm: Vec<String> = (0..12).map(|n| format!("0:n{n:02}")).collect();
    check(
        &(storm.join(" ") + " 1:n11-"),
        "ok ok ok ok ok ok ok ok ok 500",
        "0 n00, 0 n01, 0 n02, 0 n03, 0 n04, 0 n05, 0 n06, 0 n07, 0 n08, 0 [n09 n10 n11], 6 [n09 n10 n11], 12 n11-",
    );
}

#[test]
fn what_began_and_ended_unheard_is_not_told() {
    let told = tell(lane(), "0:a 1:b 2:b-", "429", 90_000);
    assert_eq!(told.out, "0 a, 30 a");
    assert_eq!(told.dead.len(), 2);
    // An attempt that perhaps arrived must be followed by its end.
    check("0:a 1:a-", "500", "0 a, 4 a, 4 a-");
}

#[test]
fn what_is_refused_is_put_aside_and_the_rest_goes_on() {
    let told = tell(lane(), "0:a 1:b", "400", 90_000);
    assert_eq!(
        (told.out.as_str(), told.dead.as_slice()),
        ("0 a, 1 b", &["400".to_owned()][..])
    );
}

#[test]
fn after_a_day_of_failures_a_message_is_given_up_and_says_why() {
    let told = tell(lane(), "0:a", &"away ".repeat(5000), 2 * 86_400);
    assert_eq!(told.dead, ["given up after 24 h: away"]);
    let last = told.out.rsplit(", ").next().expect("some attempt");
    let (second, _) = last.split_once(' ').expect("second and word");
    let second: i64 = second.parse().expect("a second");
    assert!((86_400..86_400 + 300).contains(&second), "{second}");
}

#[test]
fn a_state_keeping_receiver_gets_digests_of_beginnings_only_and_their_end_under_their_name() {
    let mut lane = Lane::new(Merging::Beginnings, Duration::ZERO, Timestamp(0));
    let now = Timestamp(0);
    for n in 0..11 {
        lane.add(Parcel::of(notice(&format!("n{n:02}!"), now), now), now);
    }
    let mut sent = Vec::new();
    let mut jitter = Jitter(1);
    let mut run = |lane: &mut Lane, second: i64| {
        let now = Timestamp::from_secs(second);
        loop {
            let out = lane.next(now);
            if out.is_empty() {
                break;
            }
            for parcel in out {
                lane.settle(&parcel.id, Verdict::Delivered, now, &mut jitter);
                sent.push(parcel);
            }
        }
    };
    run(&mut lane, 0);
    for word in ["n09!-", "n10!-", "n00!-"] {
        lane.add(
            Parcel::of(notice(word, now), now),
            Timestamp::from_secs(100),
        );
    }
    run(&mut lane, 100);
    let told: Vec<(String, bool)> = sent[9..]
        .iter()
        .map(|p| (words(p), p.under.is_some()))
        .collect();
    let expected = [
        ("[n09! n10!]", false),
        ("n00-", false),
        ("n09-", false),
        ("n10-", true),
    ];
    assert_eq!(told, expected.map(|(w, under)| (w.to_owned(), under)));
    assert_eq!(sent[12].under.as_ref(), Some(&sent[9].id));
}

#[test]
fn what_went_out_unrecorded_is_not_sent_again_when_the_store_has_it() {
    let mut lane = lane();
    let now = Timestamp(0);
    let page = || Parcel::of(notice("a!", now), now);
    let unrecorded = Parcel {
        unrecorded: true,
        ..page()
    };
    assert_eq!(lane.add(unrecorded, now), Added::Waiting);
    let out = lane.next(now);
    lane.settle(&out[0].id, Verdict::Delivered, now, &mut Jitter(1));
    let Added::Settled(attempts) = lane.add(page(), now) else {
        panic!("it was delivered");
    };
    assert_eq!(attempts[0].state, NoticeState::Delivered);
    assert!(lane.next(now).is_empty());
}

#[test]
fn the_same_notice_twice_is_sent_once() {
    check("0:a 0:a", "", "0 a");
    check("0:a 1:a", "500", "0 a, 4 a");
}

#[test]
fn a_clock_that_is_set_back_holds_nothing_up() {
    let mut lane = lane();
    let late = Timestamp::from_secs(10_000);
    lane.add(Parcel::of(notice("a", late), late), late);
    let early = Timestamp::from_secs(10);
    assert_eq!(lane.next(late).len(), 1);
    let retry = verdict("500");
    lane.settle(&notice("a", late).delivery_id, retry, late, &mut Jitter(1));
    assert_eq!(lane.next(early).len(), 1);
}

#[test]
fn what_is_fetched_late_still_goes_before_what_came_after_it() {
    let mut lane = lane();
    let now = Timestamp(0);
    let fetched = Parcel {
        perhaps_taken: true,
        ..Parcel::of(notice("a", now), now)
    };
    lane.add(Parcel::of(notice("a-", now), now), now);
    lane.add(fetched, now);
    assert_eq!(words(&lane.next(now)[0]), "a");
}

#[test]
fn a_full_lane_takes_nothing_more_and_says_so() {
    let mut lane = lane();
    let now = Timestamp(0);
    for n in 0..MAX_WAITING {
        let added = lane.add(Parcel::of(notice(&format!("n{n}"), now), now), now);
        assert_eq!(added, Added::Waiting);
    }
    let more = Parcel::of(notice("more", now), now);
    assert_eq!(lane.add(more.clone(), now), Added::Full);
    // Nine by themselves and a digest of the next 200 make room.
    lane.next(now);
    lane.settle(
        &notice("n0", now).delivery_id,
        Verdict::Delivered,
        now,
        &mut Jitter(1),
    );
    assert_eq!(lane.add(more, now), Added::Waiting);
}
