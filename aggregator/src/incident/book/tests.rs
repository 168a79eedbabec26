//! Stories about the book, in one line each.

use super::*;
use crate::andon::Severity;
use crate::andon::{Kind, RuleUid, Scope};
use crate::incident::testing::transition;
use crate::notify::route::Route;

fn book() -> IncidentBook {
    let routes = vec![
        Route::to("pager", Severity::Critical),
        Route::to("chat", Severity::Warning),
    ];
    IncidentBook::new("c", Routes(routes))
}

/// One word of a story: `4:raise` is the cord of GPU a's Xid at second 4, in the severity spoken last.
fn say(book: &mut IncidentBook, word: &str, severity: &mut Severity) -> Decision {
    let (at, what) = word.split_once(':').expect("a word is second:what");
    let now = Timestamp::from_secs(at.parse().expect("a second"));
    let first = || book.incidents.keys().next().cloned().unwrap_or_default();
    let change = match what {
        "ack" => {
            return book
                .acknowledge(&first(), "ann", None, now)
                .unwrap_or_default();
        }
        "close" => {
            return book
                .close(&first(), CloseReason::FalseAlarm, None, "ann", now)
                .unwrap_or_default();
        }
        "info" | "warning" | "critical" => {
            *severity = match what {
                "info" => Severity::Info,
                "warning" => Severity::Warning,
                _ => Severity::Critical,
            };
            return Decision::default();
        }
        "raise" => Change::Raised,
        "update" => Change::Updated,
        "recover" => Change::Recovering,
        "relapse" => Change::Relapsed,
        "lost" => Change::DataLost,
        "back" => Change::DataBack,
        "clear" => Change::Cleared {
            why: Resolution::Recovered,
        },
        _ => panic!("no such word: {word}"),
    };
    book.apply(&transition("a", Kind::Xid, *severity, change, now), now)
        .unwrap_or_default()
}

fn told(decision: &Decision) -> Vec<String> {
    let words = decision.notices.iter();
    words
        .map(|n| format!("{} {}", n.event.name(), n.receiver))
        .collect()
}

/// Tells a story and compares what people are told, and how many incidents there were and how the last one stands.
fn check(story: &str, expected: &str, stands: &str) {
    let mut book = book();
    let mut severity = Severity::Critical;
    let (mut heard, mut ids, mut last) = (Vec::new(), Vec::new(), String::new());
    for word in story.split_whitespace() {
        let decision = say(&mut book, word, &mut severity);
        heard.extend(told(&decision));
        for incident in decision.incidents {
            last = incident.state.name().to_owned();
            for (on, flag) in [
                (incident.flags.acknowledged, " acknowledged"),
                (incident.flags.unknown, " unknown"),
            ] {
                last += if on { flag } else { "" };
            }
            if !ids.contains(&incident.id) {
                ids.push(incident.id);
            }
        }
    }
    let stood = format!("{} {last}", ids.len());
    assert_eq!(
        (heard.join(", ").as_str(), stood.as_str()),
        (expected, stands),
        "{story}"
    );
}

#[test]
fn an_incident_is_told_when_it_begins_and_when_it_ends_and_not_in_between() {
    check(
        "1:raise 2:recover 3:relapse 4:update 5:recover 6:clear",
        "trigger pager, trigger chat, resolve pager, resolve chat",
        "1 resolved",
    );
    check("1:info 2:raise 3:clear", "", "1 resolved");
    check("1:clear 2:recover", "", "0 ");
}

#[test]
fn a_rise_in_severity_reaches_new_receivers_and_takes_the_acknowledgement_away() {
    check(
        "1:warning 1:raise 2:ack 3:critical 3:update 4:warning 4:update 5:clear",
        "trigger chat, acknowledge chat, update chat, trigger pager, resolve chat, resolve pager",
        "1 resolved",
    );
    check(
        "1:raise 2:ack",
        "trigger pager, trigger chat, acknowledge pager, acknowledge chat",
        "1 firing acknowledged",
    );
    check(
        "1:warning 1:raise 2:ack 2:ack",
        "trigger chat, acknowledge chat",
        "1 firing acknowledged",
    );
}

#[test]
fn no_data_is_not_recovery() {
    check(
        "1:warning 1:raise 2:lost",
        "trigger chat",
        "1 firing unknown",
    );
    check(
        "1:warning 1:raise 2:lost 3:back",
        "trigger chat",
        "1 firing",
    );
}

#[test]
fn what_a_person_closed_stays_closed_until_its_cord_has_cleared() {
    check(
        "1:warning 1:raise 2:close 3:raise 4:relapse 5:clear 6:raise",
        "trigger chat, resolve chat, trigger chat",
        "2 firing",
    );
    check(
        "1:warning 1:raise 2:close 3:ack 4:close",
        "trigger chat, resolve chat",
        "1 closed",
    );
}

#[test]
fn a_story_told_twice_changes_nothing_the_second_time() {
    check(
        "5:raise 5:raise 4:clear 5:clear",
        "trigger pager, trigger chat",
        "1 firing",
    );
}

#[test]
fn a_restart_between_any_two_words_decides_the_same() {
    let story = "1:warning 1:raise 2:critical 3:update 4:recover 5:clear 6:raise 7:close 8:relapse 9:clear 10:raise";
    let words: Vec<&str> = story.split_whitespace().collect();
    let run = |restart: usize| {
        let (mut now, mut severity) = (book(), Severity::Critical);
        let mut decided = Vec::new();
        for (n, word) in words.iter().enumerate() {
            if n == restart {
                // Tell the new book everything again, as a replay of the journal does: nothing is decided twice.
                let kept = now.incidents.into_values().collect();
                let cords = now.newest.into_iter().collect();
                (now, severity) = (book(), Severity::Critical);
                now.load(kept, cords);
                for word in &words[..n] {
                    if !word.ends_with("close") {
                        assert!(say(&mut now, word, &mut severity).is_empty(), "{word}");
                    }
                }
            }
            decided.push(say(&mut now, word, &mut severity));
        }
        decided
    };
    let undisturbed = run(usize::MAX);
    for (restart, word) in words.iter().enumerate() {
        assert_eq!(run(restart), undisturbed, "restart before {word}");
    }
}

fn with_cause(node: &str, kind: Kind, at: i64, cause: Option<(Kind, &str)>) -> Transition {
    let at = Timestamp::from_secs(at);
    let mut raised = transition(node, kind, Severity::Critical, Change::Raised, at);
    raised.consequence_of = cause.map(|(kind, node)| CordKey {
        rule: RuleUid::from(kind.name()),
        scope: format!("gpu:GPU-{node}-3"),
    });
    raised
}

#[test]
fn a_consequence_pages_nobody_and_names_its_cause() {
    let mut book = book();
    let cause = book.apply(&with_cause("a", Kind::GpuLost, 1, None), Timestamp(0));
    let cause_id = cause.expect("new").incidents[0].id.clone();
    let effect = with_cause("a", Kind::GpuIdle, 2, Some((Kind::GpuLost, "a")));
    let decision = book.apply(&effect, Timestamp(0)).expect("new");
    assert!(decision.notices.is_empty());
    assert_eq!(decision.incidents[0].consequence_of, Some(cause_id));
}

#[test]
fn a_page_that_turns_out_to_be_a_consequence_is_folded_once_and_never_resolved() {
    let mut book = book();
    let mut hear =
        |transition: &Transition| told(&book.apply(transition, transition.at).expect("new"));
    assert_eq!(
        hear(&with_cause(
            "a",
            Kind::GpuIdle,
            1,
            Some((Kind::GpuLost, "a"))
        ))
        .len(),
        2
    );
    assert_eq!(
        hear(&with_cause("a", Kind::GpuLost, 60, None)),
        [
            "trigger pager",
            "trigger chat",
            "update pager",
            "update chat"
        ]
    );
    let mut cleared = with_cause("a", Kind::GpuIdle, 70, Some((Kind::GpuLost, "a")));
    cleared.change = Change::Cleared {
        why: Resolution::Recovered,
    };
    assert_eq!(hear(&cleared), Vec::<String>::new());
}

#[test]
fn a_consequence_whose_cause_went_away_stands_alone_and_is_told() {
    let mut book = book();
    let mut hear =
        |transition: &Transition| told(&book.apply(transition, transition.at).expect("new"));
    hear(&with_cause("a", Kind::GpuLost, 1, None));
    assert!(
        hear(&with_cause(
            "a",
            Kind::GpuIdle,
            2,
            Some((Kind::GpuLost, "a"))
        ))
        .is_empty()
    );
    let mut alone = with_cause("a", Kind::GpuIdle, 3, None);
    alone.change = Change::Updated;
    assert_eq!(hear(&alone), ["trigger pager", "trigger chat"]);
}

#[test]
fn a_cord_pulled_by_hand_can_be_pulled_again_once_it_was_closed() {
    let mut book = book();
    let pull = |at| {
        let at = Timestamp::from_secs(at);
        let mut pulled = transition("a", Kind::Manual, Severity::Warning, Change::Raised, at);
        pulled.scope = Scope::Fleet;
        pulled
    };
    let first = book.apply(&pull(1), Timestamp(0)).expect("new").incidents[0]
        .id
        .clone();
    book.close(
        &first,
        CloseReason::Other,
        None,
        "ann",
        Timestamp::from_secs(2),
    )
    .expect("open");
    let second = book.apply(&pull(3), Timestamp(0)).expect("new");
    assert_ne!(second.incidents[0].id, first);
    assert_eq!(book.open().count(), 1);
}

#[test]
fn a_closed_or_unknown_incident_cannot_be_acknowledged() {
    let mut book = book();
    let mut severity = Severity::Warning;
    let id = say(&mut book, "1:raise", &mut severity).incidents[0]
        .id
        .clone();
    say(&mut book, "2:close", &mut severity);
    let now = Timestamp::from_secs(3);
    assert_eq!(
        book.acknowledge(&id, "ann", None, now),
        Err(BookError::Closed(id.clone()))
    );
    assert_eq!(
        book.acknowledge("x", "ann", None, now),
        Err(BookError::NotFound("x".into()))
    );
}
